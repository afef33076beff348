//! Single messages: codes 12, 33, 36, and transactions 37, 39, 323.

use std::borrow::Cow;

use super::header;

header! {
    /// 33: the message at a log offset.
    pub struct ViewMessage<'a> {
        topic: Option<Cow<'a, str>> = "topic",
        log_offset: i64 = "offset",
    }
}

header! {
    /// 12: messages by key, or by unique key where that flag is set.
    pub struct QueryMessage<'a> {
        topic: Cow<'a, str> = "topic",
        key: Cow<'a, str> = "key",
        messages_max: i32 = "maxNum",
        begin_ms: i64 = "beginTimestamp",
        end_ms: i64 = "endTimestamp",
        unique_key: Option<bool> = "_UNIQUE_KEY_QUERY",
        /// 5.4: "K", "U", or "T" for tags.
        index_type: Option<Cow<'a, str>> = "indexType",
    }
}

header! {
    /// 36: a consumer failed on a message and gives it back.
    pub struct SendBack<'a> {
        log_offset: i64 = "offset",
        group: Cow<'a, str> = "group",
        /// 0: the broker's choice; negative: to the dead letters.
        delay_level: i32 = "delayLevel",
        origin_message_id: Option<Cow<'a, str>> = "originMsgId",
        origin_topic: Option<Cow<'a, str>> = "originTopic",
        unit_mode: Option<bool> = "unitMode",
        max_reconsume_times: Option<i32> = "maxReconsumeTimes",
    }
}

header! {
    /// 370: a delayed message is withdrawn by the handle that its sender got.
    pub struct Recall<'a> {
        producer_group: Option<Cow<'a, str>> = "producerGroup",
        topic: Cow<'a, str> = "topic",
        recall_handle: Cow<'a, str> = "recallHandle",
    }
}

header! {
    /// 37: a producer's decision on a half message.
    pub struct EndTransaction<'a> {
        topic: Option<Cow<'a, str>> = "topic",
        producer_group: Cow<'a, str> = "producerGroup",
        half_queue_offset: i64 = "tranStateTableOffset",
        log_offset: i64 = "commitLogOffset",
        /// Transaction bits of [`crate::sysflag`].
        decision: i32 = "commitOrRollback",
        from_check: Option<bool> = "fromTransactionCheck",
        message_id: Cow<'a, str> = "msgId",
        transaction_id: Option<Cow<'a, str>> = "transactionId",
    }
}

header! {
    /// 39: a broker asks a producer back; the body is the half message's record.
    pub struct CheckTransaction<'a> {
        topic: Option<Cow<'a, str>> = "topic",
        half_queue_offset: i64 = "tranStateTableOffset",
        log_offset: i64 = "commitLogOffset",
        message_id: Option<Cow<'a, str>> = "msgId",
        transaction_id: Option<Cow<'a, str>> = "transactionId",
        offset_message_id: Option<Cow<'a, str>> = "offsetMsgId",
        /// 5.x: comes back with the decision.
        broker_name: Option<Cow<'a, str>> = "bname",
    }
}

header! {
    /// 323: an operator wants a transaction asked about again that was given up.
    pub struct ResumeCheck<'a> {
        topic: Option<Cow<'a, str>> = "topic",
        /// By its place.
        message_id: Cow<'a, str> = "msgId",
    }
}
