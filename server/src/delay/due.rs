//! When a delayed message is due, and what it becomes then.

use std::borrow::Cow;

use protocol::Text;
use protocol::properties::{self, tag_hash};
use protocol::record::{Draft, View};

/// How long until it is due. A store time in the future (the clock was set back, or the writer's core read it a moment
/// later than this one) makes it wait as long as its level says, from now on: never longer, and never less than is left.
pub fn wait_ms(store_ms: i64, delay_ms: u64, now_ms: i64) -> u64 {
    let delay = i64::try_from(delay_ms).unwrap_or(i64::MAX);
    let due_ms = store_ms.saturating_add(delay);
    u64::try_from(due_ms.saturating_sub(now_ms))
        .unwrap_or(0)
        .min(delay_ms)
}

/// The time at which it is due, by the same rules.
pub fn due_ms(store_ms: i64, delay_ms: u64, now_ms: i64) -> i64 {
    let left = wait_ms(store_ms, delay_ms, now_ms);
    now_ms.saturating_add(i64::try_from(left).unwrap_or(i64::MAX))
}

/// Where a delayed message really belongs.
#[derive(Debug, PartialEq, Eq)]
pub struct Real<'a> {
    pub topic: Cow<'a, str>,
    pub queue_id: u32,
    pub tag_hash: i32,
}

/// None if the properties that say so are missing.
pub fn message<'a>(view: &View<'a>) -> Option<Real<'a>> {
    let topic = std::str::from_utf8(view.property(properties::REAL_TOPIC)?).ok()?;
    let queue_id = std::str::from_utf8(view.property(properties::REAL_QID)?).ok()?;
    let tags = view.property(properties::TAGS).map(String::from_utf8_lossy);
    Some(Real {
        topic: Cow::Borrowed(topic),
        // Queue ids are 31 bits wide on the wire.
        queue_id: u32::try_from(queue_id.parse::<i32>().ok()?).ok()?,
        tag_hash: tags.map_or(0, |tags| tag_hash(&tags)),
    })
}

impl Real<'_> {
    /// The message as it was sent, properties included, as the real broker hands it on.
    pub fn draft<'d>(&'d self, view: &View<'d>) -> Draft<'d> {
        Draft {
            topic: &self.topic,
            queue_id: i32::try_from(self.queue_id).expect("came from 31 bits"),
            flag: view.flag,
            sys_flag: view.sys_flag,
            born_ms: view.born_ms,
            born_host: view.born_host,
            store_host: view.store_host,
            reconsume_times: view.reconsume_times,
            prepared_transaction_offset: view.prepared_transaction_offset,
            properties: Text::plain(view.properties),
            body: view.body,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(properties: &str) -> Vec<u8> {
        let host = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let draft = Draft {
            topic: "SCHEDULE_TOPIC_XXXX",
            queue_id: 2,
            flag: 7,
            sys_flag: 0,
            born_ms: 1,
            born_host: host,
            store_host: host,
            reconsume_times: 3,
            prepared_transaction_offset: 0,
            properties: Text::plain(properties.as_bytes()),
            body: b"body",
        };
        let mut bytes = Vec::new();
        draft.append_to(&mut bytes);
        bytes
    }

    #[test]
    fn a_message_is_due_its_delay_after_it_was_stored_and_not_before() {
        assert_eq!(wait_ms(1_000, 5_000, 1_000), 5_000);
        assert_eq!(wait_ms(1_000, 5_000, 5_999), 1);
        assert_eq!(wait_ms(1_000, 5_000, 6_000), 0);
        assert_eq!(wait_ms(1_000, 5_000, 9_000), 0);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_early_and_nothing_wait_longer_than_its_level() {
        assert_eq!(wait_ms(1_000_000, 5_000, 1_000), 5_000);
        assert_eq!(wait_ms(1_001, 5_000, 1_000), 5_000);
    }

    #[test]
    fn a_due_message_goes_to_its_real_queue_with_everything_it_had() {
        let bytes =
            record("REAL_TOPIC\u{1}t\u{2}REAL_QID\u{1}3\u{2}TAGS\u{1}A\u{2}DELAY\u{1}3\u{2}");
        let view = View::parse(&bytes).expect("a record");
        let real = message(&view).expect("real topic");
        let draft = real.draft(&view);
        assert_eq!((draft.topic, draft.queue_id), ("t", 3));
        assert_eq!((draft.flag, draft.reconsume_times), (7, 3));
        assert_eq!(draft.body, b"body");
        assert_eq!(real.tag_hash, tag_hash("A"));
    }

    #[test]
    fn without_a_real_queue_there_is_nowhere_to_go() {
        for properties in [
            "",
            "REAL_TOPIC\u{1}t\u{2}",
            "REAL_TOPIC\u{1}t\u{2}REAL_QID\u{1}-1\u{2}",
        ] {
            let bytes = record(properties);
            assert_eq!(message(&View::parse(&bytes).expect("a record")), None);
        }
    }
}
