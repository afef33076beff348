//! The push consumer: one task looks after membership, one task pulls each queue that is ours, and every message
//! gets a task of its own for as long as the listener is at it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use protocol::body::heartbeat::{
    ConsumeType, ConsumerData, HeartbeatData, MessageModel, SubscriptionData,
};
use protocol::body::queue::MessageQueue;
use protocol::code::{request, response};
use protocol::header::pull::PullAnswer;
use protocol::record::View;
use protocol::{Value, sysflag};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::offsets::{self, Offsets};
use super::process_queue::ProcessQueue;
use super::{Consumed, Listener, Options, PushConsumerBuilder, rebalance};
use crate::connection::{Answer, Asked, Connection, refusal};
use crate::error::{Error, Result};
use crate::lock::Mutex;
use crate::message::Received;
use crate::routes::MASTER;
use crate::session::Session;

/// How long the broker holds a pull that finds nothing, and how long we wait for its answer.
const HOLD: Duration = Duration::from_secs(15);
const PULL_LIMIT: Duration = Duration::from_secs(30);
/// After a pull that failed.
const PULL_PAUSE: Duration = Duration::from_millis(500);
/// A message that could not be given back is tried again here.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How long a shutdown waits for listeners.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Receives messages: pulls in the background and calls a listener.
///
/// ```
/// # mod fake { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake/broker.rs")); }
/// # use fake::Broker;
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let name_server = Broker::start().await.address();
/// # use orbitmq_client::{Message, Producer};
/// use orbitmq_client::{Consumed, PushConsumer};
///
/// # let producer = Producer::builder("shop").name_server(name_server.as_str()).start().await?;
/// # producer.send(Message::new("Orders", "42 apples").tag("paid")).await?;
/// let (sender, mut arrived) = tokio::sync::mpsc::unbounded_channel();
/// let consumer = PushConsumer::builder("warehouse")
///     .name_server(name_server)
///     .subscribe("Orders", "paid || sent")
///     .from_first()
///     .start(move |message| {
///         let sender = sender.clone();
///         async move {
///             let text = String::from_utf8_lossy(&message.body).into_owned();
///             if sender.send(text).is_ok() { Consumed::Done } else { Consumed::Later }
///         }
///     })
///     .await?;
/// assert_eq!(arrived.recv().await.as_deref(), Some("42 apples"));
/// consumer.shutdown().await;
/// # Ok::<(), orbitmq_client::Error>(())
/// # }).unwrap();
/// ```
pub struct PushConsumer {
    shared: Arc<Shared>,
    membership: JoinHandle<()>,
}

struct Shared {
    session: Arc<Session>,
    options: Options,
    listener: Listener,
    permits: Arc<Semaphore>,
    offsets: Offsets,
    queues: Mutex<HashMap<MessageQueue, Reader>>,
    rebalance: Notify,
    stopped: AtomicBool,
}

/// The task that pulls a queue, and what is open of it.
struct Reader {
    open: Arc<ProcessQueue>,
    pulling: JoinHandle<()>,
}

impl PushConsumer {
    pub fn builder(group: impl Into<String>) -> PushConsumerBuilder {
        PushConsumerBuilder::new(group.into())
    }

    pub(super) async fn start(
        session: Arc<Session>,
        asked: mpsc::Receiver<Asked>,
        options: Options,
        listener: Listener,
    ) -> Result<PushConsumer> {
        let shared = Arc::new(Shared {
            permits: Arc::new(Semaphore::new(options.concurrency)),
            session,
            options,
            listener,
            offsets: Offsets::default(),
            queues: Mutex::default(),
            rebalance: Notify::new(),
            stopped: AtomicBool::new(false),
        });
        shared.find_routes().await?;
        let membership = tokio::spawn(membership(shared.clone(), asked));
        Ok(PushConsumer { shared, membership })
    }

    /// The queues that this member reads at the moment.
    pub fn queues(&self) -> Vec<(String, String, i32)> {
        let queues = self.shared.queues.lock();
        let named = |queue: &MessageQueue| {
            (
                queue.topic.clone(),
                queue.broker_name.clone(),
                queue.queue_id,
            )
        };
        let mut all: Vec<_> = queues.keys().map(named).collect();
        all.sort();
        all
    }

