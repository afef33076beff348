//! When the log is made durable, and who waits for it.
//!
//! Everything that is laid while one sync is in flight shares the next one. A failed sync reports its error to one
//! caller only, and a later sync may then succeed although data was lost; so the first failure poisons the log and
//! nothing after it counts. How bytes get to the disk is the body's business: `mapped`, `direct`.

mod direct;
mod group_wait;
mod mapped;

use crate::commit_log::{CommitLog, Poison, ReleaseAt};
use crate::config::FlushConfig;
use crate::recovery::unsynced;
use crate::segment::{Medium, Segment};
use crate::{LogOffset, Store};
use direct::Direct;
use mapped::Mapped;
use reactor::{Instant, Notify, Task, offload};
use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const PAGE_BYTES: u64 = 4096;

/// The writer's core only.
pub(crate) struct Flusher {
    watermarks: Watermarks,
    body: Body,
}

/// How bytes get to the disk.
enum Body {
    Mapped(Box<Mapped>),
    Direct(Box<Direct>),
}

/// Where a body reports what it has done, and what went wrong.
struct Watermarks {
    store: Arc<Store>,
    /// More may be released, or nothing ever will.
    moved: Notify,
    noting: Rc<Noting>,
}

/// Whether the note that tells the next start of a failure is on its way.
#[derive(Default)]
struct Noting {
    is_busy: Cell<bool>,
    done: Notify,
}

impl Flusher {
    pub fn new(store: Arc<Store>) -> Flusher {
        let watermarks = Watermarks {
            store,
            moved: Notify::new(),
            noting: Rc::default(),
        };
        let body = match watermarks.store.medium() {
            Medium::Mapped => Body::Mapped(Box::default()),
            Medium::Direct(window) => {
                Body::Direct(Box::new(Direct::new(window.clone(), &watermarks)))
            }
        };
        Flusher { watermarks, body }
    }

    /// The tasks that work for as long as the store is open.
    pub fn start(self: &Rc<Self>) -> Vec<Task<()>> {
        let mut tasks = Vec::new();
        let commits = self.watermarks.log().release_at() == ReleaseAt::Flushed;
        match &self.body {
            Body::Mapped(_) if commits => {
                let flusher = self.clone();
                tasks.push(reactor::spawn_urgent("group commit", async move {
                    if let Body::Mapped(body) = &flusher.body {
                        body.commit_groups(&flusher.watermarks).await;
                    }
                }));
            }
            Body::Mapped(_) => {}
            Body::Direct(_) => {
                tasks.extend((0..Direct::WORKERS).map(|_| {
                    let flusher = self.clone();
                    reactor::spawn_urgent("write the log", async move {
                        if let Body::Direct(body) = &flusher.body {
                            body.work(&flusher.watermarks).await;
                        }
                    })
                }));
                tasks.push(self.spawn("sync the log", async |flusher| {
                    if let Body::Direct(body) = &flusher.body {
                        body.keep_up(&flusher.watermarks).await;
                    }
                }));
                tasks.push(self.spawn("bring the window into memory", async |flusher| {
                    if let Body::Direct(body) = &flusher.body {
                        body.reserve(&flusher.watermarks).await;
                    }
                }));
            }
        }
        if !commits {
            let config = self.watermarks.store.config().flush;
            tasks.push(self.spawn("flush", async move |flusher| {
                flusher.follow_clock(config).await;
            }));
        }
        tasks
    }

    fn spawn(
        self: &Rc<Self>,
        name: &'static str,
        task: impl AsyncFnOnce(Rc<Flusher>) + 'static,
    ) -> Task<()> {
        let flusher = self.clone();
        reactor::spawn(name, async move { task(flusher).await })
    }

    /// `written` has moved by so many records. Once per turn of the writer.
    #[inline]
    pub fn laid(&self, records: u64) {
        match &self.body {
            Body::Mapped(body) => body.laid(&self.watermarks, records),
            Body::Direct(body) => body.laid(&self.watermarks, records),
        }
    }

