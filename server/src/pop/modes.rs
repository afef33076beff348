//! Which groups pop which topics, as operators set it: `config/messageRequestMode.json`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use protocol::body::Body;
use protocol::body::pop::SetRequestMode;
use protocol::json;
use reactor::fs;
use serde::{Deserialize, Serialize};

const FILE: &str = "messageRequestMode.json";

/// Lives on the coordinator's core.
#[derive(Debug, Default)]
pub struct Modes {
    path: RefCell<PathBuf>,
    table: RefCell<Table>,
}

/// By topic, then by group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Table {
    message_request_mode_map: BTreeMap<String, BTreeMap<String, SetRequestMode>>,
}

impl Modes {
    /// Blocks; for the start only.
    pub fn load(&self, config_dir: &Path) -> io::Result<()> {
        let path = config_dir.join(FILE);
        if fs::exists(&path) {
            let bytes = fs::read(&path)?;
            let table = Table::from_json(&bytes);
            *self.table.borrow_mut() = table.map_err(|error| {
                let file = path.display();
                io::Error::new(io::ErrorKind::InvalidData, format!("{file}: {error}"))
            })?;
        }
        *self.path.borrow_mut() = path;
        Ok(())
    }

    pub fn get(&self, topic: &str, group: &str) -> Option<SetRequestMode> {
        let table = self.table.borrow();
        let groups = table.message_request_mode_map.get(topic)?;
        groups.get(group).cloned()
    }

    /// In effect at once; resolves when it is saved.
    pub fn set(&self, mode: SetRequestMode) -> impl Future<Output = io::Result<()>> + use<> {
        let bytes = {
            let mut table = self.table.borrow_mut();
            let groups = table
                .message_request_mode_map
                .entry(mode.topic.clone())
                .or_default();
            groups.insert(mode.consumer_group.clone(), mode);
            json::to_vec_pretty(&*table)
        };
        let path = self.path.borrow().clone();
        reactor::offload("save request modes", move || fs::replace(&path, &bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_rocketmqs() {
        let file = br#"{"messageRequestModeMap":{"t":{"g":{"consumerGroup":"g","mode":"POP","popShareQueueNum":8,"topic":"t"}}}}"#;
        let table = Table::from_json(file).expect("as RocketMQ writes it");
        assert_eq!(
            table.message_request_mode_map["t"]["g"].pop_share_queue_num,
            8
        );
        assert_eq!(table.to_json(protocol::json::Dialect::Strict), file);
    }
}
