//! One task that may sleep and be woken by anybody: the parking spot of a mailbox's receiver and of an answer.
//!
//! The owner registers its waker, *then looks again* whether there is something to do, and only then sleeps. A waker
//! publishes, *then looks* whether somebody sleeps. Both put a full fence between their two steps, so at least one of
//! them sees the other. Costs a fence and one load while nobody sleeps.

use std::task::Waker;

use super::primitives::{AtomicU8, Ordering, UnsafeCell, fence, spin_loop};

/// Nobody sleeps; the cell belongs to the owner.
const AWAKE: u8 = 0;
/// The owner sleeps, or is about to; whoever moves the state on owns the cell.
const ASLEEP: u8 = 1;
/// Somebody is taking the waker out of the cell.
const WAKING: u8 = 2;

pub(super) struct Sleeper {
    state: AtomicU8,
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: the cell is touched only by the one who owns it by `state`: the owner in AWAKE, the one who moved
// ASLEEP to WAKING until it stores AWAKE. `Waker` is Send and Sync.
unsafe impl Send for Sleeper {}
// SAFETY: as above.
unsafe impl Sync for Sleeper {}

impl Sleeper {
    pub(super) fn new() -> Self {
        Self {
            state: AtomicU8::new(AWAKE),
            waker: UnsafeCell::new(None),
        }
    }

    /// Owner only. After this returns the owner must look again before it sleeps. When a wake is being delivered at
    /// this very moment, the new waker is woken instead of kept: the owner is polled again, which is always right.
    pub(super) fn register(&self, waker: &Waker) {
        if !self.take_back() {
            spin_loop();
            waker.wake_by_ref();
            return;
        }
        self.waker.with_mut(|cell| {
            // SAFETY: the state is AWAKE, so the cell is the owner's.
            let cell = unsafe { &mut *cell };
            if !cell.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
                *cell = Some(waker.clone());
            }
        });
        self.state.store(ASLEEP, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Owner only: it is awake after all, nobody needs to wake it.
    pub(super) fn disarm(&self) {
        if self.state.load(Ordering::Relaxed) == ASLEEP {
            self.take_back();
        }
    }

    /// True when the cell is the owner's, false when a wake is being delivered.
    fn take_back(&self) -> bool {
        match self
            .state
            .compare_exchange(ASLEEP, AWAKE, Ordering::Acquire, Ordering::Acquire)
        {
            Ok(_) => true,
            Err(state) => state == AWAKE,
        }
    }

    /// Anybody, after publishing what the sleeper waits for.
    #[inline]
    pub(super) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::Relaxed) == ASLEEP {
            self.wake_asleep();
        }
    }

    #[cold]
    fn wake_asleep(&self) {
        if self
            .state
            .compare_exchange(ASLEEP, WAKING, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            return;
        }
        // SAFETY: ASLEEP -> WAKING was ours, so the cell is ours until AWAKE is stored.
        let waker = self.waker.with_mut(|cell| unsafe { (*cell).take() });
        self.state.store(AWAKE, Ordering::Release);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
