//! What operators ask: tables in pages (21 and 201 as 5.x asks them; older askers send no fields and get all), figures (315),
//! queues and groups in detail (303, 308, 321, 345, 353).

use std::borrow::Cow;

use super::header;

header! {
    /// 21 in pages (5.x). The answer has `totalTopicNum`.
    pub struct TopicPage<'a> {
        start: Option<i32> = "topicSeq",
        topics_max: Option<i32> = "maxTopicNum",
        /// The version the asker's earlier pages came from, as JSON.
        data_version: Option<Cow<'a, str>> = "dataVersion",
    }
}

header! {
    /// 201 in pages (5.x). The answer has `totalGroupNum`.
    pub struct GroupPage<'a> {
        start: Option<i32> = "groupSeq",
        groups_max: Option<i32> = "maxGroupNum",
        data_version: Option<Cow<'a, str>> = "dataVersion",
    }
}

header! {
    /// 315: a figure by its name.
    pub struct ViewStats<'a> {
        name: Cow<'a, str> = "statsName",
        key: Cow<'a, str> = "statsKey",
    }
}

header! {
    /// 303, 345: a group in a topic.
    pub struct GroupInTopic<'a> {
        topic: Cow<'a, str> = "topic",
        group: Cow<'a, str> = "group",
    }
}

header! {
    /// 353: as above, and whether the group may read; nothing: only asked.
    pub struct GroupReads<'a> {
        group: Cow<'a, str> = "group",
        topic: Cow<'a, str> = "topic",
        readable: Option<bool> = "readable",
    }
}

header! {
    /// 321: entries of a queue from an offset on.
    pub struct ConsumeQueueQuery<'a> {
        topic: Cow<'a, str> = "topic",
        queue_id: i32 = "queueId",
        from: i64 = "index",
        count: i32 = "count",
        group: Option<Cow<'a, str>> = "consumerGroup",
    }
}

header! {
    /// 308: where groups are in a topic.
    pub struct CorrectionQuery<'a> {
        topic: Cow<'a, str> = "topic",
        compare_group: Cow<'a, str> = "compareGroup",
        /// Groups that do not count, separated by `,`.
        filter_groups: Option<Cow<'a, str>> = "filterGroups",
    }
}
