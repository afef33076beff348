//! The `direct` flusher: the log is written from the window, past the page cache, several writes at a time.
//!
//! `schedule` decides what is written when; a few workers do it. Where readers wait for durable records every write
//! is durable by itself, and whoever lays something wakes a worker: all that is laid while writes are in flight
//! shares the next ones. Elsewhere whole blocks are written when there are enough of them, and the clock syncs.

mod schedule;

use super::Watermarks;
use super::group_wait::GroupWait;
use crate::LogOffset;
use crate::commit_log::ReleaseAt;
use crate::segment::Segment;
use crate::window::{BLOCK_BYTES, Window, block_of};
use reactor::{Buffer, Notify, offload};
use schedule::{Schedule, WRITES_MAX, Write};
use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// What is done to a file, as the log tells it when it fails.
const WRITING: &str = "writing";
const SYNCING: &str = "syncing";
/// At most this fraction of the window waits for the clock's sync.
const BEHIND_FRACTION: u64 = 4;

/// The writer's core only.
pub(super) struct Direct {
    window: Arc<Window>,
    schedule: RefCell<Schedule>,
    /// Somebody waits for what lies below.
    wanted: Cell<u64>,
    /// What is laid is waited for at once.
    is_urgent: bool,
    /// A write is durable when it has landed.
    is_durable: bool,
    /// Used where writes are durable.
    group_wait: GroupWait,
    /// What no write covers, up to the end of the log: until everything before it is durable, the window ends there.
    left_out: RefCell<Option<Range<u64>>>,
    /// Everything below was found by recovery, and is durable only once it was synced.
    opened_at: u64,
    is_syncing: Cell<bool>,
    /// The window holds too much that is written and not durable.
    behind: Notify,
    /// There may be something to write.
    work: Notify,
    /// Something landed or was synced.
    progress: Notify,
    /// For the tail's block.
    copies: RefCell<Vec<Buffer>>,
}

impl Direct {
    pub fn new(window: Arc<Window>, watermarks: &Watermarks) -> Direct {
        let log = watermarks.log();
        let config = watermarks.store.config();
        let end = log.on_disk().0;
        Direct {
            schedule: RefCell::new(Schedule::new(
                config.segment_bytes,
                end,
                window.write_bytes_max(),
            )),
            window,
            wanted: Cell::new(end),
            is_urgent: log.release_at() != ReleaseAt::Written,
            is_durable: config.sync_flush,
            group_wait: GroupWait::default(),
            opened_at: end,
            left_out: RefCell::new(None),
            is_syncing: Cell::new(false),
            behind: Notify::new(),
            work: Notify::new(),
            progress: Notify::new(),
            copies: RefCell::default(),
        }
    }

    #[inline]
    pub fn laid(&self, watermarks: &Watermarks, records: u64) {
        let written = watermarks.log().written().0;
        self.window.publish_written(self.in_window(written));
        if self.is_durable {
            self.wanted.set(written);
            if self.group_wait.laid(records, written) {
                self.work.notify();
            }
        } else if self.is_urgent {
            self.want(written);
        } else if self.schedule.borrow().is_due(written) {
            self.work.notify();
        }
    }

    fn want(&self, to: u64) {
        if to > self.wanted.get() {
            self.wanted.set(to);
            self.work.notify();
        }
    }

    /// So many tasks run `work`.
    pub const WORKERS: usize = WRITES_MAX;

    /// Writes whatever there is to write, for as long as the store is open and well.
    pub async fn work(&self, watermarks: &Watermarks) {
        loop {
            // One of the workers waits for more; there is nothing to do for the others then.
            if self.is_durable && !self.group_wait.wait().await {
                self.work.notified().await;
                continue;
            }
            match self.next(watermarks) {
                Some(write) => self.write(watermarks, write).await,
                None => self.work.notified().await,
            }
        }
    }

