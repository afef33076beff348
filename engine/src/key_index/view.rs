//! What queries see of the key index: replaced whole by the follower, read by any core.

use super::entry::Entry;
use super::file::{DeltaRange, KeyFile, Wanted};
use std::sync::Arc;

/// One state of the index.
#[derive(Clone, Default)]
pub struct View {
    /// Full segments below the parts, oldest first.
    pub sealed: Arc<Vec<Sealed>>,
    /// What is known behind them, oldest first.
    pub parts: Vec<Part>,
    /// Log offset below which all of this reaches.
    pub indexed_to: u64,
    /// Store time of the last record below it.
    pub last_ms: i64,
}

/// A full segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub base: u64,
    /// Whether its file is there; else it is made some time.
    pub ready: bool,
}

/// A stretch of a segment whose index is not one file yet.
#[derive(Clone)]
pub enum Part {
    Run(Arc<KeyFile>),
    Memory(Arc<Memory>),
}

/// The sorted entries of the records in `from..to`, not written yet.
pub struct Memory {
    pub from: u64,
    pub to: u64,
    pub base_ms: i64,
    pub first_ms: i64,
    pub last_ms: i64,
    pub entries: Vec<Entry>,
}

impl Part {
    pub fn first_ms(&self) -> i64 {
        match self {
            Part::Run(file) => file.head.first_ms,
            Part::Memory(memory) => memory.first_ms,
        }
    }
}

impl Memory {
    /// The entries that are wanted, newest first.
    pub fn find(&self, wanted: &Wanted) -> impl Iterator<Item = Entry> {
        let range = wanted.within(self.base_ms, self.first_ms, self.last_ms);
        let from =
            |range: &DeltaRange| self.entries.partition_point(|entry| range.is_before(entry));
        let entries = match &range {
            Some(range) => &self.entries[from(range)..],
            None => &[],
        };
        entries
            .iter()
            .copied()
            .take_while(move |entry| range.is_some_and(|range| range.contains(entry)))
    }
}
