//! The content of one simulated file, twice: as processes see it (the page cache, and mappings of it) and as the disk
//! has it.
//!
//! The two differ where something was written since the last sync. A sync takes a snapshot of the differing pages when
//! it begins and makes it durable when it ends. A power cut decides for every differing sector, by chance, which of the
//! two it is from now on.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::memory::{FILE_BYTES_MAX, Memory, PAGE_BYTES, Page};
use crate::driver::sim::{
    chance::{Chance, Trace},
    faults::Met,
};

pub(super) const SECTOR_BYTES: usize = 512;
const ZERO: Page = [0; PAGE_BYTES];

pub(in crate::driver::sim) struct Inode {
    number: u64,
    memory: Memory,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    len: u64,
    durable_len: u64,
    /// Space counted against the disk.
    reserved: u64,
    /// Pages on disk; those missing are zero.
    durable: BTreeMap<u64, Box<Page>>,
    /// Pages written since they were last found to be durable. Writes through mappings are found by looking.
    written: BTreeSet<u64>,
    mapped: bool,
    /// Pages as they were when a sync failed: the page cache takes them for clean.
    forsaken: BTreeMap<u64, Box<Page>>,
    /// Pages that would have to be read from the disk.
    cold: BTreeSet<u64>,
    syncs_begun: u64,
    /// The number of the sync that last settled a page, or the length (`None`).
    settled_by: BTreeMap<Option<u64>, u64>,
}

/// What a sync found to write.
pub(in crate::driver::sim) struct Snapshot {
    sync: u64,
    len: u64,
    pages: Vec<(u64, Box<Page>)>,
}

fn pages_of(offset: u64, len: u64) -> std::ops::Range<u64> {
    if len == 0 {
        return 0..0;
    }
    offset / PAGE_BYTES as u64..(offset + len).div_ceil(PAGE_BYTES as u64)
}

