//! What RocketMQ needs to know of popped messages, and what it left for us.
//!
//! At a clean stop every message that is not acknowledged goes into a checkpoint in RocketMQ's revive topic, and the group's offset
//! goes behind what it has popped: RocketMQ delivers exactly these again, in their time. If it is us who start again, the
//! checkpoints are passed over: they bear our mark. RocketMQ's own checkpoints and acknowledgements, in a store that was its
//! own, become our state.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use engine::{Queue, QueueOffset, Read, ReadLimits};
use hashbrown::HashMap;
use protocol::body::Body;
use protocol::body::revive::{Ack, BatchAck, Checkpoint};
use protocol::json::Dialect;
use protocol::record::{Draft, View};
use protocol::{Text, properties};
use reactor::Gather;

use super::entry::Place;
use super::queue::{Op, Unacked};
use super::start;
use crate::coordinator::Coordinator;
use crate::internal::Appender;

const REVIVE_TOPIC_PREFIX: &str = "rmq_sys_REVIVE_LOG_";
/// Whose offsets say how far the revive topic is done.
const REVIVE_GROUP: &str = "CID_RMQ_SYS_REVIVE_GROUP";
const REVIVE_QUEUES: u32 = 8;
const CHECKPOINT_TAG: &str = "ck";
const ACK_TAG: &str = "ack";
const BATCH_ACK_TAG: &str = "bAck";
/// In a checkpoint of ours.
const OUR_MARK: &str = "ORBIT_POP";
/// RocketMQ keeps their acknowledgements in the bits of an i32.
const CHECKPOINT_LEN_MAX: usize = 30;
/// More are not written: the group's offset stays in front of them.
const CHECKPOINTS_MAX: usize = 50_000;
/// RocketMQ looks at a checkpoint so long before its messages are due.
const AHEAD_MS: i64 = 1000;
const BATCH_BYTES_MAX: usize = 1 << 20;
const READ_MESSAGES_MAX: u32 = 64;

/// At the stop, once nothing changes any more.
pub async fn give(coordinator: &Rc<Coordinator>) {
    let (checkpoints, done) = collect(coordinator);
    if !write(coordinator, &checkpoints).await {
        return; // The offsets stay in front of what is not acknowledged.
    }
    let offsets = &mut coordinator.tables().offsets;
    for (place, next) in done {
        let queue_id = i32::try_from(place.queue_id).unwrap_or(i32::MAX);
        let next = i64::try_from(next).expect("offsets stay below 2^63");
        offsets.commit(&place.group, &place.topic, queue_id, next);
    }
}

