//! Pulls of consumers who do not know yet that an operator has set their offset (`crate::resets`).

use std::sync::Arc;

use super::Pull;
use super::answer::{self, Moved};
use crate::messages::ToCoordinator;
use crate::resets::Place;
use crate::shard::{Connection, Shard};

/// Answers a pull that goes on where its group no longer is. False if there is nothing to say: hardly ever is there.
pub fn sent_elsewhere(shard: &Shard, connection: &Connection, pull: &Pull) -> bool {
    let Some((place, offset)) = pending(shard, pull) else {
        return false;
    };
    let is_there = offset == pull.offset;
    let message = match is_there {
        true => ToCoordinator::ResetFollowed { place, offset },
        false => ToCoordinator::ResetTold(place),
    };
    connection.to_coordinator(&shard.shared.requests, message, false);
    if !is_there {
        let next = u64::try_from(offset).expect("offsets are set to what is in the queue");
        answer::moved(shard, pull, Moved::Reset, next);
    }
    !is_there
}

pub fn is_elsewhere(shard: &Shard, pull: &Pull) -> bool {
    pending(shard, pull).is_some_and(|(_, offset)| offset != pull.offset)
}

fn pending(shard: &Shard, pull: &Pull) -> Option<(Place, i64)> {
    let views = shard.views.borrow();
    let resets = views.resets.value();
    if resets.is_empty() {
        return None;
    }
    let place = Place {
        group: Arc::clone(&pull.group),
        topic: Arc::clone(pull.topic.name()),
        queue_id: i32::try_from(pull.queue.id()).expect("it came as an i32"),
    };
    let offset = resets.get(&place).copied()?;
    Some((place, offset))
}
