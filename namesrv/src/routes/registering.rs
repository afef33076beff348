//! Brokers that register, in three steps, so that a table of any size is applied in slices: `admit` makes the broker known,
//! `apply` takes some of its topics at a time, `seal` stores the version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use protocol::body::topic_config::DataVersion;
use reactor::Instant;

use super::{
    BROKER_SILENCE_MAX, BROKERS_MAX, BrokerKey, ConnectionId, Group, GroupNo, Live, MASTER_ID,
    Routes, TOPICS_MAX, Topic,
};

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

impl Routes {
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

    fn state_version(&self, cluster: &str, addr: &str) -> Option<i64> {
        self.version(cluster, addr)
            .map(|version| version.state_version)
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
}
