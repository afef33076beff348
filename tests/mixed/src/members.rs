//! Who receives: two members of each group that stay, and a guest of each moving group that comes and goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Consumed, Ordered, PushConsumer, PushConsumerBuilder, Received};
use hdrhistogram::Histogram;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::clock::{now_ms, since_1970};
use crate::error::{Error, Result};
use crate::ledger::{Delivery, Group, Ledger, OrderedVerdict, Verdict};
use crate::lock::lock;
use crate::stamp::{Kind, Stamp, Stream};

const STAYING: usize = 2;
/// One message of so many is refused the first time.
const REFUSED_EVERY: u64 = 20;
/// An ordered queue is suspended once at one of so many messages of a key.
const SUSPENDED_EVERY: u64 = 50;
const SUSPENSION: Duration = Duration::from_millis(20);
/// The level that a refused message waits at: 1 s; the others as long as the group says, 10 s.
const SHORT_LEVEL: i32 = 1;
/// Up to a minute is told apart.
const LATE_US_MAX: u64 = 60_000_000;

pub struct Members {
    shared: Arc<Shared>,
    staying: Vec<PushConsumer>,
    guests: JoinSet<()>,
}

struct Shared {
    name_server: String,
    rebalance: Duration,
    ledger: Arc<Mutex<Ledger>>,
    lateness: Mutex<Histogram<u64>>,
    stop: watch::Sender<bool>,
    changes: AtomicU64,
}

impl Members {
    /// `every`: how often a guest comes or goes; `rebalance`: how often members look at their shares unasked.
    pub async fn start(
        name_server: &str,
        every: Duration,
        rebalance: Duration,
        ledger: Arc<Mutex<Ledger>>,
    ) -> Result<Members> {
        let lateness = Histogram::new_with_bounds(1, LATE_US_MAX, 3);
        let shared = Arc::new(Shared {
            name_server: name_server.to_owned(),
            rebalance,
            ledger,
            lateness: Mutex::new(lateness.expect("the bounds are in order")),
            stop: watch::Sender::new(false),
            changes: AtomicU64::new(0),
        });
        let mut members = Members {
            shared: shared.clone(),
            staying: Vec::new(),
            guests: JoinSet::new(),
        };
        for group in Group::ALL {
            let change = lock(&shared.ledger).events().begin(Some(group), now_ms());
            for _ in 0..STAYING {
                let member = shared.start(group).await;
                let member = member.map_err(Error::client("starting a consumer"))?;
                members.staying.push(member);
            }
            lock(&shared.ledger).events().end(change, now_ms());
            if group.is_moving() {
                members.guests.spawn(guest(shared.clone(), group, every));
            }
        }
        Ok(members)
    }

    /// Guests come and go no more.
    pub async fn settle(&mut self) {
        self.shared.stop.send_replace(true);
        while self.guests.join_next().await.is_some() {}
    }

    pub async fn shutdown(self) {
        for member in &self.staying {
            member.shutdown().await;
        }
    }

    pub fn changes(&self) -> u64 {
        self.shared.changes.load(Ordering::Relaxed)
    }

    /// How late timed messages were while no broker had just been killed, in microseconds.
    pub fn lateness(&self) -> Histogram<u64> {
        lock(&self.shared.lateness).clone()
    }
}

async fn guest(shared: Arc<Shared>, group: Group, every: Duration) {
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut guest: Option<PushConsumer> = None;
    let mut stop = shared.stop.subscribe();
    loop {
        tokio::select! {
            // The sender lives as long as we do.
            _ = stop.wait_for(|stop| *stop) => break,
            _ = ticks.tick() => {}
        }
        let change = lock(&shared.ledger).events().begin(Some(group), now_ms());
        guest = match guest.take() {
            Some(member) => {
                member.shutdown().await;
                None
            }
            // While the broker is down nobody can come; there is always another time.
            None => shared.start(group).await.ok(),
        };
        shared.changes.fetch_add(1, Ordering::Relaxed);
        lock(&shared.ledger).events().end(change, now_ms());
    }
    if let Some(member) = guest {
        let change = lock(&shared.ledger).events().begin(Some(group), now_ms());
        member.shutdown().await;
        lock(&shared.ledger).events().end(change, now_ms());
    }
}

impl Shared {
    async fn start(self: &Arc<Shared>, group: Group) -> client::Result<PushConsumer> {
        let builder = PushConsumer::builder(group.name())
            .name_server(self.name_server.as_str())
            .rebalance_interval(self.rebalance)
            .from_first();
        let shared = self.clone();
        if group.is_ordered() {
            let listener = move |message| {
                let verdict = shared.take_in_order(group, &message);
                async move { verdict }
            };
            let builder = builder.subscribe(Stream::Ordered.topic(), "*");
            return builder.start_orderly(listener).await;
        }
        let listener = move |message| {
            let verdict = shared.take(group, &message);
            async move { verdict }
        };
        let subscribe =
            |builder: PushConsumerBuilder, stream: &Stream| builder.subscribe(stream.topic(), "*");
        let builder = Stream::FREE.iter().fold(builder, subscribe);
        builder.start(listener).await
    }

    fn take(&self, group: Group, message: &Received) -> Consumed {
        let Some(delivery) = self.delivery(group, message) else {
            return Consumed::Done;
        };
        let stamp = delivery.stamp;
        let may_refuse = group == Group::Steady && stamp.number % REFUSED_EVERY == 7;
        let mut ledger = lock(&self.ledger);
        let verdict = ledger.delivered(group, &delivery, may_refuse);
        let is_calm = !ledger.events().is_disturbed(delivery.now_ms);
        drop(ledger);
        let is_timed = stamp.kind == Kind::Timed && !delivery.is_retry;
        if is_timed && is_calm && verdict != Verdict::Duplicate {
            let late_us = since_1970().as_micros() as i64 - stamp.due_ms * 1_000;
            lock(&self.lateness).saturating_record(late_us.max(1) as u64);
        }
        match verdict {
            Verdict::Refused if stamp.number.is_multiple_of(2) => Consumed::Later,
            Verdict::Refused => Consumed::LaterAt(SHORT_LEVEL),
            Verdict::First | Verdict::Back | Verdict::Duplicate => Consumed::Done,
        }
    }

    fn take_in_order(&self, group: Group, message: &Received) -> Ordered {
        let Some(delivery) = self.delivery(group, message) else {
            return Ordered::Done;
        };
        // The same message comes once more then, as a retry; what is behind it waits.
        if !delivery.is_retry && delivery.stamp.number % SUSPENDED_EVERY == 49 {
            return Ordered::SuspendFor(SUSPENSION);
        }
        match lock(&self.ledger).delivered_in_order(group, &delivery) {
            OrderedVerdict::Next | OrderedVerdict::Duplicate | OrderedVerdict::Gap { .. } => {
                Ordered::Done
            }
        }
    }

    fn delivery(&self, group: Group, message: &Received) -> Option<Delivery> {
        let stamp = Stamp::parse(&message.body);
        let stamp = stamp.filter(|stamp| stamp.kind.stream().topic() == message.topic);
        if stamp.is_none() {
            let what = format!("not what was sent, at {}: {message:?}", group.name());
            lock(&self.ledger).damaged(what);
        }
        Some(Delivery {
            stamp: stamp?,
            now_ms: now_ms(),
            stored_ms: message.stored_ms,
            is_retry: message.reconsumed > 0,
        })
    }
}
