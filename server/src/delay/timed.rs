//! Messages with a due time of their own, in the topic where RocketMQ's timers look for them.
//!
//! A delayed message whose segment has to go is appended again to this topic, with the time at which it is due as a
//! property: in its level's queue, which is in order of deadlines, it would be late. What it was before is all there, so
//! it is delivered as if it had never been moved.

use std::borrow::Cow;

use protocol::names::PROPERTIES_BYTES_MAX;
use protocol::properties;
use protocol::record::{Draft, View};
use protocol::{Text, names};

/// RocketMQ's timers use one queue.
pub const QUEUE_ID: u32 = 0;
/// The level a message had. Under its own name RocketMQ would delay the message once more.
const LEVEL_BEFORE: &str = "ORBIT_DELAY";

/// When it is due, if the message says so.
pub fn due_ms(view: &View<'_>) -> Option<i64> {
    let due = std::str::from_utf8(view.property(properties::TIMER_OUT_MS)?).ok()?;
    due.parse().ok()
}

/// A message's properties on their way into the topic; none if they are too long for that.
pub fn properties_in(stored: &[u8], due_ms: i64) -> Option<Vec<u8>> {
    let mut moved = renamed(stored, properties::DELAY, LEVEL_BEFORE);
    moved = properties::set(
        &moved,
        properties::TIMER_OUT_MS,
        due_ms.to_string().as_bytes(),
    );
    (moved.len() <= PROPERTIES_BYTES_MAX).then_some(moved)
}

/// And out of it again.
pub fn properties_out(stored: &[u8]) -> Vec<u8> {
    let without = properties::remove(stored, properties::TIMER_OUT_MS);
    renamed(&without, LEVEL_BEFORE, properties::DELAY)
}

fn renamed(stored: &[u8], from: &str, to: &str) -> Vec<u8> {
    match properties::get(stored, from) {
        Some(value) => properties::set(&properties::remove(stored, from), to, value),
        None => stored.to_vec(),
    }
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
        // Moved twice, it is still due at the same time.
        let again = properties_in(&moved, 12_345).expect("short");
        assert_eq!(again, moved);
        assert_eq!(properties_out(&again), stored);
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
    }
}
