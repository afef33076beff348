//! One function per FUSE request. Each finds the file, waits if the disk is slow, does the operation, answers.

use std::ffi::OsStr;
use std::io;
use std::thread;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use super::Mounted;
use super::inode::{ATTRIBUTES_VALID, attributes, error, id, number};
use crate::blocks::BLOCK_BYTES;
use crate::disk::{Allocation, Attributes, Disk, Result, SyncOf};
use crate::faults::Op;
use crate::names::{Id, Kind, Place};

/// Requests the kernel may have under way without anybody waiting for each.
const BACKGROUND_MAX: u16 = 64;
const NAME_BYTES_MAX: u32 = 255;
const NO_GENERATION: Generation = Generation(0);

#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteKind {
    Plain,
    /// Pages written back; which handle they came through is not known.
    FromCache,
    /// To be durable when it is answered.
    Durable,
}

fn name(name: &OsStr) -> Result<String> {
    name.to_str().map(str::to_owned).ok_or(libc::EILSEQ)
}

fn place(disk: &Disk, parent: INodeNo, child: &OsStr) -> Result<Place> {
    Ok(Place::new(id(parent, disk.cuts())?, name(child)?))
}

impl Mounted {
    /// Takes the time this operation has to take; nobody else waits for it.
    fn be_slow(&self, op: Op) {
        let delay = self.disk().delay(op);
        if !delay.is_zero() {
            thread::sleep(delay);
        }
    }

    fn make(&self, parent: INodeNo, child: &OsStr, kind: Kind) -> Result<(Attributes, u64)> {
        let mut disk = self.disk();
        let at = place(&disk, parent, child)?;
        let made = disk.create(at, kind)?;
        Ok((made, disk.cuts()))
    }

    fn open_file(&self, ino: INodeNo, flags: i32) -> Result<u64> {
        let mut disk = self.disk();
        let id = id(ino, disk.cuts())?;
        disk.opened(id)?;
        Ok(self.open_handle(id, disk.cuts(), flags))
    }

    fn write_through(
        &self,
        ino: INodeNo,
        offset: u64,
        data: &[u8],
        kind: WriteKind,
    ) -> Result<usize> {
        self.be_slow(Op::Write);
        let mut disk = self.disk();
        let file = id(ino, disk.cuts())?;
        let written = disk.write(file, offset, data, kind == WriteKind::FromCache)?;
        if kind != WriteKind::Durable {
            return Ok(written);
        }
        // On its way to the medium: others may overtake it.
        drop(disk);
        self.be_slow(Op::Fsync);
        let mut disk = self.disk();
        let file = id(ino, disk.cuts())?;
        disk.write_is_durable(file, offset, written as u64)?;
        Ok(written)
    }

    fn sync_file(&self, ino: INodeNo, fh: FileHandle) -> Result<()> {
        let of = self
            .handle(fh.0)
            .map_or(SyncOf::File, |handle| handle.sync_of());
        {
            // First done, then slow: what is written while it is under way is not part of it.
            let mut disk = self.disk();
            let id = id(ino, disk.cuts())?;
            disk.sync(id, of)?;
        }
        if of == SyncOf::File {
            self.be_slow(Op::Fsync);
        }
        Ok(())
    }

    fn change_attributes(&self, ino: INodeNo, len: Option<u64>) -> Result<(Attributes, u64)> {
        let mut disk = self.disk();
        let cuts = disk.cuts();
        let id = id(ino, cuts)?;
        if let Some(len) = len {
            disk.set_len(id, len)?;
        }
        Ok((disk.attributes(id)?, cuts))
    }

    fn entries(&self, ino: INodeNo) -> Result<Vec<(INodeNo, FileType, String)>> {
        let disk = self.disk();
        let cuts = disk.cuts();
        let id = id(ino, cuts)?;
        let entries = disk.names().live().entries(id).ok_or(libc::ENOTDIR)?;
        let own = |name: &str| (number(id, cuts), FileType::Directory, name.to_owned());
        let mut all = vec![own("."), own("..")];
        all.extend(entries.iter().map(|(name, (id, kind))| {
            let kind = match kind {
                Kind::File => FileType::RegularFile,
                Kind::Directory => FileType::Directory,
            };
            (number(*id, cuts), kind, name.clone())
        }));
        Ok(all)
    }
}

fn answer(reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(error(errno)),
    }
}

fn answer_entry(reply: ReplyEntry, result: Result<(Attributes, u64)>) {
    match result {
        Ok((found, cuts)) => {
            reply.entry(&ATTRIBUTES_VALID, &attributes(&found, cuts), NO_GENERATION)
        }
        Err(errno) => reply.error(error(errno)),
    }
}

