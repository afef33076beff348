//! The simulated disk of one node: names, contents, and what of both would survive a power cut.
//!
//! A change of a name is seen at once and durable once its directory was synced; until then it stands in a journal, and
//! a power cut keeps a random beginning of that journal. Contents: see [`content`].

mod content;
mod file;
mod in_flight;
mod memory;
mod names;

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use content::{Inode, Snapshot};
pub(crate) use file::{File, Mapping};
use in_flight::InFlight;
use names::{Change, Names, parent};

use super::{
    chance::{Chance, Trace},
    faults::{Faults, Met},
};

/// What a disk without a limit says it holds.
const UNLIMITED_BYTES: u64 = 1 << 40;

pub(super) struct Disk(Mutex<State>);

pub(super) struct State {
    chance: Chance,
    trace: Trace,
    faults: Faults,
    names: Names,
    durable_names: Names,
    /// Changes of names that are not durable, oldest first.
    journal: Vec<Change>,
    /// Locked files, each with the number of its lock.
    locks: BTreeMap<PathBuf, u64>,
    /// By number.
    in_flight: BTreeMap<u64, InFlight>,
    /// Memory with a name, which outlives processes.
    memory: BTreeMap<PathBuf, OwnedFd>,
    met: Met,
    next_number: u64,
    /// The process is being dropped: nothing it still does reaches the disk.
    frozen: bool,
}

