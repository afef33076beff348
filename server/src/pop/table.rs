//! All queues that are popped, by group and topic.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use engine::Queue;
use hashbrown::{Equivalent, HashMap};
use protocol::pop::Origin;

use super::entry::Place;
use super::owed::retry_queue;
use super::queue::{Op, PopQueue};
use super::wanted::Wanted;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub group: Arc<str>,
    pub topic: Arc<str>,
}

/// A key that is only looked for. Hashes as `Key` does.
#[derive(Clone, Copy, Debug, Hash)]
pub struct KeyRef<'a> {
    pub group: &'a str,
    pub topic: &'a str,
}

impl Key {
    /// What a request waits for.
    pub fn of(wanted: &Wanted) -> Self {
        Self {
            group: Arc::clone(&wanted.group),
            topic: Arc::clone(&wanted.topic),
        }
    }
}

impl From<KeyRef<'_>> for Key {
    fn from(key: KeyRef<'_>) -> Self {
        Self {
            group: Arc::from(key.group),
            topic: Arc::from(key.topic),
        }
    }
}

impl<'a> From<&'a Key> for KeyRef<'a> {
    fn from(key: &'a Key) -> Self {
        Self {
            group: &key.group,
            topic: &key.topic,
        }
    }
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.group == &*key.group && self.topic == &*key.topic
    }
}

/// Lives on the coordinator's core.
#[derive(Debug, Default)]
pub struct Table {
    /// By queue id.
    lines: HashMap<Key, BTreeMap<u32, Box<Slot>>>,
    /// Whose place in the group's offsets may have moved since that table was told.
    moved: Vec<Place>,
}

#[derive(Debug)]
pub struct Slot {
    pub place: Place,
    pub state: PopQueue,
    pub queue: Arc<Queue>,
    /// What the table of offsets was told, or had when this was made.
    pub told: i64,
    /// Somebody pops it in order.
    pub is_ordered: bool,
    /// A read of the disk is on its way; nobody else reads meanwhile.
    pub is_reading: bool,
    has_moved: bool,
    /// The time for which the clock was set, if it was.
    pub armed_ms: Option<i64>,
}

impl Table {
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub fn get(&self, key: KeyRef<'_>, queue_id: u32) -> Option<&Slot> {
        let line = self.lines.get(&key)?;
        line.get(&queue_id).map(|slot| &**slot)
    }

    pub fn get_mut(&mut self, key: KeyRef<'_>, queue_id: u32) -> Option<&mut Slot> {
        let line = self.lines.get_mut(&key)?;
        line.get_mut(&queue_id).map(|slot| &mut **slot)
    }

    pub fn at(&mut self, place: &Place) -> Option<&mut Slot> {
        let key = KeyRef {
            group: &place.group,
            topic: &place.topic,
        };
        self.get_mut(key, place.queue_id)
    }

    /// Where messages of a queue have moved, if any have: they come before all that is in the queue.
    pub fn moved_of(&self, key: KeyRef<'_>, queue_id: u32) -> Option<&Slot> {
        let topic = &*Origin::RetryV1.topic(key.topic, key.group);
        self.get(KeyRef { topic, ..key }, retry_queue(key.topic, queue_id))
    }

    /// Puts an empty one in, in place of what may be there.
    pub fn insert(&mut self, place: &Place, queue: Arc<Queue>, told: i64) -> &mut Slot {
        let key = Key {
            group: Arc::clone(&place.group),
            topic: Arc::clone(&place.topic),
        };
        let slot = Box::new(Slot {
            place: place.clone(),
            state: PopQueue::default(),
            queue,
            told,
            is_ordered: false,
            is_reading: false,
            has_moved: false,
            armed_ms: None,
        });
        let line = self.lines.entry(key).or_default();
        match line.entry(place.queue_id) {
            Entry::Occupied(mut entry) => {
                *entry.get_mut() = slot;
                entry.into_mut()
            }
            Entry::Vacant(entry) => entry.insert(slot),
        }
    }

    /// How many messages the op took hold of; none for a queue that is not there.
    pub fn apply(&mut self, place: &Place, op: &Op) -> usize {
        if *op == Op::Forget {
            self.remove(place);
            return 0;
        }
        let Some(slot) = self.at(place) else {
            return 0;
        };
        let hold = slot.state.apply(op);
        if !std::mem::replace(&mut slot.has_moved, true) {
            self.moved.push(place.clone());
        }
        hold
    }

    /// Those that may have moved since the last call.
    pub fn take_moved(&mut self) -> Vec<Place> {
        let moved = std::mem::take(&mut self.moved);
        for place in &moved {
            if let Some(slot) = self.at(place) {
                slot.has_moved = false;
            }
        }
        moved
    }

    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        let lines = self.lines.values();
        lines.flat_map(|line| line.values().map(|slot| &**slot))
    }

    pub fn slots_of(&self, key: KeyRef<'_>) -> impl Iterator<Item = &Slot> {
        let line = self.lines.get(&key).into_iter();
        line.flat_map(|line| line.values().map(|slot| &**slot))
    }

    fn remove(&mut self, place: &Place) {
        let key = KeyRef {
            group: &place.group,
            topic: &place.topic,
        };
        let Some(line) = self.lines.get_mut(&key) else {
            return;
        };
        line.remove(&place.queue_id);
        if line.is_empty() {
            self.lines.remove(&key);
        }
    }
}
