//! Consumer groups: who is in them, how far they are, made, changed and deleted.

use std::collections::{BTreeMap, BTreeSet};

use protocol::Value;
use protocol::body::connection::{ConsumerConnection, ProducerConnection};
use protocol::body::lists::{GroupList, TopicList};
use protocol::body::stats::ConsumeStats;
use protocol::body::subscription_group::{SubscriptionGroupConfig, SubscriptionGroupTable};
use protocol::code::{request, response};
use protocol::names;
use serde::Serialize;

use super::{Admin, is_code};
use crate::error::{Error, Result};

/// A group, and what is going on in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Group {
    pub name: String,
    /// Members that are connected.
    pub members: usize,
    /// `CLUSTERING`, `BROADCASTING`; unknown while nobody is connected.
    pub model: Option<String>,
    /// `CONSUME_PASSIVELY` (push), `CONSUME_ACTIVELY` (pull), ...
    pub kind: Option<String>,
    pub tps: f64,
    /// Messages that are not consumed yet.
    pub lag: i64,
}

/// A connected member of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Member {
    pub client_id: String,
    pub address: String,
    pub language: String,
    pub version: i32,
}

/// How far a group is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Progress {
    pub tps: f64,
    pub lag: i64,
    pub queues: Vec<QueueProgress>,
}

/// How far a group is in a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct QueueProgress {
    pub topic: String,
    pub broker: String,
    pub queue: i32,
    /// Behind the last message.
    pub broker_offset: i64,
    /// The first message that is not consumed.
    pub consumer_offset: i64,
    /// Behind the last message that was pulled.
    pub pull_offset: i64,
    pub lag: i64,
    /// When the last consumed message was stored.
    pub last_consumed_ms: i64,
}

impl Admin {
    /// The names of all groups of a cluster (or of all), those of the system among them.
    pub async fn group_names(&self, cluster: Option<&str>) -> Result<Vec<String>> {
        let mut all = BTreeSet::new();
        for broker in self.masters(cluster).await? {
            let groups = self.group_settings(&broker.address).await?;
            all.extend(groups.into_iter().map(|group| group.group_name));
        }
        Ok(all.into_iter().collect())
    }

    /// The groups of a cluster (or of all) that are not the system's, and what is going on in each.
    pub async fn groups(&self, cluster: Option<&str>) -> Result<Vec<Group>> {
        let mut groups = Vec::new();
        for name in self.group_names(cluster).await? {
            if !names::is_system_group(&name) {
                groups.push(self.group(&name).await?);
            }
        }
        Ok(groups)
    }

