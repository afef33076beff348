//! Sending. A [`Producer`] is cheap to clone and used from any number of tasks; what they send travels over one
//! connection per broker, with as many requests under way as there are unanswered sends.

mod batch;
mod retry;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use protocol::body::heartbeat::{HeartbeatData, ProducerData};
use protocol::body::queue::MessageQueue;
use protocol::code::{request, response};
use protocol::header::send::SendAnswer;
use protocol::{Value, names};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::connection::{Answer, Connection, refusal};
use crate::error::{Error, Result};
use crate::message::{Message, pack};
use crate::message_id::now_ms;
use crate::routes::Route;
use crate::session::{Session, Settings};

use self::retry::Attempts;

/// Queues of a topic that the first message makes.
const NEW_TOPIC_QUEUES: i32 = 4;

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

struct Shared {
    session: Arc<Session>,
    options: Options,
    /// Turns through the queues.
    turn: AtomicUsize,
    new_brokers: Arc<Notify>,
    stopped: AtomicBool,
    upkeep: JoinHandle<()>,
}

struct Options {
    group: String,
    send_limit: Duration,
    attempts: usize,
    compress: bool,
    body_bytes_max: usize,
}

/// What a producer is to be like. Get one from [`Producer::builder`].
pub struct ProducerBuilder {
    options: Options,
    settings: Settings,
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
    pub fn builder(group: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder {
            options: Options {
                group: group.into(),
                send_limit: Duration::from_secs(3),
                attempts: 3,
                compress: false,
                body_bytes_max: names::BODY_BYTES_MAX_DEFAULT,
            },
            settings: Settings::default(),
        }
    }

    /// Sends a message and waits until it is stored. A failure is tried again, on another broker if there is one;
    /// after a timeout or a broken connection the message may therefore be stored twice.
    pub async fn send(&self, message: Message) -> Result<Receipt> {
        let prepared = self.prepare(&message)?;
        let receipts = self.send_prepared(&prepared).await?;
        Ok(receipts
            .into_iter()
            .next()
            .expect("one message, one receipt"))
    }

    /// Sends messages of one topic together: they lie in one queue, one behind the other, or not at all.
    pub async fn send_batch(&self, messages: &[Message]) -> Result<Vec<Receipt>> {
        let prepared = self.prepare_batch(messages)?;
        self.send_prepared(&prepared).await
    }

