//! The handle of a spawned task: its result, and the right to cancel it. Stays on the task's core.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use super::TaskKey;
use crate::core::Core;

/// A spawned task. Resolves to its output, or to None if it was cancelled or panicked. Dropping the handle detaches.
pub struct Task<T> {
    join: Rc<Join<T>>,
    core: Weak<Core>,
    key: TaskKey,
}

impl<T> Task<T> {
    pub(super) fn new(join: Rc<Join<T>>, core: Weak<Core>, key: TaskKey) -> Task<T> {
        Task { join, core, key }
    }

    /// Drops the task's future now (or, called from inside the task, as soon as its poll returns).
    pub fn cancel(&self) {
        if let Some(core) = self.core.upgrade() {
            core.executor.cancel(self.key);
        }
    }

    pub fn is_finished(&self) -> bool {
        !matches!(*self.join.state.borrow(), State::Running(_))
    }
}

impl<T> Future for Task<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.join.state.borrow_mut();
        match &mut *state {
            State::Running(waiter) => {
                *waiter = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Ended(output) => Poll::Ready(output.take()),
        }
    }
}

enum State<T> {
    Running(Option<Waker>),
    Ended(Option<T>),
}

/// Where a task leaves its output.
pub(crate) struct Join<T> {
    state: RefCell<State<T>>,
}

impl<T> Default for Join<T> {
    fn default() -> Self {
        Join {
            state: RefCell::new(State::Running(None)),
        }
    }
}

impl<T> Join<T> {
    fn end(&self, output: Option<T>) {
        let before = self.state.replace(State::Ended(output));
        if let State::Running(Some(waiter)) = before {
            waiter.wake();
        }
    }
}

/// Lives inside the task's future: however that ends, the handle learns of it.
pub(crate) struct Finisher<T>(Option<Rc<Join<T>>>);

impl<T> Finisher<T> {
    pub(crate) fn new(join: Rc<Join<T>>) -> Finisher<T> {
        Finisher(Some(join))
    }

    pub(crate) fn finish(mut self, output: T) {
        if let Some(join) = self.0.take() {
            join.end(Some(output));
        }
    }
}

impl<T> Drop for Finisher<T> {
    fn drop(&mut self) {
        if let Some(join) = self.0.take() {
            join.end(None);
        }
    }
}
