//! Starting and ending cores: the calling thread as one, or new pinned threads. What can go wrong at the start is said in
//! one sentence with the way out.

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;

use crate::affinity;
use crate::core::{self, Core, Driver};
use crate::driver::{ring, sim};
use crate::random::os_seed;
use crate::task::{Task, panic_text};

mod handle;
mod unsupported;

pub use handle::{CoreHandle, Panicked};
pub use unsupported::Unsupported;

use handle::Ending;

/// With fewer CPUs a spinning core would take the time of those it waits for.
const SPIN_CPUS_MIN: usize = 4;
const SPIN_US: u32 = 15;

/// Settings of one core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoreConfig {
    pub name: String,
    /// The CPU to pin the thread to.
    pub cpu: Option<usize>,
    pub ring_entries: u32,
    /// Receive buffers shared by all sockets of the core: a power of two.
    pub buffer_count: u16,
    pub buffer_bytes: u32,
    /// A task that holds the core longer is named in the log; 0 switches that off.
    pub stall_ms: u32,
    /// How long to look for work before sleeping.
    pub spin_us: u32,
}

impl Default for CoreConfig {
    fn default() -> CoreConfig {
        CoreConfig {
            name: "core".to_owned(),
            cpu: None,
            ring_entries: 1024,
            buffer_count: 64,
            buffer_bytes: 32 * 1024,
            stall_ms: 10,
            spin_us: if affinity::usable_cpus().len() < SPIN_CPUS_MIN {
                0
            } else {
                SPIN_US
            },
        }
    }
}

/// Why a core did not start.
#[derive(Debug)]
pub enum StartError {
    Unsupported(Unsupported),
    /// The thread could not be created or pinned.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Unsupported(reason) => reason.fmt(f),
            StartError::Thread(error) => write!(f, "a core's thread could not be set up: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Whether this process may use io_uring the way a core does.
pub fn probe() -> Result<(), Unsupported> {
    let config = CoreConfig {
        ring_entries: 8,
        buffer_count: 1,
        buffer_bytes: 4096,
        ..CoreConfig::default()
    };
    let ring = ring::Ring::new(&config)?;
    ring.close();
    Ok(())
}

/// Makes this thread a core until `main` ends; then every other task of the core is dropped. A panic in `main` goes on
/// here.
pub fn run<Fut, T>(config: CoreConfig, main: impl FnOnce() -> Fut) -> Result<T, StartError>
where
    Fut: Future<Output = T> + 'static,
    T: 'static,
{
    let (core, ring) = start(&config)?;
    Ok(drive(&core, &ring, &config, main))
}

/// Starts a core on a thread of its own. On a simulated core: one more core of the same node.
pub fn launch<Fut>(
    config: CoreConfig,
    main: impl FnOnce() -> Fut + Send + 'static,
) -> Result<CoreHandle, StartError>
where
    Fut: Future<Output = ()> + 'static,
{
    if let Some(core) = core::sim() {
        return Ok(CoreHandle::of_sim(sim::launch(&core, config, main)));
    }
    let ending = Ending::new();
    let told = ending.clone();
    let (started, outcome) = mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name(config.name.clone())
        .spawn(move || {
            let (core, ring) = match start(&config) {
                Ok(core) => core,
                Err(error) => {
                    // Nobody listens only if the launching thread died.
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let _ = started.send(Ok(()));
            let ran = catch_unwind(AssertUnwindSafe(|| drive(&core, &ring, &config, main)));
            told.end(ran.map_err(|panic| Panicked {
                message: panic_text(&*panic),
            }));
        })
        .map_err(StartError::Thread)?;
    match outcome.recv() {
        Ok(Ok(())) => Ok(CoreHandle::of_thread(ending, thread)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StartError::Thread(io::Error::other(
            "the thread ended before it began",
        ))),
    }
}

fn start(config: &CoreConfig) -> Result<(Rc<Core>, Rc<ring::Ring>), StartError> {
    if let Some(cpu) = config.cpu {
        affinity::pin(cpu).map_err(StartError::Thread)?;
    }
    let ring = ring::Ring::new(config).map_err(StartError::Unsupported)?;
    let core = Core::new(
        &config.name,
        Driver::Ring(ring.clone()),
        os_seed(),
        config.stall_ms,
    );
    core.executor.set_unpark(ring.unpark());
    Ok((core, ring))
}

fn drive<Fut, T>(
    core: &Rc<Core>,
    ring: &Rc<ring::Ring>,
    config: &CoreConfig,
    main: impl FnOnce() -> Fut,
) -> T
where
    Fut: Future<Output = T> + 'static,
    T: 'static,
{
    let _entered = core.enter();
    core.begin_turn(crate::time::monotonic(), None);
    // A panic is carried out by hand: the executor would only log it, and the ring must be drained in any case.
    let output = catch_unwind(AssertUnwindSafe(main)).and_then(|main| {
        let task = core.spawn("main", CatchUnwind(Box::pin(main)));
        ring.run(core, config.spin_us, || task.is_finished());
        finished_output(task)
    });
    core.shutdown();
    ring.drain(core);
    output.unwrap_or_else(|panic| resume_unwind(panic))
}

fn finished_output<T>(task: Task<T>) -> T {
    let mut task = pin!(task);
    match task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(output)) => output,
        _ => unreachable!("the main task ended, and nobody can cancel it"),
    }
}

/// A future whose panic is its output.
struct CatchUnwind<F>(Pin<Box<F>>);

impl<F: Future> Future for CatchUnwind<F> {
    type Output = thread::Result<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}
