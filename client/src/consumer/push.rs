//! The push consumer: one task looks after membership, one task pulls each queue that is ours, and every call of the
//! listener gets a task of its own; an orderly queue has one task for all its calls.

mod concurrent;
mod membership;
mod orderly;
mod puller;
mod queues;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::body::heartbeat::{ConsumeType, MessageModel};
use protocol::body::queue::MessageQueue;
use protocol::names;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;

use super::Listener;
use super::local_offsets::LocalOffsets;
use super::member::Member;
use super::offsets::{self, Offsets};
use super::options::{Options, PushConsumerBuilder, RECONSUME_MAX_DEFAULT};
use super::process_queue::ProcessQueue;
use super::stats::Stats;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::lock::Mutex;
use crate::message_id::now_ms;
use crate::producer::Producer;
use crate::routes::MASTER;
use crate::session::Session;
use crate::settings::Settings;
use crate::trace::{self, Trace};

/// The name that broadcasting offsets are kept under where the application gives none.
const INSTANCE_DEFAULT: &str = "DEFAULT";
/// The group of the producer that gives messages back.
const INNER_GROUP: &str = "CLIENT_INNER_PRODUCER";

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

/// What the tasks of a consumer share.
pub(super) struct Shared {
    pub member: Member,
    pub options: Options,
    pub listener: Listener,
    /// Calls of the listener that may be under way.
    permits: Arc<Semaphore>,
    offsets: Offsets,
    /// In broadcasting: the offsets of this machine.
    local: Option<LocalOffsets>,
    pub queues: Mutex<HashMap<MessageQueue, Reader>>,
    /// Orderly queues that were given up and whose last call is not over.
    leaving: Mutex<HashSet<MessageQueue>>,
    pub rebalance: Notify,
    paused: watch::Sender<bool>,
    stopped: AtomicBool,
    pub stats: Stats,
    trace: Option<Trace>,
    /// Gives messages back where the broker cannot: made when it is first needed.
    giver: tokio::sync::OnceCell<Producer>,
    pub started_ms: i64,
}

/// The tasks of a queue that is ours, and what is open of it.
pub(super) struct Reader {
    pub open: Arc<ProcessQueue>,
    pulling: JoinHandle<()>,
    /// The task that calls the listener, of an orderly queue.
    working: Option<JoinHandle<()>>,
}

impl PushConsumer {
    /// `group`: up to 120 characters, as in a topic's name.
    pub fn builder(group: impl Into<String>) -> PushConsumerBuilder {
        PushConsumerBuilder::new(group.into())
    }

    pub(super) async fn start(
        builder: PushConsumerBuilder,
        listener: Listener,
    ) -> Result<PushConsumer> {
        let PushConsumerBuilder {
            mut options,
            mut settings,
        } = builder;
        check(&options)?;
        let broadcasting = options.joining.model == MessageModel::Broadcasting;
        if broadcasting && settings.instance_name.is_empty() {
            settings.instance_name = INSTANCE_DEFAULT.to_owned();
        }
        let shown_group = options.joining.group.clone();
        options.joining.group = settings.namespace.wrap(&options.joining.group);
        let subscriptions = subscriptions(&options, &settings);
        let trace = Trace::start(&settings, &shown_group, trace::Kind::Consume).await?;
        let (session, asked) = Session::start(settings).await?;
        let local = match broadcasting {
            true => Some(open_local(&options, &session)?),
            false => None,
        };
        let shared = Arc::new(Shared {
            member: Member {
                session,
                group: options.joining.group.clone(),
                model: options.joining.model,
                kind: ConsumeType::Passively,
                from: options.joining.from.on_the_wire(),
                allocation: options.joining.allocation,
                subscriptions: Mutex::new(subscriptions),
            },
            permits: Arc::new(Semaphore::new(options.concurrency)),
            options,
            listener,
            offsets: Offsets::default(),
            local,
            queues: Mutex::default(),
            leaving: Mutex::default(),
            rebalance: Notify::new(),
            paused: watch::Sender::new(false),
            stopped: AtomicBool::new(false),
            stats: Stats::default(),
            trace,
            giver: tokio::sync::OnceCell::new(),
            started_ms: now_ms(),
        });
        shared.member.find_routes().await?;
        shared.member.check_filters().await?;
        let membership = tokio::spawn(membership::run(shared.clone(), asked));
        Ok(PushConsumer { shared, membership })
    }

    /// The queues that this member reads at the moment: topic, broker, number.
    pub fn queues(&self) -> Vec<(String, String, i32)> {
        let queues = self.shared.queues.lock();
        let namespace = &self.shared.member.session.settings.namespace;
        let named = |queue: &MessageQueue| {
            (
                namespace.unwrap(&queue.topic).into_owned(),
                queue.broker_name.clone(),
                queue.queue_id,
            )
        };
        let mut all: Vec<_> = queues.keys().map(named).collect();
        all.sort();
        all
    }

    /// The id this member is known by in its group.
    pub fn client_id(&self) -> &str {
        &self.shared.member.session.client_id
    }

    /// Pulls nothing more until [`PushConsumer::resume`]; what was pulled is still delivered.
    pub fn pause(&self) {
        self.shared.paused.send_replace(true);
    }

    pub fn resume(&self) {
        self.shared.paused.send_replace(false);
    }

    /// Tells the brokers now how far the group has got; they are told every few seconds anyway.
    pub async fn commit(&self) {
        self.shared.commit(None).await;
        self.shared.member.session.connections.flush().await;
    }

