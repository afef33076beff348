//! The broker's settings: RocketMQ's broker.conf, the command line's flags over it, and defaults below.
//!
//! `Settings` is immutable and shared; a change in the running broker makes a new one (`Settings::changed`). Nothing here
//! reads files or the environment: what comes from the machine is handed in.

pub mod delay_levels;
pub mod keys;
pub mod properties;
mod tuning_keys;
pub mod values;
pub mod write_back;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use engine::{FlusherKind, Retention, WindowDir};
use keys::Effect;
use protocol::body::pop::RequestMode;
use values::{DEFAULT_ADDRESS, Host, Resolve, Values, canonical, defaults, log_dirs, take};

/// What the start knows about the machine, gathered by `main` (or by a test).
#[derive(Clone, Debug)]
pub struct Machine {
    pub host_name: String,
    /// The first address that other machines may reach, for `brokerIP1`.
    pub address: IpAddr,
    /// Where `store` lies when broker.conf does not say.
    pub home: PathBuf,
    /// Finds the address of a host that broker.conf names. Blocks; asked at the start only.
    pub resolve: fn(&str) -> io::Result<IpAddr>,
}

/// What the user gave, strongest last: environment, file, flags.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `NAMESRV_ADDR`.
    pub namesrv_env: Option<String>,
    /// The text of broker.conf.
    pub file: Option<String>,
    /// `-n`.
    pub namesrv_flag: Option<String>,
}

/// A line to be logged once logging is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    Warning(String),
    Detail(String),
}

/// A value that cannot be used; says which key, what was given, and what would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}={value}: {expected}")]
pub struct Invalid {
    pub key: String,
    pub value: String,
    pub expected: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    AsyncMaster,
    SyncMaster,
}

/// Where a list of name servers is read over HTTP, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressServer {
    pub url: String,
    pub period_ms: u64,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// Every known key with its value, as `getBrokerConfig` shows it.
    values: BTreeMap<&'static str, String>,

    pub cluster_name: String,
    pub broker_name: String,
    pub broker_id: i64,
    pub role: Role,
    pub region_id: String,
    pub trace_on: bool,

    pub bind_address: IpAddr,
    pub listen_port: u16,
    /// listenPort - 2, the same service; none if that is no port.
    pub fast_listen_port: Option<u16>,
    pub ha_listen_port: u16,
    /// What name servers and clients are told (`brokerIP1`).
    pub advertised_host: Host,
    pub advertised_ip: IpAddr,
    pub ha_host: Host,
    /// `host:port` each.
    pub namesrv_addrs: Vec<String>,
    /// Asked for the name servers where none are named.
    pub address_server: Option<AddressServer>,
    /// What it answered last.
    fetched_namesrv_addrs: Vec<String>,
    pub namesrv_listen_port: u16,

    pub register_period_ms: u64,
    pub register_timeout_ms: u64,
    pub force_register: bool,
    pub compressed_register: bool,
    pub enable_split_registration: bool,
    pub split_registration_size: usize,
    pub enable_single_topic_register: bool,
    pub broker_permission: i32,

    pub default_topic_queues: u32,
    pub auto_create_topic: bool,
    pub auto_create_group: bool,
    pub create_system_group: bool,
    pub cluster_topic_enable: bool,
    pub broker_topic_enable: bool,
    pub trace_topic_enable: bool,
    pub trace_topic_name: String,
    pub protect_system_topics: bool,
    pub mixed_message_type: bool,
    /// Tables are handed out in pieces of at most this many entries to those who ask for pieces.
    pub metadata_piece_max: usize,

    pub notify_consumer_ids_changed: bool,
    /// Consumers are sent to offsets that operators set by their pulls, not by requests to them.
    pub server_side_reset: bool,
    /// Replies are kept in the cluster's reply topic, beside being pushed to who asked.
    pub store_replies: bool,
    pub client_expires_after_ms: u64,
    pub reject_pull_consumer: bool,
    pub register_producers: bool,
    pub enable_property_filter: bool,
    /// A connection without any traffic for so long is closed; 0: never.
    pub idle_close_ms: u64,

    pub consumer_offset_save_interval_ms: u64,
    pub delay_offset_save_interval_ms: u64,

    pub message_bytes_max: usize,
    pub reject_transaction_message: bool,
    /// How long a half message is left alone before its producers are asked.
    pub transaction_timeout_ms: u64,
    pub transaction_check_interval_ms: u64,
    pub transaction_check_max: u32,
    /// Of groups for which nobody has set how they get a topic's messages.
    pub default_request_mode: RequestMode,
    pub default_pop_share_queues: i32,
    pub server_load_balancer: bool,
    pub long_polling: bool,
    pub short_polling_ms: u64,
    /// A group that reads from the disk so many bytes behind the end of the log is disabled; none: it may.
    pub slow_reader_bytes: Option<u64>,
    pub pull_memory_bytes_max: u64,
    pub pull_memory_messages_max: u32,
    pub pull_disk_bytes_max: u64,
    pub pull_disk_messages_max: u32,
    /// Of a query by key; what was asked for may be less.
    pub key_messages_max: u32,
    pub unique_key_messages_max: u32,

    pub store_root: PathBuf,
    pub log_dirs: Vec<PathBuf>,
    pub segment_bytes: u64,
    pub key_index: bool,
    /// None: the one that fits the disks, see [`Settings::fitting_flusher`].
    pub flusher: Option<FlusherKind>,
    pub window_dir: WindowDir,
    /// What the process may hold.
    pub memory_bytes: u64,
    pub sync_flush: bool,
    /// After so long a sender is told that its message is stored and not yet durable.
    pub sync_flush_timeout_ms: u64,
    pub flush_interval_ms: u64,
    pub flush_least_pages: u64,
    pub flush_thorough_ms: u64,

    /// What of the log is kept, and for how long.
    pub retention: Retention,

    /// Level 1 is the first; milliseconds.
    pub delay_levels_ms: Vec<u64>,
    /// Whether messages may name a delivery time of their own.
    pub timers: bool,
    /// How far off that may be.
    pub timer_delay_max_ms: i64,
    /// How wide a slot of RocketMQ's timer wheel is.
    pub timer_precision_ms: i64,
    /// For how many slots RocketMQ parks a message at once.
    pub timer_roll_slots: i64,
    /// How long a file of RocketMQ's timer log is.
    pub timer_log_file_bytes: u64,
    /// A withdrawal names the topic, too.
    pub withdrawal_names_topic: bool,
    pub recall: bool,
    pub recall_when_not_writable: bool,

    /// None: as many as the machine's CPUs suggest.
    pub shards: Option<usize>,
    /// The CPU the writer has for itself; none: chosen with `shards`.
    pub writer_cpu: Option<usize>,

    config_black_list: Vec<String>,
}

