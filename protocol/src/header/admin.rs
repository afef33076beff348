//! Paged tables: codes 21 and 201 as 5.x asks them. Older askers send no fields and get all.

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
