//! Sending. A [`Producer`] is cheap to clone and used from any number of tasks; what they send travels over one
//! connection per broker, with as many requests under way as there are unanswered sends.

mod batch;
mod latency;
mod options;
mod queues;
mod recall;
mod request;
mod retry;
mod sending;
mod transaction;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use protocol::body::queue::MessageQueue;
use protocol::{names, properties};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::message::Message;
use crate::session::Session;
use crate::settings::Settings;
use crate::trace::{self, Trace};

use self::latency::Latencies;
use self::options::Options;
pub use self::options::ProducerBuilder;
use self::request::Replies;
use self::sending::{Prepared, Target};
pub use self::transaction::{
    Outcome, TransactionProducer, TransactionProducerBuilder, TransactionReceipt,
};
use self::upkeep::{Checker, upkeep};

/// Sends messages.
///
/// ```
/// # mod fake { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake/broker.rs")); }
/// # use fake::Broker;
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let name_server = Broker::start().await.address();
/// use orbitmq_client::{Message, Producer};
///
/// let producer = Producer::builder("shop").name_server(name_server).start().await?;
/// let receipt = producer.send(Message::new("Orders", "42 apples").tag("paid")).await?;
/// println!("stored as {} at {} of queue {}", receipt.message_id, receipt.queue_offset, receipt.queue_id);
/// producer.shutdown().await;
/// # Ok::<(), orbitmq_client::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
}

/// What the clones of a producer share; its upkeep has only what it looks after.
struct Shared {
    session: Arc<Session>,
    options: Options,
    /// Turns through the queues.
    turn: AtomicUsize,
    latencies: Latencies,
    replies: Arc<Replies>,
    trace: Option<Trace>,
    new_brokers: Arc<Notify>,
    stopped: AtomicBool,
    upkeep: JoinHandle<()>,
}

/// Where and how a message was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The unique id this client gave the message.
    pub message_id: String,
    /// The id that says where the broker stores it.
    pub offset_id: String,
    pub broker_name: String,
    pub queue_id: i32,
    pub queue_offset: i64,
    pub status: Stored,
    /// What withdraws a delayed message, see [`Producer::recall`]; brokers older than 5.3 give none.
    pub recall_handle: Option<String>,
}

/// How much of what the broker promises to do with a message was done in time. It is stored in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    AsPromised,
    FlushTimedOut,
    ReplicationTimedOut,
    NoReplica,
}

impl Producer {
    /// `group`: up to 120 characters, as in a topic's name.
    pub fn builder(group: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder::new(group.into())
    }

    /// Sends a message and waits until it is stored. A failure is tried again, on another broker if there is one;
    /// after a timeout or a broken connection the message may therefore be stored twice.
    ///
    /// # Errors
    /// [`Error::Illegal`] if no broker would take it, [`Error::NoRoute`] if none has the topic and none makes topics,
    /// [`Error::Refused`] with the last broker's answer, [`Error::Timeout`] and the like after the last attempt.
    pub async fn send(&self, message: Message) -> Result<Receipt> {
        let prepared = self.prepare(&message)?;
        one(self.send_prepared(&prepared, &Target::InTurn).await?)
    }

    /// Sends to one queue, of those that [`Producer::queues`] names; a failure is not tried again.
    pub async fn send_to(&self, message: Message, queue: &MessageQueue) -> Result<Receipt> {
        let prepared = self.prepare(&message)?;
        let queue = MessageQueue {
            topic: prepared.topic.clone(),
            ..queue.clone()
        };
        one(self.send_prepared(&prepared, &Target::Queue(queue)).await?)
    }

    /// Sends to the queue whose place `select` gives, among all queues in their order; a failure is not tried again,
    /// for another try would be another queue.
    ///
    /// # Errors
    /// [`Error::Illegal`] for a place that there is not, and those of [`Producer::send`].
    pub async fn send_selected(
        &self,
        message: Message,
        select: impl FnOnce(&[MessageQueue]) -> usize,
    ) -> Result<Receipt> {
        let prepared = self.prepare(&message)?;
        let route = self.route(&prepared.topic).await?;
        let place = select(&route.writable);
        let queue = route.writable.get(place).cloned().ok_or_else(|| {
            let count = route.writable.len();
            Error::Illegal(format!("queue {place} was selected of {count}"))
        })?;
        one(self.send_prepared(&prepared, &Target::Queue(queue)).await?)
    }

    /// Sends messages with one [`Message::sharding_key`] to one queue, where they keep their order as long as the
    /// number of queues stays.
    ///
    /// # Errors
    /// [`Error::Illegal`] if the message has no sharding key, and those of [`Producer::send`].
    pub async fn send_keyed(&self, message: Message) -> Result<Receipt> {
        let hash = match message.get(properties::SHARDING_KEY) {
            // Java's hash of a string: all clients choose the same queue.
            Some(key) => properties::tag_hash(key).unsigned_abs() as usize,
            None => return Err(Error::Illegal("the message has no sharding key".into())),
        };
        let select = |queues: &[MessageQueue]| hash % queues.len().max(1);
        self.send_selected(message, select).await
    }

