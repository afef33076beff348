//! Those who wait for the next message of a queue: pulls of this shard's connections, and tasks of the broker itself.
//!
//! Woken by the append (the queue's bit for this shard), or by the deadline. One ordered set of deadlines and one task
//! serve all of them, so that ten thousand waiting pulls cost nothing until something happens.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use engine::{Queue, QueueNo, QueueOffset};
use hashbrown::HashMap;
use reactor::{Instant, Notify};

use crate::shard::slab::{Key, Slab};

/// Deadlines are rounded up to this, so that one wake-up of the core serves many.
const DEADLINE_STEP: Duration = Duration::from_millis(20);
/// Pulls taken up or answered in one go; then the core's other tasks have their turn.
const LOOKS_PER_TURN_MAX: usize = 512;

/// Lives on one core. `P` is what a parked pull needs to be taken up again.
pub struct LongPolls<P> {
    shard: u16,
    tables: RefCell<Tables<P>>,
    /// The deadline task sleeps until this; none: it sleeps until told.
    armed: Cell<Option<Instant>>,
    rearm: Notify,
}

struct Tables<P> {
    waiting: Slab<Waiting<P>>,
    /// Who waits for which queue. Keys of those that are gone stay behind until the list would have to grow.
    by_queue: HashMap<QueueNo, Vec<Key>>,
    deadlines: BTreeSet<(Instant, Key)>,
}

struct Waiting<P> {
    queue: Arc<Queue>,
    /// The first offset that is of interest.
    offset: u64,
    deadline: Instant,
    who: Who<P>,
}

enum Who<P> {
    /// None while it is being looked at.
    Pull(Option<P>),
    /// A task that waits in `wait_for`.
    Task(Rc<Bell>),
}