impl Inode {
    pub(super) fn new(number: u64) -> io::Result<Self> {
        Ok(Self {
            number,
            memory: Memory::reserve()?,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.memory.as_ptr()
    }

    pub(in crate::driver::sim) fn len(&self) -> u64 {
        self.state().len
    }

    pub(super) fn reserved(&self) -> u64 {
        self.state().reserved
    }

    pub(super) fn reserve(&self, end: u64) -> io::Result<()> {
        if end > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut state = self.state();
        state.reserved = state.reserved.max(end);
        Ok(())
    }

    pub(super) fn set_mapped(&self) {
        self.state().mapped = true;
    }

    pub(in crate::driver::sim) fn set_len(&self, len: u64) -> io::Result<()> {
        if len > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut state = self.state();
        if len < state.len {
            let gone = pages_of(len, state.len - len);
            self.memory.zero(len, state.len);
            let durable: Vec<u64> = state.durable.range(gone).map(|(page, _)| *page).collect();
            state.written.extend(durable);
            state.reserved = state.reserved.min(len);
        }
        state.len = len;
        Ok(())
    }

    /// Fewer bytes than asked only at the end of the file. Past the page cache, what a failed sync left there is not
    /// seen: the disk is.
    pub(super) fn read(&self, into: &mut [u8], offset: u64, is_direct: bool) -> usize {
        let mut state = self.state();
        let count = state.len.saturating_sub(offset).min(into.len() as u64) as usize;
        into[..count].copy_from_slice(self.memory.bytes(offset.min(state.len), count));
        if is_direct {
            state.show_forsaken(&mut into[..count], offset);
        }
        state.warm(offset, count as u64);
        count
    }

    /// The caller has reserved the space.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) {
        let mut state = self.state();
        let end = offset + bytes.len() as u64;
        assert!(end <= state.reserved, "writes go where space was reserved");
        self.memory.write(offset, bytes);
        for page in pages_of(offset, bytes.len() as u64) {
            state.written.insert(page);
            // Whatever a failed sync left there, it is dirty again.
            state.forsaken.remove(&page);
        }
        state.len = state.len.max(end);
        state.warm(offset, bytes.len() as u64);
    }

    /// Whether the disk cannot read a page of the range. Which pages those are hangs on nothing but the file.
    pub(super) fn has_bad_page(&self, offset: u64, len: u64, ppm: u32) -> bool {
        let is_bad = |page| Chance::new(self.number << 32 ^ page).happens(ppm);
        ppm > 0 && pages_of(offset, len).any(is_bad)
    }

    pub(super) fn populate(&self, offset: u64, len: u64) {
        self.state().warm(offset, len);
    }

    pub(super) fn make_cold(&self, offset: u64, len: u64) {
        self.state().cold.extend(pages_of(offset, len));
    }

    pub(super) fn is_warm(&self, offset: u64, len: u64) -> bool {
        self.state()
            .cold
            .range(pages_of(offset, len))
            .next()
            .is_none()
    }

    /// What differs from the disk and is known to.
    pub(super) fn dirty(&self) -> Snapshot {
        let mut state = self.state();
        let pages = self.differing(&mut state);
        let pages = pages
            .into_iter()
            .map(|page| (page, Box::new(*self.memory.page(page))))
            .filter(|(page, bytes)| state.forsaken.get(page) != Some(bytes))
            .collect();
        state.syncs_begun += 1;
        Snapshot {
            sync: state.syncs_begun,
            len: state.len,
            pages,
        }
    }

    /// The pages that differ from the disk. Forgets about written ones that do not.
    fn differing(&self, state: &mut State) -> Vec<u64> {
        if state.mapped {
            state.written.extend(self.memory.touched(state.len));
        }
        let durable = &state.durable;
        state.written.retain(|page| {
            let on_disk = durable.get(page).map_or(&ZERO, |bytes| bytes);
            self.memory.page(*page) != on_disk
        });
        state.written.iter().copied().collect()
    }

    pub(super) fn settle(&self, snapshot: Snapshot) {
        let mut state = self.state();
        if state.is_newest(None, snapshot.sync) {
            state.durable_len = snapshot.len;
        }
        for (page, bytes) in snapshot.pages {
            if state.is_newest(Some(page), snapshot.sync) {
                state.forsaken.remove(&page);
                state.durable.insert(page, bytes);
            }
        }
    }

    /// A failed sync: some sectors got there, and the page cache forgets that the others did not.
    pub(super) fn forsake(&self, snapshot: Snapshot, chance: &mut Chance) {
        let mut state = self.state();
        for (page, bytes) in snapshot.pages {
            let mut on_disk = state.durable.get(&page).map_or(ZERO, |bytes| **bytes);
            copy_some_sectors(&mut on_disk, &bytes, Survival::Mixed, chance);
            if state.is_newest(Some(page), snapshot.sync) {
                state.durable.insert(page, Box::new(on_disk));
                state.forsaken.insert(page, bytes);
            }
        }
    }

    pub(super) fn power_cut(&self, chance: &mut Chance, met: &mut Met) {
        let mut state = self.state();
        let survival = Survival::draw(chance);
        let cached_len = state.len;
        for page in self.differing(&mut state) {
            let mut kept = state.durable.get(&page).map_or(ZERO, |bytes| **bytes);
            copy_some_sectors(&mut kept, self.memory.page(page), survival, chance);
            met.add_page(&kept, self.memory.page(page), survival);
            self.memory.write(page * PAGE_BYTES as u64, &kept);
            state.durable.insert(page, Box::new(kept));
        }
        let len = if survival.keeps(chance) {
            cached_len
        } else {
            state.durable_len
        };
        self.memory.zero(
            len,
            FILE_BYTES_MAX.min(len.max(cached_len).max(state.durable_len)),
        );
        state
            .durable
            .retain(|page, _| page * (PAGE_BYTES as u64) < len);
        if let Some((last, bytes)) = state
            .durable
            .last_entry()
            .map(|entry| (*entry.key(), entry.into_mut()))
        {
            **bytes = *self.memory.page(last);
        }
        *state = State {
            len,
            durable_len: len,
            reserved: state.reserved.max(len),
            cold: state.durable.keys().copied().collect(),
            durable: std::mem::take(&mut state.durable),
            ..State::default()
        };
    }
}

impl Met {
    /// What is left of a page whose newest content was never synced.
    fn add_page(&mut self, kept: &Page, cached: &Page, survival: Survival) {
        let (kept, _) = kept.as_chunks::<SECTOR_BYTES>();
        let (cached, _) = cached.as_chunks::<SECTOR_BYTES>();
        let lost = kept.iter().zip(cached).filter(|(kept, new)| kept != new);
        let lost = lost.count() as u64;
        self.sectors_lost += lost;
        self.pages_torn += u64::from(lost > 0 && matches!(survival, Survival::Mixed));
    }
}

impl State {
    /// Replaces what the page cache wrongly takes for clean by what the disk has.
    fn show_forsaken(&self, shown: &mut [u8], offset: u64) {
        let end = offset + shown.len() as u64;
        for page in self.forsaken.range(pages_of(offset, shown.len() as u64)) {
            let on_disk = self.durable.get(page.0).map_or(&ZERO, |bytes| bytes);
            let start = page.0 * PAGE_BYTES as u64;
            let (from, to) = (start.max(offset), (start + PAGE_BYTES as u64).min(end));
            let part = &on_disk[(from - start) as usize..(to - start) as usize];
            let cached = &page.1[(from - start) as usize..(to - start) as usize];
            let shown = &mut shown[(from - offset) as usize..(to - offset) as usize];
            // Written again since then, it is dirty, and a direct read makes the kernel write it first.
            if shown == cached {
                shown.copy_from_slice(part);
            }
        }
    }

