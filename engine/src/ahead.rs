//! What is done ahead of the tail beside the writer: touching pages, and making the next segment.
//!
//! A page fault or a file creation must not hold up the core that appends. After a restart the bytes behind the
//! recovered end may be stale records that line up with what is written next; so there the tail may only go as
//! far as this room has looked, and zeroed what it found. Where the log is written from a window there are no pages
//! to touch, and the window bounds the tail as well; but where every write is synced, zeros are written ahead of the
//! tail: what was written before is synced twice as fast as what was only allocated.
//!
//! Zeros that are written into the tail's own file change where the file system says its bytes are, and the next commit
//! has to sync that as well. So they go into the next file, at the pace of the tail, while the tail fills this one; and
//! into the first file of a store before there is much to commit.

use crate::append::AppendError;
use crate::config::Config;
use crate::flush::Flusher;
use crate::layout::Layout;
use crate::segment::{Medium, Memory, Segment, is_out_of_space};
use crate::window::{BLOCK_BYTES, is_zero};
use protocol::record;
use reactor::{Buffer, Mapping, Notify, fs, offload};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Pages are touched in steps of this size.
const STEP_BYTES: u64 = 4 << 20;
/// Zeros are written, and stale blocks looked at, in pieces of this size: what else goes to the disk waits for no more, and neither
/// does the core.
const PIECE_BYTES: usize = 256 << 10;
/// Zeros nobody waits for: so many at once while nothing is appended.
const IDLE_BYTES: u64 = 4 << 20;
/// How long they wait in between.
const IDLE_PAUSE: Duration = Duration::from_millis(4);
/// How long after a failed attempt the next segment is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The writer's core only: the writer and the task that runs [`Ahead::run`] share it.
pub(crate) struct Ahead {
    layout: Arc<Layout>,
    flusher: Rc<Flusher>,
    segment_bytes: u64,
    /// Half of it is what the tail has in front of it at least, as long as the other thread keeps up.
    distance_bytes: u64,
    /// The log is written past the page cache.
    is_direct: bool,
    /// Zeros are written ahead of the tail.
    writes_zeros: bool,
    /// A job is being done.
    is_busy: Cell<bool>,
    /// No further job is begun.
    is_stopped: Cell<bool>,
    state: RefCell<State>,
    /// What zeros are written from, again and again: new memory costs a page fault for each page of it.
    zeros: Cell<Option<Buffer>>,
    /// What is looked at is read into, for the same reason.
    looked_at: Cell<Option<Buffer>>,
    /// Something to do.
    wake: Notify,
    /// Something was done.
    done: Notify,
}

struct State {
    segment: Arc<Segment>,
    /// The tail, as of the last publish.
    position: u64,
    /// Pages below are touched, and checked if need be.
    touched: u64,
    /// How far the writer waits for them, whatever the distance.
    wanted: u64,
    /// Whether the tail has to stay below `touched`.
    bounded: bool,
    /// Whether anything but zeros may be ahead.
    stale: bool,
    next: Next,
    next_wanted: bool,
}

enum Next {
    Missing,
    /// And below where it is touched.
    Ready(Arc<Segment>, u64),
    Failed(AppendError),
}

enum Job {
    Touch {
        from: u64,
        to: u64,
    },
    Create {
        base: u64,
    },
    /// Zeros for the next segment.
    Zero {
        from: u64,
        to: u64,
    },
    None,
}

impl Ahead {
    /// For a tail at `position` of `segment`. If `stale`, what lies behind it is looked at before it is used.
    pub fn new(
        layout: Arc<Layout>,
        flusher: Rc<Flusher>,
        config: &Config,
        segment: Arc<Segment>,
        position: u64,
        stale: bool,
    ) -> Ahead {
        let is_direct = matches!(segment.medium(), Medium::Direct(_));
        let writes_zeros = is_direct && config.sync_flush;
        let bounded = stale || writes_zeros;
        let touched = match segment.medium() {
            Medium::Mapped => position,
            // The rest of the tail's block was looked at before the window began.
            Medium::Direct(_) if bounded => position.next_multiple_of(BLOCK_BYTES),
            Medium::Direct(_) => segment.bytes(),
        };
        Ahead {
            layout,
            flusher,
            segment_bytes: segment.bytes(),
            distance_bytes: config.touch_ahead_bytes.max(STEP_BYTES),
            is_direct,
            writes_zeros,
            is_busy: Cell::new(false),
            is_stopped: Cell::new(false),
            state: RefCell::new(State {
                segment,
                position,
                touched,
                wanted: 0,
                bounded,
                stale,
                next: Next::Missing,
                next_wanted: false,
            }),
            zeros: Cell::new(None),
            looked_at: Cell::new(None),
            wake: Notify::new(),
            done: Notify::new(),
        }
    }

