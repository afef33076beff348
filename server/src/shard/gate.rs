//! A door that tasks of one core wait at: back-pressure from the writer's inbox to the sockets.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Lives on one core.
#[derive(Debug, Default)]
pub struct Gate {
    closed: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Gate {
    pub fn close(&self) {
        self.closed.set(true);
    }

    pub fn open(&self) {
        self.closed.set(false);
        for waker in self.waiting.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    /// At once while the gate is open. Who waits may find it closed again, and waits on.
    pub async fn passed(&self) {
        poll_fn(|context| {
            if !self.closed.get() {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    #[test]
    fn who_waits_at_a_closed_gate_passes_once_it_opens() {
        let gate = Gate::default();
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(gate.passed()).poll(&mut context).is_ready());

        gate.close();
        let mut waiter = pin!(gate.passed());
        assert!(waiter.as_mut().poll(&mut context).is_pending());
        gate.open();
        assert!(waiter.as_mut().poll(&mut context).is_ready());
    }
}