    /// Resumes when everything below `to` is durable. `to` has been published as written.
    pub async fn sync_to(&self, to: LogOffset) -> io::Result<()> {
        let written = self.watermarks.log().written();
        assert!(to <= written, "only what is written can be synced");
        let synced = match &self.body {
            Body::Mapped(body) => body.sync_to(&self.watermarks, to).await,
            Body::Direct(body) => body.sync_to(&self.watermarks, to).await,
        };
        if synced.is_err() {
            self.watermarks.noting.done().await;
        }
        synced
    }

    /// Syncs a segment for another reason than new records. Its error counts as the log's: nobody else is told of it.
    pub async fn sync_segment(&self, segment: &Segment) -> io::Result<()> {
        match &self.body {
            Body::Mapped(body) => body.sync_segment(&self.watermarks, segment).await,
            Body::Direct(body) => body.sync_segment(&self.watermarks, segment).await,
        }
    }

    /// Something else that the log depends on went wrong: nothing more is accepted.
    pub fn failed(&self, op: &'static str, segment: &Segment, error: io::Error) {
        self.watermarks.failed(op, segment.path(), error);
    }

    /// Resumes when no I/O of the flusher is in flight; none is started before the caller suspends again.
    pub async fn settle(&self) {
        self.watermarks.noting.done().await;
        match &self.body {
            Body::Mapped(body) => body.settle().await,
            Body::Direct(body) => body.settle().await,
        }
    }

    /// How far the log may be laid, given that somebody wants to lay up to `wanted`. `None`: there is no bound.
    pub fn room(&self, wanted: u64) -> Option<u64> {
        match &self.body {
            Body::Mapped(_) => None,
            Body::Direct(body) => Some(body.make_room(&self.watermarks, wanted)),
        }
    }

    /// The log's bytes in `range`, up to a segment's end, are neither laid nor written. Said before its end is published.
    pub fn leave_out(&self, range: Range<u64>) {
        match &self.body {
            // Its pages are not touched.
            Body::Mapped(_) => {}
            Body::Direct(body) => body.leave_out(range),
        }
    }

    /// Resumes when there may be more room than before.
    pub async fn more_room(&self) {
        match &self.body {
            Body::Mapped(_) => {}
            Body::Direct(body) => body.room(&self.watermarks).await,
        }
    }

    /// Notified when more of the log may be released, and when the log was poisoned.
    pub fn moved(&self) -> &Notify {
        &self.watermarks.moved
    }

    /// Syncs by the clock.
    async fn follow_clock(&self, config: FlushConfig) {
        let log = self.watermarks.log();
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

impl Watermarks {
    fn log(&self) -> &CommitLog {
        self.store.log()
    }

    fn on_disk(&self, to: LogOffset) {
        self.log().publish_on_disk(to);
        if self.log().release_at() == ReleaseAt::OnDisk {
            self.moved.notify();
        }
    }

    fn flushed(&self, to: LogOffset) {
        self.log().publish_flushed(to);
        self.moved.notify();
    }

    /// The error as it is handed to whoever waits.
    fn failed(&self, op: &'static str, path: &Path, error: io::Error) -> io::Error {
        let told = io::Error::new(error.kind(), format!("{op} {}: {error}", path.display()));
        let path = path.to_path_buf();
        let was_well = !self.log().is_poisoned();
        self.log().set_poison(Poison { op, path, error });
        self.moved.notify();
        if was_well {
            self.note();
        }
        told
    }

    /// Tells the next start what to compare with the disk. That disk is failing: no core waits for it.
    fn note(&self) {
        let layout = self.store.layout().clone();
        let (flushed, written) = (self.log().flushed(), self.log().written());
        let noting = self.noting.clone();
        noting.is_busy.set(true);
        reactor::spawn("note a failed sync", async move {
            offload("note a failed sync", move || {
                unsynced::note(&layout, flushed, written);
            })
            .await;
            noting.is_busy.set(false);
            noting.done.notify();
        });
    }

    /// What those are told who come after a failure.
    fn refused(&self) -> io::Result<()> {
        match self.log().poison() {
            Some(why) => Err(io::Error::other(why.to_string())),
            None => Ok(()),
        }
    }
}

impl Noting {
    async fn done(&self) {
        while self.is_busy.get() {
            self.done.notified().await;
        }
        // Several may wait, a notification wakes one: pass it on.
        self.done.notify();
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
