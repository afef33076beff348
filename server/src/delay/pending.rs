//! The timers that are parked, as far as they are kept in memory: three words each, and nothing sorted before its time.
//!
//! Those that are due soon lie in a heap; all others in boxes of a few seconds, in the order in which they came. When its
//! time comes near, a whole box moves into the heap. A million of them take about 30 MB.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use engine::LogOffset;

/// How much time one box covers.
const BOX_MS: i64 = 4_096;
/// A box grows by a quarter: at most so much of it is empty.
const GROWTH: usize = 4;

/// In the order in which they are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    pub due_ms: i64,
    /// In the timers' queue.
    pub offset: u64,
    /// Of the record.
    pub place: LogOffset,
}

impl Timer {
    pub fn key(&self) -> Key {
        (self.due_ms, self.offset)
    }
}

/// When it is due, and its queue offset.
pub type Key = (i64, u64);

#[derive(Debug)]
pub struct Pending {
    /// Everything that is due before `near_end_ms`.
    near: BinaryHeap<Reverse<Timer>>,
    near_end_ms: i64,
    /// Everything else, by due time divided by a box's length.
    later: BTreeMap<i64, Later>,
    len: usize,
}

#[derive(Debug, Default)]
struct Later {
    timers: Vec<Timer>,
    /// None of them lies before these two.
    offset_min: u64,
    place_min: LogOffset,
}

impl Default for Pending {
    fn default() -> Self {
        Self {
            near: BinaryHeap::new(),
            near_end_ms: i64::MIN,
            later: BTreeMap::new(),
            len: 0,
        }
    }
}

impl Pending {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn add(&mut self, timer: Timer) {
        self.len += 1;
        if timer.due_ms < self.near_end_ms {
            self.near.push(Reverse(timer));
            return;
        }
        let later = self.later.entry(timer.due_ms.div_euclid(BOX_MS));
        let later = later.or_insert_with(|| Later {
            timers: Vec::new(),
            offset_min: timer.offset,
            place_min: timer.place,
        });
        later.offset_min = later.offset_min.min(timer.offset);
        later.place_min = later.place_min.min(timer.place);
        let timers = &mut later.timers;
        if timers.len() == timers.capacity() {
            timers.reserve_exact(timers.len() / GROWTH + GROWTH);
        }
        timers.push(timer);
    }

    /// Takes the first one if it is due before `end_ms`.
    pub fn pop_before(&mut self, end_ms: i64) -> Option<Timer> {
        self.bring_near(end_ms);
        if self.near.peek()?.0.due_ms >= end_ms {
            return None;
        }
        self.len -= 1;
        self.near.pop().map(|Reverse(timer)| timer)
    }

    /// Whole boxes, so that the heap and the boxes never overlap.
    fn bring_near(&mut self, end_ms: i64) {
        let last = end_ms.saturating_sub(1).div_euclid(BOX_MS);
        while let Some(first) = self.later.first_entry()
            && *first.key() <= last
        {
            self.near
                .extend(first.remove().timers.into_iter().map(Reverse));
        }
        let end_ms = last.saturating_add(1).saturating_mul(BOX_MS);
        self.near_end_ms = self.near_end_ms.max(end_ms);
    }

    /// Takes it out whenever it is due; false if it is not here.
    pub fn remove(&mut self, key: Key) -> bool {
        let len_before = self.len;
        if key.0 < self.near_end_ms {
            let near = self.near.len();
            self.near.retain(|Reverse(timer)| timer.key() != key);
            self.len -= near - self.near.len();
            return self.len < len_before;
        }
        let number = key.0.div_euclid(BOX_MS);
        let Some(later) = self.later.get_mut(&number) else {
            return false;
        };
        if let Some(at) = later.timers.iter().position(|timer| timer.key() == key) {
            later.timers.swap_remove(at);
            later.find_first();
            self.len -= 1;
        }
        if later.timers.is_empty() {
            self.later.remove(&number);
        }
        self.len < len_before
    }

    pub fn iter(&self) -> impl Iterator<Item = &Timer> {
        let near = self.near.iter().map(|Reverse(timer)| timer);
        near.chain(self.later.values().flat_map(|later| &later.timers))
    }

    /// Not later than the first of them is due; exact if that is soon.
    pub fn first_due_ms(&self) -> Option<i64> {
        if let Some(Reverse(first)) = self.near.peek() {
            return Some(first.due_ms);
        }
        let (number, _) = self.later.first_key_value()?;
        Some(number.saturating_mul(BOX_MS))
    }

    /// No timer lies before this offset of the queue.
    pub fn first_offset(&self) -> Option<u64> {
        let near = self.near.iter().map(|Reverse(timer)| timer.offset);
        let later = self.later.values().map(|later| later.offset_min);
        near.chain(later).min()
    }

