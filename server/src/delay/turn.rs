//! Who works on a delay queue's messages: the task that delivers them, or the one that moves them. Never both.

use std::cell::Cell;

use reactor::Notify;

/// Of one queue. Lives on the core of shard 0.
#[derive(Default)]
pub struct Turn {
    taken: Cell<bool>,
    free: Notify,
}

impl Turn {
    pub async fn take(&self) {
        while self.taken.replace(true) {
            self.free.notified().await;
        }
    }

    /// Does nothing if it is free.
    pub fn give(&self) {
        self.taken.set(false);
        self.free.notify();
    }
}
