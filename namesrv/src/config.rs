//! The name server's settings: a Java properties file under RocketMQ's keys.
//!
//! Every key RocketMQ knows is accepted; those that steer its threads and buffers have nothing to steer here. A key nobody
//! knows is said in the log, since it is a typing error more often than not. A value that cannot be meant stops the start.

pub mod properties;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// RocketMQ's port for name servers.
pub const PORT: u16 = 9876;
const SCAN_INTERVAL_MS_MIN: u64 = 100;

/// Of what RocketMQ's name server may be besides.
const CONTROLLER: &str = "enableControllerInNamesrv";

/// Keys of RocketMQ's name server for which there is nothing to set here.
const WITHOUT_EFFECT: &[&str] = &[
    "clientRequestThreadPoolNums",
    "clientRequestThreadPoolQueueCapacity",
    "clusterTest",
    "configBlackList",
    "defaultThreadPoolNums",
    "defaultThreadPoolQueueCapacity",
    "deleteTopicWithBrokerRegistration",
    "enableControllerInNamesrv",
    "enableShutdownGracefully",
    "needWaitForService",
    "notifyMinBrokerIdChanged",
    "productEnvName",
    "rocketmqHome",
    "serverAsyncSemaphoreValue",
    "serverCallbackExecutorThreads",
    "serverNettyWorkerGroupEnable",
    "serverOnewaySemaphoreValue",
    "serverPooledByteBufAllocatorEnable",
    "serverSelectorThreads",
    "serverSocketBacklog",
    "serverSocketRcvBufSize",
    "serverSocketSndBufSize",
    "serverWorkerThreads",
    "shutdownWaitTimeSeconds",
    "supportActingMaster",
    "unRegisterBrokerQueueCapacity",
    "useEpollNativeSelector",
    "waitSecondsForService",
    "writeBufferHighWaterMark",
    "writeBufferLowWaterMark",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub bind_addr: IpAddr,
    /// 0 lets the system choose.
    pub port: u16,
    /// How often silent brokers and idle connections are looked for.
    pub scan_interval: Duration,
    /// A connection on which nothing came for this long is closed.
    pub idle_max: Duration,
    /// Where the key-value configuration is kept. `None`: in memory only.
    pub kv_config_path: Option<PathBuf>,
    /// Where settings changed at run time are written back. `None`: they last until the end of the process.
    pub config_store_path: Option<PathBuf>,
    pub live: Live,
}

/// The settings that may be changed at run time by anyone who can connect. No path is among them, ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Routes carry the queue order of ordered topics from the key-value configuration.
    pub order_message_enable: bool,
    /// Brokers are given all queue orders in the answer to their registration.
    pub return_order_topic_config_to_broker: bool,
    /// All topics may be listed.
    pub enable_all_topic_list: bool,
    /// Topics may be listed by cluster and by unit.
    pub enable_topic_list: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            bind_addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: PORT,
            scan_interval: Duration::from_millis(5000),
            idle_max: Duration::from_secs(120),
            kv_config_path: None,
            config_store_path: None,
            live: Live::default(),
        }
    }
}

impl Default for Live {
    fn default() -> Live {
        Live {
            order_message_enable: false,
            return_order_topic_config_to_broker: true,
            enable_all_topic_list: true,
            enable_topic_list: true,
        }
    }
}

/// Why a setting was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    #[error("{key} = {value:?}: {expected} expected")]
    Value {
        key: String,
        value: String,
        expected: &'static str,
    },
    #[error("{0} can only be changed in the settings file, followed by a restart")]
    Fixed(String),
    #[error("there is no setting {0}")]
    Unknown(String),
}

impl Config {
    /// Reads settings from the text of a properties file and says in the log what it does not know.
    pub fn parse(text: &str) -> Result<Config, SettingError> {
        let mut config = Config::default();
        for (key, value) in properties::parse(text) {
            match config.set(&key, &value) {
                Ok(()) => {}
                Err(SettingError::Unknown(_)) if key == CONTROLLER && value == "true" => {
                    tracing::warn!(
                        "{CONTROLLER}=true has no effect: there is no controller here, and brokers with \
                         enableControllerMode find none"
                    );
                }
                Err(SettingError::Unknown(_)) if WITHOUT_EFFECT.contains(&key.as_str()) => {
                    tracing::debug!(key, "this setting of RocketMQ has no effect here");
                }
                Err(SettingError::Unknown(_)) => tracing::warn!(key, value, "unknown setting"),
                Err(error) => return Err(error),
            }
        }
        Ok(config)
    }

