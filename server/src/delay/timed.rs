//! Messages with a due time of their own, in the topic where RocketMQ's timers look for them.
//!
//! They come there by a sender's wish (`wish`), or because they were delayed by level and their log file has to go: in
//! their level's queue, which is in order of deadlines, they would be late if they were appended again. Those bear our mark,
//! so that they are delivered as if they had never been moved. A message that names another one in `TIMER_DEL_UNIQKEY`
//! withdraws it and is not delivered itself.

use std::borrow::Cow;

use protocol::names::PROPERTIES_BYTES_MAX;
use protocol::properties;
use protocol::record::{Draft, View};
use protocol::{Text, names};

/// RocketMQ's timers use one queue.
pub const QUEUE_ID: u32 = 0;
/// Our mark: the level a message had. Under its own name RocketMQ would delay the message once more.
pub const LEVEL_BEFORE: &str = "ORBIT_DELAY";
/// The mark of a message that named no level.
const NO_LEVEL: &str = "none";

/// How often RocketMQ has laid the message again.
pub const ROLL_TIMES: &str = "TIMER_ROLL_TIMES";

/// RocketMQ's notes on popped messages pass through its timers on their way to topics of such names.
pub const REVIVE_TOPIC_PREFIX: &str = "rmq_sys_REVIVE_LOG_";

/// Such a note: POP sees to it (`pop::handback`).
pub fn is_revive(view: &View<'_>) -> bool {
    let topic = view.property(properties::REAL_TOPIC);
    topic.is_some_and(|topic| topic.starts_with(REVIVE_TOPIC_PREFIX.as_bytes()))
}

/// What the message withdraws, if that is what it is for.
pub fn withdraws<'a>(view: &View<'a>) -> Option<&'a [u8]> {
    view.property(properties::TIMER_DEL_UNIQKEY)
}

/// By these a message can be withdrawn: RocketMQ 5.4 leaves the topic out (`appendTopicForTimerDeleteKey`).
pub fn names_of(view: &View<'_>) -> Option<[Vec<u8>; 2]> {
    let topic = view.property(properties::REAL_TOPIC)?;
    let key = view.property(properties::UNIQ_KEY)?;
    Some([key.to_vec(), name(topic, key)])
}

pub fn name(topic: &[u8], unique_key: &[u8]) -> Vec<u8> {
    [topic, b"+", unique_key].concat()
}

/// A withdrawal holds until its slot of RocketMQ's wheel is over, whose end it names or lies in front of.
pub fn withdrawal_ends_ms(due_ms: i64, precision_ms: i64) -> i64 {
    let precision_ms = precision_ms.max(1);
    let over = due_ms.rem_euclid(precision_ms);
    match over {
        0 => due_ms,
        _ => due_ms.saturating_add(precision_ms - over),
    }
}

/// The properties of one that stays parked and is only appended again; as they were if they are too long to be changed, for
/// they name its time as well.
pub fn properties_again(stored: &[u8], due_ms: i64) -> Cow<'_, [u8]> {
    let due = due_ms.to_string();
    let again = properties::set(stored, properties::TIMER_OUT_MS, due.as_bytes());
    match again.len() <= PROPERTIES_BYTES_MAX {
        true => Cow::Owned(again),
        false => Cow::Borrowed(stored),
    }
}

/// The properties of a message that was delayed by level on their way into the topic; none if they are too long for that.
pub fn properties_in(stored: &[u8], due_ms: i64) -> Option<Vec<u8>> {
    let level = properties::get(stored, properties::DELAY).unwrap_or(NO_LEVEL.as_bytes());
    let moved = properties::remove(stored, properties::DELAY);
    let marked = properties::set(&moved, LEVEL_BEFORE, level);
    let moved = properties::set(
        &marked,
        properties::TIMER_OUT_MS,
        due_ms.to_string().as_bytes(),
    );
    (moved.len() <= PROPERTIES_BYTES_MAX).then_some(moved)
}

/// And out of it again. What a sender has timed keeps all properties, as with RocketMQ.
pub fn properties_out(stored: &[u8]) -> Cow<'_, [u8]> {
    let Some(level) = properties::get(stored, LEVEL_BEFORE) else {
        return Cow::Borrowed(stored);
    };
    let without = properties::remove(stored, properties::TIMER_OUT_MS);
    let unmarked = properties::remove(&without, LEVEL_BEFORE);
    Cow::Owned(match level == NO_LEVEL.as_bytes() {
        false => properties::set(&unmarked, properties::DELAY, level),
        true => unmarked,
    })
}

/// As the index has it of every message.
pub fn tag_hash(view: &View<'_>) -> i32 {
    let tags = view.property(properties::TAGS);
    let tags = tags.and_then(|tags| std::str::from_utf8(tags).ok());
    tags.map_or(0, properties::tag_hash)
}

/// The record that is appended to the topic.
pub fn draft<'a>(view: &View<'a>, properties: &'a Cow<'a, [u8]>) -> Draft<'a> {
    Draft {
        topic: names::TIMER_TOPIC,
        queue_id: QUEUE_ID as i32,
        flag: view.flag,
        sys_flag: view.sys_flag,
        born_ms: view.born_ms,
        born_host: view.born_host,
        store_host: view.store_host,
        reconsume_times: view.reconsume_times,
        prepared_transaction_offset: view.prepared_transaction_offset,
        properties: Text::plain(properties),
        body: view.body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_out_is_what_went_in() {
        let stored = b"TAGS\x01a\x02REAL_TOPIC\x01t\x02REAL_QID\x013\x02DELAY\x0117\x02";
        let moved = properties_in(stored, 12_345).expect("short");
        assert_eq!(
            properties::get_str(&moved, properties::TIMER_OUT_MS),
            Some("12345")
        );
        assert_eq!(properties::get_str(&moved, properties::DELAY), None);
        assert_eq!(properties_out(&moved), stored.as_slice());
        let without_level = b"REAL_TOPIC\x01t\x02REAL_QID\x013\x02";
        let moved = properties_in(without_level, 1).expect("short");
        assert_eq!(properties_out(&moved), without_level.as_slice());
    }

    #[test]
    fn what_a_sender_timed_is_delivered_with_all_its_properties() {
        let stored =
            b"TIMER_DELAY_MS\x015\x02TIMER_OUT_MS\x017\x02REAL_TOPIC\x01t\x02REAL_QID\x013\x02";
        assert_eq!(properties_out(stored), stored.as_slice());
        let again = properties_again(stored, 8);
        assert_eq!(
            properties::get_str(&again, properties::TIMER_OUT_MS),
            Some("8")
        );
    }

    #[test]
    fn a_withdrawal_holds_to_the_end_of_its_slot() {
        let ends = [4_000, 4_001, 4_999, 5_000].map(|due| withdrawal_ends_ms(due, 1_000));
        assert_eq!(ends, [4_000, 5_000, 5_000, 5_000]);
        assert_eq!(withdrawal_ends_ms(7, 0), 7);
    }

    #[test]
    fn properties_without_room_for_a_due_time_are_not_cut_short() {
        let long = [
            b"k\x01".as_slice(),
            &[b'v'; PROPERTIES_BYTES_MAX - 3],
            b"\x02",
        ]
        .concat();
        assert_eq!(long.len(), PROPERTIES_BYTES_MAX);
        assert_eq!(properties_in(&long, 1), None);
        assert_eq!(properties_again(&long, 1), long.as_slice());
    }
}
