//! From the records of a segment to the entries of its index: the one rule that recovery, rebuilding and `check` share.
//!
//! A record of ours follows its queue, unless damage has taken the messages between. RocketMQ's may leave offsets out,
//! or begin again at a lower one (a topic that was deleted and made again): then the later messages are the queue's,
//! and the earlier ones are not shown. No checksum covers a queue offset: one that does not follow is believed only
//! once the queue's next record bears it out.

use crate::QueueNo;
use crate::dispatch::{Dispatched, dispatch};
use crate::queue::Queue;
use crate::queue_index::active::ActiveIndex;
use crate::queue_index::{Entry, GAP_ENTRIES_MAX};
use hashbrown::HashMap;
use protocol::record::View;
use std::sync::Arc;

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

/// What may happen in a stretch of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// It is ours: every record follows its queue.
    Strict,
    /// It is ours, and some of it was damaged: messages may be missing.
    Gaps,
    /// It is RocketMQ's.
    RocketMqs,
}

/// A message that is to be listed.
#[derive(Clone, Debug)]
pub struct Message {
    pub queue: Arc<Queue>,
    pub queue_offset: u64,
    pub entry: Entry,
}

/// Records of a segment that do not follow their queue, at most one of each, until the next one shows whether they are
/// what they say.
#[derive(Debug, Default)]
pub struct Doubts {
    held: HashMap<QueueNo, Message>,
    left_out: u64,
}

impl Doubts {
    /// What can be listed now, in this order, given that the queue goes on at `next`. Offsets between get fillers.
    pub fn settle(
        &mut self,
        next: u64,
        message: Message,
        rules: Rules,
    ) -> Result<[Option<Message>; 2], &'static str> {
        let (no, offset) = (message.queue.no(), message.queue_offset);
        let mut next = next;
        let mut settled = None;
        if let Some(held) = self.held.remove(&no) {
            if is_borne_out(held.queue_offset, next, offset) {
                next = held.queue_offset + 1;
                settled = Some(held);
            } else {
                self.leave_out(&held);
            }
        }
        match (Place::of(next, offset), rules) {
            (Place::Follows, _) => return Ok([settled, Some(message)]),
            (_, Rules::Strict) => return Err("the record does not follow its queue"),
            (Place::Anew, Rules::Gaps) => self.leave_out(&message),
            (Place::Gap, Rules::Gaps) | (Place::Gap | Place::Anew, Rules::RocketMqs) => {
                self.held.insert(no, message);
            }
        }
        Ok([settled, None])
    }

    /// At the end of the segment: of those left, what is as likely as not. `next` says where a queue goes on.
    pub fn finish(&mut self, next: impl Fn(&Queue) -> u64) -> Vec<Message> {
        let held = std::mem::take(&mut self.held);
        let (listed, not) = held.into_values().partition(|message: &Message| {
            let place = Place::of(next(&message.queue), message.queue_offset);
            place == Place::Gap || message.queue_offset == 0
        });
        let not: Vec<Message> = not;
        not.iter().for_each(|message| self.leave_out(message));
        listed
    }

    /// How many records are not listed because their queue offset cannot be right.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn leave_out(&mut self, message: &Message) {
        self.left_out += 1;
        tracing::warn!(
            topic = message.queue.topic(),
            queue = message.queue.id(),
            offset = message.queue_offset,
            position = message.entry.position,
            "a record's queue offset cannot be right: the message is left out"
        );
    }
}

/// Whether the record at `offset` shows that the one before it, at `held` where `next` was expected, was right.
fn is_borne_out(held: u64, next: u64, offset: u64) -> bool {
    let is_lower = held < next;
    offset == held + 1 || (offset > held && (!is_lower || offset < next))
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

    /// Where the record belongs, and its entry. The first record that counts sets the base of the index's times.
    pub fn entry<'a>(
        &mut self,
        index: &ActiveIndex,
        position: u64,
        view: &View<'a>,
    ) -> Result<Option<(Dispatched<'a>, Entry)>, &'static str> {
        let dispatched = dispatch(view)?;
        if index.base_ms() == 0 {
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

    /// Adds a message's entry behind those of its queue, which goes on at `next`. Returns how it stands to them.
    pub fn add(&mut self, index: &ActiveIndex, next: u64, message: &Message) -> Place {
        let (queue, offset) = (&message.queue, message.queue_offset);
        index.append_anywhere(queue.no(), next, offset, message.entry);
        self.set(queue, offset + 1);
        Place::of(next, offset)
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

    /// What is listed of one queue's offsets that starts at the first of them.
    fn listed(offsets: &[u64], rules: Rules) -> Vec<u64> {
        let queue = Registry::default().find_or_make("t", 0);
        let (mut doubts, mut next, mut listed) = (Doubts::default(), offsets[0], Vec::new());
        let entry = Entry {
            position: 0,
            bytes: 100,
            tag_hash: 0,
            delta_ms: 0,
        };
        for offset in offsets {
            let message = Message {
                queue: queue.clone(),
                queue_offset: *offset,
                entry,
            };
            let Ok(settled) = doubts.settle(next, message, rules) else {
                return listed;
            };
            for message in settled.into_iter().flatten() {
                next = message.queue_offset + 1;
                listed.push(message.queue_offset);
            }
        }
        let last = doubts.finish(|_| next);
        listed.extend(last.iter().map(|message| message.queue_offset));
        listed
    }

    #[test]
    fn one_wrong_offset_costs_one_message() {
        for rules in [Rules::Gaps, Rules::RocketMqs] {
            // 8 was read as 24, as 0, and as something far away.
            for wrong in [24, 0, 8 | 1 << 40] {
                let found = listed(&[6, 7, wrong, 9, 10, 11], rules);
                assert_eq!(found, [6, 7, 9, 10, 11], "{rules:?} {wrong}");
            }
        }
        assert_eq!(listed(&[6, 7, 24, 9], Rules::Strict), [6, 7]);
    }

    #[test]
    fn what_the_next_record_bears_out_is_believed() {
        let beginnings = listed(&[6, 7, 0, 1, 2], Rules::RocketMqs);
        assert_eq!(beginnings, [6, 7, 0, 1, 2]);
        assert_eq!(listed(&[6, 0, 1], Rules::RocketMqs), [6, 0, 1]);
        assert_eq!(listed(&[0, 0, 1], Rules::RocketMqs), [0, 0, 1]);
        assert_eq!(listed(&[6, 0], Rules::RocketMqs), [6, 0]);
        // Batches take several offsets each.
        assert_eq!(listed(&[6, 16, 26, 36], Rules::RocketMqs), [6, 16, 26, 36]);
        assert_eq!(listed(&[6, 9, 10, 12], Rules::Gaps), [6, 9, 10, 12]);
        // Nothing of ours begins again.
        assert_eq!(listed(&[6, 7, 0, 1, 8], Rules::Gaps), [6, 7, 8]);
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
                let queue = registry.find_or_make("t", *id);
                let message = Message { queue, queue_offset: *offset, entry };
                let expected = next.get(&message.queue).unwrap_or(*offset);
                next.add(&index, expected, &message);
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
