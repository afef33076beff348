//! The lite pull consumer: messages are pulled ahead in the background and handed out when the application polls.
//! Queues are shared out in the group, or assigned by the application itself.
//!
//! Of every queue there is a [`Cursor`]: what was handed out counts as done from the next poll on.

mod control;
mod options;
mod puller;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use protocol::body::heartbeat::SubscriptionData;
use protocol::body::queue::MessageQueue;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::local_offsets::LocalOffsets;
use super::member::Member;
use super::offsets;
use crate::connection::Asked;
use crate::error::{Error, Result};
use crate::lock::Mutex;
use crate::received::Received;
use crate::routes::MASTER;

pub use self::options::LitePullConsumerBuilder;
use self::options::Options;
use self::puller::Puller;

/// Hands out messages when it is polled.
///
/// ```no_run
/// # async fn run() -> orbitmq_client::Result<()> {
/// use std::time::Duration;
/// use orbitmq_client::LitePullConsumer;
///
/// let consumer = LitePullConsumer::builder("billing")
///     .name_server("127.0.0.1:9876")
///     .subscribe("Orders", "paid")
///     .start()
///     .await?;
/// for message in consumer.poll(Duration::from_secs(5)).await {
///     println!("{}", String::from_utf8_lossy(&message.body));
/// }
/// consumer.commit().await?;
/// consumer.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub struct LitePullConsumer {
    shared: Arc<Shared>,
    membership: JoinHandle<()>,
}

/// What the tasks of a consumer share.
struct Shared {
    member: Member,
    options: Options,
    /// In broadcasting: the offsets of this machine.
    local: Option<LocalOffsets>,
    queues: Mutex<HashMap<MessageQueue, Reader>>,
    /// Assigned by the application: nobody shares them out.
    assigned: AtomicBool,
    ready: Mutex<VecDeque<Batch>>,
    arrived: Notify,
    /// Messages of all queues that were pulled and not handed out.
    waiting: AtomicUsize,
    handed_out: Notify,
    /// Queues whose messages are not handed out.
    paused: Mutex<HashSet<MessageQueue>>,
    rebalance: Notify,
    stopped: AtomicBool,
}

/// The task that pulls a queue, and where the application is in it.
struct Reader {
    cursor: Arc<Cursor>,
    pulling: JoinHandle<()>,
}

/// Where the application is in a queue. A seek makes a new one: what the old one still brings is thrown away.
struct Cursor {
    queue: MessageQueue,
    places: Mutex<Places>,
    gone: AtomicBool,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    less: Notify,
}

#[derive(Clone, Copy)]
struct Places {
    /// Behind the last message that was handed out.
    position: i64,
    /// Behind the last that counts as done.
    done: i64,
    /// What the broker was told.
    told: Option<i64>,
}

/// Messages of one pull.
struct Batch {
    cursor: Arc<Cursor>,
    messages: VecDeque<Received>,
    /// Behind the pull, also where its last messages were not wanted.
    next_offset: i64,
}

impl LitePullConsumer {
    /// `group`: up to 120 characters, as in a topic's name.
    pub fn builder(group: impl Into<String>) -> LitePullConsumerBuilder {
        LitePullConsumerBuilder::new(group.into())
    }

    /// Up to `pullBatchSize` messages of one queue; none if there are none within `limit`. What was handed out before
    /// counts as done now, and is told to the broker every `autoCommitIntervalMillis` unless that is switched off.
    pub async fn poll(&self, limit: Duration) -> Vec<Received> {
        let end = Instant::now() + limit;
        self.shared.all_handed_out_is_done();
        loop {
            let arrived = self.shared.arrived.notified();
            if let Some(messages) = self.shared.take() {
                return messages;
            }
            if tokio::time::timeout_at(end, arrived).await.is_err() {
                return Vec::new();
            }
        }
    }

    /// Tells the brokers how far the application is: behind everything that was handed out.
    ///
    /// # Errors
    /// Of the last queue whose broker could not be told; the others are.
    pub async fn commit(&self) -> Result<()> {
        self.shared.all_handed_out_is_done();
        self.shared.commit().await
    }

    /// Tells a broker how far the group is in a queue, wherever the application is.
    ///
    /// # Errors
    /// [`Error::NoRoute`], [`Error::Refused`] and the like.
    pub async fn commit_offset(&self, queue: &MessageQueue, offset: i64) -> Result<()> {
        let queue = self.shared.wrapped(queue);
        self.shared.tell(&queue, offset).await
    }

