//! What a broker asks of a consumer and gets from it: 220 (go elsewhere), 221 (how far are you), 307 (how are you), 309
//! (consume this).
//!
//! Several tables have queues as keys, which fastjson writes as objects; see [`super::stats`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::heartbeat::SubscriptionData;
use super::null_as_default;
use super::queue::MessageQueue;
use super::stats::{append_table, parse_keys};
use crate::json::{self, Dialect};

/// 220, and 222's answer: the offsets to go on at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResetOffsets {
    pub offsets: BTreeMap<MessageQueue, i64>,
}

impl ResetOffsets {
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = b"{".to_vec();
        append_table(&mut out, "offsetTable", &self.offsets);
        out.push(b'}');
        out
    }

    /// As clients in C++ want it: a list, for their parser knows no objects as keys.
    pub fn to_json_list(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Entry<'a> {
            broker_name: &'a str,
            offset: i64,
            queue_id: i32,
            topic: &'a str,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct List<'a> {
            offset_table: Vec<Entry<'a>>,
        }
        let entries = self.offsets.iter().map(|(queue, offset)| Entry {
            broker_name: &queue.broker_name,
            offset: *offset,
            queue_id: queue.queue_id,
            topic: &queue.topic,
        });
        let list = List {
            offset_table: entries.collect(),
        };
        json::to_vec(&list, Dialect::Strict)
    }

    pub fn from_json(bytes: &[u8]) -> Result<ResetOffsets, json::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Raw {
            #[serde(default, deserialize_with = "null_as_default")]
            offset_table: BTreeMap<String, i64>,
        }
        let raw: Raw = json::from_slice(bytes)?;
        Ok(ResetOffsets {
            offsets: parse_keys(raw.offset_table)?,
        })
    }
}

/// 221: where a consumer is; 223: where each consumer of a group is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsumerStatus {
    /// By client id (223).
    pub consumers: BTreeMap<String, BTreeMap<MessageQueue, i64>>,
    /// 221.
    pub queues: BTreeMap<MessageQueue, i64>,
}

impl ConsumerStatus {
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = b"{\"consumerTable\":{".to_vec();
        for (number, (client, queues)) in self.consumers.iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            append_table(&mut out, client, queues);
        }
        out.extend_from_slice(b"},");
        append_table(&mut out, "messageQueueTable", &self.queues);
        out.push(b'}');
        out
    }

    pub fn from_json(bytes: &[u8]) -> Result<ConsumerStatus, json::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Raw {
            #[serde(default, deserialize_with = "null_as_default")]
            consumer_table: BTreeMap<String, BTreeMap<String, i64>>,
            #[serde(default, deserialize_with = "null_as_default")]
            message_queue_table: BTreeMap<String, i64>,
        }
        let raw: Raw = json::from_slice(bytes)?;
        let consumers = raw.consumer_table.into_iter();
        Ok(ConsumerStatus {
            consumers: consumers
                .map(|(client, queues)| Ok((client, parse_keys(queues)?)))
                .collect::<Result<_, json::Error>>()?,
            queues: parse_keys(raw.message_queue_table)?,
        })
    }
}

/// 307.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunningInfo {
    /// What the consumer's threads are at, if that was asked for.
    pub jstack: Option<String>,
    pub queues: BTreeMap<MessageQueue, ProcessQueueInfo>,
    pub pop_queues: BTreeMap<MessageQueue, PopProcessQueueInfo>,
    /// Settings, and what the `PROP_` names say.
    pub properties: BTreeMap<String, String>,
    pub statuses: BTreeMap<String, ConsumeStatus>,
    pub subscriptions: Vec<SubscriptionData>,
    pub user_info: BTreeMap<String, String>,
}

/// Names of [`RunningInfo::properties`].
pub mod property {
    pub const NAME_SERVERS: &str = "PROP_NAMESERVER_ADDR";
    pub const THREADS: &str = "PROP_THREADPOOL_CORE_SIZE";
    pub const ORDERLY: &str = "PROP_CONSUMEORDERLY";
    pub const TYPE: &str = "PROP_CONSUME_TYPE";
    pub const VERSION: &str = "PROP_CLIENT_VERSION";
    pub const STARTED_MS: &str = "PROP_CONSUMER_START_TIMESTAMP";
}

