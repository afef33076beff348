//! A wake-up between tasks of one core. One permit is kept if nobody waits, so a notify before the wait is not lost.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Local to its core: not Send. Share it with Rc.
#[derive(Default)]
pub struct Notify {
    permit: Cell<bool>,
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
    local: PhantomData<*const ()>,
}

struct Waiter {
    notified: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Notify {
    pub fn new() -> Notify {
        Notify::default()
    }

    /// Lets the longest waiting task go on; if none waits, the next one will not have to.
    pub fn notify(&self) {
        let Some(waiter) = self.waiters.borrow_mut().pop_front() else {
            self.permit.set(true);
            return;
        };
        waiter.notified.set(true);
        if let Some(waker) = waiter.waker.take() {
            waker.wake();
        }
    }

    /// Lets every task go on that waits now. Keeps no permit.
    pub fn notify_all(&self) {
        let waiting = self.waiters.borrow().len();
        for _ in 0..waiting {
            self.notify();
        }
    }

    pub fn notified(&self) -> Notified<'_> {
        Notified {
            notify: self,
            waiter: None,
        }
    }
}

/// Completes with a permit.
pub struct Notified<'a> {
    notify: &'a Notify,
    waiter: Option<Rc<Waiter>>,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &self.waiter {
            Some(waiter) if waiter.notified.get() => {
                self.waiter = None;
                Poll::Ready(())
            }
            Some(waiter) => {
                waiter.waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
            None if self.notify.permit.take() => Poll::Ready(()),
            None => {
                let waiter = Rc::new(Waiter {
                    notified: Cell::new(false),
                    waker: RefCell::new(Some(cx.waker().clone())),
                });
                self.notify.waiters.borrow_mut().push_back(waiter.clone());
                self.waiter = Some(waiter);
                Poll::Pending
            }
        }
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else {
            return;
        };
        if waiter.notified.get() {
            // Given a permit it never used: the next one gets it.
            self.notify.notify();
        } else {
            let mut waiters = self.notify.waiters.borrow_mut();
            waiters.retain(|other| !Rc::ptr_eq(other, &waiter));
        }
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
