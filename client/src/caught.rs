//! Calls into the application. A listener that panics must not take down the task that called it: its message would
//! be neither done nor given back, and its queue would stand still.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A future of the application's; `None` when it panicked.
pub(crate) struct Caught<T>(Option<BoxFuture<T>>);

/// `make` may panic as well.
pub(crate) fn caught<T>(make: impl FnOnce() -> BoxFuture<T>) -> Caught<T> {
    Caught(catch_unwind(AssertUnwindSafe(make)).ok())
}

impl<T> Future for Caught<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let Some(future) = self.0.as_mut() else {
            return Poll::Ready(None);
        };
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Some(value)),
            Err(_) => {
                // What panicked is never polled again.
                self.0 = None;
                Poll::Ready(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_before_or_within_an_await_is_no_verdict() {
        assert_eq!(caught(|| Box::pin(async { 7 })).await, Some(7));
        assert_eq!(caught::<i32>(|| panic!("at once")).await, None);
        let later = || -> BoxFuture<i32> {
            Box::pin(async {
                tokio::task::yield_now().await;
                panic!("later")
            })
        };
        assert_eq!(caught(later).await, None);
    }
}