    /// Hands a message over without waiting for its answer, which [`Submitted::receipt`] gives later. Messages of
    /// one task leave in the order of the calls; a failure is not tried again.
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
        let route = self.route(&prepared.topic).await?;
        let (connection, queue) = self.choose(&route, None, &prepared.topic).await?;
        let pending = self
            .request(&connection, &queue, &prepared, Way::Answered)
            .await?;
        Ok(Submitted {
            pending: pending.expect("it is to be answered"),
            prepared,
            queue,
            limit: self.shared.options.send_limit,
        })
    }

    /// Sends a message that nobody confirms: the fastest way, for what may be lost.
    pub async fn send_oneway(&self, message: Message) -> Result<()> {
        let prepared = self.prepare(&message)?;
        let route = self.route(&prepared.topic).await?;
        let (connection, queue) = self.choose(&route, None, &prepared.topic).await?;
        self.request(&connection, &queue, &prepared, Way::OneWay)
            .await?;
        Ok(())
    }

    /// Waits until everything has left, says goodbye to the brokers, and refuses everything after.
    pub async fn shutdown(&self) {
        if self.shared.stopped.swap(true, Ordering::SeqCst) {
            return;
        }
        self.shared.upkeep.abort();
        self.shared.session.connections.flush().await;
        self.shared
            .session
            .unregister("producerGroup", &self.shared.options.group)
            .await;
    }

    fn prepare(&self, message: &Message) -> Result<Prepared> {
        self.check_running()?;
        message.check(self.shared.options.body_bytes_max)?;
        let id = self.shared.session.ids.next();
        let (packed, sys_flag) = pack(message.body(), self.shared.options.compress);
        Ok(Prepared {
            topic: message.topic().to_owned(),
            code: request::SEND_MESSAGE_V2,
            properties: message.encode_properties(&id)?,
            ids: vec![id],
            flag: message.flag,
            sys_flag,
            body: packed.unwrap_or_else(|| message.body.clone()),
        })
    }

    fn check_running(&self) -> Result<()> {
        match self.shared.stopped.load(Ordering::SeqCst) {
            true => Err(Error::ShutDown),
            false => Ok(()),
        }
    }

    async fn send_prepared(&self, prepared: &Prepared) -> Result<Vec<Receipt>> {
        let deadline = Instant::now() + self.shared.options.send_limit;
        let mut attempts = Attempts::new(self.shared.options.attempts);
        loop {
            match self.attempt(prepared, &mut attempts, deadline).await {
                Ok(receipts) => return Ok(receipts),
                Err(error) if attempts.another(&error) && Instant::now() < deadline => {
                    tracing::debug!(topic = prepared.topic, %error, "sending again");
                    self.refresh_route(&prepared.topic).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn attempt(
        &self,
        prepared: &Prepared,
        attempts: &mut Attempts,
        deadline: Instant,
    ) -> Result<Vec<Receipt>> {
        let route = self.route(&prepared.topic).await?;
        let queue = self.next_queue(&route, attempts.avoid(), &prepared.topic)?;
        attempts.tried(&queue.broker_name);
        let connection = self.connect(&route, &queue).await?;
        let pending = self
            .request(&connection, &queue, prepared, Way::Answered)
            .await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = pending.expect("it is to be answered").answer(left).await?;
        prepared.receipts(&answer, &queue)
    }

    /// A topic without a route is one that its first message will make.
    async fn route(&self, topic: &str) -> Result<Arc<Route>> {
        self.check_running()?;
        let session = &self.shared.session;
        if let Some(route) = session.routes.known(topic) {
            return Ok(route);
        }
        let route = match session.route(topic).await {
            Err(Error::NoRoute { .. }) => {
                let queues = NEW_TOPIC_QUEUES;
                session
                    .routes
                    .borrow_default(topic, queues, &session.connections)
                    .await
            }
            other => other,
        };
        self.shared.new_brokers.notify_one();
        route
    }

    async fn refresh_route(&self, topic: &str) {
        let session = &self.shared.session;
        if let Err(error) = session.routes.refresh(topic, &session.connections).await {
            tracing::debug!(topic, %error, "the route stays as it was");
        }
    }

    async fn choose(
        &self,
        route: &Route,
        avoid: Option<&str>,
        topic: &str,
    ) -> Result<(Arc<Connection>, MessageQueue)> {
        let queue = self.next_queue(route, avoid, topic)?;
        Ok((self.connect(route, &queue).await?, queue))
    }

    /// The next queue in turn, on another broker than the one to be avoided if there is another.
    fn next_queue(&self, route: &Route, avoid: Option<&str>, topic: &str) -> Result<MessageQueue> {
        let count = route.writable.len();
        let first = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = (0..count).map(|step| &route.writable[(first + step) % count]);
        let mut elsewhere = in_turn
            .clone()
            .filter(|queue| Some(queue.broker_name.as_str()) != avoid);
        let chosen = elsewhere.next().or_else(|| in_turn.clone().next());
        chosen.cloned().ok_or_else(|| Error::NoRoute {
            topic: topic.to_owned(),
        })
    }

    async fn connect(&self, route: &Route, queue: &MessageQueue) -> Result<Arc<Connection>> {
        let address = self
            .shared
            .session
            .address_of_master(route, &queue.broker_name)?;
        self.shared.session.connections.get(&address).await
    }

    async fn request(
        &self,
        connection: &Connection,
        queue: &MessageQueue,
        prepared: &Prepared,
        way: Way,
    ) -> Result<Option<crate::connection::Pending>> {
        let fields = [
            ("a", Value::Str(&self.shared.options.group)),
            ("b", Value::Str(&prepared.topic)),
            ("c", Value::Str(names::AUTO_CREATE_TOPIC)),
            ("d", Value::I32(NEW_TOPIC_QUEUES)),
            ("e", Value::I32(queue.queue_id)),
            ("f", Value::I32(prepared.sys_flag)),
            ("g", Value::I64(now_ms())),
            ("h", Value::I32(prepared.flag)),
            ("i", Value::Bytes(&prepared.properties)),
            ("j", Value::I32(0)),
            ("k", Value::Bool(false)),
            (
                "m",
                Value::Bool(prepared.code == request::SEND_BATCH_MESSAGE),
            ),
            ("n", Value::Str(&queue.broker_name)),
        ];
        match way {
            Way::Answered => connection
                .submit(prepared.code, &fields, &prepared.body)
                .await
                .map(Some),
            Way::OneWay => connection
                .tell(prepared.code, &fields, &prepared.body)
                .await
                .map(|()| None),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Answered,
    OneWay,
}

/// A request that needs only a queue; it can be sent again as it is.
struct Prepared {
    topic: String,
    code: i32,
    properties: Vec<u8>,
    /// One for each message.
    ids: Vec<String>,
    flag: i32,
    sys_flag: i32,
    body: Vec<u8>,
}

impl Prepared {
    fn receipts(&self, answer: &Answer, queue: &MessageQueue) -> Result<Vec<Receipt>> {
        let command = answer.command();
        let status = match command.code {
            response::SUCCESS => Stored::AsPromised,
            response::FLUSH_DISK_TIMEOUT => Stored::FlushTimedOut,
            response::FLUSH_SLAVE_TIMEOUT => Stored::ReplicationTimedOut,
            response::SLAVE_NOT_AVAILABLE => Stored::NoReplica,
            _ => return Err(refusal(&command)),
        };
        let stored = SendAnswer::from(&command).map_err(|error| Error::Broken {
            address: queue.broker_name.clone(),
            what: error.to_string(),
        })?;
        let mut offset_ids = stored.message_id.split(',');
        let receipt = |(number, id): (usize, &String)| Receipt {
            message_id: id.clone(),
            offset_id: offset_ids.next().unwrap_or_default().to_owned(),
            broker_name: queue.broker_name.clone(),
            queue_id: stored.queue_id,
            queue_offset: stored.queue_offset + number as i64,
            status,
        };
        Ok(self.ids.iter().enumerate().map(receipt).collect())
    }
}

/// A message that was handed over and is not answered yet. Dropping it does not take it back.
pub struct Submitted {
    pending: crate::connection::Pending,
    prepared: Prepared,
    queue: MessageQueue,
    limit: Duration,
}

impl Submitted {
    /// Waits until the broker has stored the message.
    pub async fn receipt(self) -> Result<Receipt> {
        let answer = self.pending.answer(self.limit).await?;
        let receipts = self.prepared.receipts(&answer, &self.queue)?;
        Ok(receipts
            .into_iter()
            .next()
            .expect("one message, one receipt"))
    }
}

impl ProducerBuilder {
    /// `host:port`, several separated by `;`. Without it, `NAMESRV_ADDR` of the environment counts.
    pub fn name_server(mut self, addresses: impl Into<String>) -> ProducerBuilder {
        self.settings.name_servers = addresses.into();
        self
    }

    /// How long one send may take with all its attempts; 3 s at first.
    pub fn send_timeout(mut self, limit: Duration) -> ProducerBuilder {
        self.options.send_limit = limit;
        self
    }

    /// How often a failed send is tried again; twice at first.
    pub fn retries(mut self, retries: usize) -> ProducerBuilder {
        self.options.attempts = retries + 1;
        self
    }

    /// Compress bodies above 4 KiB with zlib.
    pub fn compress(mut self, compress: bool) -> ProducerBuilder {
        self.options.compress = compress;
        self
    }

    /// Bodies above this are refused before they are sent; 4 MiB at first, as brokers do.
    pub fn body_bytes_max(mut self, bytes: usize) -> ProducerBuilder {
        self.options.body_bytes_max = bytes;
        self
    }

    /// How often routes are asked for again and brokers told that we live; 30 s at first.
    pub fn upkeep_interval(mut self, interval: Duration) -> ProducerBuilder {
        self.settings.route_interval = interval;
        self.settings.heartbeat_interval = interval;
        self
    }

    pub async fn start(self) -> Result<Producer> {
        names::validate_group(&self.options.group)
            .map_err(|error| Error::Illegal(error.to_string()))?;
        let (session, _asked) = Session::new(self.settings)?;
        let new_brokers = Arc::new(Notify::new());
        let upkeep = upkeep(
            session.clone(),
            self.options.group.clone(),
            new_brokers.clone(),
        );
        Ok(Producer {
            shared: Arc::new(Shared {
                session,
                options: self.options,
                turn: AtomicUsize::new(0),
                new_brokers,
                stopped: AtomicBool::new(false),
                upkeep: tokio::spawn(upkeep),
            }),
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

/// Keeps routes fresh and brokers informed.
async fn upkeep(session: Arc<Session>, group: String, new_brokers: Arc<Notify>) {
    let heartbeat = HeartbeatData {
        client_id: session.client_id.clone(),
        producer_data_set: vec![ProducerData { group_name: group }],
        ..HeartbeatData::default()
    };
    let mut routes = tokio::time::interval(session.settings.route_interval);
    let mut heartbeats = tokio::time::interval(session.settings.heartbeat_interval);
    loop {
        tokio::select! {
            _ = routes.tick() => session.routes.refresh_all(&session.connections).await,
            _ = heartbeats.tick() => session.heartbeat(&heartbeat, true).await,
            () = new_brokers.notified() => session.heartbeat(&heartbeat, true).await,
        }
    }
}
