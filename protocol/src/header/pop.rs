//! POP: codes 200050 to 200055, and the answers that carry more than a code.

use std::borrow::Cow;

use super::header;

header! {
    /// 200050: messages for this group, hidden from its other members for a while.
    pub struct PopMessage<'a> {
        consumer_group: Cow<'a, str> = "consumerGroup",
        topic: Cow<'a, str> = "topic",
        /// Negative: all queues.
        queue_id: i32 = "queueId",
        messages_max: i32 = "maxMsgNums",
        invisible_ms: i64 = "invisibleTime",
        /// How long the broker may hold the request when nothing is there.
        poll_ms: i64 = "pollTime",
        /// By the client's clock; 0 or absent: when the broker read it.
        born_ms: Option<i64> = "bornTime",
        /// Where a group without an offset begins: 0 at the start, 1 at the end.
        init_mode: i32 = "initMode",
        expression_type: Option<Cow<'a, str>> = "expType",
        expression: Option<Cow<'a, str>> = "exp",
        order: Option<bool> = "order",
        /// The same in a repetition of a request whose answer was lost.
        attempt_id: Option<Cow<'a, str>> = "attemptId",
    }
}

header! {
    /// 200051: done with one message.
    pub struct AckMessage<'a> {
        consumer_group: Cow<'a, str> = "consumerGroup",
        topic: Cow<'a, str> = "topic",
        queue_id: i32 = "queueId",
        /// The handle, see [`crate::pop::Handle`].
        extra_info: Cow<'a, str> = "extraInfo",
        offset: i64 = "offset",
    }
}

header! {
    /// 200052: what a pop would bring, left where it is.
    pub struct PeekMessage<'a> {
        consumer_group: Cow<'a, str> = "consumerGroup",
        topic: Cow<'a, str> = "topic",
        queue_id: i32 = "queueId",
        messages_max: i32 = "maxMsgNums",
    }
}

header! {
    /// 200053: hide a message for this long from now on; how a message is given back, too.
    pub struct ChangeInvisible<'a> {
        consumer_group: Cow<'a, str> = "consumerGroup",
        topic: Cow<'a, str> = "topic",
        queue_id: i32 = "queueId",
        extra_info: Cow<'a, str> = "extraInfo",
        offset: i64 = "offset",
        invisible_ms: i64 = "invisibleTime",
    }
}

header! {
    /// 200054: whether a pop would bring something, as soon as it would.
    pub struct Notification<'a> {
        consumer_group: Cow<'a, str> = "consumerGroup",
        topic: Cow<'a, str> = "topic",
        queue_id: i32 = "queueId",
        poll_ms: i64 = "pollTime",
        born_ms: Option<i64> = "bornTime",
        order: Option<bool> = "order",
        attempt_id: Option<Cow<'a, str>> = "attemptId",
    }
}

header! {
    /// 200055: how many pops are held.
    pub struct PollingInfo<'a> {
        consumer_group: Cow<'a, str> = "consumerGroup",
        topic: Cow<'a, str> = "topic",
        queue_id: i32 = "queueId",
    }
}
