//! What RocketMQ has left of popped messages, in a store that was its own: its checkpoints and acknowledgements become our state.
//!
//! Both are messages for its revive topic, and its timers bring them there when their time comes. So those of messages that
//! are hidden now lie in the timers' topic, and those that RocketMQ was about to look at in the revive topic.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use engine::{LogOffset, Queue, QueueOffset, ReadLimits};
use hashbrown::HashMap;
use protocol::body::Body;
use protocol::body::revive::{Ack, BatchAck, Checkpoint, Name};
use protocol::names::TIMER_TOPIC;
use protocol::properties;
use protocol::record::{View, views};

use super::entry::Place;
use super::handback::{CHECKPOINT_TAG, OUR_MARK};
use super::queue::{Op, Unacked};
use super::{rounds, start};
use crate::coordinator::Coordinator;
use crate::delay::{TIMERS, Theirs, read_timers, timed};
use crate::reading::{self, At};

/// Whose offsets say how far the revive topic is done.
const REVIVE_GROUP: &str = "CID_RMQ_SYS_REVIVE_GROUP";
const REVIVE_QUEUES: u32 = 8;
const ACK_TAG: &str = "ack";
const BATCH_ACK_TAG: &str = "bAck";
/// Messages in one op; rounds write as many.
const PIECE_LEN_MAX: usize = 4_096;
const STRETCH: ReadLimits = reading::stretch(256, 1 << 20);

/// RocketMQ's messages that were popped and not acknowledged, as far as its log says so.
#[derive(Default)]
struct Left {
    checkpoints: HashMap<Name, Checkpoint>,
    /// They may be found before what they acknowledge.
    acks: Vec<(Name, Vec<i64>)>,
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
            Ack::from_json(view.body).map(|ack| self.acks.push((ack.name(), vec![ack.ack_offset])))
        } else if is(BATCH_ACK_TAG) {
            BatchAck::from_json(view.body)
                .map(|ack| self.acks.push((ack.name(), ack.ack_offsets.clone())))
        } else {
            Ok(())
        };
        if let Err(error) = read {
            let offset = view.queue_offset;
            tracing::warn!(offset, %error, "a note of RocketMQ's on popped messages cannot be read");
        }
    }

    /// What is not acknowledged, by queue.
    fn unacked(mut self) -> BTreeMap<(String, String, i32), BTreeMap<u64, Unacked>> {
        for (name, offsets) in &self.acks {
            if let Some(checkpoint) = self.checkpoints.get_mut(name) {
                offsets.iter().for_each(|&offset| checkpoint.ack(offset));
            }
        }
        let mut places: BTreeMap<_, BTreeMap<u64, Unacked>> = BTreeMap::new();
        for checkpoint in self.checkpoints.into_values() {
            let start = u64::try_from(checkpoint.start_offset).unwrap_or(0);
            let place = (
                checkpoint.consumer_group.clone(),
                checkpoint.topic.clone(),
                checkpoint.queue_id,
            );
            let messages = places.entry(place).or_default();
            for offset in checkpoint.unacked() {
                let ahead = offset.checked_sub(start);
                let unacked = Unacked {
                    pop_ms: checkpoint.pop_ms,
                    due_ms: checkpoint.due_ms(),
                    times: 0,
                    ahead: ahead
                        .and_then(|ahead| u32::try_from(ahead).ok())
                        .unwrap_or(0),
                };
                let last = messages.entry(offset).or_insert(unacked);
                if last.pop_ms < unacked.pop_ms {
                    *last = unacked;
                }
            }
        }
        places
    }
}

