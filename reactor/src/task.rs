//! The executor of one core: its tasks, its run queue, and the wakers that other threads may hold.
//! Tasks never leave their core, and are polled in the order in which they became ready; urgent ones before all others. A waker that fires on the owning core pushes to the local queue; anywhere else it goes
//! through the remote queue and, if the core sleeps, wakes it.
//!
//! No wake-up is lost: a remote waker pushes first and reads `sleeping` after; the core sets `sleeping` first and looks
//! at the remote queue after (both sequentially consistent), so at least one of the two sees the other.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::core::{self, Core};
use crate::driver::ring::Unpark;

mod join;

pub use join::Task;
pub(crate) use join::{Finisher, Join};

/// Names a task of one executor; a slot that is used again gets a new generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TaskKey {
    slot: u32,
    generation: u32,
}

/// The half of an executor that other threads may touch.
pub(crate) struct Shared {
    remote: Mutex<Vec<TaskKey>>,
    /// Something is in `remote`: lets the core look without taking the lock.
    remote_any: AtomicBool,
    sleeping: AtomicBool,
    /// How to end the core's wait. Never set for simulated cores: their world asks them.
    unpark: OnceLock<Unpark>,
}

impl Shared {
    fn lock_remote(&self) -> MutexGuard<'_, Vec<TaskKey>> {
        // A panic inside this lock is impossible short of running out of memory; the queue stays valid either way.
        self.remote.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push_remote(&self, key: TaskKey) {
        {
            let mut remote = self.lock_remote();
            remote.push(key);
            self.remote_any.store(true, Ordering::SeqCst);
        }
        if self.sleeping.load(Ordering::SeqCst)
            && self.sleeping.swap(false, Ordering::SeqCst)
            && let Some(unpark) = self.unpark.get()
        {
            unpark.unpark();
        }
    }

    /// Announces that the core is about to wait. False: something arrived meanwhile, do not wait.
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        if self.remote_any.load(Ordering::SeqCst) {
            self.sleeping.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }

    pub(crate) fn finish_sleep(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    pub(crate) fn has_remote(&self) -> bool {
        self.remote_any.load(Ordering::Acquire)
    }
}

/// What a waker points to.
struct Header {
    key: TaskKey,
    urgency: Urgency,
    /// In a queue, or about to be. Both sides use read-modify-write, so that whoever comes second sees what the first wrote.
    queued: AtomicBool,
    shared: Arc<Shared>,
}

impl Wake for Header {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        core::with_current(|current| match current {
            Some(core) if Arc::ptr_eq(&core.executor.shared, &self.shared) => {
                core.executor.queue(self.key, self.urgency);
            }
            _ => self.shared.push_remote(self.key),
        });
    }
}

/// Which of several ready tasks is polled first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Urgency {
    /// Whoever became ready first.
    InTurn,
    /// Before those: what it does keeps something slow busy.
    First,
}

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

struct Entry {
    name: &'static str,
    header: Arc<Header>,
    /// Taken out while the task is being polled.
    body: Option<Body>,
    cancelled: bool,
}

struct Body {
    future: LocalFuture,
    waker: Waker,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    entry: Option<Entry>,
}

