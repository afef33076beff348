//! The `mmap` flusher: the log is written through mappings, a sync of the file makes it durable.
//!
//! One sync is in flight at a time: the error of one of two that overlap could be told to the other.

use super::Watermarks;
use super::group_wait::GroupWait;
use crate::LogOffset;
use crate::segment::Segment;
use reactor::Notify;
use std::cell::Cell;
use std::io;

/// What is done to a file, as the log tells it when it fails.
const SYNCING: &str = "syncing";

/// The writer's core only.
#[derive(Default)]
pub(super) struct Mapped {
    busy: Cell<bool>,
    idle: Notify,
    /// Something was laid that nobody has begun to sync.
    laid: Notify,
    /// Used where groups are committed.
    group_wait: GroupWait,
}

impl Mapped {
    /// The page cache outlives the process: what is laid is as good as written.
    #[inline]
    pub fn laid(&self, watermarks: &Watermarks, records: u64) {
        let log = watermarks.log();
        let written = log.written();
        log.publish_on_disk(written);
        if self.group_wait.laid(records, written.0) {
            self.laid.notify();
        }
    }

    pub async fn sync_to(&self, watermarks: &Watermarks, to: LogOffset) -> io::Result<()> {
        let log = watermarks.log();
        while log.flushed() < to {
            if let Err(refused) = watermarks.refused() {
                self.idle.notify(); // as below
                return Err(refused);
            }
            if self.busy.get() {
                self.idle.notified().await;
                continue;
            }
            self.begin();
            self.group_wait.began();
            let synced = sync_written(watermarks).await;
            self.group_wait.landed();
            self.end();
            synced?;
        }
        // Several may wait, a notification wakes one: pass it on.
        self.idle.notify();
        Ok(())
    }

    pub async fn sync_segment(&self, watermarks: &Watermarks, segment: &Segment) -> io::Result<()> {
        while self.busy.get() {
            self.idle.notified().await;
        }
        self.begin();
        let synced = segment.file().sync_data().await;
        self.end();
        synced.map_err(|error| watermarks.failed(SYNCING, segment.path(), error))
    }

    pub async fn settle(&self) {
        while self.busy.get() {
            self.idle.notified().await;
        }
        self.idle.notify();
    }

    /// Syncs as soon as anything is laid: what comes during one sync shares the next.
    pub async fn commit_groups(&self, watermarks: &Watermarks) {
        let log = watermarks.log();
        loop {
            self.group_wait.wait().await;
            // A failure has poisoned the log, and said so.
            if self.sync_to(watermarks, log.written()).await.is_err() {
                return;
            }
            if log.flushed() == log.written() {
                self.laid.notified().await;
            }
        }
    }

    /// A sync must not be cancelled between these two: its error would be lost.
    fn begin(&self) {
        assert!(!self.busy.replace(true), "one sync at a time");
    }

    fn end(&self) {
        self.busy.set(false);
        self.idle.notify();
    }
}

/// Syncs everything that is written now, segment by segment, earlier ones first. The watermark follows each.
async fn sync_written(watermarks: &Watermarks) -> io::Result<()> {
    let log = watermarks.log();
    let to = log.written().0;
    let list = log.segments().load_full();
    for segment in list.items() {
        if segment.end() <= log.flushed().0 {
            continue;
        }
        if segment.base() >= to {
            break;
        }
        let synced = segment.file().sync_data().await;
        synced.map_err(|error| watermarks.failed(SYNCING, segment.path(), error))?;
        watermarks.flushed(LogOffset(to.min(segment.end())));
    }
    Ok(())
}
