//! The topics of this broker and the rules by which they come to be.
//!
//! Owned by the coordinator, who publishes `snapshot` after a change and saves it as `config/topics.json`. No I/O here.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashSet;
use protocol::body::topic_config::{DataVersion, QUEUES_DEFAULT, TopicConfig, TopicConfigTable};
use protocol::code::response;
use protocol::names::{self, AUTO_CREATE_TOPIC};
use protocol::permission::{self, READ_WRITE};

use crate::config::Settings;
use crate::messages::{Refusal, TopicTable};

const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
const MEMBER_GROUP_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";
const BENCHMARK_QUEUES: i32 = 1024;
/// A fixed number in RocketMQ, whatever messageDelayLevel says.
const SCHEDULE_QUEUES: i32 = 18;
/// Revive queues of POP consumption; the topic is part of every 5.x broker's table.
const REVIVE_QUEUES: i32 = 8;
/// `TopicSysFlag`: the topic belongs to a unit; its subscribers do.
const UNIT_FLAG: i32 = 1;
const UNIT_SUB_FLAG: i32 = 1 << 1;

#[derive(Debug)]
pub struct Topics {
    table: TopicTable,
    version: DataVersion,
    /// May not be changed or deleted by request.
    system: HashSet<String>,
    /// Deleted by request while the log may hold messages of theirs: these are not made again at a start.
    deleted: BTreeSet<String>,
}

impl Topics {
    /// A new broker's table.
    pub fn new(settings: &Settings) -> Self {
        let configs = system_topics(settings);
        Self {
            system: configs
                .iter()
                .map(|config| config.topic_name.clone())
                .collect(),
            table: configs
                .into_iter()
                .map(|config| (Arc::from(config.topic_name.as_str()), Arc::new(config)))
                .collect(),
            version: DataVersion::default(),
            deleted: BTreeSet::new(),
        }
    }

    /// Takes over what was saved; a saved system topic wins over the new one.
    pub fn restore(&mut self, saved: TopicConfigTable) {
        for (name, mut config) in saved.topic_config_table {
            config.topic_name.clone_from(&name);
            self.table.insert(Arc::from(name), Arc::new(config));
        }
        self.version = saved.data_version;
    }

    pub fn snapshot(&self) -> TopicTable {
        self.table.clone()
    }

    pub fn version(&self) -> DataVersion {
        self.version
    }

    pub fn get(&self, topic: &str) -> Option<&Arc<TopicConfig>> {
        self.table.get(topic)
    }

    /// With the name as the table keeps it.
    pub fn get_key_value(&self, topic: &str) -> Option<(&Arc<str>, &Arc<TopicConfig>)> {
        self.table.get_key_value(topic)
    }

    pub fn is_order(&self, topic: &str) -> bool {
        self.get(topic).is_some_and(|config| config.order)
    }

    pub fn is_system(&self, topic: &str) -> bool {
        self.system.contains(topic) || names::is_system_topic(topic)
    }

    pub fn system_names(&self) -> impl Iterator<Item = &str> {
        self.system.iter().map(String::as_str)
    }

    /// First send to an unknown topic: as many queues as the sender wants and the pattern has, rights without "inherit".
    pub fn create_by_send(
        &mut self,
        settings: &Settings,
        topic: &str,
        pattern: &str,
        queues: u32,
        unit_mode: bool,
        now_ms: i64,
    ) -> Result<Created, Refusal> {
        if let Some(existing) = self.get(topic) {
            return Ok(Created::Existed(Arc::clone(existing)));
        }
        names::validate_topic(topic).map_err(|error| Refusal {
            code: response::SYSTEM_ERROR,
            remark: error.to_string(),
        })?;
        let not_there = || Refusal {
            code: response::TOPIC_NOT_EXIST,
            remark: format!("topic[{topic}] not exist, apply first please!"),
        };
        let switched_off = pattern == AUTO_CREATE_TOPIC && !settings.auto_create_topic;
        let usable = self
            .get(pattern)
            .filter(|config| !switched_off && config.perm & permission::INHERIT != 0);
        let Some(pattern_config) = usable else {
            // A consumer that cannot give a message back sends it here itself.
            if names::is_retry_topic(topic) {
                return Ok(self.create_for_group(topic, 1, READ_WRITE, None, unit_mode, now_ms));
            }
            return Err(not_there());
        };
        let queues = i32::try_from(queues).unwrap_or(i32::MAX);
        let queues = queues.min(pattern_config.write_queue_nums).max(0);
        // A group's retry topic is one of its subscribers', whoever sends to it first.
        let topic_sys_flag = match (unit_mode, names::is_retry_topic(topic)) {
            (false, _) => 0,
            (true, false) => UNIT_FLAG,
            (true, true) => UNIT_SUB_FLAG,
        };
        let config = TopicConfig {
            topic_filter_type: pattern_config.topic_filter_type,
            topic_sys_flag,
            ..topic_config(topic, queues, pattern_config.perm & !permission::INHERIT)
        };
        Ok(Created::New(self.put(config, now_ms)))
    }