#[derive(Default)]
struct Bell {
    rung: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Bell {
    fn ring(&self) {
        self.rung.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// What becomes of a pull that was looked at again.
pub enum Looked<P> {
    Answered,
    /// There is nothing for it below this offset. It waits until this deadline, or until the one it had if that is earlier.
    StillWaiting {
        pull: P,
        offset: u64,
        deadline: Instant,
    },
}

impl<P> Tables<P> {
    fn insert(&mut self, waiting: Waiting<P>) -> Key {
        let (no, deadline) = (waiting.queue.no(), waiting.deadline);
        let key = self.waiting.insert(waiting);
        let list = self.by_queue.entry(no).or_default();
        if list.len() == list.capacity() {
            list.retain(|&listed| self.waiting.get(listed).is_some());
        }
        list.push(key);
        self.deadlines.insert((deadline, key));
        key
    }

    fn remove(&mut self, key: Key) -> Option<Waiting<P>> {
        let waiting = self.waiting.remove(key)?;
        self.deadlines.remove(&(waiting.deadline, key));
        Some(waiting)
    }
}

impl<P> LongPolls<P> {
    pub fn new(shard: u16) -> Self {
        Self {
            shard,
            tables: RefCell::new(Tables {
                waiting: Slab::default(),
                by_queue: HashMap::new(),
                deadlines: BTreeSet::new(),
            }),
            armed: Cell::new(None),
            rearm: Notify::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.tables.borrow().waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Holds a pull until the queue has a message at `offset` or the deadline has come. False if the queue has grown
    /// meanwhile: then a wake-up of this queue must be played (`wake`), or the pull would sleep past its message.
    #[must_use]
    pub fn park(&self, queue: &Arc<Queue>, offset: u64, deadline: Instant, pull: P) -> bool {
        self.insert(queue, offset, deadline, Who::Pull(Some(pull)));
        queue.park(usize::from(self.shard)) <= offset
    }

    /// True once the queue has a message at `offset`, false when the deadline came first.
    pub async fn wait_for(
        &self,
        queue: &Arc<Queue>,
        offset: QueueOffset,
        deadline: Instant,
    ) -> bool {
        let bell = Rc::new(Bell::default());
        let key = self.insert(queue, offset.0, deadline, Who::Task(Rc::clone(&bell)));
        let _leave = Leave { polls: self, key };
        if queue.park(usize::from(self.shard)) > offset.0 {
            return true;
        }
        poll_fn(|context| {
            if bell.rung.get() {
                return Poll::Ready(());
            }
            *bell.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        queue.max_offset() > offset.0
    }

    fn insert(&self, queue: &Arc<Queue>, offset: u64, deadline: Instant, who: Who<P>) -> Key {
        let deadline = round_up(deadline);
        let key = self.tables.borrow_mut().insert(Waiting {
            queue: Arc::clone(queue),
            offset,
            deadline,
            who,
        });
        self.arm(deadline);
        key
    }

    /// The queue has grown: `look` takes up every pull that waits for it, and may hand it back. False if so many wait
    /// that others of this core must come first: then it is to be called again.
    #[must_use]
    pub fn wake(&self, queue_no: QueueNo, mut look: impl FnMut(P) -> Looked<P>) -> bool {
        let mut looks_left = LOOKS_PER_TURN_MAX;
        loop {
            let mut list = match self.tables.borrow_mut().by_queue.get_mut(&queue_no) {
                Some(list) => std::mem::take(list),
                None => return true,
            };
            let mut left: Option<(Arc<Queue>, u64)> = None;
            list.retain(|&key| {
                if looks_left == 0 {
                    return true;
                }
                match self.look_at(key, &mut looks_left, &mut look) {
                    Some((queue, offset)) => {
                        let lowest = left
                            .as_ref()
                            .map_or(offset, |(_, lowest)| offset.min(*lowest));
                        left = Some((queue, lowest));
                        true
                    }
                    None => false,
                }
            });
            if let Some(newer) = self.tables.borrow_mut().by_queue.insert(queue_no, list)
                && !newer.is_empty()
            {
                let mut tables = self.tables.borrow_mut();
                tables.by_queue.entry(queue_no).or_default().extend(newer);
            }
            if looks_left == 0 {
                return false;
            }
            // Some are waiting still: say so to the writer, and look again if it did not hear that in time.
            match left {
                Some((queue, seen)) if queue.park(usize::from(self.shard)) > seen => {}
                _ => return true,
            }
        }
    }

    /// Looks at one; its queue and the offset it waits for if it goes on waiting.
    /// Takes out those parked pulls of a queue that are to be told something else than what they wait for.
    pub fn take_out(&self, queue_no: QueueNo, mut wanted: impl FnMut(&P) -> bool) -> Vec<P> {
        let mut tables = self.tables.borrow_mut();
        let keys = tables.by_queue.get(&queue_no).cloned().unwrap_or_default();
        let mut taken = Vec::new();
        for key in keys {
            let is_wanted = tables
                .waiting
                .get(key)
                .is_some_and(|waiting| match &waiting.who {
                    Who::Pull(Some(pull)) => wanted(pull),
                    Who::Pull(None) | Who::Task(_) => false,
                });
            if is_wanted
                && let Some(waiting) = tables.remove(key)
                && let Who::Pull(Some(pull)) = waiting.who
            {
                taken.push(pull);
            }
        }
        taken
    }

    fn look_at(
        &self,
        key: Key,
        looks_left: &mut usize,
        look: &mut impl FnMut(P) -> Looked<P>,
    ) -> Option<(Arc<Queue>, u64)> {
        let pull = {
            let mut tables = self.tables.borrow_mut();
            let waiting = tables.waiting.get_mut(key)?;
            if waiting.queue.max_offset() <= waiting.offset {
                return Some((Arc::clone(&waiting.queue), waiting.offset));
            }
            match &mut waiting.who {
                Who::Pull(pull) => pull.take(),
                Who::Task(bell) => {
                    bell.ring();
                    None
                }
            }
        };
        *looks_left -= 1;
        if let Some(pull) = pull
            && let Looked::StillWaiting {
                pull,
                offset,
                deadline,
            } = look(pull)
        {
            return self.put_back(key, pull, offset, round_up(deadline));
        }
        self.tables.borrow_mut().remove(key);
        None
    }

    fn put_back(
        &self,
        key: Key,
        pull: P,
        offset: u64,
        deadline: Instant,
    ) -> Option<(Arc<Queue>, u64)> {
        let mut tables = self.tables.borrow_mut();
        let Tables {
            waiting, deadlines, ..
        } = &mut *tables;
        let waiting = waiting.get_mut(key)?;
        waiting.who = Who::Pull(Some(pull));
        waiting.offset = offset;
        if deadline < waiting.deadline {
            deadlines.remove(&(waiting.deadline, key));
            deadlines.insert((deadline, key));
            waiting.deadline = deadline;
            self.arm(deadline);
        }
        Some((Arc::clone(&waiting.queue), offset))
    }

    /// The deadline task must not sleep longer than this.
    fn arm(&self, deadline: Instant) {
        if self.armed.get().is_none_or(|armed| deadline < armed) {
            self.armed.set(Some(deadline));
            self.rearm.notify();
        }
    }

    /// Those whose time is up by `now`, as many as one turn may answer: tasks are rung, pulls are handed out.
    fn expired(&self, now: Instant, into: &mut Vec<P>) {
        let mut tables = self.tables.borrow_mut();
        while into.len() < LOOKS_PER_TURN_MAX
            && let Some(&(deadline, key)) = tables.deadlines.first()
            && deadline <= now
        {
            let waiting = tables.remove(key).expect("a deadline belongs to somebody");
            match waiting.who {
                Who::Pull(pull) => into.extend(pull),
                Who::Task(bell) => bell.ring(),
            }
        }
    }

    /// Takes out every pull, whatever it waits for: the shard is closing.
    pub fn drain(&self) -> Vec<P> {
        let mut pulls = Vec::new();
        let mut tables = self.tables.borrow_mut();
        while let Some(&(_, key)) = tables.deadlines.first() {
            let waiting = tables.remove(key).expect("a deadline belongs to somebody");
            match waiting.who {
                Who::Pull(pull) => pulls.extend(pull),
                Who::Task(bell) => bell.ring(),
            }
        }
        pulls
    }

    /// The deadline task. `answer` gets each pull whose time is up, `done` follows each round of them.
    pub async fn run_deadlines(&self, mut answer: impl FnMut(P), mut done: impl FnMut()) {
        let mut expired = Vec::new();
        loop {
            let next = self.tables.borrow().deadlines.first().map(|(at, _)| *at);
            self.armed.set(next);
            match next {
                None => self.rearm.notified().await,
                Some(at) => self.sleep_until_or_rearmed(at).await,
            }
            self.expired(reactor::now(), &mut expired);
            if !expired.is_empty() {
                expired.drain(..).for_each(&mut answer);
                done();
                reactor::yield_now().await;
            }
        }
    }

    /// An earlier deadline than the one slept for ends the sleep; a later one does not concern it.
    async fn sleep_until_or_rearmed(&self, at: Instant) {
        let mut sleep = std::pin::pin!(reactor::sleep_until(at));
        let mut rearmed = std::pin::pin!(self.rearm.notified());
        poll_fn(|context| {
            use std::future::Future;
            if sleep.as_mut().poll(context).is_ready() || rearmed.as_mut().poll(context).is_ready()
            {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// Takes a waiting task off the lists however its wait ends.
struct Leave<'a, P> {
    polls: &'a LongPolls<P>,
    key: Key,
}

impl<P> Drop for Leave<'_, P> {
    fn drop(&mut self) {
        self.polls.tables.borrow_mut().remove(self.key);
    }
}

fn round_up(deadline: Instant) -> Instant {
    let step = DEADLINE_STEP.as_nanos() as u64;
    let over = deadline.as_nanos() % step;
    if over == 0 {
        deadline
    } else {
        deadline + Duration::from_nanos(step - over)
    }
}
