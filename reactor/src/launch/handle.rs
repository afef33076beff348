//! Learning from another core, or a plain thread, that a core has ended.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;

use crate::driver::sim;

/// The main future of a core panicked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Panicked {
    pub message: String,
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a core panicked: {}", self.message)
    }
}

impl std::error::Error for Panicked {}

/// A core started by `launch`. Dropping it lets the core go on.
pub struct CoreHandle(Body);

enum Body {
    Thread(Arc<Ending>, JoinHandle<()>),
    Sim(sim::CoreHandle),
}

impl CoreHandle {
    pub(super) fn of_thread(ending: Arc<Ending>, thread: JoinHandle<()>) -> CoreHandle {
        CoreHandle(Body::Thread(ending, thread))
    }

    pub(super) fn of_sim(handle: sim::CoreHandle) -> CoreHandle {
        CoreHandle(Body::Sim(handle))
    }

    /// Completes when the core's main future has ended and its tasks are gone.
    pub async fn finished(self) -> Result<(), Panicked> {
        match self.0 {
            Body::Thread(ending, thread) => {
                let result = poll_fn(|cx| ending.poll(cx.waker())).await;
                // What is left of the thread is its last few instructions.
                drop(thread);
                result
            }
            Body::Sim(handle) => handle.finished().await,
        }
    }
}

/// Set once by the ending core.
pub(super) struct Ending {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    result: Option<Result<(), Panicked>>,
    waiter: Option<Waker>,
}

impl Ending {
    pub(super) fn new() -> Arc<Ending> {
        Arc::new(Ending {
            state: Mutex::default(),
            ended: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self, result: Result<(), Panicked>) {
        let waiter = {
            let mut state = self.lock();
            state.result = Some(result);
            state.waiter.take()
        };
        self.ended.notify_all();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    fn poll(&self, waker: &Waker) -> Poll<Result<(), Panicked>> {
        let mut state = self.lock();
        match state.result.clone() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waiter = Some(waker.clone());
                Poll::Pending
            }
        }
    }
}
