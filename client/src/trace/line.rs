//! One event as RocketMQ's trace tools read it: fields separated by 0x01, ended by 0x02.

use std::borrow::Cow;
use std::fmt::Display;

use protocol::properties;

use crate::received::Received;

const FIELD_END: char = '\u{1}';
const LINE_END: char = '\u{2}';
const REGION_DEFAULT: &str = "DefaultRegion";
/// What Java writes for a tag or key that is not there.
const ABSENT: &str = "null";

/// An encoded event, and what it can be looked up by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub text: String,
    pub keys: Vec<String>,
}

/// What kind of message an event is about, under the numbers of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal = 0,
    Half = 1,
    Commit = 2,
    Delayed = 3,
}

/// A message was sent.
#[derive(Clone, Debug)]
pub(crate) struct Send<'a> {
    pub time_ms: i64,
    pub region: &'a str,
    pub group: &'a str,
    pub topic: &'a str,
    pub id: &'a str,
    pub tag: Option<&'a str>,
    pub keys: Option<&'a str>,
    pub broker: &'a str,
    pub body_bytes: usize,
    pub cost_ms: i64,
    pub half: bool,
    pub delayed: bool,
    pub offset_id: &'a str,
    pub success: bool,
}

/// A transaction was decided.
#[derive(Clone, Debug)]
pub(crate) struct Decision<'a> {
    pub time_ms: i64,
    pub group: &'a str,
    pub topic: &'a str,
    pub id: &'a str,
    pub tag: Option<&'a str>,
    pub keys: Option<&'a str>,
    pub broker: &'a str,
    pub transaction_id: &'a str,
    pub state: &'a str,
    pub from_check: bool,
}

/// What came of a delivery, under the numbers of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success = 0,
    TimedOut = 1,
    Panicked = 2,
    Failed = 4,
}

/// A delivery to a listener: `before` when it begins, `after` when it ended.
#[derive(Clone, Debug)]
pub(crate) struct Consumption<'a> {
    pub message: &'a Received,
    pub group: Cow<'a, str>,
    /// The same in both lines; 32 digits.
    pub request: &'a str,
}

impl Line {
    fn new(kind: &str, fields: &[&dyn Display], id: &str, keys: Option<&str>) -> Line {
        let mut text = kind.to_owned();
        for field in fields {
            text.push(FIELD_END);
            text.push_str(&field.to_string());
        }
        text.push(LINE_END);
        let own = keys.unwrap_or_default().split(properties::KEY_SEPARATOR);
        let keys = [id].into_iter().chain(own.filter(|key| !key.is_empty()));
        Line {
            text,
            keys: keys.map(str::to_owned).collect(),
        }
    }
}

impl Send<'_> {
    pub fn line(&self) -> Line {
        let kind = match (self.half, self.delayed) {
            (true, _) => Kind::Half,
            (false, true) => Kind::Delayed,
            (false, false) => Kind::Normal,
        };
        let fields: [&dyn Display; 13] = [
            &self.time_ms,
            &self.region,
            &self.group,
            &self.topic,
            &self.id,
            &self.tag.unwrap_or(ABSENT),
            &self.keys.unwrap_or(ABSENT),
            &self.broker,
            &self.body_bytes,
            &self.cost_ms,
            &(kind as i32),
            &self.offset_id,
            &self.success,
        ];
        Line::new("Pub", &fields, self.id, self.keys)
    }
}

impl Decision<'_> {
    pub fn line(&self) -> Line {
        let fields: [&dyn Display; 12] = [
            &self.time_ms,
            &REGION_DEFAULT,
            &self.group,
            &self.topic,
            &self.id,
            &self.tag.unwrap_or(ABSENT),
            &self.keys.unwrap_or(ABSENT),
            &self.broker,
            &(Kind::Commit as i32),
            &self.transaction_id,
            &self.state,
            &self.from_check,
        ];
        Line::new("EndTransaction", &fields, self.id, self.keys)
    }
}

impl Consumption<'_> {
    pub fn before(&self, time_ms: i64) -> Line {
        let keys = self.message.property(properties::KEYS);
        let fields: [&dyn Display; 7] = [
            &time_ms,
            &region_of(self.message.property(properties::MSG_REGION)),
            &self.group,
            &self.request,
            &self.message.id,
            &self.message.reconsumed,
            &keys.unwrap_or(ABSENT),
        ];
        Line::new("SubBefore", &fields, &self.message.id, keys)
    }

    pub fn after(&self, time_ms: i64, cost_ms: i64, outcome: Outcome) -> Line {
        let keys = self.message.property(properties::KEYS);
        let fields: [&dyn Display; 8] = [
            &self.request,
            &self.message.id,
            &cost_ms,
            &(outcome == Outcome::Success),
            &keys.unwrap_or(ABSENT),
            &(outcome as i32),
            &time_ms,
            &self.group,
        ];
        Line::new("SubAfter", &fields, &self.message.id, keys)
    }
}

pub(crate) fn region_of(told: Option<&str>) -> &str {
    told.filter(|region| !region.is_empty())
        .unwrap_or(REGION_DEFAULT)
}

/// A broker with `traceOn=false` wants nothing told of its messages.
pub(crate) fn wants_trace(told: Option<&str>) -> bool {
    told != Some("false")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_is_told_field_by_field() {
        let line = Send {
            time_ms: 1_700_000_000_000,
            region: REGION_DEFAULT,
            group: "g",
            topic: "t",
            id: "ID",
            tag: Some("a"),
            keys: Some("k1 k2"),
            broker: "127.0.0.1:10911",
            body_bytes: 5,
            cost_ms: 3,
            half: false,
            delayed: false,
            offset_id: "OFF",
            success: true,
        }
        .line();
        let expected = "Pub\u{1}1700000000000\u{1}DefaultRegion\u{1}g\u{1}t\u{1}ID\u{1}a\u{1}k1 k2\u{1}127.0.0.1:10911\u{1}\
                        5\u{1}3\u{1}0\u{1}OFF\u{1}true\u{2}";
        assert_eq!(line.text, expected);
        assert_eq!(line.keys, ["ID", "k1", "k2"]);
    }

    #[test]
    fn a_decision_names_its_state_and_whether_it_was_asked_for() {
        let line = Decision {
            time_ms: 7,
            group: "g",
            topic: "t",
            id: "ID",
            tag: None,
            keys: None,
            broker: "b:1",
            transaction_id: "T",
            state: "COMMIT_MESSAGE",
            from_check: true,
        }
        .line();
        assert!(
            line.text
                .ends_with("b:1\u{1}2\u{1}T\u{1}COMMIT_MESSAGE\u{1}true\u{2}")
        );
        assert_eq!(line.keys, ["ID"]);
    }
}
