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
mod tests {
    use super::*;
    use crate::delay::checkpoint::LATE_MAX;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Clone, Debug)]
    enum Step {
        /// So many ms from now.
        Send(i64),
        Pass(i64),
        Deliver(usize),
        /// No more than so many are looked at before.
        LookAndDeliver(u64),
        Save,
        /// The task starts again from what was saved last.
        Crash,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (-3_000i64..20_000).prop_map(Step::Send),
            4 => (0i64..4_000).prop_map(Step::Pass),
            4 => (1usize..6).prop_map(Step::Deliver),
            4 => (1u64..6).prop_map(Step::LookAndDeliver),
            2 => Just(Step::Save),
            1 => Just(Step::Crash),
        ]
    }

    struct Run {
        /// Due times by offset.
        queue: Vec<i64>,
        now_ms: i64,
        parked: Parked,
        saved: Option<Checkpoint>,
        delivered: BTreeSet<u64>,
        /// As of the last save.
        delivered_before: BTreeSet<u64>,
        /// That, and what this life has delivered.
        known: BTreeSet<u64>,
    }

    impl Run {
        fn look(&mut self) {
            self.look_at(u64::MAX);
        }

        fn look_at(&mut self, most: u64) {
            let next = self.parked.next();
            let end = next.saturating_add(most).min(self.queue.len() as u64);
            for offset in next..end {
                let timer = Timer {
                    due_ms: self.queue[offset as usize],
                    offset,
                    place: LogOffset(offset * 1_000),
                };
                match offset % 2 {
                    0 => self.parked.add(timer),
                    _ => self.parked.add_read(timer, b"record", self.now_ms),
                };
                self.parked.set_next(offset + 1);
            }
        }

        fn deliver(&mut self, most: usize) -> Result<(), TestCaseError> {
            while let Some(timer) = self.parked.begin_reading(self.now_ms) {
                self.parked.was_read(timer.key(), vec![1]);
            }
            let due = self.parked.due(self.now_ms).take(most);
            for key in due.map(|(key, _)| key).collect::<Vec<_>>() {
                prop_assert!(key.0 <= self.now_ms, "early");
                prop_assert!(
                    !self.delivered_before.contains(&key.1),
                    "it was delivered before the last save"
                );
                self.delivered.insert(key.1);
                prop_assert!(self.known.insert(key.1), "twice in one life");
                self.parked.done(key);
            }
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn none_is_early_none_is_lost_and_none_comes_again_that_was_delivered_before_the_last_save(
            steps in prop::collection::vec(step(), 1..120)
        ) {
            let mut run = Run {
                queue: Vec::new(),
                now_ms: 1_000_000,
                parked: Parked::restore(None, 0, 0),
                saved: None,
                delivered: BTreeSet::new(),
                delivered_before: BTreeSet::new(),
                known: BTreeSet::new(),
            };
            for step in steps {
                match step {
                    Step::Send(wait_ms) => run.queue.push(run.now_ms + wait_ms),
                    Step::Pass(ms) => run.now_ms += ms,
                    Step::Deliver(most) => {
                        run.look();
                        run.deliver(most)?;
                    }
                    Step::LookAndDeliver(most) => {
                        run.look_at(most);
                        run.deliver(usize::MAX)?;
                    }
                    Step::Save => {
                        if let Some(checkpoint) = run.parked.checkpoint(LATE_MAX) {
                            run.saved = Some(checkpoint);
                            run.delivered_before = run.known.clone();
                        }
                    }
                    Step::Crash => {
                        let max = run.queue.len() as u64;
                        run.parked = Parked::restore(run.saved.clone(), 0, max);
                        run.known = run.delivered_before.clone();
                    }
                }
            }
            run.look();
            run.now_ms += 1_000_000;
            run.deliver(usize::MAX)?;
            prop_assert_eq!(run.delivered.len(), run.queue.len(), "each was delivered");
            prop_assert_eq!(run.parked.len(), 0);
        }
    }

    #[test]
    fn what_is_being_moved_is_parked_until_it_lies_elsewhere() {
        let mut parked = Parked::restore(None, 0, 0);
        for offset in 0..3 {
            parked.add(Timer {
                due_ms: 50_000,
                offset,
                place: LogOffset(offset * 10),
            });
            parked.set_next(offset + 1);
        }
        parked.begin_moving(LogOffset(20));
        let moving = parked.to_move(10);
        assert_eq!(moving.len(), 2);
        assert_eq!(
            parked.checkpoint(LATE_MAX).map(|saved| saved.first),
            Some(0)
        );
        parked.moved(moving[0].key());
        assert_eq!(
            parked.checkpoint(LATE_MAX).map(|saved| saved.first),
            Some(1)
        );
        parked.end_moving();
        assert_eq!(parked.len(), 2);
        parked.begin_moving(LogOffset(20));
        assert_eq!(parked.to_move(10).len(), 1);
    }

    #[test]
    fn what_is_withdrawn_stays_so_until_a_start_has_looked_at_all_of_it() {
        let withdrawal = Timer {
            due_ms: 5_000,
            offset: 1,
            place: LogOffset(1_000),
        };
        let mut parked = Parked::restore(None, 0, 0);
        parked.add(withdrawal);
        parked.add_withdrawal(1, b"t+1", 5_000);
        parked.set_next(10);
        let saved = parked.checkpoint(LATE_MAX).expect("all is looked at");

        // The one that it withdraws was appended again, and lies behind it now.
        let mut parked = Parked::restore(Some(saved), 0, 12);
        assert_eq!(parked.named_withdrawal(), Some(1));
        parked.heard_of(1);
        assert_eq!(parked.named_withdrawal(), None);
        parked.withdraw(b"t+1", 5_000);
        parked.set_heard(12);
        assert!(parked.is_starting());
        parked.add(withdrawal);
        parked.add_withdrawal(1, b"t+1", 5_000);
        parked.set_next(4);
        assert_eq!(parked.begin_reading(6_000), Some(withdrawal));
        parked.end_withdrawal(withdrawal.key(), b"t+1", 6_000);
        parked.all_due_is_done();
        assert!(parked.is_withdrawn(b"t+1"), "nobody knows what follows");
        assert_eq!(
            parked.checkpoint(LATE_MAX),
            None,
            "it would not name it any more"
        );
        parked.set_next(12);
        assert!(parked.is_withdrawn(b"t+1"), "what was found may be due");
        parked.all_due_is_done();
        assert!(!parked.has_withdrawn());
        let saved = parked.checkpoint(LATE_MAX).expect("all is looked at");
        assert_eq!(saved.withdrawals, Some(BTreeSet::new()));
    }

    #[test]
    fn where_it_is_not_known_what_is_withdrawn_a_start_looks_at_all_of_it_first() {
        let saved = Checkpoint {
            first: 2,
            next: 10,
            ..Checkpoint::default()
        };
        assert!(!Parked::restore(Some(saved.clone()), 0, 10).is_starting());
        let known = Checkpoint {
            withdrawals: Some(BTreeSet::new()),
            ..saved
        };
        assert!(Parked::restore(Some(known), 0, 10).is_starting());
    }

    #[test]
    fn a_name_is_withdrawn_until_its_time_is_over_and_all_that_was_due_is_done() {
        let timer = |due_ms, offset| Timer {
            due_ms,
            offset,
            place: LogOffset(offset * 1_000),
        };
        let (early, late) = (timer(4_000, 0), timer(5_000, 1));
        let mut parked = Parked::default();
        for withdrawal in [early, late] {
            parked.add(withdrawal);
            parked.add_withdrawal(withdrawal.offset, b"t+1", withdrawal.due_ms);
            parked.set_next(withdrawal.offset + 1);
        }
        parked.begin_reading(4_000);
        parked.end_withdrawal(early.key(), b"t+1", 4_000);
        parked.all_due_is_done();
        assert!(parked.is_withdrawn(b"t+1") && !parked.is_withdrawn(b"t+2"));
        parked.begin_reading(5_000);
        parked.end_withdrawal(late.key(), b"t+1", 5_000);
        assert!(parked.is_withdrawn(b"t+1"), "what it withdraws may be due");
        let saved = parked.checkpoint(LATE_MAX).expect("all is looked at");
        assert!(!saved.is_done(&late), "a restart has to hear of it");
        assert_eq!(saved.withdrawals, Some(BTreeSet::from([1])));
        parked.all_due_is_done();
        assert!(!parked.has_withdrawn());
        let saved = parked.checkpoint(LATE_MAX).expect("all is looked at");
        assert!(saved.is_done(&late));
        assert_eq!(saved.withdrawals, Some(BTreeSet::new()));
    }

    #[test]
    fn one_that_cannot_be_read_is_tried_again_and_keeps_nobody_waiting() {
        let mut parked = Parked::default();
        let timers = [0, 1].map(|offset| Timer {
            due_ms: 5_000 + offset as i64,
            offset,
            place: LogOffset(offset * 1_000),
        });
        for timer in timers {
            parked.add(timer);
            parked.set_next(timer.offset + 1);
        }
        assert_eq!(parked.begin_reading(5_000), Some(timers[0]));
        parked.not_read(timers[0].key(), 6_000);
        assert_eq!(parked.begin_reading(5_000), Some(timers[1]));
        parked.was_read(timers[1].key(), vec![1]);
        parked.done(timers[1].key());
        assert_eq!(parked.begin_reading(5_999), None);
        assert_eq!(parked.next_event_ms(), Some(6_000));
        let saved = parked.checkpoint(LATE_MAX).expect("all is looked at");
        assert!(!saved.is_done(&timers[0]) && saved.is_done(&timers[1]));
        assert_eq!((saved.first, parked.len()), (0, 1));
        assert_eq!(parked.begin_reading(6_000), Some(timers[0]));
    }

    /// So many timers, each due before the one in front of it.
    fn backwards(count: u64) -> Vec<Timer> {
        let timer = |offset| Timer {
            due_ms: 100_000_000 - 100 * offset as i64,
            offset,
            place: LogOffset(offset * 1_000),
        };
        (0..count).map(timer).collect()
    }

    #[test]
    fn a_move_that_is_cut_short_leaves_each_timer_once() {
        let mut parked = Parked::default();
        let timers = backwards(2_000);
        for timer in &timers {
            parked.add(*timer);
            parked.set_next(timer.offset + 1);
        }
        // Some of them are read already.
        while parked.begin_reading(100_000_000 - 100 * 1_990).is_some() {}
        parked.begin_moving(LogOffset(1_999_000));
        let moving = parked.to_move(512);
        let copies: Vec<Timer> = (2_000..)
            .zip(&moving)
            .map(|(offset, timer)| Timer {
                offset,
                place: LogOffset(offset * 1_000),
                ..*timer
            })
            .collect();
        moving.iter().for_each(|timer| parked.moved(timer.key()));
        parked.end_moving();
        assert_eq!((moving.len(), parked.len()), (512, 1_488));

        let saved = parked.checkpoint(LATE_MAX).expect("all is looked at");
        let mut parked = Parked::restore(Some(saved), 0, 2_512);
        let next = parked.next();
        for timer in timers.iter().chain(&copies) {
            if timer.offset >= next {
                parked.add(*timer);
                parked.set_next(timer.offset + 1);
            }
        }
        assert_eq!(parked.len(), 2_000);
    }

    #[test]
    fn a_stop_in_the_middle_of_a_large_start_keeps_what_was_delivered() {
        let timers = backwards(10_000);
        let known = Checkpoint {
            next: 10_000,
            withdrawals: Some(BTreeSet::new()),
            ..Checkpoint::default()
        };
        let mut parked = Parked::restore(Some(known), 0, 10_000);
        assert!(parked.is_starting());
        let look = |parked: &mut Parked, end| {
            for timer in &timers[parked.next() as usize..end] {
                parked.add(*timer);
                parked.set_next(timer.offset + 1);
            }
        };
        look(&mut parked, 2_000);
        let mut delivered = BTreeSet::new();
        while let Some(timer) = parked.begin_reading(100_000_000) {
            parked.was_read(timer.key(), vec![1]);
            parked.done(timer.key());
            delivered.insert(timer.offset);
        }
        assert_eq!(delivered.len(), 2_000);

        look(&mut parked, 10_000);
        assert_eq!(parked.checkpoint(LATE_MAX), None, "while it runs");
        let saved = parked.checkpoint(usize::MAX).expect("all is looked at");
        let again = timers.iter().filter(|timer| !saved.is_done(timer));
        let again: BTreeSet<u64> = again.map(|timer| timer.offset).collect();
        assert!(again.is_disjoint(&delivered));
        assert_eq!(again.len() + delivered.len(), 10_000);
    }
}
