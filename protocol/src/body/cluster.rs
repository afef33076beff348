//! 106: which clusters there are, and who is in them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::null_as_default;
use super::route::BrokerData;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterInfo {
    #[serde(deserialize_with = "null_as_default")]
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    #[serde(deserialize_with = "null_as_default")]
    pub cluster_addr_table: BTreeMap<String, Vec<String>>,
}
