//! Delivers messages with a due time of their own (`timed`), in the order of these times.
//!
//! They lie in their queue in the order in which they were moved there, so what is pending is kept in memory, sorted: a
//! few words each. How far the queue is done is where its oldest pending message lies; after a crash what was delivered
//! behind that comes twice.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use engine::{LogOffset, Queue, QueueOffset, Store};
use protocol::names::TIMER_TOPIC;
use protocol::record::View;

use super::reading::{self, At};
use super::turn::Turn;
use super::{
    BATCH_BYTES_MAX, IDLE_LOOK_EVERY, Interrupted, Progress, RETRY_AFTER, StopGate, due, timed,
};
use crate::internal::Appender;
use crate::shard::Shard;

/// The key of this queue among the delay levels, which begin at 1.
pub const LEVEL: i32 = 0;
/// What is kept in memory; more waits in the log and is late.
const PENDING_MAX: usize = 1 << 20;
/// What is looked up in one step.
const STEP_MAX: usize = 64;
/// The clock on the wall may be set: a long sleep is cut into pieces.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Lives on the core of shard 0.
pub struct Timer {
    queue: Arc<Queue>,
    shard: Rc<Shard>,
    store: Arc<Store>,
    progress: Rc<Progress>,
    gate: Rc<StopGate>,
    turn: Turn,
    pending: RefCell<Pending>,
}

#[derive(Default)]
struct Pending {
    /// Where the record lies, by due time and queue offset.
    by_time: BTreeMap<(i64, u64), LogOffset>,
    offsets: BTreeSet<u64>,
    /// The first offset that has not been looked at.
    next: u64,
}

impl Pending {
    fn add(&mut self, due_ms: i64, offset: u64, place: LogOffset) {
        self.by_time.insert((due_ms, offset), place);
        self.offsets.insert(offset);
    }

    fn remove(&mut self, key: (i64, u64)) {
        self.by_time.remove(&key);
        self.offsets.remove(&key.1);
    }

    /// Everything below is done.
    fn done_to(&self) -> u64 {
        self.offsets.first().copied().unwrap_or(self.next)
    }
}

impl Timer {
    pub fn new(shard: &Rc<Shard>, progress: &Rc<Progress>, gate: &Rc<StopGate>) -> Rc<Self> {
        let store = Arc::clone(&shard.shared.store);
        Rc::new(Self {
            queue: store.queue(TIMER_TOPIC, timed::QUEUE_ID),
            shard: Rc::clone(shard),
            store,
            progress: Rc::clone(progress),
            gate: Rc::clone(gate),
            turn: Turn::default(),
            pending: RefCell::default(),
        })
    }

