//! What the broker has promised: for each queue and offset, which message it said it stored there. Eight bytes a
//! message, so that tens of millions can be held against the queues in the end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::error::Result;
use crate::fill;
use crate::ledger::Counts;
use crate::load::produce::Ack;
use crate::load::{Lane, Plan};
use crate::payload::Stamp;
use crate::progress;

pub struct Acknowledged {
    lanes: Vec<Vec<Entry>>,
    count: u64,
    given_twice: u64,
    changed: u64,
}

/// Identity of a message with the lowest bit telling whether it was read back; 0: nothing was acknowledged here.
type Entry = u64;
const FOUND: u64 = 1;
/// Connections that read back.
const READERS: usize = 4;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub lost: u64,
    /// Another message lies where this one was acknowledged.
    pub changed: u64,
    pub given_twice: u64,
}

pub fn lock(acknowledged: &Mutex<Acknowledged>) -> MutexGuard<'_, Acknowledged> {
    acknowledged.lock().expect("nobody panics while holding it")
}

/// Reads every lane from its first message to its end and holds what is found against what was promised.
pub fn read_back(
    broker: SocketAddr,
    lanes: &[Lane],
    acknowledged: &Arc<Mutex<Acknowledged>>,
) -> Result<(Verdict, Counts)> {
    let seen = acknowledged.clone();
    let plan = Plan {
        observer: Some(Box::new(move |lane, queue_offset, stamp: &Stamp| {
            lock(&seen).found(lane, queue_offset, stamp);
        })),
        ..fill::reading(broker, lanes, READERS)
    };
    let outcome = progress::run("reading back", plan)?;
    let counts = outcome.consumed.expect("the plan reads").counts;
    Ok((lock(acknowledged).verdict(), counts))
}

impl Acknowledged {
    pub fn new(lanes: usize) -> Acknowledged {
        Acknowledged {
            lanes: vec![Vec::new(); lanes],
            count: 0,
            given_twice: 0,
            changed: 0,
        }
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn acknowledge(&mut self, ack: Ack) {
        let offset = usize::try_from(ack.queue_offset).expect("offsets fit the address space");
        let lane = &mut self.lanes[ack.lane as usize];
        if lane.len() <= offset {
            lane.resize(offset + 1, 0);
        }
        let identity = identity(ack.producer, ack.sequence);
        match lane[offset] {
            0 => lane[offset] = identity,
            before if before == identity => {}
            _ => self.given_twice += 1,
        }
        self.count += 1;
    }

    /// A message was read at this place.
    pub fn found(&mut self, lane: usize, queue_offset: u64, stamp: &Stamp) {
        let place = usize::try_from(queue_offset)
            .ok()
            .and_then(|offset| self.lanes[lane].get_mut(offset));
        // Messages that were stored but whose acknowledgement the kill swallowed are welcome.
        let Some(entry) = place.filter(|entry| **entry != 0) else {
            return;
        };
        if *entry & !FOUND == identity(stamp.producer, stamp.sequence) {
            *entry |= FOUND;
        } else {
            self.changed += 1;
        }
    }

    pub fn verdict(&self) -> Verdict {
        let entries = self.lanes.iter().flatten();
        let not_found = entries
            .filter(|entry| **entry != 0 && **entry & FOUND == 0)
            .count() as u64;
        Verdict {
            lost: not_found - self.changed.min(not_found),
            changed: self.changed,
            given_twice: self.given_twice,
        }
    }
}

/// Never 0 and never with the lowest bit set.
fn identity(producer: u32, sequence: u64) -> u64 {
    let mixed = (u64::from(producer) << 32 ^ sequence).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ mixed >> 29) & !FOUND | 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(sequence: u64, queue_offset: u64) -> Ack {
        Ack {
            producer: 7,
            lane: 0,
            sequence,
            queue_offset,
        }
    }

    fn stamp(sequence: u64) -> Stamp {
        Stamp {
            producer: 7,
            lane: 0,
            sequence,
            intended_ns: 0,
        }
    }

    #[test]
    fn what_is_read_where_it_was_acknowledged_is_well() {
        let mut all = Acknowledged::new(1);
        all.acknowledge(ack(0, 0));
        all.acknowledge(ack(1, 2));
        for (offset, sequence) in [(0, 0), (1, 99), (2, 1), (3, 100)] {
            all.found(0, offset, &stamp(sequence));
        }
        assert_eq!(all.verdict(), Verdict::default());
        assert_eq!(all.count(), 2);
    }

    #[test]
    fn a_lost_a_changed_and_a_twice_given_offset_are_told_apart() {
        let mut all = Acknowledged::new(1);
        all.acknowledge(ack(0, 0));
        all.acknowledge(ack(1, 1));
        all.acknowledge(ack(2, 1));
        all.found(0, 0, &stamp(5));
        let expected = Verdict {
            lost: 1,
            changed: 1,
            given_twice: 1,
        };
        assert_eq!(all.verdict(), expected);
    }
}