impl Settings {
    /// The flusher that is named, or else the one that fits: `direct` where all of the log's disks can be written past the
    /// page cache, `mmap` elsewhere. Blocks.
    pub fn fitting_flusher(&self) -> FlusherKind {
        let takes_direct = |dir: &PathBuf| {
            let there = dir.ancestors().find(|dir| reactor::fs::exists(dir));
            // A relative name without a directory lies in the current one.
            reactor::fs::takes_direct_writes(there.unwrap_or(Path::new(".")))
        };
        match self.flusher {
            Some(named) => named,
            None if self.log_dirs.iter().all(takes_direct) => FlusherKind::Direct,
            None => FlusherKind::Mmap,
        }
    }

    /// Without a file the broker is a stand-alone one: it stores under `./data` and is reached on this machine.
    pub fn load(machine: &Machine, given: &Given) -> Result<(Self, Vec<Remark>), Invalid> {
        let mut remarks = Vec::new();
        let mut values = defaults(machine, given.file.is_none());
        if let Some(addresses) = &given.namesrv_env {
            values.insert("namesrvAddr", addresses.clone());
        }
        for property in properties::parse(given.file.as_deref().unwrap_or_default()) {
            take(&mut values, &property.key, &property.value, &mut remarks)?;
        }
        if let Some(addresses) = &given.namesrv_flag {
            values.insert("namesrvAddr", addresses.clone());
        }
        let settings = Self::from_values(values, &machine.resolve)?;
        if settings.role == Role::SyncMaster {
            remarks.push(Remark::Warning(
                "brokerRole=SYNC_MASTER: this version does not replicate; messages are confirmed without a copy on another \
                 machine, as with ASYNC_MASTER"
                    .to_owned(),
            ));
        }
        Ok((settings, remarks))
    }

