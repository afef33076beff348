//! Where pulls have left their consumers: ahead of what is committed by what is still being consumed.
//!
//! Kept beside the coordinator, a second behind, and lost with the process: the next pull says it again.

use std::collections::BTreeMap;

use hashbrown::{Equivalent, HashMap};

use super::tally::Reading;

/// Pairs of topic and group. When there are more, all are forgotten: those that go on pulling are back within a second.
const KEYS_MAX: usize = 100_000;

#[derive(Debug, Default)]
pub struct Pulled(HashMap<Reading, BTreeMap<u32, u64>>);

impl Pulled {
    /// What came last counts: an operator may have sent the group back.
    pub fn take(&mut self, reading: Reading, queues: BTreeMap<u32, u64>) {
        if self.0.len() >= KEYS_MAX && !self.0.contains_key(&reading) {
            self.0.clear();
        }
        self.0.entry(reading).or_default().extend(queues);
    }

    pub fn next<Q>(&self, reading: &Q, queue_id: u32) -> Option<u64>
    where
        Q: std::hash::Hash + Equivalent<Reading>,
    {
        self.0.get(reading)?.get(&queue_id).copied()
    }

    pub fn retain(&mut self, keep: impl Fn(&Reading) -> bool) {
        self.0.retain(|reading, _| keep(reading));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(group: &str) -> Reading {
        Reading {
            topic: "t".into(),
            group: group.into(),
        }
    }

    #[test]
    fn the_last_place_of_each_queue_counts() {
        let mut pulled = Pulled::default();
        pulled.take(reading("g"), [(0, 5), (1, 9)].into());
        pulled.take(reading("g"), [(0, 3)].into());
        let next = |queue_id| pulled.next(&reading("g"), queue_id);
        assert_eq!((next(0), next(1), next(2)), (Some(3), Some(9), None));
        assert_eq!(pulled.next(&reading("other"), 0), None);
        pulled.retain(|reading| &*reading.group != "g");
        assert_eq!(pulled.next(&reading("g"), 0), None);
    }

    #[test]
    fn there_is_a_most_of_them() {
        let mut pulled = Pulled::default();
        for number in 0..=KEYS_MAX {
            pulled.take(reading(&number.to_string()), [(0, 1)].into());
        }
        assert_eq!(pulled.0.len(), 1);
        assert_eq!(pulled.next(&reading(&KEYS_MAX.to_string()), 0), Some(1));
    }
}
