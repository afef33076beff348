//! The queue index: for every queue the places of its records, kept per segment.
//!
//! While a segment grows its index is in memory (`active`) and is written out in immutable parts (`part`), the
//! last of which is the checkpoint. When the segment is full the whole index goes into one sealed companion
//! (`sealed`), and memory is given back once the segment has left the hot tail. `keeper` is the task that does
//! this beside the writer. All of it is derived: `recovery` makes it again from the log.

pub mod active;
pub mod chunks;
pub mod companion;
pub mod keeper;
pub mod lookup;
pub mod part;
pub mod sealed;

use crate::LogOffset;

/// One message's place in its segment, 16 bytes in memory and on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where the record starts, counted from the segment's first byte.
    pub position: u32,
    /// Length of the record; 0 stands for an offset of the queue that no record has.
    pub bytes: u32,
    pub tag_hash: i32,
    /// Store time after the segment's base time; [`DELTA_SATURATED`] means "look into the record".
    pub delta_ms: u32,
}

/// Bytes of an entry on disk.
pub const ENTRY_BYTES: usize = 16;
const _: () = assert!(ENTRY_BYTES == 4 + 4 + 4 + 4);

/// How many offsets of a queue without a record are listed one by one. In logs of ours there are none; RocketMQ's
/// have some. Over a longer gap the queue starts anew, and what is before it is not shown.
pub const GAP_ENTRIES_MAX: u64 = 64 << 10;
/// Tells the filler of a gap from memory that was never written.
const FILLER_TAG: i32 = -1;

/// A segment that grew for more than 49 days: the delta does not say when.
pub const DELTA_SATURATED: u32 = u32::MAX;

impl Entry {
    /// What stands for an offset without a record: the place and time of the next record of the queue.
    pub(crate) fn filler(before: Entry) -> Entry {
        Entry {
            bytes: 0,
            tag_hash: FILLER_TAG,
            ..before
        }
    }

    pub(crate) fn is_filler(self) -> bool {
        self.bytes == 0
    }

    pub(crate) fn to_words(self) -> [u64; 2] {
        let place = u64::from(self.position) | u64::from(self.bytes) << 32;
        let rest = u64::from(self.tag_hash as u32) | u64::from(self.delta_ms) << 32;
        [place, rest]
    }

    pub(crate) fn from_words(words: [u64; 2]) -> Entry {
        Entry {
            position: words[0] as u32,
            bytes: (words[0] >> 32) as u32,
            tag_hash: words[1] as u32 as i32,
            delta_ms: (words[1] >> 32) as u32,
        }
    }

    pub(crate) fn encode(self) -> [u8; ENTRY_BYTES] {
        let words = self.to_words();
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&words[0].to_le_bytes());
        bytes[8..].copy_from_slice(&words[1].to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; ENTRY_BYTES]) -> Entry {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        Entry::from_words([word(0), word(8)])
    }

    /// The delta for a record stored at `store_ms` in a segment that starts at `base_ms`.
    pub(crate) fn delta(base_ms: i64, store_ms: i64) -> u32 {
        u32::try_from(store_ms.saturating_sub(base_ms).max(0)).unwrap_or(DELTA_SATURATED)
    }
}

/// An entry with its segment's numbers added in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub log_offset: LogOffset,
    pub bytes: u32,
    pub tag_hash: i32,
    /// When it was stored, unless the segment grew for too long to say.
    pub store_ms: Option<i64>,
}

impl Place {
    pub(crate) fn of(entry: Entry, segment_base: u64, base_ms: i64) -> Place {
        let known = entry.delta_ms != DELTA_SATURATED;
        Place {
            log_offset: LogOffset(segment_base + u64::from(entry.position)),
            bytes: entry.bytes,
            tag_hash: entry.tag_hash,
            store_ms: known.then(|| base_ms + i64::from(entry.delta_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_entry_comes_back_as_it_was(position: u32, bytes: u32, tag_hash: i32, delta_ms: u32) {
            let entry = Entry { position, bytes, tag_hash, delta_ms };
            prop_assert_eq!(Entry::from_words(entry.to_words()), entry);
            prop_assert_eq!(Entry::decode(&entry.encode()), entry);
        }
    }

    #[test]
    fn a_store_time_too_far_from_the_base_is_not_invented() {
        assert_eq!(Entry::delta(1_000, 1_500), 500);
        assert_eq!(Entry::delta(1_000, 900), 0);
        let far = Entry::delta(0, i64::from(u32::MAX) + 5);
        assert_eq!(far, DELTA_SATURATED);
        let entry = Entry {
            position: 8,
            bytes: 100,
            tag_hash: 0,
            delta_ms: far,
        };
        assert_eq!(Place::of(entry, 4096, 0).store_ms, None);
    }
}
