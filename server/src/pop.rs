//! POP: consumers take messages that are hidden from the others of their group until they are acknowledged, or for a while.
//!
//! ```text
//! handlers/pop ──► take ──► table (queue.rs: the state machine) ──► journal ──► LOG_TOPIC in the log
//!                   │                                                 └──► the answer, once its op is safe
//!                   └──► parked: nothing there; woken by an append, by a message that is visible again, or in time
//! ```
//!
//! All of it lives beside the coordinator. A message that was not acknowledged stays in its place and is delivered from
//! there again: nothing is copied when its time is up, so nothing can be lost then. The group's consumer offset is never behind
//! a message that is not acknowledged: whoever takes the store over delivers it again. Decision 11 says why.

pub mod assign;
mod dead;
pub mod entry;
mod handback;
pub mod journal;
pub mod modes;
pub mod owed;
pub mod parked;
pub mod queue;
mod read;
mod replay;
pub mod rounds;
pub mod routes;
pub mod serve;
pub mod start;
pub mod table;
pub mod take;
mod takeover;
pub mod wanted;

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use engine::{LogOffset, Store};

use crate::coordinator::Coordinator;
use crate::handlers::pull::ColdReads;
use crate::shard::Shard;
use crate::stats::tally::Got;
use entry::Place;
use handback::Handed;
use journal::{Journal, LOG_QUEUE, LOG_TOPIC, Popped};
use modes::Modes;
use owed::Moved;
use parked::Parked;
use queue::{Op, PopQueue, Unacked};
use rounds::Rounds;
use routes::Routes;
use table::{KeyRef, Table};

/// After something that did not work.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often the table of offsets hears how far groups are.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Lives on the coordinator's core.
pub struct Pop {
    pub table: RefCell<Table>,
    pub journal: Journal,
    pub rounds: Rounds,
    pub parked: Parked,
    pub modes: Modes,
    pub routes: Routes,
    pub moved: Moved,
    pub cold_reads: ColdReads,
    /// Where waiting for appends is done.
    shard: OnceCell<Rc<Shard>>,
    /// Where in the log begins what a stop has left for RocketMQ.
    handed_from: Cell<LogOffset>,
    handed: RefCell<Handed>,
}

/// How far a group is in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The first message that was never popped.
    pub next: u64,
    /// Popped and not acknowledged.
    pub unacked: u64,
}

impl Pop {
    pub fn new(store: &Store) -> Self {
        Self {
            table: RefCell::default(),
            journal: Journal::new(store.queue(LOG_TOPIC, LOG_QUEUE)),
            rounds: Rounds::default(),
            parked: Parked::default(),
            modes: Modes::default(),
            routes: Routes::default(),
            moved: Moved::default(),
            cold_reads: ColdReads::of_shard(),
            shard: OnceCell::new(),
            handed_from: Cell::new(LogOffset(u64::MAX)),
            handed: RefCell::default(),
        }
    }

    /// What lies there in the timers' topic is for RocketMQ; nothing before the stop.
    pub fn handed_from(&self) -> LogOffset {
        self.handed_from.get()
    }

    /// Takes a change over and lets it be written.
    pub fn change(&self, place: &Place, op: &Op) -> usize {
        let hold = self.table.borrow_mut().apply(place, op);
        self.journal.add(place, op);
        hold
    }

    /// These messages reached nobody: they are visible at once, and this was no delivery.
    pub fn give_up(&self, popped: &Popped) {
        for &(offset, times) in &popped.messages {
            let undo = {
                let mut table = self.table.borrow_mut();
                let slot = table.at(&popped.place);
                slot.and_then(|slot| undo(&slot.state, popped, offset, times))
            };
            if let Some(undo) = undo {
                self.change(&popped.place, &undo);
            }
        }
    }

    /// What was looked for and is not there is not owed to anybody any more.
    pub fn gone(&self, place: &Place, offset: u64) {
        let pop_ms = {
            let mut table = self.table.borrow_mut();
            let slot = table.at(place);
            slot.and_then(|slot| slot.state.get(offset).map(|message| message.pop_ms))
        };
        if let Some(pop_ms) = pop_ms {
            tracing::warn!(
                ?place,
                offset,
                "an unacknowledged message cannot be read any more"
            );
            let offsets = vec![offset];
            self.change(place, &Op::Ack { offsets, pop_ms });
        }
    }

    pub fn progress(&self, group: &str, topic: &str, queue_id: u32) -> Option<Progress> {
        let table = self.table.borrow();
        let slot = table.get(KeyRef { group, topic }, queue_id)?;
        Some(Progress {
            next: slot.state.next(),
            unacked: slot.state.unacked_len() as u64,
        })
    }

    /// An operator sets the group to an offset: what it popped before is forgotten. Nothing happens to a queue that it
    /// does not pop.
    pub fn reset(&self, group: &str, topic: &str, queue_id: u32, offset: u64) {
        let place = {
            let mut table = self.table.borrow_mut();
            let Some(slot) = table.get_mut(KeyRef { group, topic }, queue_id) else {
                return;
            };
            slot.told = i64::try_from(offset).unwrap_or(i64::MAX);
            slot.place.clone()
        };
        self.change(&place, &Op::Start { next: offset });
    }

    pub fn forget_topic(&self, topic: &str) {
        self.forget(|place| &*place.topic == topic);
    }

    pub fn forget_group(&self, group: &str) {
        self.forget(|place| &*place.group == group);
    }

    fn forget(&self, is_gone: impl Fn(&Place) -> bool) {
        let gone: Vec<Place> = {
            let table = self.table.borrow();
            let places = table.slots().map(|slot| &slot.place);
            places.filter(|place| is_gone(place)).cloned().collect()
        };
        self.moved.forget_where(is_gone);
        for place in gone {
            self.change(&place, &Op::Forget);
        }
    }