    /// Those that are due at or before this key.
    pub fn up_to(&mut self, key: Key) -> impl Iterator<Item = &Timer> {
        self.bring_near(key.0.saturating_add(1));
        let near = self.near.iter().map(|Reverse(timer)| timer);
        near.filter(move |timer| timer.key() <= key)
    }

    /// Takes those whose records lie below.
    pub fn take_below(&mut self, below: LogOffset) -> Vec<Timer> {
        let mut taken = Vec::new();
        let is_old = |timer: &Timer| timer.place < below;
        if self.near.iter().any(|Reverse(timer)| is_old(timer)) {
            let all = std::mem::take(&mut self.near).into_iter();
            let (old, rest): (Vec<_>, Vec<_>) = all.partition(|Reverse(timer)| is_old(timer));
            self.near = rest.into();
            taken.extend(old.into_iter().map(|Reverse(timer)| timer));
        }
        self.later.retain(|_, later| {
            if later.place_min < below {
                taken.extend(later.timers.extract_if(.., |timer| is_old(timer)));
                later.find_first();
            }
            !later.timers.is_empty()
        });
        self.len -= taken.len();
        taken
    }
}

impl Later {
    /// After some were taken.
    fn find_first(&mut self) {
        let offsets = self.timers.iter().map(|timer| timer.offset);
        self.offset_min = offsets.min().unwrap_or(u64::MAX);
        let places = self.timers.iter().map(|timer| timer.place);
        self.place_min = places.min().unwrap_or(LogOffset(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn timer(due_ms: i64, offset: u64) -> Timer {
        Timer {
            due_ms,
            offset,
            place: LogOffset(offset * 100),
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(i64),
        Pop(i64),
        Remove(prop::sample::Index),
        TakeBelow(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (-5_000i64..60_000).prop_map(Step::Add),
            3 => (-5_000i64..60_000).prop_map(Step::Pop),
            1 => any::<prop::sample::Index>().prop_map(Step::Remove),
            1 => (0u64..20_000).prop_map(Step::TakeBelow),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_set(steps in prop::collection::vec(step(), 0..200)) {
            let mut pending = Pending::default();
            let mut model: BTreeSet<Timer> = BTreeSet::new();
            for (offset, step) in (0u64..).zip(steps) {
                match step {
                    Step::Add(due_ms) => {
                        pending.add(timer(due_ms, offset));
                        model.insert(timer(due_ms, offset));
                    }
                    Step::Pop(end_ms) => {
                        let first = model.first().copied().filter(|timer| timer.due_ms < end_ms);
                        prop_assert_eq!(pending.pop_before(end_ms), first);
                        if let Some(first) = first {
                            let rest: Vec<Key> = pending.up_to(first.key()).map(Timer::key).collect();
                            prop_assert_eq!(rest, Vec::new());
                            model.remove(&first);
                        }
                    }
                    Step::Remove(index) => {
                        let all: Vec<Timer> = model.iter().copied().collect();
                        if !all.is_empty() {
                            let timer = index.get(&all);
                            prop_assert!(pending.remove(timer.key()));
                            prop_assert!(!pending.remove(timer.key()));
                            model.remove(timer);
                        }
                    }
                    Step::TakeBelow(below) => {
                        let taken = pending.take_below(LogOffset(below));
                        let old = model.iter().filter(|timer| timer.place.0 < below).count();
                        prop_assert_eq!(taken.len(), old);
                        for timer in taken {
                            prop_assert!(timer.place.0 < below && model.remove(&timer));
                        }
                    }
                }
                prop_assert_eq!(pending.len(), model.len());
                prop_assert_eq!(pending.iter().copied().collect::<BTreeSet<_>>(), model.clone());
                let first_due = model.first().map(|timer| timer.due_ms);
                prop_assert!(pending.first_due_ms() <= first_due || first_due.is_none());
                let first_offset = model.iter().map(|timer| timer.offset).min();
                prop_assert!(pending.first_offset() <= first_offset || first_offset.is_none());
                prop_assert_eq!(pending.first_offset().is_some(), first_offset.is_some());
            }
        }
    }

    #[test]
    fn a_million_take_about_thirty_megabytes() {
        let mut pending = Pending::default();
        for offset in 0..1_000_000 {
            // Over three days, and in no order.
            let due_ms = (offset as i64).wrapping_mul(7_919) % 259_200 * 1_000;
            pending.add(timer(due_ms, offset));
        }
        let timers = pending.later.values().map(|later| later.timers.capacity());
        let bytes = timers.sum::<usize>() * size_of::<Timer>()
            + pending.later.len() * size_of::<(i64, Later)>() * 2;
        assert!(bytes < 40 << 20, "{bytes}");
    }
}
