//! Where a group begins in a queue, and what becomes of its place when somebody sets its offset.

use std::sync::Arc;

use engine::Queue;

use super::entry::Place;
use super::queue::Op;
use super::table::KeyRef;
use crate::coordinator::Coordinator;
use crate::handlers::offset::starts_in_memory;

/// Sees to it that the queue has a state, and that it agrees with the group's offset.
pub fn line_up(
    coordinator: &Coordinator,
    group: &Arc<str>,
    topic: &Arc<str>,
    queue_id: u32,
    from_end: bool,
) {
    let pop = &coordinator.pop;
    let committed = committed(coordinator, group, topic, queue_id);
    let change = {
        let mut table = pop.table.borrow_mut();
        match table.get_mut(KeyRef { group, topic }, queue_id) {
            None => None,
            Some(slot) if committed == Some(slot.told) || committed.is_none() => return,
            Some(slot) => {
                let committed = committed.unwrap_or(0);
                let told = std::mem::replace(&mut slot.told, committed);
                let now_ms = reactor::wall_ms();
                let op = set(&slot.state, told, committed, now_ms);
                op.map(|op| (slot.place.clone(), op))
            }
        }
    };
    if let Some((place, op)) = change {
        tracing::info!(
            ?place,
            ?op,
            "the group's offset was set: it pops from there"
        );
        pop.change(&place, &op);
        return;
    }
    if pop
        .table
        .borrow()
        .get(KeyRef { group, topic }, queue_id)
        .is_some()
    {
        return;
    }
    let queue = coordinator.shared.store.queue(topic, queue_id);
    let committed = committed.and_then(|offset| u64::try_from(offset).ok());
    let next = committed.unwrap_or_else(|| first(coordinator, &queue, from_end));
    let next = next.clamp(queue.min_offset(), queue.max_offset());
    let place = Place {
        group: Arc::clone(group),
        topic: Arc::clone(topic),
        queue_id,
    };
    // Not told yet: the table of offsets hears of it with the next ones.
    let told = committed.and_then(|offset| i64::try_from(offset).ok());
    pop.table
        .borrow_mut()
        .insert(&place, queue, told.unwrap_or(-1));
    pop.change(&place, &Op::Start { next });
}

/// What a new offset of the group, from somebody else, does to its queue.
fn set(state: &super::queue::PopQueue, told: i64, committed: i64, now_ms: i64) -> Option<Op> {
    let until = u64::try_from(committed).ok()?;
    if committed > told {
        // Forward: what is before it is done.
        if until >= state.next() {
            return Some(Op::Start { next: until });
        }
        return Some(Op::Part {
            next: state.next(),
            from: 0,
            until,
            unacked: Vec::new(),
            attempt: state.attempt().to_owned(),
        });
    }
    // Back: while messages are hidden this may be a pull client of the group that commits what it has seen.
    let is_idle = state.unacked().all(|(_, message)| message.due_ms <= now_ms);
    is_idle.then_some(Op::Start { next: until })
}

/// A group without an offset. At the end means the last message, as in RocketMQ, or all of a queue that has just begun:
/// so nothing that is sent while the client starts is skipped.
pub fn first(coordinator: &Coordinator, queue: &Queue, from_end: bool) -> u64 {
    let is_retry = protocol::names::is_retry_topic(queue.topic());
    let queue_id = i32::try_from(queue.id()).unwrap_or(i32::MAX);
    if !from_end || is_retry || starts_in_memory(coordinator, queue.topic(), queue_id) {
        return queue.min_offset();
    }
    queue.max_offset().saturating_sub(1)
}

/// The group's offset in the table that clients and operators change; none if it has none.
pub fn committed(
    coordinator: &Coordinator,
    group: &str,
    topic: &str,
    queue_id: u32,
) -> Option<i64> {
    let queue_id = i32::try_from(queue_id).ok()?;
    let tables = coordinator.tables();
    let offset = tables.offsets.get(group, topic, queue_id);
    offset.filter(|&offset| offset >= 0)
}

#[cfg(test)]
mod tests {
    use super::super::queue::PopQueue;
    use super::*;

    fn state() -> PopQueue {
        let mut state = PopQueue::new(10);
        state.apply(&Op::Take {
            offsets: vec![10, 11, 12],
            next: 13,
            pop_ms: 100,
            due_ms: 200,
            attempt: String::new(),
        });
        state
    }

    fn after(told: i64, committed: i64, now_ms: i64) -> (u64, u64) {
        let mut state = state();
        if let Some(op) = set(&state, told, committed, now_ms) {
            state.apply(&op);
        }
        (state.done_to(), state.next())
    }

    #[test]
    fn forward_is_obeyed_and_keeps_what_lies_behind() {
        assert_eq!(after(10, 11, 150), (11, 13));
        assert_eq!(after(10, 13, 150), (13, 13));
        assert_eq!(after(10, 20, 150), (20, 20));
    }

    #[test]
    fn back_is_obeyed_unless_messages_are_out() {
        assert_eq!(after(10, 5, 150), (10, 13), "somebody works on them");
        assert_eq!(after(10, 5, 200), (5, 5));
        assert_eq!(after(10, -1, 200), (10, 13), "that is no offset");
    }
}
