//! Static topics (5.x): a fixed number of queues, each mapped to a queue of some broker: 513, the answer to 351,
//! `topicQueueMapping.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::data_version::DataVersion;
use super::null_as_default;
use super::topic_config::TopicConfig;

/// One broker's part of a static topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MappingDetail {
    pub bname: String,
    /// Queue of the topic to queue of this broker, for those it holds now.
    #[serde(deserialize_with = "null_as_default")]
    pub curr_id_map: BTreeMap<i32, i32>,
    pub dirty: bool,
    /// Milliseconds; a mapping with a later one replaces this.
    pub epoch: i64,
    /// Every place a queue of the topic has had, oldest first.
    #[serde(deserialize_with = "null_as_default")]
    pub hosted_queues: BTreeMap<i32, Vec<MappingItem>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    pub topic: String,
    pub total_queues: i32,
}

/// A stretch of a static queue, in a queue of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MappingItem {
    pub bname: String,
    pub end_offset: i64,
    #[serde(rename = "gen")]
    pub generation: i32,
    pub logic_offset: i64,
    pub queue_id: i32,
    pub start_offset: i64,
    pub time_of_end: i64,
    pub time_of_start: i64,
}

impl Default for MappingItem {
    fn default() -> MappingItem {
        MappingItem {
            bname: String::new(),
            end_offset: -1,
            generation: 0,
            logic_offset: 0,
            queue_id: 0,
            start_offset: 0,
            time_of_end: -1,
            time_of_start: -1,
        }
    }
}

/// 351: a topic, and its mapping if it is a static one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigAndMapping {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping_detail: Option<MappingDetail>,
    #[serde(flatten)]
    pub config: TopicConfig,
}

/// `topicQueueMapping.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MappingTable {
    #[serde(deserialize_with = "null_as_default")]
    pub data_version: DataVersion,
    #[serde(deserialize_with = "null_as_default")]
    pub topic_queue_mapping_info_map: BTreeMap<String, MappingDetail>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;
    use crate::json::Dialect;
    use proptest::prelude::*;

    #[test]
    fn a_mapping_of_the_command_line_is_read() {
        let text = br#"{"bname":"broker-a","dirty":false,"epoch":1700000000000,"hostedQueues":{0:[{"bname":"broker-a","endOffset":-1,"gen":0,"logicOffset":0,"queueId":0,"startOffset":0,"timeOfEnd":-1,"timeOfStart":-1}]},"scope":"__global__","topic":"t","totalQueues":1}"#;
        let detail = MappingDetail::from_json(text).expect("fastjson's");
        assert_eq!(detail.total_queues, 1);
        assert_eq!(
            detail.hosted_queues[&0],
            [MappingItem {
                bname: "broker-a".to_owned(),
                ..MappingItem::default()
            }]
        );
    }

    proptest! {
        #[test]
        fn mappings_survive_the_disk(
            topic in "[a-z]{1,9}", epoch in any::<i64>(), queues in 0i32..9, offset in any::<i64>(),
        ) {
            let item = |queue_id| MappingItem { logic_offset: offset, queue_id, ..MappingItem::default() };
            let detail = MappingDetail {
                epoch,
                hosted_queues: (0..queues).map(|id| (id, vec![item(id)])).collect(),
                topic: topic.clone(),
                total_queues: queues,
                ..MappingDetail::default()
            };
            let table = MappingTable {
                topic_queue_mapping_info_map: BTreeMap::from([(topic, detail)]),
                ..MappingTable::default()
            };
            for dialect in [Dialect::Strict, Dialect::Fastjson1] {
                prop_assert_eq!(MappingTable::from_json(&table.to_json(dialect)).expect("ours"), table.clone());
            }
        }
    }
}
