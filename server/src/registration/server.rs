//! One name server, as the broker deals with it: connect, register everything, then confirm and tell of changes until the
//! connection ends, and again.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use protocol::body::Body;
use protocol::body::kv_table::KvTable;
use protocol::body::route::{QueueData, TopicRouteData};
use protocol::body::topic_config::DataVersion;
use protocol::code::{request, response};
use protocol::header::namesrv::{KvNamespace, NameserverTopic, RegisterBroker};
use protocol::{Command, Value};
use reactor::{Instant, Notify};

use super::link::{Failure, Link};
use super::pieces::{Pieces, permitted};
use super::{Common, Master, Snapshot};

/// The pause after a failure, doubled with every further one up to the registration period.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// More changed topics than this are a changed table.
const CHANGED_TOPICS_MAX: usize = 1000;
/// Stock name servers before 5.0 do not answer a request they do not know: after this long it counts as unknown.
const SINGLE_TOPIC_TIMEOUT: Duration = Duration::from_secs(3);
/// The name server's namespace of ordered topics (`mqadmin updateOrderConf`).
const ORDERED_TOPICS: &str = "ORDER_TOPIC_CONFIG";
/// How long a stopping broker waits for one name server's answer.
const UNREGISTER_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Server {
    pub(super) addr: String,
    changes: RefCell<Changes>,
    /// For the task that keeps registered: a change, an answer, the end of the connection, the wish to stop.
    wake: Rc<Notify>,
    stopping: Cell<bool>,
    /// It does not know the request for a single topic.
    refuses_single_topics: Cell<bool>,
    was_tried: Cell<bool>,
    was_registered: Cell<bool>,
}

/// What has changed since it was last taken.
#[derive(Debug, Default)]
struct Changes {
    everything: bool,
    /// The table has a new version; these topics of it, possibly none, are new or changed.
    some: bool,
    topics: BTreeSet<String>,
}

impl Changes {
    fn everything() -> Changes {
        Changes {
            everything: true,
            ..Changes::default()
        }
    }
}

impl Server {
    pub(super) fn new(addr: &str) -> Server {
        Server {
            addr: addr.to_owned(),
            changes: RefCell::default(),
            wake: Rc::new(Notify::new()),
            stopping: Cell::new(false),
            refuses_single_topics: Cell::new(false),
            was_tried: Cell::new(false),
            was_registered: Cell::new(false),
        }
    }

    pub(super) fn topics_changed<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut changes = self.changes.borrow_mut();
        if !changes.everything {
            changes.some = true;
            changes.topics.extend(names.map(str::to_owned));
        }
        if changes.topics.len() > CHANGED_TOPICS_MAX {
            *changes = Changes::everything();
        }
        self.wake.notify();
    }

    pub(super) fn everything_changed(&self) {
        *self.changes.borrow_mut() = Changes::everything();
        self.wake.notify();
    }

    pub(super) fn stop(&self) {
        self.stopping.set(true);
        self.wake.notify();
    }

    /// There was a first attempt, whatever came of it.
    pub(super) fn was_tried(&self) -> bool {
        self.was_tried.get()
    }

    pub(super) fn was_registered(&self) -> bool {
        self.was_registered.get()
    }

    /// The task of this name server.
    pub(super) async fn keep_registered(self: Rc<Self>, common: Rc<Common>) {
        let mut pause = PAUSE_MIN;
        let mut failed = false;
        while !self.stopping.get() {
            let mut registered = false;
            match self.session(&common, &mut registered).await {
                Ok(()) => return,
                Err(failure) if failed && !registered => {
                    tracing::debug!(name_server = self.addr, "still not registered: {failure}");
                }
                Err(failure) => {
                    tracing::warn!(name_server = self.addr, "not registered: {failure}")
                }
            }
            if registered {
                pause = PAUSE_MIN;
            }
            failed = true;
            self.note_try(&common);
            self.wait_until(reactor::turn_time() + pause, || self.stopping.get())
                .await;
            pause = (pause * 2).min(common.options.period);
        }
    }

    /// One connection, from its beginning to its end. `Ok` only when the broker stops.
    async fn session(&self, common: &Common, registered: &mut bool) -> Result<(), Failure> {
        let link = Link::open(
            &self.addr,
            common.options.request_timeout,
            self.wake.clone(),
        )
        .await?;
        let talk = Talk {
            server: self,
            link,
            common,
        };
        self.changes.take();
        // It may be another program than the last time.
        self.refuses_single_topics.set(false);
        let mut held = talk.register_everything().await?;
        *registered = true;
        tracing::info!(
            name_server = self.addr,
            broker = common.identity.broker_name,
            "registered"
        );
        self.was_registered.set(true);
        self.note_try(common);

        let mut due = reactor::turn_time() + common.options.period;
        loop {
            self.wait_until(due, || {
                self.stopping.get() || talk.link.is_closed() || self.has_changes()
            })
            .await;
            if self.stopping.get() {
                return talk.unregister().await;
            }
            if talk.link.is_closed() {
                return Err(Failure::Closed);
            }
            let changes = self.changes.take();
            let is_due = reactor::turn_time() >= due;
            if changes.everything || (is_due && common.options.force) {
                held = talk.register_everything().await?;
            } else if changes.some {
                held = talk.register_changed(&changes.topics, held).await?;
            } else if is_due {
                held = talk.confirm(held).await?;
            }
            if is_due {
                due = reactor::turn_time() + common.options.period;
            }
        }
    }

    fn has_changes(&self) -> bool {
        let changes = self.changes.borrow();
        changes.everything || changes.some
    }

    fn note_try(&self, common: &Common) {
        self.was_tried.set(true);
        common.tried.notify();
    }

    /// Returns at the deadline, or earlier once the condition holds.
    async fn wait_until(&self, deadline: Instant, condition: impl Fn() -> bool) {
        while !condition() {
            let left = deadline.saturating_since(reactor::turn_time());
            if left.is_zero() || reactor::timeout(left, self.wake.notified()).await.is_err() {
                return;
            }
        }
    }
}

