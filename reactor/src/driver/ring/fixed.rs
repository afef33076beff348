//! The table of registered files: operations on them skip the lookup and the reference count of a descriptor.
//! A full or missing table is no error; sockets then use their plain descriptor.

use std::os::fd::RawFd;

use io_uring::IoUring;

use crate::limits;

/// More connections than this are served by their plain descriptors.
const FILES_MAX: u32 = 16 * 1024;

#[derive(Default)]
pub(super) struct FixedFiles {
    free: Vec<u32>,
    next: u32,
    capacity: u32,
}

impl FixedFiles {
    pub(super) fn register(uring: &IoUring) -> FixedFiles {
        let capacity = FILES_MAX.min(open_files_max());
        match uring.submitter().register_files_sparse(capacity) {
            Ok(()) => FixedFiles {
                capacity,
                ..FixedFiles::default()
            },
            Err(error) => {
                tracing::debug!(%error, "no table of registered files");
                FixedFiles::default()
            }
        }
    }

    /// Registers a descriptor; None if there is no room.
    pub(super) fn insert(&mut self, uring: &IoUring, fd: RawFd) -> Option<u32> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.next < self.capacity => {
                self.next += 1;
                self.next - 1
            }
            None => return None,
        };
        match uring.submitter().register_files_update(index, &[fd]) {
            Ok(_) => Some(index),
            Err(_) => {
                self.free.push(index);
                None
            }
        }
    }

    /// The kernel has emptied the place.
    pub(super) fn give_back(&mut self, index: u32) {
        self.free.push(index);
    }
}

/// The kernel refuses tables larger than the limit of open files.
fn open_files_max() -> u32 {
    limits::open_files().map_or(0, |limit| u32::try_from(limit.rlim_cur).unwrap_or(u32::MAX))
}
