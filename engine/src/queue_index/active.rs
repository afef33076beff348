//! The index of a segment in memory: one run of entries per queue that has messages in it.
//!
//! The writer appends (or recovery, before there is a writer). Readers on any core look up entries below the
//! queue's published end, which they have loaded with Acquire; the writer's Release of that end is what makes the
//! entries visible, so the stores in here are relaxed. Nothing is ever moved, and nothing changed once there are
//! readers: only recovery forgets a queue's run.

use super::chunks::Chunks;
use super::{Entry, GAP_ENTRIES_MAX, Place};
use crate::QueueNo;
use std::ptr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

type Slot = [AtomicU64; 2];

/// See the module.
pub struct ActiveIndex {
    segment_base: u64,
    /// Store time of the segment's first record.
    base_ms: AtomicI64,
    /// By queue number; null for a queue without messages here. The runs are owned.
    runs: Chunks<AtomicPtr<Run>>,
    /// What the runs and their entries have taken.
    bytes: AtomicUsize,
    /// Runs that were started anew, kept because somebody may still look at them.
    replaced: Mutex<Vec<AtomicPtr<Run>>>,
}

/// One queue's entries in this segment, without a gap.
pub struct Run {
    first: u64,
    slots: Chunks<Slot>,
}

impl ActiveIndex {
    pub fn new(segment_base: u64) -> ActiveIndex {
        ActiveIndex {
            segment_base,
            base_ms: AtomicI64::new(0),
            runs: Chunks::new(),
            bytes: AtomicUsize::new(0),
            replaced: Mutex::new(Vec::new()),
        }
    }

    pub fn base_ms(&self) -> i64 {
        self.base_ms.load(Ordering::Relaxed)
    }

    /// Sets the base of the entries' time deltas: with the first record, before its entry.
    pub fn set_base_ms(&self, base_ms: i64) {
        self.base_ms.store(base_ms, Ordering::Relaxed);
    }

    /// The queue's run, if it has messages here.
    #[inline]
    pub fn run(&self, queue: QueueNo) -> Option<&Run> {
        let run = self.runs.get(queue.0 as usize)?.load(Ordering::Acquire);
        // SAFETY: either null, or a Box that `append` leaked into the table and only `drop` takes out.
        unsafe { run.as_ref() }
    }

    /// Adds the entry of the queue's next message. One thread at a time.
    #[inline]
    pub fn append(&self, queue: QueueNo, queue_offset: u64, entry: Entry) {
        let run = match self.run(queue) {
            Some(run) => run,
            None => self.start_run(queue, queue_offset),
        };
        assert!(queue_offset >= run.first, "a run grows at its end");
        let number = (queue_offset - run.first) as usize;
        let slot = match run.slots.get(number) {
            Some(slot) => slot,
            None => self.grow(run, number),
        };
        let words = entry.to_words();
        slot[0].store(words[0], Ordering::Relaxed);
        slot[1].store(words[1], Ordering::Relaxed);
    }

    /// Adds an entry that does not follow the queue's run: the offsets between get fillers, and where that is no gap
    /// but another beginning, the run starts anew. Recovery's; one thread at a time.
    pub fn append_anywhere(&self, queue: QueueNo, next: u64, queue_offset: u64, entry: Entry) {
        match queue_offset.checked_sub(next) {
            Some(gap) if gap <= GAP_ENTRIES_MAX => {
                let filler = Entry::filler(entry);
                (next..queue_offset).for_each(|missing| self.append(queue, missing, filler));
            }
            _ => self.forget(queue),
        }
        self.append(queue, queue_offset, entry);
    }

    /// The queue has no messages here, whatever was added. Recovery's; one thread at a time.
    pub fn forget(&self, queue: QueueNo) {
        let Some(place) = self.runs.get(queue.0 as usize) else {
            return;
        };
        let run = place.swap(ptr::null_mut(), Ordering::AcqRel);
        if !run.is_null() {
            let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
            replaced.push(AtomicPtr::new(run));
        }
    }

    /// Bytes of memory that the entries take. What was never written to is counted as well.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed) as u64
    }

    #[cold]
    fn grow<'a>(&self, run: &'a Run, number: usize) -> &'a Slot {
        let grown = Chunks::<Slot>::chunk_bytes(number);
        self.bytes.fetch_add(grown, Ordering::Relaxed);
        run.slots.get_or_grow(number)
    }

    #[cold]
    fn start_run(&self, queue: QueueNo, first: u64) -> &Run {
        let run = Box::into_raw(Box::new(Run {
            first,
            slots: Chunks::new(),
        }));
        let mut taken = size_of::<Run>();
        if self.runs.get(queue.0 as usize).is_none() {
            taken += Chunks::<AtomicPtr<Run>>::chunk_bytes(queue.0 as usize);
        }
        self.bytes.fetch_add(taken, Ordering::Relaxed);
        let place = self.runs.get_or_grow(queue.0 as usize);
        let was = place.swap(run, Ordering::AcqRel);
        assert!(was.is_null(), "one thread at a time appends");
        // SAFETY: leaked above; freed only when `self` is dropped.
        unsafe { &*run }
    }

    /// The entry as a place in the log.
    #[inline]
    pub fn place(&self, entry: Entry) -> Place {
        Place::of(entry, self.segment_base, self.base_ms())
    }
}

