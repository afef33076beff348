//! Messages by key: newest first until there are enough, each compared with what was asked before it counts.

use super::Ask;
use super::collect::Records;
use super::entry::{DELTA_SATURATED, Entry, KeyHasher, KeyKind, for_each_key};
use super::file::{KeyFile, Wanted};
use super::names;
use super::stretch::{STRETCH_BYTES, Stretch};
use super::view::{Part, View};
use crate::LogOffset;
use crate::queue_index::part::Damage;
use crate::store::Store;
use protocol::record::View as Record;
use reactor::mailbox::oneshot;
use reactor::{Instant, offload, offload_bulk};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A query that has waited for missing indexes, or read log nobody has indexed yet, for so long ends with what it has.
const QUERY_TIME_MAX: Duration = Duration::from_secs(10);

/// What is looked for.
#[derive(Clone, Debug)]
pub struct KeyQuery {
    pub topic: String,
    pub key: String,
    pub kind: KeyKind,
    /// Store times, both included.
    pub begin_ms: i64,
    pub end_ms: i64,
    /// The newest are taken.
    pub messages_max: usize,
    /// Further messages are left out; the newest never is.
    pub bytes_max: usize,
}

/// What was found.
#[derive(Debug, Default)]
pub struct KeyAnswer {
    /// Whole records, oldest first.
    pub records: Vec<Vec<u8>>,
    /// Where the search began, and the store time of the last message before it.
    pub searched_from: LogOffset,
    pub last_ms: i64,
    /// Older messages may have been left out: no index of them could be had in time.
    pub is_partial: bool,
}

impl Store {
    /// The newest messages of a topic with a key. Suspends for the disk, blocks nobody.
    pub async fn query_key(self: &Arc<Self>, query: KeyQuery) -> io::Result<KeyAnswer> {
        let query = Arc::new(query);
        let deadline = reactor::now() + QUERY_TIME_MAX;
        let mut healed = BTreeSet::new();
        loop {
            let mut search = Search::new(self, &query, deadline);
            match search.run().await {
                Ok(()) => return Ok(search.answer()),
                Err(Ended::Partly) => {
                    search.is_partial = true;
                    return Ok(search.answer());
                }
                // Once for each segment: made anew it is whole, or the disk is not.
                Err(Ended::Damaged { base, error }) if healed.insert(base) => {
                    tracing::warn!(%error, segment = base, "a key index cannot be read");
                    search.ask(base, true).await;
                }
                Err(Ended::Damaged { error, .. } | Ended::Failed(error)) => return Err(error),
            }
        }
    }
}

/// Why a search did not come to its end.
enum Ended {
    Partly,
    Damaged { base: u64, error: io::Error },
    Failed(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Failed(error)
    }
}

struct Search<'a> {
    store: &'a Arc<Store>,
    query: &'a Arc<KeyQuery>,
    wanted: Wanted,
    deadline: Instant,
    /// Newest first.
    found: Vec<Vec<u8>>,
    found_bytes: usize,
    /// The next older one did not fit.
    is_closed: bool,
    searched_from: u64,
    last_ms: i64,
    is_partial: bool,
}

