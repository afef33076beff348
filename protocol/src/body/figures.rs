//! What operators' tools ask a broker for beside the plain tables: 303, 308, 315, 317, 321, 328, 345, 353, 907, and a
//! list of groups to be made at once (225).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::heartbeat::SubscriptionData;
use super::null_as_default;
use super::queue::MessageQueue;
use super::stats::ConsumeStats;
use super::subscription_group::SubscriptionGroupConfig;
use crate::json::{self, Dialect};

/// 315: one figure over three windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerStats {
    pub stats_day: StatsItem,
    pub stats_hour: StatsItem,
    pub stats_minute: StatsItem,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatsItem {
    /// The sum divided by how often it was added to.
    pub avgpt: f64,
    pub sum: i64,
    /// Per second.
    pub tps: f64,
}

/// 303: when a group will have caught up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeTimeSpans {
    #[serde(deserialize_with = "null_as_default")]
    pub consume_time_span_set: Vec<QueueTimeSpan>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueTimeSpan {
    pub consume_time_stamp: i64,
    /// How old the next message is.
    pub delay_time: i64,
    pub max_time_stamp: i64,
    pub message_queue: MessageQueue,
    pub min_time_stamp: i64,
}

/// 308: offsets by queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorrectionOffsets {
    pub correction_offsets: BTreeMap<i32, i64>,
}

impl CorrectionOffsets {
    /// The keys are numbers, which only fastjson writes and reads.
    pub fn to_json(&self) -> Vec<u8> {
        let offsets = self.correction_offsets.iter();
        let parts: Vec<String> = offsets.map(|(id, at)| format!("{id}:{at}")).collect();
        format!("{{\"correctionOffsets\":{{{}}}}}", parts.join(",")).into_bytes()
    }
}

/// 317: every group of a broker. Each entry is one group with its topics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsumeStatsList {
    pub broker_addr: String,
    pub groups: Vec<(String, Vec<ConsumeStats>)>,
    pub total_diff: i64,
    pub total_inflight_diff: i64,
}

impl ConsumeStatsList {
    /// By hand, as [`ConsumeStats`] is: its keys are objects.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = b"{\"brokerAddr\":".to_vec();
        out.extend(json::to_vec(&self.broker_addr, Dialect::Fastjson1));
        out.extend_from_slice(b",\"consumeStatsList\":[");
        for (number, (group, topics)) in self.groups.iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            out.push(b'{');
            out.extend(json::to_vec(group, Dialect::Fastjson1));
            out.extend_from_slice(b":[");
            for (number, topic) in topics.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                out.extend(topic.to_json());
            }
            out.extend_from_slice(b"]}");
        }
        let totals = format!(
            "],\"totalDiff\":{},\"totalInflightDiff\":{}}}",
            self.total_diff, self.total_inflight_diff
        );
        out.extend_from_slice(totals.as_bytes());
        out
    }
}

/// 321: entries of a queue's index.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeQueueEntries {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_data: Option<String>,
    pub max_queue_index: i64,
    pub min_queue_index: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub queue_data: Vec<ConsumeQueueEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeQueueEntry {
    /// Whether the asker's group would take it.
    pub eval: bool,
    pub physic_offset: i64,
    pub physic_size: i32,
    pub tags_code: i64,
}

/// 328: producers by group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProducerTable {
    #[serde(deserialize_with = "null_as_default")]
    pub data: BTreeMap<String, Vec<ProducerInfo>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerInfo {
    pub client_id: String,
    /// See [`crate::Language::name`].
    pub language: String,
    pub last_update_timestamp: i64,
    #[serde(rename = "remoteIP")]
    pub remote_ip: String,
    pub version: i32,
}

/// 345: what a live group subscribes to in a topic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupSubscription {
    pub group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
    pub topic: String,
}

/// 353: whether a group may read a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupForbidden {
    pub group: String,
    pub readable: bool,
    pub topic: String,
}

/// 907: the state of replication.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicationState {
    /// As a slave; all zero on a master.
    pub ha_client_runtime_info: ReplicationClient,
    #[serde(deserialize_with = "null_as_default")]
    pub ha_connection_info: Vec<ReplicationConnection>,
    pub in_sync_slave_nums: i32,
    pub master: bool,
    pub master_commit_log_max_offset: i64,
}

