//! Where topics are: asked from one of the name servers, kept, and asked again every so often and after a failure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use protocol::body::queue::MessageQueue;
use protocol::body::route::TopicRouteData;
use protocol::code::{request, response};
use protocol::{Value, json, permission};

use crate::connection::refusal;
use crate::connections::Connections;
use crate::error::{Error, Result};
use crate::lock::Mutex;

/// The broker id of a master.
pub(crate) const MASTER: i64 = 0;

pub(crate) struct Routes {
    /// Replaced as a whole; never empty.
    name_servers: Mutex<Arc<[String]>>,
    /// The name server that answered last.
    current: AtomicUsize,
    by_topic: Mutex<HashMap<String, Arc<Route>>>,
    limit: Duration,
}

/// A topic's queues, in the same order for every client.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Route {
    pub writable: Vec<MessageQueue>,
    pub readable: Vec<MessageQueue>,
    /// Addresses by broker name and id.
    pub brokers: BTreeMap<String, BTreeMap<i64, String>>,
}

impl Route {
    fn of(topic: &str, data: TopicRouteData) -> Route {
        let brokers: BTreeMap<_, _> = data
            .broker_datas
            .into_iter()
            .map(|broker| (broker.broker_name, broker.broker_addrs))
            .collect();
        let mut route = Route {
            brokers,
            ..Route::default()
        };
        let mut queues = data.queue_datas;
        queues.sort_by(|a, b| a.broker_name.cmp(&b.broker_name));
        for queue in queues {
            let numbered = |count: i32| {
                let broker_name = queue.broker_name.clone();
                (0..count).map(move |queue_id| MessageQueue {
                    broker_name: broker_name.clone(),
                    queue_id,
                    topic: topic.to_owned(),
                })
            };
            // Only a master takes messages.
            if permission::is_writable(queue.perm) && route.master(&queue.broker_name).is_some() {
                route.writable.extend(numbered(queue.write_queue_nums));
            }
            if permission::is_readable(queue.perm) {
                route.readable.extend(numbered(queue.read_queue_nums));
            }
        }
        route
    }

    pub fn master(&self, broker_name: &str) -> Option<&str> {
        self.brokers
            .get(broker_name)?
            .get(&MASTER)
            .map(String::as_str)
    }

    /// The replica asked for, or whichever there is.
    pub fn replica(&self, broker_name: &str, id: i64) -> Option<&str> {
        let replicas = self.brokers.get(broker_name)?;
        replicas
            .get(&id)
            .or_else(|| replicas.values().next())
            .map(String::as_str)
    }
}

fn listed(name_servers: &str) -> Arc<[String]> {
    let list = name_servers.split(';').map(str::trim);
    list.filter(|address| !address.is_empty())
        .map(str::to_owned)
        .collect()
}

impl Routes {
    /// `name_servers` as in RocketMQ: `host:port;host:port`.
    pub fn new(name_servers: &str, limit: Duration) -> Result<Routes> {
        let name_servers = listed(name_servers);
        if name_servers.is_empty() {
            return Err(Error::NoNameServer);
        }
        // Clients spread over the name servers.
        let first = std::process::id() as usize % name_servers.len();
        Ok(Routes {
            name_servers: Mutex::new(name_servers),
            current: AtomicUsize::new(first),
            by_topic: Mutex::default(),
            limit,
        })
    }

    pub fn name_servers(&self) -> Arc<[String]> {
        self.name_servers.lock().clone()
    }

    /// From now on these are asked. Routes that are known stay until the next time they are asked for.
    pub fn use_name_servers(&self, name_servers: &str) {
        let listed = listed(name_servers);
        let mut current = self.name_servers.lock();
        if !listed.is_empty() && *current != listed {
            tracing::info!(name_servers, "other name servers");
            *current = listed;
        }
    }

    pub fn known(&self, topic: &str) -> Option<Arc<Route>> {
        self.by_topic.lock().get(topic).cloned()
    }

    /// The route as it is kept, or else as the name server tells it.
    pub async fn get(&self, topic: &str, connections: &Connections) -> Result<Arc<Route>> {
        match self.known(topic) {
            Some(route) => Ok(route),
            None => self.refresh(topic, connections).await,
        }
    }

    pub async fn refresh(&self, topic: &str, connections: &Connections) -> Result<Arc<Route>> {
        let data = self.ask(topic, connections).await?;
        let data = data.ok_or_else(|| Error::NoRoute {
            topic: topic.to_owned(),
        })?;
        Ok(self.keep(topic, Route::of(topic, data)))
    }

