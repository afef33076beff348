//! When the log is synced, and who waits for it.
//!
//! One sync is in flight at a time. A failed sync reports its error to one caller only, and a later sync may
//! then succeed although data was lost, so two of them must never overlap. The body that does the sync is in
//! `mapped`; a task of the writer's core runs the clock.

mod mapped;

use crate::commit_log::CommitLog;
use crate::config::FlushConfig;
use crate::{LogOffset, Store};
use reactor::{File, Instant, Notify};
use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

const PAGE_BYTES: u64 = 4096;

/// The writer's core only.
pub(crate) struct Flusher {
    store: Arc<Store>,
    busy: Cell<bool>,
    idle: Notify,
}

impl Flusher {
    pub fn new(store: Arc<Store>) -> Flusher {
        Flusher {
            store,
            busy: Cell::new(false),
            idle: Notify::new(),
        }
    }

    /// Resumes when everything below `to` is on disk. `to` has been published as written.
    pub async fn sync_to(&self, to: LogOffset) -> io::Result<()> {
        let log = self.store.log();
        assert!(to <= log.written(), "only what is written can be synced");
        while log.flushed() < to {
            if log.is_poisoned() {
                self.idle.notify(); // as below
                return Err(io::Error::other("an earlier sync of the commit log failed"));
            }
            if self.busy.get() {
                self.idle.notified().await;
                continue;
            }
            self.busy.set(true);
            let synced = mapped::sync(log).await;
            self.busy.set(false);
            self.idle.notify();
            if let Err(error) = synced {
                log.poison(&error);
                return Err(error);
            }
        }
        // Several may wait, a notification wakes one: pass it on.
        self.idle.notify();
        Ok(())
    }

    /// Syncs a segment for another reason than new records. Its error counts as the log's: nobody else is told of it.
    pub async fn sync_file(&self, file: &File) -> io::Result<()> {
        while self.busy.get() {
            self.idle.notified().await;
        }
        self.busy.set(true);
        let synced = file.sync_data().await;
        self.busy.set(false);
        self.idle.notify();
        synced.inspect_err(|error| self.store.log().poison(error))
    }

    /// Resumes when no sync is in flight; none is started before the caller suspends again.
    pub async fn settle(&self) {
        while self.busy.get() {
            self.idle.notified().await;
        }
        self.idle.notify();
    }

    /// Syncs by the clock, for as long as the store is open and well.
    pub async fn run(&self, config: FlushConfig) {
        let log = self.store.log();
        let mut synced_at = reactor::now();
        loop {
            reactor::sleep(Duration::from_millis(config.interval_ms)).await;
            if log.is_poisoned() {
                return;
            }
            let now = reactor::now();
            match due(log, &config, synced_at, now) {
                Due::Nothing => synced_at = now,
                Due::Later => {}
                Due::Now => {
                    // A failure has poisoned the log, and said so.
                    let _ = self.sync_to(log.written()).await;
                    synced_at = now;
                }
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// All is flushed.
    Nothing,
    Later,
    Now,
}

fn due(log: &CommitLog, config: &FlushConfig, synced_at: Instant, now: Instant) -> Due {
    let (flushed, written) = (log.flushed().0, log.written().0);
    if flushed == written {
        return Due::Nothing;
    }
    let pages = written / PAGE_BYTES - flushed / PAGE_BYTES;
    let thorough = Duration::from_millis(config.thorough_ms);
    if pages >= config.least_pages || now.saturating_since(synced_at) >= thorough {
        Due::Now
    } else {
        Due::Later
    }
}
