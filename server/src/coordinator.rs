//! The coordinator: one task beside shard 0 that owns every table which is not the log.
//!
//! ```text
//! shards ── ToCoordinator ──► run ──► handlers::* ──► tables changed ──► published (all cores read)
//!                              │                           ├──► journal, then tables saved (coordinator/saving.rs)
//!                              ▼                           └──► registration
//!                          Outgoing ── ToShard::Deliver ──► connection
//! ```
//!
//! Topics, groups, offsets, members and queue locks change here and nowhere else. The tables sit in one `RefCell` that is
//! never borrowed across an await.

pub mod calls;
pub mod journal;
mod notices;
mod orphans;
pub mod outgoing;
pub mod rates;
mod resetting;
mod saving;
mod scan;
pub mod state;
mod subscriptions;

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use protocol::Command;
use protocol::body::subscription_group::SubscriptionGroupConfig;
use protocol::body::topic_config::TopicConfig;
use protocol::code::response;
use reactor::mailbox::{self, Receiver, Reply};

use crate::clients::Clients;
use crate::config::Settings;
use crate::delay::Progress;
use crate::groups::Groups;
use crate::handlers::admin::cold::Thresholds;
use crate::handlers::query_key::Turns;
use crate::handlers::{self, Answer, Caller};
use crate::messages::{CreateTopic, Refusal, Shared, ToCoordinator};
use crate::offsets::Offsets;
use crate::pop::Pop;
use crate::queue_locks::QueueLocks;
use crate::registration::Registration;
use crate::resets::Resets;
use crate::static_topics::StaticTopics;
use crate::stats::figures::Figures;
use crate::topics::{Created, Topics};
use crate::transaction;
pub use saving::{group_table, topic_table};

use calls::Calls;
use journal::{Entry, Journal};
use notices::Notices;
use outgoing::Outgoing;
use rates::Rates;

/// Requests taken from the mailbox before what they lead to is sent off.
const REQUESTS_PER_TURN_MAX: usize = 64;

/// Everything the coordinator owns.
#[derive(Debug)]
pub struct Tables {
    pub topics: Topics,
    pub groups: Groups,
    pub offsets: Offsets,
    pub clients: Clients,
    pub locks: QueueLocks,
    pub resets: Resets,
    /// Of topics that were deleted while they had messages.
    pub starts: orphans::Starts,
}

/// Lives on the core of shard 0.
pub struct Coordinator {
    pub shared: Shared,
    pub outgoing: Outgoing,
    pub calls: Calls,
    pub rates: Rates,
    pub figures: Figures,
    pub cold_thresholds: Thresholds,
    pub static_topics: StaticTopics,
    /// Of the delayed messages, for those who ask.
    pub delay: Rc<Progress>,
    pub key_queries: Turns,
    pub pop: Pop,
    pub transactions: Rc<transaction::Inbox>,
    pub booted_ms: i64,
    /// Reads the tables through this coordinator, so it is not this coordinator's to keep.
    registration: RefCell<Weak<Registration>>,
    tables: RefCell<Tables>,
    notices: Notices,
    journal: Journal,
    unsaved: saving::Unsaved,
    delay_held: saving::HeldDelay,
    config_dir: PathBuf,
    deleted: saving::DeletedTopics,
    /// Where a change of the settings is written back to.
    config_file: Option<PathBuf>,
    /// Every member is about to be closed: telling the others would only start rebalances.
    members_vanish: Cell<bool>,
    stopped: Cell<bool>,
}

