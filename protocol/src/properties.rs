//! Properties of a message: `name \x01 value \x02`, one behind the other, as one string.
//!
//! The last separator may be missing. A pair without a name or without a value does not count,
//! and of two pairs with one name the last counts; so reads RocketMQ.

mod separators;

use separators::Separators;

pub const NAME_VALUE_SEPARATOR: u8 = 1;
pub const PAIR_SEPARATOR: u8 = 2;
/// Between the keys within [`KEYS`].
pub const KEY_SEPARATOR: char = ' ';

pub const KEYS: &str = "KEYS";
pub const TAGS: &str = "TAGS";
/// "false": the sender does not wait for flush and replication.
pub const WAIT: &str = "WAIT";
/// A delay level, 1 to 18.
pub const DELAY: &str = "DELAY";
pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
pub const REAL_TOPIC: &str = "REAL_TOPIC";
pub const REAL_QID: &str = "REAL_QID";
/// "true" marks a half message.
pub const TRAN_MSG: &str = "TRAN_MSG";
pub const PRODUCER_GROUP: &str = "PGROUP";
pub const MIN_OFFSET: &str = "MIN_OFFSET";
pub const MAX_OFFSET: &str = "MAX_OFFSET";
pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
pub const RECONSUME_TIME: &str = "RECONSUME_TIME";
pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
pub const MSG_REGION: &str = "MSG_REGION";
pub const TRACE_ON: &str = "TRACE_ON";
/// The id the producer gave.
pub const UNIQ_KEY: &str = "UNIQ_KEY";
pub const CONSUME_START_TIME: &str = "CONSUME_START_TIME";
pub const INNER_NUM: &str = "INNER_NUM";
pub const INNER_BASE: &str = "INNER_BASE";
pub const CHECK_IMMUNITY_TIME: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";
pub const TRAN_PREPARED_QUEUE_OFFSET: &str = "TRAN_PREPARED_QUEUE_OFFSET";
pub const TRANSACTION_ID: &str = "__transactionId__";
pub const TRANSACTION_CHECK_TIMES: &str = "TRANSACTION_CHECK_TIMES";
pub const INSTANCE_ID: &str = "INSTANCE_ID";
pub const CORRELATION_ID: &str = "CORRELATION_ID";
pub const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
pub const TTL: &str = "TTL";
pub const ARRIVE_TIME: &str = "ARRIVE_TIME";
pub const PUSH_REPLY_TIME: &str = "PUSH_REPLY_TIME";
pub const CLUSTER: &str = "CLUSTER";
pub const MSG_TYPE: &str = "MSG_TYPE";
pub const SHARDING_KEY: &str = "__SHARDINGKEY";
pub const INNER_MULTI_DISPATCH: &str = "INNER_MULTI_DISPATCH";
pub const INNER_MULTI_QUEUE_OFFSET: &str = "INNER_MULTI_QUEUE_OFFSET";
pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
pub const TIMER_OUT_MS: &str = "TIMER_OUT_MS";
pub const TIMER_DEL_UNIQKEY: &str = "TIMER_DEL_UNIQKEY";
pub const BORN_HOST: &str = "__BORNHOST";
pub const BORN_TIMESTAMP: &str = "BORN_TIMESTAMP";
pub const DLQ_ORIGIN_TOPIC: &str = "DLQ_ORIGIN_TOPIC";
pub const DLQ_ORIGIN_MESSAGE_ID: &str = "DLQ_ORIGIN_MESSAGE_ID";
pub const CRC32: &str = "__CRC32#";

/// The pairs in order; those that do not count are left out.
pub fn iter(properties: &[u8]) -> Pairs<'_> {
    Pairs {
        properties,
        separators: Separators::of(properties),
        start: 0,
    }
}

/// See [`iter`]. One walk over all bytes.
pub struct Pairs<'a> {
    properties: &'a [u8],
    separators: Separators<'a>,
    /// Of the pair that is read next.
    start: usize,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        while self.start <= self.properties.len() {
            let start = self.start;
            let mut name_end = None;
            // The end of the last pair needs no separator.
            let end = loop {
                match self.separators.next() {
                    None => break self.properties.len(),
                    Some((at, true)) => break at,
                    Some((at, false)) => _ = name_end.get_or_insert(at),
                }
            };
            self.start = end + 1;
            if let Some(name_end) = name_end
                && start < name_end
                && name_end + 1 < end
            {
                let pair = self.properties;
                return Some((&pair[start..name_end], &pair[name_end + 1..end]));
            }
        }
        None
    }
}

/// The value under `name`. To read several, walk [`iter`] once.
pub fn get<'a>(properties: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut found = None;
    for (candidate, value) in iter(properties) {
        if candidate == name.as_bytes() {
            found = Some(value);
        }
    }
    found
}

/// [`get`] as a string; `None` also for bytes that are not UTF-8.
pub fn get_str<'a>(properties: &'a [u8], name: &str) -> Option<&'a str> {
    std::str::from_utf8(get(properties, name)?).ok()
}

