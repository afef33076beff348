//! The disk itself: names, contents, durability, space and faults, one operation at a time. It knows nothing of FUSE;
//! one lock around it makes every operation atomic, and its order the order of the trace.
//!
//! Live content lies in one object per file in the backing directory. Errors are errno values.

mod content;
mod cut;
mod import;
mod space;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::faults::{Command, Fate, Faults, Op};
use crate::names::{Change, Id, Kind, Names, Place, ROOT};
use crate::trace::{Event, Recorder};

pub use content::Allocation;
use content::Content;
pub use space::Space;

pub type Errno = i32;
pub type Result<T> = std::result::Result<T, Errno>;

/// Where the objects lie in the backing directory while the disk is in use.
const OBJECTS: &str = ".objects";

pub struct Disk {
    backing: PathBuf,
    names: Names,
    files: BTreeMap<Id, Content>,
    next_id: u64,
    faults: Faults,
    recorder: Option<Recorder>,
    /// Power cuts so far. What was opened before one is gone.
    cuts: u64,
    /// How many bytes fit; `None`: as many as the backing disk takes.
    capacity_bytes: Option<u64>,
    used_bytes: u64,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    reads: u64,
    writes: u64,
    written_bytes: u64,
    syncs: u64,
    durable_writes: u64,
    directory_syncs: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    pub id: Id,
    pub kind: Kind,
    pub len: u64,
    pub allocated_bytes: u64,
    pub changed: SystemTime,
}

/// What a sync was asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncOf {
    /// Everything that was written to the file.
    File,
    /// A handle whose writes are durable one by one: the kernel syncs behind each of them. Only the length is left.
    DurableHandle,
}

impl Disk {
    /// Takes over the files that are in the backing directory.
    pub fn open(backing: &Path, recorder: Option<Recorder>) -> io::Result<Disk> {
        let mut disk = Disk {
            backing: backing.to_path_buf(),
            names: Names::default(),
            files: BTreeMap::new(),
            next_id: ROOT.0 + 1,
            faults: Faults::default(),
            recorder: None,
            cuts: 0,
            capacity_bytes: None,
            used_bytes: 0,
            counts: Counts::default(),
        };
        disk.import()?;
        if recorder.is_some() && !disk.files.is_empty() {
            return Err(io::Error::other(
                "a trace begins with an empty backing directory",
            ));
        }
        disk.recorder = recorder;
        Ok(disk)
    }

    pub fn cuts(&self) -> u64 {
        self.cuts
    }

    pub fn set_capacity(&mut self, bytes: u64) {
        self.capacity_bytes = Some(bytes);
    }

    pub fn delay(&self, op: Op) -> Duration {
        self.faults.delay(op)
    }

    /// Paths of files that are read otherwise than they are written.
    pub fn damaged(&self) -> Vec<String> {
        self.faults.damaged()
    }

    pub fn names(&self) -> &Names {
        &self.names
    }

    pub fn lookup(&self, at: &Place) -> Result<Attributes> {
        let (id, _) = self.names.live().lookup(at).ok_or(libc::ENOENT)?;
        self.attributes(id)
    }

    pub fn attributes(&self, id: Id) -> Result<Attributes> {
        if let Some(content) = self.files.get(&id) {
            return Ok(content.attributes(id));
        }
        if !self.names.live().is_directory(id) {
            return Err(libc::ESTALE);
        }
        Ok(Attributes {
            id,
            kind: Kind::Directory,
            len: 0,
            allocated_bytes: 0,
            changed: SystemTime::UNIX_EPOCH,
        })
    }

    pub fn create(&mut self, at: Place, kind: Kind) -> Result<Attributes> {
        self.may(Op::Meta, &at)?;
        if self.names.live().lookup(&at).is_some() {
            return Err(libc::EEXIST);
        }
        if !self.names.live().is_directory(at.directory) {
            return Err(libc::ENOENT);
        }
        let id = Id(self.next_id);
        self.next_id += 1;
        if kind == Kind::File {
            let content = Content::create(&self.object(id)).map_err(errno)?;
            self.files.insert(id, content);
        }
        self.change(Change::Link { at, id, kind })?;
        self.attributes(id)
    }

    pub fn unlink(&mut self, at: Place) -> Result<()> {
        self.may(Op::Meta, &at)?;
        match self.names.live().lookup(&at) {
            None => Err(libc::ENOENT),
            Some((_, Kind::Directory)) => Err(libc::EISDIR),
            Some((id, Kind::File)) => {
                self.change(Change::Unlink { at })?;
                self.give_back_space_of(id);
                self.tidy();
                Ok(())
            }
        }
    }

    pub fn remove_directory(&mut self, at: Place) -> Result<()> {
        self.may(Op::Meta, &at)?;
        match self.names.live().lookup(&at) {
            None => Err(libc::ENOENT),
            Some((_, Kind::File)) => Err(libc::ENOTDIR),
            Some((id, Kind::Directory)) => {
                let entries = self.names.live().entries(id);
                if entries.is_some_and(|entries| !entries.is_empty()) {
                    return Err(libc::ENOTEMPTY);
                }
                self.change(Change::Unlink { at })
            }
        }
    }