    /// How far the tail may go in its segment now, if it wants to go as far as `wanted`.
    pub fn limit(&self, wanted: u64) -> u64 {
        let base = self.state.borrow().segment.base();
        let checked = self.checked();
        match self.flusher.room(base + wanted) {
            Some(room) => room.saturating_sub(base).min(checked),
            None => checked,
        }
    }

    /// Up to where nothing stale is in the tail's way.
    fn checked(&self) -> u64 {
        let state = self.state.borrow();
        if state.bounded && state.touched < self.segment_bytes {
            state.touched
        } else {
            self.segment_bytes
        }
    }

    /// Says where the tail is; wakes the task if there is something to do.
    pub fn advance(&self, position: u64) {
        let mut state = self.state.borrow_mut();
        state.position = position;
        if position >= self.next_from() {
            state.next_wanted = true;
        }
        if !matches!(self.job(&state), Job::None) {
            self.wake.notify();
        }
    }

    /// Resumes when something was done towards a limit of `wanted`.
    pub async fn moved(&self, wanted: u64) {
        if self.checked() >= wanted {
            self.flusher.more_room().await;
            return;
        }
        self.state.borrow_mut().wanted = wanted;
        self.wake.notify();
        self.done.notified().await;
    }

    /// The next segment, as soon as it is there.
    pub async fn next(&self) -> Result<Arc<Segment>, AppendError> {
        loop {
            {
                let mut state = self.state.borrow_mut();
                state.next_wanted = true;
                match &state.next {
                    Next::Missing => {}
                    Next::Failed(error) => return Err(*error),
                    Next::Ready(segment, touched) => {
                        let (segment, touched) = (segment.clone(), *touched);
                        state.segment = segment.clone();
                        state.position = 0;
                        state.touched = touched;
                        state.wanted = 0;
                        state.bounded = self.writes_zeros;
                        state.stale = false;
                        state.next = Next::Missing;
                        state.next_wanted = false;
                        return Ok(segment);
                    }
                }
            }
            self.wake.notify();
            self.done.notified().await;
        }
    }

    /// The task: works ahead for as long as the store is open.
    pub async fn run(self: Rc<Ahead>) {
        loop {
            let job = self.job(&self.state.borrow());
            self.is_busy.set(!matches!(job, Job::None));
            match job {
                Job::Touch { from, to } => self.touch(from, to).await,
                Job::Create { base } => self.create(base).await,
                Job::Zero { from, to } => self.zero_next(from, to).await,
                Job::None => {
                    let failed = matches!(self.state.borrow().next, Next::Failed(_));
                    if failed {
                        reactor::sleep(RETRY).await;
                        self.state.borrow_mut().next = Next::Missing;
                    } else {
                        self.idle().await;
                    }
                    continue;
                }
            }
            self.is_busy.set(false);
            self.done.notify();
        }
    }

    /// Ends what is being done, and begins nothing more: zeros that are on their way must not land on what is written
    /// after the next start.
    pub async fn settle(&self) {
        self.is_stopped.set(true);
        while self.is_busy.get() {
            self.done.notified().await;
        }
    }

    fn job(&self, state: &State) -> Job {
        if self.is_stopped.get() {
            return Job::None;
        }
        let ahead = state.position + self.distance_bytes / 2;
        if state.touched < ahead.max(state.wanted).min(self.segment_bytes) {
            let from = state
                .touched
                .max(if state.bounded { 0 } else { state.position });
            let step = match self.is_direct {
                true => PIECE_BYTES as u64,
                false => STEP_BYTES,
            };
            let to = (from + step).min(self.segment_bytes);
            return Job::Touch { from, to };
        }
        match state.next {
            Next::Missing if state.next_wanted => {
                let base = state.segment.end();
                Job::Create { base }
            }
            Next::Ready(_, from) if from < self.next_touched(state.position) => {
                let to = (from + PIECE_BYTES as u64).min(self.segment_bytes);
                Job::Zero { from, to }
            }
            _ => Job::None,
        }
    }

