//! Rounds: the state of all queues written into the log again, piece by piece between other ops, so that older ops are not
//! needed any more.
//!
//! The start of the last complete round is where the next start of the broker begins to read; it is kept among the consumer
//! offsets, under a group of our own. Without it everything that is left in the log is read, which gives the same. A round
//! is due when there are several times as many ops as state, and before the log with the last round's start goes.

use std::cell::Cell;
use std::rc::Rc;

use engine::LogOffset;
use reactor::Notify;
use reactor::mailbox::oneshot;

use super::entry::Place;
use super::journal::{Held, LOG_QUEUE, LOG_TOPIC};
use super::queue::{Op, Unacked};
use crate::coordinator::Coordinator;

/// Whose offset in `LOG_TOPIC` says where the last complete round begins.
const ROUND_GROUP: &str = "CID_RMQ_SYS_ORBIT_POP";
/// In place of a queue: its offset is one of the log, see `taken_over`.
const TAKEN_OVER: i32 = LOG_QUEUE as i32 + 1;
/// Fewer bytes of ops than this are read again quickly enough.
const OPS_BYTES_MIN: u64 = 4 << 20;
/// How many bytes of ops for each byte of state.
const OPS_PER_STATE: u64 = 4;
/// What one unacked message takes in a round, roughly.
const UNACKED_BYTES: u64 = 8;
/// And one queue.
const QUEUE_BYTES: u64 = 64;
/// Unacked messages in one piece.
const PIECE_LEN_MAX: usize = 4096;
/// Queues between two breaths.
const QUEUES_PER_TURN_MAX: usize = 256;

/// Lives on the coordinator's core.
#[derive(Default)]
pub struct Rounds {
    wanted: Cell<bool>,
    wake: Notify,
    /// Bytes of ops since the last round began.
    ops_bytes: Cell<u64>,
    ended: Notify,
}

impl Rounds {
    /// One is to be written as soon as possible.
    pub fn want(&self) {
        self.wanted.set(true);
        self.wake.notify();
    }

    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    /// To be called now and then: whether there are many ops.
    pub fn note(&self, ops_bytes: u64, state_bytes: impl FnOnce() -> u64) {
        let bytes = self.ops_bytes.get() + ops_bytes;
        self.ops_bytes.set(bytes);
        if bytes >= OPS_BYTES_MIN && bytes >= OPS_PER_STATE * state_bytes() {
            self.want();
        }
    }
}

/// Where the last complete round begins, if there was one.
pub fn start(coordinator: &Coordinator) -> Option<u64> {
    let tables = coordinator.tables();
    let queue_id = LOG_QUEUE as i32;
    let offset = tables.offsets.get(ROUND_GROUP, LOG_TOPIC, queue_id);
    offset.and_then(|offset| u64::try_from(offset).ok())
}

/// Where the log ended when we last took over what RocketMQ has left (`takeover`), kept as an offset of our group as well.
pub fn taken_over(coordinator: &Coordinator) -> LogOffset {
    let tables = coordinator.tables();
    let offset = tables.offsets.get(ROUND_GROUP, LOG_TOPIC, TAKEN_OVER);
    LogOffset(
        offset
            .and_then(|offset| u64::try_from(offset).ok())
            .unwrap_or(0),
    )
}

pub fn set_taken_over(coordinator: &Coordinator, end: LogOffset) {
    let end = i64::try_from(end.0).expect("logs stay below 2^63");
    let offsets = &mut coordinator.tables().offsets;
    offsets.commit(ROUND_GROUP, LOG_TOPIC, TAKEN_OVER, end);
}

/// What a round would write now, roughly.
pub fn state_bytes(coordinator: &Coordinator) -> u64 {
    let table = coordinator.pop.table.borrow();
    let slots = table.slots();
    let bytes = slots.map(|slot| QUEUE_BYTES + UNACKED_BYTES * slot.state.unacked_len() as u64);
    bytes.sum()
}

/// The task that writes them.
pub async fn run(coordinator: Rc<Coordinator>) {
    let rounds = &coordinator.pop.rounds;
    loop {
        while !rounds.wanted.get() {
            rounds.wake.notified().await;
        }
        rounds.wanted.set(false);
        if write(&coordinator).await {
            rounds.ended.notify_all();
        } else {
            reactor::sleep(super::RETRY_AFTER).await;
            rounds.wanted.set(true);
        }
    }
}

/// One round; false if it is not in the log.
pub async fn write(coordinator: &Rc<Coordinator>) -> bool {
    let pop = &coordinator.pop;
    pop.rounds.ops_bytes.set(0);
    // Ops that are on their way now come before the round or in it: both is right.
    let start = pop.journal.queue().max_offset();
    let places: Vec<Place> = {
        let table = pop.table.borrow();
        table.slots().map(|slot| slot.place.clone()).collect()
    };
    for (index, place) in places.iter().enumerate() {
        if !pieces(coordinator, place).await {
            return false;
        }
        if index % QUEUES_PER_TURN_MAX == QUEUES_PER_TURN_MAX - 1 && !landed(coordinator).await {
            return false;
        }
    }
    if !landed(coordinator).await {
        return false;
    }
    let start = i64::try_from(start).expect("offsets stay below 2^63");
    let mut tables = coordinator.tables();
    let queue_id = LOG_QUEUE as i32;
    tables
        .offsets
        .commit(ROUND_GROUP, LOG_TOPIC, queue_id, start);
    true
}

/// False if one of them is not in the log: whether the others are does not matter then.
async fn pieces(coordinator: &Rc<Coordinator>, place: &Place) -> bool {
    let pop = &coordinator.pop;
    let mut from = 0;
    loop {
        let piece = {
            let mut table = pop.table.borrow_mut();
            // It may be gone since the round began; then its end is in the log as well.
            let Some(slot) = table.at(place) else {
                return true;
            };
            let unacked = slot.state.unacked_from(from).take(PIECE_LEN_MAX);
            let unacked: Vec<(u64, Unacked)> =
                unacked.map(|(at, &message)| (at, message)).collect();
            let until = match unacked.last() {
                Some(&(last, _)) if unacked.len() == PIECE_LEN_MAX => last + 1,
                _ => u64::MAX,
            };
            Op::Part {
                next: slot.state.next(),
                from,
                until,
                unacked,
                attempt: slot.state.attempt().to_owned(),
            }
        };
        pop.journal.add(place, &piece);
        let Op::Part { until, .. } = piece else {
            unreachable!("made above");
        };
        if until == u64::MAX {
            return true;
        }
        from = until;
        if !landed(coordinator).await {
            return false;
        }
    }
}

async fn landed(coordinator: &Coordinator) -> bool {
    let (reply, landed) = oneshot();
    coordinator.pop.journal.hold(Held::Task(reply));
    landed.await.unwrap_or(false)
}
