//! Reading, writing and syncing one file's bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::SystemTime;

use super::{Attributes, Disk, Result, SyncOf, errno};
use crate::blocks::Blocks;
use crate::faults::{Fate, Op};
use crate::names::{Id, Kind};
use crate::trace::Event;
use crate::undo::{Rollback, Undo};

/// A file: its object with the live bytes, and what a cut would bring back.
pub(super) struct Content {
    object: File,
    len: u64,
    undo: Undo,
    pub blocks: Blocks,
    changed: SystemTime,
    /// How many have it open.
    pub handles: u64,
}

/// What `fallocate` can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    pub offset: u64,
    pub len: u64,
    pub zero: bool,
    /// Gives the space back.
    pub punch: bool,
    pub keep_len: bool,
}

impl Content {
    pub fn create(path: &Path) -> io::Result<Content> {
        let object = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        Ok(Content::over(object, 0))
    }

    pub fn over(object: File, len: u64) -> Content {
        let mut blocks = Blocks::default();
        blocks.take(0, len);
        Content {
            object,
            len,
            undo: Undo::default(),
            blocks,
            changed: SystemTime::now(),
            handles: 0,
        }
    }

    pub fn attributes(&self, id: Id) -> Attributes {
        Attributes {
            id,
            kind: Kind::File,
            len: self.len,
            allocated_bytes: self.blocks.bytes(),
            changed: self.changed,
        }
    }

    pub fn unsynced_sectors(&self) -> usize {
        self.undo.unsynced_sectors()
    }

    pub fn cut(&mut self, survives: impl FnMut() -> bool) -> io::Result<()> {
        let rollback = self.undo.cut(self.len, survives);
        self.roll_back(rollback)
    }

    /// Throws away the unsynced bytes; the length stays.
    fn lose(&mut self) -> io::Result<()> {
        let len = self.len;
        let mut rollback = self.undo.cut(len, || false);
        rollback.len = len;
        self.roll_back(rollback)
    }

    fn roll_back(&mut self, rollback: Rollback) -> io::Result<()> {
        self.object.set_len(rollback.len)?;
        self.len = rollback.len;
        for (number, sector) in rollback.sectors {
            let offset = number * crate::sector::SECTOR_BYTES;
            let inside = (self.len.saturating_sub(offset) as usize).min(sector.len());
            self.object.write_all_at(&sector[..inside], offset)?;
        }
        Ok(())
    }

    fn keep_old(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let object = &self.object;
        self.undo
            .before_change(offset, len, |at, into| read_padded(object, at, into))
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.keep_old(offset, bytes.len() as u64)?;
        self.object.write_all_at(bytes, offset)?;
        self.grow_to(offset + bytes.len() as u64);
        self.changed = SystemTime::now();
        Ok(())
    }

    fn grow_to(&mut self, len: u64) {
        if len > self.len {
            self.undo.len_changed(self.len);
            self.len = len;
        }
    }

    fn zero(&mut self, offset: u64, len: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let end = (offset + len).min(self.len);
        let mut at = offset;
        while at < end {
            let step = (end - at).min(ZEROS.len() as u64);
            self.keep_old(at, step)?;
            self.object.write_all_at(&ZEROS[..step as usize], at)?;
            at += step;
        }
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        if len < self.len {
            self.keep_old(len, self.len - len)?;
        }
        if len != self.len {
            self.undo.len_changed(self.len);
            self.object.set_len(len)?;
            self.len = len;
            self.changed = SystemTime::now();
        }
        Ok(())
    }
}

