//! Inode numbers as the kernel sees them: the file's id and the count of power cuts before. A cut gives everything a
//! new number, so that nothing the kernel cached belongs to what is left.

use std::time::Duration;

use fuser::{FileAttr, FileType, INodeNo};

use crate::blocks::BLOCK_BYTES;
use crate::disk::{Attributes, Errno, Result};
use crate::names::{Id, Kind, ROOT};
use crate::sector::SECTOR_BYTES;

const CUTS_SHIFT: u32 = 40;

/// The kernel asks again each time: after a cut nothing is as it was.
pub const ATTRIBUTES_VALID: Duration = Duration::ZERO;

pub fn number(id: Id, cuts: u64) -> INodeNo {
    match id {
        ROOT => INodeNo::ROOT,
        _ => INodeNo(cuts << CUTS_SHIFT | id.0),
    }
}

/// ESTALE for what was seen before the last cut.
pub fn id(number: INodeNo, cuts: u64) -> Result<Id> {
    if number == INodeNo::ROOT {
        return Ok(ROOT);
    }
    match number.0 >> CUTS_SHIFT == cuts {
        true => Ok(Id(number.0 & ((1 << CUTS_SHIFT) - 1))),
        false => Err(libc::ESTALE),
    }
}

pub fn attributes(of: &Attributes, cuts: u64) -> FileAttr {
    let (kind, perm) = match of.kind {
        Kind::File => (FileType::RegularFile, 0o644),
        Kind::Directory => (FileType::Directory, 0o755),
    };
    FileAttr {
        ino: number(of.id, cuts),
        size: of.len,
        blocks: of.allocated_bytes / SECTOR_BYTES,
        atime: of.changed,
        mtime: of.changed,
        ctime: of.changed,
        crtime: of.changed,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES as u32,
        flags: 0,
    }
}

pub fn error(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno)
}
