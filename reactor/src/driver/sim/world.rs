//! The world: its nodes and their cores, and the one loop that runs them.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    net::Ipv4Addr,
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};

use super::{Core, Faults, Met, disk::Disk, new_core, shared::Shared};
use crate::{core::Core as AnyCore, time::Instant};

/// A core runs at most this many polls before another may have its turn; fewer as chance wants it.
const POLLS_PER_TURN_MAX: usize = 64;
/// So many turns without the clock moving are a loop that waits for time to pass without sleeping.
const TURNS_AT_ONE_INSTANT_MAX: u32 = 2_000_000;
/// `run` and `block_on` wait no longer than this for a world that does not come to rest.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// Names a node of its world.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(u32);

/// A simulated cluster. Dropped in a panic it prints its seed.
pub struct World {
    seed: u64,
    shared: Arc<Shared>,
    registry: Rc<Registry>,
}

/// Where a core belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement {
    pub(super) node: NodeId,
    /// Number of the process, over all nodes and restarts.
    pub(super) process: u32,
    /// The process's first core: with its main future the process ends.
    pub(super) first: bool,
}

/// The nodes, and the cores that live.
pub(super) struct Registry {
    shared: Arc<Shared>,
    nodes: RefCell<Vec<Node>>,
    cores: RefCell<Vec<Running>>,
    next_process: Cell<u32>,
    next_core: Cell<u64>,
}

struct Node {
    name: String,
    disk: Arc<Disk>,
    cpus: usize,
}

#[derive(Clone)]
struct Running {
    /// Over all nodes and restarts.
    number: u64,
    sim: Rc<Core>,
    core: Rc<AnyCore>,
}

impl World {
    /// A world without faults.
    pub fn new(seed: u64) -> Self {
        Self::with(Faults::default(), seed)
    }

    pub fn with(faults: Faults, seed: u64) -> Self {
        let shared = Arc::new(Shared::new(seed, faults));
        let registry = Rc::new(Registry {
            shared: shared.clone(),
            nodes: RefCell::default(),
            cores: RefCell::default(),
            next_process: Cell::new(0),
            next_core: Cell::new(0),
        });
        Self {
            seed,
            shared,
            registry,
        }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Adds a machine with one CPU and an empty disk.
    pub fn node(&mut self, name: &str, ip: Ipv4Addr) -> NodeId {
        let mut nodes = self.registry.nodes.borrow_mut();
        let id = NodeId(u32::try_from(nodes.len()).expect("worlds are small"));
        let (seed, faults) = self.shared.with(|state| {
            state.net.add_host(ip, id);
            (state.chance.next(), state.faults)
        });
        nodes.push(Node {
            name: name.to_owned(),
            disk: Arc::new(Disk::new(seed, faults)),
            cpus: 1,
        });
        id
    }

    /// What `cpu_count` says there.
    pub fn set_cpus(&mut self, node: NodeId, cpus: usize) {
        self.registry.nodes.borrow_mut()[node.index()].cpus = cpus;
    }

    /// Starts a process on a node. It ends with its main future, or when it is killed.
    pub fn start<Fut>(
        &mut self,
        node: NodeId,
        core_name: &str,
        main: impl FnOnce() -> Fut + 'static,
    ) where
        Fut: Future + 'static,
    {
        self.registry.start(node, core_name, main);
    }

    /// Runs a future on the node, as a process of its own, and the world with it until it is done.
    pub fn block_on<F>(&mut self, node: NodeId, future: F) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let output = Rc::new(RefCell::new(None));
        let result = output.clone();
        self.start(node, "block_on", move || async move {
            *output.borrow_mut() = Some(future.await);
        });
        let done = self.run_until(|| result.borrow().is_some(), PATIENCE);
        assert!(done, "what block_on waits for never happens");
        let output = result.borrow_mut().take();
        output.expect("it is there: run_until saw it")
    }

    /// Runs until nothing is left to do. Servers with periodic timers never get there: see `run_for`.
    pub fn run(&mut self) {
        let limit = self.now() + PATIENCE;
        while self.registry.step(limit) {}
        let rest = self.registry.next_time();
        assert!(
            rest.is_none(),
            "after {PATIENCE:?} there is still work to do"
        );
    }

    pub fn run_for(&mut self, duration: Duration) {
        let limit = self.now() + duration;
        while self.registry.step(limit) {}
        self.shared.advance_to(limit);
    }

