//! One queue that this member reads: which of its messages are with the listener, and hence how far the queue is
//! done. Messages finish in any order; the offset to be told is that of the first that has not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::locks::LOCK_LIFE;
use crate::lock::Mutex;
use crate::message_id::now_ms;

/// When pulling pauses: above any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub messages: usize,
    pub bytes: usize,
    /// Offsets between the first message that is not done and the last that was pulled.
    pub span: i64,
}

pub(super) struct ProcessQueue {
    state: Mutex<State>,
    limits: Mutex<Limits>,
    less: Notify,
    /// The queue is another member's now; what the listener still finishes of it is no longer ours to tell.
    given_up: AtomicBool,
    /// Until when the broker's lock counts, for an orderly consumer.
    locked_until: Mutex<Option<Instant>>,
    locked: Notify,
    pub last_pull_ms: AtomicI64,
    pub last_consume_ms: AtomicI64,
    pub last_lock_ms: AtomicI64,
}

#[derive(Default)]
struct State {
    /// Body lengths of what is not finished, by offset.
    open: BTreeMap<i64, usize>,
    bytes: usize,
    /// Behind the last message that was added or skipped.
    next: i64,
    /// Before this everything was done by another member.
    passed: i64,
}

/// What a process queue holds at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub done: i64,
    pub first: i64,
    pub last: i64,
    pub messages: usize,
    pub bytes: usize,
}

impl ProcessQueue {
    pub fn starting_at(offset: i64, limits: Limits) -> ProcessQueue {
        ProcessQueue {
            state: Mutex::new(State {
                next: offset,
                ..State::default()
            }),
            limits: Mutex::new(limits),
            less: Notify::new(),
            given_up: AtomicBool::new(false),
            locked_until: Mutex::new(None),
            locked: Notify::new(),
            last_pull_ms: AtomicI64::new(now_ms()),
            last_consume_ms: AtomicI64::new(now_ms()),
            last_lock_ms: AtomicI64::new(0),
        }
    }

    pub fn set_limits(&self, limits: Limits) {
        *self.limits.lock() = limits;
        self.less.notify_one();
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

    /// Another member has done everything before `offset` while the queue was locked for it: none of it is for us any more.
    pub fn pass_to(&self, offset: i64) {
        let mut state = self.state.lock();
        state.passed = state.passed.max(offset);
    }

    pub fn is_passed(&self, offset: i64) -> bool {
        offset < self.state.lock().passed
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

    pub fn held(&self) -> Held {
        let state = self.state.lock();
        Held {
            done: state.done(),
            first: state.open.keys().next().copied().unwrap_or(0),
            last: state.open.keys().next_back().copied().unwrap_or(0),
            messages: state.open.len(),
            bytes: state.bytes,
        }
    }

    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
        self.locked.notify_waiters();
    }

    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::SeqCst)
    }

    /// Waits while the listener is too far behind for more to be pulled.
    pub async fn wait_for_room(&self) {
        while self.is_full() {
            self.less.notified().await;
        }
    }

    fn is_full(&self) -> bool {
        let limits = *self.limits.lock();
        self.state.lock().is_full(limits)
    }

    /// The broker's lock is ours, or another member's.
    pub fn set_locked(&self, locked: bool) {
        *self.locked_until.lock() = locked.then(|| Instant::now() + LOCK_LIFE);
        if locked {
            self.last_lock_ms.store(now_ms(), Ordering::Relaxed);
            self.locked.notify_waiters();
        }
    }

    pub fn is_locked(&self) -> bool {
        let until = *self.locked_until.lock();
        until.is_some_and(|until| Instant::now() < until)
    }

    pub async fn given_up(&self) {
        loop {
            let changed = self.locked.notified();
            if self.is_given_up() {
                return;
            }
            changed.await;
        }
    }

    /// Waits for the lock; false if the queue was given up meanwhile.
    pub async fn wait_for_lock(&self) -> bool {
        loop {
            let changed = self.locked.notified();
            // It is told of every change from now on, looked at or not.
            if self.is_given_up() {
                return false;
            }
            if self.is_locked() {
                return true;
            }
            changed.await;
        }
    }
}

impl State {
    fn done(&self) -> i64 {
        let own = self.open.keys().next().copied().unwrap_or(self.next);
        own.max(self.passed)
    }

    fn is_full(&self, limits: Limits) -> bool {
        self.open.len() >= limits.messages
            || self.bytes >= limits.bytes
            || self.next - self.done() > limits.span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        messages: 1_000,
        bytes: 1 << 20,
        span: 2_000,
    };

    #[test]
    fn the_offset_waits_for_the_slowest_message() {
        let queue = ProcessQueue::starting_at(10, LIMITS);
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

    #[test]
    fn what_another_member_has_done_is_not_left_to_do() {
        let queue = ProcessQueue::starting_at(10, LIMITS);
        (10..13).for_each(|offset| queue.add(offset, 1));
        queue.pass_to(12);
        queue.pass_to(11);
        assert_eq!(queue.done(), 12, "it is never told less than others told");
        assert!(queue.is_passed(11) && !queue.is_passed(12));
        assert_eq!((queue.finish(10), queue.finish(11)), (12, 12));
        assert_eq!(queue.finish(12), 13);
        queue.pass_to(20);
        assert_eq!(queue.done(), 20);
    }

    async fn waits(queue: &ProcessQueue) -> bool {
        tokio::select! {
            biased;
            () = queue.wait_for_room() => false,
            () = std::future::ready(()) => true,
        }
    }

    #[tokio::test]
    async fn a_full_queue_lets_the_puller_wait_until_something_is_done() {
        let queue = ProcessQueue::starting_at(0, LIMITS);
        (0..1_000).for_each(|offset| queue.add(offset, 1));
        assert!(waits(&queue).await);
        queue.finish(5);
        queue.wait_for_room().await;
    }

    #[tokio::test]
    async fn bytes_and_a_wide_span_fill_a_queue_as_well() {
        let heavy = ProcessQueue::starting_at(0, LIMITS);
        heavy.add(0, 1 << 20);
        assert!(waits(&heavy).await);
        let wide = ProcessQueue::starting_at(0, LIMITS);
        wide.add(0, 1);
        wide.skip_to(2_000);
        assert!(!waits(&wide).await);
        wide.add(2_000, 1);
        assert!(waits(&wide).await);
        wide.set_limits(Limits {
            span: 3_000,
            ..LIMITS
        });
        wide.wait_for_room().await;
    }

    #[tokio::test]
    async fn who_waits_for_a_lock_hears_of_it_or_of_the_end() {
        let queue = ProcessQueue::starting_at(0, LIMITS);
        let (got, ()) = tokio::join!(queue.wait_for_lock(), async { queue.set_locked(true) });
        assert!(got);
        queue.set_locked(false);
        let (got, ()) = tokio::join!(queue.wait_for_lock(), async { queue.give_up() });
        assert!(!got);
    }
}
