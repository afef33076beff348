//! What push and lite pull consumers have in common: the group they join, what it subscribes to, and where it begins. The
//! settings bear RocketMQ's names.

use std::path::PathBuf;
use std::time::Duration;

use protocol::body::heartbeat::{ConsumeFromWhere, MessageModel};

use super::Allocation;
use crate::error::Result;
use crate::filter::Filter;
use crate::message_id::now_ms;
use crate::settings::{millis, positive, wrong};

/// How far back `CONSUME_FROM_TIMESTAMP` goes without a `consumeTimestamp`.
const TIMESTAMP_DEFAULT_MS: i64 = 30 * 60 * 1000;

/// Where a group begins that has no offset in a queue yet. Retried messages are never skipped. A broker may answer
/// for a new group by itself: at the start of a queue that still holds everything it ever had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsumeFrom {
    /// `CONSUME_FROM_FIRST_OFFSET`: with the oldest message.
    First,
    /// `CONSUME_FROM_LAST_OFFSET`: with what comes from now on.
    #[default]
    Last,
    /// `CONSUME_FROM_TIMESTAMP`: with the first message stored at or after a time, in milliseconds since 1970.
    Timestamp(i64),
}

impl ConsumeFrom {
    pub(crate) fn on_the_wire(self) -> ConsumeFromWhere {
        match self {
            ConsumeFrom::First => ConsumeFromWhere::FirstOffset,
            ConsumeFrom::Last => ConsumeFromWhere::LastOffset,
            ConsumeFrom::Timestamp(_) => ConsumeFromWhere::Timestamp,
        }
    }
}

/// The settings that every member of a group has.
pub(crate) struct Joining {
    pub group: String,
    pub subscriptions: Vec<(String, Filter)>,
    pub model: MessageModel,
    pub from: ConsumeFrom,
    pub allocation: Allocation,
    pub rebalance_interval: Duration,
    pub commit_interval: Duration,
    pub pull_messages: i32,
    pub pull_pause: Duration,
    pub queue_messages_max: usize,
    pub offsets_folder: Option<PathBuf>,
}

impl Joining {
    pub fn new(group: String, pull_messages: i32) -> Joining {
        Joining {
            group,
            subscriptions: Vec::new(),
            model: MessageModel::Clustering,
            from: ConsumeFrom::Last,
            allocation: Allocation::Averagely,
            rebalance_interval: Duration::from_secs(20),
            commit_interval: Duration::from_secs(5),
            pull_messages,
            pull_pause: Duration::from_secs(1),
            queue_messages_max: 1_000,
            offsets_folder: None,
        }
    }

    pub fn subscribe(&mut self, topic: String, filter: Filter) {
        self.subscriptions.retain(|(known, _)| *known != topic);
        self.subscriptions.push((topic, filter));
    }

    /// False if it is none of these.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool> {
        match name {
            "consumerGroup" => self.group = value.to_owned(),
            "consumeFromWhere" => self.from = from(name, value)?,
            "consumeTimestamp" => self.from = ConsumeFrom::Timestamp(timestamp(name, value)?),
            "pullTimeDelayMillsWhenException" => self.pull_pause = millis(name, value)?,
            "pullThresholdForQueue" => self.queue_messages_max = positive(name, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The methods of a builder that set these; it has them in `options.joining`.
macro_rules! joining_settings {
    () => {
        /// A topic and what is wanted of it: a string is an expression over tags, `*` for all; see
        /// [`Filter`](crate::Filter). All members of a group must subscribe to the same.
        pub fn subscribe(
            mut self,
            topic: impl Into<String>,
            filter: impl Into<crate::filter::Filter>,
        ) -> Self {
            let joining = &mut self.options.joining;
            joining.subscribe(topic.into(), filter.into());
            self
        }

        /// `messageModel`: every member gets every message; nothing is delivered again. How far a member has got is
        /// kept in a file, under its `instanceName`: `DEFAULT` unless said otherwise. Without this, the members of a
        /// group share the messages.
        pub fn broadcasting(mut self) -> Self {
            self.options.joining.model = protocol::body::heartbeat::MessageModel::Broadcasting;
            self
        }

        /// `consumeFromWhere`: where a group begins that has no offset yet; with what comes from now on unless said
        /// otherwise.
        pub fn consume_from(mut self, from: crate::consumer::ConsumeFrom) -> Self {
            self.options.joining.from = from;
            self
        }

        /// Begin at the first message where the group has no offset yet.
        pub fn from_first(self) -> Self {
            self.consume_from(crate::consumer::ConsumeFrom::First)
        }

        /// `rocketmq.client.localOffsetStoreDir`: where a broadcasting consumer keeps its offsets;
        /// `~/.rocketmq_offsets` unless said otherwise.
        pub fn offsets_folder(mut self, folder: impl Into<std::path::PathBuf>) -> Self {
            self.options.joining.offsets_folder = Some(folder.into());
            self
        }
    };
}
pub(crate) use joining_settings;

fn from(name: &str, value: &str) -> Result<ConsumeFrom> {
    match value {
        "CONSUME_FROM_FIRST_OFFSET" => Ok(ConsumeFrom::First),
        "CONSUME_FROM_LAST_OFFSET" => Ok(ConsumeFrom::Last),
        "CONSUME_FROM_TIMESTAMP" => Ok(ConsumeFrom::Timestamp(now_ms() - TIMESTAMP_DEFAULT_MS)),
        _ => Err(wrong(
            name,
            "CONSUME_FROM_FIRST_OFFSET, CONSUME_FROM_LAST_OFFSET or CONSUME_FROM_TIMESTAMP",
        )),
    }
}

fn timestamp(name: &str, value: &str) -> Result<i64> {
    crate::time::parse_ms(value).ok_or_else(|| wrong(name, "yyyyMMddHHmmss or milliseconds"))
}
