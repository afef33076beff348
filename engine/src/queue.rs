//! A queue as every core sees it, and the registry that numbers them.
//!
//! The writer stores a queue's end; any core reads it. A shard that found nothing new parks by setting its bit
//! and looks at the end once more; the writer, after it moved the end, looks at the bits. One full fence on each
//! side makes sure that at least one of the two sees the other.

use crate::QueueNo;
use hashbrown::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

/// One queue of one topic. Shared by all cores for the life of the process.
#[derive(Debug)]
pub struct Queue {
    no: QueueNo,
    topic: Arc<str>,
    id: u32,
    /// The offset the next message gets. Stored by the writer only.
    max: AtomicU64,
    /// The first offset that can still be read. It only grows.
    min: AtomicU64,
    /// One bit per shard with parked readers.
    parked: AtomicU64,
    /// Which segment the last cold read found its entries in, counted from the start of all time: segments that are
    /// reclaimed do not change it.
    cold_hint: AtomicU32,
}

impl Queue {
    pub fn no(&self) -> QueueNo {
        self.no
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn max_offset(&self) -> u64 {
        self.max.load(Ordering::Acquire)
    }

    pub fn min_offset(&self) -> u64 {
        self.min.load(Ordering::Acquire)
    }

    /// Says that `shard` waits for this queue's next message, and returns the end as it is after saying so:
    /// compare it before sleeping.
    pub fn park(&self, shard: usize) -> u64 {
        assert!(shard < crate::config::SHARDS_MAX, "one bit per shard");
        self.parked.fetch_or(1 << shard, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.max.load(Ordering::Acquire)
    }

    /// Makes the messages below `max` visible. The writer's, or recovery's before there is a writer.
    pub(crate) fn store_max(&self, max: u64) {
        debug_assert!(max >= self.max.load(Ordering::Relaxed), "ends only grow");
        self.max.store(max, Ordering::Release);
    }

    /// The queue has no messages, and its next one gets `offset`, whatever was said before. Recovery's alone.
    pub(crate) fn start_at(&self, offset: u64) {
        self.max.store(offset, Ordering::Release);
        self.min.store(offset, Ordering::Release);
    }

    pub(crate) fn raise_min(&self, min: u64) {
        self.min.fetch_max(min, Ordering::AcqRel);
    }

    /// Takes the set of parked shards. The caller has put a full fence behind its last `store_max`.
    pub(crate) fn take_parked(&self) -> u64 {
        if self.parked.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.parked.swap(0, Ordering::AcqRel)
    }

    pub(crate) fn cold_hint(&self) -> usize {
        self.cold_hint.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn set_cold_hint(&self, segment: usize) {
        self.cold_hint.store(segment as u32, Ordering::Relaxed);
    }
}

/// All queues of the store by name and by number. Cold: taken when a queue is first met.
#[derive(Debug, Default)]
pub struct Registry {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    /// Each topic's queues, sorted by id.
    topics: HashMap<Arc<str>, Vec<Arc<Queue>>>,
    by_no: Vec<Arc<Queue>>,
}

impl Registry {
    /// The queue, made now if it was not there.
    pub fn find_or_make(&self, topic: &str, id: u32) -> Arc<Queue> {
        let mut tables = self.lock();
        let no = QueueNo(u32::try_from(tables.by_no.len()).expect("fewer than 4 billion queues"));
        let Tables { topics, by_no } = &mut *tables;
        if let Some(queues) = topics.get_mut(topic) {
            match queues.binary_search_by_key(&id, |queue| queue.id) {
                Ok(at) => return queues[at].clone(),
                Err(at) => {
                    let queue = Arc::new(Queue::new(no, queues[0].topic.clone(), id));
                    queues.insert(at, queue.clone());
                    by_no.push(queue.clone());
                    return queue;
                }
            }
        }
        let name: Arc<str> = Arc::from(topic);
        let queue = Arc::new(Queue::new(no, name.clone(), id));
        topics.insert(name, vec![queue.clone()]);
        by_no.push(queue.clone());
        queue
    }

    pub fn find(&self, topic: &str, id: u32) -> Option<Arc<Queue>> {
        let tables = self.lock();
        let queues = tables.topics.get(topic)?;
        let at = queues.binary_search_by_key(&id, |queue| queue.id).ok()?;
        Some(queues[at].clone())
    }

    /// The queues of a topic that ever held a message or were asked for, by id.
    pub fn of_topic(&self, topic: &str) -> Vec<Arc<Queue>> {
        self.lock().topics.get(topic).cloned().unwrap_or_default()
    }

    /// The queues from number `first` on.
    pub fn extend_from(&self, first: usize, into: &mut Vec<Arc<Queue>>) {
        into.extend_from_slice(&self.lock().by_no[first..]);
    }

    pub fn by_no(&self, no: QueueNo) -> Option<Arc<Queue>> {
        self.lock().by_no.get(no.0 as usize).cloned()
    }

    /// Every queue, sorted by topic and id: the order of the companions' directories.
    pub fn sorted(&self) -> Vec<Arc<Queue>> {
        let mut queues = self.lock().by_no.clone();
        queues.sort_unstable_by(|a, b| (a.topic(), a.id).cmp(&(b.topic(), b.id)));
        queues
    }

    pub fn len(&self) -> usize {
        self.lock().by_no.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tables> {
        // The tables are whole between any two statements above, so a panic elsewhere does not spoil them.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn new(no: QueueNo, topic: Arc<str>, id: u32) -> Queue {
        Queue {
            no,
            topic,
            id,
            max: AtomicU64::new(0),
            min: AtomicU64::new(0),
            parked: AtomicU64::new(0),
            cold_hint: AtomicU32::new(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_numbered_densely_and_found_again() {
        let registry = Registry::default();
        let b1 = registry.find_or_make("b", 1);
        let b0 = registry.find_or_make("b", 0);
        let a7 = registry.find_or_make("a", 7);
        assert_eq!([b1.no().0, b0.no().0, a7.no().0], [0, 1, 2]);
        assert_eq!(registry.find_or_make("b", 0).no(), b0.no());
        assert!(registry.find("b", 2).is_none());
        let ids: Vec<u32> = registry.of_topic("b").iter().map(|q| q.id()).collect();
        assert_eq!(ids, [0, 1]);
        let sorted: Vec<(String, u32)> = registry
            .sorted()
            .iter()
            .map(|q| (q.topic().to_owned(), q.id()))
            .collect();
        assert_eq!(sorted, [("a".into(), 7), ("b".into(), 0), ("b".into(), 1)]);
    }

    #[test]
    fn a_parked_shard_is_taken_once_and_sees_the_end_it_missed() {
        let registry = Registry::default();
        let queue = registry.find_or_make("t", 0);
        queue.store_max(3);
        assert_eq!(queue.park(5), 3, "the end is read after the bit is set");
        queue.park(63);
        assert_eq!(queue.take_parked(), 1 << 5 | 1 << 63);
        assert_eq!(queue.take_parked(), 0);
    }
}