impl Coordinator {
    /// Takes over what `state` has loaded and starts the tasks. Requests are handled from here on.
    pub fn start(
        shared: Shared,
        loaded: state::Loaded,
        delay: Rc<Progress>,
        config_file: Option<PathBuf>,
        inbox: Receiver<ToCoordinator>,
    ) -> Rc<Self> {
        let coordinator = Rc::new(Self {
            outgoing: Outgoing::new(shared.shards.clone()),
            calls: Calls::default(),
            rates: Rates::new(reactor::wall_ms(), reactor::local_hour(reactor::wall_ms())),
            figures: Figures::new(&shared.settings.load().cluster_name, now_s()),
            delay,
            key_queries: Turns::default(),
            pop: Pop::new(&shared.store),
            transactions: Rc::default(),
            booted_ms: reactor::wall_ms(),
            cold_thresholds: Thresholds::default(),
            static_topics: StaticTopics::load(&loaded.config_dir),
            registration: RefCell::new(Weak::new()),
            tables: RefCell::new(loaded.tables),
            notices: Notices::default(),
            journal: loaded.journal,
            unsaved: saving::Unsaved::default(),
            delay_held: saving::HeldDelay::default(),
            config_dir: loaded.config_dir,
            deleted: loaded.deleted,
            config_file,
            members_vanish: Cell::new(false),
            stopped: Cell::new(false),
            shared,
        });
        if loaded.replayed || !loaded.made_again.is_empty() {
            coordinator.unsaved.mark();
        }
        coordinator.journal_made_again(&loaded.made_again);
        reactor::spawn("coordinator", Rc::clone(&coordinator).run(inbox));
        reactor::spawn("journal", coordinator.journal.clone().writing());
        reactor::spawn("sync journal", coordinator.journal.clone().syncing());
        reactor::spawn("save tables", saving::tables(Rc::clone(&coordinator)));
        reactor::spawn("save offsets", saving::offsets(Rc::clone(&coordinator)));
        reactor::spawn("client scan", scan::run(Rc::clone(&coordinator)));
        reactor::spawn("group notices", notices::run(Rc::clone(&coordinator)));
        reactor::spawn("rates", rates::run(Rc::clone(&coordinator)));
        coordinator
    }

    fn journal_made_again(&self, names: &[String]) {
        let tables = self.tables();
        let configs = names.iter().filter_map(|name| tables.topics.get(name));
        for config in configs {
            self.journal_entry(&Entry::Topic((**config).clone()));
        }
    }

    /// From here on changes of topics are told to the name servers.
    pub fn set_registration(&self, registration: &Rc<Registration>) {
        *self.registration.borrow_mut() = Rc::downgrade(registration);
    }

