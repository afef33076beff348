//! Transactions: a half message that nobody sees, a local transaction, and the decision. A broker that hears of no
//! decision asks a producer of the group what became of it.

use std::future::Future;
use std::sync::Arc;

use protocol::body::queue::MessageQueue;
use protocol::code::request;
use protocol::header::message::CheckTransaction;
use protocol::record::{View, parse_message_id};
use protocol::{Value, properties, sysflag};

use super::options::ProducerBuilder;
use super::sending::Target;
use super::upkeep::Checker;
use super::{Producer, Receipt, Stored};
use crate::caught::caught;
use crate::connection::{Asked, Connection};
use crate::error::{Error, Result};
use crate::message::Message;
use crate::message_id::now_ms;
use crate::received::Received;
use crate::session::Session;
use crate::trace::{Decision, Trace};

/// What became of the local transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done: the message is delivered.
    Commit,
    /// It is undone: the message is never delivered.
    Rollback,
    /// Not known yet: the broker asks later, after `transactionTimeOut` (6 s) and again every
    /// `transactionCheckInterval` (30 s), up to `transactionCheckMax` (15) times.
    Unknown,
}

impl Outcome {
    fn flag(self) -> i32 {
        match self {
            Outcome::Commit => sysflag::TRANSACTION_COMMIT,
            Outcome::Rollback => sysflag::TRANSACTION_ROLLBACK,
            Outcome::Unknown => sysflag::TRANSACTION_NONE,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Outcome::Commit => "COMMIT_MESSAGE",
            Outcome::Rollback => "ROLLBACK_MESSAGE",
            Outcome::Unknown => "UNKNOW",
        }
    }
}

/// Where the half message was stored and what was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionReceipt {
    pub half: Receipt,
    /// What the broker names the transaction by; the message's unique id.
    pub transaction_id: String,
    pub outcome: Outcome,
}

/// Sends messages that are delivered if a local transaction succeeds.
///
/// ```no_run
/// # async fn run() -> orbitmq_client::Result<()> {
/// # async fn book(order: &str) -> bool { true }
/// # async fn is_booked(order: &str) -> bool { true }
/// use orbitmq_client::{Message, Outcome, TransactionProducer};
///
/// let producer = TransactionProducer::builder("bookings")
///     .name_server("127.0.0.1:9876")
///     .start(|half| async move {
///         // The broker asks: what became of it? Another process of the group may have sent it.
///         let order = String::from_utf8_lossy(&half.body).into_owned();
///         if is_booked(&order).await { Outcome::Commit } else { Outcome::Rollback }
///     })
///     .await?;
/// producer
///     .send(Message::new("Booked", "4711"), |_half| async {
///         if book("4711").await { Outcome::Commit } else { Outcome::Rollback }
///     })
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TransactionProducer {
    producer: Producer,
}

/// What a transaction producer is to be like. Get one from [`TransactionProducer::builder`].
pub struct TransactionProducerBuilder {
    inner: ProducerBuilder,
}

impl TransactionProducerBuilder {
    /// `namesrvAddr`: `host:port`, several separated by `;`. Without it, `NAMESRV_ADDR` of the environment counts.
    pub fn name_server(self, addresses: impl Into<String>) -> TransactionProducerBuilder {
        self.with(|inner| inner.name_server(addresses))
    }

    /// Everything else that can be said of a producer: `.with(|producer| producer.send_timeout(..))`.
    pub fn with(self, change: impl FnOnce(ProducerBuilder) -> ProducerBuilder) -> Self {
        TransactionProducerBuilder {
            inner: change(self.inner),
        }
    }

    /// Starts; `check` is asked what became of a half message whose decision the broker has not heard of. It is called
    /// many at a time; a panic counts as [`Outcome::Unknown`].
    ///
    /// # Errors
    /// Those of [`ProducerBuilder::start`].
    pub async fn start<F, Fut>(self, check: F) -> Result<TransactionProducer>
    where
        F: Fn(Received) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let checker: Checker = Arc::new(move |half| Box::pin(check(half)));
        let producer = Producer::start(self.inner, Some(checker)).await?;
        Ok(TransactionProducer { producer })
    }
}

impl TransactionProducer {
    /// `group`: its producers answer for each other when the broker asks.
    pub fn builder(group: impl Into<String>) -> TransactionProducerBuilder {
        TransactionProducerBuilder {
            inner: Producer::builder(group),
        }
    }

    /// The plain producer within, for messages that are no transactions.
    pub fn producer(&self) -> &Producer {
        &self.producer
    }

    /// Stores a half message, runs `local`, and tells the broker its outcome. If that is lost on its way, the broker
    /// asks. A half message that was not stored as promised is rolled back without `local`.
    ///
    /// # Errors
    /// Those of [`Producer::send`]: the half message may be stored then; the broker will ask about it.
    pub async fn send<F, Fut>(&self, message: Message, local: F) -> Result<TransactionReceipt>
    where
        F: FnOnce(Receipt) -> Fut,
        Fut: Future<Output = Outcome>,
    {
        let shared = &self.producer.shared;
        // A half message is not delayed; RocketMQ ignores the level as well.
        let message = message
            .without(properties::DELAY)
            .property(properties::TRAN_MSG, "true")
            .property(properties::PRODUCER_GROUP, &shared.options.group);
        let prepared = self.producer.prepare(&message)?;
        let sent = self.producer.send_prepared(&prepared, &Target::InTurn);
        let half = super::one(sent.await?)?;
        let outcome = match half.status {
            Stored::AsPromised => local(half.clone()).await,
            _ => Outcome::Rollback,
        };
        if let Err(error) = self.decide(&prepared.topic, &message, &half, outcome).await {
            tracing::debug!(id = half.message_id, %error, "the broker will ask about it");
        }
        Ok(TransactionReceipt {
            transaction_id: half.message_id.clone(),
            half,
            outcome,
        })
    }