    /// Stops pulling, waits for the listener, tells the broker how far it has come, and leaves the group.
    pub async fn shutdown(&self) {
        if self.shared.stopped.swap(true, Ordering::SeqCst) {
            return;
        }
        self.membership.abort();
        let readers: Vec<_> = self.shared.queues.lock().drain().collect();
        for (_, reader) in &readers {
            reader.pulling.abort();
        }
        // All permits back means that nobody is with the listener.
        let all = self.shared.options.concurrency as u32;
        if tokio::time::timeout(DRAIN_LIMIT, self.shared.permits.acquire_many(all))
            .await
            .is_err()
        {
            tracing::warn!("the listener has not finished; what it is at will be delivered again");
        }
        for (queue, reader) in &readers {
            self.shared.offsets.reach(queue, reader.open.done());
        }
        self.shared.commit(None).await;
        self.shared.session.connections.flush().await;
        self.shared
            .session
            .unregister("consumerGroup", &self.shared.options.group)
            .await;
    }
}

impl Drop for PushConsumer {
    fn drop(&mut self) {
        self.membership.abort();
        self.shared.stopped.store(true, Ordering::SeqCst);
        for reader in self.shared.queues.lock().values() {
            reader.pulling.abort();
        }
    }
}

/// Heartbeats, routes, commits and shares, until the consumer is shut down.
async fn membership(shared: Arc<Shared>, mut asked: mpsc::Receiver<Asked>) {
    let settings = &shared.session.settings;
    let heartbeat = shared.heartbeat_data();
    let every = |period| tokio::time::interval_at(Instant::now() + period, period);
    let mut routes = every(settings.route_interval);
    let mut heartbeats = every(settings.heartbeat_interval);
    let mut commits = every(shared.options.commit_interval);
    let mut rebalances = tokio::time::interval(shared.options.rebalance_interval);
    let mut told = Vec::new();
    loop {
        tokio::select! {
            _ = routes.tick() => shared.session.routes.refresh_all(&shared.session.connections).await,
            _ = heartbeats.tick() => shared.session.heartbeat(&heartbeat, false).await,
            _ = commits.tick() => shared.commit(None).await,
            _ = rebalances.tick() => shared.rebalance(&heartbeat, &mut told).await,
            () = shared.rebalance.notified() => shared.rebalance(&heartbeat, &mut told).await,
            Some(asked) = asked.recv() => shared.answer(&asked),
        }
    }
}

impl Shared {
    fn heartbeat_data(&self) -> HeartbeatData {
        HeartbeatData {
            client_id: self.session.client_id.clone(),
            consumer_data_set: vec![ConsumerData {
                consume_from_where: self.options.from,
                consume_type: ConsumeType::Passively,
                group_name: self.options.group.clone(),
                message_model: self.options.model,
                subscription_data_set: self.options.subscriptions.clone(),
                unit_mode: false,
            }],
            ..HeartbeatData::default()
        }
    }

    /// At least one topic must be there; the others, and the retry topic, may come later.
    async fn find_routes(&self) -> Result<()> {
        let mut found = Err(Error::NoNameServer);
        for subscription in &self.options.subscriptions {
            match self.session.route(&subscription.topic).await {
                Ok(_) => found = Ok(()),
                Err(error) if found.is_err() => found = Err(error),
                Err(_) => {}
            }
        }
        match found {
            // A topic that nobody has made yet will have a route once somebody sends to it.
            Err(Error::NoRoute { .. }) => Ok(()),
            other => other,
        }
    }

    /// The members of the group have changed, says a broker. Anything else it might ask is not for us.
    fn answer(&self, asked: &Asked) {
        let command = asked.frame.command();
        if command.code == request::NOTIFY_CONSUMER_IDS_CHANGED {
            self.rebalance.notify_one();
        } else {
            tracing::debug!(
                address = asked.address,
                code = command.code,
                "a request that is not answered"
            );
        }
    }

    /// `told` holds the brokers that know of us: only a member has a share.
    async fn rebalance(
        self: &Arc<Shared>,
        heartbeat: &HeartbeatData,
        told: &mut Vec<(i64, String)>,
    ) {
        if let Err(error) = self.find_routes().await {
            tracing::debug!(%error, "no routes");
        }
        let brokers = self.session.routes.brokers();
        if *told != brokers {
            self.session.heartbeat(heartbeat, false).await;
            *told = brokers;
        }
        for subscription in &self.options.subscriptions {
            match self.share(subscription).await {
                Ok(queues) => self.take_over(subscription, queues).await,
                Err(error) => {
                    tracing::debug!(topic = subscription.topic, %error, "shares stay as they are")
                }
            }
        }
    }

