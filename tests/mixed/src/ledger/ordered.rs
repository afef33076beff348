//! The ordered stream: each key has numbers without a gap. A message is sent when the one before is acknowledged, so a
//! reader may go back after a kill or a change of members, but never miss a number.

use std::collections::HashSet;

/// What the senders know.
pub(super) struct Keys {
    /// By key: how many are acknowledged, all below.
    acknowledged: Vec<u64>,
    doubtful: HashSet<(u16, u64)>,
}

/// What a group got.
#[derive(Default)]
pub(super) struct Read {
    /// By key: the first number that has not come.
    next: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Next,
    Duplicate,
    Gap { expected: u64 },
}

impl Keys {
    pub fn new(keys: u16) -> Keys {
        Keys {
            acknowledged: vec![0; usize::from(keys)],
            doubtful: HashSet::new(),
        }
    }

    pub fn acknowledged(&mut self, key: u16, number: u64) {
        let count = &mut self.acknowledged[usize::from(key)];
        assert_eq!(*count, number, "a key's messages are sent one by one");
        *count += 1;
    }

    pub fn doubtful(&mut self, key: u16, number: u64) {
        self.doubtful.insert((key, number));
    }

    pub fn is_doubtful(&self, key: u16, number: u64) -> bool {
        self.doubtful.contains(&(key, number))
    }

    pub fn acknowledged_count(&self) -> u64 {
        self.acknowledged.iter().sum()
    }

    pub fn doubtful_count(&self) -> u64 {
        self.doubtful.len() as u64
    }
}

impl Read {
    pub fn deliver(&mut self, key: u16, number: u64) -> Verdict {
        let place = usize::from(key);
        if place >= self.next.len() {
            self.next.resize(place + 1, 0);
        }
        let expected = self.next[place];
        if number < expected {
            return Verdict::Duplicate;
        }
        self.next[place] = number + 1;
        match number == expected {
            true => Verdict::Next,
            false => Verdict::Gap { expected },
        }
    }

    /// Keys with the count of what is acknowledged and has not come.
    pub fn missing<'a>(&'a self, keys: &'a Keys) -> impl Iterator<Item = (usize, u64)> + 'a {
        let all = keys.acknowledged.iter().enumerate();
        all.filter_map(|(key, acknowledged)| {
            let next = self.next.get(key).copied().unwrap_or(0);
            (next < *acknowledged).then(|| (key, acknowledged - next))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_in_turn_or_again_but_none_is_left_out() {
        let mut read = Read::default();
        for number in 0..5 {
            assert_eq!(read.deliver(3, number), Verdict::Next);
        }
        for number in 2..5 {
            assert_eq!(read.deliver(3, number), Verdict::Duplicate);
        }
        assert_eq!(read.deliver(3, 5), Verdict::Next);
        assert_eq!(read.deliver(3, 8), Verdict::Gap { expected: 6 });
        assert_eq!(read.deliver(3, 9), Verdict::Next);
        assert_eq!(read.deliver(0, 0), Verdict::Next);
    }

    #[test]
    fn two_readers_of_one_queue_make_duplicates_and_no_gap() {
        let mut read = Read::default();
        for number in [0, 1, 2, 1, 3, 2, 3, 4, 4] {
            assert!(!matches!(read.deliver(0, number), Verdict::Gap { .. }));
        }
    }

    #[test]
    fn the_end_of_a_key_can_be_missing() {
        let mut keys = Keys::new(2);
        for number in 0..3 {
            keys.acknowledged(1, number);
        }
        let mut read = Read::default();
        assert_eq!(read.missing(&keys).collect::<Vec<_>>(), [(1, 3)]);
        read.deliver(1, 0);
        assert_eq!(read.missing(&keys).collect::<Vec<_>>(), [(1, 2)]);
    }
}
