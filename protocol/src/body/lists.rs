//! Plain lists: topics, groups, the members of a group.

use serde::{Deserialize, Serialize};

use super::null_as_default;

/// 206, 224, 304, 305.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicList {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_addr: Option<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub topic_list: Vec<String>,
}

/// 300.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupList {
    #[serde(deserialize_with = "null_as_default")]
    pub group_list: Vec<String>,
}

/// 38: the client ids of a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerList {
    #[serde(deserialize_with = "null_as_default")]
    pub consumer_id_list: Vec<String>,
}
