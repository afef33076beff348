//! Reading for a pull, and what follows from what is found.

use std::rc::Rc;

use engine::{QueueOffset, Read, ReadLimits};
use reactor::Gather;

use super::answer::Moved;
use super::{Pull, answer, cold};
use crate::shard::{Connection, Shard};

pub enum Outcome {
    /// Answered, or about to be by a task of its own.
    Done,
    /// There is no message for it yet.
    Nothing(Pull),
}

/// The first look: whatever there is to be said is said now.
pub fn look(shard: &Rc<Shard>, connection: &Rc<Connection>, pull: Pull) -> Outcome {
    let (min, max) = (pull.queue.min_offset(), pull.queue.max_offset());
    let outside = match u64::try_from(pull.offset) {
        _ if max == 0 && pull.offset != 0 => Some((Moved::NothingInQueue, 0)),
        Ok(offset) if offset > max => Some((Moved::BeyondEnd, max)),
        Ok(offset) if offset >= min => None,
        _ => Some((Moved::BelowStart, min)),
    };
    if let Some((why, next)) = outside {
        answer::moved(shard, &pull, why, next);
        return Outcome::Done;
    }
    let looked = look_again(shard, connection, pull);
    match looked {
        Outcome::Nothing(pull) if pull.passed_over() => {
            answer::nothing(shard, &pull);
            Outcome::Done
        }
        other => other,
    }
}

/// As `look`, but goes on waiting when the filter takes nothing of what is new.
pub fn look_again(shard: &Rc<Shard>, connection: &Rc<Connection>, mut pull: Pull) -> Outcome {
    pull.looked_at = reactor::turn_time();
    let limits = limits(shard, &pull);
    let mut gather = shard.scratch.gather.borrow_mut();
    gather.clear();
    let from = QueueOffset(pull.looked_until);
    let store = &shard.shared.store;
    match store.read_to_send(
        &pull.queue,
        from,
        &limits,
        pull.wanted.filter(),
        &mut gather,
    ) {
        Read::Cold(place) => {
            pull.from_disk = true;
            cold::start(shard, connection, pull, place);
            Outcome::Done
        }
        read => {
            let outcome = conclude(shard, connection, pull, read, &mut gather);
            debug_assert!(!gather.is_lent(), "what was found has left with the answer");
            outcome
        }
    }
}

/// Answers what was read, unless there was nothing to read.
pub fn conclude(
    shard: &Shard,
    connection: &Rc<Connection>,
    mut pull: Pull,
    read: Read,
    gather: &mut Gather,
) -> Outcome {
    match read {
        Read::Found(found) => answer::found(shard, connection, &pull, &found, gather),
        Read::Empty => return Outcome::Nothing(pull),
        Read::NoneMatched { next } => {
            assert!(next.0 >= pull.looked_until, "a filter only moves on");
            pull.looked_until = next.0;
            return Outcome::Nothing(pull);
        }
        Read::BeyondEnd { max } => answer::moved(shard, &pull, Moved::BeyondEnd, max.0),
        Read::BelowStart { min } => answer::moved(shard, &pull, Moved::BelowStart, min.0),
        Read::Cold(_) => unreachable!("what was fetched is not cold"),
    }
    Outcome::Done
}

fn limits(shard: &Shard, pull: &Pull) -> ReadLimits {
    let views = shard.views.borrow();
    let settings = views.settings.value();
    let bytes = |limit: u64| u32::try_from(limit).unwrap_or(u32::MAX);
    ReadLimits {
        messages_max: pull.messages_max,
        memory_messages_max: settings.pull_memory_messages_max,
        memory_bytes_max: bytes(settings.pull_memory_bytes_max),
        disk_messages_max: settings.pull_disk_messages_max,
        disk_bytes_max: bytes(settings.pull_disk_bytes_max),
        ..ReadLimits::default()
    }
}

impl Pull {
    /// Messages came, and the filter took none of them.
    pub(super) fn passed_over(&self) -> bool {
        u64::try_from(self.offset).is_ok_and(|offset| self.looked_until > offset)
    }
}
