//! Bodies in JSON under RocketMQ's field names, by family.
//!
//! Reading takes either spelling ([`crate::json`]); unknown fields are ignored and missing ones
//! have RocketMQ's defaults, so the same types read 4.9's and 5.x's. Fields stand in the order of
//! their names, which is the order fastjson writes. A field that is `None` is not written.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::json::{self, Dialect};

pub mod cluster;
pub mod connection;
pub mod consumer;
pub mod data_version;
pub mod figures;
pub mod heartbeat;
pub mod kv_table;
pub mod lists;
pub mod lock;
pub mod offsets;
pub mod pop;
pub mod queue;
pub mod register;
pub mod revive;
pub mod route;
pub mod static_topic;
pub mod stats;
pub mod subscription_group;
pub mod topic_config;

/// What all bodies can do.
pub trait Body: Serialize + DeserializeOwned {
    /// Reads a body as any peer may have written it.
    fn from_json(bytes: &[u8]) -> Result<Self, json::Error> {
        json::from_slice(bytes)
    }

    /// Writes the body; `Fastjson1` unless the asker is known to want strict JSON.
    fn to_json(&self, dialect: Dialect) -> Vec<u8> {
        json::to_vec(self, dialect)
    }
}

impl<T: Serialize + DeserializeOwned> Body for T {}

/// Reads `null` as the default: fastjson writes it for empty references.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
