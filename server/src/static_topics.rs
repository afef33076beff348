//! Static topics (5.x) as far as one broker has them: every queue of the topic is the queue of the same number here.
//!
//! Mappings are kept for the tools that make and show them; nothing has to be translated, because a mapping that moves a queue
//! to another number or to another broker is refused. Owned by the coordinator, saved at once as
//! `config/topicQueueMapping.json`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use protocol::body::Body;
use protocol::body::static_topic::{MappingDetail, MappingTable};
use protocol::body::topic_config::DataVersion;
use protocol::json::Dialect;
use reactor::fs;

const FILE: &str = "topicQueueMapping.json";

/// Lives beside the coordinator.
#[derive(Debug)]
pub struct StaticTopics {
    file: PathBuf,
    mappings: RefCell<BTreeMap<String, MappingDetail>>,
    version: Cell<DataVersion>,
}

impl StaticTopics {
    /// What was saved; an unreadable file is said and left alone until something is changed.
    pub fn load(config_dir: &Path) -> Self {
        let file = config_dir.join(FILE);
        let saved = match fs::read(&file) {
            Ok(bytes) => MappingTable::from_json(&bytes).map_err(|error| error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(MappingTable::default()),
            Err(error) => Err(error.to_string()),
        };
        let saved = saved.unwrap_or_else(|problem| {
            tracing::error!(file = %file.display(), problem, "mappings of static topics cannot be read");
            MappingTable::default()
        });
        Self {
            file,
            mappings: RefCell::new(saved.topic_queue_mapping_info_map),
            version: Cell::new(saved.data_version),
        }
    }

    pub fn get(&self, topic: &str) -> Option<MappingDetail> {
        self.mappings.borrow().get(topic).cloned()
    }

    pub fn put(&self, detail: MappingDetail, now_ms: i64) {
        let topic = detail.topic.clone();
        self.mappings.borrow_mut().insert(topic, detail);
        self.version.set(self.version.get().next(now_ms));
    }

    /// True if it was one.
    pub fn remove(&self, topic: &str, now_ms: i64) -> bool {
        let removed = self.mappings.borrow_mut().remove(topic).is_some();
        if removed {
            self.version.set(self.version.get().next(now_ms));
        }
        removed
    }

    pub fn save(&self) -> impl Future<Output = io::Result<()>> + use<> {
        let table = MappingTable {
            data_version: self.version.get(),
            topic_queue_mapping_info_map: self.mappings.borrow().clone(),
        };
        let file = self.file.clone();
        reactor::offload("save static topics", move || {
            if let Some(dir) = file.parent() {
                fs::create_dir_all(dir)?;
            }
            fs::replace(&file, &table.to_json(Dialect::Strict))
        })
    }
}

/// Why this broker does not serve a mapping, if so.
pub fn check(
    detail: &MappingDetail,
    now: Option<&MappingDetail>,
    broker_name: &str,
    force: bool,
) -> Result<(), String> {
    if detail.bname != broker_name {
        return Err(format!("the mapping is for broker {}", detail.bname));
    }
    if let Some(now) = now
        && !force
    {
        if detail.epoch <= now.epoch {
            return Err(format!(
                "the mapping's epoch {} is not later than {}",
                detail.epoch, now.epoch
            ));
        }
        if detail.total_queues < now.total_queues {
            return Err("a static topic never has fewer queues than before".to_owned());
        }
    }
    for (id, items) in &detail.hosted_queues {
        let stays = items.iter().all(|item| {
            item.bname == broker_name
                && item.queue_id == *id
                && item.logic_offset == 0
                && item.start_offset == 0
        });
        if items.len() != 1 || !stays {
            return Err(format!(
                "queue {id} would lie elsewhere than in queue {id} of {broker_name}: this broker translates no queues"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::body::static_topic::MappingItem;

    fn detail(epoch: i64, queues: i32) -> MappingDetail {
        let item = |queue_id| MappingItem {
            bname: "a".to_owned(),
            queue_id,
            ..MappingItem::default()
        };
        MappingDetail {
            bname: "a".to_owned(),
            epoch,
            hosted_queues: (0..queues).map(|id| (id, vec![item(id)])).collect(),
            topic: "t".to_owned(),
            total_queues: queues,
            ..MappingDetail::default()
        }
    }

    #[test]
    fn a_mapping_that_changes_no_number_is_taken_and_only_a_later_one_replaces_it() {
        let first = detail(5, 4);
        assert_eq!(check(&first, None, "a", false), Ok(()));
        assert_eq!(check(&detail(6, 8), Some(&first), "a", false), Ok(()));
        assert!(check(&detail(5, 8), Some(&first), "a", false).is_err());
        assert!(check(&detail(6, 3), Some(&first), "a", false).is_err());
        assert_eq!(check(&detail(5, 4), Some(&first), "a", true), Ok(()));
    }

    #[test]
    fn what_would_have_to_be_translated_is_refused() {
        assert!(check(&detail(5, 4), None, "b", false).is_err());
        let mut moved = detail(5, 4);
        moved.hosted_queues.get_mut(&2).expect("there")[0].queue_id = 1;
        assert!(check(&moved, None, "a", false).is_err());
        let mut gone_on = detail(5, 4);
        let more = MappingItem {
            bname: "b".to_owned(),
            logic_offset: 100,
            ..MappingItem::default()
        };
        gone_on.hosted_queues.get_mut(&2).expect("there").push(more);
        assert!(check(&gone_on, None, "a", false).is_err());
    }
}
