//! One queue as one group pops it: the state machine of POP, without time, disk or network.
//!
//! ```text
//!        done, or unacked (listed)              not popped yet
//!  0 ────────────────────────────────► next ───────────────────► end of the queue
//! ```
//!
//! A message below `next` is listed while nobody has acknowledged it: hidden until it is due, visible again afterwards.
//! Nothing happens when it becomes due, so nothing can be lost then: being visible is a matter of the clock. The state changes
//! by `Op`s only, in the order in which they stand in the log; the same ops give the same state.

use std::collections::{BTreeMap, BTreeSet};

/// Lives on the coordinator's core.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PopQueue {
    /// The first message that was never popped.
    next: u64,
    unacked: BTreeMap<u64, Unacked>,
    /// The same messages in the order in which they are visible again.
    by_due: BTreeSet<(i64, u64)>,
    /// Names the request that got the last messages in order.
    attempt: String,
}

/// A message that was delivered and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unacked {
    /// Names its last delivery.
    pub pop_ms: i64,
    /// Hidden before this time.
    pub due_ms: i64,
    /// How often it was delivered before its last delivery.
    pub times: u32,
    /// How far it lies behind the first message of that delivery, which the handles of all of them name.
    pub ahead: u32,
}

/// A change of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Everything before `next` is done, nothing is unacked: the beginning, or where an operator has set the group.
    Start { next: u64 },
    /// These were delivered; new messages below `next` that are not among them are not for this group.
    Take {
        offsets: Vec<u64>,
        next: u64,
        pop_ms: i64,
        due_ms: i64,
        attempt: String,
    },
    /// Done, if this was their last delivery.
    Ack { offsets: Vec<u64>, pop_ms: i64 },
    /// Hidden anew under another name, if this was its last delivery.
    Change {
        offset: u64,
        pop_ms: i64,
        new_pop_ms: i64,
        due_ms: i64,
    },
    /// The state as it is here, for the messages from `from` to before `until`.
    Part {
        next: u64,
        from: u64,
        until: u64,
        unacked: Vec<(u64, Unacked)>,
        attempt: String,
    },
    /// The group or the topic is gone.
    Forget,
}

impl PopQueue {
    pub fn new(next: u64) -> Self {
        Self {
            next,
            ..Self::default()
        }
    }

    pub fn next(&self) -> u64 {
        self.next
    }

    /// Everything before it is done.
    pub fn done_to(&self) -> u64 {
        let first = self.unacked.first_key_value();
        first.map_or(self.next, |(&offset, _)| offset.min(self.next))
    }

    /// See `Op::Take`.
    pub fn attempt(&self) -> &str {
        &self.attempt
    }

    pub fn unacked_len(&self) -> usize {
        self.unacked.len()
    }

    pub fn unacked(&self) -> impl Iterator<Item = (u64, &Unacked)> {
        self.unacked
            .iter()
            .map(|(&offset, unacked)| (offset, unacked))
    }

    pub fn get(&self, offset: u64) -> Option<&Unacked> {
        self.unacked.get(&offset)
    }

    /// Those from an offset on, in order.
    pub fn unacked_from(&self, from: u64) -> impl Iterator<Item = (u64, &Unacked)> {
        let range = self.unacked.range(from..);
        range.map(|(&offset, unacked)| (offset, unacked))
    }

