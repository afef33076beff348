//! Work that blocks, done off the core by helper threads of the process, each first come, first served.
//!
//! ```text
//!   offload         short, and somebody waits: create a file, touch the pages in front of the log's tail
//!   offload_bulk    as long as there is data: sort an index, read a directory, ask a mount that may hang
//!   offload_remote  waits for another machine
//! ```
//!
//! So nothing that a sender waits for ever stands in line behind something whose end nobody knows. Not for disk reads in
//! bulk: those go through the ring.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};

use crate::core;
use crate::driver::sim;

/// A third of a core's share when CPUs are short.
const BULK_NICE: i32 = 5;

type Job = Box<dyn FnOnce() + Send>;

/// Runs `f` on the helper thread and returns what it returns. A panic in it goes on in the caller. Once started it runs
/// to its end, even if the caller is gone.
pub async fn offload<T: Send + 'static>(
    name: &'static str,
    f: impl FnOnce() -> T + Send + 'static,
) -> T {
    on(disk_helper, name, f).await
}

/// The same for what takes as long as there is data, or nobody knows how long. It leaves the CPU to the cores.
pub async fn offload_bulk<T: Send + 'static>(
    name: &'static str,
    f: impl FnOnce() -> T + Send + 'static,
) -> T {
    on(bulk_helper, name, f).await
}

/// The same for what waits for another machine, such as looking up a name.
pub async fn offload_remote<T: Send + 'static>(
    name: &'static str,
    f: impl FnOnce() -> T + Send + 'static,
) -> T {
    on(remote_helper, name, f).await
}

async fn on<T: Send + 'static>(
    helper: fn() -> &'static Sender<Job>,
    name: &'static str,
    f: impl FnOnce() -> T + Send + 'static,
) -> T {
    if let Some(core) = core::sim() {
        return sim::offload(&core, f).await;
    }
    let cell = Arc::new(Mutex::new(Cell {
        result: None,
        waiter: None,
    }));
    let given = cell.clone();
    let job: Job = Box::new(move || {
        tracing::trace!(name, "offloaded work begins");
        let result = catch_unwind(AssertUnwindSafe(f));
        let waiter = {
            let mut cell = given.lock().unwrap_or_else(PoisonError::into_inner);
            cell.result = Some(result);
            cell.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    });
    helper()
        .send(job)
        .expect("the helper thread outlives the process's last core");
    let result = poll_fn(|cx| {
        let mut cell = cell.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(result) = cell.result.take() {
            return Poll::Ready(result);
        }
        cell.waiter = Some(cx.waker().clone());
        Poll::Pending
    });
    match result.await {
        Ok(output) => output,
        Err(panic) => resume_unwind(panic),
    }
}

struct Cell<T> {
    result: Option<Result<T, Box<dyn Any + Send>>>,
    waiter: Option<Waker>,
}

fn disk_helper() -> &'static Sender<Job> {
    static HELPER: OnceLock<Sender<Job>> = OnceLock::new();
    HELPER.get_or_init(|| start("offload", false))
}

fn bulk_helper() -> &'static Sender<Job> {
    static HELPER: OnceLock<Sender<Job>> = OnceLock::new();
    HELPER.get_or_init(|| start("offload-bulk", true))
}

fn remote_helper() -> &'static Sender<Job> {
    static HELPER: OnceLock<Sender<Job>> = OnceLock::new();
    HELPER.get_or_init(|| start("offload-remote", false))
}

fn start(thread: &str, is_bulk: bool) -> Sender<Job> {
    let (jobs, waiting) = mpsc::channel::<Job>();
    std::thread::Builder::new()
        .name(thread.to_owned())
        .spawn(move || {
            // A core may have been pinned when it started us; its CPU is its own.
            crate::affinity::unpin();
            if is_bulk {
                // SAFETY: changes the scheduling of this thread only. Refused, it works all the same.
                unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, BULK_NICE) };
            }
            for job in waiting {
                job();
            }
        })
        .expect("a process that may start cores may start one more thread");
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CoreConfig, run};

    #[test]
    fn a_long_job_in_bulk_holds_up_no_short_one() {
        let ran = run(CoreConfig::default(), || async {
            let (go, wait) = mpsc::channel::<()>();
            let long = crate::spawn("long", offload_bulk("long", move || wait.recv().is_ok()));
            let short = offload("short", || 7).await;
            go.send(()).expect("the long job waits for it");
            (short, long.await)
        });
        if let Ok(outcome) = ran {
            assert_eq!(outcome, (7, Some(true)));
        }
    }
}
