//! The ordered set of segments, without a hole between the first and the last.
//!
//! Readers load the current list without a lock; it is replaced whole when a segment is added or has been reclaimed.

use crate::segment::Segment;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// The segments of one log. Replaced by the writer and by reclaim, read by any.
pub struct Segments {
    list: ArcSwap<List>,
}

/// One state of the set.
pub struct List {
    segment_bytes: u64,
    items: Vec<Arc<Segment>>,
}

impl Segments {
    pub fn new(segment_bytes: u64, items: Vec<Arc<Segment>>) -> Segments {
        let list = List {
            segment_bytes,
            items,
        };
        list.check();
        Segments {
            list: ArcSwap::from_pointee(list),
        }
    }

    #[inline]
    pub fn load(&self) -> arc_swap::Guard<Arc<List>> {
        self.list.load()
    }

    /// The list as something to keep across an await.
    pub fn load_full(&self) -> Arc<List> {
        self.list.load_full()
    }

    /// Adds the segment that follows the last one. The writer's core alone does this.
    pub fn push(&self, segment: Arc<Segment>) {
        self.replace(|items| items.push(segment.clone()));
    }

    /// Takes the oldest segment off, which is the one at `base`. Reclaim alone does this; the newest one stays.
    pub fn remove_first(&self, base: u64) {
        self.replace(|items| {
            assert!(items.len() > 1, "the newest segment stays");
            assert_eq!(items[0].base(), base, "the oldest segment goes first");
            items.remove(0);
        });
    }

    /// One end each, so what both make of a list fits together in either order.
    fn replace(&self, change: impl Fn(&mut Vec<Arc<Segment>>)) {
        self.list.rcu(|old| {
            let mut items = Vec::with_capacity(old.items.len() + 1);
            items.extend_from_slice(&old.items);
            change(&mut items);
            let list = List {
                segment_bytes: old.segment_bytes,
                items,
            };
            list.check();
            list
        });
    }
}

impl List {
    /// Oldest first.
    pub fn items(&self) -> &[Arc<Segment>] {
        &self.items
    }

    /// First log offset there is.
    pub fn first(&self) -> u64 {
        self.items.first().map_or(0, |segment| segment.base())
    }

    /// How many segments there were before the first.
    pub fn first_number(&self) -> usize {
        (self.first() / self.segment_bytes) as usize
    }

    /// The segment that holds the byte at `log_offset`, and its number in the list.
    pub fn containing(&self, log_offset: u64) -> Option<(usize, &Arc<Segment>)> {
        let number = log_offset.checked_sub(self.first())? / self.segment_bytes;
        let number = usize::try_from(number).ok()?;
        Some((number, self.items.get(number)?))
    }

    fn check(&self) {
        for pair in self.items.windows(2) {
            assert_eq!(pair[0].end(), pair[1].base(), "segments follow each other");
        }
    }
}