    /// Stops pulling, waits for calls of the listener that are under way, tells the broker how far it has come, and leaves
    /// the group: the others take over at once. What was pulled and not delivered goes to them.
    pub async fn shutdown(&self) {
        if self.shared.stopped.swap(true, Ordering::SeqCst) {
            return;
        }
        self.membership.abort();
        let readers: Vec<_> = self.shared.queues.lock().drain().collect();
        for (_, reader) in &readers {
            reader.pulling.abort();
        }
        self.shared.drain().await;
        for (queue, reader) in &readers {
            let done = reader.open.done();
            self.shared.offsets.reach(queue, done, || false);
            reader.open.give_up();
        }
        self.shared.commit(None).await;
        if self.shared.needs_locks() {
            let queues: Vec<_> = readers.into_iter().map(|(queue, _)| queue).collect();
            super::locks::unlock(&self.shared.member, &queues).await;
        }
        self.shared.member.leave().await;
        if let Some(trace) = &self.shared.trace {
            trace.shutdown().await;
        }
        if let Some(giver) = self.shared.giver.get() {
            giver.shutdown().await;
        }
    }
}

impl Drop for PushConsumer {
    fn drop(&mut self) {
        self.membership.abort();
        self.shared.stopped.store(true, Ordering::SeqCst);
        for reader in self.shared.queues.lock().values() {
            reader.pulling.abort();
            reader.open.give_up();
        }
    }
}

fn check(options: &Options) -> Result<()> {
    let illegal = |error: names::NameError| Error::Illegal(error.to_string());
    names::validate_group(&options.joining.group).map_err(illegal)?;
    for (topic, filter) in &options.joining.subscriptions {
        names::validate_topic(topic).map_err(illegal)?;
        if filter.is_sql() && names::is_retry_topic(topic) {
            return Err(Error::Illegal("a retry topic is not selected from".into()));
        }
    }
    if options.joining.subscriptions.is_empty() {
        return Err(Error::Illegal("nothing is subscribed to".into()));
    }
    Ok(())
}

fn subscriptions(
    options: &Options,
    settings: &Settings,
) -> Vec<protocol::body::heartbeat::SubscriptionData> {
    let version_ms = now_ms();
    let own =
        options.joining.subscriptions.iter().map(|(topic, filter)| {
            filter.subscription(&settings.namespace.wrap(topic), version_ms)
        });
    let mut all: Vec<_> = own.collect();
    if options.joining.model == MessageModel::Clustering {
        let retries = names::retry_topic(&options.joining.group);
        all.push(Filter::all().subscription(&retries, version_ms));
    }
    all
}

fn open_local(options: &Options, session: &Session) -> Result<LocalOffsets> {
    let folder = options.joining.offsets_folder.as_deref();
    LocalOffsets::open(folder, &session.client_id, &options.joining.group)
        .map_err(|error| Error::Illegal(format!("offsets of this machine: {error}")))
}

impl Shared {
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Deliveries before a message becomes a dead letter.
    pub fn reconsume_max(&self) -> i32 {
        let default = match self.listener.is_orderly() {
            true => i32::MAX,
            false => RECONSUME_MAX_DEFAULT,
        };
        self.options.reconsume_max.unwrap_or(default)
    }

    /// A queue of ours is done up to `offset`, unless that is another member's to tell by now: who gives a queue up tells
    /// of its last call, and who has lost its lock tells again once it is back.
    fn reached(&self, queue: &MessageQueue, open: &ProcessQueue, offset: i64) {
        let is_anothers = || open.is_given_up() || self.needs_locks() && !open.is_locked();
        self.offsets.reach(queue, offset, is_anothers);
    }

    /// Waits for calls of the listener that are under way: all permits back means that there is none.
    async fn drain(&self) {
        let all = self.options.concurrency as u32;
        let limit = self.options.drain_limit;
        let idle = tokio::time::timeout(limit, self.permits.acquire_many(all));
        if idle.await.is_err() {
            tracing::warn!("the listener has not finished; what it is at will be delivered again");
        }
    }

    /// Tells how far the group has got, in one queue or in all that have moved.
    pub async fn commit(&self, only: Option<&MessageQueue>) {
        let reached = self.offsets.take(only);
        if let Some(local) = &self.local {
            if let Err(error) = local.keep(reached) {
                tracing::warn!(%error, "offsets were not kept");
            }
            return;
        }
        for (queue, offset) in reached {
            let told: Result<()> = async {
                let connection = self.member.session.connect(&queue, MASTER).await?;
                offsets::commit(&connection, &self.member.group, &queue, offset).await
            }
            .await;
            if let Err(error) = told {
                tracing::debug!(?queue, offset, %error, "not committed yet");
                // What is given up is not told later: by then another member has gone on from where the broker thinks we are.
                let is_anothers = || !self.queues.lock().contains_key(&queue);
                self.offsets.reach(&queue, offset, is_anothers);
            }
        }
    }

    /// The producer that gives messages back.
    async fn giver(&self) -> Result<&Producer> {
        let make = || {
            let settings = Settings {
                trace: false,
                instance_name: String::new(),
                namespace: Default::default(),
                ..self.member.session.settings.clone()
            };
            Producer::inner(INNER_GROUP.to_owned(), settings)
        };
        self.giver.get_or_try_init(make).await
    }
}

#[cfg(test)]
mod tests;
