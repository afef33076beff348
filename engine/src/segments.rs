//! The ordered set of segments, without a hole between the first and the last.
//!
//! Readers load the current list without a lock; the writer's core replaces it whole when a segment is added.

use crate::segment::Segment;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// The segments of one log. Replaced by the writer's core, read by any.
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
        let old = self.list.load();
        let mut items = Vec::with_capacity(old.items.len() + 1);
        items.extend_from_slice(&old.items);
        items.push(segment);
        let list = List {
            segment_bytes: old.segment_bytes,
            items,
        };
        list.check();
        self.list.store(Arc::new(list));
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
