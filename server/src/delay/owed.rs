//! Before log goes: delayed messages in it that are not due yet are appended again, to the topic of `timed`.
//!
//! With the usual retention (72 hours) and levels (2 hours at most) there are none; there are when the disk is nearly full.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use engine::{Ask, LogOffset, Queue, QueueOffset, Store};
use protocol::names::TIMER_TOPIC;
use protocol::record::views;
use reactor::Instant;
use reactor::mailbox::{Receiver, Sender};

use super::timer::Timers;
use super::turn::Turn;
use super::{BATCH_BYTES_MAX, Interrupted, Progress, READ, StopGate, due, timed};
use crate::internal::Appender;
use crate::messages::ToWriter;
use crate::reading::{self, At};

/// A segment of which more than its half had to be appended again gives back little: the next one waits for so long, or
/// a disk full of delayed messages would be copied in circles.
const PAUSE_AFTER_MUCH: Duration = Duration::from_secs(60);

/// One delay level, as the mover sees it.
pub struct Movable {
    pub level: i32,
    pub delay_ms: u64,
    pub queue: Arc<Queue>,
    pub turn: Rc<Turn>,
}

/// Lives on the core of shard 0.
pub struct Mover {
    pub store: Arc<Store>,
    pub writer: Sender<ToWriter>,
    pub progress: Rc<Progress>,
    pub gate: Rc<StopGate>,
    pub timers: Rc<Timers>,
    pub levels: Vec<Movable>,
}

impl Mover {
    /// Answers for as long as it is asked.
    pub async fn run(self, mut asked: Receiver<Ask>) {
        let mut pause_until: Option<Instant> = None;
        while let Some(Ask { below, settled }) = asked.recv().await {
            if pause_until.is_some_and(|until| reactor::now() < until) {
                settled.send(false);
                continue;
            }
            match self.settle(below).await {
                Ok(Some(bytes)) => {
                    if bytes > 0 {
                        let below = below.0;
                        tracing::info!(
                            below,
                            bytes,
                            "delayed messages were appended again before their log file goes"
                        );
                    }
                    let is_much = bytes > self.store.config().segment_bytes / 2;
                    pause_until = is_much.then(|| reactor::now() + PAUSE_AFTER_MUCH);
                    settled.send(true);
                }
                Ok(None) => settled.send(false),
                Err(Interrupted::Stopping) => return,
                Err(Interrupted::Refused(problem)) => {
                    tracing::warn!(problem, "delayed messages cannot be appended again now");
                    settled.send(false);
                }
            }
        }
    }

    /// How many bytes were appended again; none if something has to stay where it is.
    async fn settle(&self, below: LogOffset) -> Result<Option<u64>, Interrupted> {
        let mut bytes = self.timers.move_from(below).await?;
        for level in &self.levels {
            level.turn.take().await;
            let moved = self.level(level, below).await;
            level.turn.give();
            match moved? {
                Some(moved) => bytes += moved,
                None => return Ok(None),
            }
        }
        Ok(Some(bytes))
    }

    async fn level(&self, level: &Movable, below: LogOffset) -> Result<Option<u64>, Interrupted> {
        let target = self.store.queue(TIMER_TOPIC, timed::QUEUE_ID);
        let mut appender = Appender::promised(self.writer.clone());
        let mut records = Vec::new();
        let mut bytes = 0;
        loop {
            let at = QueueOffset(self.progress.get(level.level));
            let found = reading::read(&self.store, &level.queue, at, &READ, &mut records).await;
            let behind = match found.map_err(|error| Interrupted::Refused(error.to_string()))? {
                At::Records(behind) => behind,
                At::End => return Ok(Some(bytes)),
                At::Outside => {
                    let (min, max) = (level.queue.min_offset(), level.queue.max_offset());
                    self.progress.set(level.level, at.0.clamp(min, max));
                    continue;
                }
            };
            let mut read = views(&records).peekable();
            // For each message that is appended: where the level is once it is.
            let mut added = Vec::new();
            let mut next = at.0;
            let mut is_above = false;
            while appender.bytes_len() < BATCH_BYTES_MAX
                && let Some(view) = read.next()
            {
                let view = view.map_err(Interrupted::unreadable)?;
                if view.log_offset >= below.0 {
                    is_above = true;
                    break;
                }
                next = view.queue_offset + 1;
                if due::message(&view).is_none() {
                    continue; // It could never be delivered.
                }
                let due_ms = due::due_ms(view.store_ms, level.delay_ms, reactor::wall_ms());
                let Some(properties) = timed::properties_in(view.properties, due_ms) else {
                    return Ok(None);
                };
                bytes += view.bytes.len() as u64;
                let draft_properties = Cow::Owned(properties);
                let draft = timed::draft(&view, &draft_properties);
                appender.add(&target, timed::tag_hash(&view), &draft);
                added.push(next);
            }
            if read.peek().is_none() && !is_above {
                next = behind; // Damaged messages are not among the records.
            }
            // What was appended is not appended again, whatever becomes of what is behind it.
            for (behind, result) in added
                .into_iter()
                .zip(self.gate.append(&mut appender).await?)
            {
                if let Some(problem) = Interrupted::of(&result) {
                    return Err(problem);
                }
                self.progress.set(level.level, behind);
            }
            self.progress.set(level.level, next);
            if is_above {
                return Ok(Some(bytes));
            }
        }
    }
}