    /// Tells the table of offsets how far groups are.
    pub fn tell(&self, coordinator: &Coordinator) {
        let mut table = self.table.borrow_mut();
        let moved = table.take_moved();
        if moved.is_empty() {
            return;
        }
        let offsets = &mut coordinator.tables().offsets;
        for place in moved {
            let Some(slot) = table.at(&place) else {
                continue;
            };
            let done_to = i64::try_from(slot.state.done_to()).expect("offsets stay below 2^63");
            if done_to == slot.told {
                continue;
            }
            let queue_id = i32::try_from(place.queue_id).expect("queue ids are 31 bits wide");
            // Somebody else has set it meanwhile: that is looked at when the group pops again.
            let known = offsets.get(&place.group, &place.topic, queue_id);
            if known.is_none_or(|known| known == slot.told || known < 0) {
                offsets.commit(&place.group, &place.topic, queue_id, done_to);
                slot.told = done_to;
            }
        }
    }

    /// Before anybody pops: the state as the log has it.
    pub async fn load(&self, coordinator: &Rc<Coordinator>) -> io::Result<()> {
        let config_dir = coordinator.settings().store_root.join("config");
        self.modes.load(&config_dir)?;
        let store = &coordinator.shared.store;
        let queue = self.journal.queue();
        // What a power cut has taken is above the end; then the round is not known to be there.
        let from = rounds::start(coordinator).filter(|&offset| offset <= queue.max_offset());
        let replayed = replay::run(store, queue, from.unwrap_or(0)).await?;
        let mut table = replayed.table;
        if !replayed.is_whole {
            tracing::error!(
                "the log of POP is damaged: groups go on from their offsets, and get again what they acknowledged behind them"
            );
        }
        adopt(&mut table, coordinator, replayed.is_whole);
        *self.table.borrow_mut() = table;
        takeover::take_over(coordinator, replayed.is_whole).await
    }

    /// Starts the tasks. `shard` lives on this core.
    pub fn start(&self, coordinator: &Rc<Coordinator>, shard: &Rc<Shard>) {
        assert!(self.shard.set(Rc::clone(shard)).is_ok(), "started once");
        reactor::spawn("pop journal", Journal::run(Rc::clone(coordinator)));
        reactor::spawn("pop rounds", rounds::run(Rc::clone(coordinator)));
        reactor::spawn("pop offsets", telling(Rc::clone(coordinator)));
        let asked = coordinator.shared.store.owe();
        reactor::spawn(
            "move popped messages",
            owed::run(Rc::clone(coordinator), asked),
        );
        reactor::spawn("pop clock", parked::clock(Rc::clone(coordinator)));
    }

    /// For the statistics.
    pub fn note_acks(&self, place: &Place, count: usize) {
        let acks = Got {
            acks: count as u64,
            ..Got::default()
        };
        self.shard().tally.got(&place.group, &place.topic, acks);
    }

    fn shard(&self) -> &Rc<Shard> {
        self.shard.get().expect("started before anybody pops")
    }

    /// Everything is in the log afterwards, and the table of offsets knows of it.
    pub async fn stop(&self, coordinator: &Rc<Coordinator>) {
        self.journal.idle().await;
        self.tell(coordinator);
        self.handed_from.set(coordinator.shared.store.written());
        *self.handed.borrow_mut() = handback::give(coordinator).await;
    }

    /// What was handed to RocketMQ is safe: the table of offsets may say so.
    pub fn log_is_closed(&self, coordinator: &Coordinator) {
        handback::commit(coordinator, self.handed.take());
    }
}

/// None if somebody has got the message since.
fn undo(state: &PopQueue, popped: &Popped, offset: u64, times: u32) -> Option<Op> {
    let message = state.get(offset)?;
    if message.pop_ms != popped.pop_ms {
        return None;
    }
    let before = Unacked {
        // Nothing else may have the name of what was refused.
        pop_ms: popped.pop_ms + 1,
        due_ms: reactor::wall_ms(),
        times,
        ahead: 0,
    };
    Some(Op::Part {
        next: state.next(),
        from: offset,
        until: offset + 1,
        unacked: vec![(offset, before)],
        // The request that got nothing gets it as any other would.
        attempt: popped.attempt.clone(),
    })
}

/// Lines up what the log says with the table of offsets, which is saved apart from it.
fn adopt(table: &mut Table, coordinator: &Coordinator, is_whole: bool) {
    let places: Vec<Place> = table.slots().map(|slot| slot.place.clone()).collect();
    table.take_moved();
    let offsets = &mut coordinator.tables().offsets;
    for place in places {
        let slot = table.at(&place).expect("listed above");
        let queue_id = i32::try_from(place.queue_id).unwrap_or(i32::MAX);
        let saved = offsets.get(&place.group, &place.topic, queue_id);
        let saved = saved.and_then(|offset| u64::try_from(offset).ok());
        let saved = saved.unwrap_or(0).min(slot.queue.max_offset());
        // Every message before the saved offset was done, whatever ops a power cut has taken.
        if saved > slot.state.next() || !is_whole {
            slot.state.apply(&Op::Start { next: saved });
        }
        let done_to = i64::try_from(slot.state.done_to()).expect("offsets stay below 2^63");
        offsets.commit(&place.group, &place.topic, queue_id, done_to);
        slot.told = done_to;
    }
}

async fn telling(coordinator: Rc<Coordinator>) {
    let pop = &coordinator.pop;
    loop {
        reactor::sleep(TELL_EVERY).await;
        pop.tell(&coordinator);
        let bytes = pop.journal.take_bytes();
        pop.rounds.note(bytes, || rounds::state_bytes(&coordinator));
    }
}