/// A queue that a consumer reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProcessQueueInfo {
    pub cached_msg_count: i32,
    pub cached_msg_max_offset: i64,
    pub cached_msg_min_offset: i64,
    #[serde(rename = "cachedMsgSizeInMiB")]
    pub cached_msg_size_in_mib: i32,
    pub commit_offset: i64,
    /// RocketMQ's spelling.
    pub droped: bool,
    pub last_consume_timestamp: i64,
    pub last_lock_timestamp: i64,
    pub last_pull_timestamp: i64,
    pub locked: bool,
    pub transaction_msg_count: i32,
    pub transaction_msg_max_offset: i64,
    pub transaction_msg_min_offset: i64,
    pub try_unlock_times: i64,
}

/// A queue that a consumer pops from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PopProcessQueueInfo {
    pub droped: bool,
    pub last_pop_timestamp: i64,
    pub wait_ack_count: i32,
}

/// How fast a topic is consumed; times in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumeStatus {
    #[serde(rename = "consumeFailedMsgs")]
    pub failed_messages: i64,
    #[serde(rename = "consumeFailedTPS")]
    pub failed_tps: f64,
    #[serde(rename = "consumeOKTPS")]
    pub ok_tps: f64,
    #[serde(rename = "consumeRT")]
    pub consume_ms: f64,
    #[serde(rename = "pullRT")]
    pub pull_ms: f64,
    #[serde(rename = "pullTPS")]
    pub pull_tps: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct RawRunningInfo {
    jstack: Option<String>,
    #[serde(deserialize_with = "null_as_default")]
    mq_pop_table: BTreeMap<String, PopProcessQueueInfo>,
    #[serde(deserialize_with = "null_as_default")]
    mq_table: BTreeMap<String, ProcessQueueInfo>,
    /// Java writes some values that are not strings.
    #[serde(deserialize_with = "null_as_default")]
    properties: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "null_as_default")]
    status_table: BTreeMap<String, ConsumeStatus>,
    #[serde(deserialize_with = "null_as_default")]
    subscription_set: Vec<SubscriptionData>,
    #[serde(deserialize_with = "null_as_default")]
    user_consumer_info: BTreeMap<String, String>,
}

impl RunningInfo {
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = b"{".to_vec();
        let mut part = |name: &str, value: Vec<u8>| {
            out.extend_from_slice(format!("\"{name}\":").as_bytes());
            out.extend_from_slice(&value);
            out.push(b',');
        };
        if let Some(jstack) = &self.jstack {
            part("jstack", json::to_vec(jstack, Dialect::Fastjson1));
        }
        part(
            "properties",
            json::to_vec(&self.properties, Dialect::Fastjson1),
        );
        part(
            "statusTable",
            json::to_vec(&self.statuses, Dialect::Fastjson1),
        );
        part(
            "subscriptionSet",
            json::to_vec(&self.subscriptions, Dialect::Fastjson1),
        );
        part(
            "userConsumerInfo",
            json::to_vec(&self.user_info, Dialect::Fastjson1),
        );
        append_table(&mut out, "mqPopTable", &self.pop_queues);
        out.push(b',');
        append_table(&mut out, "mqTable", &self.queues);
        out.push(b'}');
        out
    }

    pub fn from_json(bytes: &[u8]) -> Result<RunningInfo, json::Error> {
        let raw: RawRunningInfo = json::from_slice(bytes)?;
        let text = |(name, value): (String, serde_json::Value)| match value {
            serde_json::Value::String(text) => (name, text),
            other => (name, other.to_string()),
        };
        Ok(RunningInfo {
            jstack: raw.jstack,
            queues: parse_keys(raw.mq_table)?,
            pop_queues: parse_keys(raw.mq_pop_table)?,
            properties: raw.properties.into_iter().map(text).collect(),
            statuses: raw.status_table,
            subscriptions: raw.subscription_set,
            user_info: raw.user_consumer_info,
        })
    }
}

