//! How far groups are: all of a broker, in time, and against each other.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use engine::Store;
use protocol::Command;
use protocol::body::Body;
use protocol::body::figures::{
    ConsumeStatsList, ConsumeTimeSpans, CorrectionOffsets, GroupSubscription, QueueTimeSpan,
};
use protocol::body::lists::TopicList;
use protocol::body::queue::MessageQueue;
use protocol::body::stats::{ConsumeStats, GroupOffset};
use protocol::code::response;
use protocol::frame::FRAME_BYTES_MAX;
use protocol::header::admin::{CorrectionQuery, GroupInTopic};
use protocol::header::topic::Group;
use protocol::json::Dialect;

use super::stats::{ends, time_before};
use crate::coordinator::{self, Coordinator};
use crate::handlers::{Answer, Handled, Reply, refuse};

/// The answer's header has room beside a body of this size.
const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - (64 << 10);

/// A group in a topic, with its offsets as they are now.
struct Position {
    topic: String,
    queues: i32,
    offsets: Arc<BTreeMap<i32, i64>>,
    tps: f64,
}

/// 317: `mqadmin brokerConsumeStats`.
pub fn of_broker(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let ordered_only = command.fields.string("isOrder").as_deref() == Some("true");
    let groups = positions(coordinator, ordered_only);
    let settings = coordinator.settings();
    let store = Arc::clone(&coordinator.shared.store);
    Ok(Reply::later(async move {
        let mut list = ConsumeStatsList {
            broker_addr: settings.registered(),
            ..ConsumeStatsList::default()
        };
        for (group, positions) in groups {
            let mut topics = Vec::with_capacity(positions.len());
            for position in positions {
                let stats = stats(&store, &settings.broker_name, &position).await;
                let behind = |offset: &GroupOffset| offset.broker_offset - offset.consumer_offset;
                list.total_diff += stats.offsets.values().map(behind).sum::<i64>();
                topics.push(stats);
            }
            list.groups.push((group, topics));
            reactor::yield_now().await;
        }
        let body = reactor::offload("consume stats", move || list.to_json()).await;
        if body.len() > BODY_BYTES_MAX {
            let remark = "too much for one answer: ask group by group (consumerProgress -g)";
            return Answer::code(response::SYSTEM_ERROR, remark);
        }
        Answer::with_body(body)
    }))
}

/// Every group with the topics it has offsets in, as far as it still subscribes to them.
fn positions(coordinator: &Coordinator, ordered_only: bool) -> BTreeMap<String, Vec<Position>> {
    let now_s = coordinator::now_s();
    let tables = coordinator.tables();
    let groups = tables.groups.snapshot();
    let mut found: BTreeMap<String, Vec<Position>> = groups
        .keys()
        .map(|name| (name.to_string(), Vec::new()))
        .collect();
    tables.offsets.for_each(|topic, group, offsets| {
        let (Some(config), Some(positions)) = (tables.topics.get(topic), found.get_mut(group))
        else {
            return;
        };
        let live = tables.clients.consumer_group(group);
        let left = live.is_some_and(|live| {
            !live.subscriptions.is_empty() && !live.subscriptions.contains_key(topic)
        });
        if left || (ordered_only && !config.order) {
            return;
        }
        positions.push(Position {
            topic: topic.to_owned(),
            queues: config.write_queue_nums,
            offsets: Arc::clone(offsets),
            tps: coordinator.figures.get_rate(group, topic, now_s),
        });
    });
    found
}

async fn stats(store: &Arc<Store>, broker_name: &str, position: &Position) -> ConsumeStats {
    let mut offsets = BTreeMap::new();
    for queue_id in 0..position.queues {
        let queue = message_queue(broker_name, &position.topic, queue_id);
        let consumed = position.offsets.get(&queue_id).copied();
        let consumed = consumed.unwrap_or(0).max(0);
        let (_, max) = ends(store, &queue);
        let offset = GroupOffset {
            broker_offset: max,
            consumer_offset: consumed,
            last_timestamp: time_before(store, &queue, consumed).await,
            pull_offset: consumed,
        };
        offsets.insert(queue, offset);
    }
    ConsumeStats {
        consume_tps: position.tps,
        offsets,
    }
}

