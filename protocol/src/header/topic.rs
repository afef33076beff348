//! Topics and groups on a broker: codes 17, 202, 207, 208, 215, 351, 352.

use std::borrow::Cow;

use super::header;

header! {
    /// 17: create a topic, or change it.
    pub struct CreateTopic<'a> {
        topic: Cow<'a, str> = "topic",
        default_topic: Option<Cow<'a, str>> = "defaultTopic",
        read_queues: i32 = "readQueueNums",
        write_queues: i32 = "writeQueueNums",
        perm: i32 = "perm",
        /// `SINGLE_TAG` or `MULTI_TAG`.
        filter_type: Option<Cow<'a, str>> = "topicFilterType",
        sys_flag: Option<i32> = "topicSysFlag",
        order: Option<bool> = "order",
        /// `+key=value,-key` (5.x), see [`crate::body::topic_config::Attributes`].
        attributes: Option<Cow<'a, str>> = "attributes",
        force: Option<bool> = "force",
    }
}

header! {
    /// 215 (delete), 202 (statistics), 351 (settings): a topic by its name.
    pub struct Topic<'a> {
        topic: Cow<'a, str> = "topic",
    }
}

header! {
    /// 207: delete a consumer group, with its offsets if asked so.
    pub struct DeleteGroup<'a> {
        group: Cow<'a, str> = "groupName",
        clean_offsets: Option<bool> = "cleanOffset",
    }
}

header! {
    /// 352: the settings of a group.
    pub struct Group<'a> {
        group: Cow<'a, str> = "group",
    }
}

header! {
    /// 208: how far a group is, in one topic or (empty) in all.
    pub struct ConsumeStatsQuery<'a> {
        consumer_group: Cow<'a, str> = "consumerGroup",
        topic: Option<Cow<'a, str>> = "topic",
        /// Several, separated by `;` (5.x).
        topic_list: Option<Cow<'a, str>> = "topicList",
    }
}
