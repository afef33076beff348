//! The transactions that nobody has decided yet: what is known of each half message, in a few words of memory.
//!
//! Owned by the task of `transaction.rs`; no I/O, no clock. A half message that is appended again (when its producer is
//! asked, or its log goes) is the same transaction at another offset: the newest copy is the one that counts, and every
//! earlier offset leads to it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use engine::LogOffset;
use hashbrown::HashMap;

use super::half::Half;
use super::names::{GroupNo, Groups};

/// Deadlines within so many milliseconds are one: a transaction is looked at that much later at most.
pub const DUE_STEP_MS: i64 = 100;
/// Gaps between entries are closed when there are more of them than entries, and at least so many.
const GONE_MAX: usize = 1024;

/// One half message: 24 bytes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: u64,
    log_offset: u64,
    /// None once it is decided, or goes on as another copy.
    group: Option<GroupNo>,
    /// How far in front of it its transaction began; `FAR` if that is too far to be said here.
    since: u32,
}

const FAR: u32 = u32::MAX;

impl Entry {
    fn is_open(&self) -> bool {
        self.group.is_some()
    }
}

/// An open transaction, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Of the newest copy, in the queue of half messages.
    pub offset: u64,
    /// Of the first one.
    pub origin: u64,
    pub log_offset: LogOffset,
    pub group: Arc<str>,
}

#[derive(Debug, Default)]
pub struct Open {
    /// In the order of offsets, which is the order of the log.
    entries: VecDeque<Entry>,
    gone: usize,
    groups: Groups,
    /// From the first offset of a transaction to the one that counts now, where they differ.
    moved: HashMap<u64, u64>,
    /// The other way round, of those that are `FAR`.
    far: HashMap<u64, u64>,
    /// By deadline: who is to be looked at then. May name some that are not open any more.
    due: BTreeMap<i64, Vec<u64>>,
    /// The first offset of the queue that has not been looked at.
    next: u64,
}

impl Open {
    /// Goes on at `next` of the queue.
    pub fn starting_at(next: u64) -> Self {
        Self {
            next,
            ..Self::default()
        }
    }

    pub fn next(&self) -> u64 {
        self.next
    }

    /// The queue has nothing below `next` that has not been seen.
    pub fn skip_to(&mut self, next: u64) {
        assert!(next >= self.next, "offsets only grow");
        self.next = next;
    }

