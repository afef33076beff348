//! A wake-up between tasks of one core. One permit is kept if nobody waits, so a notify before the wait is not lost.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Local to its core: not Send. Share it with Rc.
#[derive(Default)]
pub struct Notify {
    permit: Cell<bool>,
    next_ticket: Cell<u64>,
    /// Who waits, in the order they came. Few: both lists are searched.
    waiting: RefCell<VecDeque<(u64, Waker)>>,
    /// Tickets that were given a permit and have not been polled since.
    granted: RefCell<Vec<u64>>,
    local: PhantomData<*const ()>,
}

impl Notify {
    pub fn new() -> Notify {
        Notify::default()
    }

    /// Lets the longest waiting task go on; if none waits, the next one will not have to.
    pub fn notify(&self) {
        if !self.grant_next() {
            self.permit.set(true);
        }
    }

    /// Lets every task go on that waits now. Keeps no permit.
    pub fn notify_all(&self) {
        while self.grant_next() {}
    }

    pub fn notified(&self) -> Notified<'_> {
        Notified {
            notify: self,
            ticket: None,
        }
    }

    /// False: nobody waits.
    fn grant_next(&self) -> bool {
        let Some((ticket, waker)) = self.waiting.borrow_mut().pop_front() else {
            return false;
        };
        self.granted.borrow_mut().push(ticket);
        waker.wake(); // makes a task ready, runs none
        true
    }

    fn take_granted(&self, ticket: u64) -> bool {
        let mut granted = self.granted.borrow_mut();
        let place = granted.iter().position(|&other| other == ticket);
        place.is_some_and(|place| {
            granted.swap_remove(place);
            true
        })
    }
}

/// Completes with a permit.
pub struct Notified<'a> {
    notify: &'a Notify,
    ticket: Option<u64>,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let notify = self.notify;
        let Some(ticket) = self.ticket else {
            if notify.permit.take() {
                return Poll::Ready(());
            }
            let ticket = notify.next_ticket.get();
            notify.next_ticket.set(ticket + 1);
            let waiter = (ticket, cx.waker().clone());
            notify.waiting.borrow_mut().push_back(waiter);
            self.ticket = Some(ticket);
            return Poll::Pending;
        };
        if notify.take_granted(ticket) {
            self.ticket = None;
            return Poll::Ready(());
        }
        let mut waiting = notify.waiting.borrow_mut();
        if let Some((_, waker)) = waiting.iter_mut().find(|(other, _)| *other == ticket) {
            waker.clone_from(cx.waker());
        }
        Poll::Pending
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else {
            return;
        };
        if self.notify.take_granted(ticket) {
            // Given a permit it never used: the next one gets it.
            self.notify.notify();
            return;
        }
        let mut waiting = self.notify.waiting.borrow_mut();
        waiting.retain(|(other, _)| *other != ticket);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn poll(future: Pin<&mut Notified<'_>>) -> bool {
        future
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    #[test]
    fn one_permit_is_kept_and_no_more() {
        let notify = Notify::new();
        notify.notify();
        notify.notify();
        assert!(poll(pin!(notify.notified())));
        assert!(!poll(pin!(notify.notified())));
    }

    #[test]
    fn waiters_go_on_in_the_order_they_came() {
        let notify = Notify::new();
        let mut first = pin!(notify.notified());
        let mut second = pin!(notify.notified());
        assert!(!poll(first.as_mut()) && !poll(second.as_mut()));
        notify.notify();
        assert!(!poll(second.as_mut()));
        assert!(poll(first.as_mut()));
        notify.notify_all();
        assert!(poll(second.as_mut()));
        assert!(!poll(pin!(notify.notified())), "notify_all keeps no permit");
    }

    #[test]
    fn a_permit_given_to_a_dropped_waiter_passes_on() {
        let notify = Notify::new();
        let mut kept = pin!(notify.notified());
        {
            let mut dropped = pin!(notify.notified());
            assert!(!poll(dropped.as_mut()));
            assert!(!poll(kept.as_mut()));
            notify.notify();
        }
        assert!(poll(kept.as_mut()));
    }
}
