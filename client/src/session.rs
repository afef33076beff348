//! What producers and consumers have in common: an identity, connections, routes, and telling brokers who we are.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use protocol::Value;
use protocol::body::heartbeat::HeartbeatData;
use protocol::body::queue::MessageQueue;
use protocol::code::request;
use tokio::sync::mpsc;

use crate::address_server::{self, PERIOD};
use crate::connection::{Asked, Connection};
use crate::connections::Connections;
use crate::error::{Error, Result};
use crate::lock::Mutex;
use crate::message_id::{MessageIds, local_ip};
use crate::routes::{MASTER, Route, Routes};
use crate::settings::Settings;

/// Requests from brokers that have not been looked at yet.
const ASKED_MAX: usize = 256;

pub(crate) struct Session {
    pub client_id: String,
    pub connections: Connections,
    pub routes: Routes,
    pub ids: MessageIds,
    pub settings: Settings,
    /// The connections on which brokers have had our heartbeat: one that was restarted knows us no more.
    told: Mutex<HashMap<String, Weak<Connection>>>,
}

impl Session {
    /// Where no name server is given the address server is asked, if there is one.
    pub async fn start(settings: Settings) -> Result<(Arc<Session>, mpsc::Receiver<Asked>)> {
        let given = Routes::new(&settings.name_servers, settings.call_limit);
        let follows = given.is_err() && !settings.address_server.domain.is_empty();
        let url = settings.address_server.url(&settings.unit_name);
        let routes = match follows {
            true => Routes::new(&address_server::ask(&url).await?, settings.call_limit)?,
            false => given?,
        };
        let ip = settings
            .client_ip
            .unwrap_or_else(|| local_ip(&routes.name_servers()[0]));
        let (sender, asked) = mpsc::channel(ASKED_MAX);
        let session = Session {
            client_id: client_id(ip, &settings),
            connections: Connections::new(settings.connect_limit, sender),
            routes,
            ids: MessageIds::new(ip),
            settings,
            told: Mutex::default(),
        };
        let session = Arc::new(session);
        if follows {
            let following = address_server::follow(Arc::downgrade(&session), url, PERIOD);
            // Ends with the session.
            tokio::spawn(following);
        }
        Ok((session, asked))
    }

    pub async fn route(&self, topic: &str) -> Result<Arc<Route>> {
        self.routes.get(topic, &self.connections).await
    }

    /// Tells brokers who we are; one that cannot be told now is told the next time.
    pub async fn heartbeat(&self, data: &HeartbeatData, masters_only: bool) {
        let body = serde_json::to_vec(data).expect("a heartbeat has string keys");
        for address in self.brokers(masters_only) {
            self.tell_or_note(&address, &body).await;
        }
    }

    /// The same to those brokers only that do not know us.
    pub async fn heartbeat_to_new(&self, data: &HeartbeatData, masters_only: bool) {
        let mut new = self.brokers(masters_only);
        {
            let told = self.told.lock();
            let knows_us = |address: &String| {
                let connection = told.get(address).and_then(Weak::upgrade);
                connection.is_some_and(|connection| !connection.is_closed())
            };
            new.retain(|address| !knows_us(address));
        }
        if new.is_empty() {
            return;
        }
        let body = serde_json::to_vec(data).expect("a heartbeat has string keys");
        for address in new {
            self.tell_or_note(&address, &body).await;
        }
    }

    async fn tell_or_note(&self, address: &str, body: &[u8]) {
        match self.tell_alive(address, body).await {
            Ok(connection) => {
                let connection = Arc::downgrade(&connection);
                self.told.lock().insert(address.to_owned(), connection);
            }
            Err(error) => {
                self.told.lock().remove(address);
                tracing::debug!(address, %error, "no heartbeat");
            }
        }
    }

    async fn tell_alive(&self, address: &str, body: &[u8]) -> Result<Arc<Connection>> {
        let connection = self.connections.get(address).await?;
        connection
            .demand(request::HEART_BEAT, &[], body, self.settings.call_limit)
            .await?;
        Ok(connection)
    }

    /// Leaves a group on every broker, so that the others take over at once.
    pub async fn unregister(&self, group_field: &'static str, group: &str) {
        let fields = [
            ("clientID", Value::Str(&self.client_id)),
            (group_field, Value::Str(group)),
        ];
        for address in self.brokers(false) {
            let left: Result<()> = async {
                let connection = self.connections.get(&address).await?;
                let limit = self.settings.call_limit;
                connection
                    .demand(request::UNREGISTER_CLIENT, &fields, b"", limit)
                    .await?;
                Ok(())
            }
            .await;
            if let Err(error) = left {
                tracing::debug!(address, %error, "not unregistered");
            }
        }
    }

    fn brokers(&self, masters_only: bool) -> Vec<String> {
        let brokers = self.routes.brokers().into_iter();
        brokers
            .filter(|(id, _)| !masters_only || *id == MASTER)
            .map(|(_, address)| address)
            .collect()
    }

    pub fn address_of_master(&self, route: &Route, broker_name: &str) -> Result<String> {
        let master = route.master(broker_name).map(str::to_owned);
        master.ok_or_else(|| Error::NoRoute {
            topic: format!("on {broker_name}"),
        })
    }

    /// A connection to the replica asked for of the broker that has the queue, or to whichever there is.
    pub async fn connect(&self, queue: &MessageQueue, replica: i64) -> Result<Arc<Connection>> {
        let route = self.route(&queue.topic).await?;
        let address = route.replica(&queue.broker_name, replica);
        let address = address.ok_or_else(|| Error::NoRoute {
            topic: queue.topic.clone(),
        })?;
        self.connections.get(address).await
    }
}

fn client_id(ip: Ipv4Addr, settings: &Settings) -> String {
    let instance = match settings.instance_name.as_str() {
        "" => format!("{}#{}", std::process::id(), number_in_process()),
        name => name.to_owned(),
    };
    match settings.unit_name.as_str() {
        "" => format!("{ip}@{instance}"),
        unit => format!("{ip}@{instance}@{unit}"),
    }
}

/// Clients of one process have different ids, and a new process differs from the one before it.
fn number_in_process() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let started = crate::message_id::now_ms() as u64;
    (started << 16) + NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_known_by_its_names_or_by_a_number_of_its_own() {
        let ip = Ipv4Addr::LOCALHOST;
        let named = Settings {
            instance_name: "DEFAULT".into(),
            unit_name: "u".into(),
            ..Settings::default()
        };
        assert_eq!(client_id(ip, &named), "127.0.0.1@DEFAULT@u");
        let unnamed = Settings::default();
        assert_ne!(client_id(ip, &unnamed), client_id(ip, &unnamed));
    }
}