    fn warm(&mut self, offset: u64, len: u64) {
        if self.cold.is_empty() {
            return;
        }
        for page in pages_of(offset, len) {
            self.cold.remove(&page);
        }
    }

    /// Syncs may end in another order than they began; what an older one carries is stale.
    fn is_newest(&mut self, what: Option<u64>, sync: u64) -> bool {
        let settled_by = self.settled_by.entry(what).or_default();
        let newest = sync > *settled_by;
        *settled_by = (*settled_by).max(sync);
        newest
    }
}

/// How a file fares in a power cut: extremes are as likely as mixtures.
#[derive(Clone, Copy)]
enum Survival {
    Nothing,
    Everything,
    Mixed,
}

impl Survival {
    fn draw(chance: &mut Chance) -> Self {
        match chance.below(4) {
            0 => Self::Nothing,
            1 => Self::Everything,
            _ => Self::Mixed,
        }
    }

    fn keeps(self, chance: &mut Chance) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Mixed => chance.flip(),
        }
    }
}

fn copy_some_sectors(on_disk: &mut Page, cached: &Page, survival: Survival, chance: &mut Chance) {
    let (old, _) = on_disk.as_chunks_mut::<SECTOR_BYTES>();
    let (new, _) = cached.as_chunks::<SECTOR_BYTES>();
    for (old, new) in old.iter_mut().zip(new) {
        if old != new && survival.keeps(chance) {
            *old = *new;
        }
    }
}

impl Snapshot {
    pub(super) fn fold_into(&self, trace: &mut Trace) {
        trace.fold(self.len);
        for (page, bytes) in &self.pages {
            trace.fold(*page);
            trace.fold_bytes(&**bytes);
        }
    }

    /// Only what lies in the range, as for a write that is durable by itself.
    pub(super) fn within(mut self, offset: u64, len: u64) -> Self {
        let range = pages_of(offset, len);
        self.pages.retain(|(page, _)| range.contains(page));
        self
    }
}