    /// As `load`, from pairs in place of a file.
    pub fn from_pairs(machine: &Machine, pairs: &[(&str, &str)]) -> Result<Self, Invalid> {
        let file = pairs.iter().fold(String::new(), |mut file, (key, value)| {
            file.push_str(key);
            file.push('=');
            file.push_str(&value.replace('\\', "\\\\"));
            file.push('\n');
            file
        });
        let given = Given {
            file: Some(file),
            ..Given::default()
        };
        Ok(Self::load(machine, &given)?.0)
    }

    /// These settings with other values for some keys. Anyone who can connect may ask for it, so there is a list of what may
    /// be changed (see [`changeable`]): never a path, an address, a class, or what is not known.
    pub fn changed(
        &self,
        changes: &[(String, String)],
    ) -> Result<(Self, Vec<Remark>), ChangeRefused> {
        let mut values = self.values.clone();
        let mut remarks = Vec::new();
        for (name, value) in changes {
            let known = keys::find(canonical(name));
            let meant = known.map_or(name.as_str(), |key| key.name);
            let listed = |list: &String| list == name || list == meant;
            if FIXED.contains(&meant) || self.config_black_list.iter().any(listed) {
                return Err(ChangeRefused::BlackListed(name.clone()));
            }
            let Some(key) = known else {
                return Err(ChangeRefused::Unknown {
                    name: name.clone(),
                    nearest: keys::nearest(name),
                });
            };
            let now = values.get(key.name).map(String::as_str).unwrap_or_default();
            if now != value.trim() {
                changeable(key)?;
            }
            take(&mut values, key.name, value, &mut remarks)?;
        }
        // Names were resolved at the start, and stand for the addresses they had then.
        let resolved = |name: &str| {
            let hosts = [&self.advertised_host, &self.ha_host];
            let known = hosts.into_iter().find(|host| host.name == name);
            known
                .map(|host| host.ip)
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        };
        let changed = Self {
            fetched_namesrv_addrs: self.fetched_namesrv_addrs.clone(),
            ..Self::from_values(values, &resolved)?
        };
        Ok((changed, remarks))
    }

    /// These settings with the name servers that the address server names now.
    pub fn with_fetched(&self, name_servers: Vec<String>) -> Self {
        Self {
            fetched_namesrv_addrs: name_servers,
            ..self.clone()
        }
    }

    /// All known keys, sorted, as properties.
    pub fn to_properties(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.values {
            text.push_str(key);
            text.push('=');
            text.push_str(value);
            text.push('\n');
        }
        text
    }

    pub fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// Where clients find this broker.
    pub fn advertised(&self) -> SocketAddr {
        SocketAddr::new(self.advertised_ip, self.listen_port)
    }

    /// The same for name servers, by the name that broker.conf gives.
    pub fn registered(&self) -> String {
        self.advertised_host.with_port(self.listen_port)
    }

    pub fn ha_address(&self) -> String {
        self.ha_host.with_port(self.ha_listen_port)
    }

    /// Nobody has said which name servers there are: one is started in this process.
    pub fn embeds_name_server(&self) -> bool {
        self.namesrv_addrs.is_empty() && self.address_server.is_none()
    }

    /// The name servers to use, the embedded one included. Empty until the address server, if there is one, has answered.
    pub fn namesrv_list(&self) -> Vec<String> {
        if self.namesrv_addrs.is_empty() && self.address_server.is_some() {
            self.fetched_namesrv_addrs.clone()
        } else if self.namesrv_addrs.is_empty() {
            let ip = if self.bind_address.is_unspecified() {
                IpAddr::V4(Ipv4Addr::LOCALHOST)
            } else {
                self.bind_address
            };
            vec![SocketAddr::new(ip, self.namesrv_listen_port).to_string()]
        } else {
            self.namesrv_addrs.clone()
        }
    }