/// Appends a pair to a buffer whose properties start at `start`; ends the pair before it first
/// where that lacks its separator.
pub fn append(out: &mut Vec<u8>, start: usize, name: &str, value: &[u8]) {
    debug_assert!(start <= out.len());
    if out.len() > start && out.last() != Some(&PAIR_SEPARATOR) {
        out.push(PAIR_SEPARATOR);
    }
    out.extend_from_slice(name.as_bytes());
    out.push(NAME_VALUE_SEPARATOR);
    out.extend_from_slice(value);
    out.push(PAIR_SEPARATOR);
}

/// Appends all pairs but those under `names`.
pub fn append_without(out: &mut Vec<u8>, properties: &[u8], names: &[&str]) {
    let start = out.len();
    for (name, value) in iter(properties) {
        if names.iter().any(|unwanted| unwanted.as_bytes() == name) {
            continue;
        }
        if out.len() > start && out.last() != Some(&PAIR_SEPARATOR) {
            out.push(PAIR_SEPARATOR);
        }
        out.extend_from_slice(name);
        out.push(NAME_VALUE_SEPARATOR);
        out.extend_from_slice(value);
        out.push(PAIR_SEPARATOR);
    }
}

/// The properties with `name` set to `value`.
pub fn set(properties: &[u8], name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(properties.len() + name.len() + value.len() + 2);
    append_without(&mut out, properties, &[name]);
    append(&mut out, 0, name, value);
    out
}

/// The properties without `name`.
pub fn remove(properties: &[u8], name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(properties.len());
    append_without(&mut out, properties, &[name]);
    out
}

/// Java's `String.hashCode`: what the queue index keeps of a message's tags, and subscriptions of
/// theirs.
pub fn tag_hash(tags: &str) -> i32 {
    tags.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_the_pairs_they_split_into(
            bytes in prop::collection::vec(prop::sample::select(vec![1u8, 2, b'a', b'b']), 0..40),
        ) {
            let split = |pair: &'_ [u8]| {
                let at = pair.iter().position(|byte| *byte == NAME_VALUE_SEPARATOR)?;
                let (name, value) = (pair[..at].to_vec(), pair[at + 1..].to_vec());
                (!name.is_empty() && !value.is_empty()).then_some((name, value))
            };
            let expected: Vec<_> = bytes
                .split(|byte| *byte == PAIR_SEPARATOR)
                .filter_map(split)
                .collect();
            let found: Vec<_> = iter(&bytes)
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }

    const TWO: &[u8] = b"TAGS\x01a\x02KEYS\x01k1 k2\x02";

    #[test]
    fn values_are_found_with_and_without_the_last_separator() {
        assert_eq!(get(TWO, TAGS), Some(b"a".as_slice()));
        assert_eq!(get_str(&TWO[..TWO.len() - 1], KEYS), Some("k1 k2"));
        assert_eq!(get(TWO, "KEY"), None);
        assert_eq!(get(b"", TAGS), None);
    }

    #[test]
    fn pairs_without_name_or_value_do_not_count() {
        let broken = b"\x02\x01\x02a\x02\x01v\x02n\x01\x02TAGS\x01t\x02KEYS";
        let pairs: Vec<_> = iter(broken).collect();
        assert_eq!(pairs, [(b"TAGS".as_slice(), b"t".as_slice())]);
    }

    #[test]
    fn the_last_of_two_equal_names_counts() {
        assert_eq!(get(b"a\x011\x02a\x012\x02", "a"), Some(b"2".as_slice()));
    }

    #[test]
    fn a_value_may_hold_the_name_separator() {
        assert_eq!(get(b"a\x01b\x01c\x02", "a"), Some(b"b\x01c".as_slice()));
    }

    #[test]
    fn setting_replaces_and_removing_removes() {
        let set_twice = set(&set(TWO, DELAY, b"3"), TAGS, b"new");
        assert_eq!(get(&set_twice, TAGS), Some(b"new".as_slice()));
        assert_eq!(get(&set_twice, DELAY), Some(b"3".as_slice()));
        assert_eq!(iter(&set_twice).count(), 3);
        assert_eq!(remove(TWO, KEYS), b"TAGS\x01a\x02");
        assert_eq!(set(b"a\x011", "b", b"2"), b"a\x011\x02b\x012\x02");
    }

    #[test]
    fn appending_ends_an_unfinished_pair_first() {
        let mut out = b"prefix a\x011".to_vec();
        append(&mut out, 7, "b", b"2");
        assert_eq!(&out[7..], b"a\x011\x02b\x012\x02");
    }

    #[test]
    fn tags_hash_as_in_java() {
        assert_eq!(tag_hash(""), 0);
        assert_eq!(tag_hash("TagA"), 2_598_919);
        assert_eq!(tag_hash("Aa"), tag_hash("BB"));
        assert_eq!(tag_hash("中文"), 646_394);
        assert_eq!(tag_hash("😀"), 1_772_899);
    }
}
