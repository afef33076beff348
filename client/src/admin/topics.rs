//! Topics: where they are, how full, made, changed and deleted.

use std::collections::BTreeMap;

use protocol::body::lists::TopicList;
use protocol::body::route::TopicRouteData;
use protocol::body::stats::TopicStats;
use protocol::body::topic_config::{TopicConfig, TopicConfigTable};
use protocol::code::{request, response};
use protocol::{Value, names, permission};
use serde::Serialize;

use super::{Admin, is_code};
use crate::error::{Error, Result};
use crate::routes::MASTER;

/// The namespace of ordered topics in the name server.
const ORDER_NAMESPACE: &str = "ORDER_TOPIC_CONFIG";

/// A topic as one broker keeps it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Topic {
    pub name: String,
    pub read_queues: i32,
    pub write_queues: i32,
    /// `RW-`, `R--`, ...
    pub perm: String,
    pub order: bool,
    pub attributes: BTreeMap<String, String>,
}

/// Where a topic is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Route {
    pub topic: String,
    pub brokers: Vec<RouteBroker>,
    pub queues: Vec<RouteQueues>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteBroker {
    pub cluster: String,
    pub name: String,
    /// By broker id; 0 is the master.
    pub addresses: BTreeMap<i64, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteQueues {
    pub broker: String,
    pub read_queues: i32,
    pub write_queues: i32,
    pub perm: String,
}

/// How full a queue is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct QueueStatus {
    pub broker: String,
    pub queue: i32,
    pub min_offset: i64,
    pub max_offset: i64,
    pub messages: i64,
    pub last_stored_ms: i64,
}

/// A topic to be made, or changed to be so.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTopic {
    pub name: String,
    pub read_queues: i32,
    pub write_queues: i32,
    /// 2: write, 4: read, 6: both.
    pub perm: i32,
    pub order: bool,
    /// `+name=value`, `-name`: settings of 5.x such as `+message.type=FIFO`.
    pub attributes: String,
}

impl NewTopic {
    /// 8 queues for reading and writing, as mqadmin makes topics.
    pub fn new(name: impl Into<String>) -> NewTopic {
        NewTopic {
            name: name.into(),
            read_queues: 8,
            write_queues: 8,
            perm: permission::READ_WRITE,
            order: false,
            attributes: String::new(),
        }
    }

    /// So many queues to read and to write.
    pub fn queues(mut self, queues: i32) -> NewTopic {
        self.read_queues = queues;
        self.write_queues = queues;
        self
    }
}

impl Admin {
    /// The names of all topics, those of the system and of groups among them.
    pub async fn topics(&self) -> Result<Vec<String>> {
        let code = request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER;
        let (address, answer) = self.ask_name_server(code, &[]).await?;
        let mut list: TopicList = answer.json(&address)?;
        list.topic_list.sort();
        Ok(list.topic_list)
    }

    /// All topics of one broker, as it keeps them.
    pub async fn topics_of(&self, address: &str) -> Result<Vec<Topic>> {
        let code = request::GET_ALL_TOPIC_CONFIG;
        let table: TopicConfigTable = self.json(address, code, &[]).await?;
        let topics = table.topic_config_table.into_values().map(Topic::from);
        Ok(topics.collect())
    }

    /// # Errors
    /// [`Error::NoRoute`] if no name server knows the topic.
    pub async fn route(&self, topic: &str) -> Result<Route> {
        let data = self.route_data(topic).await?;
        let broker = |broker: protocol::body::route::BrokerData| RouteBroker {
            cluster: broker.cluster,
            name: broker.broker_name,
            addresses: broker.broker_addrs,
        };
        let queues = |queues: protocol::body::route::QueueData| RouteQueues {
            broker: queues.broker_name,
            read_queues: queues.read_queue_nums,
            write_queues: queues.write_queue_nums,
            perm: permission::to_text(queues.perm),
        };
        Ok(Route {
            topic: topic.to_owned(),
            brokers: data.broker_datas.into_iter().map(broker).collect(),
            queues: data.queue_datas.into_iter().map(queues).collect(),
        })
    }

    pub(super) async fn route_data(&self, topic: &str) -> Result<TopicRouteData> {
        let fields = [
            ("topic", Value::Str(topic)),
            ("acceptStandardJsonOnly", Value::Bool(true)),
        ];
        let code = request::GET_ROUTEINFO_BY_TOPIC;
        match self.ask_name_server(code, &fields).await {
            Ok((address, answer)) => answer.json(&address),
            Err(error) if is_code(&error, response::TOPIC_NOT_EXIST) => Err(Error::NoRoute {
                topic: topic.to_owned(),
            }),
            Err(error) => Err(error),
        }
    }

    /// Name and address of each broker of a topic: the master, or a slave where there is none.
    pub(super) async fn brokers_of(&self, topic: &str) -> Result<Vec<(String, String)>> {
        let data = self.route_data(topic).await?;
        let address = |broker: protocol::body::route::BrokerData| {
            let addresses = &broker.broker_addrs;
            let found = addresses.get(&MASTER).or_else(|| addresses.values().next());
            found.cloned().map(|address| (broker.broker_name, address))
        };
        Ok(data.broker_datas.into_iter().filter_map(address).collect())
    }

    /// How full the queues of a topic are, broker by broker.
    ///
    /// # Errors
    /// [`Error::NoRoute`] if no name server knows the topic.
    pub async fn topic_status(&self, topic: &str) -> Result<Vec<QueueStatus>> {
        let mut all = Vec::new();
        for (_, address) in self.brokers_of(topic).await? {
            all.extend(self.topic_status_on(&address, topic).await?);
        }
        all.sort();
        Ok(all)
    }

