//! The commit log: every message of every topic, in the order it arrived, and how far each stage of it has come.
//!
//! ```text
//!   0 ... first      flushed      on_disk      written      one writer appends here
//!             survives a    file write     laid by the
//!             power cut     completed      writer
//! ```
//!
//! `flushed <= on_disk <= written`, always. Readers on any core look only below `released`, which follows one of the
//! three. Once a write or a sync has failed the log is poisoned: what is in memory may no longer be what is on
//! disk, so nothing more is accepted or released; what was released stays readable, and only a restart that
//! checks the log clears it.

use crate::LogOffset;
use crate::config::Config;
use crate::segment::Medium;
use crate::segments::Segments;
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// When a record may be shown to readers and its sender be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseAt {
    /// As soon as it is laid: its memory outlives the process.
    Written,
    /// When it has been written to its file: its memory ends with the process.
    OnDisk,
    /// When it survives a power cut.
    Flushed,
}

impl ReleaseAt {
    pub fn of(config: &Config, medium: &Medium) -> ReleaseAt {
        match medium {
            _ if config.sync_flush => ReleaseAt::Flushed,
            Medium::Direct(window) if !window.outlives_process() => ReleaseAt::OnDisk,
            Medium::Mapped | Medium::Direct(_) => ReleaseAt::Written,
        }
    }
}

/// Why the log accepts nothing more.
#[derive(Debug, thiserror::Error)]
#[error(
    "{op} {path} failed: {error}; nothing more is accepted until a restart has checked the log"
)]
pub struct Poison {
    pub op: &'static str,
    pub path: PathBuf,
    pub error: io::Error,
}

/// What was made durable since the store was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushStats {
    pub flushes: u64,
    pub bytes: u64,
}

/// The log's segments and how far it has come. The writer's core stores, any core loads.
pub struct CommitLog {
    segments: Segments,
    release_at: ReleaseAt,
    /// End of the last complete record. Stored by the writer only.
    written: AtomicU64,
    /// Everything below has been written to its file. Stored by the flusher only.
    on_disk: AtomicU64,
    /// Everything below survives a power cut. Stored by the flusher only.
    flushed: AtomicU64,
    /// End of what readers may see; always the end of a record. Stored by the writer only.
    released: AtomicU64,
    poison: OnceLock<Poison>,
    /// How often `flushed` has moved.
    flushes: AtomicU64,
    flushed_at_open: LogOffset,
    /// What lies below was not touched since the process began, and may be on the disk only.
    warm_from: LogOffset,
}

impl CommitLog {
    /// After recovery: everything below `checked` was durable before, and was not read. All of it is released, so
    /// where only durable records may be, the caller syncs before it shows the log to anybody.
    pub fn new(
        segments: Segments,
        written: LogOffset,
        checked: LogOffset,
        release_at: ReleaseAt,
    ) -> CommitLog {
        assert!(checked <= written, "what is flushed was written before");
        CommitLog {
            segments,
            release_at,
            warm_from: checked,
            written: AtomicU64::new(written.0),
            on_disk: AtomicU64::new(written.0),
            flushed: AtomicU64::new(checked.0),
            released: AtomicU64::new(written.0),
            poison: OnceLock::new(),
            flushes: AtomicU64::new(0),
            flushed_at_open: checked,
        }
    }

    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    pub fn release_at(&self) -> ReleaseAt {
        self.release_at
    }

    pub fn written(&self) -> LogOffset {
        LogOffset(self.written.load(Ordering::Acquire))
    }

    pub fn on_disk(&self) -> LogOffset {
        LogOffset(self.on_disk.load(Ordering::Acquire))
    }

    pub fn flushed(&self) -> LogOffset {
        LogOffset(self.flushed.load(Ordering::Acquire))
    }

    pub fn released(&self) -> LogOffset {
        LogOffset(self.released.load(Ordering::Acquire))
    }

    /// How far the log may be released now.
    pub(crate) fn releasable(&self) -> LogOffset {
        match self.release_at {
            ReleaseAt::Written => self.written(),
            ReleaseAt::OnDisk => self.on_disk(),
            ReleaseAt::Flushed => self.flushed(),
        }
    }

    /// From here on the log may be read through the mapping, given how much of its tail is hot.
    pub fn hot_from(&self, hot_bytes: u64) -> LogOffset {
        let tail = self.written().0.saturating_sub(hot_bytes);
        self.warm_from.max(LogOffset(tail))
    }

    pub fn flush_stats(&self) -> FlushStats {
        FlushStats {
            flushes: self.flushes.load(Ordering::Relaxed),
            bytes: self.flushed().0 - self.flushed_at_open.0,
        }
    }

    pub fn poison(&self) -> Option<&Poison> {
        self.poison.get()
    }

    pub fn is_poisoned(&self) -> bool {
        self.poison.get().is_some()
    }

    /// A record ends here, and so does everything that is laid. The writer's alone.
    pub(crate) fn publish_written(&self, written: LogOffset) {
        debug_assert!(written >= self.written(), "the log only grows");
        self.written.store(written.0, Ordering::Release);
    }

    /// Shows everything below `released` to the readers. The writer's alone.
    pub(crate) fn publish_released(&self, released: LogOffset) {
        debug_assert!(released >= self.released(), "what is shown stays");
        debug_assert!(
            released <= self.releasable(),
            "nothing is shown before its time"
        );
        self.released.store(released.0, Ordering::Release);
    }

    /// Everything below `on_disk` was written to its file. The flusher's alone.
    pub(crate) fn publish_on_disk(&self, on_disk: LogOffset) {
        assert!(
            on_disk <= self.written(),
            "what is on disk was written before"
        );
        self.on_disk.store(on_disk.0, Ordering::Release);
    }

    /// Everything below `flushed` was synced, and everything before it as well. The flusher's alone.
    pub(crate) fn publish_flushed(&self, flushed: LogOffset) {
        assert!(
            !self.is_poisoned(),
            "after a failed sync nothing counts as flushed"
        );
        assert!(
            flushed <= self.on_disk(),
            "what is flushed is on disk, and was written before"
        );
        if self.flushed.fetch_max(flushed.0, Ordering::AcqRel) < flushed.0 {
            self.flushes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A write or a sync failed. Said once, loudly; the first reason stays.
    pub(crate) fn set_poison(&self, why: Poison) {
        if self.poison.set(why).is_err() {
            return;
        }
        if let Some(why) = self.poison() {
            tracing::error!(
                flushed = self.flushed().0,
                released = self.released().0,
                written = self.written().0,
                "the commit log: {why}"
            );
        }
    }
}
