//! Who sends: four streams, each at its own pace, each telling the ledger what it was told. Retries are made here and
//! not by the client, so that every send without an answer is known.

mod free;
mod ordered;
mod transactions;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Error as ClientError, Message, Producer, Receipt, Stored, TransactionProducer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::lock::lock;
use crate::stamp::Stamp;

/// Sends of the free streams that are under way; while the broker is down, no more are begun.
const UNDER_WAY_MAX: usize = 256;
const TICK: Duration = Duration::from_millis(10);
/// Before a failed send is tried again.
const PAUSE: Duration = Duration::from_millis(50);
const SEND_LIMIT: Duration = Duration::from_secs(3);
/// The last sends of a run.
const FINISH_LIMIT: Duration = Duration::from_secs(20);
/// Shares of the rate, in percent: the rest is plain.
const DELAYED_PERCENT: f64 = 20.0;
const TRANSACTIONS_PERCENT: f64 = 10.0;
const ORDERED_PERCENT: f64 = 20.0;

pub struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

/// What the tasks of all streams share.
struct Shared {
    producer: Producer,
    transactions: TransactionProducer,
    ledger: Arc<Mutex<Ledger>>,
    under_way: Arc<Semaphore>,
    stop: AtomicBool,
    figures: Arc<Figures>,
}

#[derive(Default)]
pub struct Figures {
    /// Not begun because too many were under way.
    pub held_back: AtomicU64,
    /// Questions about transactions.
    pub asked: AtomicU64,
    /// Sends that failed, by how.
    pub failed: Mutex<BTreeMap<String, u64>>,
}

/// How a send ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Stored,
    /// It is certain that it is not.
    NotStored,
    Doubtful,
}

impl Load {
    /// `rate`: messages a second of all streams together; `ahead`: the longest delay; `keys`: how many the ordered ones
    /// have.
    pub async fn start(
        name_server: &str,
        rate: f64,
        ahead: Duration,
        keys: u16,
        ledger: Arc<Mutex<Ledger>>,
    ) -> Result<Load> {
        let figures = Arc::new(Figures::default());
        let builder = Producer::builder("mixed-producers").name_server(name_server);
        let producer = builder.retries(0).send_timeout(SEND_LIMIT).start().await;
        let transactions = transactions::start(name_server, figures.clone()).await;
        let shared = Arc::new(Shared {
            producer: producer.map_err(Error::client("starting a producer"))?,
            transactions: transactions.map_err(Error::client("starting a producer"))?,
            ledger,
            under_way: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
            stop: AtomicBool::new(false),
            figures,
        });
        let part = |percent: f64| rate * percent / 100.0;
        let plain = 100.0 - DELAYED_PERCENT - TRANSACTIONS_PERCENT - ORDERED_PERCENT;
        let mut tasks = JoinSet::new();
        tasks.spawn(free::plain(shared.clone(), part(plain)));
        tasks.spawn(free::delayed(shared.clone(), part(DELAYED_PERCENT), ahead));
        tasks.spawn(transactions::run(
            shared.clone(),
            part(TRANSACTIONS_PERCENT),
        ));
        for key in 0..keys {
            let rate = part(ORDERED_PERCENT) / f64::from(keys);
            tasks.spawn(ordered::run(shared.clone(), key, rate));
        }
        Ok(Load { shared, tasks })
    }

    pub fn figures(&self) -> &Figures {
        &self.shared.figures
    }

    /// Begins nothing more, and waits for what is under way. Questions about transactions are still answered.
    pub async fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let under_way = self.shared.under_way.clone();
        let finished = async {
            while self.tasks.join_next().await.is_some() {}
            let _all = under_way.acquire_many(UNDER_WAY_MAX as u32).await;
        };
        // What is not finished then is not acknowledged either.
        let _ = tokio::time::timeout(FINISH_LIMIT, finished).await;
    }

    pub async fn shutdown(self) {
        self.shared.producer.shutdown().await;
        self.shared.transactions.shutdown().await;
    }
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Calls `begin` so often a second until the end, each time with a permit; what is due while there is none is left
    /// out.
    async fn pace(&self, rate: f64, mut begin: impl FnMut(OwnedSemaphorePermit)) {
        let started = Instant::now();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut begun = 0;
        while !self.is_stopped() {
            ticks.tick().await;
            let due = (started.elapsed().as_secs_f64() * rate) as u64;
            while begun < due {
                let Ok(permit) = self.under_way.clone().try_acquire_owned() else {
                    let left_out = due - begun;
                    self.figures
                        .held_back
                        .fetch_add(left_out, Ordering::Relaxed);
                    break;
                };
                begin(permit);
                begun += 1;
            }
            begun = due;
        }
    }

    /// Sends a message until it is stored; while that is in doubt, it is tried again if `insists`. False if it is given
    /// up.
    async fn send<F, Fut>(&self, stamp: &Stamp, insists: bool, mut attempt: F) -> bool
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = client::Result<Receipt>>,
    {
        loop {
            let ended = self.ended(attempt().await);
            match ended {
                Ended::Stored => {
                    lock(&self.ledger).acknowledged(stamp);
                    return true;
                }
                Ended::Doubtful => lock(&self.ledger).doubtful(stamp),
                Ended::NotStored => {}
            }
            if self.is_stopped() || (ended == Ended::Doubtful && !insists) {
                return false;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn ended(&self, sent: client::Result<Receipt>) -> Ended {
        let (ended, how) = match sent {
            Ok(receipt) if receipt.status == Stored::AsPromised => return Ended::Stored,
            // It is stored, though nobody promises for how long.
            Ok(receipt) => (Ended::Doubtful, format!("{:?}", receipt.status)),
            Err(ClientError::Connect { .. }) => (Ended::NotStored, "no connection".to_owned()),
            Err(ClientError::Disconnected { .. }) => {
                (Ended::Doubtful, "connection lost".to_owned())
            }
            Err(ClientError::Timeout { .. }) => (Ended::Doubtful, "no answer in time".to_owned()),
            Err(ClientError::NoRoute { .. }) => (Ended::NotStored, "no route".to_owned()),
            Err(ClientError::Refused { code, .. }) => {
                (Ended::NotStored, format!("refused with code {code}"))
            }
            Err(error) => (Ended::Doubtful, error.to_string()),
        };
        *lock(&self.figures.failed).entry(how).or_default() += 1;
        ended
    }
}

fn message(stamp: &Stamp) -> Message {
    Message::new(stamp.kind.stream().topic(), stamp.body())
}