    pub fn len(&self) -> usize {
        self.entries.len() - self.gone
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything in front of this offset is decided, or goes on behind it.
    pub fn done_to(&self) -> u64 {
        self.entries.front().map_or(self.next, |entry| entry.offset)
    }

    /// Where the oldest open half message lies.
    pub fn first_place(&self) -> Option<LogOffset> {
        self.entries
            .front()
            .map(|entry| LogOffset(entry.log_offset))
    }

    /// How much of the queue a restart would have to look at.
    pub fn span(&self) -> u64 {
        self.next - self.done_to()
    }

    /// The next half message of the queue. A copy takes the place of what came before it, if that is still open: it
    /// comes back.
    pub fn add(&mut self, half: &Half<'_>, due_ms: i64) -> Option<u64> {
        assert!(half.offset >= self.next, "the queue is read in order");
        self.next = half.offset + 1;
        let mut superseded = None;
        if let Some(origin) = half.origin {
            superseded = self.current(origin);
            if let Some(current) = superseded {
                self.close(current);
            }
            self.moved.insert(origin, half.offset);
        }
        let since = half.offset - half.origin.unwrap_or(half.offset);
        let since = u32::try_from(since).unwrap_or(FAR);
        if since == FAR {
            self.far
                .insert(half.offset, half.origin.unwrap_or(half.offset));
        }
        self.entries.push_back(Entry {
            offset: half.offset,
            log_offset: half.log_offset.0,
            group: Some(self.groups.enter(half.group)),
            since,
        });
        self.wait_until(half.offset, due_ms);
        superseded
    }

    /// Looks at it again at this time.
    pub fn wait_until(&mut self, offset: u64, due_ms: i64) {
        let step = due_ms.div_euclid(DUE_STEP_MS) + i64::from(due_ms.rem_euclid(DUE_STEP_MS) > 0);
        self.due.entry(step * DUE_STEP_MS).or_default().push(offset);
    }

    /// The transaction whose newest copy lies at this offset.
    pub fn get(&self, offset: u64) -> Option<Found> {
        self.found(&self.entries[self.place(offset)?])
    }

    fn found(&self, entry: &Entry) -> Option<Found> {
        Some(Found {
            offset: entry.offset,
            origin: self.origin(entry),
            log_offset: LogOffset(entry.log_offset),
            group: self.groups.name(entry.group?),
        })
    }

    /// The offset that counts now, of the transaction that began at `origin`.
    pub fn current(&self, origin: u64) -> Option<u64> {
        let offset = self.moved.get(&origin).copied().unwrap_or(origin);
        self.place(offset).map(|_| offset)
    }

    fn origin(&self, entry: &Entry) -> u64 {
        match entry.since {
            FAR => self.far.get(&entry.offset).copied().unwrap_or(entry.offset),
            since => entry.offset - u64::from(since),
        }
    }

    /// The open transaction whose newest copy lies there in the log.
    pub fn at_log_offset(&self, at: LogOffset) -> Option<u64> {
        let found = self
            .entries
            .binary_search_by_key(&at.0, |entry| entry.log_offset);
        let entry = self.entries.get(found.ok()?)?;
        entry.is_open().then_some(entry.offset)
    }

    /// It is decided, or goes on as another copy. Says whether it was open.
    pub fn close(&mut self, offset: u64) -> bool {
        let Some(place) = self.place(offset) else {
            return false;
        };
        let origin = self.origin(&self.entries[place]);
        if origin != offset {
            self.moved.remove(&origin);
            self.far.remove(&offset);
        }
        let group = self.entries[place].group.take();
        self.groups.leave(group.expect("it is open"));
        self.gone += 1;
        self.close_gaps();
        true
    }

    /// The first deadline, if there is one.
    pub fn next_due(&self) -> Option<i64> {
        self.due.first_key_value().map(|(&due_ms, _)| due_ms)
    }

    /// Up to `max` transactions whose time has come, each once. They are forgotten here until somebody lets them wait
    /// again.
    pub fn take_due(&mut self, now_ms: i64, max: usize) -> Vec<Found> {
        let mut taken = Vec::new();
        while let Some(mut first) = self.due.first_entry() {
            if *first.key() > now_ms || taken.len() >= max {
                break;
            }
            let waiting = first.get_mut();
            let some = waiting.split_off(waiting.len().saturating_sub(max - taken.len()));
            if waiting.is_empty() {
                first.remove();
            }
            taken.extend(some.into_iter().filter_map(|offset| self.get(offset)));
        }
        taken
    }

    /// Up to `max` of the oldest that lie below this place of the log.
    pub fn below(&self, below: LogOffset, max: usize) -> Vec<Found> {
        let old = self.entries.iter();
        let old = old.take_while(|entry| entry.log_offset < below.0);
        old.filter_map(|entry| self.found(entry))
            .take(max)
            .collect()
    }

    fn place(&self, offset: u64) -> Option<usize> {
        let place = self
            .entries
            .binary_search_by_key(&offset, |entry| entry.offset)
            .ok()?;
        self.entries[place].is_open().then_some(place)
    }

    fn close_gaps(&mut self) {
        while self
            .entries
            .pop_front_if(|entry| !entry.is_open())
            .is_some()
        {
            self.gone -= 1;
        }
        if self.gone > GONE_MAX && self.gone > self.len() {
            self.entries.retain(|entry| entry.is_open());
            self.gone = 0;
        }
    }
}

const _: () = assert!(std::mem::size_of::<Entry>() == 24);

#[cfg(test)]
mod tests;