/// At the start of a store that was RocketMQ's: what it has hidden is hidden, and passes into our log.
/// So is what we have handed to RocketMQ and it has not come to; or all of ours, if our log does not say it (`is_whole`).
pub async fn take_over(coordinator: &Rc<Coordinator>, is_whole: bool) -> io::Result<()> {
    let store = &coordinator.shared.store;
    let (until, end) = (store.rocketmqs_until(), store.written());
    let from = rounds::taken_over(coordinator);
    let was_theirs = until > from;
    if was_theirs || !is_whole {
        let ours_below = match is_whole {
            true => until.0,
            false => u64::MAX,
        };
        let left = collect(coordinator, from, ours_below).await?;
        let count = adopt(coordinator, left, is_whole);
        if count > 0 {
            tracing::info!(
                count,
                "messages that POP consumers had and did not acknowledge were taken over"
            );
        }
    }
    done(coordinator);
    rounds::set_taken_over(coordinator, end);
    Ok(())
}

fn revive_topic(coordinator: &Coordinator) -> String {
    let cluster = &coordinator.settings().cluster_name;
    format!("{}{cluster}", timed::REVIVE_TOPIC_PREFIX)
}

/// `from`: where the log lay when this was last done. What is older was taken over then.
async fn collect(coordinator: &Coordinator, from: LogOffset, ours_below: u64) -> io::Result<Left> {
    let store = &coordinator.shared.store;
    let topic = revive_topic(coordinator);
    let mut left = Left::default();
    for queue_id in 0..REVIVE_QUEUES {
        let Some(queue) = store.find_queue(&topic, queue_id) else {
            continue;
        };
        let done = start::committed(coordinator, REVIVE_GROUP, &topic, queue_id);
        let first = done.and_then(|done| u64::try_from(done + 1).ok());
        let each = |view: &View<'_>| left.message(view, ours_below);
        read(coordinator, &queue, first.unwrap_or(0), each).await?;
    }
    let Some(timers) = store.find_queue(TIMER_TOPIC, timed::QUEUE_ID) else {
        return Ok(left);
    };
    let settings = coordinator.settings();
    let saved = read_timers(&settings.store_root.join("orbit").join(TIMERS))?;
    let config_dir = settings.store_root.join("config");
    let precision_ms = settings.timer_precision_ms;
    let until = store.rocketmqs_until();
    let theirs = Theirs::read(&config_dir, saved.as_ref(), until, precision_ms)?;
    let each = |view: &View<'_>| {
        let is_new = view.log_offset >= from.0;
        if is_new && timed::is_revive(view) && theirs.due_ms(view).is_some() {
            left.message(view, ours_below);
        }
    };
    read(coordinator, &timers, 0, each).await?;
    Ok(left)
}

