//! Messages with a due time of their own, in the topic where RocketMQ's timers look for them.
//!
//! A delayed message whose segment has to go is appended again to this topic, with the time at which it is due as a
//! property: in its level's queue, which is in order of deadlines, it would be late. What it was before is all there, so
//! it is delivered as if it had never been moved. RocketMQ's own messages lie in this topic as well, most of them
//! delivered long ago: only what bears our mark is ours to deliver.

use std::borrow::Cow;

use protocol::names::PROPERTIES_BYTES_MAX;
use protocol::properties;
use protocol::record::{Draft, View};
use protocol::{Text, names};

/// RocketMQ's timers use one queue.
pub const QUEUE_ID: u32 = 0;
/// Our mark: the level a message had. Under its own name RocketMQ would delay the message once more.
const LEVEL_BEFORE: &str = "ORBIT_DELAY";
/// The mark of a message that named no level.
const NO_LEVEL: &str = "none";

/// When a message that we moved is due; none for any other, whatever it says.
pub fn due_ms(view: &View<'_>) -> Option<i64> {
    view.property(LEVEL_BEFORE)?;
    let due = std::str::from_utf8(view.property(properties::TIMER_OUT_MS)?).ok()?;
    due.parse().ok()
}

/// A message's properties on their way into the topic; none if they are too long for that.
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

/// And out of it again.
pub fn properties_out(stored: &[u8]) -> Vec<u8> {
    let without = properties::remove(stored, properties::TIMER_OUT_MS);
    let unmarked = properties::remove(&without, LEVEL_BEFORE);
    match properties::get(stored, LEVEL_BEFORE) {
        Some(level) if level != NO_LEVEL.as_bytes() => {
            properties::set(&unmarked, properties::DELAY, level)
        }
        _ => unmarked,
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
        assert_eq!(properties_out(&moved), stored);
        let without_level = b"REAL_TOPIC\x01t\x02REAL_QID\x013\x02";
        let moved = properties_in(without_level, 1).expect("short");
        assert_eq!(properties_out(&moved), without_level);
    }

    #[test]
    fn only_what_we_moved_is_ours_to_deliver() {
        let theirs =
            b"REAL_TOPIC\x01t\x02REAL_QID\x013\x02TIMER_OUT_MS\x015\x02TIMER_ROLL_TIMES\x011\x02";
        let ours = properties_in(b"REAL_TOPIC\x01t\x02REAL_QID\x013\x02", 5).expect("short");
        for (properties, due) in [(&theirs[..], None), (&ours, Some(5))] {
            let host = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
            let draft = Draft {
                topic: names::TIMER_TOPIC,
                queue_id: 0,
                flag: 0,
                sys_flag: 0,
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
            let view = View::parse(&bytes).expect("a record");
            assert_eq!(due_ms(&view), due);
        }
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
