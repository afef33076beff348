//! How much bulk work one turn of the loop does. A long answer costs time while it is made and again while the kernel copies it,
//! and whatever arrives meanwhile waits for the turn to end: so a turn does some of it, and the rest waits for the next turn, in order.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::{Driver, with_current};

/// Bytes that one turn checks, copies or sends; the last piece may exceed them. Some 30 us. With 256 KiB short answers beside a
/// cold reader waited longer (p99.9 of 20,000 sends a second, medians of five runs of each: 4.2 and 3.4 ms), the reader was 4 % faster.
const BYTES_PER_TURN: usize = 64 << 10;

/// Of one core.
pub(super) struct Bulk {
    left: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Pass>>>,
}

/// One who waits.
struct Pass {
    bytes: usize,
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Bulk {
    pub(super) fn new() -> Bulk {
        Bulk {
            left: Cell::new(BYTES_PER_TURN),
            waiting: RefCell::default(),
        }
    }

    /// Lets those go on who fit into a new turn.
    pub(super) fn begin_turn(&self) {
        self.left.set(BYTES_PER_TURN);
        while self.left.get() > 0
            && let Some(pass) = self.waiting.borrow_mut().pop_front()
        {
            // Otherwise its future was dropped.
            if Rc::strong_count(&pass) > 1 {
                self.spend(pass.bytes);
                pass.granted.set(true);
                if let Some(waker) = pass.waker.take() {
                    waker.wake();
                }
            }
        }
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    fn spend(&self, bytes: usize) {
        self.left.set(self.left.get().saturating_sub(bytes));
    }

    /// None: it may be done in this turn.
    fn ask(&self, bytes: usize) -> Option<Rc<Pass>> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() && self.left.get() > 0 {
            self.spend(bytes);
            return None;
        }
        let pass = Rc::new(Pass {
            bytes,
            granted: Cell::new(false),
            waker: RefCell::default(),
        });
        waiting.push_back(pass.clone());
        Some(pass)
    }
}

/// Waits for a turn of the core that has time for so many bytes of bulk work. On a simulated core there is always time.
pub async fn bulk_turn(bytes: usize) {
    bulk_turn_after(bytes, || {}).await;
}

/// The same; if it has to wait, it calls `before_waiting` first.
pub(crate) async fn bulk_turn_after(bytes: usize, before_waiting: impl FnOnce()) {
    let asked = with_current(|core| match core {
        Some(core) if matches!(core.driver, Driver::Ring(_)) => core.bulk.ask(bytes),
        _ => None,
    });
    let Some(pass) = asked else {
        return;
    };
    before_waiting();
    poll_fn(|context| {
        if pass.granted.get() {
            return Poll::Ready(());
        }
        pass.waker.replace(Some(context.waker().clone()));
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_takes_its_share_and_the_rest_goes_on_in_order() {
        let bulk = Bulk::new();
        assert!(bulk.ask(BYTES_PER_TURN - 1).is_none());
        assert!(bulk.ask(BYTES_PER_TURN).is_none(), "the last may exceed");
        let waiting: Vec<_> = (0..3)
            .map(|_| bulk.ask(BYTES_PER_TURN / 2).expect("the turn is full"))
            .collect();
        let granted = || -> Vec<bool> { waiting.iter().map(|pass| pass.granted.get()).collect() };
        assert_eq!(granted(), [false; 3]);
        bulk.begin_turn();
        assert_eq!(granted(), [true, true, false]);
        assert!(bulk.ask(1).is_some(), "nobody overtakes");
        assert!(bulk.has_waiting());
        bulk.begin_turn();
        assert_eq!(granted(), [true; 3]);
        assert!(!bulk.has_waiting(), "the dropped one takes no share");
        assert!(bulk.ask(BYTES_PER_TURN / 2).is_none());
    }
}
