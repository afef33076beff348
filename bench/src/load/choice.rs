//! Which messages of a producer and lane are to arrive, by their sequence numbers: all of them, or the first few of each
//! row of so many. Filters and rolled-back transactions leave the others out.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    chosen: u64,
    of: u64,
}

impl Choice {
    pub const ALL: Choice = Choice { chosen: 1, of: 1 };

    pub const fn new(chosen: u64, of: u64) -> Choice {
        assert!(0 < chosen && chosen <= of, "some, and not more than all");
        Choice { chosen, of }
    }

    pub fn is_all(self) -> bool {
        self.chosen == self.of
    }

    /// The how many-eth chosen one this is, from 0 on; `None` if it is not to arrive.
    pub fn rank(self, sequence: u64) -> Option<u64> {
        let place = sequence % self.of;
        (place < self.chosen).then(|| sequence / self.of * self.chosen + place)
    }

    /// How many of the first so many are chosen.
    pub fn count(self, sequences: u64) -> u64 {
        sequences / self.of * self.chosen + (sequences % self.of).min(self.chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_the_chosen_leave_no_gap_and_the_others_have_none() {
        let choice = Choice::new(2, 5);
        let ranks: Vec<_> = (0..8).map(|sequence| choice.rank(sequence)).collect();
        let expected = [Some(0), Some(1), None, None, None, Some(2), Some(3), None];
        assert_eq!(ranks, expected);
        assert_eq!(Choice::ALL.rank(7), Some(7));
    }

    proptest::proptest! {
        #[test]
        fn as_many_are_counted_as_have_a_rank(of in 1u64..40, part in 0u64..40, sequences in 0u64..500) {
            let choice = Choice::new(part % of + 1, of);
            let ranks: Vec<u64> = (0..sequences).filter_map(|at| choice.rank(at)).collect();
            proptest::prop_assert_eq!(choice.count(sequences), ranks.len() as u64);
            proptest::prop_assert!(ranks.iter().enumerate().all(|(at, &rank)| at as u64 == rank));
        }
    }
}
