//! What the cores of a broker say to each other, and what they share.
//!
//! Three mailboxes: shard (acks, frames to deliver, wake-ups), coordinator (requests, offsets, topics to make) and writer
//! (batches to append). None may wait in a circle: a shard's mailbox task never waits for another mailbox, the writer and
//! the coordinator wait for shards only, and connection tasks may wait for anybody. So every wait ends.

use std::net::SocketAddr;
use std::sync::Arc;

use engine::{Batch, QueueNo, Store};
use protocol::body::subscription_group::SubscriptionGroupConfig;
use protocol::body::topic_config::TopicConfig;
use reactor::DetachedSocket;
use reactor::mailbox::{Reply, Sender};

use crate::config::Settings;
use crate::delay::Gauges;
use crate::filter::Filter;
use crate::groups::Forbidden;
use crate::published::Published;
use crate::request_inbox::RequestInbox;
use crate::resets::{self, Place};
use crate::stats::Stats;
use crate::stats::tally::Counted;

/// Batches that wait for the writer. A shard has few open at a time: this bounds bytes, not messages.
pub const WRITER_INBOX_BATCHES_MAX: usize = 64;
/// Requests that wait for the coordinator; connection tasks stop reading their sockets when it is full.
pub const COORDINATOR_INBOX_REQUESTS_MAX: usize = 4096;
/// What waits for a shard. Its mailbox task never waits, so this drains at the shard's own speed.
pub const SHARD_INBOX_ITEMS_MAX: usize = 8192;

/// A connection of this broker, for as long as it lives: a slot is used again under another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    pub shard: u16,
    pub slot: u32,
    pub generation: u32,
}

/// To the shard that owns the connections.
pub enum ToShard {
    /// A batch of this shard, back from the writer with its results filled in.
    Appended(Box<Batch>),
    /// Whole frames (length prefix included) for one connection; dropped silently if it is gone.
    Deliver {
        conn: ConnId,
        frames: Vec<u8>,
        /// It is what a request of this connection has waited for.
        is_answer: bool,
    },
    /// Close this connection once what is queued for it has been sent.
    Close { conn: ConnId },
    /// The queue has grown and somebody of this shard is parked on it.
    Wake(QueueNo),
    /// Messages the broker itself has stored, to be counted: queue and bytes of each.
    Stored(Vec<(QueueNo, u32)>),
    /// An operator has set offsets in this queue.
    Reset(QueueNo),
    /// A new connection, accepted by another core.
    Accepted(DetachedSocket),
    /// No more reading: flush what is queued to every connection, close them all, then answer.
    Stop(Reply<()>),
}

/// To the writer core's task, the only one that appends.
pub enum ToWriter {
    /// Comes back as `ToShard::Appended` to shard `batch.shard`.
    Append(Box<Batch>),
    /// Comes back through the reply: appends of the broker itself (delayed messages, retry copies).
    AppendInternal {
        batch: Box<Batch>,
        reply: Reply<Box<Batch>>,
    },
    /// Nothing comes after this. The writer appends what it has, closes the store, and answers.
    Stop(Reply<std::io::Result<()>>),
}

/// To the coordinator, owner of the tables.
pub enum ToCoordinator {
    /// A request (or a client's answer to a request of ours): the frame without its length prefix.
    Request {
        conn: ConnId,
        peer: SocketAddr,
        frame: Vec<u8>,
    },
    /// Answered once everything that came before it was taken.
    Reached(Reply<()>),
    /// The connection is gone; its groups must know at once.
    Closed {
        conn: ConnId,
    },
    /// Offsets that came along with pulls.
    CommitOffsets(Vec<OffsetCommit>),
    /// What was put and got lately.
    Counted(Box<Counted>),
    /// A consumer was sent to the offset that was set for it, ...
    ResetTold(Place),
    /// ... or has come to it.
    ResetFollowed {
        place: Place,
        offset: i64,
    },
    CreateTopic {
        topic: String,
        kind: CreateTopic,
        peer: SocketAddr,
        reply: Reply<Result<Arc<TopicConfig>, Refusal>>,
    },
    /// A group that is not in the snapshot: made if the settings allow it.
    EnsureGroup {
        group: String,
        reply: Reply<Result<Arc<SubscriptionGroupConfig>, Refusal>>,
    },
    Stop(Reply<()>),
}

/// Why a topic is to be made, which decides by what rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateTopic {
    /// First send to an unknown topic: inherits from `default_topic` (TBW102) as far as that permits.
    BySend {
        default_topic: String,
        queues: u32,
        /// The sender marked its group as belonging to a unit (request field `unitMode`).
        unit_mode: bool,
    },
    /// A group's retry or dead-letter topic: made without a pattern.
    ForGroup {
        queues: u32,
        permission: i32,
        unit_mode: bool,
    },
}

/// A request that was understood and not granted: a response code with its remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: i32,
    pub remark: String,
}

/// One consumer offset, as far as `offset` (exclusive) consumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommit {
    pub group: Arc<str>,
    pub topic: Arc<str>,
    pub queue_id: i32,
    pub offset: i64,
    /// The client it came from, for the log line when it is refused.
    pub peer: SocketAddr,
}

pub type TopicTable = imbl::HashMap<Arc<str>, Arc<TopicConfig>>;
pub type GroupTable = imbl::HashMap<Arc<str>, Arc<SubscriptionGroupConfig>>;
pub type SubscriptionTable = imbl::HashMap<Arc<str>, Arc<GroupSubscriptions>>;

/// What a live group said in its heartbeats, as far as pulls need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSubscriptions {
    pub broadcasting: bool,
    pub topics: imbl::HashMap<Arc<str>, Arc<TopicSubscription>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSubscription {
    /// As the client wrote it, `*` or `a || b` for tags.
    pub expression: String,
    /// `TAG`, `SQL92`, ...
    pub expression_type: String,
    /// The client's `subVersion`: a pull with a newer one is not answered by this subscription.
    pub version: i64,
    pub filter: Filter,
}

/// What every core of the broker holds a copy of.
#[derive(Clone)]
pub struct Shared {
    pub settings: Published<Arc<Settings>>,
    pub store: Arc<Store>,
    /// Changed by the coordinator only, as are the three tables below.
    pub topics: Published<TopicTable>,
    pub groups: Published<GroupTable>,
    /// Renewed with every change of the groups.
    pub forbidden: Published<Arc<Forbidden>>,
    pub subscriptions: Published<SubscriptionTable>,
    /// Groups with a queue lock that has not expired: their retries go to the dead-letter topic at once.
    pub ordered_groups: Published<imbl::HashSet<Arc<str>>>,
    /// Offsets that consumers still have to follow.
    pub resets: Published<resets::Offsets>,
    pub writer: Sender<ToWriter>,
    pub coordinator: Sender<ToCoordinator>,
    /// The same for what connections send, which may be large.
    pub requests: RequestInbox,
    /// By shard number.
    pub shards: Vec<Sender<ToShard>>,
    pub stats: Arc<Stats>,
    pub timers: Arc<Gauges>,
}
