//! The key-value configuration: namespaces of keys, written by tools, kept in a file in RocketMQ's form.
//!
//! The tables are owned by the core of the name server; `kv_file` keeps them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::json::{append_string, separate};

/// What the orders of topics are filed under: `topic` -> `broker-a:4;broker-b:4`.
pub const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";
/// All keys and values together may have this many bytes: a namespace travels in one frame.
pub const TABLE_BYTES_MAX: usize = 8 << 20;

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct KvConfig {
    #[serde(rename = "configTable", default)]
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(skip)]
    bytes: usize,
}

/// Why a value was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key-value configuration would exceed {TABLE_BYTES_MAX} bytes")]
pub struct Full;

/// Why a file was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read {path}: {error}")]
    Read { path: String, error: std::io::Error },
    #[error("{path} and its copy hold no key-value configuration: {error}")]
    Broken {
        path: String,
        error: serde_json::Error,
    },
}

impl KvConfig {
    /// Reads the file, or its `.bak` when the file is broken. No file is an empty configuration. Blocks.
    pub fn load(path: &Path) -> Result<KvConfig, LoadError> {
        let backup = path.with_added_extension("bak");
        let (mut config, broken) = match Self::read(path) {
            Ok(Some(config)) => return Ok(config),
            Ok(None) => (None, None),
            Err(LoadError::Broken { path, error }) => (None, Some((path, error))),
            Err(error) => return Err(error),
        };
        if let Some(found) = Self::read(&backup).ok().flatten() {
            tracing::warn!(path = %path.display(), "key-value configuration read from its backup: the file is missing or broken");
            config = Some(found);
        }
        match (config, broken) {
            (Some(config), _) => Ok(config),
            (None, None) => Ok(KvConfig::default()),
            (None, Some((path, error))) => Err(LoadError::Broken { path, error }),
        }
    }

    fn read(path: &Path) -> Result<Option<KvConfig>, LoadError> {
        let bytes = match reactor::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(LoadError::Read {
                    path: path.display().to_string(),
                    error,
                });
            }
        };
        let parsed: Result<KvConfig, _> = serde_json::from_slice(&bytes);
        let mut config = parsed.map_err(|error| LoadError::Broken {
            path: path.display().to_string(),
            error,
        })?;
        let keys = config.namespaces.values().flatten();
        config.bytes = keys.map(|(key, value)| key.len() + value.len()).sum();
        Ok(Some(config))
    }

    /// The file's content.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps of strings are JSON")
    }

    pub fn put(&mut self, namespace: &str, key: &str, value: &str) -> Result<(), Full> {
        let before = self
            .get(namespace, key)
            .map_or(0, |held| key.len() + held.len());
        let bytes = self.bytes - before + key.len() + value.len();
        if bytes > TABLE_BYTES_MAX {
            return Err(Full);
        }
        self.bytes = bytes;
        let table = self.namespaces.entry(namespace.to_owned()).or_default();
        table.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    pub fn get(&self, namespace: &str, key: &str) -> Option<&str> {
        self.namespaces.get(namespace)?.get(key).map(String::as_str)
    }

    /// The namespace stays, empty, when its last key goes. True if the key was there.
    pub fn delete(&mut self, namespace: &str, key: &str) -> bool {
        let removed = self
            .namespaces
            .get_mut(namespace)
            .and_then(|table| table.remove(key));
        if let Some(value) = &removed {
            self.bytes -= key.len() + value.len();
        }
        removed.is_some()
    }

    /// Appends a namespace as JSON. False, and nothing appended, if there is none of this name.
    pub fn append_namespace(&self, out: &mut Vec<u8>, namespace: &str) -> bool {
        let Some(table) = self.namespaces.get(namespace) else {
            return false;
        };
        out.extend_from_slice(b"{\"table\":{");
        for (number, (key, value)) in table.iter().enumerate() {
            separate(out, number);
            append_string(out, key);
            out.push(b':');
            append_string(out, value);
        }
        out.extend_from_slice(b"}}");
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read_back_from_the_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("kvConfig.json");
        let mut config = KvConfig::default();
        config
            .put(ORDER_TOPIC_CONFIG, "orders", "broker-a:4;broker-b:4")
            .unwrap();
        config.put("n", "k", "\"quoted\"\n").unwrap();
        std::fs::write(&path, config.to_json()).unwrap();

        let loaded = KvConfig::load(&path).unwrap();
        assert_eq!(
            loaded.get(ORDER_TOPIC_CONFIG, "orders"),
            Some("broker-a:4;broker-b:4")
        );
        assert_eq!(loaded.get("n", "k"), Some("\"quoted\"\n"));
        assert_eq!(loaded.bytes, config.bytes);
    }

    #[test]
    fn a_file_of_a_stock_name_server_is_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("kvConfig.json");
        std::fs::write(
            &path,
            br#"{"configTable":{"ORDER_TOPIC_CONFIG":{}, "n":{"k":"v"}}}"#,
        )
        .unwrap();
        let loaded = KvConfig::load(&path).unwrap();
        let mut json = Vec::new();
        assert!(loaded.append_namespace(&mut json, ORDER_TOPIC_CONFIG));
        assert_eq!(json, br#"{"table":{}}"#);
        assert_eq!(loaded.get("n", "k"), Some("v"));
    }

    #[test]
    fn a_broken_file_falls_back_to_its_backup() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("kvConfig.json");
        std::fs::write(&path, b"{\"configTable\":{\"n\"").unwrap();
        assert!(matches!(
            KvConfig::load(&path),
            Err(LoadError::Broken { .. })
        ));
        std::fs::write(
            dir.path().join("kvConfig.json.bak"),
            br#"{"configTable":{"n":{"k":"v"}}}"#,
        )
        .unwrap();
        assert_eq!(KvConfig::load(&path).unwrap().get("n", "k"), Some("v"));
    }

    #[test]
    fn no_file_is_an_empty_configuration() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let loaded = KvConfig::load(&dir.path().join("none.json")).unwrap();
        assert!(!loaded.append_namespace(&mut Vec::new(), "n"));
    }

    #[test]
    fn a_deleted_key_leaves_its_namespace() {
        let mut config = KvConfig::default();
        config.put("n", "k", "v").unwrap();
        assert!(config.delete("n", "k"));
        assert!(!config.delete("n", "k"));
        let mut json = Vec::new();
        assert!(config.append_namespace(&mut json, "n"));
        assert_eq!(json, br#"{"table":{}}"#);
    }

    #[test]
    fn the_size_is_bounded_and_replacing_frees_the_old_value() {
        let mut config = KvConfig::default();
        let half = "x".repeat(TABLE_BYTES_MAX / 2);
        config.put("n", "a", &half).unwrap();
        assert_eq!(config.put("n", "b", &half), Err(Full));
        config.put("n", "a", "small").unwrap();
        config.put("n", "b", &half).unwrap();
    }
}