fn answer_attributes(reply: ReplyAttr, result: Result<(Attributes, u64)>) {
    match result {
        Ok((found, cuts)) => reply.attr(&ATTRIBUTES_VALID, &attributes(&found, cuts)),
        Err(errno) => reply.error(error(errno)),
    }
}

impl Filesystem for Mounted {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Direct writes of one file may be under way together, as on a real disk. An old kernel does without.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = self.disk();
        let found = place(&disk, parent, name).and_then(|at| disk.lookup(&at));
        let cuts = disk.cuts();
        drop(disk);
        answer_entry(reply, found.map(|found| (found, cuts)));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        answer_attributes(reply, self.change_attributes(ino, None));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        answer_attributes(reply, self.change_attributes(ino, size));
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        answer_entry(reply, self.make(parent, name, Kind::Directory));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut disk = self.disk();
        let done = place(&disk, parent, name).and_then(|at| disk.unlink(at));
        drop(disk);
        answer(reply, done);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut disk = self.disk();
        let done = place(&disk, parent, name).and_then(|at| disk.remove_directory(at));
        drop(disk);
        answer(reply, done);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let may_replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        let known = flags.difference(RenameFlags::RENAME_NOREPLACE).is_empty();
        let mut disk = self.disk();
        let done = match known {
            false => Err(libc::EINVAL),
            true => place(&disk, parent, name).and_then(|from| {
                let to = place(&disk, newparent, newname)?;
                disk.rename(from, to, may_replace)
            }),
        };
        drop(disk);
        answer(reply, done);
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.open_file(ino, flags.0) {
            // What the page cache holds stays valid, right or wrong, as on any local disk.
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self
            .make(parent, name, Kind::File)
            .and_then(|(made, cuts)| {
                let handle = self.open_file(number(made.id, cuts), flags)?;
                Ok((made, cuts, handle))
            });
        match made {
            Ok((made, cuts, handle)) => reply.created(
                &ATTRIBUTES_VALID,
                &attributes(&made, cuts),
                NO_GENERATION,
                FileHandle(handle),
                FopenFlags::FOPEN_KEEP_CACHE,
            ),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.be_slow(Op::Read);
        let mut disk = self.disk();
        let cuts = disk.cuts();
        let read = id(ino, cuts).and_then(|id| disk.read(id, offset, size as usize));
        drop(disk);
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let kind = match write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            true => WriteKind::FromCache,
            // Of the handle, or of this write alone (RWF_DSYNC).
            false if flags.0 & libc::O_DSYNC != 0 => WriteKind::Durable,
            false => WriteKind::Plain,
        };
        match self.write_through(ino, offset, data, kind) {
            Ok(written) => reply.written(written as u32),
            Err(errno) => reply.error(error(errno)),
        }
    }

    /// Closing syncs nothing.
    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let handle = self.handles().remove(&fh.0);
        if let Some(handle) = handle {
            let mut disk = self.disk();
            if handle.cuts == disk.cuts() {
                disk.released(handle.id);
            }
        }
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        answer(reply, self.sync_file(ino, fh));
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let mut disk = self.disk();
        let cuts = disk.cuts();
        let done = id(ino, cuts).and_then(|id: Id| disk.sync_directory(id));
        drop(disk);
        answer(reply, done);
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = match self.entries(ino) {
            Ok(entries) => entries,
            Err(errno) => return reply.error(error(errno)),
        };
        for (at, (ino, kind, name)) in entries.into_iter().enumerate().skip(offset as usize) {
            if reply.add(ino, at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.disk().space() {
            Ok(space) => {
                let free = space.free_bytes / BLOCK_BYTES;
                let total = space.total_bytes / BLOCK_BYTES;
                let block = BLOCK_BYTES as u32;
                reply.statfs(total, free, free, 0, 0, block, NAME_BYTES_MAX, block);
            }
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let known =
            libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
        if mode & !known != 0 {
            return reply.error(error(libc::EOPNOTSUPP));
        }
        let wanted = Allocation {
            offset,
            len: length,
            zero: mode & libc::FALLOC_FL_ZERO_RANGE != 0,
            punch: mode & libc::FALLOC_FL_PUNCH_HOLE != 0,
            keep_len: mode & libc::FALLOC_FL_KEEP_SIZE != 0,
        };
        let mut disk = self.disk();
        let cuts = disk.cuts();
        let done = id(ino, cuts).and_then(|id| disk.allocate(id, wanted));
        drop(disk);
        answer(reply, done);
    }
}
