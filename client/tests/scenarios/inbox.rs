//! What has arrived at a listener, and when.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use orbitmq_client::{Consumed, Ordered, Received};

use crate::env::{never, text, until};

#[derive(Clone, Default)]
pub struct Inbox(Arc<Mutex<Vec<(Received, Instant)>>>);

type Verdict<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Inbox {
    fn arrived(&self) -> MutexGuard<'_, Vec<(Received, Instant)>> {
        self.0.lock().expect("no listener panics while it holds it")
    }

    pub fn add(&self, message: Received) {
        self.arrived().push((message, Instant::now()));
    }

    pub fn listener(&self) -> impl Fn(Received) -> Verdict<Consumed> + Send + Sync + 'static {
        let inbox = self.clone();
        move |message| {
            inbox.add(message);
            Box::pin(async { Consumed::Done })
        }
    }

    pub fn orderly(&self) -> impl Fn(Received) -> Verdict<Ordered> + Send + Sync + 'static {
        let inbox = self.clone();
        move |message| {
            inbox.add(message);
            Box::pin(async { Ordered::Done })
        }
    }

    pub fn len(&self) -> usize {
        self.arrived().len()
    }

    pub fn clear(&self) {
        self.arrived().clear();
    }

    pub fn all(&self) -> Vec<Received> {
        let arrived = self.arrived();
        arrived.iter().map(|(message, _)| message.clone()).collect()
    }

    pub fn bodies(&self) -> Vec<String> {
        self.all().iter().map(text).collect()
    }

    pub fn at(&self, number: usize) -> Instant {
        self.arrived()[number].1
    }

    pub async fn count(&self, count: usize, seconds: u64) {
        let what = format!("{count} messages");
        let met = async || self.len() >= count;
        until(&what, seconds, met).await;
    }

    /// Nothing else comes: it might still be on its way.
    pub async fn stays_at(&self, count: usize, within: Duration) {
        let what = format!("more than {count} messages");
        never(&what, within, async || self.len() > count).await;
        assert_eq!(self.len(), count, "{:?}", self.bodies());
    }

    /// Exactly these bodies, in any order, each once.
    pub async fn expect(&self, bodies: &[String], seconds: u64) {
        self.count(bodies.len(), seconds).await;
        self.stays_at(bodies.len(), Duration::from_millis(200))
            .await;
        let (mut expected, mut got) = (bodies.to_vec(), self.bodies());
        expected.sort();
        got.sort();
        assert_eq!(expected, got);
    }
}
