//! Offsets: codes 14, 15, 29 to 32.

use std::borrow::Cow;

use super::header;
use crate::command::Command;
use crate::fields::FieldError;

header! {
    /// 14: where a group stands in a queue. The answer has `offset`, or is QUERY_NOT_FOUND.
    pub struct QueryOffset<'a> {
        consumer_group: Cow<'a, str> = "consumerGroup",
        topic: Cow<'a, str> = "topic",
        queue_id: i32 = "queueId",
        /// Answer 0 where the broker would guess (5.x); true when absent.
        set_zero_if_not_found: Option<bool> = "setZeroIfNotFound",
    }
}

header! {
    /// 15: a group has come so far; mostly sent one-way.
    pub struct UpdateOffset<'a> {
        consumer_group: Cow<'a, str> = "consumerGroup",
        topic: Cow<'a, str> = "topic",
        queue_id: i32 = "queueId",
        commit_offset: i64 = "commitOffset",
    }
}

header! {
    /// 30 to 32: the end, the start, or the oldest store time of a queue.
    /// The answer has `offset` (30, 31) or `timestamp` (32).
    pub struct QueueQuery<'a> {
        topic: Cow<'a, str> = "topic",
        queue_id: i32 = "queueId",
    }
}

header! {
    /// 222: where a group is to go on, at a time or at an offset. The answer is
    /// [`crate::body::consumer::ResetOffsets`].
    pub struct ResetOffset<'a> {
        group: Cow<'a, str> = "group",
        topic: Cow<'a, str> = "topic",
        /// Negative: at the end.
        time_ms: i64 = "timestamp",
        /// Also where that skips messages; true when absent.
        force: Option<bool> = "isForce",
        /// One queue of the topic; all of them when absent or negative (5.x).
        queue_id: Option<i32> = "queueId",
        /// In that queue, instead of the time (5.x).
        offset: Option<i64> = "offset",
    }
}

header! {
    /// 314: one group takes over where another stands.
    pub struct CloneOffsets<'a> {
        source_group: Cow<'a, str> = "srcGroup",
        destination_group: Cow<'a, str> = "destGroup",
        /// All topics when absent or empty.
        topic: Option<Cow<'a, str>> = "topic",
        /// Also topics the group does not read at present.
        offline: Option<bool> = "offline",
    }
}

/// Which of several messages of one time is meant (code 29, 5.x).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Boundary {
    #[default]
    Lower,
    Upper,
}

/// 29: the first message stored at or after a time. The answer has `offset`.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchOffset<'a> {
    pub topic: Cow<'a, str>,
    pub queue_id: i32,
    pub time_ms: i64,
    pub boundary: Boundary,
}

impl<'a> SearchOffset<'a> {
    pub fn from(command: &Command<'a>) -> Result<SearchOffset<'a>, FieldError> {
        let fields = &command.fields;
        let upper = fields
            .get("boundaryType")
            .is_some_and(|text| text.raw().eq_ignore_ascii_case(b"upper"));
        Ok(SearchOffset {
            topic: fields.required_string("topic")?,
            queue_id: fields.required_i32("queueId")?,
            time_ms: fields.required_i64("timestamp")?,
            boundary: if upper {
                Boundary::Upper
            } else {
                Boundary::Lower
            },
        })
    }
}