    /// From which position on the next segment is made.
    fn next_from(&self) -> u64 {
        match self.writes_zeros {
            true => self.segment_bytes / 4,
            false => self.segment_bytes / 2,
        }
    }

    /// How far the next segment is to be zero when the tail is at `position`.
    fn next_touched(&self, position: u64) -> u64 {
        match self.writes_zeros {
            true => paced(self.segment_bytes, self.next_from(), position),
            false => 0,
        }
    }

    /// Waits for work. Meanwhile the rest of a new store's first segment becomes zero, so slowly that no commit feels it.
    async fn idle(&self) {
        let rest = {
            let state = self.state.borrow();
            let is_new = self.writes_zeros && !state.stale && !self.is_stopped.get();
            (is_new && state.touched < self.segment_bytes)
                .then_some((state.touched, state.position))
        };
        let Some((from, position)) = rest else {
            return self.wake.notified().await;
        };
        let woken = reactor::timeout(IDLE_PAUSE, self.wake.notified()).await;
        if woken.is_ok() || self.is_stopped.get() {
            return;
        }
        let bytes = match self.state.borrow().position == position {
            true => IDLE_BYTES,
            false => PIECE_BYTES as u64,
        };
        let to = (from + bytes).min(self.segment_bytes);
        self.is_busy.set(true);
        self.touch(from, to).await;
        self.is_busy.set(false);
        self.done.notify();
    }

    async fn zero_next(&self, from: u64, to: u64) {
        let segment = match &self.state.borrow().next {
            Next::Ready(segment, _) => segment.clone(),
            Next::Missing | Next::Failed(_) => return,
        };
        if let Err(error) = self.write_zeros(&segment, from, to).await {
            tracing::warn!(%error, from, to, "preparing the next log segment failed");
        }
        let mut state = self.state.borrow_mut();
        if state.segment.base() == segment.base() {
            state.touched = state.touched.max(to);
        } else if let Next::Ready(next, touched) = &mut state.next {
            debug_assert_eq!(next.base(), segment.base());
            *touched = to;
        }
    }

    async fn touch(&self, from: u64, to: u64) {
        let (segment, stale) = {
            let state = self.state.borrow();
            (state.segment.clone(), state.stale)
        };
        let base = segment.base();
        let hot = segment.hot().as_ref().expect("the tail is hot").clone();
        let touched = match &hot.memory {
            Memory::Mapped(mapping) => {
                let mapping = mapping.clone();
                offload("touch log pages", move || {
                    touch(&mapping, base, from, to, stale)
                })
                .await
            }
            Memory::Window(_) if self.writes_zeros => {
                let zeroed = if stale {
                    Touched::StaleZeroed
                } else {
                    Touched::Clean
                };
                self.write_zeros(&segment, from, to).await.map(|()| zeroed)
            }
            Memory::Window(_) => self.make_zero(&segment, from, to).await,
        };
        let touched = match touched {
            Ok(Touched::StaleZeroed) => self.flusher.sync_segment(&segment).await,
            other => other.map(drop),
        };
        // Touching is a help, and the log's own writes will tell; only what may be stale must not be passed.
        if let Err(error) = touched {
            tracing::warn!(%error, from, to, "preparing the log ahead of its tail failed");
            if stale {
                self.flusher.failed("preparing", &segment, error);
                self.is_stopped.set(true);
                return;
            }
        }
        let mut state = self.state.borrow_mut();
        if state.segment.base() == base {
            state.touched = to;
        }
    }

    async fn create(&self, base: u64) {
        let next = match self.make_segment(base).await {
            Ok(segment) => Next::Ready(Arc::new(segment), self.first_touched()),
            Err(error) => {
                let used_percent = used_percent(self.layout.log_dir_of(base));
                tracing::error!(%error, used_percent, "the next log segment cannot be made");
                Next::Failed(match is_out_of_space(&error) {
                    true => AppendError::DiskFull { used_percent },
                    false => AppendError::NoFile { why: error.kind() },
                })
            }
        };
        self.state.borrow_mut().next = next;
    }

