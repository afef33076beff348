//! A shard's own view of the topics it is asked for: configuration and queues at hand, no lock, nothing shared.
//!
//! An entry is checked against the coordinator's snapshot only when that has changed since it was last used.

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use engine::{Queue, Store};
use hashbrown::HashMap;
use protocol::body::topic_config::TopicConfig;
use protocol::permission;

use crate::messages::TopicTable;
use crate::published::Reader;

/// One topic as this shard uses it. Lives on the shard's core.
pub struct Topic {
    name: Arc<str>,
    config: RefCell<Arc<TopicConfig>>,
    /// Version of the snapshot that `config` was last found in.
    version: Cell<u64>,
    /// By queue id, filled when first used.
    queues: RefCell<Vec<Option<Arc<Queue>>>>,
}

impl Topic {
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn config(&self) -> Ref<'_, TopicConfig> {
        Ref::map(self.config.borrow(), |config| &**config)
    }

    /// As RocketMQ prints a topic in its answers.
    pub fn description(&self) -> String {
        let config = self.config();
        format!(
            "TopicConfig [topicName={}, readQueueNums={}, writeQueueNums={}, perm={}, topicSysFlag={}, order={}]",
            self.name,
            config.read_queue_nums,
            config.write_queue_nums,
            permission::to_text(config.perm),
            config.topic_sys_flag,
            config.order,
        )
    }

    /// The queue of this id, made in the store when it is first asked for. The caller has checked the id's range.
    pub fn queue(&self, store: &Store, id: u32) -> Ref<'_, Arc<Queue>> {
        let index = id as usize;
        let known =
            |queues: &Vec<Option<Arc<Queue>>>| queues.get(index).is_some_and(Option::is_some);
        if !known(&self.queues.borrow()) {
            let mut queues = self.queues.borrow_mut();
            if queues.len() <= index {
                queues.resize(index + 1, None);
            }
            queues[index] = Some(store.queue(&self.name, id));
        }
        Ref::map(self.queues.borrow(), |queues| {
            queues[index].as_ref().expect("filled above")
        })
    }
}

/// Lives on one core; entries appear with use and vanish with their topic.
#[derive(Default)]
pub struct Topics {
    entries: RefCell<HashMap<Box<str>, Rc<Topic>>>,
}

impl Topics {
    /// The topic as of the reader's snapshot; none if the coordinator does not know it.
    pub fn get(&self, name: &str, snapshot: &Reader<TopicTable>) -> Option<Rc<Topic>> {
        let version = snapshot.version();
        if let Some(topic) = self.entries.borrow().get(name)
            && topic.version.get() == version
        {
            return Some(Rc::clone(topic));
        }
        self.look_up(name, snapshot)
    }

    #[cold]
    fn look_up(&self, name: &str, snapshot: &Reader<TopicTable>) -> Option<Rc<Topic>> {
        let Some((shared_name, config)) = snapshot.value().get_key_value(name) else {
            self.entries.borrow_mut().remove(name);
            return None;
        };
        let mut entries = self.entries.borrow_mut();
        if let Some(topic) = entries.get(name) {
            *topic.config.borrow_mut() = Arc::clone(config);
            topic.version.set(snapshot.version());
            return Some(Rc::clone(topic));
        }
        let topic = Rc::new(Topic {
            name: Arc::clone(shared_name),
            config: RefCell::new(Arc::clone(config)),
            version: Cell::new(snapshot.version()),
            queues: RefCell::new(Vec::new()),
        });
        entries.insert(name.into(), Rc::clone(&topic));
        Some(topic)
    }
}