    pub fn rename(&mut self, from: Place, to: Place, may_replace: bool) -> Result<()> {
        self.may(Op::Meta, &from)?;
        let live = self.names.live();
        let (_, kind) = live.lookup(&from).ok_or(libc::ENOENT)?;
        let replaced = live.lookup(&to);
        match replaced {
            Some(_) if !may_replace => return Err(libc::EEXIST),
            Some((_, there)) if there != kind => return Err(libc::EEXIST),
            Some((id, Kind::Directory)) if live.entries(id).is_some_and(|all| !all.is_empty()) => {
                return Err(libc::ENOTEMPTY);
            }
            _ => {}
        }
        if from == to {
            return Ok(());
        }
        self.change(Change::Rename { from, to })?;
        if let Some((id, Kind::File)) = replaced {
            self.give_back_space_of(id);
        }
        self.tidy();
        Ok(())
    }

    pub fn sync_directory(&mut self, id: Id) -> Result<()> {
        if !self.names.live().is_directory(id) {
            return Err(libc::ESTALE);
        }
        match self.fate(Op::Fsync, id) {
            Fate::Errno(errno) | Fate::Lose(errno) => return Err(errno),
            Fate::Fine | Fate::Short => {}
        }
        self.counts.directory_syncs += 1;
        self.names.sync(id);
        self.record(|| Event::SyncDirectory { id })?;
        self.tidy();
        Ok(())
    }

    pub fn opened(&mut self, id: Id) -> Result<()> {
        self.files.get_mut(&id).ok_or(libc::ESTALE)?.handles += 1;
        Ok(())
    }

    pub fn released(&mut self, id: Id) {
        if let Some(content) = self.files.get_mut(&id) {
            content.handles = content.handles.saturating_sub(1);
            self.give_back_space_of(id);
            self.tidy();
        }
    }

    pub fn flush_trace(&mut self) -> io::Result<()> {
        match &mut self.recorder {
            Some(recorder) => recorder.flush(),
            None => Ok(()),
        }
    }

    pub fn mark(&mut self, text: String) -> Result<()> {
        self.record(|| Event::Mark(text))
    }

    /// Does what a control command says; the answer is for a human. Power cuts are the caller's.
    pub fn command(&mut self, command: Command) -> Result<String> {
        match command {
            Command::Cut { seed } => return self.cut(seed),
            Command::Fail(rule) => self.faults.add_rule(rule),
            Command::Full { bytes } => self.capacity_bytes = Some(self.used_bytes + bytes),
            Command::Slow(slow) => self.faults.set_slow(slow),
            Command::Flip(flip) => self.faults.add_flip(flip),
            Command::Bad(bad) => self.faults.add_bad(bad),
            Command::Mark(text) => self.mark(text)?,
            Command::Clear => {
                self.faults.clear();
                self.capacity_bytes = None;
            }
            Command::Stats => return Ok(self.stats()),
        }
        Ok("done".into())
    }

    fn stats(&self) -> String {
        let counts = &self.counts;
        let unsynced: usize = self.files.values().map(Content::unsynced_sectors).sum();
        format!(
            "reads {} writes {} written_bytes {} durable_writes {} syncs {} directory_syncs {} struck {} cuts {} \
             used_bytes {} unsynced_sectors {unsynced} unsynced_names {}",
            counts.reads,
            counts.writes,
            counts.written_bytes,
            counts.durable_writes,
            counts.syncs,
            counts.directory_syncs,
            self.faults.struck,
            self.cuts,
            self.used_bytes,
            self.names.pending(),
        )
    }

    fn change(&mut self, change: Change) -> Result<()> {
        self.names.apply(change.clone());
        self.record(|| Event::Names(change))
    }

    fn record(&mut self, event: impl FnOnce() -> Event) -> Result<()> {
        match &mut self.recorder {
            Some(recorder) => recorder.record(&event()).map_err(errno),
            None => Ok(()),
        }
    }

    /// Whether an operation on a name may go on.
    fn may(&mut self, op: Op, at: &Place) -> Result<()> {
        let directory = self.names.live().path(at.directory).unwrap_or_default();
        let path = match directory.is_empty() {
            true => at.name.clone(),
            false => format!("{directory}/{}", at.name),
        };
        match self.faults.fate(op, &path) {
            Fate::Errno(errno) => Err(errno),
            _ => Ok(()),
        }
    }

    fn fate(&mut self, op: Op, id: Id) -> Fate {
        let path = self.names.live().path(id).unwrap_or_default();
        self.faults.fate(op, &path)
    }

    fn object(&self, id: Id) -> PathBuf {
        self.backing.join(OBJECTS).join(id.0.to_string())
    }

    /// Removes objects that nobody can reach any more, not even after a cut.
    fn tidy(&mut self) {
        let known = self.names.known();
        let gone: Vec<Id> = self
            .files
            .iter()
            .filter(|(id, content)| content.handles == 0 && !known.contains(id))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.files.remove(&id);
            // One that stays costs space only.
            let _ = fs::remove_file(self.object(id));
        }
    }
}

pub(crate) fn errno(error: io::Error) -> Errno {
    error.raw_os_error().unwrap_or(libc::EIO)
}

#[cfg(test)]
mod tests;
