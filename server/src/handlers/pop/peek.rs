//! 200052: what a pop would bring, left where it is.

use std::rc::Rc;

use engine::{QueueOffset, Read, ReadLimits};
use protocol::Command;
use protocol::code::response;
use protocol::header::pop::PeekMessage;
use reactor::Gather;

use crate::coordinator::Coordinator;
use crate::handlers::{Answer, Caller, Handled, Reply};
use crate::pop::table::KeyRef;
use crate::pop::{start, take, wanted};

const MESSAGES_MAX: i32 = 32;

pub fn handle(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let header = PeekMessage::from(command)?;
    let (group, topic) = (&header.consumer_group, &header.topic);
    let known = wanted::known(coordinator, caller.peer, group, topic, header.queue_id)?;
    let room = header.messages_max.clamp(1, MESSAGES_MAX);
    let queue_id = u32::try_from(header.queue_id).ok();
    let coordinator = Rc::clone(coordinator);
    Ok(Reply::later(async move {
        let mut places = Vec::new();
        let queues = take::read_queues(&coordinator, &known.topic);
        let wanted = |id: &u32| queue_id.is_none_or(|queue_id| queue_id == *id);
        places.extend(
            (0..queues)
                .filter(wanted)
                .map(|id| (Rc::from(&*known.topic), id)),
        );
        for retry in take::retry_topics(&coordinator, &known.topic, &known.group) {
            let queues = take::read_queues(&coordinator, &retry);
            places.extend((0..queues).map(|id| (Rc::from(&*retry), id)));
        }
        peek(&coordinator, &known.group, &places, room as u32).await
    }))
}

async fn peek(
    coordinator: &Coordinator,
    group: &str,
    places: &[(Rc<str>, u32)],
    room: u32,
) -> Answer {
    let store = &coordinator.shared.store;
    let (mut body, mut messages, mut rest) = (Vec::new(), 0, 0);
    for (topic, queue_id) in places {
        let queue = store.queue(topic, *queue_id);
        let next = next(coordinator, group, topic, *queue_id)
            .unwrap_or(0)
            .clamp(queue.min_offset(), queue.max_offset());
        rest += queue.max_offset() - next;
        if messages == room {
            continue;
        }
        let limits = ReadLimits {
            messages_max: room - messages,
            ..ReadLimits::default()
        };
        let mut gather = Gather::default();
        let at = QueueOffset(next);
        let mut read = store.read(&queue, at, &limits, |_| true, &mut gather);
        if let Read::Cold(cold) = read {
            match store.fetch(cold, |_| true, &mut gather).await {
                Ok(fetched) => read = fetched,
                Err(error) => return Answer::code(response::SYSTEM_ERROR, error.to_string()),
            }
        }
        if let Read::Found(found) = read {
            gather.copy_slices_to(&mut body);
            messages += found.messages;
        }
    }
    let answer = match messages {
        0 => Answer::code(response::PULL_NOT_FOUND, "NO_MESSAGE_IN_QUEUE"),
        _ => Answer {
            remark: Some("FOUND".into()),
            ..Answer::with_body(body)
        },
    };
    answer
        .field("popTime", 0)
        .field("invisibleTime", 0)
        .field("reviveQid", 0)
        .field("restNum", rest)
}

/// The first message that was never popped.
fn next(coordinator: &Coordinator, group: &str, topic: &str, queue_id: u32) -> Option<u64> {
    let table = coordinator.pop.table.borrow();
    match table.get(KeyRef { group, topic }, queue_id) {
        Some(slot) => Some(slot.state.next()),
        None => {
            let committed = start::committed(coordinator, group, topic, queue_id);
            committed.and_then(|offset| u64::try_from(offset).ok())
        }
    }
}