impl Disk {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self(Mutex::new(State {
            chance: Chance::new(seed),
            trace: Trace::default(),
            faults,
            names: Names::default(),
            durable_names: Names::default(),
            journal: Vec::new(),
            locks: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            memory: BTreeMap::new(),
            met: Met::default(),
            next_number: 0,
            frozen: false,
        }))
    }

    /// Access for the running process.
    pub(super) fn with<R>(
        &self,
        access: impl FnOnce(&mut State) -> io::Result<R>,
    ) -> io::Result<R> {
        self.always(|state| {
            if state.frozen {
                return Err(io::Error::other("the process on this node has ended"));
            }
            access(state)
        })
    }

    fn always<R>(&self, access: impl FnOnce(&mut State) -> R) -> R {
        access(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn freeze(&self) {
        self.always(|state| state.frozen = true);
    }

    /// A new process may begin: what the last one had locked is free.
    pub(super) fn thaw(&self) {
        self.always(|state| {
            state.locks.clear();
            state.frozen = false;
        });
    }

    /// What the killed process had given the disk goes its own way.
    pub(super) fn orphan_writes(&self) {
        self.always(State::orphan_writes);
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        self.always(|state| state.faults = faults);
    }

    pub(super) fn set_size(&self, bytes: Option<u64>) {
        self.always(|state| state.faults.full_at_bytes = bytes);
    }

    pub(super) fn met(&self) -> Met {
        self.always(|state| state.met)
    }

    pub(super) fn trace(&self) -> u64 {
        self.always(|state| state.trace.value())
    }

    pub(super) fn power_cut(&self) {
        self.always(State::power_cut);
    }

    pub(super) fn unlock(&self, path: &Path, number: u64) {
        self.always(|state| {
            if state.locks.get(path) == Some(&number) {
                state.locks.remove(path);
            }
        });
    }
}

/// Names.
impl State {
    /// Applies a change of names and remembers it until a sync of its directory.
    fn change(&mut self, change: Change) {
        self.trace.fold_bytes(change.describe().as_bytes());
        self.names.apply(&change);
        self.journal.push(change);
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Arc<Inode>> {
        match self.names.files.get(path) {
            Some(inode) => Ok(inode.clone()),
            None if self.names.is_dir(path) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn find_or_create(&mut self, path: &Path) -> io::Result<Arc<Inode>> {
        match self.find(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            found => return found,
        }
        if !self.names.is_dir(&parent(path)) {
            return Err(ErrorKind::NotFound.into());
        }
        self.next_number += 1;
        let inode = Arc::new(Inode::new(self.next_number)?);
        self.change(Change::Create(path.to_owned(), inode.clone()));
        Ok(inode)
    }

    pub(super) fn make_dirs(&mut self, directory: &Path) -> io::Result<()> {
        let mut missing: Vec<PathBuf> = Vec::new();
        for ancestor in directory.ancestors() {
            if self.names.files.contains_key(ancestor) {
                return Err(ErrorKind::NotADirectory.into());
            }
            if self.names.is_dir(ancestor) {
                break;
            }
            missing.push(ancestor.to_owned());
        }
        for directory in missing.into_iter().rev() {
            self.change(Change::MakeDir(directory));
        }
        Ok(())
    }

    pub(super) fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.require_dir(directory)?;
        let inside = self
            .names
            .files
            .keys()
            .filter(|path| parent(path) == directory);
        let names = inside.filter_map(|path| path.file_name());
        Ok(names
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.names.files.contains_key(path) || self.names.is_dir(path)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.exists(from) || !self.names.is_dir(&parent(to)) {
            return Err(ErrorKind::NotFound.into());
        }
        let change = match self.names.files.get(from) {
            Some(_) if self.names.is_dir(to) => return Err(ErrorKind::IsADirectory.into()),
            Some(inode) => Change::Rename(from.to_owned(), to.to_owned(), inode.clone()),
            None if self.names.files.contains_key(to) => {
                return Err(ErrorKind::NotADirectory.into());
            }
            None if !self.names.is_empty_dir_or_missing(to) => {
                return Err(ErrorKind::DirectoryNotEmpty.into());
            }
            None => Change::RenameDir(from.to_owned(), to.to_owned()),
        };
        self.change(change);
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        self.change(Change::Remove(path.to_owned()));
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, directory: &Path) -> io::Result<()> {
        self.require_dir(directory)?;
        self.change(Change::RemoveDir(directory.to_owned()));
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, directory: &Path) -> io::Result<()> {
        self.require_dir(directory)?;
        if self.chance.happens(self.faults.fsync_error_ppm) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        // What becomes durable takes along what had to come before it: a file system's journal keeps its order.
        let mut is_durable = vec![false; self.journal.len()];
        for number in (0..self.journal.len()).rev() {
            let later = self.journal[number + 1..]
                .iter()
                .zip(&is_durable[number + 1..]);
            let change = &self.journal[number];
            is_durable[number] = change.is_in(directory)
                || later
                    .into_iter()
                    .any(|(later, durable)| *durable && later.needs(change));
        }
        let mut is_durable = is_durable.into_iter();
        let (durable, left): (Vec<Change>, Vec<Change>) = std::mem::take(&mut self.journal)
            .into_iter()
            .partition(|_| is_durable.next().unwrap_or(false));
        self.journal = left;
        self.trace.fold_all([11, durable.len() as u64]);
        for change in &durable {
            self.durable_names.apply(change);
        }
        Ok(())
    }

    fn require_dir(&self, directory: &Path) -> io::Result<()> {
        if self.names.is_dir(directory) {
            Ok(())
        } else if self.names.files.contains_key(directory) {
            Err(ErrorKind::NotADirectory.into())
        } else {
            Err(ErrorKind::NotFound.into())
        }
    }

    pub(super) fn is_file(&self, path: &Path) -> bool {
        self.names.files.contains_key(path)
    }

    pub(super) fn is_locked(&self, path: &Path) -> bool {
        self.locks.contains_key(path)
    }

    /// The number of a new lock on `path`.
    pub(super) fn lock(&mut self, path: &Path) -> io::Result<u64> {
        if self.locks.contains_key(path) || !self.orphans_have_landed() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.next_number += 1;
        self.locks.insert(path.to_owned(), self.next_number);
        Ok(self.next_number)
    }
}

/// Memory with a name.
impl State {
    pub(super) fn boots(&self) -> u64 {
        self.met.power_cuts
    }

    pub(super) fn keep_memory(&mut self, path: &Path, fd: OwnedFd) {
        self.memory.insert(path.to_owned(), fd);
    }

    pub(super) fn find_memory(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        self.memory.get(path).map(OwnedFd::try_clone).transpose()
    }

    pub(super) fn remove_memory(&mut self, path: &Path) {
        self.memory.remove(path);
    }
}

/// Contents.
impl State {
    pub(super) fn total_bytes(&self) -> u64 {
        self.faults.full_at_bytes.unwrap_or(UNLIMITED_BYTES)
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.total_bytes().saturating_sub(self.used_bytes())
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.names
            .files
            .values()
            .map(|inode| inode.reserved())
            .sum()
    }

    /// Space for the file up to `end`, counted against the disk's size.
    pub(super) fn reserve(&mut self, inode: &Inode, end: u64) -> io::Result<()> {
        let more = end.saturating_sub(inode.reserved());
        if more == 0 {
            return Ok(());
        }
        if self.faults.full_at_bytes.is_some() && more > self.free_bytes() {
            self.met.disk_full += 1;
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        inode.reserve(end)
    }

    pub(super) fn write(&mut self, inode: &Inode, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.reserve(inode, offset + bytes.len() as u64)?;
        if self.chance.happens(self.faults.write_error_ppm) {
            self.met.write_errors += 1;
            let written = self.chance.below(bytes.len() + 1);
            inode.write(&bytes[..written], offset);
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        inode.write(bytes, offset);
        self.trace.fold_all([12, inode.number(), offset]);
        self.trace.fold_bytes(bytes);
        Ok(())
    }

    pub(super) fn read(
        &mut self,
        inode: &Inode,
        into: &mut [u8],
        offset: u64,
        is_direct: bool,
    ) -> io::Result<usize> {
        if self.chance.happens(self.faults.read_error_ppm) {
            self.met.read_errors += 1;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if inode.has_bad_page(offset, into.len() as u64, self.faults.bad_page_ppm) {
            self.met.bad_pages += 1;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let count = inode.read(into, offset, is_direct);
        if count > 0 && self.chance.happens(self.faults.bit_flip_ppm) {
            self.met.bits_flipped += 1;
            into[self.chance.below(count)] ^= 1 << self.chance.below(8);
        }
        Ok(count)
    }

    /// What a sync that begins now will make durable.
    pub(super) fn begin_sync(&mut self, inode: &Inode) -> Snapshot {
        let snapshot = inode.dirty();
        self.trace.fold_all([13, inode.number()]);
        snapshot.fold_into(&mut self.trace);
        snapshot
    }

    pub(super) fn end_sync(&mut self, inode: &Inode, snapshot: Snapshot) -> io::Result<()> {
        if self.chance.happens(self.faults.fsync_error_ppm) {
            self.met.sync_errors += 1;
            inode.forsake(snapshot, &mut self.chance);
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.trace.fold_all([14, inode.number()]);
        inode.settle(snapshot);
        Ok(())
    }

    /// What comes back when the power does.
    fn power_cut(&mut self) {
        self.met.power_cuts += 1;
        self.memory.clear();
        self.land_all();
        let kept = self.chance.below(self.journal.len() + 1);
        self.trace.fold_all([15, kept as u64]);
        self.met.names_undone += (self.journal.len() - kept) as u64;
        for change in self.journal.drain(..).take(kept) {
            self.durable_names.apply(&change);
        }
        self.names = self.durable_names.clone();
        let files: Vec<Arc<Inode>> = self.names.files.values().cloned().collect();
        for inode in files {
            inode.power_cut(&mut self.chance, &mut self.met);
        }
    }
}
