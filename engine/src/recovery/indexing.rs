//! From the records of a segment to the entries of its index: the one rule that recovery, rebuilding and `check` share.
//!
//! A record of ours follows its queue. RocketMQ's may leave offsets out, or begin again at a lower one (a topic
//! that was deleted and made again): then the later messages are the queue's, and the earlier ones are not shown.

use crate::dispatch::{Dispatched, dispatch};
use crate::queue::Queue;
use crate::queue_index::active::ActiveIndex;
use crate::queue_index::{Entry, GAP_ENTRIES_MAX};
use protocol::record::View;

/// How a record's queue offset stands to the queue before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Follows,
    /// Offsets are left out; they are listed as such.
    Gap,
    /// The queue begins anew here.
    Anew,
}

impl Place {
    pub fn of(next: u64, queue_offset: u64) -> Place {
        match queue_offset.checked_sub(next) {
            Some(0) => Place::Follows,
            Some(gap) if gap <= GAP_ENTRIES_MAX => Place::Gap,
            _ => Place::Anew,
        }
    }
}

/// Makes entries from records in order.
#[derive(Debug, Default)]
pub struct Indexing {
    /// The latest store time in the segment so far.
    latest_ms: i64,
}

impl Indexing {
    /// Goes on behind records of which the last was stored at `latest_ms`.
    pub fn after(latest_ms: i64) -> Indexing {
        Indexing { latest_ms }
    }

    pub fn latest_ms(&self) -> i64 {
        self.latest_ms
    }

    /// Where the record belongs, and its entry. The segment's first record sets the base of the index's times.
    pub fn entry<'a>(
        &mut self,
        index: &ActiveIndex,
        position: u64,
        view: &View<'a>,
    ) -> Result<Option<(Dispatched<'a>, Entry)>, &'static str> {
        let dispatched = dispatch(view)?;
        if position == 0 {
            index.set_base_ms(view.store_ms);
            self.latest_ms = view.store_ms;
        }
        // A clock that goes back does not take the entries with it: they are searched by time.
        self.latest_ms = self.latest_ms.max(view.store_ms);
        Ok(dispatched.map(|to| {
            let entry = Entry {
                position: position as u32,
                bytes: view.bytes.len() as u32,
                tag_hash: to.tag_hash,
                delta_ms: Entry::delta(index.base_ms(), self.latest_ms),
            };
            (to, entry)
        }))
    }
}

/// Where a queue goes on, by queue number, for a segment that is read by itself.
#[derive(Debug, Default)]
pub struct NextOffsets(Vec<Option<u64>>);

impl NextOffsets {
    pub fn get(&self, queue: &Queue) -> Option<u64> {
        self.0.get(queue.no().0 as usize).copied().flatten()
    }

    pub fn set(&mut self, queue: &Queue, next: u64) {
        let no = queue.no().0 as usize;
        if self.0.len() <= no {
            self.0.resize(no + 1, None);
        }
        self.0[no] = Some(next);
    }

    /// Adds a record's entry behind those of its queue in this segment.
    pub fn add(
        &mut self,
        index: &ActiveIndex,
        queue: &Queue,
        queue_offset: u64,
        entry: Entry,
    ) -> Place {
        let next = self.get(queue).unwrap_or(queue_offset);
        index.append_anywhere(queue.no(), next, queue_offset, entry);
        self.set(queue, queue_offset + 1);
        Place::of(next, queue_offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Registry;
    use proptest::prelude::*;

    #[test]
    fn a_long_gap_and_a_lower_offset_are_another_beginning() {
        assert_eq!(Place::of(5, 5), Place::Follows);
        assert_eq!(Place::of(5, 6), Place::Gap);
        assert_eq!(Place::of(0, GAP_ENTRIES_MAX), Place::Gap);
        assert_eq!(Place::of(0, GAP_ENTRIES_MAX + 1), Place::Anew);
        assert_eq!(Place::of(5, 4), Place::Anew);
    }

    proptest! {
        #[test]
        fn whatever_the_offsets_the_index_has_the_last_beginning(
            offsets in proptest::collection::vec((0u32..3, 0u64..40), 1..200)
        ) {
            let registry = Registry::default();
            let index = ActiveIndex::new(0);
            let mut next = NextOffsets::default();
            let mut model: Vec<Vec<(u64, u32)>> = vec![Vec::new(); 3];
            for (n, (id, offset)) in offsets.iter().enumerate() {
                let position = n as u32 * 100;
                let entry = Entry { position, bytes: 100, tag_hash: 0, delta_ms: 0 };
                next.add(&index, &registry.find_or_make("t", *id), *offset, entry);
                let list = &mut model[*id as usize];
                if list.last().is_some_and(|(last, _)| offset <= last) {
                    list.clear();
                }
                list.push((*offset, position));
            }
            for (id, list) in model.iter().enumerate() {
                let queue = registry.find_or_make("t", id as u32);
                let Some((first, _)) = list.first() else { continue };
                let run = index.run(queue.no()).expect("the queue has messages");
                prop_assert_eq!(run.first(), *first);
                let end = next.get(&queue).expect("the queue has messages");
                let found: Vec<(u64, u32)> = (*first..end)
                    .map(|offset| (offset, run.entry(offset).expect("no offset is left out")))
                    .filter(|(_, entry)| !entry.is_filler())
                    .map(|(offset, entry)| (offset, entry.position))
                    .collect();
                prop_assert_eq!(&found, list);
                let half = offsets.len() as u64 * 50;
                let below = list.iter().filter(|(_, at)| u64::from(*at) < half).map(|(offset, _)| offset + 1).max();
                let counted = run.count_below(half, end);
                // Fillers behind the last entry below belong to what comes after them.
                prop_assert_eq!(u64::from(counted), below.map_or(0, |below| below - first));
            }
        }
    }
}