    pub async fn sync_to(&self, watermarks: &Watermarks, to: LogOffset) -> io::Result<()> {
        let log = watermarks.log();
        self.want(to.0);
        while log.on_disk() < to {
            watermarks.refused()?;
            match self.next(watermarks) {
                Some(write) => self.write(watermarks, write).await,
                None => self.progress.notified().await,
            }
        }
        while log.flushed() < to {
            watermarks.refused()?;
            if self.is_syncing.get() || self.writes_are_durable(watermarks) {
                self.progress.notified().await;
            } else {
                self.sync_on_disk(watermarks).await?;
            }
        }
        Ok(())
    }

    pub async fn sync_segment(&self, watermarks: &Watermarks, segment: &Segment) -> io::Result<()> {
        while self.is_syncing.get() {
            self.progress.notified().await;
        }
        self.is_syncing.set(true);
        let synced = segment.file().sync_data().await;
        self.is_syncing.set(false);
        self.progress.notify_all();
        synced.map_err(|error| {
            self.distrust_disk(watermarks);
            watermarks.failed(SYNCING, segment.path(), error)
        })
    }

    pub async fn settle(&self) {
        while self.is_syncing.get() || !self.schedule.borrow().is_idle() {
            self.progress.notified().await;
        }
    }

    /// How far the log may be laid: only over what is durable, so that a failed sync takes nothing away that is not
    /// here.
    pub fn make_room(&self, watermarks: &Watermarks, wanted: u64) -> u64 {
        let flushed = watermarks.log().flushed().0;
        let mut left_out = self.left_out.borrow_mut();
        if let Some(range) = &*left_out
            && wanted > range.end
        {
            // The rest of the window gets its memory where it is.
            if flushed < range.end || self.window.next_to_reserve().is_some() {
                return range.start;
            }
            self.window.go_on_at(range.end);
            *left_out = None;
        }
        self.window.make_room(wanted, flushed)
    }

    /// Nothing is laid behind before everything in front of it is durable.
    pub fn leave_out(&self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.schedule.borrow_mut().leave_out(range.clone());
        let before = self.left_out.replace(Some(range));
        assert!(before.is_none(), "the window went on behind the last one");
    }

    /// The end of what the window has, given how far the log goes.
    fn in_window(&self, end: u64) -> u64 {
        match &*self.left_out.borrow() {
            Some(range) => end.min(range.start),
            None => end,
        }
    }

    /// Resumes when something was done that may have made room. Everything laid is wanted then, and durable.
    pub async fn room(&self, watermarks: &Watermarks) {
        let log = watermarks.log();
        self.want(log.written().0);
        self.group_wait.hurry();
        self.work.notify();
        self.behind.notify();
        if log.flushed() < log.written() || self.window.next_to_reserve().is_some() {
            self.progress.notified().await;
        } else {
            // In the way is a reader that copies: it is done in a moment, and tells nobody.
            reactor::yield_now().await;
        }
    }

    /// Syncs whenever too much of the window waits for it, for as long as the store is open and well.
    pub async fn keep_up(&self, watermarks: &Watermarks) {
        let log = watermarks.log();
        loop {
            self.behind.notified().await;
            let to = log.on_disk();
            if log.flushed() < to && self.sync_to(watermarks, to).await.is_err() {
                return;
            }
        }
    }

    /// Gives the rest of the window its memory, and locks it.
    pub async fn reserve(&self, watermarks: &Watermarks) {
        while let Some(step) = self.window.next_to_reserve() {
            let (window, range) = (self.window.clone(), step.clone());
            let done = offload("bring the window into memory", move || {
                window.reserve(&range)
            });
            if let Err(error) = done.await {
                let path = self.window.path().unwrap_or(Path::new("window"));
                watermarks.failed("finding memory for", path, error);
                self.progress.notify_all();
                return;
            }
            self.window.reserved(step);
            self.progress.notify_all();
        }
        let memory = self.window.memory().clone();
        if let Err(error) = offload("lock the window", move || memory.lock()).await {
            tracing::warn!(
                bytes = self.window.bytes(), %error,
                "the window is not locked in memory and may be swapped out; raise the limit of locked memory (ulimit -l)"
            );
        }
    }

