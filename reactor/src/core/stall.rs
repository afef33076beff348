//! Finds the task that held its core too long: logged with its name, counted. Two clock reads would be one too many per
//! poll, so the end of one poll is the beginning of the next. What others had of the core's CPU meanwhile is logged beside it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::run_queue::RunQueue;
use crate::time::Instant;

/// Of all cores of the process, for whoever reports on it.
static STALLS: AtomicU64 = AtomicU64::new(0);

/// How often a task of any core has held it too long.
pub fn stalls() -> u64 {
    STALLS.load(Ordering::Relaxed)
}

pub(super) struct StallWatch {
    limit_ns: u64,
    run_queue: RunQueue,
    count: Cell<u64>,
    ms_max: Cell<u64>,
}

impl StallWatch {
    /// For the calling thread. `stall_ms` of zero switches it off.
    pub(super) fn new(stall_ms: u32) -> StallWatch {
        StallWatch {
            limit_ns: u64::from(stall_ms) * 1_000_000,
            run_queue: match stall_ms {
                0 => RunQueue::unknown(),
                _ => RunQueue::of_this_thread(),
            },
            count: Cell::new(0),
            ms_max: Cell::new(0),
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count.get()
    }

    pub(super) fn ms_max(&self) -> u64 {
        self.ms_max.get()
    }

    #[inline]
    pub(super) fn begin_turn(&self, now: Instant) {
        if self.limit_ns > 0 {
            self.run_queue.look(now.as_nanos());
        }
    }

    pub(super) fn check(&self, core: &str, task: &'static str, began: Instant, ended: Instant) {
        let held_ns = ended.as_nanos().saturating_sub(began.as_nanos());
        if held_ns > self.limit_ns && self.limit_ns > 0 {
            let waited_ns = self
                .run_queue
                .waited_since(began.as_nanos(), ended.as_nanos());
            self.report(core, task, held_ns / 1_000_000, waited_ns / 1_000_000);
        }
    }

    #[cold]
    fn report(&self, core: &str, task: &'static str, held_ms: u64, waited_ms: u64) {
        STALLS.fetch_add(1, Ordering::Relaxed);
        self.count.set(self.count.get() + 1);
        self.ms_max.set(self.ms_max.get().max(held_ms));
        tracing::warn!(
            core,
            task,
            held_ms,
            waited_ms,
            "a task held its core too long"
        );
    }
}