/// In the order of their times, and how far each group is with them.
fn collect(coordinator: &Coordinator) -> (Vec<Checkpoint>, Vec<(Place, u64)>) {
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

/// Messages of one name and time share one.
fn of_queue<'a>(
    place: &Place,
    unacked: impl Iterator<Item = (u64, &'a Unacked)>,
    broker: &str,
) -> Vec<Checkpoint> {
    let mut alike: BTreeMap<(i64, i64), Vec<u64>> = BTreeMap::new();
    for (offset, message) in unacked {
        let name = (message.pop_ms, message.due_ms);
        alike.entry(name).or_default().push(offset);
    }
    let mut checkpoints = Vec::new();
    for ((pop_ms, due_ms), offsets) in alike {
        for offsets in offsets.chunks(CHECKPOINT_LEN_MAX) {
            let start = offsets[0];
            let ahead = |offset: &u64| i32::try_from(offset - start).ok();
            let Some(differences) = offsets.iter().map(ahead).collect() else {
                checkpoints.extend(
                    offsets.iter().map(|&offset| {
                        checkpoint(place, broker, (pop_ms, due_ms), offset, vec![0])
                    }),
                );
                continue;
            };
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
    let topic = format!("{REVIVE_TOPIC_PREFIX}{}", settings.cluster_name);
    let host = settings.advertised();
    let queue = coordinator.shared.store.queue(&topic, 0);
    let mut appender = Appender::promised(coordinator.shared.writer.clone());
    for (index, checkpoint) in checkpoints.iter().enumerate() {
        let mut marks = Vec::new();
        let due_ms = checkpoint.due_ms() - AHEAD_MS;
        properties::append(&mut marks, 0, properties::TAGS, CHECKPOINT_TAG.as_bytes());
        let due = due_ms.to_string();
        properties::append(&mut marks, 0, properties::TIMER_DELIVER_MS, due.as_bytes());
        properties::append(&mut marks, 0, OUR_MARK, b"1");
        let body = checkpoint.to_json(Dialect::Strict);
        let draft = Draft {
            topic: &topic,
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_ms: reactor::wall_ms(),
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            properties: Text::plain(&marks),
            body: &body,
        };
        appender.add(&queue, properties::tag_hash(CHECKPOINT_TAG), &draft);
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

/// RocketMQ's messages that were popped and not acknowledged, as far as its log says so.
#[derive(Default)]
struct Left {
    /// By what names a checkpoint: group, topic, queue, first offset, pop time.
    checkpoints: HashMap<(String, String, i32, i64, i64), Checkpoint>,
}

impl Left {
    /// Below `ours_below` what bears our mark counts as well.
    fn message(&mut self, view: &View<'_>, ours_below: u64) {
        if view.property(OUR_MARK).is_some() && view.log_offset >= ours_below {
            return;
        }
        let tags = view.property(properties::TAGS).unwrap_or_default();
        let is = |tag: &str| tags == tag.as_bytes();
        let read = if is(CHECKPOINT_TAG) {
            Checkpoint::from_json(view.body).map(|found| {
                self.checkpoints.insert(found.name(), found);
            })
        } else if is(ACK_TAG) {
            Ack::from_json(view.body).map(|ack| self.acked(&ack.name(), &[ack.ack_offset]))
        } else if is(BATCH_ACK_TAG) {
            BatchAck::from_json(view.body).map(|ack| self.acked(&ack.name(), &ack.ack_offsets))
        } else {
            Ok(())
        };
        if let Err(error) = read {
            let offset = view.queue_offset;
            tracing::warn!(offset, %error, "a message of the revive topic cannot be read");
        }
    }

    fn acked(&mut self, name: &(String, String, i32, i64, i64), offsets: &[i64]) {
        if let Some(checkpoint) = self.checkpoints.get_mut(name) {
            offsets.iter().for_each(|&offset| checkpoint.ack(offset));
        }
    }
}

/// At the start of a store that was RocketMQ's: what it has hidden is hidden, and passes into our log.
/// So is what we have handed to RocketMQ and it has not come to; or all of ours, if our log does not say it (`is_whole`).
pub async fn take_over(coordinator: &Rc<Coordinator>, is_whole: bool) -> io::Result<()> {
    let store = &coordinator.shared.store;
    let ours_below = match is_whole {
        true => store.rocketmqs_until().0,
        false => u64::MAX,
    };
    let cluster = coordinator.settings().cluster_name.clone();
    let topic = format!("{REVIVE_TOPIC_PREFIX}{cluster}");
    let mut left = Left::default();
    for queue_id in 0..REVIVE_QUEUES {
        let Some(queue) = store.find_queue(&topic, queue_id) else {
            continue;
        };
        let done = start::committed(coordinator, REVIVE_GROUP, &topic, queue_id);
        let from = done.and_then(|done| u64::try_from(done + 1).ok());
        read(
            coordinator,
            &queue,
            from.unwrap_or(0),
            ours_below,
            &mut left,
        )
        .await?;
    }
    let count = adopt(coordinator, left);
    if count > 0 {
        tracing::info!(
            count,
            "messages that RocketMQ's POP consumers have not acknowledged were taken over"
        );
    }
    done(coordinator, &topic);
    Ok(())
}

/// Everything in the revive topic has been looked at, or is ours.
fn done(coordinator: &Coordinator, topic: &str) {
    for queue in coordinator.shared.store.queues_of(topic) {
        if let (Some(last), Ok(queue_id)) =
            (queue.max_offset().checked_sub(1), i32::try_from(queue.id()))
        {
            let last = i64::try_from(last).expect("offsets stay below 2^63");
            let offsets = &mut coordinator.tables().offsets;
            offsets.commit(REVIVE_GROUP, topic, queue_id, last);
        }
    }
}

async fn read(
    coordinator: &Coordinator,
    queue: &Arc<Queue>,
    from: u64,
    ours_below: u64,
    left: &mut Left,
) -> io::Result<()> {
    let store = &coordinator.shared.store;
    let limits = ReadLimits {
        messages_max: READ_MESSAGES_MAX,
        disk_messages_max: READ_MESSAGES_MAX,
        memory_messages_max: READ_MESSAGES_MAX,
        ..ReadLimits::default()
    };
    let mut at = from.clamp(queue.min_offset(), queue.max_offset());
    loop {
        let mut gather = Gather::default();
        let place = QueueOffset(at);
        let mut read = store.read(queue, place, &limits, |_| true, &mut gather);
        if let Read::Cold(cold) = read {
            read = store.fetch(cold, |_| true, &mut gather).await?;
        }
        at = match read {
            Read::Found(found) => found.next.0,
            Read::NoneMatched { next } => next.0,
            Read::BelowStart { min } => min.0,
            Read::Empty | Read::BeyondEnd { .. } | Read::Cold(_) => return Ok(()),
        };
        let mut records = Vec::new();
        gather.copy_slices_to(&mut records);
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let view = View::parse(rest).map_err(io::Error::other)?;
            rest = &rest[view.bytes.len()..];
            left.message(&view, ours_below);
        }
    }
}

fn adopt(coordinator: &Rc<Coordinator>, left: Left) -> usize {
    let pop = &coordinator.pop;
    let mut count = 0;
    for checkpoint in left.checkpoints.into_values() {
        let unacked: Vec<u64> = checkpoint.unacked().collect();
        let (Some(&last), Ok(queue_id)) = (unacked.last(), u32::try_from(checkpoint.queue_id))
        else {
            continue;
        };
        let group: Arc<str> = Arc::from(checkpoint.consumer_group.as_str());
        let topic: Arc<str> = Arc::from(checkpoint.topic.as_str());
        let queue = coordinator.shared.store.find_queue(&topic, queue_id);
        if queue.is_none_or(|queue| last >= queue.max_offset()) {
            continue;
        }
        start::line_up(coordinator, &group, &topic, queue_id, false);
        let place = Place {
            group,
            topic,
            queue_id,
        };
        count += unacked.len();
        let take = Op::Take {
            offsets: unacked,
            // RocketMQ's offset follows its checkpoints: what lies before it was popped.
            next: last + 1,
            pop_ms: checkpoint.pop_ms,
            due_ms: checkpoint.due_ms(),
            attempt: String::new(),
        };
        pop.change(&place, &take);
    }
    count
}
