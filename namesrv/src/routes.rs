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

/// What a broker says about itself when it registers.
#[derive(Clone, Debug)]
pub struct Registration<'a> {
    pub cluster: &'a str,
    pub broker_name: &'a str,
    pub broker_addr: &'a str,
    pub broker_id: i64,
    pub ha_addr: &'a str,
    pub zone: Option<&'a str>,
    /// How long its silence is to be borne, where it is not `BROKER_SILENCE_MAX`.
    pub silence_max: Option<Duration>,
    /// `None` from brokers older than 5.0, whose slaves never speak for their group.
    pub acting_master: Option<bool>,
    pub version: DataVersion,
    pub topics_in_body: usize,
    pub connection: ConnectionId,
}

/// The answer to a registration: what a slave needs to find its master.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    pub master_addr: Option<Arc<str>>,
    pub ha_addr: Option<Arc<str>>,
}

/// A registration under way: lets its topics be applied in slices.
#[derive(Debug)]
pub struct Ticket {
    key: BrokerKey,
    group: GroupNo,
    round: u64,
    take: Take,
    version: DataVersion,
    /// The topics are a slave's that stands in for its master: it can be read, not written.
    without_write: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Take {
    /// A slave's topics do not count.
    Nothing,
    /// The version is the known one: only what is not there yet is added, so that changes made here (write permission
    /// wiped) survive a broker that repeats itself.
    Missing,
    All,
}

#[derive(Debug)]
pub enum Admission {
    Admitted(Ticket),
    /// Another address holds this broker id with newer state: the registration is ignored without an error.
    Outdated,
}

/// Why a registration was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// One topic alone is a change to an earlier registration, and there is none.
    #[error("register broker failed")]
    NotRegisteredYet,
    #[error("register broker failed: more than {BROKERS_MAX} brokers")]
    TooManyBrokers,
    #[error("register broker failed: more than {TOPICS_MAX} topics")]
    TooManyTopics,
    /// The broker went away or registered again while this registration was still being applied.
    #[error("register broker failed: overtaken by another registration")]
    Overtaken,
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

    /// Registers a broker with all its topics in one step. The server applies large tables in slices instead.
    pub fn register(
        &mut self,
        registration: &Registration<'_>,
        topics: &[Topic],
        now: Instant,
    ) -> Result<Registered, Refused> {
        match self.admit(registration, now)? {
            Admission::Outdated => Ok(Registered::default()),
            Admission::Admitted(ticket) => {
                self.apply(&ticket, topics)?;
                self.seal(ticket, now)
            }
        }
    }

    /// First step: the broker itself is known from here on; its topics follow under the ticket.
    pub fn admit(
        &mut self,
        registration: &Registration<'_>,
        now: Instant,
    ) -> Result<Admission, Refused> {
        let key = BrokerKey::new(registration.cluster, registration.broker_addr);
        let group_no = self.group_numbers.get(registration.broker_name).copied();
        let held_by = group_no
            .and_then(|no| self.groups[&no].addrs.get(&registration.broker_id))
            .cloned();
        if let Some(holder) = held_by
            .as_deref()
            .filter(|holder| *holder != registration.broker_addr)
            && self.state_version(registration.cluster, holder)
                > Some(registration.version.state_version)
        {
            self.remove(&key);
            return Ok(Admission::Outdated);
        }
        if held_by.is_none() && registration.topics_in_body == 1 {
            return Err(Refused::NotRegisteredYet);
        }
        if self.live.len() >= BROKERS_MAX && !self.live.contains_key(&key) {
            return Err(Refused::TooManyBrokers);
        }

        // An address stands in one place only: a renamed broker leaves its old group, ...
        if let Some(before) = self
            .live
            .get(&key)
            .map(|live| live.group)
            .filter(|before| Some(*before) != group_no)
        {
            self.detach(before, &key.addr);
        }
        let group_no = group_no.unwrap_or_else(|| self.new_group(registration));
        self.join_cluster(registration.cluster, group_no);
        let group = self
            .groups
            .get_mut(&group_no)
            .expect("the group was found or made above");
        // ... and a slave that became the master its old id.
        group.addrs.retain(|_, addr| **addr != *key.addr);
        group
            .addrs
            .insert(registration.broker_id, Arc::from(registration.broker_addr));
        group.acting_master = registration.acting_master.unwrap_or(false);
        group.zone = registration.zone.map(Arc::from);

        let is_master = registration.broker_id == MASTER_ID;
        let first_id = *group
            .addrs
            .keys()
            .next()
            .expect("this broker was just added");
        let stands_in = !is_master
            && registration.acting_master.is_some()
            && first_id == registration.broker_id;
        let without_write = stands_in && group.acting_master;

        self.round_next += 1;
        let round = self.round_next;
        let known_version = self.live.get(&key).and_then(|live| live.version);
        let take = if !is_master && !stands_in {
            Take::Nothing
        } else if held_by.is_none() || known_version != Some(registration.version) {
            Take::All
        } else {
            Take::Missing
        };
        let live = Live {
            group: group_no,
            heard_at: now,
            silence_max: registration.silence_max.unwrap_or(BROKER_SILENCE_MAX),
            version: known_version,
            connection: registration.connection,
            ha_addr: Arc::from(registration.ha_addr),
            round,
        };
        if self.live.insert(key.clone(), live).is_none() {
            tracing::info!(
                cluster = registration.cluster,
                broker = registration.broker_name,
                id = registration.broker_id,
                address = registration.broker_addr,
                "broker registered"
            );
        }
        let version = registration.version;
        Ok(Admission::Admitted(Ticket {
            key,
            group: group_no,
            round,
            take,
            version,
            without_write,
        }))
    }