    /// After a failure the disk may have dropped whatever is not durable: the next start writes it again.
    fn distrust_disk(&self, watermarks: &Watermarks) {
        let flushed = watermarks.log().flushed().0;
        self.window
            .publish_on_disk(self.in_window(flushed.max(self.window.floor())));
    }

    fn writes_are_durable(&self, watermarks: &Watermarks) -> bool {
        self.is_durable && watermarks.log().flushed().0 >= self.opened_at
    }

    fn next(&self, watermarks: &Watermarks) -> Option<Write> {
        let log = watermarks.log();
        if log.is_poisoned() {
            return None;
        }
        let laid = log.written().0;
        self.schedule.borrow_mut().next(laid, self.wanted.get())
    }

    async fn write(&self, watermarks: &Watermarks, write: Write) {
        self.group_wait.began();
        // There may be work for another worker as well.
        self.work.notify();
        let list = watermarks.log().segments().load_full();
        let (_, segment) = list
            .containing(write.from)
            .expect("the tail's segments are not reclaimed");
        let whole = write.whole();
        let tail = (block_of(write.to) < write.to).then(|| self.copy_tail(write.to));
        let part = self.window.part(write.from, whole);
        let (memory, at) = (self.window.memory(), write.from - segment.base());
        let written = segment
            .file()
            .write_looped_at(memory, part, tail, at, self.is_durable);
        let (written, tail) = written.await;
        self.copies.borrow_mut().extend(tail);
        match written {
            Ok(()) => self.landed(watermarks, write),
            Err(error) => {
                self.schedule.borrow_mut().failed(write);
                watermarks.failed(WRITING, segment.path(), error);
                self.distrust_disk(watermarks);
            }
        }
        self.progress.notify_all();
        // Whoever wrote it may stop here, and a worker have found nothing while it was in flight.
        self.work.notify();
    }

    fn landed(&self, watermarks: &Watermarks, write: Write) {
        let (moved, done, is_idle) = {
            let mut schedule = self.schedule.borrow_mut();
            (schedule.landed(write), schedule.done(), schedule.is_idle())
        };
        if is_idle {
            self.group_wait.landed();
        }
        let log = watermarks.log();
        // After a failure nothing counts any more.
        if !moved || log.is_poisoned() {
            return;
        }
        self.window.publish_on_disk(self.in_window(done));
        watermarks.on_disk(LogOffset(done));
        if self.writes_are_durable(watermarks) {
            watermarks.flushed(LogOffset(done));
        } else if done - log.flushed().0 >= self.window.bytes() / BEHIND_FRACTION {
            self.behind.notify();
        }
    }

    /// The tail's block as it is now, with zeros behind: what is laid into the window meanwhile does not reach it.
    fn copy_tail(&self, to: u64) -> Buffer {
        let mut block = self
            .copies
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| Buffer::with_capacity(BLOCK_BYTES as usize));
        block.set_len(BLOCK_BYTES as usize);
        let from = block_of(to);
        let (laid, rest) = block.split_at_mut((to - from) as usize);
        self.window.copy_laid(from, laid);
        rest.fill(0);
        block
    }

    /// Syncs what is on disk now, segment by segment, earlier ones first. The watermark follows each. One at a time:
    /// the error of one of two that overlap could be told to the other.
    async fn sync_on_disk(&self, watermarks: &Watermarks) -> io::Result<()> {
        let log = watermarks.log();
        let to = log.on_disk().0;
        let list = log.segments().load_full();
        for segment in list.items() {
            if segment.end() <= log.flushed().0 {
                continue;
            }
            if segment.base() >= to {
                break;
            }
            self.sync_segment(watermarks, segment).await?;
            watermarks.refused()?;
            watermarks.flushed(LogOffset(to.min(segment.end())));
        }
        Ok(())
    }
}
