//! What lies in a queue: its ends, its times, and single messages by their place in the log.

use std::rc::Rc;
use std::sync::Arc;

use engine::{Boundary, LogOffset, Queue, QueueOffset};
use protocol::Command;
use protocol::code::response;
use protocol::header::message::ViewMessage;
use protocol::header::offset::{self as header, QueueQuery, SearchOffset};

use super::{Answer, Handled, Reply};
use crate::coordinator::Coordinator;

/// 30: one past the newest message.
pub fn max_offset(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = QueueQuery::from(command)?;
    let queue = find(coordinator, &header.topic, header.queue_id);
    let offset = queue.map_or(0, |queue| queue.max_offset());
    Ok(Answer::ok().field("offset", offset).into())
}

/// 31: the oldest message that is there.
pub fn min_offset(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = QueueQuery::from(command)?;
    let queue = find(coordinator, &header.topic, header.queue_id);
    let offset = queue.map_or(0, |queue| queue.min_offset());
    Ok(Answer::ok().field("offset", offset).into())
}

/// 29
pub fn offset_by_time(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = SearchOffset::from(command)?;
    let Some(queue) = find(coordinator, &header.topic, header.queue_id) else {
        return Ok(Answer::ok().field("offset", 0).into());
    };
    let boundary = match header.boundary {
        header::Boundary::Lower => Boundary::Lower,
        header::Boundary::Upper => Boundary::Upper,
    };
    let store = Arc::clone(&coordinator.shared.store);
    let time_ms = header.time_ms;
    Ok(Reply::later(async move {
        match store.offset_at_time(&queue, time_ms, boundary).await {
            Ok(offset) => Answer::ok().field("offset", offset.0),
            Err(error) => Answer::code(response::SYSTEM_ERROR, error.to_string()),
        }
    }))
}

/// 32: -1 where there is nothing.
pub fn earliest_time(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = QueueQuery::from(command)?;
    let Some(queue) = find(coordinator, &header.topic, header.queue_id) else {
        return Ok(Answer::ok().field("timestamp", -1).into());
    };
    let store = Arc::clone(&coordinator.shared.store);
    Ok(Reply::later(async move {
        let first = QueueOffset(queue.min_offset());
        match store.store_time(&queue, first).await {
            Ok(time) => Answer::ok().field("timestamp", time.unwrap_or(-1)),
            Err(error) => Answer::code(response::SYSTEM_ERROR, error.to_string()),
        }
    }))
}

/// 33: the record as it is stored.
pub fn message(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let offset = ViewMessage::from(command)?.log_offset;
    let not_found = move || {
        let remark = format!("can not find message by the offset, {offset}");
        Answer::code(response::SYSTEM_ERROR, remark)
    };
    let Ok(at) = u64::try_from(offset) else {
        return Ok(not_found().into());
    };
    let store = Arc::clone(&coordinator.shared.store);
    Ok(Reply::later(async move {
        match store.record_at(LogOffset(at)).await {
            Ok(Some(record)) => Answer::with_body(record),
            Ok(None) => not_found(),
            Err(error) => Answer::code(response::SYSTEM_ERROR, error.to_string()),
        }
    }))
}

fn find(coordinator: &Coordinator, topic: &str, queue_id: i32) -> Option<Arc<Queue>> {
    let id = u32::try_from(queue_id).ok()?;
    coordinator.shared.store.find_queue(topic, id)
}
