//! Who serves which topic: the name server's whole state but for the key-value configuration, in memory only.
//!
//! A *group* is a broker name: a master and its slaves. A *broker* is one process of a group, known by cluster and address.
//! Topics point to groups. A group that loses its last broker is forgotten in one step whatever the number of its topics:
//! its number is never used again, so what topics still hold for it is ignored, and swept away in slices later.
//!
//! Owned by the core of the name server. Never reads a clock, never does I/O, and no step is longer than its caller allows:
//! whatever walks the topics takes a limit and says where to go on.

mod answer;
mod java_order;
mod registering;
mod topics;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use protocol::body::topic_config::DataVersion;
use reactor::Instant;

pub use registering::{Admission, Refused, Registered, Registration, Ticket};
use topics::{Cursor, Topics};
pub use topics::{Queues, Topic, TopicFilter};

/// The broker id of a master; all others are slaves.
pub const MASTER_ID: i64 = 0;
/// A broker is dead after this long without a word, unless it asked for another time.
pub const BROKER_SILENCE_MAX: Duration = Duration::from_secs(120);
/// More broker processes than this are refused.
pub const BROKERS_MAX: usize = 20_000;
/// More topics than this are refused.
pub const TOPICS_MAX: usize = 2_000_000;

/// Names a connection of this process; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Names a group for its lifetime; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupNo(u64);

/// One broker process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BrokerKey {
    pub cluster: String,
    pub addr: String,
}

impl BrokerKey {
    pub fn new(cluster: &str, addr: &str) -> BrokerKey {
        BrokerKey {
            cluster: cluster.to_owned(),
            addr: addr.to_owned(),
        }
    }
}

#[derive(Debug)]
struct Group {
    name: Arc<str>,
    cluster: Arc<str>,
    /// Never empty: a group goes with its last broker.
    addrs: BTreeMap<i64, Arc<str>>,
    zone: Option<Arc<str>>,
    acting_master: bool,
}

#[derive(Debug)]
struct Live {
    group: GroupNo,
    heard_at: Instant,
    silence_max: Duration,
    /// The version of the last registration that was applied to its end.
    version: Option<DataVersion>,
    connection: ConnectionId,
    ha_addr: Arc<str>,
    /// The registration that may apply topics: only the newest.
    round: u64,
}

/// A broker that was dropped for its silence.
#[derive(Debug, PartialEq, Eq)]
pub struct Expired {
    pub key: BrokerKey,
    pub connection: ConnectionId,
    pub silence_max: Duration,
}

#[derive(Debug, Default)]
pub struct Routes {
    group_numbers: BTreeMap<Arc<str>, GroupNo>,
    groups: BTreeMap<GroupNo, Group>,
    clusters: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    live: BTreeMap<BrokerKey, Live>,
    topics: Topics,
    group_no_next: u64,
    round_next: u64,
}

impl Routes {
    pub fn new() -> Routes {
        Routes::default()
    }

    /// Adds one topic of brokers that are registered already. Nothing is taken if one of them is not.
    pub fn register_topic(
        &mut self,
        topic: &str,
        queues: &[(String, Queues)],
    ) -> Result<bool, Refused> {
        let mut resolved = Vec::with_capacity(queues.len());
        for (broker_name, queues) in queues {
            let Some(group) = self.group_numbers.get(broker_name.as_str()) else {
                return Ok(false);
            };
            resolved.push((*group, *queues));
        }
        for (group, queues) in resolved {
            self.topics.put(topic, group, queues, true)?;
        }
        Ok(true)
    }

