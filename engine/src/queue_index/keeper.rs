//! Keeps the index on disk: spills parts of the growing segment, seals full ones, gives their memory back.
//!
//! A task of the writer's core that decides; the work is done by another thread, which reads the index in memory
//! beside the writer. A companion is written only after the log it describes is synced, so that what it says is
//! true after a power cut as well. Nothing here can fail a send: what could not be written is tried again later,
//! and until then a restart reads more of the log.

use super::companion;
use super::part::Kind;
use crate::LogOffset;
use crate::append::AppendError;
use crate::flush::Flusher;
use crate::key_index::follower::Follower;
use crate::layout::Layout;
use crate::segment::Segment;
use crate::store::Store;
use reactor::{Notify, fs, offload, offload_bulk};
use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long after a failed attempt a companion is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// A larger part of the memory for indexes is not for full segments': the rest is the tail's, and what comes behind it.
const FULL_INDEX_FRACTION: u64 = 2;

/// How far the companions describe the log.
#[derive(Clone, Debug)]
pub struct Covered {
    /// Log offset below which companions have every entry.
    pub to: u64,
    /// First offset of the segment the next part belongs to.
    pub segment_base: u64,
    /// How many parts that segment has.
    pub parts: u32,
}

/// The writer's core only.
pub(crate) struct Keeper {
    store: Arc<Store>,
    layout: Arc<Layout>,
    flusher: Rc<Flusher>,
    /// Reads the same log for another index.
    keys: Rc<Follower>,
    covered: RefCell<Covered>,
    wake: Notify,
    /// A part is wanted although little or nothing lies behind the last one.
    part_wanted: Cell<bool>,
    /// `covered` has changed, or could not be.
    stepped: Notify,
    /// The same, for those who wait for an index to leave memory.
    eased: Notify,
    /// The last attempt failed.
    is_failing: Cell<bool>,
    /// What the task has begun goes on on another thread whatever becomes of the task.
    is_stepping: Cell<bool>,
    stopping: Cell<bool>,
    rested: Notify,
}

enum Job {
    Spill { segment: Arc<Segment>, to: u64 },
    Seal { segment: Arc<Segment> },
    None,
}

impl Keeper {
    pub fn new(
        store: Arc<Store>,
        layout: Arc<Layout>,
        flusher: Rc<Flusher>,
        covered: Covered,
    ) -> Keeper {
        Keeper {
            keys: Rc::new(Follower::new(store.clone(), flusher.clone())),
            store,
            layout,
            flusher,
            covered: RefCell::new(covered),
            wake: Notify::new(),
            part_wanted: Cell::new(false),
            stepped: Notify::new(),
            eased: Notify::new(),
            is_failing: Cell::new(false),
            is_stepping: Cell::new(false),
            stopping: Cell::new(false),
            rested: Notify::new(),
        }
    }

    pub fn keys(&self) -> &Rc<Follower> {
        &self.keys
    }

    /// Called by the writer after a publish: wakes the task if a part or a seal is due.
    pub fn look(&self) {
        self.keys.look();
        let covered = self.covered.borrow();
        let released = self.store.log().released().0;
        let behind = released - covered.to;
        let full = covered.segment_base + self.store.config().segment_bytes;
        if behind >= self.store.config().part_bytes || released >= full {
            self.wake.notify();
        }
    }

    /// Whether the segment that ends at `end` has its sealed index, and so have all before it.
    pub fn has_sealed(&self, end: u64) -> bool {
        self.covered.borrow().segment_base >= end
    }

    /// Sees to it that a companion behind `end` says where every queue goes on. Whether there is one now.
    pub async fn has_checkpoint_behind(&self, end: u64) -> bool {
        let is_there = || {
            let covered = self.covered.borrow();
            covered.segment_base > end || (covered.segment_base == end && covered.parts > 0)
        };
        // The first may tell of a step that was over before.
        for _ in 0..2 {
            if is_there() {
                return true;
            }
            self.part_wanted.set(true);
            self.wake.notify();
            self.stepped.notified().await;
        }
        is_there()
    }

    /// The task.
    pub async fn run(self: Rc<Keeper>) {
        while !self.stopping.get() {
            self.is_stepping.set(true);
            let stepped = self.step(self.store.config().part_bytes).await;
            self.is_stepping.set(false);
            self.rested.notify();
            self.is_failing.set(stepped.is_err());
            self.stepped.notify();
            self.eased.notify_all();
            match stepped {
                Ok(true) => {}
                Ok(false) => self.wake.notified().await,
                Err(_) if self.store.log().is_poisoned() => return,
                Err(error) => {
                    tracing::warn!(%error, "writing the queue index failed; it is tried again");
                    reactor::sleep(RETRY).await;
                }
            }
            self.retire_cold().await;
            self.eased.notify_all();
        }
    }

    /// The task begins nothing more; resumes when nothing of it is under way. Two that write the same companion would
    /// take each other's file away.
    pub async fn stop(&self) {
        self.stopping.set(true);
        while self.is_stepping.get() {
            self.rested.notified().await;
        }
    }

    /// Whether the indexes of full segments leave memory for those of the tail and of the segment behind it.
    pub fn has_room_for_index(&self) -> bool {
        let list = self.store.log().segments().load();
        let (_, full) = list.items().split_last().expect("a log has a segment");
        index_bytes(full) <= self.full_index_bytes_max()
    }

