//! 203, 204: who is connected.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::heartbeat::{ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionData};
use super::null_as_default;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Connection {
    pub client_addr: String,
    pub client_id: String,
    /// See [`crate::Language::name`].
    #[serde(deserialize_with = "null_as_default")]
    pub language: String,
    pub version: i32,
}

/// 203.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerConnection {
    #[serde(deserialize_with = "null_as_default")]
    pub connection_set: Vec<Connection>,
    #[serde(deserialize_with = "null_as_default")]
    pub consume_from_where: ConsumeFromWhere,
    #[serde(deserialize_with = "null_as_default")]
    pub consume_type: ConsumeType,
    #[serde(deserialize_with = "null_as_default")]
    pub message_model: MessageModel,
    #[serde(deserialize_with = "null_as_default")]
    pub subscription_table: BTreeMap<String, SubscriptionData>,
}

/// 204.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerConnection {
    #[serde(deserialize_with = "null_as_default")]
    pub connection_set: Vec<Connection>,
}
