//! How a consumer is, for an operator who asks (307): its settings, its queues, how fast it is, what it is at.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use protocol::body::consumer::{ConsumeStatus, ProcessQueueInfo, RunningInfo, property};

use super::process_queue::ProcessQueue;
use super::push::Shared;
use crate::message_id::now_ms;

const MIB: usize = 1 << 20;

pub(super) fn info(shared: &Shared, stacks: bool) -> RunningInfo {
    let queues = shared.queues.lock();
    let each = queues
        .iter()
        .map(|(queue, reader)| (queue.clone(), queue_info(&reader.open)));
    let queues: BTreeMap<_, _> = each.collect();
    let rates = shared.stats.rates();
    let subscriptions = shared.member.subscriptions();
    let status = |topic: &String| {
        let rates = rates.get(topic).copied().unwrap_or_default();
        ConsumeStatus {
            failed_messages: rates.failed_in_all as i64,
            failed_tps: rates.failed,
            ok_tps: rates.done,
            consume_ms: rates.consume_ms,
            pull_ms: rates.pull_ms,
            pull_tps: rates.pulled,
        }
    };
    RunningInfo {
        jstack: stacks.then(|| at_work(&queues)),
        statuses: subscriptions
            .iter()
            .map(|one| (one.topic.clone(), status(&one.topic)))
            .collect(),
        properties: properties(shared),
        queues,
        subscriptions,
        ..RunningInfo::default()
    }
}

fn queue_info(open: &ProcessQueue) -> ProcessQueueInfo {
    let held = open.held();
    ProcessQueueInfo {
        cached_msg_count: held.messages as i32,
        cached_msg_max_offset: held.last,
        cached_msg_min_offset: held.first,
        cached_msg_size_in_mib: (held.bytes / MIB) as i32,
        commit_offset: held.done,
        droped: open.is_given_up(),
        last_consume_timestamp: open.last_consume_ms.load(Ordering::Relaxed),
        last_lock_timestamp: open.last_lock_ms.load(Ordering::Relaxed),
        last_pull_timestamp: open.last_pull_ms.load(Ordering::Relaxed),
        locked: open.is_locked(),
        ..ProcessQueueInfo::default()
    }
}

fn properties(shared: &Shared) -> BTreeMap<String, String> {
    let options = &shared.options;
    let settings = &shared.member.session.settings;
    let threads = options.concurrency.to_string();
    [
        (property::NAME_SERVERS, settings.name_servers.clone()),
        (property::THREADS, threads.clone()),
        (property::ORDERLY, shared.listener.is_orderly().to_string()),
        (property::TYPE, "CONSUME_PASSIVELY".to_owned()),
        (property::VERSION, "V5_4_0".to_owned()),
        (property::STARTED_MS, shared.started_ms.to_string()),
        ("consumerGroup", options.joining.group.clone()),
        ("consumeThreadMax", threads),
        (
            "messageModel",
            match shared.member.is_broadcasting() {
                true => "BROADCASTING".to_owned(),
                false => "CLUSTERING".to_owned(),
            },
        ),
        ("pullBatchSize", options.joining.pull_messages.to_string()),
        (
            "pullThresholdForQueue",
            options.joining.queue_messages_max.to_string(),
        ),
        ("maxReconsumeTimes", shared.reconsume_max().to_string()),
        (
            "consumeTimeout",
            (options.consume_limit.as_secs() / 60).to_string(),
        ),
        ("language", "RUST".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// There are no threads with stacks of their own: what every queue's tasks are at instead.
fn at_work(queues: &BTreeMap<protocol::body::queue::MessageQueue, ProcessQueueInfo>) -> String {
    let now_ms = now_ms();
    let mut text = String::new();
    for (queue, info) in queues {
        text.push_str(&format!(
            "{} {} {}: {} messages with the listener or waiting for it, the first at offset {}; called last {} ms ago, \
             pulled last {} ms ago\n",
            queue.topic,
            queue.broker_name,
            queue.queue_id,
            info.cached_msg_count,
            info.commit_offset,
            now_ms - info.last_consume_timestamp,
            now_ms - info.last_pull_timestamp,
        ));
    }
    text
}
