//! Who is connected: the members of consumer and producer groups, as their heartbeats say.
//!
//! Owned by the coordinator. A member is a connection, as in RocketMQ: two clients on one connection are one member. Every
//! change comes back as what to tell whom; nothing is sent from here.

mod list;
mod telling;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use protocol::Language;
use protocol::body::heartbeat::{
    ConsumeFromWhere, ConsumeType, ConsumerData, MessageModel, SubscriptionData,
};
use reactor::Instant;

use crate::messages::ConnId;
use list::ListAnswer;
use telling::Pause;
pub use telling::Telling;

#[derive(Debug, Default)]
pub struct Clients {
    consumers: HashMap<Arc<str>, ConsumerGroup>,
    producers: HashMap<Arc<str>, BTreeMap<ConnId, Client>>,
    connections: HashMap<ConnId, Groups>,
    /// Where each client with a producer was heard last: there it takes what others reply.
    producer_ids: HashMap<String, ConnId>,
}

/// One client behind one connection, in one group.
#[derive(Clone, Debug)]
pub struct Client {
    pub id: String,
    pub peer: SocketAddr,
    pub language: Language,
    pub version: i32,
    /// When its last heartbeat came.
    pub seen_ms: u64,
}

#[derive(Debug)]
pub struct ConsumerGroup {
    pub consume_type: ConsumeType,
    pub message_model: MessageModel,
    pub consume_from_where: ConsumeFromWhere,
    pub members: BTreeMap<ConnId, Client>,
    /// By topic; one for the whole group: the last heartbeat wins.
    pub subscriptions: BTreeMap<String, SubscriptionData>,
    /// Of the last heartbeat in the short form (5.x); 0 is the long form.
    pub fingerprint: i32,
    pause: Pause,
    list: ListAnswer,
}

impl ConsumerGroup {
    pub fn is_broadcasting(&self) -> bool {
        self.message_model == MessageModel::Broadcasting
    }

    pub fn connection_of(&self, client_id: &str) -> Option<ConnId> {
        let mut members = self.members.iter();
        let found = members.find(|(_, client)| client.id == client_id);
        found.map(|(conn, _)| *conn)
    }

    /// Each client once, also when it came over two connections.
    pub fn client_ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.members.values().map(|c| c.id.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The same as clients are told it. After a change every member asks for this.
    pub fn list_answer(&self) -> Vec<u8> {
        self.list.of(|| self.client_ids())
    }
}

#[derive(Debug, Default)]
struct Groups {
    consumers: Vec<Arc<str>>,
    producers: Vec<Arc<str>>,
}

/// What a heartbeat or a departure changed in a consumer group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// A member came or went, or the set of topics is another one: the members are to be told.
    pub members_must_know: bool,
    /// Pulls must see the new subscriptions.
    pub subscriptions: bool,
    /// It wants something else than the other members do: whose heartbeat came last decides for all.
    pub disagrees: bool,
    /// Another member's last heartbeat had another fingerprint, or the subscriptions are not known at all.
    pub send_in_full: bool,
}

/// The form of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Long,
    /// 5.x, with everything in it.
    Full {
        fingerprint: i32,
    },
    /// 5.x, confirming what a full one said.
    Short {
        fingerprint: i32,
    },
}

impl Form {
    fn fingerprint(self) -> i32 {
        match self {
            Self::Long => 0,
            Self::Full { fingerprint } | Self::Short { fingerprint } => fingerprint,
        }
    }
}

