//! 34: what a client is and wants, every 30 s; 46: a filter to be checked.

use serde::{Deserialize, Serialize};

use super::null_as_default;

/// A heartbeat. In its short form (5.x) `without_sub` is set, the consumers carry no
/// subscriptions, and the fingerprint stands for the last full one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatData {
    #[serde(rename = "clientID")]
    pub client_id: String,
    #[serde(deserialize_with = "null_as_default")]
    pub consumer_data_set: Vec<ConsumerData>,
    pub heartbeat_fingerprint: i32,
    #[serde(deserialize_with = "null_as_default")]
    pub producer_data_set: Vec<ProducerData>,
    pub without_sub: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerData {
    pub group_name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerData {
    #[serde(deserialize_with = "null_as_default")]
    pub consume_from_where: ConsumeFromWhere,
    #[serde(deserialize_with = "null_as_default")]
    pub consume_type: ConsumeType,
    pub group_name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub message_model: MessageModel,
    #[serde(deserialize_with = "null_as_default")]
    pub subscription_data_set: Vec<SubscriptionData>,
    pub unit_mode: bool,
}

/// What a group wants of a topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionData {
    pub class_filter_mode: bool,
    /// Hashes of the tags, see [`crate::properties::tag_hash`].
    #[serde(deserialize_with = "hashes")]
    pub code_set: Vec<i32>,
    /// `TAG` or `SQL92`.
    #[serde(deserialize_with = "null_as_default")]
    pub expression_type: String,
    /// The expression as written: `*`, `a || b`, an SQL92 condition.
    #[serde(deserialize_with = "null_as_default")]
    pub sub_string: String,
    /// Milliseconds; the newer of two subscriptions counts.
    pub sub_version: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub tags_set: Vec<String>,
    pub topic: String,
}

/// Numbers, or strings that hold numbers: the Go client writes its sets so.
fn hashes<'de, D>(deserializer: D) -> Result<Vec<i32>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Hash {
        Number(i32),
        Text(String),
    }
    let hashes: Vec<Hash> = null_as_default(deserializer)?;
    let number = |hash| match hash {
        Hash::Number(number) => Ok(number),
        Hash::Text(text) => text.parse().map_err(serde::de::Error::custom),
    };
    hashes.into_iter().map(number).collect()
}

pub const EXPRESSION_TAG: &str = "TAG";
pub const EXPRESSION_SQL92: &str = "SQL92";
pub const SUB_ALL: &str = "*";

impl Default for SubscriptionData {
    fn default() -> SubscriptionData {
        SubscriptionData {
            class_filter_mode: false,
            code_set: Vec::new(),
            expression_type: EXPRESSION_TAG.to_string(),
            sub_string: String::new(),
            sub_version: 0,
            tags_set: Vec::new(),
            topic: String::new(),
        }
    }
}

impl SubscriptionData {
    /// Whether it is about tags; an absent type is.
    pub fn is_tag(&self) -> bool {
        self.expression_type.is_empty() || self.expression_type == EXPRESSION_TAG
    }

    /// A subscription by tags: `*`, empty, or tags between `||`.
    pub fn by_tags(topic: &str, expression: &str, version: i64) -> SubscriptionData {
        let all = matches!(expression.trim(), "" | SUB_ALL);
        let tags = expression.split("||").map(str::trim);
        let tags: Vec<String> = tags
            .filter(|tag| !all && !tag.is_empty())
            .map(str::to_string)
            .collect();
        SubscriptionData {
            code_set: tags
                .iter()
                .map(|tag| crate::properties::tag_hash(tag))
                .collect(),
            sub_string: if all { SUB_ALL } else { expression }.to_string(),
            sub_version: version,
            tags_set: tags,
            topic: topic.to_string(),
            ..SubscriptionData::default()
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConsumeType {
    #[serde(rename = "CONSUME_ACTIVELY")]
    Actively,
    #[default]
    #[serde(rename = "CONSUME_PASSIVELY")]
    Passively,
    #[serde(rename = "CONSUME_POP")]
    Pop,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MessageModel {
    #[serde(rename = "BROADCASTING")]
    Broadcasting,
    #[default]
    #[serde(rename = "CLUSTERING")]
    Clustering,
}

/// Where a group starts that has no offset yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConsumeFromWhere {
    #[default]
    #[serde(rename = "CONSUME_FROM_LAST_OFFSET")]
    LastOffset,
    #[serde(rename = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST")]
    LastOffsetAndFromMinWhenBootFirst,
    #[serde(rename = "CONSUME_FROM_MIN_OFFSET")]
    MinOffset,
    #[serde(rename = "CONSUME_FROM_MAX_OFFSET")]
    MaxOffset,
    #[serde(rename = "CONSUME_FROM_FIRST_OFFSET")]
    FirstOffset,
    #[serde(rename = "CONSUME_FROM_TIMESTAMP")]
    Timestamp,
}

/// 46: may this client filter like this?
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckClientRequest {
    pub client_id: String,
    pub group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
}
