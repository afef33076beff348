//! How full the disk is.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Disk, Result, errno};
use crate::names::Id;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    pub free_bytes: u64,
}

impl Disk {
    pub fn space(&self) -> Result<Space> {
        let backing = free_bytes(&self.backing).map_err(errno)?;
        let total_bytes = self.capacity_bytes.unwrap_or(self.used_bytes + backing);
        Ok(Space {
            total_bytes,
            free_bytes: total_bytes.saturating_sub(self.used_bytes),
        })
    }

    /// ENOSPC if there is not enough for these bytes of a file.
    pub(super) fn take_space(&mut self, id: Id, offset: u64, len: u64) -> Result<()> {
        let content = self.files.get_mut(&id).ok_or(libc::ESTALE)?;
        let missing = content.blocks.missing_bytes(offset, len);
        if let Some(capacity) = self.capacity_bytes
            && missing > 0
            && self.used_bytes + missing > capacity
        {
            return Err(libc::ENOSPC);
        }
        content.blocks.take(offset, len);
        self.used_bytes += missing;
        Ok(())
    }

    /// A file without a name and without a user takes no space, even if a cut could still bring it back.
    pub(super) fn give_back_space_of(&mut self, id: Id) {
        if self.names.live().place(id).is_some() {
            return;
        }
        if let Some(content) = self.files.get_mut(&id)
            && content.handles == 0
        {
            self.used_bytes -= content.blocks.bytes();
            content.blocks.give_back(0, u64::MAX);
        }
    }
}

fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: an all-zero statvfs is a valid value of plain integers.
    let mut space: libc::statvfs = unsafe { mem::zeroed() };
    // SAFETY: the path is a C string and the structure lives through the call.
    match unsafe { libc::statvfs(path.as_ptr(), &mut space) } {
        0 => Ok(space.f_bavail.saturating_mul(space.f_frsize)),
        _ => Err(io::Error::last_os_error()),
    }
}
