//! Reading the log behind the checkpoint: entries into the index, queues' ends into the registry, until the log ends.
//!
//! Indexes of full segments stay in memory for the newest few only; older ones are sealed as the scan leaves them
//! behind, so that a log without any companion is read in bounded memory.

use super::indexing::{Doubts, Indexing, Message, Place, Rules};
use super::walk::{self, Step, Walk};
use super::{Progress, seal};
use crate::layout::Layout;
use crate::queue::{Queue, Registry};
use crate::queue_index::keeper::Covered;
use crate::segment::{Hot, Segment};
use protocol::record::View;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Progress is said this often.
const PROGRESS_BYTES: u64 = 1 << 20;
/// So many full segments keep their index in memory for the keeper; with them a usual restart writes nothing.
const UNSEALED_MAX: usize = 2;

/// See the module.
pub struct Scan<'a> {
    pub registry: &'a Arc<Registry>,
    pub layout: &'a Layout,
    /// Below this log offset queues may have gaps and start anew.
    pub rocketmqs_until: u64,
    /// Below this log offset queues may have gaps, because damage was passed over before.
    pub gaps_until: u64,
    /// Below this log offset a record that does not count is damage to be passed over, not the end of the log.
    pub damage_until: u64,
    /// What was passed over.
    pub damaged: Vec<Range<u64>>,
    pub covered: Covered,
    /// Store time of the last record, or the latest before it.
    pub last_ms: i64,
    pub end: u64,
    pub read_bytes: u64,
    pub total_bytes: u64,
    /// Below this log offset sealed indexes have messages of queues that started anew behind it.
    pub outdated_below: u64,
    /// Read to their end, with their index in memory.
    unsealed: VecDeque<Arc<Segment>>,
    /// Of the segment that is being read.
    doubts: Doubts,
}