    /// Runs until `done` says so, and returns true; false if it does not within `limit`.
    pub fn run_until(&mut self, mut done: impl FnMut() -> bool, limit: Duration) -> bool {
        let limit = self.now() + limit;
        while !done() {
            if !self.registry.step(limit) {
                return false;
            }
        }
        true
    }

    /// Ends the node's processes in the middle of whatever they do: tasks are dropped, connections reset, locks
    /// released. What was written to files and mappings stays as it was; direct writes in flight happen or do not.
    pub fn kill(&mut self, node: NodeId) {
        self.stop(node, true);
    }

    /// Takes the node's power away: `kill`, and every sector that was not synced is old or new, every change of a
    /// directory that was not synced may be undone. Peers hear nothing.
    pub fn power_cut(&mut self, node: NodeId) {
        self.stop(node, false);
        self.registry.disk(node).power_cut();
    }

    /// From now on the two nodes do not reach each other; nothing is lost, everything waits.
    pub fn partition(&mut self, a: NodeId, b: NodeId) {
        self.shared.with(|state| state.net.partition(a, b));
    }

    pub fn heal(&mut self, a: NodeId, b: NodeId) {
        self.shared.with(|state| state.heal(a, b));
    }

    /// For everything from now on, on all nodes. Sizes set by `set_disk_bytes` are replaced as well.
    pub fn set_faults(&mut self, faults: Faults) {
        self.shared.with(|state| state.faults = faults);
        for node in &*self.registry.nodes.borrow() {
            node.disk.set_faults(faults);
        }
    }

    pub fn faults(&self) -> Faults {
        self.shared.with(|state| state.faults)
    }

    /// Makes one node's disk larger or smaller; what is on it stays.
    pub fn set_disk_bytes(&mut self, node: NodeId, bytes: Option<u64>) {
        self.registry.disk(node).set_size(bytes);
    }

    /// What the node's disk went through so far. Slow operations are counted for the whole world.
    pub fn met(&self, node: NodeId) -> Met {
        Met {
            slow: self.shared.with(|state| state.slow_operations),
            ..self.registry.disk(node).met()
        }
    }

    /// A hash of every event so far: same seed, same hash.
    pub fn trace_hash(&self) -> u64 {
        let mut trace = self.shared.with(|state| state.trace);
        for node in &*self.registry.nodes.borrow() {
            trace.fold(node.disk.trace());
        }
        trace.value()
    }

    pub fn now(&self) -> Instant {
        self.shared.now()
    }

    /// A number from the seed, for the scene's own decisions.
    pub fn random(&mut self) -> u64 {
        self.shared.with(|state| state.chance.next())
    }

    fn stop(&mut self, node: NodeId, has_power: bool) {
        let registry = &self.registry;
        let disk = registry.disk(node);
        self.shared.with(|state| {
            state.trace.fold_all([7, u64::from(node.0)]);
            state.drop_node(node, has_power);
        });
        // A dead process writes nothing more: destructors of its tasks must not either.
        disk.freeze();
        for running in registry.take_where(|placement| placement.node == node) {
            running.shut_down();
        }
        if has_power {
            disk.orphan_writes();
        }
        disk.thaw();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "the simulated world failed: seed {}, {:?} after its beginning",
                self.seed,
                Duration::from_nanos(self.now().as_nanos())
            );
        }
        for node in &*self.registry.nodes.borrow() {
            node.disk.freeze();
        }
        for running in self.registry.take_where(|_| true) {
            running.shut_down();
        }
    }
}

impl NodeId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

