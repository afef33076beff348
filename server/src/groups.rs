//! The consumer groups of this broker and their settings.
//!
//! Owned by the coordinator, who publishes `snapshot` after a change and saves it as `config/subscriptionGroup.json`.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::body::subscription_group::{SubscriptionGroupConfig, SubscriptionGroupTable};
use protocol::body::topic_config::DataVersion;
use protocol::code::response;
use protocol::{names, permission};

use crate::config::Settings;
use crate::messages::{GroupTable, Refusal};

/// Made at the start of every broker.
const GROUPS_AT_START: [&str; 8] = [
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_RMQ_SYS_TRANS",
];

/// Bits by topic, by group.
pub type Forbidden = BTreeMap<String, BTreeMap<String, i32>>;

#[derive(Debug)]
pub struct Groups {
    table: GroupTable,
    /// Which topics a group may not read.
    forbidden: Arc<Forbidden>,
    version: DataVersion,
}

impl Groups {
    /// A new broker's table.
    pub fn new() -> Self {
        Self {
            table: GROUPS_AT_START
                .map(|name| (Arc::from(name), Arc::new(group_config(name))))
                .into_iter()
                .collect(),
            forbidden: Arc::default(),
            version: DataVersion::default(),
        }
    }

    pub fn restore(&mut self, saved: SubscriptionGroupTable) {
        for (name, mut config) in saved.subscription_group_table {
            config.group_name.clone_from(&name);
            self.table.insert(Arc::from(name), Arc::new(config));
        }
        self.forbidden = Arc::new(saved.forbidden_table);
        self.version = saved.data_version;
    }

    pub fn snapshot(&self) -> GroupTable {
        self.table.clone()
    }

    pub fn forbidden(&self) -> &Arc<Forbidden> {
        &self.forbidden
    }

    /// The bits that are set for a group in a topic; only that for reading means anything.
    pub fn forbidden_bits(&self, group: &str, topic: &str) -> i32 {
        bits(&self.forbidden, group, topic)
    }

    /// Says whether that changed anything.
    pub fn forbid(&mut self, group: &str, topic: &str, bits: i32, now_ms: i64) -> bool {
        let bits = bits.max(0);
        if self.forbidden_bits(group, topic) == bits {
            return false;
        }
        let forbidden = Arc::make_mut(&mut self.forbidden);
        if bits > 0 {
            let topics = forbidden.entry(group.to_owned()).or_default();
            topics.insert(topic.to_owned(), bits);
        } else if let Some(topics) = forbidden.get_mut(group) {
            topics.remove(topic);
            if topics.is_empty() {
                forbidden.remove(group);
            }
        }
        self.version = self.version.next(now_ms);
        true
    }

    pub fn version(&self) -> DataVersion {
        self.version
    }

    pub fn get(&self, group: &str) -> Option<&Arc<SubscriptionGroupConfig>> {
        self.table.get(group)
    }

    /// With the name as the table keeps it.
    pub fn get_key_value(&self, group: &str) -> Option<(&Arc<str>, &Arc<SubscriptionGroupConfig>)> {
        self.table.get_key_value(group)
    }

    /// The group's settings; made with defaults if it is unknown and the broker may make groups. True if it was made now.
    pub fn ensure(
        &mut self,
        settings: &Settings,
        group: &str,
        now_ms: i64,
    ) -> Result<(Arc<SubscriptionGroupConfig>, bool), Refusal> {
        if let Some(config) = self.get(group) {
            return Ok((Arc::clone(config), false));
        }
        let system = names::is_system_group(group) && settings.create_system_group;
        if !settings.auto_create_group && !system {
            return Err(Refusal {
                code: response::SUBSCRIPTION_GROUP_NOT_EXIST,
                remark: format!("subscription group [{group}] does not exist"),
            });
        }
        names::validate_group(group).map_err(|error| Refusal {
            code: response::SUBSCRIPTION_GROUP_NOT_EXIST,
            remark: error.to_string(),
        })?;
        Ok((self.put(group_config(group), now_ms), true))
    }

