//! From a stretch of the log to sorted entries. No I/O: it runs beside the cores, on bytes somebody else has read.

use super::entry::{Entry, KeyHasher, KeyKind, for_each_key};
use crate::queue_index;
use protocol::record::{self, View};
use std::ops::Range;

/// What is known of the segment's times before a stretch of it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Store time of the segment's first record, once it has been read.
    pub base_ms: Option<i64>,
    /// Store time of the last record that was read; times never go back.
    pub last_ms: i64,
}

impl Times {
    pub const NONE: Times = Times {
        base_ms: None,
        last_ms: i64::MIN,
    };
}

/// The entries of a stretch, and how far it reaches.
#[derive(Debug, PartialEq, Eq)]
pub struct Collected {
    /// Sorted, none twice.
    pub entries: Vec<Entry>,
    /// Bytes of whole records, and of the blank at the segment's end.
    pub consumed: u64,
    /// Length of the record behind them, if its first bytes are there.
    pub next_bytes: usize,
    /// Store time of the stretch's first record.
    pub first_ms: i64,
    pub times: Times,
}

/// A longer record is damage, whatever its length says.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// One record after the other from the start of `bytes`, the log from `log_offset` on. Ends before the first that is
/// not there as a whole, or behind the blank that fills a segment. What is no record is passed over: nobody can read it
/// anyway.
pub struct Records<'a> {
    bytes: &'a [u8],
    log_offset: u64,
    /// Where the segment ends.
    segment_end: u64,
    pub consumed: usize,
    pub next_bytes: usize,
    /// Where something was passed over.
    pub damaged_at: Option<u64>,
}

impl<'a> Records<'a> {
    pub fn new(bytes: &'a [u8], log_offset: u64, segment_end: u64) -> Records<'a> {
        Records {
            bytes,
            log_offset,
            segment_end,
            consumed: 0,
            next_bytes: 0,
            damaged_at: None,
        }
    }

    /// Passes over at least one byte, up to what may be a record.
    fn pass_over_damage(&mut self) {
        self.damaged_at.get_or_insert(self.place());
        let rest = &self.bytes[self.consumed + 1..];
        let claimed = rest.windows(record::SYS_FLAG_AT).zip(self.place() + 1..);
        let next = claimed.enumerate().find_map(|(number, (start, at))| {
            let claims = start[record::LOG_OFFSET_AT..record::SYS_FLAG_AT] == at.to_be_bytes();
            let is_record = || record::len_at(start).is_ok_and(|header| !header.is_blank());
            (claims && is_record()).then_some(number)
        });
        self.consumed = match next {
            Some(number) => self.consumed + 1 + number,
            None => self.bytes.len(),
        };
    }

    /// Log offset of what comes next.
    fn place(&self) -> u64 {
        self.log_offset + self.consumed as u64
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = View<'a>;

    fn next(&mut self) -> Option<View<'a>> {
        loop {
            let rest = &self.bytes[self.consumed..];
            if rest.len() < record::HEADER_BYTES {
                if self.place() + rest.len() as u64 == self.segment_end {
                    self.consumed = self.bytes.len(); // Nothing fits in there.
                }
                return None;
            }
            let room = self.segment_end - self.place();
            match record::len_at(rest) {
                Ok(header) if header.is_blank() => {
                    // It may be longer than what was read.
                    self.consumed += room as usize;
                    return None;
                }
                Ok(header) if header.total <= rest.len() => {
                    if let Ok(view) = View::parse(rest)
                        && view.log_offset == self.place()
                    {
                        self.consumed += header.total;
                        return Some(view);
                    }
                }
                Ok(header) if header.total <= RECORD_BYTES_MAX && header.total as u64 <= room => {
                    self.next_bytes = header.total;
                    return None;
                }
                _ => {}
            }
            self.pass_over_damage();
        }
    }
}

/// Reads `bytes`, which lie at `position` of the segment with these log offsets.
pub fn collect(bytes: &[u8], segment: Range<u64>, position: u64, times: Times) -> Collected {
    let base = segment.start;
    let mut records = Records::new(bytes, base + position, segment.end);
    let mut collected = Collected {
        entries: Vec::new(),
        consumed: 0,
        next_bytes: 0,
        first_ms: times.last_ms,
        times,
    };
    let mut topic: &[u8] = &[];
    let mut seen = false;
    let mut hasher = KeyHasher::of_topic(topic);
    for view in records.by_ref() {
        let at = view.log_offset - base;
        let times = &mut collected.times;
        times.last_ms = times.last_ms.max(view.store_ms);
        let base_ms = *times.base_ms.get_or_insert(times.last_ms);
        if !seen {
            collected.first_ms = times.last_ms;
            seen = true;
        }
        if view.topic != topic {
            topic = view.topic;
            hasher = KeyHasher::of_topic(topic);
        }
        let (position, delta_ms) = (at as u32, queue_index::Entry::delta(base_ms, times.last_ms));
        for_each_key(&view, |kind: KeyKind, key| {
            collected.entries.push(Entry {
                hash: hasher.hash(kind, key),
                position,
                delta_ms,
            });
        });
    }
    collected.consumed = records.consumed as u64;
    collected.next_bytes = records.next_bytes;
    if let Some(log_offset) = records.damaged_at {
        tracing::warn!(
            log_offset,
            "the log is damaged here; what cannot be read is not found by key"
        );
    }
    collected.entries.sort_unstable();
    collected.entries.dedup();
    collected
}