impl Clients {
    pub fn consumer_heartbeat(
        &mut self,
        conn: ConnId,
        client: Client,
        data: &ConsumerData,
        form: Form,
    ) -> Change {
        let name = match self.consumers.get_key_value(data.group_name.as_str()) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(data.group_name.as_str()),
        };
        let mut new_group = false;
        let group = self.consumers.entry(Arc::clone(&name)).or_insert_with(|| {
            new_group = true;
            ConsumerGroup {
                consume_type: data.consume_type,
                message_model: data.message_model,
                consume_from_where: data.consume_from_where,
                members: BTreeMap::new(),
                subscriptions: BTreeMap::new(),
                fingerprint: form.fingerprint(),
                pause: Pause::default(),
                list: ListAnswer::default(),
            }
        });
        group.consume_type = data.consume_type;
        group.message_model = data.message_model;
        group.consume_from_where = data.consume_from_where;
        let id = client.id.clone();
        let before = group.members.insert(conn, client);
        let joined = before.is_none();
        if before.is_none_or(|before| before.id != id) {
            group.list.is_old();
        }
        if joined {
            let groups = self.connections.entry(conn).or_default();
            groups.consumers.push(name);
        }
        let subscribed = match form {
            Form::Short { .. } => Subscribed::default(),
            Form::Long | Form::Full { .. } => {
                update_subscriptions(&mut group.subscriptions, &data.subscription_data_set)
            }
        };
        let before = std::mem::replace(&mut group.fingerprint, form.fingerprint());
        let unknown = matches!(form, Form::Short { .. }) && group.subscriptions.is_empty();
        Change {
            members_must_know: joined || subscribed.topics,
            subscriptions: new_group || subscribed.topics || subscribed.expressions,
            disagrees: group.members.len() > 1 && subscribed.otherwise,
            send_in_full: unknown || before != form.fingerprint(),
        }
    }

    pub fn producer_heartbeat(&mut self, conn: ConnId, client: Client, group: &str) {
        let name = match self.producers.get_key_value(group) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(group),
        };
        match self.producer_ids.get_mut(&client.id) {
            Some(known) => *known = conn,
            None => {
                self.producer_ids.insert(client.id.clone(), conn);
            }
        }
        let members = self.producers.entry(Arc::clone(&name)).or_default();
        if members.insert(conn, client).is_none() {
            self.connections
                .entry(conn)
                .or_default()
                .producers
                .push(name);
        }
    }

    /// True if the connection was a member.
    pub fn consumer_leaves(&mut self, conn: ConnId, group: &str) -> bool {
        if let Some(groups) = self.connections.get_mut(&conn) {
            groups.consumers.retain(|name| **name != *group);
        }
        self.forget_idle_connection(conn);
        remove_consumer(&mut self.consumers, conn, group)
    }

    pub fn producer_leaves(&mut self, conn: ConnId, group: &str) {
        if let Some(groups) = self.connections.get_mut(&conn) {
            groups.producers.retain(|name| **name != *group);
        }
        self.forget_idle_connection(conn);
        let gone = remove_producer(&mut self.producers, conn, group);
        let others = self.connections.get(&conn);
        if others.is_none_or(|groups| groups.producers.is_empty()) {
            self.forget_producer_id(conn, gone);
        }
    }

    fn forget_idle_connection(&mut self, conn: ConnId) {
        let idle = |groups: &Groups| groups.consumers.is_empty() && groups.producers.is_empty();
        if self.connections.get(&conn).is_some_and(idle) {
            self.connections.remove(&conn);
        }
    }

    /// The connection is gone: the consumer groups it was in.
    pub fn connection_closed(&mut self, conn: ConnId) -> Vec<Arc<str>> {
        let groups = self.connections.remove(&conn).unwrap_or_default();
        for name in &groups.producers {
            let gone = remove_producer(&mut self.producers, conn, name);
            self.forget_producer_id(conn, gone);
        }
        for name in &groups.consumers {
            remove_consumer(&mut self.consumers, conn, name);
        }
        groups.consumers
    }

    /// Connections with a member that no heartbeat has named for `expires_after_ms`. One group is enough: a connection that
    /// goes on for others must not keep the queues of a consumer that is gone.
    pub fn silent(&self, now_ms: u64, expires_after_ms: u64) -> Vec<ConnId> {
        let is_silent = |client: &Client| now_ms.saturating_sub(client.seen_ms) > expires_after_ms;
        let all = self.connections.iter().filter(|(conn, groups)| {
            let consumers = groups.consumers.iter();
            let producers = groups.producers.iter();
            let mut clients = consumers
                .filter_map(|name| self.consumers.get(name)?.members.get(*conn))
                .chain(producers.filter_map(|name| self.producers.get(name)?.get(*conn)));
            clients.any(is_silent)
        });
        let mut silent: Vec<ConnId> = all.map(|(conn, _)| *conn).collect();
        silent.sort_unstable();
        silent
    }

    pub fn consumer_group(&self, group: &str) -> Option<&ConsumerGroup> {
        self.consumers.get(group)
    }

    pub fn consumer_groups(&self) -> impl Iterator<Item = (&Arc<str>, &ConsumerGroup)> {
        self.consumers.iter()
    }

    /// A group's members have changed: when they are to be told. None: nobody is in it.
    pub fn telling(&mut self, group: &str, now: Instant) -> Option<Telling> {
        let group = self.consumers.get_mut(group)?;
        Some(group.pause.changed(group.members.len(), now))
    }

    /// The pause after the last notices is over: whether there is something to tell.
    pub fn telling_again(&mut self, group: &str, now: Instant) -> Option<Telling> {
        let group = self.consumers.get_mut(group)?;
        group.pause.over(group.members.len(), now)
    }

    /// Live groups that subscribe to a topic.
    pub fn groups_of_topic(&self, topic: &str) -> Vec<String> {
        let subscribed = |group: &ConsumerGroup| group.subscriptions.contains_key(topic);
        let groups = self.consumers.iter().filter(|(_, group)| subscribed(group));
        let mut names: Vec<String> = groups.map(|(name, _)| name.to_string()).collect();
        names.sort_unstable();
        names
    }

    /// Where the client takes replies.
    pub fn producer_connection(&self, client_id: &str) -> Option<ConnId> {
        self.producer_ids.get(client_id).copied()
    }

    fn forget_producer_id(&mut self, conn: ConnId, gone: Option<Client>) {
        if let Some(client) = gone
            && self.producer_ids.get(&client.id) == Some(&conn)
        {
            self.producer_ids.remove(&client.id);
        }
    }

    pub fn producers(&self, group: &str) -> Option<&BTreeMap<ConnId, Client>> {
        self.producers.get(group)
    }

    pub fn producer_groups(&self) -> impl Iterator<Item = (&Arc<str>, &BTreeMap<ConnId, Client>)> {
        self.producers.iter()
    }
}

