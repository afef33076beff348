//! The simulated driver: clock, network and disks of a whole cluster in one thread, all from one seed.
//!
//! A [`World`] owns nodes; a node has an address, a disk and, while its process lives, cores. Every core is an ordinary
//! core of this crate with its own executor and timers; only what lies below differs. One loop picks which ready core
//! runs next, and when none is ready moves the clock to the next event or deadline. Everything that could go either way
//! (who runs, how long a packet takes, where a stream is cut into chunks, which unsynced sector survives) is drawn from
//! the seed, so the same seed gives the same run; [`World::trace_hash`] proves it.
//!
//! ```text
//! World ── cores (executor, timers) ── tasks ── Socket, File, sleep ──┐
//!   └── Shared: clock, event queue, chance, trace ◄── Net (streams)  ◄┤
//!       Disk of each node: names, contents, what of them is durable  ◄┘
//! ```
//!
//! Never: threads, the real clock, addresses or hash orders that differ from run to run.

mod chance;
mod disk;
mod faults;
pub(crate) mod fs;
mod net;
mod seeds;
mod shared;
mod world;

use std::{cell::Cell, future::Future, rc::Rc, rc::Weak, sync::Arc};

use disk::Disk;
pub(crate) use disk::{File, Mapping};
pub use faults::{Faults, Met};
pub(crate) use fs::LockFile;
pub(crate) use net::{DetachedSocket, Listener, Socket};
pub use seeds::{each_seed, twice};
use shared::Shared;
pub use world::{NodeId, World};
use world::{Placement, Registry};

use crate::{
    core::Core as AnyCore,
    launch::{CoreConfig, Panicked},
    mailbox::{Answer, oneshot},
    time::Instant,
    timer::sleep,
};

/// What a simulated core knows of its world.
pub(crate) struct Core {
    shared: Arc<Shared>,
    registry: Weak<Registry>,
    disk: Arc<Disk>,
    placement: Placement,
    /// The core's main future has ended: its other tasks are to be dropped.
    main_ended: Cell<bool>,
}

impl Core {
    pub(crate) fn now(&self) -> Instant {
        self.shared.now()
    }

    fn node(&self) -> NodeId {
        self.placement.node
    }
}

/// One more core in the process of `core`.
pub(crate) fn launch<Fut>(
    core: &Rc<Core>,
    config: CoreConfig,
    main: impl FnOnce() -> Fut + Send + 'static,
) -> CoreHandle
where
    Fut: Future<Output = ()> + 'static,
{
    let registry = core
        .registry
        .upgrade()
        .expect("a core runs only while its world lives");
    let (ended, ending) = oneshot();
    registry.add(&config.name, core.placement, move || async move {
        main().await;
        ended.send(());
    });
    CoreHandle(ending)
}

/// Waits for a launched core; Send like the real one.
pub(crate) struct CoreHandle(Answer<()>);

impl CoreHandle {
    pub(crate) async fn finished(self) -> Result<(), Panicked> {
        self.0.await.ok_or_else(|| Panicked {
            message: "the main task of a simulated core did not come to its end".to_owned(),
        })
    }
}

/// Runs `f` here, after a while that is simulated.
pub(crate) async fn offload<T>(core: &Rc<Core>, f: impl FnOnce() -> T) -> T {
    sleep(core.shared.disk_delay()).await;
    f()
}

pub(crate) fn cpu_count(core: &Rc<Core>) -> usize {
    core.registry
        .upgrade()
        .map_or(1, |registry| registry.cpus(core.node()))
}

/// A core of the world's own making, not yet entered.
fn new_core(name: &str, driver: Rc<Core>, seed: u64) -> Rc<AnyCore> {
    const NO_STALL_WATCH: u32 = 0;
    AnyCore::new(name, crate::core::Driver::Sim(driver), seed, NO_STALL_WATCH)
}