/// 303
pub fn time_spans(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = GroupInTopic::from(command)?;
    let topic = header.topic.into_owned();
    let broker_name = coordinator.settings().broker_name.clone();
    let tables = coordinator.tables();
    let config = tables.topics.get(&topic).ok_or_else(|| {
        let remark = format!("topic[{topic}] not exist");
        refuse(response::TOPIC_NOT_EXIST, remark)
    })?;
    let consumed = |queue_id| tables.offsets.get(&header.group, &topic, queue_id);
    let queues: Vec<(MessageQueue, i64)> = (0..config.write_queue_nums)
        .map(|queue_id| {
            let consumed = consumed(queue_id).unwrap_or(-1);
            (message_queue(&broker_name, &topic, queue_id), consumed)
        })
        .collect();
    let store = Arc::clone(&coordinator.shared.store);
    Ok(Reply::later(async move {
        let now_ms = reactor::wall_ms();
        let mut spans = ConsumeTimeSpans::default();
        for (queue, consumed) in queues {
            let span = time_span(&store, queue, consumed, now_ms).await;
            spans.consume_time_span_set.push(span);
        }
        Answer::with_body(spans.to_json(Dialect::Fastjson1))
    }))
}

async fn time_span(
    store: &Arc<Store>,
    queue: MessageQueue,
    consumed: i64,
    now_ms: i64,
) -> QueueTimeSpan {
    let (min, max) = ends(store, &queue);
    let oldest = match max > min {
        true => time_before(store, &queue, min + 1).await,
        false => -1,
    };
    let newest = match max > 0 {
        true => time_before(store, &queue, max).await,
        false => -1,
    };
    let reached = match consumed > 0 {
        true => time_before(store, &queue, consumed).await,
        false => oldest,
    };
    let next = consumed.max(min);
    let delay_time = match next < max {
        true => now_ms - time_before(store, &queue, next + 1).await,
        false => 0,
    };
    QueueTimeSpan {
        consume_time_stamp: reached,
        delay_time,
        max_time_stamp: newest,
        message_queue: queue,
        min_time_stamp: oldest,
    }
}

/// 308: the lowest offset of all groups in each queue, and "far away" where the group asked about is behind it. Groups to be
/// left out are left out of the answer; RocketMQ deletes their offsets, which a question must not do.
pub fn correction(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = CorrectionQuery::from(command)?;
    let topic = &*header.topic;
    let left_out = header.filter_groups.as_deref().unwrap_or_default();
    let left_out: Vec<&str> = left_out.split(',').map(str::trim).collect();
    let store = &coordinator.shared.store;
    let mut lowest: BTreeMap<i32, i64> = BTreeMap::new();
    let tables = coordinator.tables();
    tables.offsets.for_each(|about, group, offsets| {
        if about != topic || left_out.contains(&group) {
            return;
        }
        for (&queue_id, &offset) in offsets.iter() {
            let (min, _) = ends(store, &message_queue("", topic, queue_id));
            if offset >= min {
                let least = lowest.entry(queue_id).or_insert(offset);
                *least = offset.min(*least);
            }
        }
    });
    for (queue_id, least) in &mut lowest {
        let compared = tables.offsets.get(&header.compare_group, topic, *queue_id);
        if compared.is_some_and(|compared| *least > compared) {
            *least = i64::MAX;
        }
    }
    let offsets = CorrectionOffsets {
        correction_offsets: lowest,
    };
    Ok(Answer::with_body(offsets.to_json()).into())
}

/// 343
pub fn topics_of_group(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let group = Group::from(command)?.group;
    let list = TopicList {
        broker_addr: Some(coordinator.settings().registered()),
        topic_list: coordinator.tables().offsets.topics_of_group(&group),
    };
    Ok(Answer::with_body(list.to_json(Dialect::Fastjson1)).into())
}

/// 345
pub fn subscription(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = GroupInTopic::from(command)?;
    let tables = coordinator.tables();
    let live = tables.clients.consumer_group(&header.group);
    let subscription = live.and_then(|live| live.subscriptions.get(&*header.topic));
    let body = GroupSubscription {
        subscription_data: subscription.cloned(),
        group: header.group.into_owned(),
        topic: header.topic.into_owned(),
    };
    Ok(Answer::with_body(body.to_json(Dialect::Fastjson1)).into())
}

fn message_queue(broker_name: &str, topic: &str, queue_id: i32) -> MessageQueue {
    MessageQueue {
        broker_name: broker_name.to_owned(),
        queue_id,
        topic: topic.to_owned(),
    }
}