    pub fn tables(&self) -> RefMut<'_, Tables> {
        self.tables.borrow_mut()
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.shared.settings.load()
    }

    async fn run(self: Rc<Self>, mut inbox: Receiver<ToCoordinator>) {
        let mut waiting = Vec::with_capacity(REQUESTS_PER_TURN_MAX);
        while inbox.recv_many(&mut waiting, REQUESTS_PER_TURN_MAX).await > 0 {
            for message in waiting.drain(..) {
                self.take(message).await;
            }
            self.outgoing.send_all().await;
        }
    }

    async fn take(self: &Rc<Self>, message: ToCoordinator) {
        match message {
            ToCoordinator::Request { conn, peer, frame } => {
                self.shared.requests.taken(frame.len());
                self.request(Caller { conn, peer }, &frame);
            }
            ToCoordinator::Reached(reply) => reply.send(()),
            ToCoordinator::Closed { conn } => {
                self.pop.parked.closed(conn);
                self.calls.gone(conn);
                let left = self.tables().clients.connection_closed(conn);
                self.groups_lost_a_member(&left);
            }
            ToCoordinator::ResetTold(place) => self.reset_told(place),
            ToCoordinator::ResetFollowed { place, offset } => {
                self.reset_followed(&place, offset);
            }
            ToCoordinator::CommitOffsets(commits) => self.commit_offsets(&commits),
            ToCoordinator::Counted(counted) => {
                self.disable_slow_readers(&counted);
                self.figures.take(*counted, &self.shared.store, now_s());
            }
            ToCoordinator::CreateTopic {
                topic,
                kind,
                peer,
                reply,
            } => {
                tracing::debug!(topic, %peer, ?kind, "topic asked for");
                let created = self.create_topic(&topic, &kind);
                self.reply_when_kept(created, reply);
            }
            ToCoordinator::EnsureGroup { group, reply } => {
                let ensured = self.ensure_group(&group);
                self.reply_when_tried(ensured, reply);
            }
            ToCoordinator::Stop(reply) => {
                self.stop().await;
                reply.send(());
            }
        }
    }

    fn request(self: &Rc<Self>, caller: Caller, frame: &[u8]) {
        let peer = caller.peer;
        match Command::decode(frame) {
            Ok(command) if !command.is_response() => handlers::handle(self, caller, &command),
            Ok(command) if self.calls.answered(caller.conn, &command) => {}
            Ok(command) => {
                tracing::debug!(%peer, opaque = command.opaque, "answer to nothing that was asked");
            }
            Err(error) => tracing::warn!(%peer, %error, "undecodable request dropped"),
        }
    }

    /// Changes nothing any more and leaves everything saved.
    async fn stop(self: &Rc<Self>) {
        self.pop.stop(self).await;
        self.stopped.set(true);
        self.outgoing.send_all().await;
        saving::everything(self).await;
    }

    /// Once the log is closed, and only if that went well.
    pub async fn log_is_closed(&self) {
        self.pop.log_is_closed(self);
        saving::save_offsets(self).await;
        saving::delay_at_last(self).await;
    }

    pub fn config_file(&self) -> Option<PathBuf> {
        self.config_file.clone()
    }

    /// The broker is stopping.
    pub fn members_may_vanish(&self) {
        self.members_vanish.set(true);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// The topic as it is now, and whether it was made by this.
    pub fn create_topic(
        &self,
        topic: &str,
        kind: &CreateTopic,
    ) -> Result<Made<TopicConfig>, Refusal> {
        let now_ms = reactor::wall_ms();
        let created = match kind {
            CreateTopic::BySend {
                default_topic,
                queues,
                unit_mode,
            } => {
                let settings = self.settings();
                let topics = &mut self.tables().topics;
                topics.create_by_send(&settings, topic, default_topic, *queues, *unit_mode, now_ms)
            }
            CreateTopic::ForGroup {
                queues,
                permission,
                unit_mode,
            } => {
                let topics = &mut self.tables().topics;
                Ok(topics.create_for_group(topic, *queues, *permission, None, *unit_mode, now_ms))
            }
        };
        Ok(self.keep_created(created?))
    }

    /// Publishes, journals and registers what was made.
    pub fn keep_created(&self, created: Created) -> Made<TopicConfig> {
        match created {
            Created::Existed(config) => Made {
                value: config,
                is_new: false,
            },
            Created::New(config) => {
                tracing::info!(
                    topic = config.topic_name,
                    queues = config.write_queue_nums,
                    perm = config.perm,
                    "topic made or changed"
                );
                self.topics_changed(vec![Arc::clone(&config)]);
                Made {
                    value: config,
                    is_new: true,
                }
            }
        }
    }

    /// To be called after every change of the topic table, with no await between this and the line in the journal: with
    /// SYNC_FLUSH nobody sends to a topic that a power cut could take away.
    pub fn topics_changed(&self, changed: Vec<Arc<TopicConfig>>) {
        let snapshot = self.tables().topics.snapshot();
        let topics = self.shared.topics.clone();
        let registration = self.registration.borrow().upgrade();
        self.unsaved.mark();
        self.journal.then(move || {
            topics.publish(snapshot);
            if let Some(registration) = registration {
                registration.topics_changed(changed);
            }
        });
    }

    /// These topics are ordered, a name server says. What is not here is passed over: it says so again.
    pub fn make_ordered(&self, names: &[String]) {
        let now_ms = reactor::wall_ms();
        let mut changed = Vec::new();
        {
            let mut tables = self.tables();
            for name in names {
                let Some(config) = tables.topics.get(name).filter(|config| !config.order) else {
                    continue;
                };
                tracing::info!(topic = name, "ordered from now on, as the name server says");
                let config = TopicConfig {
                    order: true,
                    ..(**config).clone()
                };
                changed.push(tables.topics.put(config, now_ms));
            }
        }
        if !changed.is_empty() {
            self.topics_changed(changed);
        }
    }

    /// Something that travels with every registration has changed.
    pub fn register_again(&self) {
        self.tables().topics.touch(reactor::wall_ms());
        self.unsaved.mark();
        if let Some(registration) = self.registration.borrow().upgrade() {
            registration.register_all();
        }
    }

    pub fn ensure_group(&self, group: &str) -> Result<Made<SubscriptionGroupConfig>, Refusal> {
        let settings = self.settings();
        let ensured = self
            .tables()
            .groups
            .ensure(&settings, group, reactor::wall_ms());
        let (value, is_new) = ensured?;
        if is_new {
            tracing::info!(group, "consumer group made");
            self.groups_changed();
        }
        Ok(Made { value, is_new })
    }

    /// To be called after every change of the group table.
    pub fn groups_changed(&self) {
        let (snapshot, forbidden) = {
            let groups = &self.tables().groups;
            (groups.snapshot(), Arc::clone(groups.forbidden()))
        };
        // Who sees the new groups sees what is forbidden to them.
        self.shared.forbidden.publish(forbidden);
        self.shared.groups.publish(snapshot);
        self.unsaved.mark();
    }

    /// Nobody is shown the messages of a topic that is gone, whoever makes one of that name again. What is to be kept.
    pub fn hide_messages(&self, topic: String) -> Entry {
        let starts = self.shared.store.hide_messages(&topic);
        let mut tables = self.tables();
        tables.starts.insert(topic.clone(), starts.clone());
        Entry::TopicEmptied { topic, starts }
    }

    pub fn locks_changed(&self) {
        let groups = self.tables().locks.ordered_groups(now_ms());
        if groups != self.shared.ordered_groups.load() {
            self.shared.ordered_groups.publish(groups);
        }
    }

    /// For changes nobody waits for.
    pub fn journal_entry(&self, entry: &Entry) {
        drop(self.journal.append(entry));
    }

    /// Resolves once killing the process can no longer undo the change; with SYNC_FLUSH, once a power cut cannot.
    pub fn kept(&self, entry: &Entry) -> impl Future<Output = Result<(), Refusal>> + use<> {
        Self::written(self.journal.append(entry))
    }

    async fn written(line: mailbox::Answer<io::Result<()>>) -> Result<(), Refusal> {
        let problem = match line.await {
            Some(Ok(())) => return Ok(()),
            Some(Err(error)) => error.to_string(),
            None => "the broker is stopping".to_owned(),
        };
        Err(Refusal {
            code: response::SYSTEM_ERROR,
            remark: format!("the change is in effect but could not be saved: {problem}"),
        })
    }

    fn reply_when_kept(
        &self,
        made: Result<Made<TopicConfig>, Refusal>,
        reply: Reply<Result<Arc<TopicConfig>, Refusal>>,
    ) {
        match made {
            Ok(made) if made.is_new => {
                // Queued here, behind nothing but the change itself.
                let kept = self.kept(&Entry::Topic((*made.value).clone()));
                reactor::spawn("keep", async move {
                    reply.send(kept.await.map(|()| made.value));
                });
            }
            // Somebody else's line may be on its way: the topic is shown when that is written.
            Ok(made) => self.journal.then(move || reply.send(Ok(made.value))),
            Err(refusal) => reply.send(Err(refusal)),
        }
    }

    /// Groups are made by those who read: reading goes on when the disk takes nothing any more, and the journal tries again.
    fn reply_when_tried(
        &self,
        ensured: Result<Made<SubscriptionGroupConfig>, Refusal>,
        reply: Reply<Result<Arc<SubscriptionGroupConfig>, Refusal>>,
    ) {
        match ensured {
            Ok(made) if made.is_new => {
                let tried = self.journal.append(&Entry::Group((*made.value).clone()));
                reactor::spawn("try to keep", async move {
                    tried.await;
                    reply.send(Ok(made.value));
                });
            }
            Ok(made) => reply.send(Ok(made.value)),
            Err(refusal) => reply.send(Err(refusal)),
        }
    }

    /// Queues an answer; `outgoing.send_all` sends it off.
    pub fn answer(&self, caller: Caller, asked: protocol::Asked, answer: &Answer) {
        let mut frame = Vec::with_capacity(answer.body.len() + 256);
        answer.write(&mut frame, asked);
        self.outgoing.answer(caller.conn, frame);
    }
}

/// A table's entry, and whether this call made it.
#[derive(Clone, Debug)]
pub struct Made<T> {
    pub value: Arc<T>,
    pub is_new: bool,
}

/// Seconds of the clock that never jumps.
pub fn now_s() -> u64 {
    now_ms() / 1000
}

/// Milliseconds of the clock that never jumps.
pub fn now_ms() -> u64 {
    reactor::turn_time().as_nanos() / 1_000_000
}
