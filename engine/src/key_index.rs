//! The key index: messages by key, by the id their producer gave, by tag; within a range of times.
//!
//! ```text
//!   log ── stretches of 4 MiB ──► collect ──► memory ── 256 Ki entries or a part's worth of log ──► .keyrun
//!                              (beside the cores)                     segment full: merged ──► .keys
//!   query: what was not read yet (scanned) ► memory ► runs ► sealed files, newest first, until there is enough
//! ```
//!
//! A task of the writer's core follows the log behind its tail, so that sending a message costs nothing here
//! (`follower`, `build`). Queries run on any core, look at an immutable view, and compare the key of every record before it
//! is handed out (`query`). All of it is derived: what is missing or damaged is made again from the log, in the background
//! and within a budget, or at once when a query needs it.

mod build;
pub mod check;
mod collect;
mod entry;
mod file;
pub mod follower;
mod merge;
mod names;
mod query;
mod retired;
mod stretch;
#[cfg(test)]
mod tests;
mod view;

pub use entry::KeyKind;
pub use query::{KeyAnswer, KeyQuery};

use arc_swap::ArcSwap;
use file::KeyFile;
use reactor::mailbox::{Receiver, Reply, Sender, channel};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use view::View;

/// Files of full segments that stay open.
const OPEN_FILES_MAX: usize = 64;
/// Queries that wait for an index to be made.
const ASKS_MAX: usize = 64;

/// What all cores share of it.
pub struct KeyIndex {
    view: ArcSwap<View>,
    open: Mutex<Open>,
    asks: Sender<Ask>,
    /// Until the follower takes it.
    asked: Mutex<Option<Receiver<Ask>>>,
}

/// The files of full segments that were used.
#[derive(Default)]
struct Open {
    /// Most recently used last.
    files: Vec<(u64, Arc<KeyFile>)>,
    /// Of every segment whose file was ever open: store times of its first and last record.
    times: BTreeMap<u64, (i64, i64)>,
}

/// A query cannot use what there is of a segment.
struct Ask {
    base: u64,
    /// Its file or its runs; else there is none.
    damaged: bool,
    /// Sent when something has changed.
    done: Reply<()>,
}

impl KeyIndex {
    pub fn new() -> KeyIndex {
        let (asks, asked) = channel(ASKS_MAX);
        KeyIndex {
            view: ArcSwap::from_pointee(View::default()),
            open: Mutex::default(),
            asks,
            asked: Mutex::new(Some(asked)),
        }
    }

    fn take_asked(&self) -> Option<Receiver<Ask>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.take()
    }

    fn opened(&self) -> MutexGuard<'_, Open> {
        // Whole between any two statements.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn find(&mut self, base: u64) -> Option<Arc<KeyFile>> {
        let at = self.files.iter().position(|(of, _)| *of == base)?;
        let found = self.files.remove(at);
        let file = found.1.clone();
        self.files.push(found);
        Some(file)
    }

    fn add(&mut self, base: u64, file: Arc<KeyFile>) {
        self.files.retain(|(of, _)| *of != base);
        if self.files.len() >= OPEN_FILES_MAX {
            self.files.remove(0);
        }
        self.times
            .insert(base, (file.head.first_ms, file.head.last_ms));
        self.files.push((base, file));
    }

    /// The segment's file was removed.
    fn forget(&mut self, base: u64) {
        self.files.retain(|(of, _)| *of != base);
        self.times.remove(&base);
    }

    /// Segments below `first` are gone.
    fn forget_below(&mut self, first: u64) {
        self.files.retain(|(of, _)| *of >= first);
        self.times = self.times.split_off(&first);
    }
}
