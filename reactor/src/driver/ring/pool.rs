//! The receive buffers that the kernel picks from: one ring of them per core, shared by all its sockets.
//! A buffer is the kernel's until a completion names it, then ours until the chunk made of it is dropped.

use std::cell::Cell;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::launch::Unsupported;

/// The only buffer group of a ring.
pub(super) const GROUP: u16 = 0;

const ENTRY_BYTES: usize = size_of::<BufRingEntry>();
const PAGE_BYTES: usize = 4096;

/// Tasks may hold one buffer in this many; what they are given beyond that is a copy.
const HELD_SHARE: u16 = 4;

pub(super) struct Pool {
    /// One anonymous mapping: the ring's entries, padded to a page, then the buffers.
    start: NonNull<u8>,
    mapped_bytes: usize,
    buffers_at: usize,
    count: u16,
    buffer_bytes: u32,
    tail: Cell<u16>,
    /// Buffers that are ours: in arrivals or in the hands of tasks.
    out: Cell<u16>,
    /// Of those, in the hands of tasks.
    held: Cell<u16>,
    registered: Cell<bool>,
}

impl Pool {
    pub(super) fn register(
        uring: &IoUring,
        count: u16,
        buffer_bytes: u32,
    ) -> Result<Rc<Pool>, Unsupported> {
        assert!(
            count.is_power_of_two(),
            "the number of receive buffers is a power of two"
        );
        assert!(buffer_bytes > 0, "receive buffers hold something");
        let buffers_at = (usize::from(count) * ENTRY_BYTES).next_multiple_of(PAGE_BYTES);
        let mapped_bytes = buffers_at + usize::from(count) * buffer_bytes as usize;
        let start = map_anonymous(mapped_bytes).map_err(Unsupported::Other)?;
        let pool = Pool {
            start,
            mapped_bytes,
            buffers_at,
            count,
            buffer_bytes,
            tail: Cell::new(0),
            out: Cell::new(count),
            held: Cell::new(0),
            registered: Cell::new(false),
        };
        let address = start.as_ptr() as u64;
        // SAFETY: the entries lie at the start of the mapping, which lives until after `unregister` or the ring's end.
        unsafe {
            uring
                .submitter()
                .register_buf_ring_with_flags(address, count, GROUP, 0)
        }
        .map_err(|error| Unsupported::of_feature(error, "provided buffer rings"))?;
        pool.registered.set(true);
        for id in 0..count {
            pool.give_back(id);
        }
        Ok(Rc::new(pool))
    }

    /// After this the kernel picks no more buffers. Chunks stay valid.
    pub(super) fn unregister(&self, uring: &IoUring) {
        if self.registered.replace(false)
            && let Err(error) = uring.submitter().unregister_buf_ring(GROUP)
        {
            tracing::warn!(%error, "the receive buffers stay registered until the ring ends");
        }
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.out.get() == self.count
    }

    /// Takes the buffer that a completion names.
    pub(super) fn take(self: &Rc<Self>, id: u16, len: u32) -> PooledBytes {
        assert!(
            id < self.count && len <= self.buffer_bytes,
            "the kernel names our buffers"
        );
        self.out.set(self.out.get() + 1);
        PooledBytes {
            pool: self.clone(),
            id,
            len,
            held: false,
        }
    }

    fn buffer(&self, id: u16) -> *mut u8 {
        let at = self.buffers_at + usize::from(id) * self.buffer_bytes as usize;
        // SAFETY: `id` is below `count`, so the buffer lies inside the mapping.
        unsafe { self.start.as_ptr().add(at) }
    }

    fn give_back(&self, id: u16) {
        self.out.set(self.out.get() - 1);
        if !self.registered.get() {
            return;
        }
        let entries = self.start.as_ptr().cast::<BufRingEntry>();
        let tail = self.tail.get();
        let index = usize::from(tail & (self.count - 1));
        // SAFETY: the index is below `count`; the kernel reads entries only up to the tail, which is still before this
        // one. The setters leave the first entry's tail field alone.
        let entry = unsafe { &mut *entries.add(index) };
        entry.set_addr(self.buffer(id) as u64);
        entry.set_len(self.buffer_bytes);
        entry.set_bid(id);
        self.tail.set(tail.wrapping_add(1));
        // SAFETY: the tail lies in the first entry, aligned, and is written by us only.
        let shared_tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
        shared_tail.store(tail.wrapping_add(1), Ordering::Release);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length; all chunks are gone, and the kernel was told at `unregister`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.mapped_bytes) };
    }
}

fn map_anonymous(bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new private mapping touches no memory of ours; the result is checked.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(NonNull::new(start.cast()).expect("the kernel maps nothing at address zero"))
}

/// The filled part of one buffer. Dropping it gives the buffer back.
pub(crate) struct PooledBytes {
    pool: Rc<Pool>,
    id: u16,
    len: u32,
    held: bool,
}

impl PooledBytes {
    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: the kernel filled this many bytes and does not touch the buffer before it is given back.
        unsafe { slice::from_raw_parts(self.pool.buffer(self.id), self.len as usize) }
    }

    /// Notes that a task gets it. False: tasks hold enough buffers, give this one a copy.
    pub(super) fn try_hold(&mut self) -> bool {
        let held = self.pool.held.get();
        if held >= (self.pool.count / HELD_SHARE).max(1) {
            return false;
        }
        self.pool.held.set(held + 1);
        self.held = true;
        true
    }
}

impl Drop for PooledBytes {
    fn drop(&mut self) {
        if self.held {
            self.pool.held.set(self.pool.held.get() - 1);
        }
        self.pool.give_back(self.id);
    }
}
