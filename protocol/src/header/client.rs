//! Clients coming and going: codes 34, 35, 38, 40. The heartbeat itself is a body.

use std::borrow::Cow;

use super::header;

header! {
    /// 35: a client leaves its groups.
    pub struct Unregister<'a> {
        client_id: Cow<'a, str> = "clientID",
        producer_group: Option<Cow<'a, str>> = "producerGroup",
        consumer_group: Option<Cow<'a, str>> = "consumerGroup",
    }
}

header! {
    /// 38 (who is in the group), 40 (its members changed, broker to client, one-way),
    /// 203 (its connections).
    pub struct ConsumerGroup<'a> {
        consumer_group: Cow<'a, str> = "consumerGroup",
    }
}

header! {
    /// 307 (how are you), 309 (consume this message now): handed on to a consumer.
    pub struct AskConsumer<'a> {
        group: Cow<'a, str> = "consumerGroup",
        client_id: Option<Cow<'a, str>> = "clientId",
        /// 309, as are the next ones.
        message_id: Option<Cow<'a, str>> = "msgId",
        topic: Option<Cow<'a, str>> = "topic",
    }
}

header! {
    /// 223: where the members of a group stand in a topic, by their own account.
    pub struct AskStatus<'a> {
        group: Cow<'a, str> = "group",
        topic: Cow<'a, str> = "topic",
        /// Only this one.
        client_id: Option<Cow<'a, str>> = "clientAddr",
    }
}

header! {
    /// 204: the connections of a producer group.
    pub struct ProducerGroup<'a> {
        producer_group: Cow<'a, str> = "producerGroup",
    }
}

/// Names of the answer to a heartbeat with [`crate::body::heartbeat::HeartbeatData`] (5.x).
pub mod heartbeat_answer {
    /// "true" when the broker understands the short form.
    pub const SUPPORTS_V2: &str = "IS_SUPPORT_HEART_BEAT_V2";
    /// "true" when the subscriptions differ from what the broker has.
    pub const SUB_CHANGED: &str = "IS_SUB_CHANGE";
}