    pub async fn run(self: Rc<Self>) {
        self.start_within_the_queue();
        loop {
            let step = match self.look().await {
                Ok(()) => self.deliver_due().await,
                Err(problem) => Err(problem),
            };
            match step {
                Ok(()) => self.wait().await,
                Err(Interrupted::Stopping) => return,
                Err(Interrupted::Refused(problem)) => {
                    tracing::warn!(problem, "messages with a due time wait");
                    reactor::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    fn start_within_the_queue(&self) {
        let saved = self.progress.get(LEVEL);
        let inside = saved.clamp(self.queue.min_offset(), self.queue.max_offset());
        self.pending.borrow_mut().next = inside;
        if inside != saved {
            self.progress.set(LEVEL, inside);
        }
    }

    /// Until something is due, or there is more to look at.
    async fn wait(&self) {
        let (next, first, is_full) = {
            let pending = self.pending.borrow();
            let first = pending.by_time.first_key_value();
            let is_full = pending.by_time.len() >= PENDING_MAX;
            (pending.next, first.map(|(key, _)| key.0), is_full)
        };
        let longest = match first {
            Some(due_ms) => {
                let left_ms = due_ms.saturating_sub(reactor::wall_ms());
                Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)).min(SLEEP_MAX)
            }
            None => IDLE_LOOK_EVERY,
        };
        if is_full {
            return reactor::sleep(longest).await;
        }
        let deadline = reactor::turn_time() + longest;
        let at = QueueOffset(next);
        self.shard.wait_for(&self.queue, at, deadline).await;
    }

    /// Takes what is new in the queue into memory.
    pub async fn look(&self) -> Result<(), Interrupted> {
        let mut records = Vec::new();
        loop {
            let at = {
                let pending = self.pending.borrow();
                if pending.by_time.len() >= PENDING_MAX {
                    return Ok(());
                }
                pending.next
            };
            let found = reading::read(&self.store, &self.queue, QueueOffset(at), &mut records);
            let next = match found.await {
                Ok(At::Records(next)) => next,
                Ok(At::End) => return Ok(()),
                Ok(At::Outside) => {
                    let (min, max) = (self.queue.min_offset(), self.queue.max_offset());
                    self.pending.borrow_mut().next = at.clamp(min, max);
                    continue;
                }
                Err(error) => return Err(Interrupted::Refused(error.to_string())),
            };
            let mut pending = self.pending.borrow_mut();
            if pending.next != at {
                continue; // Another task was faster.
            }
            let mut rest = records.as_slice();
            while !rest.is_empty() {
                let view = View::parse(rest).map_err(Interrupted::unreadable)?;
                rest = &rest[view.bytes.len()..];
                // RocketMQ's own messages are passed over.
                if let Some(due_ms) = timed::due_ms(&view) {
                    let place = LogOffset(view.log_offset);
                    pending.add(due_ms, view.queue_offset, place);
                }
            }
            pending.next = next;
        }
    }

    /// All that is due now.
    async fn deliver_due(&self) -> Result<(), Interrupted> {
        self.turn.take().await;
        let delivered = self.deliver_in_turn().await;
        self.turn.give();
        delivered
    }

    async fn deliver_in_turn(&self) -> Result<(), Interrupted> {
        let mut appender = Appender::promised(self.shard.shared.writer.clone());
        loop {
            let now_ms = reactor::wall_ms();
            let due = self.first(|due_ms, _| due_ms <= now_ms);
            if due.is_empty() {
                self.note();
                return Ok(());
            }
            let mut added = Vec::with_capacity(due.len());
            for (key, place) in due {
                let record = self.record(place).await?;
                let view = View::parse(&record).map_err(Interrupted::unreadable)?;
                let Some(message) = due::message(&view) else {
                    tracing::error!(queue_offset = key.1, "message without a real topic skipped");
                    self.pending.borrow_mut().remove(key);
                    continue;
                };
                let queue = self.store.queue(&message.topic, message.queue_id);
                let properties = timed::properties_out(view.properties);
                let mut draft = message.draft(&view);
                draft.properties = protocol::Text::plain(&properties);
                appender.add(&queue, message.tag_hash, &draft);
                added.push(key);
                if appender.bytes_len() >= BATCH_BYTES_MAX {
                    break;
                }
            }
            self.append(&mut appender, &added).await?;
        }
    }

    /// Appends again what lies below. Says how many bytes that took; none if it cannot be done now.
    pub async fn move_from(&self, below: LogOffset) -> Result<Option<u64>, Interrupted> {
        self.look().await?;
        self.turn.take().await;
        let moved = self.move_in_turn(below).await;
        self.turn.give();
        moved
    }

    async fn move_in_turn(&self, below: LogOffset) -> Result<Option<u64>, Interrupted> {
        if self.pending.borrow().by_time.len() >= PENDING_MAX {
            return Ok(None); // Not all of it has been looked at.
        }
        let mut appender = Appender::promised(self.shard.shared.writer.clone());
        let mut bytes = 0;
        loop {
            let old = self.first(|_, place| place < below);
            if old.is_empty() {
                self.note();
                return Ok(Some(bytes));
            }
            let mut added = Vec::with_capacity(old.len());
            for (key, place) in old {
                let record = self.record(place).await?;
                let view = View::parse(&record).map_err(Interrupted::unreadable)?;
                bytes += record.len() as u64;
                let properties = view.properties.into();
                appender.add(&self.queue, 0, &timed::draft(&view, &properties));
                added.push(key);
                if appender.bytes_len() >= BATCH_BYTES_MAX {
                    break;
                }
            }
            self.append(&mut appender, &added).await?;
        }
    }

    /// Up to a step of the pending messages that are wanted.
    fn first(&self, wanted: impl Fn(i64, LogOffset) -> bool) -> Vec<((i64, u64), LogOffset)> {
        let pending = self.pending.borrow();
        let all = pending.by_time.iter();
        all.filter(|((due_ms, _), place)| wanted(*due_ms, **place))
            .take(STEP_MAX)
            .map(|(&key, &place)| (key, place))
            .collect()
    }

    async fn record(&self, place: LogOffset) -> Result<Vec<u8>, Interrupted> {
        match self.store.record_at(place).await {
            Ok(Some(record)) => Ok(record),
            Ok(None) => Err(Interrupted::Refused(format!(
                "there is no record at {}",
                place.0
            ))),
            Err(error) => Err(Interrupted::Refused(error.to_string())),
        }
    }

    async fn append(
        &self,
        appender: &mut Appender,
        added: &[(i64, u64)],
    ) -> Result<(), Interrupted> {
        let results = self.gate.append(appender).await?;
        assert_eq!(results.len(), added.len(), "a result for each message");
        for (key, result) in added.iter().zip(results) {
            if let Some(problem) = Interrupted::of(&result) {
                return Err(problem);
            }
            self.pending.borrow_mut().remove(*key);
        }
        self.note();
        Ok(())
    }

    fn note(&self) {
        let done_to = self.pending.borrow().done_to();
        if done_to != self.progress.get(LEVEL) {
            self.progress.set(LEVEL, done_to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_stands_at_the_oldest_message_that_is_pending() {
        let mut pending = Pending {
            next: 7,
            ..Pending::default()
        };
        assert_eq!(pending.done_to(), 7);
        pending.add(500, 7, LogOffset(70));
        pending.add(300, 8, LogOffset(80));
        pending.next = 9;
        assert_eq!(
            pending.by_time.first_key_value().map(|(key, _)| key.1),
            Some(8)
        );
        pending.remove((300, 8));
        assert_eq!(pending.done_to(), 7);
        pending.remove((500, 7));
        assert_eq!(pending.done_to(), 9);
    }
}