fn read_padded(object: &File, offset: u64, into: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < into.len() {
        match object.read_at(&mut into[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    into[filled..].fill(0);
    Ok(())
}

impl Disk {
    pub fn read(&mut self, id: Id, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.counts.reads += 1;
        if let Fate::Errno(errno) = self.fate(Op::Read, id) {
            return Err(errno);
        }
        let content = self.files.get(&id).ok_or(libc::ESTALE)?;
        let len = (content.len.saturating_sub(offset) as usize).min(len);
        let mut bytes = vec![0; len];
        read_padded(&content.object, offset, &mut bytes).map_err(errno)?;
        let path = self.names.live().path(id).unwrap_or_default();
        if self.faults.is_bad(&path, offset, len as u64) {
            return Err(libc::EIO);
        }
        self.faults.flip(&path, offset, &mut bytes);
        Ok(bytes)
    }

    /// Returns how many bytes were written: fewer than asked on a disk that fills up in the middle, or by a fault.
    /// `from_cache`: the kernel writes pages back and has no use for a part of one.
    pub fn write(&mut self, id: Id, offset: u64, bytes: &[u8], from_cache: bool) -> Result<usize> {
        let mut bytes = bytes;
        match self.fate(Op::Write, id) {
            Fate::Errno(errno) => return Err(errno),
            Fate::Short if !from_cache && bytes.len() > 1 => bytes = &bytes[..bytes.len() / 2],
            _ => {}
        }
        self.take_space(id, offset, bytes.len() as u64)?;
        let content = self.files.get_mut(&id).ok_or(libc::ESTALE)?;
        content.write(offset, bytes).map_err(errno)?;
        self.counts.writes += 1;
        self.counts.written_bytes += bytes.len() as u64;
        self.record(|| Event::Write {
            id,
            offset,
            bytes: bytes.to_vec(),
        })?;
        Ok(bytes.len())
    }

    /// A write that is to be durable by itself has come to its end: it is a sync as well, and fails as one.
    pub fn write_is_durable(&mut self, id: Id, offset: u64, len: u64) -> Result<()> {
        let fate = self.fate(Op::Fsync, id);
        let content = self.files.get_mut(&id).ok_or(libc::ESTALE)?;
        match fate {
            Fate::Errno(errno) => return Err(errno),
            Fate::Lose(lost) => {
                content.lose().map_err(errno)?;
                return Err(lost);
            }
            Fate::Fine | Fate::Short => {}
        }
        content.undo.range_synced(offset, len);
        self.counts.durable_writes += 1;
        self.record(|| Event::SyncRange { id, offset, len })
    }

    pub fn set_len(&mut self, id: Id, len: u64) -> Result<()> {
        if let Fate::Errno(errno) = self.fate(Op::Meta, id) {
            return Err(errno);
        }
        let content = self.files.get_mut(&id).ok_or(libc::ESTALE)?;
        let before = content.blocks.bytes();
        content.set_len(len).map_err(errno)?;
        content.blocks.give_back(len, u64::MAX - len);
        self.used_bytes -= before - content.blocks.bytes();
        self.record(|| Event::SetLen { id, len })
    }

    pub fn allocate(&mut self, id: Id, wanted: Allocation) -> Result<()> {
        if let Fate::Errno(errno) = self.fate(Op::Meta, id) {
            return Err(errno);
        }
        let Allocation { offset, len, .. } = wanted;
        if !wanted.punch {
            self.take_space(id, offset, len)?;
        }
        let content = self.files.get_mut(&id).ok_or(libc::ESTALE)?;
        let (before, live_len) = (content.blocks.bytes(), content.len);
        if wanted.punch || wanted.zero {
            content.zero(offset, len).map_err(errno)?;
        }
        if wanted.punch {
            content.blocks.give_back(offset, len);
            self.used_bytes -= before - content.blocks.bytes();
        } else if !wanted.keep_len && offset + len > live_len {
            content.object.set_len(offset + len).map_err(errno)?;
            content.grow_to(offset + len);
        }
        let grown = content.len;
        if wanted.punch || wanted.zero {
            self.record(|| Event::Zero { id, offset, len })?;
        }
        if grown != live_len {
            self.record(|| Event::SetLen { id, len: grown })?;
        }
        Ok(())
    }

    pub fn sync(&mut self, id: Id, of: SyncOf) -> Result<()> {
        let fate = self.fate(Op::Fsync, id);
        let content = self.files.get_mut(&id).ok_or(libc::ESTALE)?;
        match (fate, of) {
            (Fate::Errno(errno), _) => return Err(errno),
            (Fate::Lose(lost), _) => {
                content.lose().map_err(errno)?;
                return Err(lost);
            }
            (_, SyncOf::File) => content.undo.synced(),
            (_, SyncOf::DurableHandle) => content.undo.len_synced(),
        }
        self.counts.syncs += 1;
        self.record(|| match of {
            SyncOf::File => Event::Sync { id },
            SyncOf::DurableHandle => Event::SyncLen { id },
        })
    }
}
