//! Topics that have messages and no entry in the table: made again at the start, unless they were deleted.
//!
//! A power cut can leave the log with messages whose topic was not saved yet. Nobody could read them before somebody made
//! the topic again. But topics that were deleted have messages in the log as well, until these expire: their names are in
//! `orbit/deleted-topics.json`, which is saved with the tables. What RocketMQ has left without a topic stays without one:
//! it saves a topic before it takes messages for it, so there it was deleted.
//!
//! A topic that is deleted and made again begins without messages. Its queues go on counting where they were: an offset
//! never names two messages, and no consumer that was away is ahead of its queue. Where they begin is in the same file,
//! for as long as older messages are in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use engine::{Queue, Store};
use protocol::names::{self, DLQ_PREFIX, LMQ_PREFIX, RETRY_PREFIX};
use protocol::permission::READ_WRITE;
use reactor::fs;
use serde::{Deserialize, Serialize};

use super::Tables;
use crate::topics::topic_config;

pub const DELETED_TOPICS: &str = "deleted-topics.json";

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deleted {
    /// How far the log was RocketMQ's.
    pub rocketmqs_until: u64,
    pub topics: BTreeSet<String>,
    /// By topic and queue: what is in front was deleted with the topic.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub starts: Starts,
}

pub type Starts = BTreeMap<String, BTreeMap<u32, u64>>;

/// Hides again what was deleted, and forgets what has expired meanwhile. Where a power cut has taken more of a queue than was
/// deleted, it begins at its end from now on.
pub fn hide(starts: &mut Starts, store: &Store) {
    starts.retain(|topic, queues| {
        queues.retain(|&id, first| match store.start_queue_at(topic, id, *first) {
            Some(now) => {
                *first = now;
                true
            }
            None => false,
        });
        !queues.is_empty()
    });
}

/// None: nobody has said yet what was deleted. Blocks.
pub fn read(path: &Path) -> Option<Deleted> {
    if !fs::exists(path) {
        return None;
    }
    let read = fs::read(path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
    match read {
        Ok(deleted) => Some(deleted),
        Err(error) => {
            let file = path.display();
            tracing::warn!(%file, %error, "the list of deleted topics is unreadable: topics without an entry stay away");
            None
        }
    }
}

/// Durable when it returns. Blocks.
pub fn write(path: &Path, deleted: &Deleted) -> io::Result<()> {
    fs::replace(path, &serde_json::to_vec(deleted)?)
}

/// For each topic with messages the number of queues it must have had.
pub fn with_messages(queues: &[Arc<Queue>]) -> BTreeMap<String, u32> {
    let mut topics = BTreeMap::new();
    for queue in queues {
        if queue.max_offset() > queue.min_offset() {
            let least = topics.entry(queue.topic().to_owned()).or_default();
            *least = (queue.id() + 1).max(*least);
        }
    }
    topics
}

/// The names that were made again. `saved`: what was deleted as of the last save.
pub fn make_again(
    tables: &mut Tables,
    with_messages: &BTreeMap<String, u32>,
    saved: Option<&Deleted>,
    rocketmqs_until: u64,
    now_ms: i64,
) -> Vec<String> {
    let are_ours = saved.is_some_and(|saved| saved.rocketmqs_until == rocketmqs_until);
    for name in saved.iter().flat_map(|saved| &saved.topics) {
        tables.topics.set_deleted(name);
    }
    tables
        .topics
        .keep_deleted(|name| with_messages.contains_key(name));
    let mut made = Vec::new();
    for (name, &queues) in with_messages {
        let is_known = tables.topics.get(name).is_some() || tables.topics.deleted().contains(name);
        if is_known || !may_be_made(name) {
            continue;
        }
        if !are_ours {
            tracing::info!(topic = name, "messages without a topic are left to expire");
            tables.topics.set_deleted(name);
            continue;
        }
        let queues = least_queues(tables, name).max(i32::try_from(queues).unwrap_or(i32::MAX));
        tracing::warn!(
            topic = name,
            queues,
            "topic made again: it has messages and was not saved"
        );
        tables
            .topics
            .put(topic_config(name, queues, READ_WRITE), now_ms);
        made.push(name.clone());
    }
    made
}

/// System topics come by the settings, and light queues have no entry.
fn may_be_made(name: &str) -> bool {
    !names::is_system_topic(name)
        && !name.starts_with(LMQ_PREFIX)
        && names::validate_topic(name).is_ok()
}

/// What a topic of this kind has at least.
fn least_queues(tables: &Tables, topic: &str) -> i32 {
    let group = topic.strip_prefix(RETRY_PREFIX);
    match group.and_then(|group| tables.groups.get(group)) {
        Some(group) => group.retry_queue_nums,
        None if topic.starts_with(DLQ_PREFIX) => 1,
        None => 0,
    }
}
