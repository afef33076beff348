//! 202, 208: where topics and groups are, queue by queue.
//!
//! The tables have queues as keys. Fastjson writes such a key as an object, which no strict parser
//! reads; so does this, because the command line expects it, and reading goes through
//! [`crate::json::lenient`], which makes strings of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::queue::MessageQueue;
use crate::json::{self, Dialect};

/// 202.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicStats {
    pub topic_put_tps: f64,
    pub offsets: BTreeMap<MessageQueue, TopicOffset>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicOffset {
    pub last_update_timestamp: i64,
    pub max_offset: i64,
    pub min_offset: i64,
}

/// 208.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsumeStats {
    pub consume_tps: f64,
    pub offsets: BTreeMap<MessageQueue, GroupOffset>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupOffset {
    pub broker_offset: i64,
    pub consumer_offset: i64,
    pub last_timestamp: i64,
    pub pull_offset: i64,
}

impl TopicStats {
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = b"{".to_vec();
        append_table(&mut out, "offsetTable", &self.offsets);
        out.extend_from_slice(format!(",\"topicPutTps\":{:?}}}", self.topic_put_tps).as_bytes());
        out
    }

    pub fn from_json(bytes: &[u8]) -> Result<TopicStats, json::Error> {
        let raw: RawTable<TopicOffset> = json::from_slice(bytes)?;
        Ok(TopicStats {
            topic_put_tps: raw.topic_put_tps,
            offsets: parse_keys(raw.offset_table)?,
        })
    }
}

impl ConsumeStats {
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = format!("{{\"consumeTps\":{:?},", self.consume_tps).into_bytes();
        append_table(&mut out, "offsetTable", &self.offsets);
        out.push(b'}');
        out
    }

    pub fn from_json(bytes: &[u8]) -> Result<ConsumeStats, json::Error> {
        let raw: RawTable<GroupOffset> = json::from_slice(bytes)?;
        Ok(ConsumeStats {
            consume_tps: raw.consume_tps,
            offsets: parse_keys(raw.offset_table)?,
        })
    }
}

/// Either table as it looks once its keys are strings.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawTable<T> {
    consume_tps: f64,
    topic_put_tps: f64,
    offset_table: BTreeMap<String, T>,
}

impl<T> Default for RawTable<T> {
    fn default() -> RawTable<T> {
        RawTable {
            consume_tps: 0.0,
            topic_put_tps: 0.0,
            offset_table: BTreeMap::new(),
        }
    }
}

/// `"name":{queue:value,..}`, with the queues as objects.
pub(super) fn append_table<T: Serialize>(
    out: &mut Vec<u8>,
    name: &str,
    table: &BTreeMap<MessageQueue, T>,
) {
    out.extend_from_slice(&json::to_vec(&name, Dialect::Fastjson1));
    out.extend_from_slice(b":{");
    for (number, (queue, offset)) in table.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&json::to_vec(queue, Dialect::Fastjson1));
        out.push(b':');
        out.extend_from_slice(&json::to_vec(offset, Dialect::Fastjson1));
    }
    out.push(b'}');
}

pub(super) fn parse_keys<T>(
    table: BTreeMap<String, T>,
) -> Result<BTreeMap<MessageQueue, T>, json::Error> {
    table
        .into_iter()
        .map(|(key, value)| Ok((json::from_slice(key.as_bytes())?, value)))
        .collect()
}