    fn from_values(
        values: BTreeMap<&'static str, String>,
        resolve: Resolve<'_>,
    ) -> Result<Self, Invalid> {
        let v = Values(&values);
        v.stands_alone()?;
        let bind_address = v.ip("bindAddress")?;
        let listen_port = v.port("listenPort")?;
        let ha_listen_port = match v.int("haListenPort")? {
            0 => listen_port.checked_add(1).ok_or_else(|| {
                v.invalid(
                    "listenPort",
                    "the port after it must be free for replication",
                )
            })?,
            port => v.narrow("haListenPort", port)?,
        };
        let specific = (!bind_address.is_unspecified()).then_some(bind_address);
        let store_root = PathBuf::from(v.text("storePathRootDir"));
        let log_dirs = log_dirs(v.text("storePathCommitLog"), &store_root);
        let namesrv_addrs = v.addresses("namesrvAddr")?;
        let advertised_host = v.host("brokerIP1", specific, resolve)?;
        let settings = Self {
            cluster_name: v.name("brokerClusterName")?,
            broker_name: v.name("brokerName")?,
            broker_id: v.int("brokerId")?,
            role: v.role()?,
            region_id: v.text("regionId").to_owned(),
            trace_on: v.bool("traceOn")?,
            bind_address,
            listen_port,
            fast_listen_port: listen_port.checked_sub(2).filter(|&port| port > 0),
            ha_listen_port,
            advertised_ip: advertised_host.ip,
            advertised_host,
            ha_host: v.host("brokerIP2", specific, resolve)?,
            address_server: v.address_server(namesrv_addrs.is_empty())?,
            namesrv_addrs,
            fetched_namesrv_addrs: Vec::new(),
            namesrv_listen_port: v.port("namesrvListenPort")?,
            // The real broker bounds it so, whatever the file says.
            register_period_ms: v
                .number::<u64>("registerNameServerPeriod")?
                .clamp(10_000, 60_000),
            register_timeout_ms: v.number("registerBrokerTimeoutMills")?,
            force_register: v.bool("forceRegister")?,
            compressed_register: v.bool("compressedRegister")?,
            enable_split_registration: v.bool("enableSplitRegistration")?,
            split_registration_size: v.number("splitRegistrationSize")?,
            enable_single_topic_register: v.bool("enableSingleTopicRegister")?,
            broker_permission: v.number("brokerPermission")?,
            default_topic_queues: v.number("defaultTopicQueueNums")?,
            auto_create_topic: v.bool("autoCreateTopicEnable")?,
            auto_create_group: v.bool("autoCreateSubscriptionGroup")?,
            create_system_group: v.bool("enableCreateSysGroup")?,
            cluster_topic_enable: v.bool("clusterTopicEnable")?,
            broker_topic_enable: v.bool("brokerTopicEnable")?,
            trace_topic_enable: v.bool("traceTopicEnable")?,
            trace_topic_name: v.name("msgTraceTopicName")?,
            protect_system_topics: v.bool("validateSystemTopicWhenUpdateTopic")?,
            mixed_message_type: v.bool("enableMixedMessageType")?,
            metadata_piece_max: v.number("splitMetadataSize")?,
            notify_consumer_ids_changed: v.bool("notifyConsumerIdsChangedEnable")?,
            server_side_reset: v.bool("useServerSideResetOffset")?,
            store_replies: v.bool("storeReplyMessageEnable")?,
            client_expires_after_ms: v.number("channelExpiredTimeout")?,
            reject_pull_consumer: v.bool("rejectPullConsumerEnable")?,
            register_producers: v.bool("enableRegisterProducer")?,
            enable_property_filter: v.bool("enablePropertyFilter")?,
            idle_close_ms: v.number::<u64>("serverChannelMaxIdleTimeSeconds")? * 1000,
            consumer_offset_save_interval_ms: v.number("flushConsumerOffsetInterval")?,
            delay_offset_save_interval_ms: v.number("flushDelayOffsetInterval")?,
            message_bytes_max: v.number("maxMessageSize")?,
            reject_transaction_message: v.bool("rejectTransactionMessage")?,
            transaction_timeout_ms: v.number("transactionTimeOut")?,
            transaction_check_interval_ms: v.number("transactionCheckInterval")?,
            transaction_check_max: v.number("transactionCheckMax")?,
            default_request_mode: match v.text("defaultMessageRequestMode") {
                "POP" => RequestMode::Pop,
                _ => RequestMode::Pull,
            },
            default_pop_share_queues: v.number("defaultPopShareQueueNum")?,
            server_load_balancer: v.bool("serverLoadBalancerEnable")?,
            long_polling: v.bool("longPollingEnable")?,
            short_polling_ms: v.number("shortPollingTimeMills")?,
            slow_reader_bytes: match v.bool("disableConsumeIfConsumerReadSlowly")? {
                true => Some(v.number("consumerFallbehindThreshold")?),
                false => None,
            },
            pull_memory_bytes_max: v.number("maxTransferBytesOnMessageInMemory")?,
            pull_memory_messages_max: v.number("maxTransferCountOnMessageInMemory")?,
            pull_disk_bytes_max: v.number("maxTransferBytesOnMessageInDisk")?,
            pull_disk_messages_max: v.number("maxTransferCountOnMessageInDisk")?,
            key_messages_max: v.number("maxMsgsNumBatch")?,
            unique_key_messages_max: v.number("defaultQueryMaxNum")?,
            store_root,
            log_dirs,
            segment_bytes: v.number("mappedFileSizeCommitLog")?,
            key_index: v.bool("messageIndexEnable")?,
            flusher: v.flusher(),
            window_dir: v.window_dir(),
            memory_bytes: v.memory_bytes()?,
            sync_flush: v.text("flushDiskType") == "SYNC_FLUSH",
            sync_flush_timeout_ms: v.number("syncFlushTimeout")?,
            flush_interval_ms: v.number("flushIntervalCommitLog")?,
            flush_least_pages: v.number("flushCommitLogLeastPages")?,
            flush_thorough_ms: v.number("flushCommitLogThoroughInterval")?,
            retention: v.retention()?,
            delay_levels_ms: delay_levels::parse(v.text("messageDelayLevel")).ok_or_else(|| {
                v.invalid(
                    "messageDelayLevel",
                    "expected durations like `1s 5m 2h 1d`, one space between",
                )
            })?,
            timers: v.bool("timerWheelEnable")?,
            timer_delay_max_ms: v.number::<i64>("timerMaxDelaySec")? * 1_000,
            timer_precision_ms: v.number("timerPrecisionMs")?,
            timer_roll_slots: v.number("timerRollWindowSlot")?,
            timer_log_file_bytes: v.number("mappedFileSizeTimerLog")?,
            withdrawal_names_topic: v.bool("appendTopicForTimerDeleteKey")?,
            recall: v.bool("recallMessageEnable")?,
            recall_when_not_writable: v.bool("allowRecallWhenBrokerNotWriteable")?,
            shards: Some(v.number("shards")?).filter(|&shards| shards > 0),
            writer_cpu: usize::try_from(v.int("writerCpu")?).ok(),
            config_black_list: v
                .text("configBlackList")
                .split(';')
                .map(|key| key.trim().to_owned())
                .collect(),
            values: BTreeMap::new(),
        };
        let mut values = values;
        values.remove(DEFAULT_ADDRESS);
        values.insert("brokerIP1", settings.advertised_host.name.clone());
        values.insert("brokerIP2", settings.ha_host.name.clone());
        values.insert("haListenPort", settings.ha_listen_port.to_string());
        Ok(Self { values, ..settings })
    }
}

/// Whatever `configBlackList` says.
const FIXED: [&str; 3] = ["configBlackList", "brokerConfigPath", "rocketmqHome"];

/// Whether a running broker takes another value.
fn changeable(key: &keys::Key) -> Result<(), ChangeRefused> {
    match key.effect {
        Effect::Live => Ok(()),
        Effect::Tuning if key.kind != keys::Kind::Text => Ok(()),
        Effect::Start | Effect::Tuning => Err(ChangeRefused::NeedsRestart(key.name)),
        Effect::Absent => Err(ChangeRefused::NotHere(key.name)),
    }
}

/// Why a running broker does not take a change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    #[error("{0} is in the list of settings that may not be changed (configBlackList)")]
    BlackListed(String),
    #[error("{0} is read at the start only: change it in broker.conf and restart the broker")]
    NeedsRestart(&'static str),
    #[error("{0} asks for something that this broker does not do")]
    NotHere(&'static str),
    #[error("unknown setting {name}{}", hint(nearest))]
    Unknown {
        name: String,
        nearest: Option<&'static str>,
    },
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

fn hint(nearest: &Option<&str>) -> String {
    nearest.map_or_else(String::new, |near| format!(": did you mean {near}?"))
}

#[cfg(test)]
pub mod tests;