#[derive(Default)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Slots {
    fn entry(&mut self, key: TaskKey) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        slot.entry.as_mut()
    }

    fn remove(&mut self, key: TaskKey) -> Option<Entry> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.slot);
        Some(entry)
    }

    fn live(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// How one poll of a task went.
enum Polled {
    Pending,
    Done,
    Panicked(Box<dyn Any + Send>),
}

pub(crate) struct Executor {
    pub(crate) shared: Arc<Shared>,
    slots: RefCell<Slots>,
    ready: RefCell<VecDeque<TaskKey>>,
    /// Swapped with the remote queue, so that neither allocates in the long run.
    arrivals: RefCell<Vec<TaskKey>>,
    pub(crate) polls: Cell<u64>,
    pub(crate) panics: Cell<u64>,
}

impl Executor {
    pub(crate) fn new() -> Executor {
        Executor {
            shared: Arc::new(Shared {
                remote: Mutex::new(Vec::new()),
                remote_any: AtomicBool::new(false),
                sleeping: AtomicBool::new(false),
                unpark: OnceLock::new(),
            }),
            slots: RefCell::default(),
            ready: RefCell::default(),
            arrivals: RefCell::default(),
            polls: Cell::new(0),
            panics: Cell::new(0),
        }
    }

    pub(crate) fn set_unpark(&self, unpark: Unpark) {
        let fresh = self.shared.unpark.set(unpark).is_ok();
        assert!(fresh, "a core gets its way of being woken once");
    }

    pub(crate) fn tasks_live(&self) -> usize {
        self.slots.borrow().live()
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.borrow().is_empty() || self.shared.has_remote()
    }

    fn queue(&self, key: TaskKey, urgency: Urgency) {
        let mut ready = self.ready.borrow_mut();
        match urgency {
            Urgency::InTurn => ready.push_back(key),
            Urgency::First => ready.push_front(key),
        }
    }

    /// Adds a task, ready to be polled.
    pub(crate) fn spawn(
        &self,
        name: &'static str,
        urgency: Urgency,
        future: LocalFuture,
    ) -> TaskKey {
        let mut slots = self.slots.borrow_mut();
        let index = slots.free.pop().unwrap_or_else(|| {
            slots.slots.push(Slot::default());
            u32::try_from(slots.slots.len() - 1).expect("fewer than 2^32 tasks fit in memory")
        });
        let slot = &mut slots.slots[index as usize];
        debug_assert!(slot.entry.is_none(), "a free slot is empty");
        let key = TaskKey {
            slot: index,
            generation: slot.generation,
        };
        let header = Arc::new(Header {
            key,
            urgency,
            queued: AtomicBool::new(true),
            shared: self.shared.clone(),
        });
        let waker = Waker::from(header.clone());
        slot.entry = Some(Entry {
            name,
            header,
            body: Some(Body { future, waker }),
            cancelled: false,
        });
        drop(slots);
        self.queue(key, urgency);
        key
    }

    /// Polls ready tasks until none is left or `polls_max` is reached. `after_each` is told the task's name, and says
    /// whether to go on.
    pub(crate) fn run_ready(
        &self,
        polls_max: usize,
        mut after_each: impl FnMut(&'static str) -> bool,
    ) -> usize {
        let mut polls = 0;
        while polls < polls_max {
            if self.shared.has_remote() {
                self.take_remote();
            }
            let Some(key) = self.ready.borrow_mut().pop_front() else {
                break;
            };
            if let Some(name) = self.poll(key) {
                polls += 1;
                if !after_each(name) {
                    break;
                }
            }
        }
        self.polls.set(self.polls.get() + polls as u64);
        polls
    }

    /// Ends a task. A task that cancels itself ends when its current poll returns.
    pub(crate) fn cancel(&self, key: TaskKey) {
        let removed = {
            let mut slots = self.slots.borrow_mut();
            match slots.entry(key) {
                None => None,
                Some(entry) if entry.body.is_none() => {
                    entry.cancelled = true;
                    None
                }
                Some(_) => slots.remove(key),
            }
        };
        if let Some(entry) = removed {
            self.drop_entry(entry);
        }
    }

    /// Drops every task, also those that the dropping of others spawns.
    pub(crate) fn clear(&self) {
        loop {
            let removed = {
                let mut slots = self.slots.borrow_mut();
                let live = slots.slots.iter().enumerate();
                let keys: Vec<TaskKey> = live
                    .filter(|(_, slot)| slot.entry.is_some())
                    .map(|(index, slot)| TaskKey {
                        slot: index as u32,
                        generation: slot.generation,
                    })
                    .collect();
                keys.into_iter()
                    .filter_map(|key| slots.remove(key))
                    .collect::<Vec<_>>()
            };
            if removed.is_empty() {
                break;
            }
            for entry in removed {
                self.drop_entry(entry);
            }
        }
        self.ready.borrow_mut().clear();
        self.take_remote();
        self.ready.borrow_mut().clear();
    }

    fn take_remote(&self) {
        let mut arrivals = self.arrivals.borrow_mut();
        {
            let mut remote = self.shared.lock_remote();
            std::mem::swap(&mut *remote, &mut *arrivals);
            self.shared.remote_any.store(false, Ordering::SeqCst);
        }
        for key in arrivals.drain(..) {
            let urgency = match self.slots.borrow_mut().entry(key) {
                Some(entry) => entry.header.urgency,
                None => continue,
            };
            self.queue(key, urgency);
        }
    }

    /// Polls one task; None if it is gone.
    fn poll(&self, key: TaskKey) -> Option<&'static str> {
        let (name, mut body) = {
            let mut slots = self.slots.borrow_mut();
            let entry = slots.entry(key)?;
            // Cleared before the poll: what wakes the task from here on queues it again.
            entry.header.queued.swap(false, Ordering::AcqRel);
            (entry.name, entry.body.take()?)
        };
        let mut context = Context::from_waker(&body.waker);
        let future = body.future.as_mut();
        let polled = match catch_unwind(AssertUnwindSafe(|| future.poll(&mut context))) {
            Ok(Poll::Pending) => Polled::Pending,
            Ok(Poll::Ready(())) => Polled::Done,
            Err(panic) => Polled::Panicked(panic),
        };
        let removed = {
            let mut slots = self.slots.borrow_mut();
            let entry = slots.entry(key)?;
            let ends = entry.cancelled || !matches!(polled, Polled::Pending);
            entry.body = Some(body);
            if ends { slots.remove(key) } else { None }
        };
        if let Polled::Panicked(panic) = polled {
            self.report(name, &*panic);
        }
        if let Some(entry) = removed {
            self.drop_entry(entry);
        }
        Some(name)
    }

    /// Drops a task's future outside all borrows; a panic in its destructors ends no one else.
    fn drop_entry(&self, entry: Entry) {
        let name = entry.name;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(entry))) {
            self.report(name, &*panic);
        }
    }

    fn report(&self, name: &'static str, panic: &(dyn Any + Send)) {
        self.panics.set(self.panics.get() + 1);
        tracing::error!(task = name, panic = %panic_text(panic), "a task panicked and was ended");
    }
}

/// The text of a panic, as far as it has one.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&'static str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a text".to_owned()
    }
}

/// Lets the other ready tasks of this core run once.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Spawns on `core`; the free function `spawn` is this for the current core.
pub(crate) fn spawn_on<F>(
    core: &Rc<Core>,
    name: &'static str,
    urgency: Urgency,
    future: F,
) -> Task<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let join = Rc::new(Join::default());
    let finisher = Finisher::new(join.clone());
    let key = core.executor.spawn(
        name,
        urgency,
        Box::pin(async move {
            let output = future.await;
            finisher.finish(output);
        }),
    );
    let owner: Weak<Core> = Rc::downgrade(core);
    Task::new(join, owner, key)
}

#[cfg(test)]
mod tests;