async fn read(
    coordinator: &Coordinator,
    queue: &Arc<Queue>,
    from: u64,
    mut each: impl FnMut(&View<'_>),
) -> io::Result<()> {
    let store = &coordinator.shared.store;
    let mut records = Vec::new();
    let mut at = from.clamp(queue.min_offset(), queue.max_offset());
    loop {
        let place = QueueOffset(at);
        at = match reading::read(store, queue, place, &STRETCH, &mut records).await? {
            At::Records(next) => next,
            At::Outside if at < queue.min_offset() => queue.min_offset(),
            At::Outside | At::End => return Ok(()),
        };
        for view in views(&records) {
            each(&view.map_err(io::Error::other)?);
        }
    }
}

/// Everything in the revive topic has been looked at, or is ours.
fn done(coordinator: &Coordinator) {
    let topic = revive_topic(coordinator);
    for queue in coordinator.shared.store.queues_of(&topic) {
        if let (Some(last), Ok(queue_id)) =
            (queue.max_offset().checked_sub(1), i32::try_from(queue.id()))
        {
            let last = i64::try_from(last).expect("offsets stay below 2^63");
            let offsets = &mut coordinator.tables().offsets;
            offsets.commit(REVIVE_GROUP, &topic, queue_id, last);
        }
    }
}

fn adopt(coordinator: &Rc<Coordinator>, left: Left, is_whole: bool) -> usize {
    let pop = &coordinator.pop;
    let mut count = 0;
    for ((group, topic, queue_id), mut unacked) in left.unacked() {
        let Ok(queue_id) = u32::try_from(queue_id) else {
            continue;
        };
        let Some(queue) = coordinator.shared.store.find_queue(&topic, queue_id) else {
            continue;
        };
        // What has expired, or was never there.
        let there = queue.min_offset()..queue.max_offset();
        unacked.retain(|offset, _| there.contains(offset));
        let Some((&last, _)) = unacked.last_key_value() else {
            continue;
        };
        let place = Place {
            group: Arc::from(group),
            topic: Arc::from(topic),
            queue_id,
        };
        // A start that did not get far has done it, and this one has read it in our log.
        if is_whole && pop.table.borrow_mut().at(&place).is_some() {
            continue;
        }
        start::line_up(coordinator, &place.group, &place.topic, queue_id, false);
        let popped_to = pop
            .table
            .borrow_mut()
            .at(&place)
            .map(|slot| slot.state.next());
        count += unacked.len();
        let unacked: Vec<(u64, Unacked)> = unacked.into_iter().collect();
        let mut from = 0;
        for piece in unacked.chunks(PIECE_LEN_MAX) {
            let end = piece.last().map_or(from, |(offset, _)| offset + 1);
            let until = if end > last { u64::MAX } else { end };
            let part = Op::Part {
                // RocketMQ's offset follows its checkpoints: what lies before them was popped.
                next: popped_to.unwrap_or(0).max(last + 1),
                from,
                until,
                unacked: piece.to_vec(),
                attempt: String::new(),
            };
            pop.change(&place, &part);
            from = until;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Text;
    use protocol::json::Dialect;
    use protocol::record::Draft;

    fn note(tag: &str, body: &[u8]) -> Vec<u8> {
        let host = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let properties = format!("TAGS\u{1}{tag}\u{2}");
        let draft = Draft {
            topic: TIMER_TOPIC,
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_ms: 1,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            properties: Text::plain(properties.as_bytes()),
            body,
        };
        let mut bytes = Vec::new();
        draft.append_to(&mut bytes);
        bytes
    }

    fn checkpoint(start_offset: i64, pop_ms: i64, differences: &[i32]) -> Checkpoint {
        Checkpoint {
            consumer_group: "g".to_owned(),
            topic: "t".to_owned(),
            queue_id: 2,
            start_offset,
            pop_ms,
            invisible_ms: 60_000,
            count: i8::try_from(differences.len()).expect("few"),
            differences: Some(differences.to_vec()),
            ..Checkpoint::default()
        }
    }

    #[test]
    fn an_ack_counts_wherever_it_lies() {
        let ack = br#"{"ao":12,"c":"g","pt":5,"q":2,"so":10,"t":"t"}"#;
        let all = br#"{"aol":[20,21],"c":"g","pt":6,"q":2,"so":20,"t":"t"}"#;
        let mut left = Left::default();
        let mut message = |bytes: Vec<u8>| {
            left.message(&View::parse(&bytes).expect("a record"), 0);
        };
        message(note(ACK_TAG, ack));
        let popped = checkpoint(10, 5, &[0, 2, 3]).to_json(Dialect::Strict);
        message(note(CHECKPOINT_TAG, &popped));
        // In the revive topic and in the timers' at once.
        message(note(CHECKPOINT_TAG, &popped));
        let popped = checkpoint(20, 6, &[0, 1]).to_json(Dialect::Strict);
        message(note(CHECKPOINT_TAG, &popped));
        message(note(BATCH_ACK_TAG, all));
        // One of the first was hidden for longer.
        let changed = checkpoint(13, 9, &[0]).to_json(Dialect::Strict);
        message(note(CHECKPOINT_TAG, &changed));
        let places = left.unacked();
        let messages = &places[&("g".to_owned(), "t".to_owned(), 2)];
        let listed: Vec<_> = messages
            .iter()
            .map(|(offset, message)| (*offset, message.pop_ms, message.ahead))
            .collect();
        assert_eq!(listed, [(10, 5, 0), (13, 9, 0)]);
    }
}
