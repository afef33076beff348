//! Senders that found the mailbox full, in the order they came, each with the item it wants to hand over.
//!
//! Items move from here into the ring in that order, by whoever notices room: the receiver after it popped, or a
//! sender that has just queued up. While anybody waits, no later item may pass, so nobody starves. The lock is taken
//! only while the mailbox is full.

use std::{collections::VecDeque, task::Waker};

use super::primitives::{AtomicUsize, Mutex, MutexGuard, Ordering};

pub(super) struct Waiting<T> {
    /// How many wait; written under the lock, read without.
    count: AtomicUsize,
    line: Mutex<Line<T>>,
}

pub(super) struct Line<T> {
    next_ticket: u64,
    /// Sorted by ticket.
    waiters: VecDeque<Waiter<T>>,
}

struct Waiter<T> {
    ticket: u64,
    item: T,
    waker: Waker,
}

/// Whether a waiting sender's item has been taken over.
pub(super) enum Turn {
    Waiting,
    HandedOver,
}

impl<T> Waiting<T> {
    pub(super) fn new() -> Self {
        Self {
            count: AtomicUsize::new(0),
            line: Mutex::new(Line {
                next_ticket: 0,
                waiters: VecDeque::new(),
            }),
        }
    }

    #[inline]
    pub(super) fn anybody(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Line<T>> {
        // Nothing that can panic runs under the lock, save a waker's clone.
        self.line
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Queues up and returns the ticket to ask with.
    pub(super) fn enter(&self, item: T, waker: &Waker) -> u64 {
        let waker = waker.clone();
        let mut line = self.lock();
        let ticket = line.next_ticket;
        line.next_ticket += 1;
        line.waiters.push_back(Waiter {
            ticket,
            item,
            waker,
        });
        self.count.store(line.waiters.len(), Ordering::Relaxed);
        ticket
    }

    /// Where the holder of `ticket` stands; while it waits, `waker` is the one to be woken.
    pub(super) fn turn(&self, ticket: u64, waker: &Waker) -> Turn {
        let mut line = self.lock();
        match line.find(ticket) {
            None => Turn::HandedOver,
            Some(at) => {
                line.waiters[at].waker.clone_from(waker);
                Turn::Waiting
            }
        }
    }

    /// Leaves the line; the item comes back unless it was handed over.
    pub(super) fn leave(&self, ticket: u64) -> Option<T> {
        let mut line = self.lock();
        let at = line.find(ticket)?;
        let waiter = line.waiters.remove(at);
        self.count.store(line.waiters.len(), Ordering::Relaxed);
        waiter.map(|waiter| waiter.item)
    }

    /// Offers the first item to `take`, which gives it back when it has no room. True when it was taken; its sender
    /// is woken outside the lock.
    pub(super) fn hand_over_first(&self, take: impl FnOnce(T) -> Result<(), T>) -> bool {
        let mut line = self.lock();
        let Some(waiter) = line.waiters.pop_front() else {
            return false;
        };
        let Waiter {
            ticket,
            item,
            waker,
        } = waiter;
        if let Err(item) = take(item) {
            line.waiters.push_front(Waiter {
                ticket,
                item,
                waker,
            });
            return false;
        }
        self.count.store(line.waiters.len(), Ordering::Relaxed);
        drop(line);
        waker.wake();
        true
    }

    /// The receiver is gone: everybody is woken and takes its own item back.
    pub(super) fn wake_all(&self) {
        let wakers: Vec<Waker> = self
            .lock()
            .waiters
            .iter()
            .map(|waiter| waiter.waker.clone())
            .collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<T> Line<T> {
    fn find(&self, ticket: u64) -> Option<usize> {
        self.waiters
            .binary_search_by_key(&ticket, |waiter| waiter.ticket)
            .ok()
    }
}
