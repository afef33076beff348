//! Reading the log behind the checkpoint: entries into the index, queues' ends into the registry, until the log ends.
//!
//! Indexes of full segments stay in memory for the newest few only; older ones are sealed as the scan leaves them
//! behind, so that a log without any companion is read in bounded memory.

use super::indexing::{Indexing, Place};
use super::walk::{self, Step, Walk};
use super::{Progress, seal};
use crate::dispatch::Dispatched;
use crate::layout::Layout;
use crate::queue::{Queue, Registry};
use crate::queue_index::Entry;
use crate::queue_index::keeper::Covered;
use crate::segment::{Hot, Segment};
use protocol::record::View;
use std::collections::VecDeque;
use std::io;
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
    /// Below this log offset a record that does not count is damage to be passed over, not the end of the log.
    pub damage_until: u64,
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
}

impl<'a> Scan<'a> {
    pub fn new(
        registry: &'a Arc<Registry>,
        layout: &'a Layout,
        rocketmqs_until: u64,
        covered: Covered,
        last_ms: i64,
        log_end: u64,
    ) -> Scan<'a> {
        Scan {
            registry,
            layout,
            rocketmqs_until,
            damage_until: 0,
            end: covered.to,
            read_bytes: 0,
            total_bytes: log_end - covered.to,
            covered,
            last_ms,
            outdated_below: 0,
            unsealed: VecDeque::new(),
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
            self.place(hot, segment_base, &to, entry)?;
        }
        self.last_ms = self.last_ms.max(view.store_ms);
        Ok(())
    }

    fn place(
        &mut self,
        hot: &Hot,
        segment_base: u64,
        to: &Dispatched<'_>,
        entry: Entry,
    ) -> Result<(), &'static str> {
        let queue = match self.registry.find(to.topic, to.queue_id) {
            Some(queue) => queue,
            None => {
                let queue = self.registry.find_or_make(to.topic, to.queue_id);
                queue.start_at(to.queue_offset);
                queue
            }
        };
        let next = queue.max_offset();
        let place = Place::of(next, to.queue_offset);
        if place == Place::Follows {
            hot.index.append(queue.no(), to.queue_offset, entry);
        } else if segment_base + u64::from(entry.position) >= self.rocketmqs_until {
            return Err("the record does not follow its queue");
        } else {
            if place == Place::Anew {
                self.start_anew(&queue, segment_base, to);
            }
            hot.index
                .append_anywhere(queue.no(), next, to.queue_offset, entry);
        }
        queue.store_max(to.queue_offset + 1);
        Ok(())
    }

    /// Forgets what was found of the queue before.
    fn start_anew(&mut self, queue: &Queue, segment_base: u64, to: &Dispatched<'_>) {
        if queue.min_offset() < queue.max_offset() {
            tracing::warn!(
                topic = to.topic,
                queue = to.queue_id,
                was = queue.max_offset(),
                offset = to.queue_offset,
                "a queue starts anew in the log; its messages before that are not shown"
            );
        }
        queue.start_at(to.queue_offset);
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
        self.rocketmqs_until = u64::MAX;
        let found = walk.find_next_record().await?;
        let goes_on = segment_base + walk.position();
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