    /// Second step, as often as needed: some of the topics.
    pub fn apply(&mut self, ticket: &Ticket, topics: &[Topic]) -> Result<(), Refused> {
        self.check(ticket)?;
        if ticket.take == Take::Nothing {
            return Ok(());
        }
        for topic in topics {
            let queues = if ticket.without_write {
                topic.queues.without_write()
            } else {
                topic.queues
            };
            self.topics
                .put(&topic.name, ticket.group, queues, ticket.take == Take::All)?;
        }
        Ok(())
    }

    /// Last step: everything is applied, the version is known from now on.
    pub fn seal(&mut self, ticket: Ticket, now: Instant) -> Result<Registered, Refused> {
        self.check(&ticket)?;
        let live = self.live.get_mut(&ticket.key).expect("checked above");
        live.version = Some(ticket.version);
        live.heard_at = now;
        let group = &self.groups[&ticket.group];
        let is_master = group
            .addrs
            .get(&MASTER_ID)
            .is_some_and(|addr| **addr == *ticket.key.addr);
        let Some(master_addr) = group.addrs.get(&MASTER_ID).filter(|_| !is_master) else {
            return Ok(Registered::default());
        };
        let master = self
            .live
            .get(&BrokerKey::new(&ticket.key.cluster, master_addr));
        Ok(
            master.map_or_else(Registered::default, |master| Registered {
                master_addr: Some(master_addr.clone()),
                ha_addr: Some(master.ha_addr.clone()),
            }),
        )
    }

    fn check(&self, ticket: &Ticket) -> Result<(), Refused> {
        match self.live.get(&ticket.key) {
            Some(live) if live.round == ticket.round && live.group == ticket.group => Ok(()),
            _ => Err(Refused::Overtaken),
        }
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

    fn state_version(&self, cluster: &str, addr: &str) -> Option<i64> {
        self.version(cluster, addr)
            .map(|version| version.state_version)
    }

    fn groups_of(&self, cluster: &str) -> BTreeSet<GroupNo> {
        let names = self.clusters.get(cluster).into_iter().flatten();
        names
            .filter_map(|name| self.group_numbers.get(name).copied())
            .collect()
    }

    fn new_group(&mut self, registration: &Registration<'_>) -> GroupNo {
        self.group_no_next += 1;
        let no = GroupNo(self.group_no_next);
        let name: Arc<str> = Arc::from(registration.broker_name);
        let cluster = Arc::from(registration.cluster);
        let group = Group {
            name: name.clone(),
            cluster,
            addrs: BTreeMap::new(),
            zone: None,
            acting_master: false,
        };
        self.group_numbers.insert(name, no);
        let before = self.groups.insert(no, group);
        assert!(before.is_none(), "group numbers are used once");
        no
    }

    fn join_cluster(&mut self, cluster: &str, group: GroupNo) {
        let name = self.groups[&group].name.clone();
        match self.clusters.get_mut(cluster) {
            Some(names) => {
                names.insert(name);
            }
            None => {
                self.clusters
                    .insert(Arc::from(cluster), BTreeSet::from([name]));
            }
        }
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
