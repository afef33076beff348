//! Tables of offsets: 43 and `consumerOffset.json`; 45 and `delayOffset.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::data_version::DataVersion;
use super::null_as_default;

/// How far every group has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerOffsetTable {
    /// Absent in files of 4.9.
    #[serde(deserialize_with = "null_as_default")]
    pub data_version: DataVersion,
    /// By `topic@group`, then by queue.
    #[serde(deserialize_with = "null_as_default")]
    pub offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// RocketMQ's name for [`ConsumerOffsetTable`].
pub type ConsumerOffsetSerializeWrapper = ConsumerOffsetTable;

const TOPIC_GROUP_SEPARATOR: char = '@';

/// The key of a group's offsets in a topic.
pub fn offset_key(topic: &str, group: &str) -> String {
    format!("{topic}{TOPIC_GROUP_SEPARATOR}{group}")
}

/// Topic and group of a key; `None` when it is none.
pub fn split_offset_key(key: &str) -> Option<(&str, &str)> {
    let (topic, group) = key.split_once(TOPIC_GROUP_SEPARATOR)?;
    // Neither can hold the separator.
    (!group.contains(TOPIC_GROUP_SEPARATOR)).then_some((topic, group))
}

/// How far each delay level has been delivered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DelayOffsetTable {
    #[serde(deserialize_with = "null_as_default")]
    pub data_version: DataVersion,
    /// By level, 1 to 18.
    #[serde(deserialize_with = "null_as_default")]
    pub offset_table: BTreeMap<i32, i64>,
}
