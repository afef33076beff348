//! The disk as a mounted file system: FUSE requests in, operations of `disk` out. Several threads serve requests, one
//! lock orders them. What goes on in the kernel above: pages written through mappings arrive as writes before the sync
//! that asked for them; a write through a handle with O_DSYNC arrives as a write, in most cases followed by a sync.

mod filesystem;
mod inode;
mod session;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{Disk, SyncOf};
use crate::names::Id;

pub use inode::number as inode_number;
pub use session::{Options, available, mount};

/// What every thread of the mounted disk shares.
pub struct Mounted {
    disk: Arc<Mutex<Disk>>,
    handles: Mutex<HashMap<u64, Handle>>,
    next_handle: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Handle {
    id: Id,
    /// Power cuts before it was opened.
    cuts: u64,
    /// Each write is durable by itself.
    durable_writes: bool,
}

impl Handle {
    fn sync_of(self) -> SyncOf {
        match self.durable_writes {
            true => SyncOf::DurableHandle,
            false => SyncOf::File,
        }
    }
}

impl Mounted {
    pub fn new(disk: Arc<Mutex<Disk>>) -> Mounted {
        Mounted {
            disk,
            handles: Mutex::default(),
            next_handle: AtomicU64::new(1),
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no operation panics")
    }

    fn open_handle(&self, id: Id, cuts: u64, flags: i32) -> u64 {
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        let handle = Handle {
            id,
            cuts,
            durable_writes: flags & libc::O_DSYNC != 0,
        };
        self.handles().insert(number, handle);
        number
    }

    fn handles(&self) -> MutexGuard<'_, HashMap<u64, Handle>> {
        self.handles.lock().expect("no operation panics")
    }

    fn handle(&self, number: u64) -> Option<Handle> {
        self.handles().get(&number).copied()
    }
}
