//! What the timers' task knows: which timers are parked, which are read already because they are due soon, what is
//! withdrawn, and how far all of it is done.
//!
//! A start may have a million timers to look at. Meanwhile those that are found to be due are delivered, for what withdraws
//! them lies in their queue, too, and is looked up first: the last checkpoint names these places, and what came after it is
//! read ahead (`is_starting`).
//!
//! Holds no log and no clock, and never waits: whatever is saved between two steps of the task is a whole state.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher;

use engine::LogOffset;

use super::checkpoint::{Checkpoint, WITHDRAWALS_MAX};
use super::pending::{Key, Pending, Timer};

/// So long before they are due, messages are read: the disk is not waited for when their time has come.
const READ_AHEAD_MS: i64 = 2_000;
const READY_BYTES_MAX: usize = 16 << 20;
const READY_MESSAGES_MAX: usize = 16_384;

/// Lives on the core of shard 0.
#[derive(Debug, Default)]
pub struct Parked {
    pending: Pending,
    /// In the order in which they are due.
    ready: BTreeMap<Key, Ready>,
    ready_bytes: usize,
    /// Those that are being appended again, in the order in which they lie: wherever that ends, those that were moved lie
    /// in front of all that are parked.
    moving: VecDeque<Timer>,
    /// Those that cannot be read now, and when that is tried again.
    aside: Vec<(i64, Timer)>,
    /// By hash of the names that are withdrawn: until when that holds.
    withdrawn: HashMap<u64, i64>,
    hasher: RandomState,
    /// Offsets of those that are parked and withdraw others.
    withdrawals: BTreeSet<u64>,
    /// Withdrawals whose time is over, while what they withdraw may still be parked, or not have been looked at.
    ended: Vec<Ended>,
    /// The first offset of the queue that has not been looked at.
    next: u64,
    /// What is withdrawn below is known. Ahead of `next` during a start.
    heard: u64,
    /// The last one that was delivered, in the order in which they are due.
    done: Key,
    /// As of the last run, until all of that has been looked at.
    restored: Checkpoint,
    /// What lies in front was RocketMQ's business, and has to be looked at before it can be summed up.
    settled_from: u64,
}

#[derive(Debug)]
struct Ready {
    timer: Timer,
    /// Empty while it is being read.
    record: Vec<u8>,
}

#[derive(Debug)]
struct Ended {
    timer: Timer,
    /// Of the name that will be free again.
    hash: u64,
    since_ms: i64,
}

impl Parked {
    /// Goes on behind `saved`, in a queue with these ends.
    pub fn restore(saved: Option<Checkpoint>, min_offset: u64, max_offset: u64) -> Self {
        let mut restored = saved.unwrap_or_default();
        restored.end_at(max_offset);
        let next = restored.first.max(min_offset);
        Self {
            next,
            heard: match restored.withdrawals {
                Some(_) => restored.next.max(next),
                None => next,
            },
            done: restored.done(),
            restored,
            ..Self::default()
        }
    }

    /// Timers are still looked at that were parked before; what is due among the others can be delivered.
    pub fn is_starting(&self) -> bool {
        self.next < self.heard
    }

    /// A place where something was withdrawn before the start. To be followed by `heard_of`.
    pub fn named_withdrawal(&self) -> Option<u64> {
        let named = self.restored.withdrawals.as_ref();
        named.and_then(|offsets| offsets.first().copied())
    }

    pub fn heard_of(&mut self, offset: u64) {
        if let Some(named) = &mut self.restored.withdrawals {
            named.remove(&offset);
        }
    }

    pub fn heard(&self) -> u64 {
        self.heard
    }

    pub fn set_heard(&mut self, heard: u64) {
        self.heard = heard.max(self.heard);
    }

    /// Nothing is due: all that was withdrawn by then is out of the way.
    pub fn all_due_is_done(&mut self) {
        if self.is_starting() || !self.aside.is_empty() {
            return;
        }
        for ended in std::mem::take(&mut self.ended) {
            let until = self.withdrawn.get(&ended.hash);
            if until.is_some_and(|until| *until <= ended.since_ms) {
                self.withdrawn.remove(&ended.hash);
            }
            self.done(ended.timer.key());
        }
    }

    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn set_next(&mut self, next: u64) {
        self.next = next;
        self.heard = self.heard.max(next);
    }

    pub fn len(&self) -> usize {
        let apart = self.ready.len() + self.moving.len() + self.aside.len() + self.ended.len();
        self.pending.len() + apart
    }

    /// Those that are parked and not pending.
    fn apart(&self) -> impl Iterator<Item = &Timer> {
        let ready = self.ready.values().map(|ready| &ready.timer);
        let aside = self.aside.iter().map(|(_, timer)| timer);
        let ended = self.ended.iter().map(|ended| &ended.timer);
        ready.chain(&self.moving).chain(aside).chain(ended)
    }

