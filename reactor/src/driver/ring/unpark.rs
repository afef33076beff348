//! Ending a core's wait from outside: a message to its ring from a core that has one, an eventfd from any other thread.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::core::{self, Driver};

const NO_RING: i32 = -1;

/// Send and Sync; lives as long as any waker of the core.
#[derive(Clone)]
pub(crate) struct Unpark(Arc<Target>);

struct Target {
    eventfd: OwnedFd,
    /// `NO_RING` once the core has ended. Should the number be reused in between, another ring gets a message that it ignores.
    ring_fd: AtomicI32,
}

impl Unpark {
    pub(super) fn new(ring_fd: RawFd) -> io::Result<Unpark> {
        // SAFETY: plain system call; the result is checked.
        let eventfd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if eventfd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Unpark(Arc::new(Target {
            // SAFETY: a fresh descriptor that nobody else owns.
            eventfd: unsafe { OwnedFd::from_raw_fd(eventfd) },
            ring_fd: AtomicI32::new(ring_fd),
        })))
    }

    /// Called by whoever turned the core's `sleeping` off, once per sleep.
    pub(crate) fn unpark(&self) {
        let ring_fd = self.0.ring_fd.load(Ordering::Acquire);
        if ring_fd == NO_RING {
            return;
        }
        // A message goes out with this core's next submission, at the end of its turn at the latest.
        let sent = core::with_current(|core| match core.map(|core| &core.driver) {
            Some(Driver::Ring(ring)) => ring.send_wake(ring_fd, self),
            _ => false,
        });
        if !sent {
            self.write_eventfd();
        }
    }

    pub(super) fn write_eventfd(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the descriptor is open and the bytes live through the call. It fails only if the counter is full, and
        // then the core is being woken anyway.
        unsafe { libc::write(self.eventfd(), one.as_ptr().cast(), one.len()) };
    }

    pub(super) fn eventfd(&self) -> RawFd {
        self.0.eventfd.as_raw_fd()
    }

    pub(super) fn ring_closed(&self) {
        self.0.ring_fd.store(NO_RING, Ordering::Release);
    }
}