    /// Resumes when something was done towards that; the caller publishes, and looks again.
    pub async fn more_room_for_index(&self) -> Result<(), AppendError> {
        if self.store.log().is_poisoned() {
            return Err(AppendError::Poisoned);
        }
        if self.is_failing.get() {
            return Err(AppendError::IndexBehind);
        }
        if self.waits_for_release() {
            let written = self.store.log().written();
            // It has poisoned the log then.
            let synced = self.flusher.sync_to(written).await;
            return synced.map_err(|_| AppendError::Poisoned);
        }
        self.wake.notify();
        self.eased.notified().await;
        Ok(())
    }

    /// Whether the oldest full segment without its index is not readable to its end yet: till then there is nothing to do.
    fn waits_for_release(&self) -> bool {
        let list = self.store.log().segments().load();
        let (tail, _) = list.items().split_last().expect("a log has a segment");
        let oldest = list.containing(self.covered.borrow().segment_base);
        oldest.is_some_and(|(_, oldest)| {
            oldest.base() < tail.base() && self.store.log().released().0 < oldest.end()
        })
    }

    fn full_index_bytes_max(&self) -> u64 {
        self.store.config().index_bytes / FULL_INDEX_FRACTION
    }

    /// Brings the companions up to the end of the log, so that the next start has nothing to read.
    pub async fn finish(&self) {
        loop {
            match self.step(1).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "writing the queue index failed; the next start reads the log instead");
                    return;
                }
            }
        }
    }

    /// Does the oldest thing there is to do; says whether there was one.
    async fn step(&self, part_bytes: u64) -> io::Result<bool> {
        let (job, from, number) = {
            let covered = self.covered.borrow();
            (self.job(&covered, part_bytes), covered.to, covered.parts)
        };
        match job {
            Job::None => return Ok(false),
            Job::Spill { segment, to } => {
                self.flusher.sync_to(LogOffset(to)).await?;
                let path = self.layout.part(segment.base(), number);
                self.write(segment, from, to, Kind::Part, path).await?;
                let mut covered = self.covered.borrow_mut();
                covered.to = to;
                covered.parts = number + 1;
            }
            Job::Seal { segment } => {
                let (base, end) = (segment.base(), segment.end());
                self.flusher.sync_to(LogOffset(end)).await?;
                let path = self.layout.sealed(base);
                let sealed = segment.clone();
                self.write(sealed, base, end, Kind::Sealed, path).await?;
                let parts: Vec<PathBuf> = (0..number)
                    .map(|part| self.layout.part(base, part))
                    .collect();
                offload("remove index parts", move || {
                    // A leftover is removed when the store opens.
                    parts.iter().for_each(|part| drop(fs::remove_file(part)));
                })
                .await;
                *self.covered.borrow_mut() = Covered {
                    to: end,
                    segment_base: end,
                    parts: 0,
                };
                offload("give back the rest of a log file", move || {
                    if let Err(error) = segment.give_back_blank() {
                        tracing::debug!(%error, path = %segment.path().display(), "the rest of a log file keeps its disk space");
                    }
                })
                .await;
            }
        }
        Ok(true)
    }

    fn job(&self, covered: &Covered, part_bytes: u64) -> Job {
        // Not `written`: the queues' ends, which entries are counted by, follow what is released.
        let released = self.store.log().released().0;
        let list = self.store.log().segments().load();
        let Some((_, segment)) = list.containing(covered.segment_base) else {
            return Job::None;
        };
        if segment.end() <= released {
            let segment = segment.clone();
            return Job::Seal { segment };
        }
        let wanted = self.part_wanted.replace(false) && covered.parts == 0;
        if wanted || released - covered.to >= part_bytes {
            let segment = segment.clone();
            return Job::Spill {
                segment,
                to: released,
            };
        }
        Job::None
    }

    async fn write(
        &self,
        segment: Arc<Segment>,
        from: u64,
        to: u64,
        kind: Kind,
        path: PathBuf,
    ) -> io::Result<()> {
        let (store, base) = (self.store.clone(), segment.base());
        let newer = move || {
            let list = store.log().segments().load();
            match list.containing(base) {
                Some((number, _)) => list.items()[number + 1..].to_vec(),
                None => Vec::new(),
            }
        };
        let registry = self.store.registry().clone();
        companion::write_hot(registry, newer, segment, from..to, kind, path).await
    }

    /// Gives back the memory of sealed segments that have left the hot tail, or whose indexes take too much of it.
    async fn retire_cold(&self) {
        let written = self.store.log().written().0;
        let hot_from = written.saturating_sub(self.store.config().hot_bytes);
        let sealed_to = self.covered.borrow().segment_base;
        let list = self.store.log().segments().load_full();
        let (_, full) = list.items().split_last().expect("a log has a segment");
        let mut taken = index_bytes(full);
        let mut retired = Vec::new();
        for segment in full.iter().take_while(|other| other.end() <= sealed_to) {
            if segment.end() > hot_from && taken <= self.full_index_bytes_max() {
                break;
            }
            if let Some(hot) = segment.retire() {
                taken -= hot.index.bytes();
                retired.push(hot);
            }
        }
        if !retired.is_empty() {
            // Unmapping a gigabyte takes a while.
            offload_bulk("unmap cold log segments", move || drop(retired)).await;
        }
    }
}

/// How much memory the indexes of the segments take.
pub(crate) fn index_bytes(segments: &[Arc<Segment>]) -> u64 {
    segments.iter().map(|segment| segment.index_bytes()).sum()
}