impl Drop for ActiveIndex {
    fn drop(&mut self) {
        let replaced = self
            .replaced
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        for run in self.runs.iter().chain(replaced.iter()) {
            let run = run.swap(ptr::null_mut(), Ordering::AcqRel);
            if !run.is_null() {
                // SAFETY: leaked by `start_run`, and nobody borrows the index any more.
                drop(unsafe { Box::from_raw(run) });
            }
        }
    }
}

impl Run {
    /// The queue offset of the first entry.
    #[inline]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The entry of a message that is in this run and below the queue's published end, or the filler of a gap.
    #[inline]
    pub fn entry(&self, queue_offset: u64) -> Option<Entry> {
        let slot = self
            .slots
            .get(queue_offset.checked_sub(self.first)? as usize)?;
        let words = [
            slot[0].load(Ordering::Relaxed),
            slot[1].load(Ordering::Relaxed),
        ];
        (words != [0, 0]).then(|| Entry::from_words(words))
    }

    /// How many entries start below `position` of the segment and belong to messages below `end`.
    pub fn count_below(&self, position: u64, end: u64) -> u32 {
        let is_below = |number: u64| {
            let entry = self.entry(self.first + number);
            entry.is_some_and(|entry| u64::from(entry.position) < position)
        };
        let (mut low, mut high) = (0, end.saturating_sub(self.first));
        while low < high {
            let middle = low + (high - low) / 2;
            if is_below(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(position: u32) -> Entry {
        Entry {
            position,
            bytes: 100,
            tag_hash: position as i32,
            delta_ms: 1,
        }
    }

    proptest! {
        #[test]
        fn the_index_answers_like_a_list_per_queue(queues in proptest::collection::vec(0u32..40, 1..600)) {
            let index = ActiveIndex::new(4096);
            let mut model: Vec<Vec<Entry>> = vec![Vec::new(); 40];
            for (n, queue) in queues.iter().enumerate() {
                let first = 1_000 * u64::from(*queue);
                let list = &mut model[*queue as usize];
                let entry = entry(n as u32 * 100);
                index.append(QueueNo(*queue), first + list.len() as u64, entry);
                list.push(entry);
            }
            for (queue, list) in model.iter().enumerate() {
                let first = 1_000 * queue as u64;
                let Some(run) = index.run(QueueNo(queue as u32)) else {
                    prop_assert!(list.is_empty());
                    continue;
                };
                prop_assert_eq!(run.first(), first);
                for (n, entry) in list.iter().enumerate() {
                    prop_assert_eq!(run.entry(first + n as u64), Some(*entry));
                }
                prop_assert_eq!(run.entry(first + list.len() as u64), None);
                let below = list.iter().filter(|e| e.position < 3_000).count() as u32;
                prop_assert_eq!(run.count_below(3_000, first + 10_000), below);
            }
        }
    }

    #[test]
    fn a_gap_is_listed_and_another_beginning_replaces_what_was_there() {
        let index = ActiveIndex::new(0);
        let queue = QueueNo(3);
        index.append_anywhere(queue, 7, 7, entry(0));
        index.append_anywhere(queue, 8, 12, entry(500));
        let run = index.run(queue).expect("two entries were added");
        assert_eq!((run.first(), run.entry(7)), (7, Some(entry(0))));
        let filler = run.entry(9).expect("a gap is listed");
        assert!(filler.is_filler());
        assert_eq!(filler.position, 500);
        assert_eq!(run.entry(12), Some(entry(500)));
        assert_eq!(run.count_below(500, 13), 1);
        assert_eq!(run.count_below(501, 13), 6);
        index.append_anywhere(queue, 13, 0, entry(700));
        let run = index.run(queue).expect("it starts anew");
        assert_eq!((run.first(), run.entry(0)), (0, Some(entry(700))));
        index.append_anywhere(queue, 1, 2 + GAP_ENTRIES_MAX, entry(900));
        let run = index.run(queue).expect("it starts anew");
        assert_eq!(run.first(), 2 + GAP_ENTRIES_MAX);
    }

    #[test]
    fn entries_at_or_above_the_published_end_are_not_counted() {
        let index = ActiveIndex::new(0);
        for n in 0..10 {
            index.append(QueueNo(2), n, entry(n as u32 * 100));
        }
        let run = index.run(QueueNo(2)).expect("ten entries were added");
        assert_eq!(run.count_below(u64::MAX, 6), 6);
        assert_eq!(run.count_below(u64::MAX, 600), 10);
        assert_eq!(run.count_below(250, 6), 3);
    }
}