    async fn share(&self, subscription: &SubscriptionData) -> Result<Vec<MessageQueue>> {
        let route = self.session.route(&subscription.topic).await?;
        let queues = rebalance::readable(&route);
        if self.options.model == MessageModel::Broadcasting {
            return Ok(queues);
        }
        let members = rebalance::members(&self.session, &route, &self.options.group).await?;
        Ok(rebalance::average(
            &queues,
            &members,
            &self.session.client_id,
        ))
    }

    /// Gives up what is no longer ours and starts on what has become ours.
    async fn take_over(
        self: &Arc<Shared>,
        subscription: &SubscriptionData,
        share: Vec<MessageQueue>,
    ) {
        let given_up: Vec<(MessageQueue, Reader)> = {
            let mut queues = self.queues.lock();
            let gone = |queue: &MessageQueue, _: &mut Reader| {
                queue.topic == subscription.topic && !share.contains(queue)
            };
            queues.extract_if(gone).collect()
        };
        for (queue, reader) in given_up {
            reader.pulling.abort();
            reader.open.give_up();
            self.offsets.reach(&queue, reader.open.done());
            self.commit(Some(&queue)).await;
            tracing::debug!(?queue, "given up");
        }
        for queue in share {
            if self.queues.lock().contains_key(&queue) {
                continue;
            }
            match self.begin(&queue).await {
                Ok(offset) => self.start_reader(subscription, queue, offset),
                Err(error) => tracing::debug!(?queue, %error, "not taken over yet"),
            }
        }
    }

    fn start_reader(
        self: &Arc<Shared>,
        subscription: &SubscriptionData,
        queue: MessageQueue,
        offset: i64,
    ) {
        tracing::debug!(?queue, offset, "taken over");
        let open = Arc::new(ProcessQueue::starting_at(offset));
        let puller = Puller {
            shared: self.clone(),
            open: open.clone(),
            queue: queue.clone(),
            subscription: subscription.clone(),
            replica: MASTER,
            offset,
        };
        let pulling = tokio::spawn(puller.run());
        self.queues.lock().insert(queue, Reader { open, pulling });
    }

    async fn begin(&self, queue: &MessageQueue) -> Result<i64> {
        let connection = self.connect(queue, MASTER).await?;
        offsets::start(
            &connection,
            &self.options,
            queue,
            self.session.settings.call_limit,
        )
        .await
    }

    async fn connect(&self, queue: &MessageQueue, replica: i64) -> Result<Arc<Connection>> {
        let route = self.session.route(&queue.topic).await?;
        let address = route.replica(&queue.broker_name, replica);
        let address = address.ok_or_else(|| Error::NoRoute {
            topic: queue.topic.clone(),
        })?;
        self.session.connections.get(address).await
    }

    async fn commit(&self, only: Option<&MessageQueue>) {
        if self.options.model == MessageModel::Broadcasting {
            return;
        }
        for (queue, offset) in self.offsets.take(only) {
            let told: Result<()> = async {
                let connection = self.connect(&queue, MASTER).await?;
                offsets::commit(&connection, &self.options.group, &queue, offset).await
            }
            .await;
            if let Err(error) = told {
                tracing::debug!(?queue, offset, %error, "not committed yet");
                self.offsets.reach(&queue, offset);
            }
        }
    }

    /// Calls the listener until the message is done with or given back.
    async fn deliver(&self, message: Received) {
        loop {
            match (self.listener)(message.clone()).await {
                Consumed::Done => return,
                // In broadcasting there is nobody to give it back to.
                Consumed::Later if self.options.model == MessageModel::Broadcasting => {
                    tracing::warn!(id = message.id, "dropped: broadcasting delivers only once");
                    return;
                }
                Consumed::Later => match self.give_back(&message).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::debug!(id = message.id, %error, "not given back; trying again here");
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                },
            }
        }
    }

    /// The broker puts the message into the group's retry topic, later each time.
    async fn give_back(&self, message: &Received) -> Result<()> {
        let queue = MessageQueue {
            broker_name: message.broker_name.clone(),
            queue_id: message.queue_id,
            topic: message.topic.clone(),
        };
        let fields = [
            ("offset", Value::I64(message.log_offset)),
            ("group", Value::Str(&self.options.group)),
            // The broker chooses by how often it was delivered.
            ("delayLevel", Value::I32(0)),
            ("originMsgId", Value::Str(&message.id)),
            ("originTopic", Value::Str(&message.topic)),
            ("unitMode", Value::Bool(false)),
            ("maxReconsumeTimes", Value::I32(self.options.max_deliveries)),
        ];
        let connection = self.connect(&queue, MASTER).await?;
        let limit = self.session.settings.call_limit;
        connection
            .demand(request::CONSUMER_SEND_MSG_BACK, &fields, b"", limit)
            .await?;
        Ok(())
    }
}