    /// RocketMQ had the store since: of what lies in front of this offset it has delivered what was due before this time.
    pub fn go_on_behind(&mut self, delivered_ms: i64, offset: u64) {
        self.done = self.done.max((delivered_ms, u64::MAX));
        self.settled_from = offset;
    }

    /// A timer that was found in the queue. Says whether it is parked now.
    pub fn add(&mut self, timer: Timer) -> bool {
        let is_new = !self.restored.is_done(&timer);
        if is_new {
            self.pending.add(timer);
        }
        is_new
    }

    /// The same with its record, which is kept if it is due soon: then it is not read again.
    pub fn add_read(&mut self, timer: Timer, record: &[u8], now_ms: i64) -> bool {
        let is_soon = timer.due_ms <= now_ms.saturating_add(READ_AHEAD_MS);
        if !is_soon || !self.has_room() {
            return self.add(timer);
        }
        let is_new = !self.restored.is_done(&timer);
        if is_new {
            self.ready_bytes += record.len();
            let ready = Ready {
                timer,
                record: record.to_vec(),
            };
            let before = self.ready.insert(timer.key(), ready);
            assert!(before.is_none(), "an offset is looked at once");
        }
        is_new
    }

    fn has_room(&self) -> bool {
        self.ready_bytes < READY_BYTES_MAX && self.ready.len() < READY_MESSAGES_MAX
    }

    /// One that was parked just now withdraws another.
    pub fn add_withdrawal(&mut self, offset: u64, name: &[u8], until_ms: i64) {
        self.withdrawals.insert(offset);
        self.withdraw(name, until_ms);
    }

    /// It goes on as another one, and is not delivered itself; false if it is not parked.
    pub fn remove(&mut self, key: Key) -> bool {
        self.withdrawals.remove(&key.1);
        match self.ready.remove(&key) {
            Some(ready) => {
                self.ready_bytes -= ready.record.len();
                true
            }
            None => self.pending.remove(key),
        }
    }

    /// The offsets of all of them, in order.
    pub fn offsets(&self) -> Vec<u64> {
        let all = self.pending.iter().chain(self.apart());
        let mut offsets: Vec<u64> = all.map(|timer| timer.offset).collect();
        offsets.sort_unstable();
        offsets
    }

    /// Who bears this name is not delivered until then.
    pub fn withdraw(&mut self, name: &[u8], until_ms: i64) {
        let hash = self.hasher.hash_one(name);
        let until = self.withdrawn.entry(hash).or_insert(until_ms);
        *until = until_ms.max(*until);
    }

    pub fn has_withdrawn(&self) -> bool {
        !self.withdrawn.is_empty()
    }

    pub fn is_withdrawn(&self, name: &[u8]) -> bool {
        let hash = self.hasher.hash_one(name);
        self.withdrawn.contains_key(&hash)
    }

    /// The time of a withdrawal is over. It stays parked until all that is due now is done, for what it withdraws may come
    /// behind it.
    pub fn end_withdrawal(&mut self, key: Key, name: &[u8], now_ms: i64) {
        if let Some(ready) = self.ready.remove(&key) {
            self.ready_bytes -= ready.record.len();
            self.ended.push(Ended {
                timer: ready.timer,
                hash: self.hasher.hash_one(name),
                since_ms: now_ms,
            });
        }
    }

    /// The next one whose message is to be read. To be followed by `was_read`, `not_read` or `done`.
    pub fn begin_reading(&mut self, now_ms: i64) -> Option<Timer> {
        for (_, timer) in self
            .aside
            .extract_if(.., |(again_ms, _)| *again_ms <= now_ms)
        {
            self.pending.add(timer);
        }
        // What is due is read however much there is.
        let ahead_ms = if self.has_room() { READ_AHEAD_MS } else { 0 };
        let end_ms = now_ms.saturating_add(ahead_ms).saturating_add(1);
        let timer = self.pending.pop_before(end_ms)?;
        let ready = Ready {
            timer,
            record: Vec::new(),
        };
        let before = self.ready.insert(timer.key(), ready);
        assert!(before.is_none(), "an offset is looked at once");
        Some(timer)
    }

    pub fn was_read(&mut self, key: Key, record: Vec<u8>) {
        let Some(ready) = self.ready.get_mut(&key) else {
            return; // It has been moved meanwhile.
        };
        self.ready_bytes += record.len();
        ready.record = record;
    }