    /// How far the group is in a queue; `None` if it has not begun.
    ///
    /// # Errors
    /// [`Error::NoRoute`], [`Error::Refused`] and the like.
    pub async fn committed(&self, queue: &MessageQueue) -> Result<Option<i64>> {
        self.shared.committed(&self.shared.wrapped(queue)).await
    }

    /// Leaves the group; with `autoCommit`, everything that was handed out counts as done.
    pub async fn shutdown(&self) {
        if self.shared.stopped.swap(true, Ordering::SeqCst) {
            return;
        }
        self.membership.abort();
        if self.shared.options.auto_commit {
            self.shared.all_handed_out_is_done();
            if let Err(error) = self.shared.commit().await {
                tracing::debug!(%error, "not all is committed");
            }
        }
        for (_, reader) in self.shared.queues.lock().drain() {
            reader.end();
        }
        self.shared.member.leave().await;
    }
}

impl Drop for LitePullConsumer {
    fn drop(&mut self) {
        self.membership.abort();
        for reader in self.shared.queues.lock().values() {
            reader.end();
        }
    }
}

impl Reader {
    fn end(&self) {
        self.pulling.abort();
        self.cursor.gone.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn wrapped(&self, queue: &MessageQueue) -> MessageQueue {
        MessageQueue {
            topic: self.member.session.settings.namespace.wrap(&queue.topic),
            ..queue.clone()
        }
    }

    /// The next messages of the oldest batch whose queue is not paused.
    fn take(&self) -> Option<Vec<Received>> {
        let mut ready = self.ready.lock();
        ready.retain(|batch| !batch.cursor.gone.load(Ordering::SeqCst));
        let paused = self.paused.lock();
        let place = ready
            .iter()
            .position(|batch| !paused.contains(&batch.cursor.queue))?;
        let batch = &mut ready[place];
        let count = batch.messages.len().min(self.options.poll_messages);
        let messages: Vec<Received> = batch.messages.drain(..count).collect();
        let behind = messages.last().map(|message| message.queue_offset + 1);
        let cursor = batch.cursor.clone();
        let position = match batch.messages.is_empty() {
            true => batch.next_offset,
            false => behind.unwrap_or(batch.next_offset),
        };
        if batch.messages.is_empty() {
            ready.remove(place);
        }
        cursor.places.lock().position = position;
        cursor.taken(&messages);
        self.waiting.fetch_sub(count, Ordering::SeqCst);
        drop(ready);
        self.handed_out.notify_waiters();
        Some(messages)
    }

    fn all_handed_out_is_done(&self) {
        for reader in self.queues.lock().values() {
            let mut places = reader.cursor.places.lock();
            places.done = places.position;
        }
    }

    async fn commit(&self) -> Result<()> {
        let moved: Vec<(Arc<Cursor>, i64)> = {
            let queues = self.queues.lock();
            let cursors = queues.values().map(|reader| reader.cursor.clone());
            let untold = |cursor: Arc<Cursor>| {
                let places = *cursor.places.lock();
                (places.told != Some(places.done)).then_some((cursor, places.done))
            };
            cursors.filter_map(untold).collect()
        };
        if let Some(local) = &self.local {
            let offsets = moved
                .iter()
                .map(|(cursor, done)| (cursor.queue.clone(), *done));
            return local
                .keep(offsets.collect())
                .map_err(|error| Error::Illegal(format!("offsets of this machine: {error}")));
        }
        let mut result = Ok(());
        for (cursor, done) in moved {
            match self.tell(&cursor.queue, done).await {
                Ok(()) => cursor.places.lock().told = Some(done),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    async fn tell(&self, queue: &MessageQueue, offset: i64) -> Result<()> {
        let session = &self.member.session;
        let connection = session.connect(queue, MASTER).await?;
        let limit = session.settings.call_limit;
        offsets::commit_surely(&connection, &self.member.group, queue, offset, limit).await
    }

    async fn committed(&self, queue: &MessageQueue) -> Result<Option<i64>> {
        if let Some(local) = &self.local {
            return Ok(local.get(queue));
        }
        let session = &self.member.session;
        let connection = session.connect(queue, MASTER).await?;
        let limit = session.settings.call_limit;
        offsets::committed(&connection, &self.member.group, queue, limit).await
    }

    async fn begin(&self, queue: &MessageQueue) -> Result<i64> {
        if let Some(offset) = self.committed(queue).await? {
            return Ok(offset);
        }
        let session = &self.member.session;
        let connection = session.connect(queue, MASTER).await?;
        let limit = session.settings.call_limit;
        offsets::start(&connection, self.options.joining.from, queue, limit).await
    }

    /// Reads a queue from an offset on; a reader that is there gives way.
    fn start_reader(self: &Arc<Shared>, queue: &MessageQueue, offset: i64) {
        let cursor = Arc::new(Cursor {
            queue: queue.clone(),
            places: Mutex::new(Places {
                position: offset,
                done: offset,
                told: None,
            }),
            gone: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            less: Notify::new(),
        });
        let puller = Puller {
            shared: self.clone(),
            cursor: cursor.clone(),
            subscription: self.subscription(&queue.topic),
            replica: MASTER,
            offset,
        };
        let reader = Reader {
            cursor,
            pulling: tokio::spawn(puller.run()),
        };
        let before = self.queues.lock().insert(queue.clone(), reader);
        if let Some(before) = before {
            self.forget(&before);
        }
    }

    /// What a reader brought and nobody was handed is thrown away; counts change under the lock of what is ready.
    fn forget(&self, reader: &Reader) {
        let _ready = self.ready.lock();
        reader.end();
        let left = reader.cursor.waiting.swap(0, Ordering::SeqCst);
        self.waiting.fetch_sub(left, Ordering::SeqCst);
        self.handed_out.notify_waiters();
    }

    fn subscription(&self, topic: &str) -> SubscriptionData {
        let known = self.member.subscriptions();
        let own = known.into_iter().find(|one| one.topic == topic);
        own.unwrap_or_else(|| SubscriptionData::by_tags(topic, "*", 0))
    }

    /// Shares every topic out anew, unless the application assigns queues itself.
    async fn rebalance(self: &Arc<Shared>) {
        let member = &self.member;
        if let Err(error) = member.find_routes().await {
            tracing::debug!(%error, "no routes");
        }
        let heartbeat = member.heartbeat_data();
        member.session.heartbeat_to_new(&heartbeat, false).await;
        if self.assigned.load(Ordering::SeqCst) {
            return;
        }
        for subscription in member.subscriptions() {
            match member.share(&subscription).await {
                Ok(share) => self.take_over(&subscription.topic, share).await,
                Err(error) => {
                    tracing::debug!(topic = subscription.topic, %error, "shares stay as they are")
                }
            }
        }
    }

    async fn take_over(self: &Arc<Shared>, topic: &str, share: Vec<MessageQueue>) {
        let gone: Vec<(MessageQueue, Reader)> = {
            let mut queues = self.queues.lock();
            queues
                .extract_if(|queue, _| queue.topic == topic && !share.contains(queue))
                .collect()
        };
        for (queue, reader) in gone {
            self.forget(&reader);
            let done = reader.cursor.places.lock().done;
            if self.options.auto_commit
                && let Err(error) = self.tell(&queue, done).await
            {
                tracing::debug!(?queue, %error, "not committed");
            }
        }
        for queue in share {
            if self.queues.lock().contains_key(&queue) {
                continue;
            }
            match self.begin(&queue).await {
                Ok(offset) => self.start_reader(&queue, offset),
                Err(error) => tracing::debug!(?queue, %error, "not taken over yet"),
            }
        }
    }
}

impl Cursor {
    fn taken(&self, messages: &[Received]) {
        let bytes: usize = messages.iter().map(|message| message.body.len()).sum();
        self.waiting.fetch_sub(messages.len(), Ordering::SeqCst);
        self.waiting_bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.less.notify_one();
    }
}

/// Heartbeats, routes, commits and shares, until the consumer is shut down.
async fn membership(shared: Arc<Shared>, mut asked: mpsc::Receiver<Asked>) {
    let session = &shared.member.session;
    let every = |period| tokio::time::interval_at(Instant::now() + period, period);
    let mut routes = every(session.settings.route_interval);
    let mut heartbeats = every(session.settings.heartbeat_interval);
    let mut commits = every(shared.options.joining.commit_interval);
    let mut rebalances = tokio::time::interval(shared.options.joining.rebalance_interval);
    loop {
        tokio::select! {
            _ = routes.tick() => session.routes.refresh_all(&session.connections).await,
            _ = heartbeats.tick() => {
                session.heartbeat(&shared.member.heartbeat_data(), false).await;
            }
            _ = commits.tick(), if shared.options.auto_commit => {
                if let Err(error) = shared.commit().await {
                    tracing::debug!(%error, "not all is committed yet");
                }
            }
            _ = rebalances.tick() => shared.rebalance().await,
            () = shared.rebalance.notified() => shared.rebalance().await,
            Some(asked) = asked.recv() => control::answer(&shared, &asked),
        }
    }
}
