//! What becomes of a popped message: 200051 and 200151 (done), 200053 (hidden for longer, or given back).

use std::rc::Rc;

use protocol::body::Body;
use protocol::body::pop::{BatchAck, BatchAckRequest};
use protocol::code::response;
use protocol::header::pop::{AckMessage, ChangeInvisible};
use protocol::pop::{Handle, ORDERED, Origin};
use protocol::{Asked, Command};

use crate::coordinator::Coordinator;
use crate::handlers::missing::with_faq;
use crate::handlers::{Answer, Caller, Handled, Reply, refuse};
use crate::messages::Refusal;
use crate::pop::entry::Place;
use crate::pop::journal::Held;
use crate::pop::queue::Op;
use crate::pop::serve;
use crate::pop::table::KeyRef;
use crate::pop::wanted::bounded_invisible_ms;

/// Of the bits of one queue: a million messages.
const BATCH_BYTES_MAX: usize = 128 << 10;

/// 200051
pub fn one(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let header = AckMessage::from(command)?;
    let (group, topic) = (&header.consumer_group, &header.topic);
    check_queue(coordinator, caller, topic, header.queue_id)?;
    let handle = handle(&header.extra_info)?;
    if let Some((place, offset)) = find(coordinator, group, topic, header.queue_id, header.offset)?
    {
        let ack = Op::Ack {
            offsets: vec![offset],
            pop_ms: handle.pop_ms,
        };
        let count = coordinator.pop.change(&place, &ack);
        coordinator.pop.note_acks(&place, count);
        unblock(coordinator, &place, handle.is_ordered);
    }
    Ok(when_safe(coordinator, caller, command, &Answer::ok()))
}

/// 200151
pub fn batch(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let request = match command.body {
        [] => BatchAckRequest::default(),
        body => BatchAckRequest::from_json(body)?,
    };
    if request.acks.is_empty() {
        return Err(refuse(response::NO_MESSAGE, "nothing to acknowledge"));
    }
    let too_long = |ack: &BatchAck| ack.bits.0.len() > BATCH_BYTES_MAX;
    if request.acks.iter().any(too_long) {
        let remark = "acknowledgements of one queue lie too far apart";
        return Err(refuse(response::INVALID_PARAMETER, remark));
    }
    for ack in &request.acks {
        of_queue(coordinator, ack);
    }
    Ok(when_safe(coordinator, caller, command, &Answer::ok()))
}

fn of_queue(coordinator: &Rc<Coordinator>, ack: &BatchAck) {
    let Some(origin) = Origin::from_mark(&ack.retry) else {
        return;
    };
    let topic = origin.topic(&ack.topic, &ack.consumer_group);
    let Some(popped) = popped(coordinator, &ack.consumer_group, &topic, ack.queue_id) else {
        let queue = ack.queue_id;
        tracing::debug!(
            topic,
            queue,
            "acknowledgements for a queue that is not popped"
        );
        return;
    };
    let place = &popped;
    let start = u64::try_from(ack.start_offset).unwrap_or(0);
    let (listed, others): (Vec<u64>, Vec<u64>) = {
        let mut table = coordinator.pop.table.borrow_mut();
        let Some(slot) = table.at(place) else {
            return;
        };
        let offsets = ack.bits.iter().map(|bit| start.saturating_add(bit));
        offsets.partition(|&offset| slot.state.get(offset).is_some())
    };
    let op = Op::Ack {
        offsets: listed,
        pop_ms: ack.pop_ms,
    };
    let count = coordinator.pop.change(place, &op);
    coordinator.pop.note_acks(place, count);
    for offset in others {
        let Some((place, offset)) = coordinator.pop.moved.find(place, offset) else {
            continue;
        };
        let (offsets, pop_ms) = (vec![offset], ack.pop_ms);
        let count = coordinator.pop.change(&place, &Op::Ack { offsets, pop_ms });
        coordinator.pop.note_acks(&place, count);
        unblock(coordinator, &place, ack.revive_queue_id == ORDERED);
    }
    unblock(coordinator, place, ack.revive_queue_id == ORDERED);
}

/// 200053
pub fn change(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let header = ChangeInvisible::from(command)?;
    let (group, topic) = (&header.consumer_group, &header.topic);
    check_queue(coordinator, caller, topic, header.queue_id)?;
    let handle = handle(&header.extra_info)?;
    let found = find(coordinator, group, topic, header.queue_id, header.offset)?;
    let now_ms = reactor::wall_ms();
    let invisible_ms = bounded_invisible_ms(header.invisible_ms);
    let due_ms = now_ms.saturating_add(invisible_ms);
    let mut new_pop_ms = now_ms;
    if let Some((place, offset)) = found {
        // In order a batch keeps its name: its other messages are acknowledged under it.
        new_pop_ms = match handle.is_ordered {
            true => handle.pop_ms,
            false => {
                let mut table = coordinator.pop.table.borrow_mut();
                let slot = table.at(&place);
                slot.map_or(now_ms, |slot| slot.state.pop_ms(now_ms, &[offset]))
            }
        };
        let change = Op::Change {
            offset,
            pop_ms: handle.pop_ms,
            new_pop_ms,
            due_ms,
        };
        if coordinator.pop.change(&place, &change) > 0 {
            coordinator.pop.arm(&place);
            unblock(coordinator, &place, handle.is_ordered);
        }
    }
    let revive_queue = if handle.is_ordered { ORDERED } else { 0 };
    let answer = Answer::ok()
        .field("popTime", new_pop_ms)
        .field("invisibleTime", due_ms - new_pop_ms)
        .field("reviveQid", revive_queue);
    Ok(when_safe(coordinator, caller, command, &answer))
}