    /// For a topic that nobody has made yet: where the default topic is, the first message will make it.
    pub async fn borrow_default(
        &self,
        topic: &str,
        default_topic: &str,
        queues: i32,
        connections: &Connections,
    ) -> Result<Arc<Route>> {
        let data = self.ask(default_topic, connections).await?;
        let mut data = data.ok_or_else(|| Error::NoRoute {
            topic: topic.to_owned(),
        })?;
        for queue in &mut data.queue_datas {
            queue.write_queue_nums = queue.write_queue_nums.min(queues);
            queue.read_queue_nums = queue.write_queue_nums;
        }
        Ok(self.keep(topic, Route::of(topic, data)))
    }

    /// Asks again for every topic that was ever asked for; one that cannot be had now stays as it was.
    pub async fn refresh_all(&self, connections: &Connections) {
        let topics: Vec<String> = self.by_topic.lock().keys().cloned().collect();
        for topic in topics {
            if let Err(error) = self.refresh(&topic, connections).await {
                tracing::debug!(topic, %error, "the route stays as it was");
            }
        }
    }

    /// Every broker of every topic in use: its name, id and address.
    pub fn brokers(&self) -> Vec<(i64, String)> {
        let mut all = BTreeMap::new();
        for route in self.by_topic.lock().values() {
            for (id, address) in route.brokers.values().flatten() {
                all.insert(address.clone(), *id);
            }
        }
        all.into_iter().map(|(address, id)| (id, address)).collect()
    }

    fn keep(&self, topic: &str, route: Route) -> Arc<Route> {
        let route = Arc::new(route);
        self.by_topic.lock().insert(topic.to_owned(), route.clone());
        route
    }

    /// Asks one name server after the other until one answers; `None`: it knows no such topic.
    async fn ask(&self, topic: &str, connections: &Connections) -> Result<Option<TopicRouteData>> {
        let name_servers = self.name_servers();
        let first = self.current.load(Ordering::Relaxed);
        let mut last = Error::NoNameServer;
        for turn in 0..name_servers.len() {
            let number = (first + turn) % name_servers.len();
            let asked = self.ask_one(&name_servers[number], topic, connections);
            match asked.await {
                Ok(found) => {
                    self.current.store(number, Ordering::Relaxed);
                    return Ok(found);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask_one(
        &self,
        address: &str,
        topic: &str,
        connections: &Connections,
    ) -> Result<Option<TopicRouteData>> {
        let fields = [
            ("topic", Value::Str(topic)),
            ("acceptStandardJsonOnly", Value::Bool(true)),
        ];
        let connection = connections.get(address).await?;
        let answer = connection
            .call(request::GET_ROUTEINFO_BY_TOPIC, &fields, b"", self.limit)
            .await?;
        let command = answer.command();
        match command.code {
            response::SUCCESS => {
                json::from_slice(command.body)
                    .map(Some)
                    .map_err(|error| Error::Broken {
                        address: address.to_owned(),
                        what: error.to_string(),
                    })
            }
            response::TOPIC_NOT_EXIST => Ok(None),
            _ => Err(refusal(&command)),
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::body::route::{BrokerData, QueueData};

    use super::*;

    fn data(perm: i32, id: i64) -> TopicRouteData {
        TopicRouteData {
            broker_datas: vec![BrokerData {
                broker_name: "b".into(),
                broker_addrs: [(id, "host:1".to_owned())].into(),
                ..BrokerData::default()
            }],
            queue_datas: vec![QueueData {
                broker_name: "b".into(),
                perm,
                read_queue_nums: 3,
                write_queue_nums: 2,
                topic_sys_flag: 0,
            }],
            ..TopicRouteData::default()
        }
    }

    #[test]
    fn permissions_decide_which_queues_are_seen() {
        let all = Route::of("t", data(6, 0));
        assert_eq!((all.writable.len(), all.readable.len()), (2, 3));
        let read_only = Route::of("t", data(4, 0));
        assert_eq!((read_only.writable.len(), read_only.readable.len()), (0, 3));
    }

    #[test]
    fn without_a_master_one_can_read_but_not_write() {
        let slave = Route::of("t", data(6, 1));
        assert_eq!((slave.writable.len(), slave.readable.len()), (0, 3));
        assert_eq!(slave.replica("b", MASTER), Some("host:1"));
    }

    #[test]
    fn an_empty_list_of_name_servers_is_refused() {
        assert!(matches!(
            Routes::new(" ; ", Duration::ZERO),
            Err(Error::NoNameServer)
        ));
    }
}