impl<'a> Scan<'a> {
    pub fn new(
        registry: &'a Arc<Registry>,
        layout: &'a Layout,
        rocketmqs_until: u64,
        gaps_until: u64,
        covered: Covered,
        last_ms: i64,
        log_end: u64,
    ) -> Scan<'a> {
        Scan {
            registry,
            layout,
            rocketmqs_until,
            gaps_until,
            damage_until: 0,
            damaged: Vec::new(),
            end: covered.to,
            read_bytes: 0,
            total_bytes: log_end - covered.to,
            covered,
            last_ms,
            outdated_below: 0,
            unsealed: VecDeque::new(),
            doubts: Doubts::default(),
        }
    }

    /// Reads one segment from where the scan is. Returns whether the log goes on in the next one.
    pub async fn segment(
        &mut self,
        segment: &Arc<Segment>,
        progress: &mut impl FnMut(Progress),
    ) -> io::Result<bool> {
        let hot = match segment.hot().as_ref() {
            Some(hot) => hot.clone(),
            None => segment.warm()?,
        };
        let from = self.end.max(segment.base()) - segment.base();
        let before = self.read_bytes;
        let mut told = before / PROGRESS_BYTES;
        let mut indexing = Indexing::after(self.last_ms);
        let (file, base, bytes) = (segment.file().clone(), segment.base(), segment.bytes());
        let mut walk = Walk::new(file, base, bytes, from);
        loop {
            let full = match walk.next().await? {
                Step::Record(record) => {
                    let position = record.position;
                    let added = record
                        .view
                        .and_then(|view| self.add(&hot, base, position, &view, &mut indexing));
                    match added {
                        Ok(()) => {
                            self.end = base + walk.position();
                            false
                        }
                        Err(why) => {
                            walk.go_to(position);
                            match self.pass_over(&mut walk, base, why).await? {
                                Passed::Damage => false,
                                Passed::RestOfSegment => true,
                                Passed::Nothing => return Ok(false),
                            }
                        }
                    }
                }
                Step::Full => true,
                Step::End(why) => match self.pass_over(&mut walk, base, why).await? {
                    Passed::Damage => false,
                    Passed::RestOfSegment => true,
                    Passed::Nothing => return Ok(false),
                },
            };
            if full {
                self.read_bytes = before + bytes - from;
                self.end = segment.end();
                self.finish(segment);
                self.unsealed.push_back(segment.clone());
                self.seal_oldest().await?;
                return Ok(true);
            }
            self.read_bytes = before + walk.position() - from;
            if self.read_bytes / PROGRESS_BYTES != told {
                told = self.read_bytes / PROGRESS_BYTES;
                progress(Progress {
                    read_bytes: self.read_bytes,
                    total_bytes: self.total_bytes,
                });
            }
        }
    }

    fn add(
        &mut self,
        hot: &Hot,
        segment_base: u64,
        position: u64,
        view: &View<'_>,
        indexing: &mut Indexing,
    ) -> Result<(), &'static str> {
        let dispatched = indexing.entry(&hot.index, position, view)?;
        if let Some((to, entry)) = dispatched {
            let queue = self.queue(to.topic, to.queue_id, to.queue_offset);
            let rules = match segment_base + position {
                at if at < self.rocketmqs_until => Rules::RocketMqs,
                at if at < self.gaps_until => Rules::Gaps,
                _ => Rules::Strict,
            };
            let next = queue.max_offset();
            let message = Message {
                queue,
                queue_offset: to.queue_offset,
                entry,
            };
            let settled = self.doubts.settle(next, message, rules)?;
            for message in settled.into_iter().flatten() {
                self.list(hot, segment_base, &message);
            }
        }
        self.last_ms = self.last_ms.max(view.store_ms);
        Ok(())
    }

    /// The segment is read, or the log ends in it: lists what is still in doubt.
    pub fn finish(&mut self, segment: &Segment) {
        let left = self.doubts.finish(Queue::max_offset);
        let hot = segment.hot();
        let Some(hot) = hot.as_ref().filter(|_| !left.is_empty()) else {
            return;
        };
        for message in left {
            self.list(hot, segment.base(), &message);
        }
    }

    fn queue(&self, topic: &str, id: u32, queue_offset: u64) -> Arc<Queue> {
        self.registry.find(topic, id).unwrap_or_else(|| {
            let queue = self.registry.find_or_make(topic, id);
            queue.start_at(queue_offset);
            queue
        })
    }

    fn list(&mut self, hot: &Hot, segment_base: u64, message: &Message) {
        let (queue, offset) = (&message.queue, message.queue_offset);
        let next = queue.max_offset();
        if Place::of(next, offset) == Place::Anew {
            self.start_anew(queue, segment_base, offset);
        }
        hot.index
            .append_anywhere(queue.no(), next, offset, message.entry);
        queue.store_max(offset + 1);
    }

    /// Forgets what was found of the queue before.
    fn start_anew(&mut self, queue: &Queue, segment_base: u64, offset: u64) {
        if queue.min_offset() < queue.max_offset() {
            tracing::warn!(
                topic = queue.topic(),
                queue = queue.id(),
                was = queue.max_offset(),
                offset,
                "a queue starts anew in the log; its messages before that are not shown"
            );
        }
        queue.start_at(offset);
        for segment in &self.unsealed {
            if let Some(hot) = segment.hot().as_ref() {
                hot.index.forget(queue.no());
            }
        }
        self.outdated_below = segment_base;
    }

    /// Seals full segments until few enough have their index in memory.
    async fn seal_oldest(&mut self) -> io::Result<()> {
        while self.unsealed.len() > UNSEALED_MAX
            && let Some(segment) = self.unsealed.pop_front()
        {
            let newer: Vec<Arc<Segment>> = self.unsealed.iter().cloned().collect();
            let registry = self.registry.clone();
            seal(self.layout, registry, newer, &segment, &mut self.covered).await?;
            drop(segment.retire());
        }
        Ok(())
    }

    /// What the walk stands at does not count: passes it over if it is damage, otherwise the log ends here.
    async fn pass_over(
        &mut self,
        walk: &mut Walk,
        segment_base: u64,
        why: &'static str,
    ) -> io::Result<Passed> {
        let at = segment_base + walk.position();
        self.end = at;
        if at >= self.damage_until {
            if why != walk::NOTHING_MORE {
                tracing::warn!(log_offset = at, why, "the commit log is cut here");
            }
            return Ok(Passed::Nothing);
        }
        // Queues with messages in there go on behind a gap, wherever that is.
        self.gaps_until = u64::MAX;
        let found = walk.find_next_record().await?;
        let goes_on = segment_base + walk.position();
        self.damaged.push(at..goes_on);
        tracing::error!(
            log_offset = at,
            why,
            goes_on,
            "the commit log is damaged; what cannot be read is left out"
        );
        Ok(match found {
            true => Passed::Damage,
            false => Passed::RestOfSegment,
        })
    }
}

/// What to do behind bytes that do not count.
enum Passed {
    /// Go on at the walk's new place.
    Damage,
    /// There is no record behind it in this segment.
    RestOfSegment,
    /// The log ends.
    Nothing,
}
