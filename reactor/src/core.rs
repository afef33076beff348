//! One core: an executor, its timers, its clock readings and its driver. The thread's current core decides who serves a
//! call to this crate. A thread may hold several cores (simulation) but runs one at a time.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use crate::driver::{ring, sim};
use crate::random::{Random, os_seed};
use crate::task::{Executor, Task, Urgency, spawn_on};
use crate::time::{self, Instant};
use crate::timer::Timers;

mod bulk;
mod run_queue;
mod stall;

use bulk::Bulk;
pub use bulk::bulk_turn;
pub(crate) use bulk::bulk_turn_after;
use stall::StallWatch;
pub use stall::stalls;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
    /// For threads that are no core, such as the offload thread.
    static THREAD_RANDOM: Random = Random::new(os_seed());
}

pub(crate) enum Driver {
    Ring(Rc<ring::Ring>),
    Sim(Rc<sim::Core>),
}

pub(crate) struct Core {
    pub(crate) executor: Executor,
    pub(crate) timers: Timers,
    pub(crate) driver: Driver,
    name: String,
    turn: Cell<Instant>,
    /// None until somebody asks in this turn.
    wall_ms: Cell<Option<i64>>,
    random: Random,
    stalls: StallWatch,
    bulk: Bulk,
}

/// Counters of one core since it started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CoreStats {
    pub tasks_live: usize,
    /// Polls of tasks.
    pub polls: u64,
    /// Polls that held the core longer than `stall_ms`.
    pub stalls: u64,
    pub stall_ms_max: u64,
    /// Tasks that ended by a panic.
    pub panics: u64,
}

impl Core {
    pub(crate) fn new(name: &str, driver: Driver, seed: u64, stall_ms: u32) -> Rc<Core> {
        Rc::new(Core {
            executor: Executor::new(),
            timers: Timers::default(),
            driver,
            name: name.to_owned(),
            turn: Cell::new(Instant::default()),
            wall_ms: Cell::new(None),
            random: Random::new(seed),
            stalls: StallWatch::new(stall_ms),
            bulk: Bulk::new(),
        })
    }

    /// Makes this the thread's current core until the guard drops.
    pub(crate) fn enter(self: &Rc<Self>) -> Entered {
        let previous = CURRENT.with(|current| current.replace(Some(self.clone())));
        Entered { previous }
    }

    /// Begins a turn of the loop at `now`; fires what is due. `wall_ms` is read from the clock on demand if not given.
    pub(crate) fn begin_turn(&self, now: Instant, wall_ms: Option<i64>) {
        self.turn.set(now);
        self.wall_ms.set(wall_ms);
        self.timers.fire(now);
        self.bulk.begin_turn();
        self.stalls.begin_turn(now);
    }

    /// Polls ready tasks. `goes_on` is asked after each of them, with the time at that moment.
    pub(crate) fn run_ready(&self, polls_max: usize, goes_on: impl Fn(Instant) -> bool) -> usize {
        let mut began = time::monotonic();
        self.executor.run_ready(polls_max, |task| {
            let ended = time::monotonic();
            self.stalls.check(&self.name, task, began, ended);
            began = ended;
            goes_on(ended)
        })
    }

    pub(crate) fn has_ready(&self) -> bool {
        self.executor.has_ready()
    }

    /// The next turn has something to do already.
    pub(crate) fn has_waiting_bulk(&self) -> bool {
        self.bulk.has_waiting()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    /// Drops every task. Called inside `enter`, so that destructors find their core.
    pub(crate) fn shutdown(&self) {
        self.executor.clear();
    }

    pub(crate) fn spawn<F>(self: &Rc<Self>, name: &'static str, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        spawn_on(self, name, Urgency::InTurn, future)
    }

    pub(crate) fn turn_time(&self) -> Instant {
        self.turn.get()
    }

    pub(crate) fn wall_ms(&self) -> i64 {
        self.wall_ms.get().unwrap_or_else(|| {
            let now_ms = time::wall_clock_ms();
            self.wall_ms.set(Some(now_ms));
            now_ms
        })
    }

    fn stats(&self) -> CoreStats {
        CoreStats {
            tasks_live: self.executor.tasks_live(),
            polls: self.executor.polls.get(),
            stalls: self.stalls.count(),
            stall_ms_max: self.stalls.ms_max(),
            panics: self.executor.panics.get(),
        }
    }
}

/// While it lives, its core is the thread's current one.
pub(crate) struct Entered {
    previous: Option<Rc<Core>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let left = CURRENT.with(|current| current.replace(self.previous.take()));
        drop(left); // outside the borrow: it may be the last owner
    }
}

/// Hands the current core to `f`, which must not enter or leave a core.
pub(crate) fn with_current<T>(f: impl FnOnce(Option<&Rc<Core>>) -> T) -> T {
    let mut f = Some(f);
    let ran = CURRENT.try_with(|current| {
        let f = f.take().expect("taken here only");
        f(current.borrow().as_ref())
    });
    match (ran, f) {
        (Ok(output), _) => output,
        // The thread is ending and its storage is gone: it is no core any more.
        (Err(_), Some(f)) => f(None),
        (Err(_), None) => unreachable!("the closure is taken only where it runs"),
    }
}

pub(crate) fn current() -> Rc<Core> {
    with_current(|core| core.cloned())
        .expect("this call needs a core: use it from a task started by reactor::run or launch")
}

/// The simulated core that runs now, if the current core is one.
pub(crate) fn sim() -> Option<Rc<sim::Core>> {
    with_current(|core| match core.map(|core| &core.driver) {
        Some(Driver::Sim(sim)) => Some(sim.clone()),
        _ => None,
    })
}

/// The ring of the current core, if it has one.
pub(crate) fn find_ring() -> Option<Rc<ring::Ring>> {
    with_current(|core| match core.map(|core| &core.driver) {
        Some(Driver::Ring(ring)) => Some(ring.clone()),
        _ => None,
    })
}

/// The ring of the current core.
pub(crate) fn ring() -> Rc<ring::Ring> {
    find_ring().expect("sockets and file operations of a ring are used on a core started by reactor::run or launch")
}

/// Starts a task on this core.
pub fn spawn<F>(name: &'static str, future: F) -> Task<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    current().spawn(name, future)
}

/// Starts a task that is polled before all that are not urgent, whenever it is ready. For tasks that keep something slow
/// busy, such as a disk: while they have nothing to do it stands still.
pub fn spawn_urgent<F>(name: &'static str, future: F) -> Task<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    spawn_on(&current(), name, Urgency::First, future)
}

/// A random number from this core's generator: the system's seed, or the simulated world's.
pub fn random() -> u64 {
    with_current(|core| match core {
        Some(core) => core.random.next(),
        None => THREAD_RANDOM.with(Random::next),
    })
}

/// Counters of the current core.
pub fn core_stats() -> CoreStats {
    current().stats()
}
