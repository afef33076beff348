//! Settings that producers and consumers share, and how all settings are set by RocketMQ's names for them.

use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use crate::address_server::AddressServer;
use crate::error::{Error, Result};
use crate::namespace::Namespace;

/// How a client reaches its brokers and how often it looks after itself. RocketMQ's own values are the defaults.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub name_servers: String,
    /// Asked for them where none are given.
    pub address_server: AddressServer,
    /// For one request and its answer.
    pub call_limit: Duration,
    pub connect_limit: Duration,
    pub route_interval: Duration,
    pub heartbeat_interval: Duration,
    pub namespace: Namespace,
    /// Empty: one that nobody else has.
    pub instance_name: String,
    pub unit_name: String,
    pub unit_mode: bool,
    /// The address to be known by; unset: the one that reaches the name server.
    pub client_ip: Option<Ipv4Addr>,
    pub trace: bool,
    pub trace_topic: String,
    pub trace_batch: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            name_servers: std::env::var("NAMESRV_ADDR").unwrap_or_default(),
            address_server: AddressServer::default(),
            call_limit: Duration::from_secs(3),
            connect_limit: Duration::from_secs(3),
            route_interval: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(30),
            namespace: Namespace::default(),
            instance_name: String::new(),
            unit_name: String::new(),
            unit_mode: false,
            client_ip: None,
            trace: false,
            trace_topic: protocol::names::TRACE_TOPIC.to_owned(),
            trace_batch: 10,
        }
    }
}

impl Settings {
    /// Sets what RocketMQ's `ClientConfig` calls `name`; false if it is none of those.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool> {
        match name {
            "namesrvAddr" => self.name_servers = value.to_owned(),
            // Properties of the Java process there.
            "rocketmq.namesrv.domain" => self.address_server.domain = value.to_owned(),
            "rocketmq.namesrv.domain.subgroup" => self.address_server.group = value.to_owned(),
            "mqClientApiTimeout" => self.call_limit = millis(name, value)?,
            "connectTimeoutMillis" => self.connect_limit = millis(name, value)?,
            "pollNameServerInterval" => self.route_interval = interval(name, value)?,
            "heartbeatBrokerInterval" => self.heartbeat_interval = interval(name, value)?,
            "namespace" | "namespaceV2" => self.namespace = Namespace(value.to_owned()),
            // What RocketMQ calls DEFAULT there is replaced by a number when the client starts.
            "instanceName" if value == "DEFAULT" => self.instance_name = String::new(),
            "instanceName" => self.instance_name = value.to_owned(),
            "unitName" => self.unit_name = value.to_owned(),
            "unitMode" => self.unit_mode = parse(name, value)?,
            "clientIP" => self.client_ip = Some(parse(name, value)?),
            "enableTrace" => self.trace = parse(name, value)?,
            "traceTopic" => self.trace_topic = value.to_owned(),
            "traceMsgBatchNum" => self.trace_batch = positive(name, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

pub(crate) fn wrong(name: &str, what: impl Into<String>) -> Error {
    Error::Setting {
        name: name.to_owned(),
        what: what.into(),
    }
}

pub(crate) fn unknown(name: &str) -> Error {
    wrong(name, "there is no such setting")
}

pub(crate) fn parse<T: FromStr>(name: &str, value: &str) -> Result<T> {
    let parsed = value.trim().parse();
    parsed.map_err(|_| wrong(name, format!("{value:?} is not a value for it")))
}

pub(crate) fn positive(name: &str, value: &str) -> Result<usize> {
    match parse(name, value)? {
        0 => Err(wrong(name, "it must be at least 1")),
        number => Ok(number),
    }
}

pub(crate) fn millis(name: &str, value: &str) -> Result<Duration> {
    Ok(Duration::from_millis(parse(name, value)?))
}

/// Milliseconds between two of a kind: not none.
pub(crate) fn interval(name: &str, value: &str) -> Result<Duration> {
    let millis = positive(name, value)?;
    Ok(Duration::from_millis(millis as u64))
}

/// Methods that every builder has, over its field `settings`.
macro_rules! shared_settings {
    () => {
        /// `namesrvAddr`: `host:port`, several separated by `;`. Without it, `NAMESRV_ADDR` of the environment counts.
        pub fn name_server(mut self, addresses: impl Into<String>) -> Self {
            self.settings.name_servers = addresses.into();
            self
        }

        /// `rocketmq.namesrv.domain`, a `host` or `host:port`: where name servers are asked for over HTTP if none are given,
        /// at the start and then every two minutes. None unless said otherwise.
        pub fn address_server(mut self, domain: impl Into<String>) -> Self {
            self.settings.address_server.domain = domain.into();
            self
        }

        /// `namespace`: topics and groups of this client stand behind it on the brokers; the application sees them
        /// without it. None unless said otherwise.
        pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
            self.settings.namespace = crate::namespace::Namespace(namespace.into());
            self
        }

        /// `instanceName`: the part of the client's id behind its address. Two clients with one id count as one.
        /// A number that nobody else has unless said otherwise.
        pub fn instance_name(mut self, name: impl Into<String>) -> Self {
            self.settings.instance_name = name.into();
            self
        }

        /// `pollNameServerInterval` and `heartbeatBrokerInterval`: how often routes are asked for again and brokers
        /// told that we live; 30 s unless said otherwise.
        pub fn upkeep_interval(mut self, interval: std::time::Duration) -> Self {
            self.settings.route_interval = interval;
            self.settings.heartbeat_interval = interval;
            self
        }

        /// `mqClientApiTimeout`: for a request that is neither a send nor a pull; 3 s unless said otherwise.
        pub fn call_timeout(mut self, limit: std::time::Duration) -> Self {
            self.settings.call_limit = limit;
            self
        }

        /// `enableTrace`: tell `RMQ_SYS_TRACE_TOPIC` of what happens to every message. Off unless said otherwise.
        pub fn enable_trace(mut self, on: bool) -> Self {
            self.settings.trace = on;
            self
        }

        /// `traceTopic`: another topic to tell; the broker must have it.
        pub fn trace_topic(mut self, topic: impl Into<String>) -> Self {
            self.settings.trace_topic = topic.into();
            self
        }
    };
}
pub(crate) use shared_settings;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rocketmqs_names_set_what_they_name() {
        let mut settings = Settings::default();
        let set = |settings: &mut Settings, name, value| settings.set(name, value);
        assert_eq!(set(&mut settings, "namesrvAddr", "h:1").ok(), Some(true));
        assert_eq!(
            set(&mut settings, "mqClientApiTimeout", "250").ok(),
            Some(true)
        );
        assert_eq!(settings.call_limit, Duration::from_millis(250));
        assert_eq!(set(&mut settings, "noSuchThing", "1").ok(), Some(false));
        for (name, value) in [
            ("rocketmq.namesrv.domain", "names:80"),
            ("rocketmq.namesrv.domain.subgroup", "blue"),
        ] {
            assert_eq!(set(&mut settings, name, value).ok(), Some(true));
        }
        let url = settings.address_server.url("");
        assert_eq!(url, "http://names:80/rocketmq/blue");
        let broken = set(&mut settings, "heartbeatBrokerInterval", "0");
        assert!(matches!(broken, Err(Error::Setting { .. })));
        assert!(set(&mut settings, "unitMode", "maybe").is_err());
    }
}