    /// Forgets a topic, of one cluster's brokers or of all. It comes back with the next changed registration.
    pub fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        match cluster {
            None => self.topics.remove(topic),
            Some(cluster) => {
                let members = self.groups_of(cluster);
                self.topics.remove_of(topic, &members);
            }
        }
    }

    /// The broker says it goes. True if it was known.
    pub fn unregister(&mut self, cluster: &str, addr: &str, broker_name: &str) -> bool {
        let live = self.live.remove(&BrokerKey::new(cluster, addr));
        let named = self.group_numbers.get(broker_name).copied();
        for group in [live.as_ref().map(|live| live.group), named]
            .into_iter()
            .flatten()
        {
            self.detach(group, addr);
        }
        live.is_some()
    }

    fn remove(&mut self, key: &BrokerKey) {
        if let Some(live) = self.live.remove(key) {
            self.detach(live.group, &key.addr);
        }
    }

    /// A connection is gone: so are the brokers whose last word came over it.
    pub fn remove_connection(&mut self, connection: ConnectionId) -> Vec<BrokerKey> {
        let gone: Vec<_> = self
            .live
            .iter()
            .filter(|(_, live)| live.connection == connection)
            .map(|(key, _)| key.clone())
            .collect();
        gone.iter().for_each(|key| self.remove(key));
        gone
    }

    /// Drops the brokers that have been silent for too long.
    pub fn expire(&mut self, now: Instant) -> Vec<Expired> {
        let gone: Vec<_> = self
            .live
            .iter()
            .filter(|(_, live)| now.saturating_since(live.heard_at) > live.silence_max)
            .map(|(key, live)| Expired {
                key: key.clone(),
                connection: live.connection,
                silence_max: live.silence_max,
            })
            .collect();
        gone.iter().for_each(|expired| self.remove(&expired.key));
        gone
    }

    /// A word from a broker that changes nothing.
    pub fn heard(&mut self, cluster: &str, addr: &str, now: Instant) {
        if let Some(live) = self.live.get_mut(&BrokerKey::new(cluster, addr)) {
            live.heard_at = now;
        }
    }

    /// The version of the last complete registration.
    pub fn version(&self, cluster: &str, addr: &str) -> Option<DataVersion> {
        self.live.get(&BrokerKey::new(cluster, addr))?.version
    }

    pub fn broker_count(&self) -> usize {
        self.live.len()
    }

    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    fn groups_of(&self, cluster: &str) -> BTreeSet<GroupNo> {
        let names = self.clusters.get(cluster).into_iter().flatten();
        names
            .filter_map(|name| self.group_numbers.get(name).copied())
            .collect()
    }

    fn detach(&mut self, group_no: GroupNo, addr: &str) {
        // Another broker's going may have ended the group already.
        let Some(group) = self.groups.get_mut(&group_no) else {
            return;
        };
        group.addrs.retain(|_, held| **held != *addr);
        if group.addrs.is_empty() {
            self.remove_group(group_no);
        }
    }

    fn remove_group(&mut self, group_no: GroupNo) {
        let group = self
            .groups
            .remove(&group_no)
            .expect("only known groups are removed");
        let number = self.group_numbers.remove(&group.name);
        assert_eq!(number, Some(group_no), "a name has one group");
        self.clusters.retain(|_, names| {
            names.remove(&group.name);
            !names.is_empty()
        });
        self.topics.start_sweep();
        tracing::info!(broker = %group.name, cluster = %group.cluster, "broker name removed with its last broker");
    }

    /// Removes what topics still hold for groups that are gone: at most `limit` topics. True if there is more to do.
    pub fn sweep(&mut self, limit: usize) -> bool {
        let groups = &self.groups;
        self.topics
            .sweep(limit, |group| groups.contains_key(&group))
    }

    /// Whether `sweep` has something to do.
    pub fn sweep_wanted(&self) -> bool {
        self.topics.sweep_wanted()
    }

    /// Takes or gives the write permission of one broker name, at most `limit` topics at a time.
    pub fn change_write(&mut self, broker_name: &str, grant: bool, walk: &mut Walk, limit: usize) {
        match self.group_numbers.get(broker_name) {
            None => walk.done = true,
            Some(group) => {
                let group = *group;
                let (next, changed) =
                    self.topics
                        .change_write(group, grant, walk.cursor.take(), limit);
                walk.advance(next, changed);
            }
        }
    }

    /// Names the topics that pass the filter, at most `limit` topics looked at.
    pub fn list(
        &self,
        filter: &TopicFilter,
        walk: &mut Walk,
        limit: usize,
        each: impl FnMut(&str),
    ) {
        let members = match filter {
            TopicFilter::Cluster(cluster) => self.groups_of(cluster),
            _ => BTreeSet::new(),
        };
        let groups = &self.groups;
        let known = |group: GroupNo| groups.contains_key(&group);
        let (next, found) =
            self.topics
                .list(filter, &members, known, walk.cursor.take(), limit, each);
        walk.advance(next, found);
    }
}

/// How far a walk over the topics has come.
#[derive(Debug, Default)]
pub struct Walk {
    cursor: Option<Cursor>,
    done: bool,
    /// Topics that were changed or named so far.
    pub count: usize,
}

impl Walk {
    pub fn is_done(&self) -> bool {
        self.done
    }

    fn advance(&mut self, next: Option<Cursor>, count: usize) {
        self.count += count;
        self.done = next.is_none();
        self.cursor = next;
    }
}