    pub fn listen_addr(&self) -> SocketAddr {
        SocketAddr::new(self.bind_addr, self.port)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), SettingError> {
        let wrong = |expected| SettingError::Value {
            key: key.to_owned(),
            value: value.to_owned(),
            expected,
        };
        match key {
            "listenPort" => self.port = value.parse().map_err(|_| wrong("a port number"))?,
            "bindAddress" | "bindAddr" => {
                self.bind_addr = match value {
                    "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
                    _ => value.parse().map_err(|_| wrong("an IP address"))?,
                }
            }
            "scanNotActiveBrokerInterval" => {
                let interval_ms: u64 = value.parse().map_err(|_| wrong("milliseconds"))?;
                self.scan_interval = Duration::from_millis(interval_ms.max(SCAN_INTERVAL_MS_MIN));
            }
            "serverChannelMaxIdleTimeSeconds" => {
                let seconds: u64 = value.parse().map_err(|_| wrong("seconds"))?;
                self.idle_max = Duration::from_secs(seconds);
            }
            "kvConfigPath" => self.kv_config_path = path_or_none(value),
            "configStorePath" => self.config_store_path = path_or_none(value),
            _ => self.live.set(key, value)?,
        }
        Ok(())
    }

    /// All settings as a properties text, in the order of their names.
    pub fn to_properties(&self) -> String {
        let path = |path: &Option<PathBuf>| {
            path.as_ref()
                .map(|path| path.display().to_string())
                .unwrap_or_default()
        };
        let rows = [
            ("bindAddress", self.bind_addr.to_string()),
            ("configStorePath", path(&self.config_store_path)),
            (
                "enableAllTopicList",
                self.live.enable_all_topic_list.to_string(),
            ),
            ("enableTopicList", self.live.enable_topic_list.to_string()),
            ("kvConfigPath", path(&self.kv_config_path)),
            ("listenPort", self.port.to_string()),
            (
                "orderMessageEnable",
                self.live.order_message_enable.to_string(),
            ),
            (
                "returnOrderTopicConfigToBroker",
                self.live.return_order_topic_config_to_broker.to_string(),
            ),
            (
                "scanNotActiveBrokerInterval",
                self.scan_interval.as_millis().to_string(),
            ),
            (
                "serverChannelMaxIdleTimeSeconds",
                self.idle_max.as_secs().to_string(),
            ),
        ];
        rows.iter().fold(String::new(), |mut text, (key, value)| {
            writeln!(text, "{key}={value}").expect("writing to a string");
            text
        })
    }
}

impl Live {
    /// Sets what may be set at run time.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), SettingError> {
        let field = match key {
            "orderMessageEnable" => &mut self.order_message_enable,
            "returnOrderTopicConfigToBroker" => &mut self.return_order_topic_config_to_broker,
            "enableAllTopicList" => &mut self.enable_all_topic_list,
            "enableTopicList" => &mut self.enable_topic_list,
            _ if is_fixed(key) => return Err(SettingError::Fixed(key.to_owned())),
            _ => return Err(SettingError::Unknown(key.to_owned())),
        };
        *field = match value {
            "true" => true,
            "false" => false,
            _ => {
                let (key, value) = (key.to_owned(), value.to_owned());
                return Err(SettingError::Value {
                    key,
                    value,
                    expected: "true or false",
                });
            }
        };
        Ok(())
    }
}

fn path_or_none(value: &str) -> Option<PathBuf> {
    (!value.is_empty()).then(|| PathBuf::from(value))
}

fn is_fixed(key: &str) -> bool {
    let ours = [
        "listenPort",
        "bindAddress",
        "scanNotActiveBrokerInterval",
        "serverChannelMaxIdleTimeSeconds",
    ];
    ours.contains(&key) || ["kvConfigPath", "configStorePath"].contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_sets_what_it_names_and_leaves_the_rest() {
        let text = "listenPort = 19876\nbindAddress=127.0.0.1\n# a comment\nscanNotActiveBrokerInterval: 1000\n\
                    orderMessageEnable=true\nserverWorkerThreads=8\nsomethingElse=1\nkvConfigPath=/x/kv.json\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.listen_addr(), "127.0.0.1:19876".parse().unwrap());
        assert_eq!(config.scan_interval, Duration::from_secs(1));
        assert!(config.live.order_message_enable);
        assert!(config.live.return_order_topic_config_to_broker);
        assert_eq!(config.kv_config_path, Some(PathBuf::from("/x/kv.json")));
    }

    #[test]
    fn a_value_that_cannot_be_meant_is_an_error() {
        let error = Config::parse("listenPort=70000").unwrap_err();
        assert_eq!(
            error.to_string(),
            "listenPort = \"70000\": a port number expected"
        );
        assert!(Config::parse("orderMessageEnable=yes").is_err());
        assert!(Config::parse("bindAddress=nowhere at all").is_err());
    }

    #[test]
    fn no_path_and_no_address_can_be_changed_at_run_time() {
        for key in [
            "kvConfigPath",
            "configStorePath",
            "listenPort",
            "bindAddress",
        ] {
            assert_eq!(
                Live::default().set(key, "1"),
                Err(SettingError::Fixed(key.to_owned()))
            );
        }
        assert_eq!(
            Live::default().set("nonsense", "1"),
            Err(SettingError::Unknown("nonsense".to_owned()))
        );
        let mut live = Live::default();
        live.set("orderMessageEnable", "true").unwrap();
        assert!(live.order_message_enable);
    }

    #[test]
    fn printed_settings_read_back_as_the_same() {
        let text = "listenPort=1234\nidle=1\nkvConfigPath=/a/b\nconfigStorePath=/c\nenableTopicList=false\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(Config::parse(&config.to_properties()).unwrap(), config);
    }
}