    async fn decide(
        &self,
        topic: &str,
        message: &Message,
        half: &Receipt,
        outcome: Outcome,
    ) -> Result<()> {
        let shared = &self.producer.shared;
        let (_, log_offset) = parse_message_id(&half.offset_id).ok_or_else(|| Error::Broken {
            address: half.broker_name.clone(),
            what: format!("{:?} is no message id", half.offset_id),
        })?;
        let queue = MessageQueue {
            broker_name: half.broker_name.clone(),
            queue_id: half.queue_id,
            topic: topic.to_owned(),
        };
        let route = self.producer.route(topic).await?;
        let address = shared
            .session
            .address_of_master(&route, &queue.broker_name)?;
        let connection = shared.session.connections.get(&address).await?;
        if let Some(trace) = &shared.trace {
            let told = Told {
                tag: message.get(properties::TAGS),
                keys: message.get(properties::KEYS),
                transaction_id: &half.message_id,
                from_check: false,
            };
            let shown = shared.session.settings.namespace.unwrap(topic);
            told.append(
                trace,
                &shared.options.group,
                &shown,
                &half.message_id,
                &address,
                outcome,
            );
        }
        let end = End {
            group: &shared.options.group,
            topic,
            half_queue_offset: half.queue_offset,
            log_offset: log_offset as i64,
            message_id: &half.message_id,
            transaction_id: &half.message_id,
            broker_name: Some(&half.broker_name),
            outcome,
            from_check: false,
        };
        end.tell(&connection).await
    }

    /// See [`Producer::shutdown`].
    pub async fn shutdown(&self) {
        self.producer.shutdown().await;
    }
}

/// A decision on its way to the broker. It is not answered: a lost one is asked about.
struct End<'a> {
    group: &'a str,
    topic: &'a str,
    half_queue_offset: i64,
    log_offset: i64,
    message_id: &'a str,
    transaction_id: &'a str,
    broker_name: Option<&'a str>,
    outcome: Outcome,
    from_check: bool,
}

impl End<'_> {
    async fn tell(&self, connection: &Connection) -> Result<()> {
        let mut fields = vec![
            ("topic", Value::Str(self.topic)),
            ("producerGroup", Value::Str(self.group)),
            ("tranStateTableOffset", Value::I64(self.half_queue_offset)),
            ("commitLogOffset", Value::I64(self.log_offset)),
            ("commitOrRollback", Value::I32(self.outcome.flag())),
            ("fromTransactionCheck", Value::Bool(self.from_check)),
            ("msgId", Value::Str(self.message_id)),
            ("transactionId", Value::Str(self.transaction_id)),
        ];
        if let Some(name) = self.broker_name {
            fields.push(("bname", Value::Str(name)));
        }
        connection
            .tell(request::END_TRANSACTION, &fields, b"")
            .await
    }
}

/// A broker's question about a half message, and who answers it.
pub(super) struct Check {
    pub session: Arc<Session>,
    pub group: String,
    pub checker: Checker,
    pub trace: Option<Trace>,
}

impl Check {
    /// A question that cannot be read is not answered; the broker asks again.
    pub async fn answer(self, asked: Asked) {
        if let Err(error) = self.try_answer(&asked).await {
            tracing::debug!(address = asked.address(), %error, "a check-back was not answered");
        }
    }

    async fn try_answer(&self, asked: &Asked) -> Result<()> {
        let broken = |what: String| Error::Broken {
            address: asked.address().to_owned(),
            what,
        };
        let command = asked.command();
        let header = CheckTransaction::from(&command).map_err(|error| broken(error.to_string()))?;
        let record = View::parse(command.body).map_err(|error| broken(error.to_string()))?;
        let namespace = &self.session.settings.namespace;
        let half = Received::from_record(&record, "", namespace).map_err(broken)?;
        let id = half.id.clone();
        let transaction_id = header.transaction_id.as_deref().unwrap_or(&id);
        let outcome = caught(|| (self.checker)(half.clone())).await;
        let outcome = outcome.unwrap_or(Outcome::Unknown);
        let address = asked.address();
        if let Some(trace) = &self.trace {
            let told = Told {
                tag: half.tag(),
                keys: half.property(properties::KEYS),
                transaction_id,
                from_check: true,
            };
            told.append(trace, &self.group, &half.topic, &id, address, outcome);
        }
        let end = End {
            group: &self.group,
            topic: header.topic.as_deref().unwrap_or_default(),
            half_queue_offset: header.half_queue_offset,
            log_offset: header.log_offset,
            message_id: &id,
            transaction_id,
            broker_name: None,
            outcome,
            from_check: true,
        };
        let connection = self.session.connections.get(address).await?;
        end.tell(&connection).await
    }
}

/// What a trace tells of a decision besides.
struct Told<'a> {
    tag: Option<&'a str>,
    keys: Option<&'a str>,
    transaction_id: &'a str,
    from_check: bool,
}

impl Told<'_> {
    fn append(
        &self,
        trace: &Trace,
        group: &str,
        topic: &str,
        id: &str,
        broker: &str,
        outcome: Outcome,
    ) {
        let decision = Decision {
            time_ms: now_ms(),
            group,
            topic,
            id,
            tag: self.tag,
            keys: self.keys,
            broker,
            transaction_id: self.transaction_id,
            state: outcome.name(),
            from_check: self.from_check,
        };
        trace.append(decision.line());
    }
}