impl<'a> Search<'a> {
    fn new(store: &'a Arc<Store>, query: &'a Arc<KeyQuery>, deadline: Instant) -> Search<'a> {
        let hasher = KeyHasher::of_topic(query.topic.as_bytes());
        Search {
            store,
            query,
            wanted: Wanted {
                hash: hasher.hash(query.kind, query.key.as_bytes()),
                begin_ms: query.begin_ms,
                end_ms: query.end_ms,
            },
            deadline,
            found: Vec::new(),
            found_bytes: 0,
            is_closed: false,
            searched_from: 0,
            last_ms: 0,
            is_partial: false,
        }
    }

    fn answer(mut self) -> KeyAnswer {
        self.found.reverse();
        KeyAnswer {
            records: self.found,
            searched_from: LogOffset(self.searched_from),
            last_ms: self.last_ms,
            is_partial: self.is_partial,
        }
    }

    async fn run(&mut self) -> Result<(), Ended> {
        if self.query.messages_max == 0 || self.query.begin_ms > self.query.end_ms {
            return Ok(());
        }
        let view = self.store.keys().view.load_full();
        self.last_ms = view.last_ms;
        if self.store.config().key_index {
            self.scan(&view).await?;
        }
        for part in view.parts.iter().rev() {
            if self.is_full() {
                return Ok(());
            }
            match part {
                Part::Memory(memory) => {
                    let entries: Vec<Entry> = memory.find(&self.wanted).collect();
                    // All stretches of memory begin in the segment they are of.
                    let base = self.base_of(memory.from)?;
                    self.take(base, entries).await?;
                }
                Part::Run(file) => self.look_into(file).await?,
            }
            if part.first_ms() < self.query.begin_ms {
                return Ok(());
            }
        }
        for sealed in view.sealed.iter().rev() {
            if self.is_full() || sealed.base < self.store.first().0 {
                return Ok(());
            }
            if !self.look_into_sealed(sealed.base, sealed.ready).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.is_closed || self.found.len() >= self.query.messages_max
    }

    fn base_of(&self, log_offset: u64) -> Result<u64, Ended> {
        let list = self.store.log().segments().load();
        let found = list.containing(log_offset);
        let (_, segment) = found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(segment.base())
    }

    /// Reads the log that no index covers yet.
    async fn scan(&mut self, view: &View) -> Result<(), Ended> {
        // In this order: the list has everything below the end.
        let end = self.store.log().released().0;
        let list = self.store.log().segments().load_full();
        let mut at = view.indexed_to.max(list.first());
        let mut newest: VecDeque<Vec<u8>> = VecDeque::new();
        let (mut bytes, mut next_bytes) = (0, 0);
        let mut spare = None;
        self.searched_from = end;
        while at < end {
            let Some((_, segment)) = list.containing(at) else {
                return Err(Ended::Failed(io::ErrorKind::NotFound.into()));
            };
            if reactor::now() >= self.deadline {
                self.is_partial = true;
                break;
            }
            let (from, segment_end) = (at - segment.base(), segment.end());
            let of_segment = end.min(segment_end) - segment.base();
            let to = of_segment.min(from + STRETCH_BYTES.max(next_bytes));
            let mut stretch = Stretch::read(self.store, segment, from, to, spare.take()).await?;
            let to = from + stretch.len();
            let (query, last_ms) = (self.query.clone(), self.last_ms);
            let scanned = offload_bulk("search the log", move || {
                let scanned = stretch.load().map(|bytes| {
                    scan_stretch(Records::new(bytes, at, segment_end), &query, last_ms)
                });
                (scanned, stretch.into_spare())
            });
            let (scanned, returned) = scanned.await;
            spare = returned;
            let Some(scanned) = scanned else {
                continue;
            };
            next_bytes = scanned.next_bytes as u64;
            if scanned.consumed == 0 && (next_bytes <= to - from || to == of_segment) {
                return Err(Ended::Failed(Damage::Short.into()));
            }
            at += scanned.consumed as u64;
            self.last_ms = scanned.last_ms;
            for record in scanned.found {
                bytes += record.len();
                newest.push_back(record);
            }
            while newest.len() > self.query.messages_max
                || newest.len() > 1 && bytes > self.query.bytes_max
            {
                bytes -= newest.pop_front().map_or(0, |record| record.len());
                self.is_closed = true;
            }
        }
        self.found_bytes = bytes;
        self.found.extend(newest.into_iter().rev());
        match self.is_partial {
            true => Err(Ended::Partly),
            false => Ok(()),
        }
    }

    /// Returns whether older segments are in range as well.
    async fn look_into_sealed(&mut self, base: u64, ready: bool) -> Result<bool, Ended> {
        let times = self.store.keys().opened().times.get(&base).copied();
        if let Some((first_ms, _)) = times
            && first_ms > self.query.end_ms
        {
            return Ok(true);
        }
        if let Some((_, last_ms)) = times
            && last_ms < self.query.begin_ms
        {
            return Ok(false);
        }
        if !ready {
            if !self.store.config().key_index {
                return Ok(true);
            }
            self.ask(base, false).await;
            let view = self.store.keys().view.load_full();
            let known = view
                .sealed
                .binary_search_by_key(&base, |sealed| sealed.base);
            match known {
                Ok(at) if !view.sealed[at].ready => {
                    self.is_partial = true;
                    let waited_enough = reactor::now() >= self.deadline;
                    return match waited_enough {
                        true => Err(Ended::Partly),
                        false => Ok(true),
                    };
                }
                Ok(_) => {}
                Err(_) => return Ok(false), // Reclaimed meanwhile.
            }
        }
        let file = match self.open(base).await {
            Ok(file) => file,
            Err(_) if base < self.store.first().0 => return Ok(false),
            Err(error) => return Err(Ended::Damaged { base, error }),
        };
        self.look_into(&file).await?;
        Ok(file.head.first_ms >= self.query.begin_ms)
    }

    async fn look_into(&mut self, file: &KeyFile) -> Result<(), Ended> {
        let head = file.head;
        let Some(range) = self
            .wanted
            .within(head.base_ms, head.first_ms, head.last_ms)
        else {
            return Ok(());
        };
        let base = head.segment_base;
        let damaged = |error| Ended::Damaged { base, error };
        let mut matches = file.find(range).await.map_err(damaged)?;
        while !self.is_full()
            && let Some(entry) = matches.next().await.map_err(damaged)?
        {
            self.take(base, vec![entry]).await?;
        }
        Ok(())
    }

    /// Reads the records the entries mean, and keeps those that were asked for.
    async fn take(&mut self, base: u64, entries: Vec<Entry>) -> Result<(), Ended> {
        for entry in entries {
            if self.is_full() {
                break;
            }
            let at = LogOffset(base + u64::from(entry.position));
            let Some(bytes) = self.store.record_at(at).await? else {
                continue; // Reclaimed meanwhile.
            };
            let Ok(record) = Record::parse(&bytes) else {
                continue;
            };
            let in_range = entry.delta_ms != DELTA_SATURATED
                || (self.query.begin_ms..=self.query.end_ms).contains(&record.store_ms);
            if !in_range || !matches(&record, self.query) {
                continue;
            }
            if !self.found.is_empty() && self.found_bytes + bytes.len() > self.query.bytes_max {
                self.is_closed = true;
                break;
            }
            self.found_bytes += bytes.len();
            self.found.push(bytes);
        }
        Ok(())
    }

    async fn open(&self, base: u64) -> io::Result<Arc<KeyFile>> {
        let keys = self.store.keys();
        let known = keys.opened().find(base);
        if let Some(file) = known {
            return Ok(file);
        }
        let path = names::sealed(self.store.layout(), base);
        let segment_bytes = self.store.config().segment_bytes;
        let file = offload("open a key index", move || {
            KeyFile::open(&path, base, segment_bytes)
        })
        .await?;
        let first = self.store.record_at(LogOffset(base)).await?;
        let first_ms = first.as_deref().and_then(|bytes| Record::parse(bytes).ok());
        let of_this_log = first_ms.is_none_or(|first| first.store_ms == file.head.base_ms);
        if !file.head.is_sealed() || !of_this_log {
            return Err(Damage::Misplaced.into());
        }
        let file = Arc::new(file);
        keys.opened().add(base, file.clone());
        Ok(file)
    }

    /// Resumes when something was done about a segment's index, or the time is over.
    async fn ask(&self, base: u64, damaged: bool) {
        let (done, answer) = oneshot();
        let ask = Ask {
            base,
            damaged,
            done,
        };
        let rest = self.deadline.saturating_since(reactor::now());
        let asked = async {
            if self.store.keys().asks.send(ask).await.is_ok() {
                // Without an answer the store is closing.
                let _ = answer.await;
            }
        };
        // Who waited in vain sees that nothing has changed.
        let _ = reactor::timeout(rest, asked).await;
    }
}

struct Scanned {
    found: Vec<Vec<u8>>,
    consumed: usize,
    next_bytes: usize,
    last_ms: i64,
}

fn scan_stretch(mut records: Records<'_>, query: &KeyQuery, mut last_ms: i64) -> Scanned {
    let mut found = Vec::new();
    for record in records.by_ref() {
        last_ms = last_ms.max(record.store_ms);
        let in_range = (query.begin_ms..=query.end_ms).contains(&last_ms);
        if in_range && matches(&record, query) {
            found.push(record.bytes.to_vec());
        }
    }
    Scanned {
        found,
        consumed: records.consumed,
        next_bytes: records.next_bytes,
        last_ms,
    }
}

fn matches(record: &Record<'_>, query: &KeyQuery) -> bool {
    if record.topic != query.topic.as_bytes() {
        return false;
    }
    let mut found = false;
    for_each_key(record, |kind, key| {
        found |= kind == query.kind && key == query.key.as_bytes();
    });
    found
}
