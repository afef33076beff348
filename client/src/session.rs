//! What a producer and a consumer have in common: an identity, connections, routes and the settings around them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use protocol::Value;
use protocol::body::heartbeat::HeartbeatData;
use protocol::code::request;
use tokio::sync::mpsc;

use crate::connection::Asked;
use crate::connections::Connections;
use crate::error::{Error, Result};
use crate::message_id::{MessageIds, local_ip};
use crate::routes::{MASTER, Route, Routes};

/// Requests from brokers that have not been looked at yet.
const ASKED_MAX: usize = 256;

/// How a client reaches its brokers and how often it looks after itself. RocketMQ's own values are the defaults.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub name_servers: String,
    /// For one request and its answer.
    pub call_limit: Duration,
    pub connect_limit: Duration,
    pub route_interval: Duration,
    pub heartbeat_interval: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            name_servers: std::env::var("NAMESRV_ADDR").unwrap_or_default(),
            call_limit: Duration::from_secs(3),
            connect_limit: Duration::from_secs(3),
            route_interval: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(30),
        }
    }
}

pub(crate) struct Session {
    pub client_id: String,
    pub connections: Connections,
    pub routes: Routes,
    pub ids: MessageIds,
    pub settings: Settings,
}

impl Session {
    pub fn new(settings: Settings) -> Result<(Arc<Session>, mpsc::Receiver<Asked>)> {
        let routes = Routes::new(&settings.name_servers, settings.call_limit)?;
        let ip = local_ip(routes.first_name_server());
        let (sender, asked) = mpsc::channel(ASKED_MAX);
        let session = Session {
            client_id: format!("{ip}@{}#{}", std::process::id(), number_in_process()),
            connections: Connections::new(settings.connect_limit, sender),
            routes,
            ids: MessageIds::new(ip),
            settings,
        };
        Ok((Arc::new(session), asked))
    }

    pub async fn route(&self, topic: &str) -> Result<Arc<Route>> {
        self.routes.get(topic, &self.connections).await
    }

    /// Tells brokers who we are; one that cannot be told now is told the next time.
    pub async fn heartbeat(&self, data: &HeartbeatData, masters_only: bool) {
        let body = serde_json::to_vec(data).expect("a heartbeat has string keys");
        for (_, address) in self.brokers(masters_only) {
            if let Err(error) = self.tell_alive(&address, &body).await {
                tracing::debug!(address, %error, "no heartbeat");
            }
        }
    }

    async fn tell_alive(&self, address: &str, body: &[u8]) -> Result<()> {
        let connection = self.connections.get(address).await?;
        connection
            .demand(request::HEART_BEAT, &[], body, self.settings.call_limit)
            .await?;
        Ok(())
    }

    /// Leaves a group on every broker, so that the others take over at once.
    pub async fn unregister(&self, group_field: &'static str, group: &str) {
        let fields = [
            ("clientID", Value::Str(&self.client_id)),
            (group_field, Value::Str(group)),
        ];
        for (_, address) in self.brokers(false) {
            let left: Result<()> = async {
                let connection = self.connections.get(&address).await?;
                connection
                    .demand(
                        request::UNREGISTER_CLIENT,
                        &fields,
                        b"",
                        self.settings.call_limit,
                    )
                    .await?;
                Ok(())
            }
            .await;
            if let Err(error) = left {
                tracing::debug!(address, %error, "not unregistered");
            }
        }
    }

    fn brokers(&self, masters_only: bool) -> Vec<(i64, String)> {
        let mut brokers = self.routes.brokers();
        brokers.retain(|(id, _)| !masters_only || *id == MASTER);
        brokers
    }

    pub fn address_of_master(&self, route: &Route, broker_name: &str) -> Result<String> {
        let master = route.master(broker_name).map(str::to_owned);
        master.ok_or_else(|| Error::NoRoute {
            topic: format!("on {broker_name}"),
        })
    }
}

/// Clients of one process have different ids, and a new process differs from the one before it.
fn number_in_process() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let started = crate::message_id::now_ms() as u64;
    (started << 16) + NEXT.fetch_add(1, Ordering::Relaxed)
}