    /// What is going on in one group; one without members or offsets is quiet.
    pub async fn group(&self, name: &str) -> Result<Group> {
        let mut group = Group {
            name: name.to_owned(),
            ..Group::default()
        };
        if let Some(connection) = self.group_connection(name).await? {
            group.members = connection.connection_set.len();
            group.model = Some(wire_name(&connection.message_model));
            group.kind = Some(wire_name(&connection.consume_type));
        }
        match self.progress(name, None).await {
            Ok(progress) => {
                group.tps = progress.tps;
                group.lag = progress.lag;
            }
            Err(Error::Refused { .. } | Error::NoRoute { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(group)
    }

    /// The settings of all groups on a broker.
    pub async fn group_settings(&self, address: &str) -> Result<Vec<SubscriptionGroupConfig>> {
        let code = request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG;
        let table: SubscriptionGroupTable = self.json(address, code, &[]).await?;
        Ok(table.subscription_group_table.into_values().collect())
    }

    /// Makes a group on a broker, or changes it.
    ///
    /// # Errors
    /// [`Error::Illegal`] for a name that cannot be.
    pub async fn create_group(
        &self,
        address: &str,
        settings: &SubscriptionGroupConfig,
    ) -> Result<()> {
        names::validate_group(&settings.group_name)
            .map_err(|error| Error::Illegal(error.to_string()))?;
        let body = serde_json::to_vec(settings).expect("string keys");
        let code = request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
        self.demand(address, code, &[], &body).await?;
        Ok(())
    }

    /// Deletes a group from the masters of a cluster (or of all), with its offsets and its retry and dead-letter topics
    /// if asked so.
    pub async fn delete_group(
        &self,
        group: &str,
        cluster: Option<&str>,
        with_offsets: bool,
    ) -> Result<()> {
        let fields = [
            ("groupName", Value::Str(group)),
            ("cleanOffset", Value::Bool(with_offsets)),
        ];
        for broker in self.masters(cluster).await? {
            let code = request::DELETE_SUBSCRIPTIONGROUP;
            self.demand(&broker.address, code, &fields, b"").await?;
        }
        if with_offsets {
            for topic in [names::retry_topic(group), names::dlq_topic(group)] {
                self.delete_topic(&topic, cluster).await?;
            }
        }
        Ok(())
    }

    /// Who is in a group; nobody if it is not connected.
    pub async fn members(&self, group: &str) -> Result<Vec<Member>> {
        let connection = self.group_connection(group).await?.unwrap_or_default();
        Ok(sorted(connection.connection_set))
    }

    /// What a group's members subscribe to: expression and its kind, by topic.
    pub async fn subscriptions(&self, group: &str) -> Result<BTreeMap<String, String>> {
        let connection = self.group_connection(group).await?.unwrap_or_default();
        let shown = |(topic, data): (String, protocol::body::heartbeat::SubscriptionData)| {
            (
                topic,
                format!("{} {}", data.expression_type, data.sub_string),
            )
        };
        Ok(connection
            .subscription_table
            .into_iter()
            .map(shown)
            .collect())
    }

    async fn group_connection(&self, group: &str) -> Result<Option<ConsumerConnection>> {
        let fields = [("consumerGroup", Value::Str(group))];
        let mut all: Option<ConsumerConnection> = None;
        for broker in self.masters(None).await? {
            let code = request::GET_CONSUMER_CONNECTION_LIST;
            match self
                .json::<ConsumerConnection>(&broker.address, code, &fields)
                .await
            {
                Ok(connection) => match &mut all {
                    Some(known) => {
                        for one in connection.connection_set {
                            let is_same = |known: &protocol::body::connection::Connection| {
                                known.client_id == one.client_id
                            };
                            if !known.connection_set.iter().any(is_same) {
                                known.connection_set.push(one);
                            }
                        }
                        known
                            .subscription_table
                            .extend(connection.subscription_table);
                    }
                    None => all = Some(connection),
                },
                Err(error) if is_code(&error, response::CONSUMER_NOT_ONLINE) => {}
                // Brokers before 5.0 say so with a remark.
                Err(error) if is_code(&error, response::SYSTEM_ERROR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Who sends to a topic under a producer group.
    pub async fn producers(&self, group: &str) -> Result<Vec<Member>> {
        let fields = [("producerGroup", Value::Str(group))];
        let mut all = BTreeSet::new();
        for broker in self.masters(None).await? {
            let code = request::GET_PRODUCER_CONNECTION_LIST;
            match self
                .json::<ProducerConnection>(&broker.address, code, &fields)
                .await
            {
                Ok(connection) => all.extend(sorted(connection.connection_set)),
                Err(error) if is_code(&error, response::SYSTEM_ERROR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all.into_iter().collect())
    }

    /// How far a group is, in one topic or in all.
    ///
    /// # Errors
    /// [`Error::Refused`] if no broker knows the group.
    pub async fn progress(&self, group: &str, topic: Option<&str>) -> Result<Progress> {
        let fields = [
            ("consumerGroup", Value::Str(group)),
            ("topic", Value::Str(topic.unwrap_or_default())),
        ];
        let mut all = Progress::default();
        let mut refused = None;
        for broker in self.masters(None).await? {
            let code = request::GET_CONSUME_STATS;
            match self.demand(&broker.address, code, &fields, b"").await {
                Ok(answer) => {
                    let stats = ConsumeStats::from_json(answer.command().body);
                    let stats = stats.map_err(|error| Error::Broken {
                        address: broker.address.clone(),
                        what: error.to_string(),
                    })?;
                    all.tps += stats.consume_tps;
                    all.queues
                        .extend(stats.offsets.into_iter().map(queue_progress));
                }
                Err(error @ Error::Refused { .. }) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        match refused {
            Some(error) if all.queues.is_empty() => Err(error),
            _ => {
                all.queues.sort();
                all.lag = all.queues.iter().map(|queue| queue.lag).sum();
                Ok(all)
            }
        }
    }

    /// The groups that read a topic.
    pub async fn readers(&self, topic: &str) -> Result<Vec<String>> {
        let fields = [("topic", Value::Str(topic))];
        let mut all = BTreeSet::new();
        for (_, address) in self.brokers_of(topic).await? {
            let code = request::QUERY_TOPIC_CONSUME_BY_WHO;
            let list: GroupList = self.json(&address, code, &fields).await?;
            all.extend(list.group_list);
        }
        Ok(all.into_iter().collect())
    }

    /// The topics a group reads.
    pub async fn topics_read_by(&self, group: &str) -> Result<Vec<String>> {
        let fields = [("group", Value::Str(group))];
        let mut all = BTreeSet::new();
        for broker in self.masters(None).await? {
            let code = request::QUERY_TOPICS_BY_CONSUMER;
            let list: TopicList = self.json(&broker.address, code, &fields).await?;
            all.extend(list.topic_list);
        }
        Ok(all.into_iter().collect())
    }
}

fn queue_progress(
    (queue, offset): (
        protocol::body::queue::MessageQueue,
        protocol::body::stats::GroupOffset,
    ),
) -> QueueProgress {
    QueueProgress {
        topic: queue.topic,
        broker: queue.broker_name,
        queue: queue.queue_id,
        broker_offset: offset.broker_offset,
        consumer_offset: offset.consumer_offset,
        pull_offset: offset.pull_offset,
        lag: (offset.broker_offset - offset.consumer_offset).max(0),
        last_consumed_ms: offset.last_timestamp,
    }
}

fn sorted(connections: Vec<protocol::body::connection::Connection>) -> Vec<Member> {
    let member = |one: protocol::body::connection::Connection| Member {
        client_id: one.client_id,
        address: one.client_addr,
        language: one.language,
        version: one.version,
    };
    let mut all: Vec<Member> = connections.into_iter().map(member).collect();
    all.sort();
    all
}

/// A value as it is called on the wire.
fn wire_name(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}
