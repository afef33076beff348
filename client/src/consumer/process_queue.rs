//! One queue that this member reads: which of its messages are with the listener, and hence how far the queue is
//! done. Messages finish in any order; the offset to be told is that of the first that has not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::lock::Mutex;

/// Messages of one queue that wait for or are with the listener; above this, pulling pauses.
const MESSAGES_MAX: usize = 1_000;
const BYTES_MAX: usize = 100 << 20;

#[derive(Default)]
pub(super) struct ProcessQueue {
    state: Mutex<State>,
    less: Notify,
    /// The queue is another member's now; what the listener still finishes of it is no longer ours to tell.
    given_up: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Body lengths of what is not finished, by offset.
    open: BTreeMap<i64, usize>,
    bytes: usize,
    /// Behind the last message that was added or skipped.
    next: i64,
}

impl ProcessQueue {
    pub fn starting_at(offset: i64) -> ProcessQueue {
        let queue = ProcessQueue::default();
        queue.state.lock().next = offset;
        queue
    }

    pub fn add(&self, offset: i64, bytes: usize) {
        let mut state = self.state.lock();
        state.bytes += bytes;
        state.open.insert(offset, bytes);
        state.next = state.next.max(offset + 1);
    }

    /// Everything before `offset` has been added, or is not for us.
    pub fn skip_to(&self, offset: i64) {
        let mut state = self.state.lock();
        state.next = state.next.max(offset);
    }

    /// A message is done with; everything before the offset returned is.
    pub fn finish(&self, offset: i64) -> i64 {
        let mut state = self.state.lock();
        if let Some(bytes) = state.open.remove(&offset) {
            state.bytes -= bytes;
        }
        self.less.notify_one();
        state.done()
    }

    pub fn done(&self) -> i64 {
        self.state.lock().done()
    }

    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
    }

    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::SeqCst)
    }

    /// Waits while the listener is too far behind for more to be pulled.
    pub async fn wait_for_room(&self) {
        while self.state.lock().is_full() {
            self.less.notified().await;
        }
    }
}

impl State {
    fn done(&self) -> i64 {
        self.open.keys().next().copied().unwrap_or(self.next)
    }

    fn is_full(&self) -> bool {
        self.open.len() >= MESSAGES_MAX || self.bytes >= BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_waits_for_the_slowest_message() {
        let queue = ProcessQueue::starting_at(10);
        assert_eq!(queue.done(), 10);
        for offset in 10..13 {
            queue.add(offset, 1);
        }
        assert_eq!(queue.finish(11), 10);
        assert_eq!(queue.finish(10), 12);
        assert_eq!(queue.finish(12), 13);
        queue.skip_to(20);
        assert_eq!(queue.done(), 20);
    }

    #[tokio::test]
    async fn a_full_queue_lets_the_puller_wait_until_something_is_done() {
        let queue = ProcessQueue::starting_at(0);
        (0..MESSAGES_MAX as i64).for_each(|offset| queue.add(offset, 1));
        let waiting = queue.wait_for_room();
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            () = &mut waiting => panic!("there is no room"),
            () = std::future::ready(()) => {}
        }
        queue.finish(5);
        waiting.await;
    }
}
