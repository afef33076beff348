//! The deadlines of one core: who is to be woken when. The driver asks for the next deadline before it waits and fires
//! what is due when it comes back. Owned by the core; never reads a clock itself.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::core::{self, Core};
use crate::time::{self, Instant};

/// Deadlines in order. Two with the same instant fire in the order they were set.
#[derive(Default)]
pub(crate) struct Timers {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<Key, Waker>,
    next_sequence: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    deadline: Instant,
    sequence: u64,
}

impl Timers {
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let state = self.state.borrow();
        state.waiting.first_key_value().map(|(key, _)| key.deadline)
    }

    /// Wakes everything whose deadline is not after `now`.
    pub(crate) fn fire(&self, now: Instant) {
        loop {
            let waker = {
                let mut state = self.state.borrow_mut();
                match state.waiting.first_entry() {
                    Some(entry) if entry.key().deadline <= now => entry.remove(),
                    _ => return,
                }
            };
            waker.wake();
        }
    }

    fn set(&self, deadline: Instant, waker: Waker) -> Key {
        let mut state = self.state.borrow_mut();
        let key = Key {
            deadline,
            sequence: state.next_sequence,
        };
        state.next_sequence += 1;
        state.waiting.insert(key, waker);
        key
    }

    /// Replaces the waker of a deadline that has not fired; false if it has.
    fn refresh(&self, key: Key, waker: &Waker) -> bool {
        match self.state.borrow_mut().waiting.get_mut(&key) {
            Some(known) => {
                known.clone_from(waker);
                true
            }
            None => false,
        }
    }

    fn clear(&self, key: Key) {
        let removed = self.state.borrow_mut().waiting.remove(&key);
        drop(removed); // outside the borrow: the last waker of a task may drop more than itself
    }
}

/// Completes at its deadline, on the core that first polled it.
pub struct Sleep {
    deadline: Instant,
    set: Option<(Weak<Core>, Key)>,
}

pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(time::now() + duration)
}

pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        deadline,
        set: None,
    }
}

impl Sleep {
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some((core, key)) = &self.set {
            let still_waits = core
                .upgrade()
                .is_some_and(|core| core.timers.refresh(*key, cx.waker()));
            if still_waits {
                return Poll::Pending;
            }
            self.set = None;
        }
        let core = core::current();
        // The turn's cached time is never ahead of the clock, so a deadline it has passed is past.
        if self.deadline <= core.turn_time() {
            return Poll::Ready(());
        }
        let key = core.timers.set(self.deadline, cx.waker().clone());
        self.set = Some((Rc::downgrade(&core), key));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((core, key)) = self.set.take()
            && let Some(core) = core.upgrade()
        {
            core.timers.clear(key);
        }
    }
}

/// The time given to [`timeout`] ran out first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time allowed ran out")
    }
}

impl std::error::Error for Elapsed {}

/// Runs `future` for at most `duration`; what is not done by then is dropped.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut limit = pin!(sleep(duration));
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        limit.as_mut().poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};
    use std::task::Wake;

    use super::*;

    struct Note(u32, Arc<Mutex<Vec<u32>>>);

    impl Wake for Note {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    #[test]
    fn deadlines_fire_in_order_and_ties_in_the_order_they_were_set() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let timers = Timers::default();
        let at = |ns| Instant::from_nanos(ns);
        for (mark, ns) in [(3, 30), (1, 10), (2, 10), (4, 40)] {
            timers.set(at(ns), Arc::new(Note(mark, order.clone())).into());
        }
        assert_eq!(timers.next_deadline(), Some(at(10)));
        timers.fire(at(9));
        assert!(order.lock().unwrap().is_empty());
        timers.fire(at(30));
        assert_eq!(*order.lock().unwrap(), [1, 2, 3]);
        assert_eq!(timers.next_deadline(), Some(at(40)));
    }

    #[test]
    fn a_cleared_deadline_does_not_fire() {
        struct Count(AtomicU32);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicU32::new(0)));
        let timers = Timers::default();
        let key = timers.set(Instant::from_nanos(1), count.clone().into());
        timers.clear(key);
        timers.fire(Instant::from_nanos(2));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        assert_eq!(timers.next_deadline(), None);
    }
}
