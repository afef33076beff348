//! What RocketMQ needs to know of popped messages when it gets the store.
//!
//! At a clean stop every message that is not acknowledged goes into a checkpoint, and the group's offset goes behind what it has
//! popped: RocketMQ delivers exactly these again, in their time, unless they are acknowledged there by the handles that we gave
//! out. Checkpoints whose time has come lie in RocketMQ's revive topic; the others in the topic of its timers, which bring
//! them there: once a later one is there it takes all before it for due. If it is us who start again, the checkpoints are
//! passed over: they bear our mark.

use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::body::Body;
use protocol::body::revive::Checkpoint;
use protocol::json::Dialect;
use protocol::names::TIMER_TOPIC;
use protocol::record::Draft;
use protocol::{Text, properties};

use super::entry::Place;
use super::queue::Unacked;
use crate::coordinator::Coordinator;
use crate::delay::{slot_ms, timed};
use crate::internal::Appender;

pub const CHECKPOINT_TAG: &str = "ck";
/// In a checkpoint of ours.
pub const OUR_MARK: &str = "ORBIT_POP";
/// The queue of the revive topic that our handles name.
const REVIVE_QUEUE: u32 = 0;
/// RocketMQ keeps their acknowledgements in the bits of an i32.
const CHECKPOINT_LEN_MAX: usize = 32;
/// More are not written: the group's offset stays in front of them.
const CHECKPOINTS_MAX: usize = 50_000;
/// RocketMQ looks at a checkpoint so long before its messages are due.
const AHEAD_MS: i64 = 1000;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How far groups are with what was handed on. Not to be saved before the disk has the checkpoints, and the ops of those
/// messages: whatever a power cut took of them would be skipped.
pub type Handed = Vec<(Place, u64)>;

/// At the stop, once nothing changes any more.
pub async fn give(coordinator: &Rc<Coordinator>) -> Handed {
    let (checkpoints, handed) = collect(coordinator);
    match write(coordinator, &checkpoints).await {
        true => handed,
        // The offsets stay in front of what is not acknowledged.
        false => Handed::new(),
    }
}

/// Once the log is closed.
pub fn commit(coordinator: &Coordinator, handed: Handed) {
    let offsets = &mut coordinator.tables().offsets;
    for (place, next) in handed {
        let queue_id = i32::try_from(place.queue_id).unwrap_or(i32::MAX);
        let next = i64::try_from(next).expect("offsets stay below 2^63");
        offsets.commit(&place.group, &place.topic, queue_id, next);
    }
}

/// In the order of their times, and how far each group is with them.
fn collect(coordinator: &Coordinator) -> (Vec<Checkpoint>, Handed) {
    let broker = coordinator.settings().broker_name.clone();
    let table = coordinator.pop.table.borrow();
    let (mut all, mut done) = (Vec::new(), Vec::new());
    for slot in table.slots() {
        // RocketMQ goes on with an ordered group from its offset.
        let is_ordered = slot.is_ordered || !slot.state.attempt().is_empty();
        if slot.state.unacked_len() == 0 || is_ordered {
            continue;
        }
        let checkpoints = of_queue(&slot.place, slot.state.unacked(), &broker);
        if all.len() + checkpoints.len() > CHECKPOINTS_MAX {
            tracing::warn!(place = ?slot.place, "too many messages are not acknowledged to hand them on one by one");
            continue;
        }
        all.extend(checkpoints);
        done.push((slot.place.clone(), slot.state.next()));
    }
    all.sort_by_key(Checkpoint::due_ms);
    (all, done)
}

/// Messages of one delivery share one: an acknowledgement names it by the first of them, acknowledged or not.
fn of_queue<'a>(
    place: &Place,
    unacked: impl Iterator<Item = (u64, &'a Unacked)>,
    broker: &str,
) -> Vec<Checkpoint> {
    let mut alike: BTreeMap<(u64, i64, i64), Vec<u64>> = BTreeMap::new();
    for (offset, message) in unacked {
        let is_named = i32::try_from(message.ahead).is_ok();
        let ahead = if is_named {
            u64::from(message.ahead)
        } else {
            0
        };
        let name = (offset - ahead, message.pop_ms, message.due_ms);
        alike.entry(name).or_default().push(offset);
    }
    let mut checkpoints = Vec::new();
    for ((start, pop_ms, due_ms), offsets) in alike {
        for (number, offsets) in offsets.chunks(CHECKPOINT_LEN_MAX).enumerate() {
            // No two may have one name.
            let start = if number == 0 { start } else { offsets[0] };
            let ahead = |offset: &u64| i32::try_from(offset - start).expect("looked at above");
            let differences = offsets.iter().map(ahead).collect();
            checkpoints.push(checkpoint(
                place,
                broker,
                (pop_ms, due_ms),
                start,
                differences,
            ));
        }
    }
    checkpoints
}

fn checkpoint(
    place: &Place,
    broker: &str,
    (pop_ms, due_ms): (i64, i64),
    start: u64,
    differences: Vec<i32>,
) -> Checkpoint {
    Checkpoint {
        broker_name: Some(broker.to_owned()),
        consumer_group: place.group.to_string(),
        invisible_ms: due_ms - pop_ms,
        count: i8::try_from(differences.len()).expect("as many as bits of an i32"),
        differences: Some(differences),
        pop_ms,
        queue_id: i32::try_from(place.queue_id).unwrap_or(i32::MAX),
        start_offset: i64::try_from(start).expect("offsets stay below 2^63"),
        topic: place.topic.to_string(),
        ..Checkpoint::default()
    }
}