    /// A group's retry or dead-letter topic: made without a pattern, its order flag kept up to date.
    pub fn create_for_group(
        &mut self,
        topic: &str,
        queues: u32,
        perm: i32,
        order: Option<bool>,
        unit_mode: bool,
        now_ms: i64,
    ) -> Created {
        if let Some(existing) = self.get(topic) {
            let wanted = order.unwrap_or(existing.order);
            if existing.order == wanted {
                return Created::Existed(Arc::clone(existing));
            }
            let config = TopicConfig {
                order: wanted,
                ..(**existing).clone()
            };
            return Created::New(self.put(config, now_ms));
        }
        let queues = i32::try_from(queues).unwrap_or(i32::MAX);
        let config = TopicConfig {
            order: order.unwrap_or(false),
            topic_sys_flag: if unit_mode { UNIT_SUB_FLAG } else { 0 },
            ..topic_config(topic, queues, perm)
        };
        Created::New(self.put(config, now_ms))
    }

    /// Puts a topic into the table as it is.
    pub fn put(&mut self, config: TopicConfig, now_ms: i64) -> Arc<TopicConfig> {
        let config = Arc::new(config);
        self.deleted.remove(&config.topic_name);
        self.table
            .insert(Arc::from(config.topic_name.as_str()), Arc::clone(&config));
        self.version = self.version.next(now_ms);
        config
    }

    pub fn remove(&mut self, topic: &str, now_ms: i64) -> Option<Arc<TopicConfig>> {
        let removed = self.table.remove(topic)?;
        self.version = self.version.next(now_ms);
        self.set_deleted(topic);
        Some(removed)
    }

    /// Its messages do not bring it back, whether it is in the table yet or not.
    pub fn set_deleted(&mut self, topic: &str) {
        self.deleted.insert(topic.to_owned());
    }

    pub fn deleted(&self) -> &BTreeSet<String> {
        &self.deleted
    }

    /// Names whose messages have expired need not be remembered.
    pub fn keep_deleted(&mut self, keep: impl Fn(&str) -> bool) {
        let table = &self.table;
        self.deleted
            .retain(|name| !table.contains_key(name.as_str()) && keep(name));
    }

    /// Something outside the table that registration carries with it has changed (the broker's rights).
    pub fn touch(&mut self, now_ms: i64) {
        self.version = self.version.next(now_ms);
    }
}

/// What a wish for a topic led to.
#[derive(Debug)]
pub enum Created {
    Existed(Arc<TopicConfig>),
    /// Made or changed: to be published, saved and registered.
    New(Arc<TopicConfig>),
}

impl Created {
    pub fn config(&self) -> &Arc<TopicConfig> {
        match self {
            Self::Existed(config) | Self::New(config) => config,
        }
    }
}

/// Plain settings for everything but queues and rights.
pub fn topic_config(topic: &str, queues: i32, perm: i32) -> TopicConfig {
    TopicConfig {
        topic_name: topic.to_owned(),
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm,
        ..TopicConfig::default()
    }
}

