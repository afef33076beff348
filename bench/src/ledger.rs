//! What the consumer has seen, for each producer and lane: which sequence numbers are missing, came twice, or came
//! after a later one. Memory grows only with what is missing.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use serde::Serialize;

use crate::payload::Stamp;

#[derive(Default)]
pub struct Ledger {
    lines: HashMap<(u32, u32), Line>,
    counts: Counts,
    joins_late: bool,
}

#[derive(Default)]
struct Line {
    /// The lowest sequence number above everything seen.
    next: u64,
    missing: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub messages: u64,
    pub lost: u64,
    pub duplicates: u64,
    /// Messages that came after a later one of the same producer and queue.
    pub out_of_order: u64,
    /// Body CRC, record CRC, or a record that contradicts its place.
    pub damaged: u64,
}

impl Counts {
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicates == 0 && self.damaged == 0
    }
}

impl Ledger {
    /// For a reader that does not begin at the first message: a line starts where it is first seen.
    pub fn joining_late() -> Ledger {
        Ledger {
            joins_late: true,
            ..Ledger::default()
        }
    }

    pub fn saw(&mut self, stamp: &Stamp) {
        self.counts.messages += 1;
        let first = if self.joins_late { stamp.sequence } else { 0 };
        let line = self
            .lines
            .entry((stamp.producer, stamp.lane))
            .or_insert_with(|| Line {
                next: first,
                missing: BTreeSet::new(),
            });
        if stamp.sequence == line.next {
            line.next += 1;
        } else if stamp.sequence > line.next {
            line.missing.extend(line.next..stamp.sequence);
            line.next = stamp.sequence + 1;
        } else {
            self.counts.out_of_order += 1;
            if !line.missing.remove(&stamp.sequence) {
                self.counts.duplicates += 1;
                self.counts.out_of_order -= 1;
            }
        }
    }

    pub fn saw_damage(&mut self) {
        self.counts.damaged += 1;
    }

    /// The producer had `sent` messages acknowledged or unanswered on this lane, `refused` of them in vain.
    pub fn expect(&mut self, producer: u32, lane: u32, sent: u64, refused: &[u64]) {
        let line = self.lines.entry((producer, lane)).or_default();
        if line.next < sent {
            line.missing.extend(line.next..sent);
            line.next = sent;
        }
        for sequence in refused {
            line.missing.remove(sequence);
        }
    }

    pub fn messages(&self) -> u64 {
        self.counts.messages
    }

    pub fn counts(&self) -> Counts {
        Counts {
            lost: self
                .lines
                .values()
                .map(|line| line.missing.len() as u64)
                .sum(),
            ..self.counts
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts_of(sequences: &[u64]) -> Counts {
        let mut ledger = Ledger::default();
        for &sequence in sequences {
            ledger.saw(&Stamp {
                producer: 1,
                lane: 2,
                sequence,
                intended_ns: 0,
            });
        }
        ledger.counts()
    }

    #[test]
    fn an_unbroken_sequence_is_clean() {
        let counts = counts_of(&[0, 1, 2, 3]);
        assert!(counts.is_clean() && counts.out_of_order == 0 && counts.messages == 4);
    }

    #[test]
    fn a_gap_is_a_loss_until_it_is_filled_out_of_order() {
        assert_eq!(counts_of(&[0, 3]).lost, 2);
        let filled = counts_of(&[0, 3, 1, 2]);
        assert_eq!(
            (filled.lost, filled.out_of_order, filled.duplicates),
            (0, 2, 0)
        );
    }

    #[test]
    fn the_second_copy_is_a_duplicate_and_not_out_of_order() {
        let counts = counts_of(&[0, 1, 1, 0]);
        assert_eq!((counts.duplicates, counts.out_of_order), (2, 0));
    }

    #[test]
    fn what_never_came_is_lost_unless_it_was_refused() {
        let mut ledger = Ledger::default();
        ledger.expect(1, 0, 5, &[3]);
        assert_eq!(ledger.counts().lost, 4);
    }
}