/// A slave, as its master sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicationConnection {
    pub addr: String,
    pub diff: i64,
    pub in_sync: bool,
    pub slave_ack_offset: i64,
    pub transfer_from_where: i64,
    pub transferred_byte_in_second: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicationClient {
    pub activated: bool,
    pub last_read_timestamp: i64,
    pub last_write_timestamp: i64,
    pub master_addr: String,
    pub master_flush_offset: i64,
    pub max_offset: i64,
    pub transferred_byte_in_second: i64,
}

/// 225.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupList {
    #[serde(deserialize_with = "null_as_default")]
    pub group_config_list: Vec<SubscriptionGroupConfig>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;
    use crate::body::stats::GroupOffset;
    use proptest::prelude::*;

    #[test]
    fn every_groups_state_has_the_form_of_fastjson() {
        let queue = MessageQueue {
            broker_name: "b".to_owned(),
            queue_id: 1,
            topic: "t".to_owned(),
        };
        let stats = ConsumeStats {
            consume_tps: 1.5,
            offsets: BTreeMap::from([(queue, GroupOffset::default())]),
        };
        let list = ConsumeStatsList {
            broker_addr: "h:1".to_owned(),
            groups: vec![("g".to_owned(), vec![stats]), ("h".to_owned(), vec![])],
            total_diff: 7,
            total_inflight_diff: 3,
        };
        let text = String::from_utf8(list.to_json()).expect("text");
        assert_eq!(
            text,
            r#"{"brokerAddr":"h:1","consumeStatsList":[{"g":[{"consumeTps":1.5,"offsetTable":{{"brokerName":"b","queueId":1,"topic":"t"}:{"brokerOffset":0,"consumerOffset":0,"lastTimestamp":0,"pullOffset":0}}}]},{"h":[]}],"totalDiff":7,"totalInflightDiff":3}"#
        );
    }

    #[test]
    fn correction_offsets_are_keyed_by_numbers() {
        let offsets = CorrectionOffsets {
            correction_offsets: BTreeMap::from([(0, 5), (3, i64::MAX)]),
        };
        assert_eq!(
            String::from_utf8(offsets.to_json()).expect("text"),
            r#"{"correctionOffsets":{0:5,3:9223372036854775807}}"#
        );
    }

    proptest! {
        #[test]
        fn figures_survive_the_wire(
            sum in any::<i64>(), tps in any::<u32>(), avgpt in any::<u32>(),
            name in "\\PC{0,20}", time in any::<i64>(), flag in any::<bool>(),
        ) {
            let (avgpt, tps) = (f64::from(avgpt), f64::from(tps));
            let item = StatsItem { avgpt, sum, tps };
            let stats = BrokerStats { stats_minute: item, ..BrokerStats::default() };
            prop_assert_eq!(BrokerStats::from_json(&stats.to_json(Dialect::Fastjson1)).expect("ours"), stats);

            let queue = MessageQueue { broker_name: name.clone(), queue_id: 1, topic: name.clone() };
            let span = QueueTimeSpan { consume_time_stamp: time, message_queue: queue, ..QueueTimeSpan::default() };
            let spans = ConsumeTimeSpans { consume_time_span_set: vec![span] };
            prop_assert_eq!(ConsumeTimeSpans::from_json(&spans.to_json(Dialect::Fastjson1)).expect("ours"), spans);

            let producer = ProducerInfo { client_id: name.clone(), last_update_timestamp: time, ..ProducerInfo::default() };
            let table = ProducerTable { data: BTreeMap::from([(name.clone(), vec![producer])]) };
            prop_assert_eq!(ProducerTable::from_json(&table.to_json(Dialect::Fastjson1)).expect("ours"), table);

            let forbidden = GroupForbidden { group: name.clone(), readable: flag, topic: name };
            prop_assert_eq!(GroupForbidden::from_json(&forbidden.to_json(Dialect::Strict)).expect("ours"), forbidden);
        }
    }
}