    pub(super) async fn topic_status_on(
        &self,
        address: &str,
        topic: &str,
    ) -> Result<Vec<QueueStatus>> {
        let fields = [("topic", Value::Str(topic))];
        let code = request::GET_TOPIC_STATS_INFO;
        let answer = self.demand(address, code, &fields, b"").await?;
        let stats =
            TopicStats::from_json(answer.command().body).map_err(|error| Error::Broken {
                address: address.to_owned(),
                what: error.to_string(),
            })?;
        let status = |(queue, offset): (protocol::body::queue::MessageQueue, _)| {
            let offset: protocol::body::stats::TopicOffset = offset;
            QueueStatus {
                broker: queue.broker_name,
                queue: queue.queue_id,
                min_offset: offset.min_offset,
                max_offset: offset.max_offset,
                messages: offset.max_offset - offset.min_offset,
                last_stored_ms: offset.last_update_timestamp,
            }
        };
        Ok(stats.offsets.into_iter().map(status).collect())
    }

    /// Messages that were ever stored in the first queue of a broker's topic, also of one that is in no route; 0 if it
    /// has none.
    pub async fn end_of(&self, address: &str, topic: &str) -> Result<i64> {
        let fields = [("topic", Value::Str(topic)), ("queueId", Value::I32(0))];
        let code = request::GET_MAX_OFFSET;
        match self.demand(address, code, &fields, b"").await {
            Ok(answer) => answer.i64("offset", address),
            Err(Error::Refused { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Makes a topic on one broker, or changes it.
    ///
    /// # Errors
    /// [`Error::Illegal`] for a name or permission that cannot be, [`Error::Refused`] if the broker does not want it.
    pub async fn create_topic(&self, address: &str, topic: &NewTopic) -> Result<()> {
        names::validate_topic(&topic.name).map_err(|error| Error::Illegal(error.to_string()))?;
        if !permission::is_valid(topic.perm) {
            let perm = topic.perm;
            return Err(Error::Illegal(format!(
                "{perm} is no permission: 2, 4 or 6"
            )));
        }
        let mut fields = vec![
            ("topic", Value::Str(&topic.name)),
            ("defaultTopic", Value::Str(names::AUTO_CREATE_TOPIC)),
            ("readQueueNums", Value::I32(topic.read_queues)),
            ("writeQueueNums", Value::I32(topic.write_queues)),
            ("perm", Value::I32(topic.perm)),
            ("topicFilterType", Value::Str("SINGLE_TAG")),
            ("topicSysFlag", Value::I32(0)),
            ("order", Value::Bool(topic.order)),
        ];
        if !topic.attributes.is_empty() {
            fields.push(("attributes", Value::Str(&topic.attributes)));
        }
        let code = request::UPDATE_AND_CREATE_TOPIC;
        self.demand(address, code, &fields, b"").await?;
        Ok(())
    }

    /// A topic as one broker keeps it; `None` if it has no such topic.
    pub async fn topic_on(&self, address: &str, topic: &str) -> Result<Option<Topic>> {
        let fields = [("topic", Value::Str(topic)), ("lo", Value::Bool(true))];
        let code = request::GET_TOPIC_CONFIG;
        match self.json::<TopicConfig>(address, code, &fields).await {
            Ok(config) => Ok(Some(Topic::from(config))),
            Err(error) if is_code(&error, response::TOPIC_NOT_EXIST) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes what may be done with a topic (2: write, 4: read, 6: both) on one broker; its queues stay.
    ///
    /// # Errors
    /// [`Error::NoRoute`] if that broker has no such topic.
    pub async fn set_topic_perm(&self, address: &str, topic: &str, perm: i32) -> Result<()> {
        let known = self.topic_on(address, topic).await?;
        let known = known.ok_or_else(|| Error::NoRoute {
            topic: format!("{topic} on {address}"),
        })?;
        let changed = NewTopic {
            read_queues: known.read_queues,
            write_queues: known.write_queues,
            perm,
            order: known.order,
            ..NewTopic::new(topic)
        };
        self.create_topic(address, &changed).await
    }

    /// Deletes a topic from the masters of a cluster (or of all) and from the name servers: its messages are gone.
    ///
    /// # Errors
    /// [`Error::Refused`] for a topic of the system, [`Error::Illegal`] for a cluster that is none.
    pub async fn delete_topic(&self, topic: &str, cluster: Option<&str>) -> Result<()> {
        let fields = [("topic", Value::Str(topic))];
        for broker in self.masters(cluster).await? {
            let code = request::DELETE_TOPIC_IN_BROKER;
            self.demand(&broker.address, code, &fields, b"").await?;
        }
        let mut fields = fields.to_vec();
        if let Some(cluster) = cluster {
            fields.push(("clusterName", Value::Str(cluster)));
        }
        for address in &self.name_servers {
            let code = request::DELETE_TOPIC_IN_NAMESRV;
            self.demand(address, code, &fields, b"").await?;
        }
        self.delete_kv(ORDER_NAMESPACE, topic).await
    }
}

impl From<TopicConfig> for Topic {
    fn from(config: TopicConfig) -> Topic {
        Topic {
            name: config.topic_name,
            read_queues: config.read_queue_nums,
            write_queues: config.write_queue_nums,
            perm: permission::to_text(config.perm),
            order: config.order,
            attributes: config.attributes,
        }
    }
}