/// The requests of one connection.
struct Talk<'a> {
    server: &'a Server,
    link: Link,
    common: &'a Common,
}

impl Talk<'_> {
    /// Sends the whole table, in pieces if it is large. Returns the version the name server holds from now on.
    async fn register_everything(&self) -> Result<DataVersion, Failure> {
        let snapshot = (self.common.source)();
        let version = snapshot.version;
        let pieces = Pieces::of(snapshot, self.common.options.piece).await;
        self.register(pieces).await?;
        Ok(version)
    }

    /// Sends the changed topics alone. What was removed needs no word but the new version: name servers are told of
    /// removals by whoever asks for them.
    async fn register_changed(
        &self,
        names: &BTreeSet<String>,
        held: DataVersion,
    ) -> Result<DataVersion, Failure> {
        let snapshot = (self.common.source)();
        let single = self.common.options.single_topic && !self.server.refuses_single_topics.get();
        if single && self.register_each(names, &snapshot).await? {
            // These requests carry no version: the next confirmation finds out and sends everything.
            return Ok(held);
        }
        let topics = names
            .iter()
            .filter_map(|name| snapshot.topics.get(name.as_str()).cloned())
            .collect();
        let pieces = Pieces::of_changed(&snapshot, topics, self.common.options.piece);
        self.register(pieces).await?;
        Ok(snapshot.version)
    }

    async fn register(&self, mut pieces: Pieces) -> Result<(), Failure> {
        loop {
            let piece = pieces.next().await;
            self.register_piece(&piece.body).await?;
            if piece.is_last {
                return Ok(());
            }
        }
    }

    async fn register_piece(&self, body: &[u8]) -> Result<(), Failure> {
        let identity = &self.common.identity;
        let header = RegisterBroker {
            broker_name: Cow::from(&identity.broker_name),
            broker_addr: Cow::from(&identity.broker_addr),
            cluster_name: Cow::from(&identity.cluster),
            ha_server_addr: Some(Cow::from(&identity.ha_addr)),
            broker_id: identity.broker_id,
            heartbeat_timeout_ms: None,
            enable_acting_master: Some(false),
            compressed: Some(false),
            body_crc: Some((crc32fast::hash(body) & 0x7fff_ffff).cast_signed()),
        };
        let answer = self
            .link
            .ask(request::REGISTER_BROKER, &header.fields(), body)
            .await?;
        let answer = accepted(request::REGISTER_BROKER, &answer)?;
        self.note_ordered(answer.body);
        let master = (
            answer.fields.string("masterAddr"),
            answer.fields.string("haServerAddr"),
        );
        if let (Some(addr), Some(ha_addr)) = master {
            let master = Master {
                addr: addr.into_owned(),
                ha_addr: ha_addr.into_owned(),
            };
            *self.common.master.borrow_mut() = Some(master);
        }
        Ok(())
    }

    /// Which topics are ordered, as operators have told the name server. A confirmation's answer does not say it.
    async fn ask_ordered(&self) -> Result<(), Failure> {
        let header = KvNamespace {
            namespace: Cow::Borrowed(ORDERED_TOPICS),
        };
        let code = request::GET_KVLIST_BY_NAMESPACE;
        let answer = self.link.ask(code, &header.fields(), &[]).await?;
        let answer = Command::decode(&answer)?;
        // Anything but success: there are none.
        if answer.code == response::SUCCESS {
            self.note_ordered(answer.body);
        }
        Ok(())
    }

    /// The topics that a table names as ordered; an empty body names none.
    fn note_ordered(&self, table: &[u8]) {
        if table.is_empty() {
            return;
        }
        match KvTable::from_json(table) {
            Ok(table) if table.table.is_empty() => {}
            Ok(table) => (self.common.ordered)(table.table.into_keys().collect()),
            Err(error) => tracing::warn!(
                name_server = self.server.addr,
                "its table of ordered topics cannot be read: {error}"
            ),
        }
    }

    /// One request per topic. False if this name server does not know the request.
    async fn register_each(
        &self,
        names: &BTreeSet<String>,
        snapshot: &Snapshot,
    ) -> Result<bool, Failure> {
        for name in names {
            let Some(topic) = snapshot.topics.get(name.as_str()) else {
                continue;
            };
            let reduced = permitted(topic, snapshot.broker_permission);
            let topic = reduced.as_ref().unwrap_or(topic);
            let queues = QueueData {
                broker_name: self.common.identity.broker_name.clone(),
                perm: topic.perm,
                read_queue_nums: topic.read_queue_nums,
                topic_sys_flag: topic.topic_sys_flag,
                write_queue_nums: topic.write_queue_nums,
            };
            let route = TopicRouteData {
                queue_datas: vec![queues],
                ..TopicRouteData::default()
            };
            let body = serde_json::to_vec(&route).expect("a route is JSON");
            let header = NameserverTopic {
                topic: Cow::from(name),
                cluster_name: None,
            };
            let code = request::REGISTER_TOPIC_IN_NAMESRV;
            let asked = self
                .link
                .ask_within(SINGLE_TOPIC_TIMEOUT, code, &header.fields(), &body)
                .await;
            let is_unknown = match &asked {
                Ok(answer) => Command::decode(answer)?.code == response::REQUEST_CODE_NOT_SUPPORTED,
                Err(failure) => matches!(failure, Failure::Timeout(_)),
            };
            if is_unknown {
                self.server.refuses_single_topics.set(true);
                return Ok(false);
            }
            accepted(code, &asked?)?;
        }
        Ok(true)
    }

    /// Asks whether the name server still holds what it was given, which also tells it that this broker lives.
    async fn confirm(&self, held: DataVersion) -> Result<DataVersion, Failure> {
        self.ask_ordered().await?;
        let version = (self.common.source)().version;
        let body = serde_json::to_vec(&version).expect("three numbers are JSON");
        let answer = self
            .link
            .ask(request::QUERY_DATA_VERSION, &self.broker_fields(), &body)
            .await?;
        let answer = accepted(request::QUERY_DATA_VERSION, &answer)?;
        if held == version
            && answer
                .fields
                .get("changed")
                .is_some_and(|changed| changed.eq_str("false"))
        {
            return Ok(version);
        }
        tracing::info!(
            name_server = self.server.addr,
            "the name server holds another version: registering everything"
        );
        self.register_everything().await
    }

    async fn unregister(&self) -> Result<(), Failure> {
        let fields = self.broker_fields();
        let code = request::UNREGISTER_BROKER;
        let answer = self
            .link
            .ask_within(UNREGISTER_TIMEOUT, code, &fields, &[])
            .await;
        match answer {
            Ok(_) => tracing::info!(name_server = self.server.addr, "unregistered"),
            Err(failure) => tracing::warn!(
                name_server = self.server.addr,
                "not unregistered: {failure}"
            ),
        }
        Ok(())
    }

    fn broker_fields(&self) -> Vec<(&'static str, Value<'_>)> {
        let identity = &self.common.identity;
        vec![
            ("brokerAddr", Value::Str(&identity.broker_addr)),
            ("brokerId", Value::I64(identity.broker_id)),
            ("brokerName", Value::Str(&identity.broker_name)),
            ("clusterName", Value::Str(&identity.cluster)),
        ]
    }
}

/// The answer, if it says success.
fn accepted(request: i32, frame: &[u8]) -> Result<Command<'_>, Failure> {
    let answer = Command::decode(frame)?;
    if answer.code == response::SUCCESS {
        return Ok(answer);
    }
    let remark = answer.remark_str().unwrap_or_default().into_owned();
    Err(Failure::Refused {
        request,
        code: answer.code,
        remark,
    })
}