fn remove_consumer(
    groups: &mut HashMap<Arc<str>, ConsumerGroup>,
    conn: ConnId,
    name: &str,
) -> bool {
    let Some(group) = groups.get_mut(name) else {
        return false;
    };
    let removed = group.members.remove(&conn).is_some();
    group.list.is_old();
    if group.members.is_empty() {
        groups.remove(name);
    }
    removed
}

fn remove_producer(
    groups: &mut HashMap<Arc<str>, BTreeMap<ConnId, Client>>,
    conn: ConnId,
    name: &str,
) -> Option<Client> {
    let members = groups.get_mut(name)?;
    let gone = members.remove(&conn);
    if members.is_empty() {
        groups.remove(name);
    }
    gone
}

#[derive(Clone, Copy, Debug, Default)]
struct Subscribed {
    topics: bool,
    expressions: bool,
    /// Not what was known, by topics or by words.
    otherwise: bool,
}

/// Takes over newer subscriptions and forgets topics that are no longer there.
fn update_subscriptions(
    known: &mut BTreeMap<String, SubscriptionData>,
    given: &[SubscriptionData],
) -> Subscribed {
    let mut changed = Subscribed::default();
    let is_first = known.is_empty();
    for subscription in given {
        let old = known.get_mut(&subscription.topic);
        changed.otherwise |= old.as_deref().is_none_or(|old| {
            old.sub_string != subscription.sub_string
                || old.expression_type != subscription.expression_type
        });
        match old {
            Some(old) if subscription.sub_version > old.sub_version => {
                *old = subscription.clone();
                changed.expressions = true;
            }
            Some(_) => {}
            None => {
                known.insert(subscription.topic.clone(), subscription.clone());
                changed.topics = true;
            }
        }
    }
    let before = known.len();
    known.retain(|topic, _| given.iter().any(|s| s.topic == *topic));
    changed.topics |= known.len() != before;
    changed.otherwise = !is_first && (changed.otherwise || known.len() != before);
    changed
}

#[cfg(test)]
mod tests;
