//! Where a broadcasting consumer has got to, in the file and form RocketMQ uses:
//! `<folder>/<client id>/<group>/offsets.json`, with the queue as an object before each offset.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use protocol::body::queue::MessageQueue;
use protocol::json::{self, Dialect};

use crate::lock::Mutex;

const FOLDER: &str = ".rocketmq_offsets";
const FILE: &str = "offsets.json";

pub(super) struct LocalOffsets {
    path: PathBuf,
    kept: Mutex<HashMap<MessageQueue, i64>>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    offset_table: HashMap<String, i64>,
}

impl LocalOffsets {
    /// `folder`: that of `rocketmq.client.localOffsetStoreDir`; unset: one in the user's home.
    pub fn open(folder: Option<&Path>, client_id: &str, group: &str) -> io::Result<LocalOffsets> {
        let folder = match folder {
            Some(folder) => folder.to_owned(),
            None => home().join(FOLDER),
        };
        let path = folder.join(client_id).join(group).join(FILE);
        let kept = match fs::read(&path) {
            Ok(bytes) => parse(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => HashMap::new(),
            Err(error) => return Err(error),
        };
        Ok(LocalOffsets {
            path,
            kept: Mutex::new(kept),
        })
    }

    pub fn get(&self, queue: &MessageQueue) -> Option<i64> {
        self.kept.lock().get(queue).copied()
    }

    /// Keeps what was reached, through a second file: a crash leaves the old offsets or the new ones.
    pub fn keep(&self, reached: Vec<(MessageQueue, i64)>) -> io::Result<()> {
        if reached.is_empty() {
            return Ok(());
        }
        let bytes = {
            let mut kept = self.kept.lock();
            kept.extend(reached);
            encode(&kept)
        };
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let new = self.path.with_extension("json.tmp");
        fs::write(&new, bytes)?;
        fs::rename(new, &self.path)
    }
}

fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from)
}

fn parse(bytes: &[u8]) -> io::Result<HashMap<MessageQueue, i64>> {
    let broken = |error: json::Error| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let file: File = json::from_slice(bytes).map_err(broken)?;
    let entry = |(key, offset): (String, i64)| {
        let queue = json::from_slice(key.as_bytes()).map_err(broken)?;
        Ok((queue, offset))
    };
    file.offset_table.into_iter().map(entry).collect()
}

fn encode(kept: &HashMap<MessageQueue, i64>) -> Vec<u8> {
    let mut sorted: Vec<_> = kept.iter().collect();
    sorted.sort();
    let entry = |(queue, offset): (&MessageQueue, &i64)| {
        let key = json::to_vec(queue, Dialect::Fastjson1);
        format!("{}:{offset}", String::from_utf8_lossy(&key))
    };
    let entries: Vec<String> = sorted.into_iter().map(entry).collect();
    format!("{{\"offsetTable\":{{{}}}}}", entries.join(",")).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(queue_id: i32) -> MessageQueue {
        MessageQueue {
            broker_name: "b".into(),
            queue_id,
            topic: "t".into(),
        }
    }

    #[test]
    fn what_is_kept_is_there_after_a_restart() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let open = || LocalOffsets::open(Some(folder.path()), "c@1", "g").expect("readable");
        let offsets = open();
        assert_eq!(offsets.get(&queue(0)), None);
        offsets
            .keep(vec![(queue(0), 7), (queue(1), 9)])
            .expect("kept");
        offsets.keep(vec![(queue(0), 8)]).expect("kept");
        let again = open();
        assert_eq!(
            (again.get(&queue(0)), again.get(&queue(1))),
            (Some(8), Some(9))
        );
    }

    #[test]
    fn the_file_has_the_form_of_rocketmqs() {
        let text = br#"{"offsetTable":{{"brokerName":"b","queueId":0,"topic":"t"}:7}}"#;
        let kept = parse(text).expect("readable");
        assert_eq!(kept[&queue(0)], 7);
        assert_eq!(encode(&kept), text);
        assert!(parse(b"rubbish").is_err());
    }
}