impl Registry {
    fn start<Fut>(self: &Rc<Self>, node: NodeId, name: &str, main: impl FnOnce() -> Fut + 'static)
    where
        Fut: Future + 'static,
    {
        let process = self.next_process.get();
        self.next_process.set(process + 1);
        let placement = Placement {
            node,
            process,
            first: true,
        };
        self.add_core(name, placement, main);
    }

    /// One more core beside the one at `placement`.
    pub(super) fn add<Fut>(
        self: &Rc<Self>,
        name: &str,
        placement: Placement,
        main: impl FnOnce() -> Fut + 'static,
    ) where
        Fut: Future + 'static,
    {
        let placement = Placement {
            first: false,
            ..placement
        };
        self.add_core(name, placement, main);
    }

    fn add_core<Fut>(
        self: &Rc<Self>,
        name: &str,
        placement: Placement,
        main: impl FnOnce() -> Fut + 'static,
    ) where
        Fut: Future + 'static,
    {
        let number = self.next_core.get();
        self.next_core.set(number + 1);
        let sim = Rc::new(Core {
            shared: self.shared.clone(),
            registry: Rc::downgrade(self),
            disk: self.disk(placement.node),
            placement,
            main_ended: Cell::new(false),
        });
        let seed = self.shared.with(|state| state.chance.next());
        let core = new_core(name, sim.clone(), seed);
        let own = sim.clone();
        // Called inside the task, so that it finds its own core.
        drop(core.spawn("main", async move {
            main().await;
            own.main_ended.set(true);
        }));
        let running = Running { number, sim, core };
        self.cores.borrow_mut().push(running);
    }

    pub(super) fn cpus(&self, node: NodeId) -> usize {
        self.nodes.borrow()[node.index()].cpus
    }

    fn disk(&self, node: NodeId) -> Arc<Disk> {
        self.nodes.borrow()[node.index()].disk.clone()
    }

    /// Removes those cores from the world; they are not shut down yet.
    fn take_where(&self, which: impl Fn(Placement) -> bool) -> Vec<Running> {
        let mut cores = self.cores.borrow_mut();
        let (taken, left) = cores
            .drain(..)
            .partition(|running| which(running.sim.placement));
        *cores = left;
        taken
    }

    /// Runs one core for a turn or, if none is ready, moves the clock to what comes next. False: nothing comes, or not
    /// before `limit`.
    fn step(&self, limit: Instant) -> bool {
        if self.run_one() {
            return true;
        }
        match self.next_time() {
            Some(at) if at <= limit => {
                self.shared.advance_to(at);
                true
            }
            _ => false,
        }
    }

    fn next_time(&self) -> Option<Instant> {
        let cores = self.cores.borrow();
        let deadlines = cores.iter().filter_map(|one| one.core.next_deadline());
        deadlines.chain(self.shared.next_event()).min()
    }

    /// Lets one of the cores that have something to do run, whichever chance picks. False if there is none.
    fn run_one(&self) -> bool {
        let now = self.shared.now();
        let chosen = {
            let cores = self.cores.borrow();
            let ready: Vec<&Running> = cores.iter().filter(|one| one.is_ready(now)).collect();
            if ready.is_empty() {
                return false;
            }
            let (pick, polls_max) = self.shared.with(|state| {
                let polls_max = 1 + state.chance.below(POLLS_PER_TURN_MAX);
                (state.chance.below(ready.len()), polls_max)
            });
            (ready[pick].clone(), polls_max)
        };
        let (running, polls_max) = chosen;
        let polls = running.turn(now, self.shared.wall_ms(), polls_max);
        self.shared.with(|state| {
            state.trace.fold_all([8, running.number, polls as u64]);
            state.count_turn(TURNS_AT_ONE_INSTANT_MAX);
        });
        self.check(&running);
        if running.sim.main_ended.get() {
            self.end(&running);
        }
        true
    }

    fn check(&self, running: &Running) {
        if running.core.executor.panics.get() > 0 {
            let nodes = self.nodes.borrow();
            let name = &nodes[running.sim.node().index()].name;
            panic!("a task on node {name} panicked, see above");
        }
    }

    /// The main future of a core has ended, and with the first core's its whole process.
    fn end(&self, ended: &Running) {
        let process = ended.sim.placement.process;
        let gone = if ended.sim.placement.first {
            self.take_where(|placement| placement.process == process)
        } else {
            let mut cores = self.cores.borrow_mut();
            let at = cores.iter().position(|one| one.number == ended.number);
            at.map(|at| cores.remove(at)).into_iter().collect()
        };
        gone.iter().for_each(Running::shut_down);
    }
}

impl Running {
    fn is_ready(&self, now: Instant) -> bool {
        self.core.has_ready() || self.core.next_deadline().is_some_and(|at| at <= now)
    }

    fn turn(&self, now: Instant, wall_ms: i64, polls_max: usize) -> usize {
        let _entered = self.core.enter();
        self.core.begin_turn(now, Some(wall_ms));
        self.core.run_ready(polls_max, |_| true)
    }

    fn shut_down(&self) {
        let _entered = self.core.enter();
        self.core.shutdown();
    }
}
