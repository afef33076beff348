//! An entry of the key index, and how a key becomes one.
//!
//! ```text
//!   0 hash u64      of the kind, the topic and the key
//!   8 position u32  of the record in its segment
//!  12 delta u32     store time after the segment's first record, ms; at the top: look into the record
//! ```
//!
//! Entries are sorted by hash, and those of one hash newest first. Little-endian. Two keys may have one hash: who finds
//! an entry compares the record's own key.

use protocol::properties;
use protocol::record::View;
use protocol::sysflag;
use std::cmp::Ordering;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub const ENTRY_BYTES: usize = 16;
const _: () = assert!(ENTRY_BYTES == 8 + 4 + 4);

/// A segment that grew for more than 49 days: the delta does not say when.
pub const DELTA_SATURATED: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub hash: u64,
    pub position: u32,
    pub delta_ms: u32,
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        let newest_first = other.position.cmp(&self.position);
        self.hash.cmp(&other.hash).then(newest_first)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Entry {
    pub fn encode(self) -> [u8; ENTRY_BYTES] {
        let rest = u64::from(self.position) | u64::from(self.delta_ms) << 32;
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.hash.to_le_bytes());
        bytes[8..].copy_from_slice(&rest.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; ENTRY_BYTES]) -> Entry {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let rest = word(8);
        Entry {
            hash: word(0),
            position: rest as u32,
            delta_ms: (rest >> 32) as u32,
        }
    }
}

/// What a message can be found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// One of its keys, or the id its producer gave.
    Key,
    Tag,
}

impl KeyKind {
    fn seed(self) -> u64 {
        match self {
            KeyKind::Key => 0,
            KeyKind::Tag => 1,
        }
    }
}

/// Hashes keys of one topic. The values are on disk: they never change.
#[derive(Clone, Copy, Debug)]
pub struct KeyHasher([u64; 2]);

impl KeyHasher {
    pub fn of_topic(topic: &[u8]) -> KeyHasher {
        let seeded = |kind: KeyKind| xxh3_64_with_seed(topic, kind.seed());
        KeyHasher([seeded(KeyKind::Key), seeded(KeyKind::Tag)])
    }

    pub fn hash(&self, kind: KeyKind, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.0[kind.seed() as usize])
    }
}

/// Calls `each` with everything the record is found by, as RocketMQ decides it; a key may come twice.
pub fn for_each_key<'a>(view: &View<'a>, mut each: impl FnMut(KeyKind, &'a [u8])) {
    if sysflag::transaction(view.sys_flag) == sysflag::TRANSACTION_ROLLBACK {
        return;
    }
    let (mut keys, mut unique_key, mut tag) = (None, None, None);
    // Of two pairs with one name the last counts.
    for (name, value) in properties::iter(view.properties) {
        match name {
            b"KEYS" => keys = Some(value),
            b"UNIQ_KEY" => unique_key = Some(value),
            b"TAGS" => tag = Some(value),
            _ => {}
        }
    }
    if let Some(key) = unique_key {
        each(KeyKind::Key, key);
    }
    let keys = keys.into_iter().flat_map(|keys| {
        let separator = properties::KEY_SEPARATOR as u8;
        keys.split(move |byte| *byte == separator)
    });
    for key in keys.filter(|key| !key.is_empty()) {
        each(KeyKind::Key, key);
    }
    if let Some(tag) = tag {
        each(KeyKind::Tag, tag);
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;
    use protocol::record::Draft;
    use protocol::text::Text;
    use std::net::SocketAddr;

    pub fn record(topic: &str, sys_flag: i32, properties: &[u8]) -> Vec<u8> {
        let host = SocketAddr::from(([127, 0, 0, 1], 10911));
        let draft = Draft {
            topic,
            queue_id: 0,
            flag: 0,
            sys_flag,
            born_ms: 1,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            properties: Text::plain(properties),
            body: b"body",
        };
        let mut bytes = Vec::new();
        draft.append_to(&mut bytes);
        bytes
    }

    fn keys(sys_flag: i32, properties: &[u8]) -> Vec<(KeyKind, String)> {
        let bytes = record("t", sys_flag, properties);
        let view = View::parse(&bytes).expect("a draft is a record");
        let mut found = Vec::new();
        for_each_key(&view, |kind, key| {
            found.push((kind, String::from_utf8_lossy(key).into_owned()));
        });
        found
    }

    #[test]
    fn a_record_is_found_by_unique_key_keys_and_tag() {
        let properties = b"KEYS\x01a  b\x02UNIQ_KEY\x01u\x02TAGS\x01t\x02";
        let found = keys(0, properties);
        let key = |key: &str| (KeyKind::Key, key.to_owned());
        let tag = (KeyKind::Tag, "t".to_owned());
        assert_eq!(found, [key("u"), key("a"), key("b"), tag]);
        assert_eq!(keys(sysflag::TRANSACTION_PREPARED, properties).len(), 4);
        assert!(keys(sysflag::TRANSACTION_ROLLBACK, properties).is_empty());
        assert!(keys(0, b"OTHER\x01x\x02").is_empty());
    }

    #[test]
    fn hashes_are_those_of_earlier_files() {
        let hasher = KeyHasher::of_topic(b"orders");
        assert_eq!(hasher.hash(KeyKind::Key, b"4711"), KEY_4711);
        assert_ne!(hasher.hash(KeyKind::Tag, b"4711"), KEY_4711);
    }

    const KEY_4711: u64 = 5_462_921_519_061_098_390;

    proptest! {
        #[test]
        fn an_entry_comes_back_as_it_was(hash: u64, position: u32, delta_ms: u32) {
            let entry = Entry { hash, position, delta_ms };
            prop_assert_eq!(Entry::decode(&entry.encode()), entry);
        }
    }
}