    /// Sends messages of one topic together: they lie in one queue, one behind the other, or not at all. They are
    /// neither compressed nor delayed, and together no larger than one message may be.
    pub async fn send_batch(&self, messages: &[Message]) -> Result<Vec<Receipt>> {
        let prepared = self.prepare_batch(messages)?;
        self.send_prepared(&prepared, &Target::InTurn).await
    }

    /// Hands a message over without waiting for its answer, which [`Submitted::receipt`] gives later. Messages of
    /// one task leave in the order of the calls.
    ///
    /// ```
    /// # mod fake { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake/broker.rs")); }
    /// # use fake::Broker;
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let name_server = Broker::start().await.address();
    /// # use orbitmq_client::{Message, Producer};
    /// # let producer = Producer::builder("shop").name_server(name_server).start().await?;
    /// let mut on_their_way = Vec::new();
    /// for number in 0..100 {
    ///     on_their_way.push(producer.submit(Message::new("Orders", format!("order {number}"))).await?);
    /// }
    /// for submitted in on_their_way {
    ///     submitted.receipt().await?;
    /// }
    /// # Ok::<(), orbitmq_client::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn submit(&self, message: Message) -> Result<Submitted> {
        let prepared = self.prepare(&message)?;
        let under_way = self.begin(&prepared, &Target::InTurn, None).await?;
        Ok(Submitted {
            producer: self.clone(),
            prepared,
            under_way,
        })
    }

    /// Sends a message that nobody confirms: the fastest way, for what may be lost.
    pub async fn send_oneway(&self, message: Message) -> Result<()> {
        let prepared = self.prepare(&message)?;
        self.tell(&prepared).await
    }

    /// The queues a message to `topic` may go to, in the same order for every client.
    pub async fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>> {
        self.check_running()?;
        let namespace = &self.shared.session.settings.namespace;
        let route = self.shared.session.route(&namespace.wrap(topic)).await?;
        let shown = |queue: &MessageQueue| MessageQueue {
            topic: topic.to_owned(),
            ..queue.clone()
        };
        Ok(route.writable.iter().map(shown).collect())
    }

    /// Waits until everything has left, says goodbye to the brokers, and refuses everything after.
    pub async fn shutdown(&self) {
        if self.shared.stopped.swap(true, Ordering::SeqCst) {
            return;
        }
        self.shared.upkeep.abort();
        if let Some(trace) = &self.shared.trace {
            Box::pin(trace.shutdown()).await;
        }
        let session = &self.shared.session;
        session.connections.flush().await;
        session
            .unregister("producerGroup", &self.shared.options.group)
            .await;
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.shared.session.client_id
    }

    /// For a group that the application does not see.
    pub(crate) async fn inner(group: String, settings: Settings) -> Result<Producer> {
        let mut builder = ProducerBuilder::new(group);
        builder.settings = settings;
        Box::pin(Producer::start(builder, None)).await
    }

    async fn start(builder: ProducerBuilder, checker: Option<Checker>) -> Result<Producer> {
        let ProducerBuilder {
            mut options,
            settings,
        } = builder;
        names::validate_group(&options.group).map_err(|error| Error::Illegal(error.to_string()))?;
        options.group = settings.namespace.wrap(&options.group);
        let trace = Trace::start(&settings, &options.group, trace::Kind::Produce).await?;
        let (session, asked) = Session::start(settings).await?;
        let new_brokers = Arc::new(Notify::new());
        let replies = Arc::new(Replies::default());
        let looked_after = upkeep::LookedAfter {
            session: session.clone(),
            group: options.group.clone(),
            new_brokers: new_brokers.clone(),
            replies: replies.clone(),
            checker,
            trace: trace.clone(),
        };
        Ok(Producer {
            shared: Arc::new(Shared {
                session,
                turn: AtomicUsize::new(0),
                latencies: Latencies::new(options.avoid_slow_brokers),
                options,
                replies,
                trace,
                new_brokers,
                stopped: AtomicBool::new(false),
                upkeep: tokio::spawn(upkeep(looked_after, asked)),
            }),
        })
    }

    fn check_running(&self) -> Result<()> {
        match self.shared.stopped.load(Ordering::SeqCst) {
            true => Err(Error::ShutDown),
            false => Ok(()),
        }
    }
}

fn one(receipts: Vec<Receipt>) -> Result<Receipt> {
    let first = receipts.into_iter().next();
    Ok(first.expect("one message, one receipt"))
}

/// A message that was handed over and is not answered yet. Dropping it does not take it back.
pub struct Submitted {
    producer: Producer,
    prepared: Prepared,
    under_way: sending::UnderWay,
}

impl Submitted {
    /// Waits until the broker has stored the message. A failure is tried again here, as often as
    /// `retryTimesWhenSendAsyncFailed` says; what was submitted behind it may then lie before it.
    pub async fn receipt(self) -> Result<Receipt> {
        let limit = self.producer.shared.options.send_limit;
        let answered = self
            .producer
            .finish(&self.prepared, self.under_way, limit)
            .await;
        match answered {
            Ok(receipts) => one(receipts),
            Err(error) => self.producer.send_again(&self.prepared, error).await,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

/// The time a request has in all, from now on.
pub(crate) fn deadline(limit: Duration) -> tokio::time::Instant {
    tokio::time::Instant::now() + limit
}