/// The answer leaves once what it says is in the log.
fn when_safe(
    coordinator: &Rc<Coordinator>,
    caller: Caller,
    command: &Command<'_>,
    answer: &Answer,
) -> Reply {
    if command.is_oneway() {
        return Reply::Elsewhere;
    }
    let asked = Asked::from(command);
    let mut frame = Vec::new();
    answer.write(&mut frame, asked);
    coordinator.pop.journal.hold(Held::Answer {
        conn: caller.conn,
        asked,
        frame,
        is_counted: true,
        popped: Vec::new(),
    });
    Reply::Elsewhere
}

/// In order the next messages are free once nothing is hidden.
fn unblock(coordinator: &Rc<Coordinator>, place: &Place, is_ordered: bool) {
    // What has moved to a retry topic is waited for as what is in the topic itself.
    let normal = serve::normal_topic(&place.topic, &place.group);
    let topic = normal.unwrap_or(&place.topic);
    if !is_ordered || !coordinator.pop.parked.is_awaited(topic) {
        return;
    }
    let is_free = {
        let mut table = coordinator.pop.table.borrow_mut();
        let slot = table.at(place);
        slot.is_some_and(|slot| !slot.state.is_blocked(reactor::wall_ms(), ""))
    };
    if is_free {
        let key = KeyRef {
            group: &place.group,
            topic,
        };
        let queue_id = normal.is_none().then_some(place.queue_id);
        serve::line(coordinator, key, queue_id);
    }
}

/// Where a message is that a handle names; none in a queue that the group has not popped.
fn find(
    coordinator: &Coordinator,
    group: &str,
    topic: &str,
    queue_id: i32,
    offset: i64,
) -> Result<Option<(Place, u64)>, Refusal> {
    let Some(place) = popped(coordinator, group, topic, queue_id) else {
        // No offset means anything there; the answer is the same as for one that is done.
        return check_offset(offset, (0, u64::MAX)).map(|_| None);
    };
    let (is_listed, bounds) = {
        let mut table = coordinator.pop.table.borrow_mut();
        let slot = table.at(&place).expect("found above");
        let is_listed = |offset| slot.state.get(offset).is_some();
        let is_listed = u64::try_from(offset).is_ok_and(is_listed);
        (
            is_listed,
            (slot.queue.min_offset(), slot.queue.max_offset()),
        )
    };
    // One whose log had to go is in another place than its handle says, and before the queue's first offset.
    let moved = match u64::try_from(offset) {
        Ok(offset) if !is_listed => coordinator.pop.moved.find(&place, offset),
        _ => None,
    };
    match moved {
        Some(moved) => Ok(Some(moved)),
        None => check_offset(offset, bounds).map(|offset| Some((place, offset))),
    }
}

fn popped(coordinator: &Coordinator, group: &str, topic: &str, queue_id: i32) -> Option<Place> {
    let table = coordinator.pop.table.borrow();
    let queue_id = u32::try_from(queue_id).ok()?;
    let slot = table.get(KeyRef { group, topic }, queue_id)?;
    Some(slot.place.clone())
}

fn handle(text: &str) -> Result<Handle, Refusal> {
    Handle::parse(text).ok_or_else(|| {
        let remark = format!("the handle is none: {text}");
        refuse(response::SYSTEM_ERROR, remark)
    })
}

fn check_queue(
    coordinator: &Coordinator,
    caller: Caller,
    topic: &str,
    queue_id: i32,
) -> Result<(), Refusal> {
    let tables = coordinator.tables();
    let Some(config) = tables.topics.get(topic) else {
        let remark = with_faq(format!("topic[{topic}] not exist, apply first please! "));
        return Err(refuse(response::TOPIC_NOT_EXIST, remark));
    };
    let queues = config.read_queue_nums;
    if (0..queues).contains(&queue_id) {
        return Ok(());
    }
    let peer = caller.peer;
    let remark = format!(
        "queueId[{queue_id}] is illegal, topic:[{topic}] topicConfig.readQueueNums:[{queues}] consumer:[{peer}]"
    );
    Err(refuse(response::MESSAGE_ILLEGAL, remark))
}

fn check_offset(offset: i64, (min, max): (u64, u64)) -> Result<u64, Refusal> {
    match u64::try_from(offset) {
        Ok(offset) if (min..max).contains(&offset) => Ok(offset),
        _ => {
            let remark = format!("offset is illegal, commit:{offset}, store:{min}~{max}");
            Err(refuse(response::NO_MESSAGE, remark))
        }
    }
}
