//! What operators do: ask and change brokers and name servers. An [`Admin`] does nothing by itself: no heartbeats, no
//! tasks but those of a connection, which is opened when it is first needed. Every call goes straight to who knows.
//!
//! What is returned can be written as JSON; times are in milliseconds since 1970, offsets in messages.

mod brokers;
mod clusters;
mod doctor;
mod groups;
mod messages;
mod offsets;
mod running;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use protocol::Value;
use protocol::code::request;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::connection::{Answer, Connection, Fields};
use crate::connections::Connections;
use crate::error::{Error, Result};

pub use self::brokers::{Runtime, Setting};
pub use self::clusters::Broker;
pub use self::doctor::{Finding, Severity};
pub use self::groups::{Group, Member, Progress, QueueProgress};
pub use self::messages::{Found, IndexEntry};
pub use self::offsets::{Moved, Target};
pub use self::running::Running;
pub use self::topics::{NewTopic, QueueStatus, Route, RouteBroker, RouteQueues, Topic};

/// For one request and its answer.
const LIMIT_DEFAULT: Duration = Duration::from_secs(5);

/// Asks and changes a cluster.
///
/// ```no_run
/// # async fn run() -> orbitmq_client::Result<()> {
/// use orbitmq_client::admin::Admin;
///
/// let admin = Admin::new("127.0.0.1:9876")?;
/// for broker in admin.brokers().await? {
///     println!("{} {} {}", broker.cluster, broker.name, broker.address);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Admin {
    name_servers: Vec<String>,
    connections: Connections,
    limit: Duration,
}

impl Admin {
    /// `name_servers`: `host:port`, several separated by `;`.
    ///
    /// # Errors
    /// [`Error::NoNameServer`] if there is none in it.
    pub fn new(name_servers: &str) -> Result<Admin> {
        let all = name_servers.split(';').map(str::trim);
        let name_servers: Vec<String> = all
            .filter(|address| !address.is_empty())
            .map(str::to_owned)
            .collect();
        if name_servers.is_empty() {
            return Err(Error::NoNameServer);
        }
        // Nobody asks an operator anything.
        let (asked, _) = mpsc::channel(1);
        Ok(Admin {
            name_servers,
            connections: Connections::new(LIMIT_DEFAULT, asked),
            limit: LIMIT_DEFAULT,
        })
    }

    /// For every request and its answer; 5 s unless said otherwise.
    pub fn timeout(mut self, limit: Duration) -> Admin {
        self.limit = limit;
        self
    }

    /// The addresses it was given.
    pub fn name_servers(&self) -> &[String] {
        &self.name_servers
    }

    async fn connect(&self, address: &str) -> Result<Arc<Connection>> {
        self.connections.get(address).await
    }

    /// A request that must succeed.
    async fn demand(
        &self,
        address: &str,
        code: i32,
        fields: Fields<'_>,
        body: &[u8],
    ) -> Result<Answer> {
        let connection = self.connect(address).await?;
        connection.demand(code, fields, body, self.limit).await
    }

    /// The same, with an answer in JSON.
    async fn json<T: DeserializeOwned>(
        &self,
        address: &str,
        code: i32,
        fields: Fields<'_>,
    ) -> Result<T> {
        self.demand(address, code, fields, b"").await?.json(address)
    }

    /// Asks one name server after the other until one answers.
    async fn ask_name_server(&self, code: i32, fields: Fields<'_>) -> Result<(String, Answer)> {
        let mut last = Error::NoNameServer;
        for address in &self.name_servers {
            match self.demand(address, code, fields, b"").await {
                Ok(answer) => return Ok((address.clone(), answer)),
                // It knows, and another would know the same.
                Err(error @ Error::Refused { .. }) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The KV configuration of the name servers under a namespace and key.
    async fn delete_kv(&self, namespace: &str, key: &str) -> Result<()> {
        let fields = [
            ("namespace", Value::Str(namespace)),
            ("key", Value::Str(key)),
        ];
        for address in &self.name_servers {
            self.demand(address, request::DELETE_KV_CONFIG, &fields, b"")
                .await?;
        }
        Ok(())
    }
}

/// The message of a refusal or any other error, without what went before it.
pub(crate) fn is_code(error: &Error, wanted: i32) -> bool {
    matches!(error, Error::Refused { code, .. } if *code == wanted)
}
