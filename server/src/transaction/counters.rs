//! How many transactions there were, and what became of them. For those who ask; nothing depends on it.

use std::cell::Cell;

/// Since the start, but for `open`. Lives on the coordinator's core.
#[derive(Debug, Default)]
pub struct Counters {
    pub open: Cell<u64>,
    pub committed: Cell<u64>,
    pub rolled_back: Cell<u64>,
    /// Decisions that came too late or twice.
    pub ignored: Cell<u64>,
    /// Questions to producers.
    pub asked: Cell<u64>,
    /// Nobody decided in time.
    pub given_up: Cell<u64>,
}

pub fn add(counter: &Cell<u64>, more: usize) {
    counter.set(counter.get() + more as u64);
}
