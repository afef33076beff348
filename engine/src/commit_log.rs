//! The commit log: every message of every topic, in the order it arrived.
//!
//! One writer appends; any core may read below `written`. `flushed <= written`, always. Once a sync has failed
//! the log is poisoned: the page cache may no longer be what is on disk, so nothing more is accepted, what is
//! there stays readable, and only a restart that checks the log clears it.

use crate::LogOffset;
use crate::segments::Segments;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The log's segments and how far it has come. The writer's core stores, any core loads.
pub struct CommitLog {
    segments: Segments,
    /// End of the last complete record. Stored by the writer only.
    written: AtomicU64,
    /// Everything below survives a power cut. Stored by the flusher only.
    flushed: AtomicU64,
    poisoned: AtomicBool,
    /// What lies below was not touched since the process began, and may be on the disk only.
    warm_from: LogOffset,
}

impl CommitLog {
    /// After recovery: everything below `checked` was durable before, and was not read.
    pub fn new(segments: Segments, written: LogOffset, checked: LogOffset) -> CommitLog {
        assert!(checked <= written, "what is flushed was written before");
        CommitLog {
            segments,
            warm_from: checked,
            written: AtomicU64::new(written.0),
            flushed: AtomicU64::new(checked.0),
            poisoned: AtomicBool::new(false),
        }
    }

    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    pub fn written(&self) -> LogOffset {
        LogOffset(self.written.load(Ordering::Acquire))
    }

    pub fn flushed(&self) -> LogOffset {
        LogOffset(self.flushed.load(Ordering::Acquire))
    }

    /// From here on the log may be read through the mapping, given how much of its tail is hot.
    pub fn hot_from(&self, hot_bytes: u64) -> LogOffset {
        let tail = self.written().0.saturating_sub(hot_bytes);
        self.warm_from.max(LogOffset(tail))
    }

    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Shows everything below `written` to the readers. The writer's alone.
    pub(crate) fn publish_written(&self, written: LogOffset) {
        debug_assert!(written >= self.written(), "the log only grows");
        self.written.store(written.0, Ordering::Release);
    }

    /// Everything below `flushed` was synced, and everything before it as well. The flusher's alone.
    pub(crate) fn publish_flushed(&self, flushed: LogOffset) {
        assert!(
            !self.is_poisoned(),
            "after a failed sync nothing counts as flushed"
        );
        assert!(
            flushed <= self.written(),
            "what is flushed was written before"
        );
        self.flushed.fetch_max(flushed.0, Ordering::AcqRel);
    }

    /// A sync failed. Said once, loudly.
    pub(crate) fn poison(&self, why: &std::io::Error) {
        if !self.poisoned.swap(true, Ordering::AcqRel) {
            tracing::error!(
                error = %why,
                flushed = self.flushed().0,
                written = self.written().0,
                "syncing the commit log failed: the store accepts nothing more; restart it to have the log checked"
            );
        }
    }
}
