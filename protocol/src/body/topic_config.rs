//! Topics as a broker keeps and announces them: 21, 103, 217, `topics.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::data_version::DataVersion;
use super::null_as_default;
use crate::permission;

/// Free settings of a topic or group (5.x): `cleanup.policy`, `message.type`, ...
pub type Attributes = BTreeMap<String, String>;

/// One topic on one broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfig {
    #[serde(deserialize_with = "null_as_default")]
    pub attributes: Attributes,
    pub order: bool,
    pub perm: i32,
    pub read_queue_nums: i32,
    #[serde(deserialize_with = "null_as_default")]
    pub topic_filter_type: TopicFilterType,
    pub topic_name: String,
    pub topic_sys_flag: i32,
    pub write_queue_nums: i32,
}

/// What a topic has when nobody says how many queues.
pub const QUEUES_DEFAULT: i32 = 16;

impl Default for TopicConfig {
    fn default() -> TopicConfig {
        TopicConfig {
            attributes: Attributes::new(),
            order: false,
            perm: permission::READ_WRITE,
            read_queue_nums: QUEUES_DEFAULT,
            topic_filter_type: TopicFilterType::SingleTag,
            topic_name: String::new(),
            topic_sys_flag: 0,
            write_queue_nums: QUEUES_DEFAULT,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TopicFilterType {
    #[default]
    #[serde(rename = "SINGLE_TAG")]
    SingleTag,
    #[serde(rename = "MULTI_TAG")]
    MultiTag,
}

impl TopicFilterType {
    pub fn name(self) -> &'static str {
        match self {
            TopicFilterType::SingleTag => "SINGLE_TAG",
            TopicFilterType::MultiTag => "MULTI_TAG",
        }
    }

    /// The filter type under the name a request gives; single for everything unknown.
    pub fn from_name(name: &str) -> TopicFilterType {
        if name == "MULTI_TAG" {
            TopicFilterType::MultiTag
        } else {
            TopicFilterType::SingleTag
        }
    }
}

/// 21 and `topics.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigTable {
    #[serde(deserialize_with = "null_as_default")]
    pub data_version: DataVersion,
    #[serde(deserialize_with = "null_as_default")]
    pub topic_config_table: BTreeMap<String, TopicConfig>,
}

/// RocketMQ's name for [`TopicConfigTable`].
pub type TopicConfigSerializeWrapper = TopicConfigTable;

/// The topics within a registration. The mapping maps belong to static topics (5.x).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigAndMapping {
    #[serde(deserialize_with = "null_as_default")]
    pub data_version: DataVersion,
    #[serde(deserialize_with = "null_as_default")]
    pub mapping_data_version: DataVersion,
    #[serde(deserialize_with = "null_as_default")]
    pub topic_config_table: BTreeMap<String, TopicConfig>,
    #[serde(deserialize_with = "null_as_default")]
    pub topic_queue_mapping_detail_map: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "null_as_default")]
    pub topic_queue_mapping_info_map: BTreeMap<String, TopicQueueMappingInfo>,
}

/// Where the queues of a static topic lie.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicQueueMappingInfo {
    pub bname: String,
    #[serde(deserialize_with = "null_as_default")]
    pub curr_id_map: BTreeMap<i32, i32>,
    pub dirty: bool,
    pub epoch: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    pub topic: String,
    pub total_queues: i32,
}

/// 18 (5.x).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateTopicList {
    #[serde(deserialize_with = "null_as_default")]
    pub topic_config_list: Vec<TopicConfig>,
}