    /// In the log directory whose turn it is, or in another one if its disk is full.
    async fn make_segment(&self, base: u64) -> io::Result<Segment> {
        let mut refused = None;
        for dir in self.layout.dirs_for(base) {
            match self.make_segment_in(dir, base).await {
                Err(error) if is_out_of_space(&error) => {
                    tracing::warn!(%error, dir = %self.layout.log_dirs()[dir].display(), "no room for a log segment");
                    refused = refused.or(Some(error));
                }
                other => return other,
            }
        }
        Err(refused.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }

    /// The other thread is not kept waiting for the disk: the tail's pages need it.
    async fn make_segment_in(&self, dir: usize, base: u64) -> io::Result<Segment> {
        let bytes = self.segment_bytes;
        let layout = self.layout.clone();
        let allocate = move || Segment::allocate(&layout, dir, base, bytes);
        let spare = offload("allocate a log segment", allocate).await?;
        spare.sync_data().await?;
        let layout = self.layout.clone();
        let touched = self.first_touched();
        let medium = self.state.borrow().segment.medium().clone();
        let installed = offload("open a log segment", move || {
            let segment = Segment::install(&layout, dir, base, bytes, &medium)?;
            if let Some(hot) = segment.hot().as_ref()
                && let Memory::Mapped(mapping) = &hot.memory
            {
                mapping.populate(0, touched as usize)?;
            }
            Ok::<_, io::Error>(segment)
        });
        let segment = installed.await?;
        if self.writes_zeros {
            self.write_zeros(&segment, 0, touched).await?;
        }
        Ok(segment)
    }

    /// Writes zeros to `from..to` of the segment's file, whole blocks. The tail is not there yet. One write at a time, as the
    /// tail goes on: many at once would hold up every commit for milliseconds.
    async fn write_zeros(&self, segment: &Segment, from: u64, to: u64) -> io::Result<()> {
        let kept = self.zeros.take();
        let mut zeros = kept
            .or_else(|| Buffer::several(1, PIECE_BYTES).pop())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let mut at = from;
        while at < to {
            let step = (to - at).min(PIECE_BYTES as u64);
            zeros.set_len(step as usize);
            let (written, buffer) = segment.file().write_at(zeros, at).await;
            written?;
            zeros = buffer;
            at += step;
        }
        self.zeros.set(Some(zeros));
        Ok(())
    }

    /// Reads `from..to` of the segment's file, whole blocks, and zeroes what is not zero. Durable only once synced.
    async fn make_zero(&self, segment: &Segment, from: u64, to: u64) -> io::Result<Touched> {
        let len = (to - from) as usize;
        let kept = self.looked_at.take();
        let buffer = kept
            .or_else(|| Buffer::several(1, PIECE_BYTES).pop())
            .filter(|buffer| buffer.capacity() >= len)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let file = segment.file();
        let (read, mut bytes) = file.read_at(buffer, from, len).await;
        if read? < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let is_clean = is_zero(&bytes);
        if !is_clean {
            bytes.fill(0);
            let written;
            (written, bytes) = file.write_at(bytes, from).await;
            written?;
        }
        self.looked_at.set(Some(bytes));
        // Whatever it was: what lies in front may be cut off by the next power cut, and this come back behind it.
        Ok(match is_clean {
            true => Touched::Clean,
            false => Touched::StaleZeroed,
        })
    }

    /// Leaves nothing behind the log's end, once the task has been cancelled: neither a half-made next segment, nor
    /// what a cut left further ahead than anybody has looked. Others who read the log check less than we do.
    pub async fn tidy(&self) {
        if let Err(error) = self.zero_rest().await {
            tracing::warn!(%error, "something may be left behind the end of the log");
        }
        let spares = self.layout.spares(self.state.borrow().segment.end());
        // Jobs of the other thread are done in order: whatever the task had begun there is over by then.
        offload("remove an unfinished log segment", move || {
            for spare in spares {
                if fs::exists(&spare)
                    && let Err(error) = fs::remove_file(&spare)
                {
                    tracing::warn!(%error, path = %spare.display(), "an unfinished log segment is left");
                }
            }
        })
        .await;
    }

    /// Zeroes, durably, what nobody has looked at behind the tail.
    async fn zero_rest(&self) -> io::Result<()> {
        let (segment, mut at) = {
            let state = self.state.borrow();
            if !state.stale {
                return Ok(());
            }
            (state.segment.clone(), state.touched.max(state.position))
        };
        let uncached = segment.uncached().await;
        let shown = uncached.as_ref().unwrap_or(segment.file());
        let mut found_any = false;
        while at < self.segment_bytes {
            let block = at / BLOCK_BYTES * BLOCK_BYTES;
            let len = STEP_BYTES.min(self.segment_bytes - block) as usize;
            let buffer = Buffer::with_capacity(len);
            let (read, mut bytes) = shown.read_at(buffer, block, len).await;
            if read? < len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !is_zero(&bytes[(at - block) as usize..]) {
                let left = len - (at - block) as usize;
                bytes.set_len(left);
                bytes.fill(0);
                segment.file().write_at(bytes, at).await.0?;
                found_any = true;
            }
            at = block + len as u64;
        }
        if found_any {
            segment.file().sync_data().await?;
        }
        Ok(())
    }

    /// How much of a new segment is touched before it is handed over.
    fn first_touched(&self) -> u64 {
        match self.state.borrow().segment.medium() {
            Medium::Direct(_) if !self.writes_zeros => self.segment_bytes,
            _ => (self.distance_bytes / 2).min(self.segment_bytes),
        }
    }
}

/// How much of the next segment is to be done when the tail is at `position` of one of the same size: nothing at `from`,
/// all of it a little before the end.
fn paced(bytes: u64, from: u64, position: u64) -> u64 {
    let way = (bytes / 16 * 15).saturating_sub(from).max(1);
    let gone = position.saturating_sub(from).min(way);
    (u128::from(bytes) * u128::from(gone) / u128::from(way)) as u64
}

fn used_percent(dir: &std::path::Path) -> u8 {
    match (fs::free_bytes(dir), fs::total_bytes(dir)) {
        (Ok(free), Ok(total)) if total > 0 => (100 - free.min(total) * 100 / total) as u8,
        _ => 100,
    }
}

enum Touched {
    Clean,
    /// To be synced: what was there could be taken for one of our records.
    StaleZeroed,
}

/// Brings `from..to` of the segment into memory. If `stale`, anything but zeros there is zeroed. Blocks.
fn touch(mapping: &Mapping, base: u64, from: u64, to: u64, stale: bool) -> io::Result<Touched> {
    let (at, len) = (from as usize, (to - from) as usize);
    mapping.populate(at, len)?;
    if !stale {
        return Ok(Touched::Clean);
    }
    let overhang = record::SYS_FLAG_AT.min(mapping.len() - at - len);
    // SAFETY: the tail stays below `touched` while stale bytes are looked for, so nobody else uses these bytes, nor the
    // few behind them, which are checked next.
    let shown = unsafe { mapping.bytes(at, len + overhang) };
    if is_zero(&shown[..len]) {
        return Ok(Touched::Clean);
    }
    let has_record = has_stale_record(shown, base + from);
    // SAFETY: as above, and `shown` is not used any more.
    unsafe { mapping.bytes_mut(at, len) }.fill(0);
    Ok(if has_record {
        Touched::StaleZeroed
    } else {
        Touched::Clean
    })
}

/// Whether a record header lies in `bytes` that claims exactly the log offset it is found at.
fn has_stale_record(bytes: &[u8], log_offset: u64) -> bool {
    bytes
        .windows(record::SYS_FLAG_AT)
        .zip(log_offset..)
        .any(|(window, at)| {
            let magic = &window[record::MAGIC_AT..record::BODY_CRC_AT];
            let of_a_record =
                magic == record::MAGIC_V1.to_be_bytes() || magic == record::MAGIC_V2.to_be_bytes();
            of_a_record && window[record::LOG_OFFSET_AT..record::SYS_FLAG_AT] == at.to_be_bytes()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_segment_is_done_before_its_turn_and_no_earlier_than_it_has_to() {
        for bytes in [4096, 64 << 10, 1 << 30, (1 << 31) - 4096] {
            let from = bytes / 4;
            let done: Vec<u64> = (0..=64)
                .map(|n| paced(bytes, from, bytes / 64 * n))
                .collect();
            assert!(done.is_sorted());
            assert_eq!((done[16], done[60], done[64]), (0, bytes, bytes));
            assert!(done[38] > bytes / 100 * 45 && done[38] < bytes / 100 * 55);
        }
    }

    #[test]
    fn only_a_record_that_claims_its_own_place_is_stale() {
        let mut bytes = vec![0u8; 200];
        bytes[54..58].copy_from_slice(&record::MAGIC_V1.to_be_bytes());
        assert!(!has_stale_record(&bytes, 1_000));
        bytes[78..86].copy_from_slice(&1_050u64.to_be_bytes());
        assert!(has_stale_record(&bytes, 1_000));
        assert!(!has_stale_record(&bytes, 1_001));
    }
}