async fn write(coordinator: &Rc<Coordinator>, checkpoints: &[Checkpoint]) -> bool {
    let settings = coordinator.settings();
    let topic = format!("{}{}", timed::REVIVE_TOPIC_PREFIX, settings.cluster_name);
    let host = settings.advertised();
    let store = &coordinator.shared.store;
    let revived = store.queue(&topic, REVIVE_QUEUE);
    let timers = store.queue(TIMER_TOPIC, timed::QUEUE_ID);
    let mut appender = Appender::promised(coordinator.shared.writer.clone());
    for (index, checkpoint) in checkpoints.iter().enumerate() {
        let now_ms = reactor::wall_ms();
        let deliver_ms = checkpoint.due_ms() - AHEAD_MS;
        let is_timed = deliver_ms > now_ms;
        let mut marks = Vec::new();
        let mut mark = |name: &str, value: &str| {
            properties::append(&mut marks, 0, name, value.as_bytes());
        };
        mark(properties::TAGS, CHECKPOINT_TAG);
        mark(properties::TIMER_DELIVER_MS, &deliver_ms.to_string());
        mark(properties::UNIQ_KEY, &unique_key(checkpoint));
        mark(OUR_MARK, "1");
        if is_timed {
            let slot_ms = slot_ms(deliver_ms, settings.timer_precision_ms);
            mark(properties::TIMER_OUT_MS, &slot_ms.to_string());
            mark(properties::REAL_TOPIC, &topic);
            mark(properties::REAL_QID, &REVIVE_QUEUE.to_string());
        }
        let queue = if is_timed { &timers } else { &revived };
        let body = checkpoint.to_json(Dialect::Strict);
        let draft = Draft {
            topic: queue.topic(),
            queue_id: i32::try_from(queue.id()).expect("queues of a few"),
            flag: 0,
            sys_flag: 0,
            born_ms: now_ms,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            properties: Text::plain(&marks),
            body: &body,
        };
        appender.add(queue, properties::tag_hash(CHECKPOINT_TAG), &draft);
        let is_last = index + 1 == checkpoints.len();
        if is_last || appender.bytes_len() >= BATCH_BYTES_MAX {
            let results = appender.append().await;
            if let Some(problem) = results.into_iter().find_map(Result::err) {
                tracing::warn!(%problem, "messages that are not acknowledged are not handed on one by one");
                return false;
            }
        }
    }
    true
}

fn unique_key(checkpoint: &Checkpoint) -> String {
    let Checkpoint {
        topic,
        queue_id,
        start_offset,
        consumer_group,
        pop_ms,
        ..
    } = checkpoint;
    let broker = checkpoint.broker_name.as_deref().unwrap_or_default();
    format!("{topic}@{queue_id}@{start_offset}@{consumer_group}@{pop_ms}@{broker}@{CHECKPOINT_TAG}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_checkpoint_is_named_by_the_first_message_of_its_delivery_even_if_that_is_acknowledged() {
        let place = Place {
            group: Arc::from("g"),
            topic: Arc::from("t"),
            queue_id: 1,
        };
        let message = |offset: u64, pop_ms, start: u64| {
            let ahead = u32::try_from(offset - start).expect("near");
            let unacked = Unacked {
                pop_ms,
                due_ms: pop_ms + 50,
                times: 0,
                ahead,
            };
            (offset, unacked)
        };
        // 10 was acknowledged; 20 to 23 were popped in the same millisecond.
        let all = [
            message(11, 100, 10),
            message(13, 100, 10),
            message(20, 100, 20),
            message(23, 100, 20),
            message(30, 200, 30),
        ];
        let unacked = all.iter().map(|(offset, message)| (*offset, message));
        let checkpoints = of_queue(&place, unacked, "b");
        let named: Vec<_> = checkpoints
            .iter()
            .map(|one| {
                (
                    one.start_offset,
                    one.pop_ms,
                    one.unacked().collect::<Vec<_>>(),
                )
            })
            .collect();
        assert_eq!(
            named,
            [
                (10, 100, vec![11, 13]),
                (20, 100, vec![20, 23]),
                (30, 200, vec![30])
            ]
        );
    }

    #[test]
    fn no_two_checkpoints_have_one_name() {
        let place = Place {
            group: Arc::from("g"),
            topic: Arc::from("t"),
            queue_id: 1,
        };
        let all: Vec<(u64, Unacked)> = (0..70)
            .map(|ahead| {
                let unacked = Unacked {
                    pop_ms: 1,
                    due_ms: 2,
                    times: 0,
                    ahead,
                };
                (u64::from(ahead) + 5, unacked)
            })
            .collect();
        let unacked = all.iter().map(|(offset, message)| (*offset, message));
        let checkpoints = of_queue(&place, unacked, "b");
        let starts: Vec<i64> = checkpoints.iter().map(|one| one.start_offset).collect();
        assert_eq!(starts, [5, 37, 69]);
        let listed: Vec<u64> = checkpoints.iter().flat_map(Checkpoint::unacked).collect();
        assert_eq!(listed, (5..75).collect::<Vec<u64>>());
    }
}
