//! Work that blocks, such as creating a file, done off the core: one helper thread per process, first come, first served.
//! Not for disk reads in bulk: those go through the ring. What waits for another machine has a thread of its own, so that
//! nothing that belongs to a disk ever stands in line behind a name server that does not answer.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};

use crate::core;
use crate::driver::sim;

type Job = Box<dyn FnOnce() + Send>;

/// Runs `f` on the helper thread and returns what it returns. A panic in it goes on in the caller. Once started it runs
/// to its end, even if the caller is gone.
pub async fn offload<T: Send + 'static>(
    name: &'static str,
    f: impl FnOnce() -> T + Send + 'static,
) -> T {
    on(disk_helper, name, f).await
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
    HELPER.get_or_init(|| start("offload"))
}

fn remote_helper() -> &'static Sender<Job> {
    static HELPER: OnceLock<Sender<Job>> = OnceLock::new();
    HELPER.get_or_init(|| start("offload-remote"))
}

fn start(thread: &str) -> Sender<Job> {
    let (jobs, waiting) = mpsc::channel::<Job>();
    std::thread::Builder::new()
        .name(thread.to_owned())
        .spawn(move || {
            // A core may have been pinned when it started us; its CPU is its own.
            crate::affinity::unpin();
            for job in waiting {
                job();
            }
        })
        .expect("a process that may start cores may start one more thread");
    jobs
}
