//! A table of strings: runtime information (28), a namespace of the name server (219).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::null_as_default;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvTable {
    #[serde(deserialize_with = "null_as_default")]
    pub table: BTreeMap<String, String>,
}

/// The name server's file: namespace, then key, then value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KvConfigFile {
    #[serde(deserialize_with = "null_as_default")]
    pub config_table: BTreeMap<String, BTreeMap<String, String>>,
}