    pub fn put(
        &mut self,
        config: SubscriptionGroupConfig,
        now_ms: i64,
    ) -> Arc<SubscriptionGroupConfig> {
        let config = Arc::new(config);
        self.table
            .insert(Arc::from(config.group_name.as_str()), Arc::clone(&config));
        self.version = self.version.next(now_ms);
        config
    }

    pub fn remove(&mut self, group: &str, now_ms: i64) -> bool {
        if self.forbidden.contains_key(group) {
            Arc::make_mut(&mut self.forbidden).remove(group);
        }
        let removed = self.table.remove(group).is_some();
        if removed {
            self.version = self.version.next(now_ms);
        }
        removed
    }
}

fn bits(forbidden: &Forbidden, group: &str, topic: &str) -> i32 {
    let bits = forbidden.get(group).and_then(|topics| topics.get(topic));
    bits.copied().unwrap_or(0).max(0)
}

/// Whether an operator has taken the topic from the group.
pub fn may_not_read(forbidden: &Forbidden, group: &str, topic: &str) -> bool {
    bits(forbidden, group, topic) & permission::READ != 0
}

impl Default for Groups {
    fn default() -> Self {
        Self::new()
    }
}

fn group_config(name: &str) -> SubscriptionGroupConfig {
    SubscriptionGroupConfig {
        group_name: name.to_owned(),
        ..SubscriptionGroupConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::settings;

    #[test]
    fn an_unknown_group_is_made_once_with_the_stock_settings() {
        let (settings, mut groups) = (settings(&[]), Groups::new());
        let (config, new) = groups.ensure(&settings, "g", 1).expect("may be made");
        assert!(new);
        assert_eq!((config.retry_queue_nums, config.retry_max_times), (1, 16));
        assert!(config.consume_enable && config.consume_broadcast_enable);
        assert!(!groups.ensure(&settings, "g", 2).expect("there").1);
    }

    #[test]
    fn no_group_is_made_when_that_is_off_or_the_name_is_bad() {
        let mut groups = Groups::new();
        let off = settings(&[("autoCreateSubscriptionGroup", "false")]);
        assert!(groups.ensure(&off, "g", 1).is_err());
        assert!(
            groups.ensure(&off, "TOOLS_CONSUMER", 1).is_ok(),
            "there from the start"
        );
        let on = settings(&[]);
        for name in ["", "a b", &"x".repeat(121)] {
            assert!(groups.ensure(&on, name, 1).is_err(), "{name}");
        }
    }

    #[test]
    fn what_is_forbidden_in_one_topic_says_nothing_of_another() {
        let mut groups = Groups::new();
        let read = permission::READ;
        assert!(groups.forbid("g", "t", read, 1) && groups.forbid("g", "u", read | 1, 2));
        assert!(!groups.forbid("g", "t", read, 3), "it is already");
        assert!(groups.forbid("g", "t", 0, 4));
        let forbidden = groups.forbidden();
        assert!(!may_not_read(forbidden, "g", "t") && !may_not_read(forbidden, "h", "u"));
        assert!(may_not_read(forbidden, "g", "u"));
        assert_eq!(groups.forbidden_bits("g", "u"), read | 1);
        groups.remove("g", 5);
        assert!(groups.forbidden().is_empty(), "it goes with its group");
    }

    #[test]
    fn what_was_saved_is_there_again_with_its_version() {
        let mut groups = Groups::new();
        groups.put(group_config("mine"), 5);
        let saved = SubscriptionGroupTable {
            data_version: groups.version(),
            subscription_group_table: groups
                .snapshot()
                .iter()
                .map(|(name, config)| (name.to_string(), (**config).clone()))
                .collect(),
            forbidden_table: (**groups.forbidden()).clone(),
        };
        let mut again = Groups::new();
        again.restore(saved);
        assert!(again.get("mine").is_some());
        assert_eq!(again.version(), groups.version());
        assert!(again.remove("mine", 6));
        assert!(!again.remove("mine", 7));
    }
}