/// Pulls one queue for as long as it is ours.
struct Puller {
    shared: Arc<Shared>,
    open: Arc<ProcessQueue>,
    queue: MessageQueue,
    subscription: SubscriptionData,
    /// The replica that the broker last told us to ask.
    replica: i64,
    offset: i64,
}

impl Puller {
    async fn run(mut self) {
        loop {
            self.open.wait_for_room().await;
            if let Err(error) = self.pull().await {
                tracing::debug!(queue = ?self.queue, %error, "pulling again");
                self.replica = MASTER;
                tokio::time::sleep(PULL_PAUSE).await;
            }
        }
    }

    async fn pull(&mut self) -> Result<()> {
        let connection = self.shared.connect(&self.queue, self.replica).await?;
        let answer = self.ask(&connection).await?;
        let command = answer.command();
        let told = PullAnswer::from(&command);
        match command.code {
            response::SUCCESS => {
                for message in self.unpack(command.body)? {
                    self.hand_over(message).await;
                }
            }
            response::PULL_NOT_FOUND
            | response::PULL_RETRY_IMMEDIATELY
            | response::PULL_OFFSET_MOVED => {}
            _ => return Err(refusal(&command)),
        }
        let told = told.map_err(|error| self.broken(error.to_string()))?;
        self.offset = told.next_offset;
        self.replica = told.suggested_broker;
        self.open.skip_to(self.offset);
        self.shared.offsets.reach(&self.queue, self.open.done());
        Ok(())
    }

    async fn ask(&self, connection: &Connection) -> Result<Answer> {
        let clustering = self.shared.options.model == MessageModel::Clustering;
        let done = if clustering { self.open.done() } else { 0 };
        let mut flags = sysflag::pull::SUSPEND | sysflag::pull::SUBSCRIPTION;
        if clustering && self.replica == MASTER && done > 0 {
            flags |= sysflag::pull::COMMIT_OFFSET;
        }
        let fields = [
            ("consumerGroup", Value::Str(&self.shared.options.group)),
            ("topic", Value::Str(&self.queue.topic)),
            ("queueId", Value::I32(self.queue.queue_id)),
            ("queueOffset", Value::I64(self.offset)),
            ("maxMsgNums", Value::I32(self.shared.options.pull_messages)),
            ("sysFlag", Value::I32(flags)),
            ("commitOffset", Value::I64(done)),
            ("suspendTimeoutMillis", Value::I64(HOLD.as_millis() as i64)),
            ("subscription", Value::Str(&self.subscription.sub_string)),
            ("subVersion", Value::I64(self.subscription.sub_version)),
            (
                "expressionType",
                Value::Str(&self.subscription.expression_type),
            ),
            ("bname", Value::Str(&self.queue.broker_name)),
        ];
        connection
            .call(request::PULL_MESSAGE, &fields, b"", PULL_LIMIT)
            .await
    }

    /// Messages that are wanted; the broker compares tags by their hash only.
    fn unpack(&self, mut records: &[u8]) -> Result<Vec<Received>> {
        let mut messages = Vec::new();
        while !records.is_empty() {
            let record = View::parse(records).map_err(|error| self.broken(error.to_string()))?;
            records = &records[record.bytes.len()..];
            match Received::from_record(&record, &self.queue.broker_name) {
                Ok(message) if self.is_wanted(&message) => messages.push(message),
                Ok(_) => {}
                Err(what) => {
                    tracing::error!(queue = ?self.queue, offset = record.queue_offset, what, "skipped")
                }
            }
        }
        Ok(messages)
    }

    fn is_wanted(&self, message: &Received) -> bool {
        let tags = &self.subscription.tags_set;
        tags.is_empty()
            || message
                .tag()
                .is_some_and(|tag| tags.iter().any(|wanted| wanted == tag))
    }

    /// Waits for a free place at the listener.
    async fn hand_over(&self, message: Received) {
        let offset = message.queue_offset;
        self.open.add(offset, message.body.len());
        let permit = self.shared.permits.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let (shared, open, queue) = (self.shared.clone(), self.open.clone(), self.queue.clone());
        tokio::spawn(async move {
            shared.deliver(message).await;
            let done = open.finish(offset);
            if !open.is_given_up() {
                shared.offsets.reach(&queue, done);
            }
            drop(permit);
        });
    }

    fn broken(&self, what: String) -> Error {
        Error::Broken {
            address: self.queue.broker_name.clone(),
            what,
        }
    }
}