    /// It is tried again then, and keeps nobody else from being read.
    pub fn not_read(&mut self, key: Key, again_ms: i64) {
        if let Some(ready) = self.ready.remove(&key) {
            self.aside.push((again_ms, ready.timer));
        }
    }

    /// Those whose time has come, and their records.
    pub fn due(&self, now_ms: i64) -> impl Iterator<Item = (Key, &[u8])> {
        let due = self.ready.range(..=(now_ms, u64::MAX));
        let read = due.filter(|(_, ready)| !ready.record.is_empty());
        read.map(|(&key, ready)| (key, ready.record.as_slice()))
    }

    /// It is delivered, or never will be.
    pub fn done(&mut self, key: Key) {
        if let Some(ready) = self.ready.remove(&key) {
            self.ready_bytes -= ready.record.len();
        }
        self.withdrawals.remove(&key.1);
        self.done = self.done.max(key);
    }

    /// Those whose records lie below are parked until `moved` says that they lie elsewhere.
    pub fn begin_moving(&mut self, below: LogOffset) {
        assert!(self.moving.is_empty(), "one move at a time");
        let is_old = |timer: &Timer| timer.place < below;
        let mut old = self.pending.take_below(below);
        for (_, ready) in self.ready.extract_if(.., |_, ready| is_old(&ready.timer)) {
            self.ready_bytes -= ready.record.len();
            old.push(ready.timer);
        }
        let aside = self.aside.extract_if(.., |(_, timer)| is_old(timer));
        old.extend(aside.map(|(_, timer)| timer));
        let ended = self.ended.extract_if(.., |ended| is_old(&ended.timer));
        old.extend(ended.map(|ended| ended.timer));
        old.sort_unstable_by_key(|timer| timer.offset);
        self.moving = old.into();
    }

    /// Up to so many of those that are being moved, the first ones first.
    pub fn to_move(&self, timers_max: usize) -> Vec<Timer> {
        self.moving.iter().take(timers_max).copied().collect()
    }

    pub fn moved(&mut self, key: Key) {
        self.withdrawals.remove(&key.1);
        // Never far from the front.
        let at = self.moving.iter().position(|timer| timer.key() == key);
        at.and_then(|at| self.moving.remove(at));
    }

    /// What was not moved stays where it is.
    pub fn end_moving(&mut self) {
        for timer in std::mem::take(&mut self.moving) {
            self.pending.add(timer);
        }
    }

    /// When there is something to do next, as far as that is known.
    pub fn next_event_ms(&self) -> Option<i64> {
        let ahead_ms = if self.has_room() { READ_AHEAD_MS } else { 0 };
        let to_read = self.pending.first_due_ms();
        let to_read = to_read.map(|due_ms| due_ms.saturating_sub(ahead_ms));
        let to_deliver = self.ready.first_key_value().map(|(key, _)| key.0);
        let again = self.aside.iter().map(|(again_ms, _)| *again_ms).min();
        let events = to_read.into_iter().chain(to_deliver).chain(again);
        events.min()
    }

    /// The first one is due at this time, or later.
    pub fn first_due_ms(&self) -> Option<i64> {
        let pending = self.pending.first_due_ms();
        let ready = self.ready.first_key_value().map(|(key, _)| key.0);
        let aside = self.aside.iter().map(|(_, timer)| timer.due_ms).min();
        pending.into_iter().chain(ready).chain(aside).min()
    }

    /// None for the moment: what was saved before is better. So it is while more than `late_max` would have to be named.
    pub fn checkpoint(&mut self, late_max: usize) -> Option<Checkpoint> {
        let looked_at = self.next >= self.restored.next.max(self.settled_from);
        if !looked_at || self.is_starting() {
            return None;
        }
        let (first, next, done) = (self.first_offset(), self.next, self.done);
        let apart: Vec<u64> = self
            .apart()
            .filter(|timer| timer.key() <= done)
            .map(|timer| timer.offset)
            .collect();
        let pending = self.pending.up_to(done).map(|timer| timer.offset);
        let late = pending.chain(apart).take(late_max.saturating_add(1));
        let late: Vec<u64> = late.collect();
        (late.len() <= late_max).then(|| Checkpoint {
            first,
            next,
            done_ms: done.0,
            done_offset: done.1,
            late: late.into_iter().collect(),
            withdrawals: (self.withdrawals.len() <= WITHDRAWALS_MAX)
                .then(|| self.withdrawals.clone()),
            ..Checkpoint::default()
        })
    }

    /// No parked one lies in front of this offset.
    pub fn first_offset(&self) -> u64 {
        let apart = self.apart().map(|timer| timer.offset).min();
        let first = self.pending.first_offset().into_iter().chain(apart).min();
        first.unwrap_or(self.next).min(self.next)
    }
}

#[cfg(test)]
mod tests;
