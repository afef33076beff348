//! Where topics and groups stand, queue by queue.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use engine::{QueueOffset, Store};
use protocol::Command;
use protocol::body::Body;
use protocol::body::lists::GroupList;
use protocol::body::queue::MessageQueue;
use protocol::body::stats::{ConsumeStats, GroupOffset, TopicOffset, TopicStats};
use protocol::code::response;
use protocol::header::topic::{ConsumeStatsQuery, Topic};
use protocol::json::Dialect;

use crate::coordinator::{Coordinator, Tables, now_s};
use crate::handlers::{Answer, Handled, Reply, refuse};
use crate::pop::Progress;

/// 202
pub fn of_topic(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let topic = Topic::from(command)?.topic.into_owned();
    let queues = {
        let tables = coordinator.tables();
        let config = tables.topics.get(&topic).ok_or_else(|| {
            refuse(
                response::TOPIC_NOT_EXIST,
                format!("topic[{topic}] not exist"),
            )
        })?;
        config.read_queue_nums.max(config.write_queue_nums)
    };
    let broker_name = coordinator.settings().broker_name.clone();
    let store = Arc::clone(&coordinator.shared.store);
    let topic_put_tps = coordinator.figures.put_rate(&topic, now_s());
    Ok(Reply::later(async move {
        let mut offsets = BTreeMap::new();
        for queue_id in 0..queues {
            let queue = MessageQueue {
                broker_name: broker_name.clone(),
                queue_id,
                topic: topic.clone(),
            };
            let (min, max) = ends(&store, &queue);
            let offset = TopicOffset {
                last_update_timestamp: time_before(&store, &queue, max).await,
                max_offset: max,
                min_offset: min,
            };
            offsets.insert(queue, offset);
        }
        let stats = TopicStats {
            offsets,
            topic_put_tps,
        };
        Answer::with_body(stats.to_json())
    }))
}

/// 208
pub fn of_group(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = ConsumeStatsQuery::from(command)?;
    let broker_name = coordinator.settings().broker_name.clone();
    let (mut queues, mut consume_tps) = (Vec::new(), 0.0);
    {
        let tables = coordinator.tables();
        for topic in topics_asked(&tables, &header) {
            let Some(config) = tables.topics.get(&topic) else {
                continue;
            };
            let group = &header.consumer_group;
            consume_tps += coordinator.figures.get_rate(group, &topic, now_s());
            for queue_id in 0..config.read_queue_nums {
                let offset = tables.offsets.get(&header.consumer_group, &topic, queue_id);
                let queue = MessageQueue {
                    broker_name: broker_name.clone(),
                    queue_id,
                    topic: topic.clone(),
                };
                let consumed = offset.unwrap_or(0).max(0);
                queues.push((
                    queue,
                    popped(coordinator, group, &topic, queue_id, consumed),
                ));
            }
        }
    }
    let store = Arc::clone(&coordinator.shared.store);
    Ok(Reply::later(async move {
        let mut offsets = BTreeMap::new();
        for (queue, (consumed, pulled)) in queues {
            let (_, max) = ends(&store, &queue);
            let offset = GroupOffset {
                broker_offset: max,
                consumer_offset: consumed,
                last_timestamp: time_before(&store, &queue, consumed).await,
                pull_offset: pulled,
            };
            offsets.insert(queue, offset);
        }
        let stats = ConsumeStats {
            offsets,
            consume_tps,
        };
        Answer::with_body(stats.to_json())
    }))
}

/// How many messages a group is done with, and how many it has got. One that pops is done with some behind others.
fn popped(
    coordinator: &Coordinator,
    group: &str,
    topic: &str,
    queue_id: i32,
    consumed: i64,
) -> (i64, i64) {
    let id = u32::try_from(queue_id).unwrap_or(0);
    match coordinator.pop.progress(group, topic, id) {
        Some(Progress { next, unacked }) => {
            let next = i64::try_from(next).unwrap_or(i64::MAX);
            (next - i64::try_from(unacked).unwrap_or(0), next)
        }
        None => {
            let pulled = coordinator.figures.pulled(group, topic, id).unwrap_or(0);
            let pulled = i64::try_from(pulled).unwrap_or(i64::MAX);
            (consumed, pulled.max(consumed))
        }
    }
}

/// Those named; else those the group has offsets in, as far as it still subscribes to them.
fn topics_asked(tables: &Tables, header: &ConsumeStatsQuery<'_>) -> Vec<String> {
    let named = header.topic_list.as_deref().unwrap_or_default();
    let named: Vec<String> = named
        .split(';')
        .map(str::trim)
        .filter(|topic| !topic.is_empty())
        .map(str::to_owned)
        .collect();
    if !named.is_empty() {
        return named;
    }
    let mut topics = match header.topic.as_deref().map(str::trim) {
        Some(topic) if !topic.is_empty() => vec![topic.to_owned()],
        _ => tables.offsets.topics_of_group(&header.consumer_group),
    };
    if let Some(live) = tables.clients.consumer_group(&header.consumer_group)
        && !live.subscriptions.is_empty()
    {
        topics.retain(|topic| live.subscriptions.contains_key(topic));
    }
    topics
}

/// 300: groups that have read a topic, or do now.
pub fn groups_of_topic(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let topic = Topic::from(command)?.topic;
    let tables = coordinator.tables();
    let mut group_list = tables.clients.groups_of_topic(&topic);
    group_list.extend(tables.offsets.groups_of_topic(&topic));
    group_list.sort_unstable();
    group_list.dedup();
    let list = GroupList { group_list };
    Ok(Answer::with_body(list.to_json(Dialect::Fastjson1)).into())
}

pub(super) fn ends(store: &Store, queue: &MessageQueue) -> (i64, i64) {
    let found = u32::try_from(queue.queue_id)
        .ok()
        .and_then(|id| store.find_queue(&queue.topic, id));
    let offset = |offset: u64| i64::try_from(offset).unwrap_or(i64::MAX);
    found.map_or((0, 0), |queue| {
        (offset(queue.min_offset()), offset(queue.max_offset()))
    })
}

/// When the message in front of `end` was stored; 0 if there is none.
pub(super) async fn time_before(store: &Arc<Store>, queue: &MessageQueue, end: i64) -> i64 {
    let (Ok(id), Ok(last)) = (u32::try_from(queue.queue_id), u64::try_from(end - 1)) else {
        return 0;
    };
    let Some(queue) = store.find_queue(&queue.topic, id) else {
        return 0;
    };
    match store.store_time(&queue, QueueOffset(last)).await {
        Ok(time) => time.unwrap_or(0),
        Err(error) => {
            tracing::warn!(%error, "the time of a message cannot be read");
            0
        }
    }
}
