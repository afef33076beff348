//! One pull at a time, wherever the application likes: for tools, and for applications that keep their offsets
//! themselves.

use std::sync::Arc;
use std::time::Duration;

use protocol::body::heartbeat::{ConsumeFromWhere, ConsumeType, MessageModel};
use protocol::body::queue::MessageQueue;
use protocol::names;
use tokio::task::JoinHandle;

use super::member::Member;
use super::pull::{Found, Pull};
use super::{Allocation, offsets, rebalance};
use crate::connection::{Asked, Connection};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::lock::Mutex;
use crate::message_id::now_ms;
use crate::received::Received;
use crate::routes::MASTER;
use crate::session::Session;
use crate::settings::{Settings, millis, shared_settings, unknown};

/// How a pull ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullStatus {
    Found,
    /// There is nothing at or behind the offset.
    NoNewMessage,
    /// What is there is not wanted.
    NoMatchedMessage,
    /// The offset is outside the queue; [`Pulled::next_offset`] is within.
    OffsetIllegal,
}

impl PullStatus {
    pub(crate) fn of(found: Found, none_wanted: bool) -> PullStatus {
        match found {
            Found::Messages if none_wanted => PullStatus::NoMatchedMessage,
            Found::Messages => PullStatus::Found,
            Found::Nothing => PullStatus::NoNewMessage,
            Found::NothingWanted => PullStatus::NoMatchedMessage,
            Found::Elsewhere => PullStatus::OffsetIllegal,
        }
    }
}

/// What a pull brought. Offsets are counted in messages of the queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulled {
    pub status: PullStatus,
    pub messages: Vec<Received>,
    /// Where to go on.
    pub next_offset: i64,
    /// The first message that is there.
    pub min_offset: i64,
    /// Behind the last message.
    pub max_offset: i64,
}

/// Pulls when it is told to (`DefaultMQPullConsumer`). For everything else, take [`LitePullConsumer`](super::LitePullConsumer).
///
/// ```no_run
/// # async fn run() -> orbitmq_client::Result<()> {
/// use orbitmq_client::PullConsumer;
///
/// let consumer = PullConsumer::builder("readers").name_server("127.0.0.1:9876").start().await?;
/// for queue in consumer.queues("Orders").await? {
///     let mut offset = consumer.min_offset(&queue).await?;
///     while offset < consumer.max_offset(&queue).await? {
///         let pulled = consumer.pull(&queue, "*", offset, 32).await?;
///         println!("{} messages", pulled.messages.len());
///         offset = pulled.next_offset;
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct PullConsumer {
    member: Arc<Member>,
    options: Options,
    upkeep: JoinHandle<()>,
}

struct Options {
    hold: Duration,
    held_limit: Duration,
    pull_limit: Duration,
}

/// What a pull consumer is to be like. Get one from [`PullConsumer::builder`].
pub struct PullConsumerBuilder {
    group: String,
    options: Options,
    settings: Settings,
}

impl PullConsumerBuilder {
    shared_settings!();

    /// `brokerSuspendMaxTimeMillis`: how long a broker holds a pull of [`PullConsumer::pull_or_wait`] that finds nothing; 20 s
    /// unless said otherwise. The answer is waited for 10 s longer.
    pub fn hold(mut self, hold: Duration) -> PullConsumerBuilder {
        self.options.held_limit = hold + Duration::from_secs(10);
        self.options.hold = hold;
        self
    }

    /// Sets what RocketMQ calls `name`; times are in milliseconds.
    ///
    /// # Errors
    /// [`Error::Setting`] if a pull consumer has no such setting, or it cannot have that value.
    pub fn set(mut self, name: &str, value: &str) -> Result<PullConsumerBuilder> {
        match name {
            "consumerGroup" => self.group = value.to_owned(),
            "brokerSuspendMaxTimeMillis" => self.options.hold = millis(name, value)?,
            "consumerTimeoutMillisWhenSuspend" => self.options.held_limit = millis(name, value)?,
            "consumerPullTimeoutMillis" => self.options.pull_limit = millis(name, value)?,
            _ if self.settings.set(name, value)? => {}
            _ => return Err(unknown(name)),
        }
        Ok(self)
    }

    /// # Errors
    /// [`Error::NoNameServer`], and [`Error::Illegal`] for a group that cannot be.
    pub async fn start(self) -> Result<PullConsumer> {
        names::validate_group(&self.group).map_err(|error| Error::Illegal(error.to_string()))?;
        let group = self.settings.namespace.wrap(&self.group);
        let (session, asked) = Session::start(self.settings).await?;
        let member = Arc::new(Member {
            session,
            group,
            model: MessageModel::Clustering,
            kind: ConsumeType::Actively,
            from: ConsumeFromWhere::LastOffset,
            allocation: Allocation::Averagely,
            subscriptions: Mutex::default(),
        });
        Ok(PullConsumer {
            upkeep: tokio::spawn(upkeep(member.clone(), asked)),
            member,
            options: self.options,
        })
    }
}

impl PullConsumer {
    pub fn builder(group: impl Into<String>) -> PullConsumerBuilder {
        PullConsumerBuilder {
            group: group.into(),
            options: Options {
                hold: Duration::from_secs(20),
                held_limit: Duration::from_secs(30),
                pull_limit: Duration::from_secs(10),
            },
            settings: Settings::default(),
        }
    }

    /// The queues of a topic that can be read, in the same order for every client.
    ///
    /// # Errors
    /// [`Error::NoRoute`] if there is no such topic.
    pub async fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>> {
        let namespace = &self.member.session.settings.namespace;
        let route = self.member.session.route(&namespace.wrap(topic)).await?;
        let shown = |queue: MessageQueue| MessageQueue {
            topic: topic.to_owned(),
            ..queue
        };
        Ok(rebalance::readable(&route).into_iter().map(shown).collect())
    }

