//! One value, once, from any core to the task that waits for it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::{
    primitives::{Arc, AtomicU8, Ordering, UnsafeCell},
    sleeper::Sleeper,
};

/// Nothing yet; the cell belongs to the [`Reply`].
const OPEN: u8 = 0;
/// The value is in the cell, which belongs to the [`Answer`] now.
const SENT: u8 = 1;
/// The [`Reply`] was dropped unused, or the value was taken.
const SPENT: u8 = 2;

struct Shared<T> {
    state: AtomicU8,
    value: UnsafeCell<Option<T>>,
    sleeper: Sleeper,
}

// SAFETY: `state` says which side owns the cell; the value crosses threads once, so T must be Send.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

/// The side that answers. Dropping it unused ends the wait with `None`.
pub struct Reply<T>(Option<Arc<Shared<T>>>);

/// The side that waits: `Some(value)`, or `None` when nobody will answer any more.
#[must_use = "an answer nobody waits for is lost"]
pub struct Answer<T>(Arc<Shared<T>>);

pub fn oneshot<T: Send>() -> (Reply<T>, Answer<T>) {
    let shared = Arc::new(Shared {
        state: AtomicU8::new(OPEN),
        value: UnsafeCell::new(None),
        sleeper: Sleeper::new(),
    });
    (Reply(Some(shared.clone())), Answer(shared))
}

impl<T> Reply<T> {
    /// The value is dropped with the pair if nobody waits any more.
    pub fn send(mut self, value: T) {
        let Some(shared) = self.0.take() else { return };
        // SAFETY: OPEN: the cell is ours, and `self` is consumed.
        shared.value.with_mut(|cell| unsafe { *cell = Some(value) });
        shared.finish(SENT);
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.finish(SPENT);
        }
    }
}

impl<T> Shared<T> {
    fn finish(&self, state: u8) {
        self.state.store(state, Ordering::Release);
        self.sleeper.wake();
    }

    fn take(&self) -> Poll<Option<T>> {
        match self.state.load(Ordering::Acquire) {
            OPEN => Poll::Pending,
            SENT => {
                // SAFETY: SENT was stored after the value, and only the one `Answer` takes it.
                let value = self.value.with_mut(|cell| unsafe { (*cell).take() });
                self.state.store(SPENT, Ordering::Relaxed);
                Poll::Ready(value)
            }
            _ => Poll::Ready(None),
        }
    }
}

impl<T> Future for Answer<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let shared = &self.0;
        shared.sleeper.disarm();
        if let Poll::Ready(value) = shared.take() {
            return Poll::Ready(value);
        }
        shared.sleeper.register(context.waker());
        shared.take()
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}