/// 309: what became of a message that a consumer was made to consume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeDirectlyResult {
    pub auto_commit: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub consume_result: ConsumeResult,
    pub order: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// Milliseconds.
    pub spent_time_mills: i64,
}

impl Default for ConsumeDirectlyResult {
    fn default() -> ConsumeDirectlyResult {
        ConsumeDirectlyResult {
            auto_commit: true,
            consume_result: ConsumeResult::default(),
            order: false,
            remark: None,
            spent_time_mills: 0,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConsumeResult {
    #[serde(rename = "CR_SUCCESS")]
    Success,
    #[serde(rename = "CR_LATER")]
    Later,
    #[serde(rename = "CR_ROLLBACK")]
    Rollback,
    #[serde(rename = "CR_COMMIT")]
    Commit,
    #[serde(rename = "CR_THROW_EXCEPTION")]
    ThrowException,
    #[default]
    #[serde(rename = "CR_RETURN_NULL")]
    ReturnNull,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn queue(queue_id: i32) -> MessageQueue {
        MessageQueue {
            broker_name: "b\"\\ü".into(),
            queue_id,
            topic: "t".into(),
        }
    }

    #[test]
    fn javas_running_info_is_read() {
        let text = br#"{"jstack":"x","mqPopTable":{},"mqTable":{{"brokerName":"b","queueId":1,"topic":"t"}:{"cachedMsgCount":3,
            "commitOffset":7,"droped":false,"locked":true}},"properties":{"PROP_CONSUME_TYPE":"CONSUME_PASSIVELY","maxReconsumeTimes":-1},
            "statusTable":{"t":{"consumeFailedMsgs":0,"consumeOKTPS":1.5,"pullRT":2.0}},
            "subscriptionSet":[{"topic":"t","subString":"*"}],"userConsumerInfo":{}}"#;
        let info = RunningInfo::from_json(text).unwrap();
        let process = info.queues.values().next().unwrap();
        assert_eq!(
            (
                process.cached_msg_count,
                process.commit_offset,
                process.locked
            ),
            (3, 7, true)
        );
        assert_eq!(info.properties["maxReconsumeTimes"], "-1");
        assert_eq!(info.statuses["t"].ok_tps, 1.5);
        assert_eq!(RunningInfo::from_json(&info.to_json()).unwrap(), info);
    }

    proptest! {
        #[test]
        fn tables_of_queues_read_back(offsets in proptest::collection::btree_map(0..100i32, any::<i64>(), 0..20)) {
            let queues: BTreeMap<_, _> = offsets.into_iter().map(|(id, offset)| (queue(id), offset)).collect();
            let reset = ResetOffsets { offsets: queues.clone() };
            prop_assert_eq!(&ResetOffsets::from_json(&reset.to_json()).unwrap(), &reset);
            let status = ConsumerStatus { consumers: [("c@1".to_string(), queues.clone())].into(), queues };
            prop_assert_eq!(&ConsumerStatus::from_json(&status.to_json()).unwrap(), &status);
        }

        #[test]
        fn running_info_reads_back(count: i32, offset: i64, quarters in 0..1_000_000u32, jstack: Option<String>, value: String) {
            let process = ProcessQueueInfo { cached_msg_count: count, commit_offset: offset, ..ProcessQueueInfo::default() };
            let info = RunningInfo {
                jstack,
                queues: [(queue(1), process)].into(),
                properties: [(property::ORDERLY.to_string(), value)].into(),
                statuses: [("t".to_string(), ConsumeStatus { ok_tps: f64::from(quarters) / 4.0, ..ConsumeStatus::default() })].into(),
                subscriptions: vec![SubscriptionData::by_tags("t", "*", 1)],
                ..RunningInfo::default()
            };
            prop_assert_eq!(&RunningInfo::from_json(&info.to_json()).unwrap(), &info);
        }
    }
}