    /// Up to `messages_max` messages (1 to what the broker gives at once, 32 as a rule) from `offset` on. Nothing there is
    /// an answer at once.
    ///
    /// # Errors
    /// [`Error::Refused`] if the topic is not readable, or an SQL condition is wrong.
    pub async fn pull(
        &self,
        queue: &MessageQueue,
        filter: impl Into<Filter>,
        offset: i64,
        messages_max: u16,
    ) -> Result<Pulled> {
        self.ask(queue, filter.into(), offset, messages_max, None)
            .await
    }

    /// The same, waiting at the broker until there is something or its time is over.
    ///
    /// # Errors
    /// Those of [`PullConsumer::pull`].
    pub async fn pull_or_wait(
        &self,
        queue: &MessageQueue,
        filter: impl Into<Filter>,
        offset: i64,
        messages_max: u16,
    ) -> Result<Pulled> {
        let hold = Some(self.options.hold);
        self.ask(queue, filter.into(), offset, messages_max, hold)
            .await
    }

    async fn ask(
        &self,
        queue: &MessageQueue,
        filter: Filter,
        offset: i64,
        messages_max: u16,
        hold: Option<Duration>,
    ) -> Result<Pulled> {
        let (queue, connection) = self.connect(queue).await?;
        let pull = Pull {
            group: &self.member.group,
            subscription: &filter.subscription(&queue.topic, now_ms()),
            queue: &queue,
            offset,
            messages_max: i32::from(messages_max.max(1)),
            commit: None,
            hold,
            lite: false,
            limit: match hold {
                Some(_) => self.options.held_limit,
                None => self.options.pull_limit,
            },
        };
        let page = pull.ask(&connection).await?;
        let messages = pull.unpack(&page, &self.member.session.settings.namespace)?;
        Ok(Pulled {
            status: PullStatus::of(page.found, messages.is_empty()),
            messages,
            next_offset: page.told.next_offset,
            min_offset: page.told.min_offset,
            max_offset: page.told.max_offset,
        })
    }

    /// The first message that is there.
    ///
    /// # Errors
    /// [`Error::NoRoute`] and [`Error::Refused`] if there is no such queue; the same for the methods below.
    pub async fn min_offset(&self, queue: &MessageQueue) -> Result<i64> {
        let (queue, connection) = self.connect(queue).await?;
        offsets::edge(&connection, &queue, false, self.limit()).await
    }

    /// Behind the last message.
    pub async fn max_offset(&self, queue: &MessageQueue) -> Result<i64> {
        let (queue, connection) = self.connect(queue).await?;
        offsets::edge(&connection, &queue, true, self.limit()).await
    }

    /// The first message stored at or after a time in milliseconds since 1970 (brokers before 5.0: the last before it).
    pub async fn search_offset(&self, queue: &MessageQueue, time_ms: i64) -> Result<i64> {
        let (queue, connection) = self.connect(queue).await?;
        offsets::at_time(&connection, &queue, time_ms, self.limit()).await
    }

    /// When the oldest message that is there was stored, in milliseconds since 1970.
    pub async fn earliest_ms(&self, queue: &MessageQueue) -> Result<i64> {
        let (queue, connection) = self.connect(queue).await?;
        offsets::earliest_ms(&connection, &queue, self.limit()).await
    }

    /// How far the group has got, as the broker knows it; `None` if it has not begun.
    pub async fn committed(&self, queue: &MessageQueue) -> Result<Option<i64>> {
        let (queue, connection) = self.connect(queue).await?;
        offsets::committed(&connection, &self.member.group, &queue, self.limit()).await
    }

    /// Tells the broker how far the group has got, forwards or back.
    pub async fn commit(&self, queue: &MessageQueue, offset: i64) -> Result<()> {
        let (queue, connection) = self.connect(queue).await?;
        let (group, limit) = (&self.member.group, self.limit());
        offsets::commit_surely(&connection, group, &queue, offset, limit).await
    }

    /// Leaves the group.
    pub async fn shutdown(&self) {
        self.upkeep.abort();
        self.member.leave().await;
    }

    fn limit(&self) -> Duration {
        self.member.session.settings.call_limit
    }

    /// The queue as the brokers know it, and its broker.
    async fn connect(&self, queue: &MessageQueue) -> Result<(MessageQueue, Arc<Connection>)> {
        let session = &self.member.session;
        let queue = MessageQueue {
            topic: session.settings.namespace.wrap(&queue.topic),
            ..queue.clone()
        };
        let connection = session.connect(&queue, MASTER).await?;
        // A broker that has not heard of the group may refuse it.
        let heartbeat = self.member.heartbeat_data();
        session.heartbeat_to_new(&heartbeat, false).await;
        Ok((queue, connection))
    }
}

impl Drop for PullConsumer {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

async fn upkeep(member: Arc<Member>, mut asked: tokio::sync::mpsc::Receiver<Asked>) {
    let session = &member.session;
    let mut routes = tokio::time::interval(session.settings.route_interval);
    let mut heartbeats = tokio::time::interval(session.settings.heartbeat_interval);
    loop {
        tokio::select! {
            _ = routes.tick() => session.routes.refresh_all(&session.connections).await,
            _ = heartbeats.tick() => session.heartbeat(&member.heartbeat_data(), false).await,
            Some(asked) = asked.recv() => {
                tracing::debug!(code = asked.command().code, "a request that is not answered");
            }
        }
    }
}
