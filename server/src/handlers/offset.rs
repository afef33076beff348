//! Where consumer groups stand: query, commit, and the whole tables for those who copy them.

use std::rc::Rc;

use engine::{QueueOffset, Read, ReadLimits};
use protocol::Command;
use protocol::body::Body;
use protocol::code::response;
use protocol::header::offset::{QueryOffset, UpdateOffset};
use protocol::json::Dialect;
use reactor::Gather;

use super::{Answer, Handled, refuse};
use crate::coordinator::Coordinator;
use crate::offsets::to_wrapper;

/// 14: a group without an offset begins at 0 if the queue still begins there and its first message is in memory, or if the
/// queue is empty: so nothing that is sent while the client starts is skipped. Otherwise the client decides.
pub fn query(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = QueryOffset::from(command)?;
    let known =
        coordinator
            .tables()
            .offsets
            .get(&header.consumer_group, &header.topic, header.queue_id);
    // Clients have been seen to commit -1: that is no place to begin at.
    if let Some(offset) = known.filter(|&offset| offset >= 0) {
        return Ok(Answer::ok().field("offset", offset).into());
    }
    if header.set_zero_if_not_found == Some(false) {
        return Err(refuse(
            response::QUERY_NOT_FOUND,
            "Not found, do not set to zero, maybe this group boot first",
        ));
    }
    if starts_in_memory(coordinator, &header.topic, header.queue_id) {
        return Ok(Answer::ok().field("offset", 0).into());
    }
    Err(refuse(
        response::QUERY_NOT_FOUND,
        "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first",
    ))
}

pub fn starts_in_memory(coordinator: &Coordinator, topic: &str, queue_id: i32) -> bool {
    let store = &coordinator.shared.store;
    let queue = u32::try_from(queue_id)
        .ok()
        .and_then(|id| store.find_queue(topic, id));
    let Some(queue) = queue else {
        return true;
    };
    if queue.min_offset() > 0 {
        return false;
    }
    let limits = ReadLimits {
        messages_max: 1,
        ..ReadLimits::default()
    };
    let mut gather = Gather::default();
    let read = store.read(&queue, QueueOffset(0), &limits, |_| true, &mut gather);
    match read {
        Read::Found(_) | Read::Empty => true,
        // After a restart nothing is in memory yet: a log that would fit counts as if it were.
        Read::Cold(_) => store.written().0 - store.first().0 <= store.config().hot_bytes,
        Read::NoneMatched { .. } | Read::BeyondEnd { .. } | Read::BelowStart { .. } => false,
    }
}

/// 15
pub fn update(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = UpdateOffset::from(command)?;
    let (group, topic) = (&header.consumer_group, &header.topic);
    let mut tables = coordinator.tables();
    if tables.groups.get(group).is_none() {
        return Err(refuse(
            response::SUBSCRIPTION_GROUP_NOT_EXIST,
            format!("Group {group} not exist!"),
        ));
    }
    if tables.topics.get(topic).is_none() {
        return Err(refuse(
            response::TOPIC_NOT_EXIST,
            format!("Topic {topic} not exist!"),
        ));
    }
    if tables.resets.is_pending(group, topic, header.queue_id) {
        // It is where the consumer was before.
        return Ok(Answer::code(response::SUCCESS, "Offset has been previously reset").into());
    }
    tables
        .offsets
        .commit(group, topic, header.queue_id, header.commit_offset);
    Ok(Answer::ok().into())
}

/// 43
pub fn all(coordinator: &Rc<Coordinator>) -> Handled {
    let (table, version) = coordinator.tables().offsets.snapshot();
    let body = to_wrapper(&table, version).to_json(Dialect::Fastjson1);
    Ok(Answer::with_body(body).into())
}

/// 45
pub fn all_delayed(coordinator: &Rc<Coordinator>) -> Handled {
    let body = coordinator.delay.table().to_json(Dialect::Fastjson1);
    Ok(Answer::with_body(body).into())
}