fn system_topics(settings: &Settings) -> Vec<TopicConfig> {
    let shared_perm = |enabled: bool| permission::INHERIT | if enabled { READ_WRITE } else { 0 };
    let cluster = &settings.cluster_name;
    let broker = &settings.broker_name;
    let mut topics = vec![
        topic_config(names::SELF_TEST_TOPIC, 1, READ_WRITE),
        topic_config(names::BENCHMARK_TOPIC, BENCHMARK_QUEUES, READ_WRITE),
        topic_config(
            cluster,
            QUEUES_DEFAULT,
            shared_perm(settings.cluster_topic_enable),
        ),
        topic_config(broker, 1, shared_perm(settings.broker_topic_enable)),
        topic_config(names::OFFSET_MOVED_EVENT, 1, READ_WRITE),
        topic_config(names::SCHEDULE_TOPIC, SCHEDULE_QUEUES, READ_WRITE),
        topic_config(
            &format!("{cluster}{}", names::REPLY_TOPIC_SUFFIX),
            1,
            READ_WRITE,
        ),
        topic_config(
            &format!("rmq_sys_REVIVE_LOG_{cluster}"),
            REVIVE_QUEUES,
            READ_WRITE,
        ),
        topic_config(
            &format!("{MEMBER_GROUP_PREFIX}{broker}"),
            1,
            permission::INHERIT,
        ),
        topic_config(names::TRANS_HALF_TOPIC, 1, READ_WRITE),
        topic_config(names::TRANS_OP_HALF_TOPIC, 1, READ_WRITE),
        topic_config(TIMER_TOPIC, 1, READ_WRITE),
    ];
    if settings.auto_create_topic {
        let queues = i32::try_from(settings.default_topic_queues).unwrap_or(i32::MAX);
        topics.push(topic_config(
            AUTO_CREATE_TOPIC,
            queues,
            permission::INHERIT | READ_WRITE,
        ));
    }
    if settings.trace_topic_enable {
        topics.push(topic_config(&settings.trace_topic_name, 1, READ_WRITE));
    }
    topics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::settings;

    fn topics(pairs: &[(&str, &str)]) -> (Settings, Topics) {
        let settings = settings(pairs);
        let topics = Topics::new(&settings);
        (settings, topics)
    }

    #[test]
    fn a_new_broker_has_the_system_topics_of_the_real_one() {
        let (_, topics) = topics(&[("brokerName", "broker-a"), ("traceTopicEnable", "true")]);
        let shape = |name: &str| {
            let config = topics.get(name).expect(name);
            (config.read_queue_nums, config.write_queue_nums, config.perm)
        };
        assert_eq!(shape("TBW102"), (8, 8, 7));
        assert_eq!(shape("BenchmarkTest"), (1024, 1024, 6));
        assert_eq!(shape("DefaultCluster"), (16, 16, 7));
        assert_eq!(shape("broker-a"), (1, 1, 7));
        assert_eq!(shape("SCHEDULE_TOPIC_XXXX"), (18, 18, 6));
        assert_eq!(shape("RMQ_SYS_TRACE_TOPIC"), (1, 1, 6));
        assert!(topics.is_system("broker-a"));
        assert!(!topics.is_system("mine"));
    }

    #[test]
    fn a_first_send_gets_the_smaller_number_of_queues_and_plain_rights() {
        let (settings, mut topics) = topics(&[]);
        for (topic, asked, got) in [("a", 4, 4), ("b", 16, 8), ("c", 0, 0)] {
            let created = topics
                .create_by_send(&settings, topic, "TBW102", asked, false, 1)
                .expect("allowed");
            let config = created.config();
            assert_eq!(
                (config.read_queue_nums, config.write_queue_nums, config.perm),
                (got, got, 6)
            );
            assert!(matches!(created, Created::New(_)));
        }
        assert!(matches!(
            topics.create_by_send(&settings, "a", "TBW102", 9, false, 2),
            Ok(Created::Existed(config)) if config.write_queue_nums == 4
        ));
    }

    #[test]
    fn nothing_is_made_when_creation_is_off_or_the_pattern_does_not_inherit() {
        let (settings, mut topics) = topics(&[("autoCreateTopicEnable", "false")]);
        let mut refused = |pattern: &str| {
            topics
                .create_by_send(&settings, "a", pattern, 4, false, 1)
                .expect_err("refused")
                .code
        };
        assert_eq!(refused("TBW102"), response::TOPIC_NOT_EXIST);
        assert_eq!(refused("BenchmarkTest"), response::TOPIC_NOT_EXIST);
        assert_eq!(refused("none"), response::TOPIC_NOT_EXIST);
    }

    #[test]
    fn a_retry_topic_is_made_by_a_send_whatever_the_pattern_permits() {
        let (settings, mut topics) = topics(&[("autoCreateTopicEnable", "false")]);
        let made = topics
            .create_by_send(&settings, "%RETRY%g", "TBW102", 4, false, 1)
            .expect("made");
        let config = made.config();
        assert_eq!((config.read_queue_nums, config.perm), (1, READ_WRITE));
    }

    #[test]
    fn a_unit_marks_its_topics_and_its_subscribers_retry_topics_differently() {
        let (settings, mut topics) = topics(&[]);
        let mut flags = |topic: &str, unit_mode| {
            let made = topics.create_by_send(&settings, topic, "TBW102", 4, unit_mode, 1);
            made.expect("made").config().topic_sys_flag
        };
        assert_eq!(flags("plain", false), 0);
        assert_eq!(flags("of-a-unit", true), UNIT_FLAG);
        assert_eq!(flags("%RETRY%g", true), UNIT_SUB_FLAG);
        assert_eq!(flags("%RETRY%h", false), 0);
    }

    #[test]
    fn a_saved_pattern_does_not_switch_creation_on_again() {
        let (_, with) = topics(&[]);
        let saved = TopicConfigTable {
            topic_config_table: with
                .snapshot()
                .iter()
                .map(|(name, config)| (name.to_string(), (**config).clone()))
                .collect(),
            ..TopicConfigTable::default()
        };
        let (settings, mut topics) = topics(&[("autoCreateTopicEnable", "false")]);
        topics.restore(saved);
        assert!(topics.get("TBW102").is_some());
        assert!(
            topics
                .create_by_send(&settings, "a", "TBW102", 4, false, 1)
                .is_err()
        );
    }

    #[test]
    fn a_retry_topic_is_made_once_and_follows_the_order_flag() {
        let (_, mut topics) = topics(&[]);
        let mut make = |order| {
            matches!(
                topics.create_for_group("%RETRY%g", 1, 6, order, false, 1),
                Created::New(_)
            )
        };
        assert!(make(Some(false)));
        assert!(!make(Some(false)));
        assert!(!make(None));
        assert!(make(Some(true)), "changed");
        assert!(topics.is_order("%RETRY%g"));
    }

    #[test]
    fn every_change_raises_the_version() {
        let (_, mut topics) = topics(&[]);
        let before = topics.version();
        topics.put(topic_config("x", 1, 6), 7);
        assert_ne!(topics.version(), before);
        let before = topics.version();
        assert!(topics.remove("x", 8).is_some());
        assert!(topics.remove("x", 9).is_none());
        assert_ne!(topics.version(), before);
    }
}