    /// Visible again, in the order in which they became so.
    pub fn visible(&self, now_ms: i64) -> impl Iterator<Item = u64> + '_ {
        let due = self
            .by_due
            .iter()
            .take_while(move |(due_ms, _)| *due_ms <= now_ms);
        due.map(|(_, offset)| *offset)
    }

    /// When the next one is visible again of those that are not.
    pub fn earliest_due_after(&self, now_ms: i64) -> Option<i64> {
        let later = self.by_due.range((now_ms + 1, 0)..).next();
        later.map(|(due_ms, _)| *due_ms)
    }

    /// In order nothing is delivered while something is hidden, except what the same request has got already.
    pub fn is_blocked(&self, now_ms: i64, attempt: &str) -> bool {
        let is_repeated = !attempt.is_empty() && attempt == self.attempt;
        let hidden = self
            .by_due
            .last()
            .is_some_and(|(due_ms, _)| *due_ms > now_ms);
        hidden && !is_repeated
    }

    /// The name of a new delivery: no message has two of the same name.
    pub fn pop_ms(&self, now_ms: i64, offsets: &[u64]) -> i64 {
        let before = offsets.iter().filter_map(|offset| self.unacked.get(offset));
        let last = before.map(|unacked| unacked.pop_ms).max();
        last.map_or(now_ms, |last| now_ms.max(last + 1))
    }

    /// How many messages the op has taken hold of.
    pub fn apply(&mut self, op: &Op) -> usize {
        match op {
            Op::Start { next } => {
                *self = Self::new(*next);
                0
            }
            Op::Take {
                offsets,
                next,
                pop_ms,
                due_ms,
                attempt,
            } => {
                self.take(offsets, *pop_ms, *due_ms, attempt);
                self.next = self.next.max(*next);
                offsets.len()
            }
            Op::Ack { offsets, pop_ms } => {
                let acked = offsets.iter().filter(|offset| self.ack(**offset, *pop_ms));
                acked.count()
            }
            Op::Change {
                offset,
                pop_ms,
                new_pop_ms,
                due_ms,
            } => usize::from(self.change(*offset, *pop_ms, *new_pop_ms, *due_ms)),
            Op::Part {
                next,
                from,
                until,
                unacked,
                attempt,
            } => {
                self.replace(*next, *from, *until, unacked);
                attempt.clone_into(&mut self.attempt);
                unacked.len()
            }
            Op::Forget => {
                *self = Self::default();
                0
            }
        }
    }

    fn take(&mut self, offsets: &[u64], pop_ms: i64, due_ms: i64, attempt: &str) {
        let is_repeated = !attempt.is_empty() && attempt == self.attempt;
        let first = offsets.iter().min().copied().unwrap_or(0);
        for &offset in offsets {
            let times = match self.remove(offset) {
                Some(before) if is_repeated => before.times,
                Some(before) => before.times.saturating_add(1),
                None => 0,
            };
            let unacked = Unacked {
                pop_ms,
                due_ms,
                times,
                ahead: u32::try_from(offset - first).unwrap_or(0),
            };
            self.insert(offset, unacked);
        }
        attempt.clone_into(&mut self.attempt);
    }

    fn ack(&mut self, offset: u64, pop_ms: i64) -> bool {
        match self.unacked.get(&offset) {
            Some(unacked) if unacked.pop_ms == pop_ms => self.remove(offset).is_some(),
            _ => false,
        }
    }

    fn change(&mut self, offset: u64, pop_ms: i64, new_pop_ms: i64, due_ms: i64) -> bool {
        let Some(unacked) = self.unacked.get(&offset).copied() else {
            return false;
        };
        if unacked.pop_ms != pop_ms {
            return false;
        }
        self.remove(offset);
        let changed = Unacked {
            pop_ms: new_pop_ms,
            due_ms,
            times: unacked.times,
            ahead: 0,
        };
        self.insert(offset, changed);
        true
    }

    fn replace(&mut self, next: u64, from: u64, until: u64, unacked: &[(u64, Unacked)]) {
        let old: Vec<u64> = self.unacked.range(from..until).map(|(&at, _)| at).collect();
        for offset in old {
            self.remove(offset);
        }
        for &(offset, unacked) in unacked {
            self.insert(offset, unacked);
        }
        self.next = next;
    }

    fn insert(&mut self, offset: u64, unacked: Unacked) {
        let old = self.unacked.insert(offset, unacked);
        assert!(old.is_none(), "a message is listed once");
        self.by_due.insert((unacked.due_ms, offset));
    }

    fn remove(&mut self, offset: u64) -> Option<Unacked> {
        let unacked = self.unacked.remove(&offset)?;
        let listed = self.by_due.remove(&(unacked.due_ms, offset));
        assert!(listed, "both lists hold the same messages");
        Some(unacked)
    }
}

#[cfg(test)]
mod tests;
