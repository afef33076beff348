//! What a producer is to be like: RocketMQ's settings with RocketMQ's defaults.

use std::time::Duration;

use protocol::names;
use protocol::sysflag::Compression;

use super::Producer;
use crate::compression::{LEVEL_DEFAULT, LEVEL_MAX, Packing};
use crate::error::Result;
use crate::settings::{Settings, millis, parse, positive, shared_settings, unknown, wrong};

/// Bodies from this length on are compressed.
const COMPRESS_BYTES_MIN: usize = 4 << 10;
/// Queues of a topic that the first message makes.
const NEW_TOPIC_QUEUES: i32 = 4;

#[derive(Clone)]
pub(crate) struct Options {
    pub group: String,
    pub send_limit: Duration,
    /// The longest one attempt may take; unset: as long as all of them.
    pub attempt_limit: Option<Duration>,
    pub attempts: usize,
    pub attempts_submitted: usize,
    pub retry_not_stored_ok: bool,
    /// Unset: nothing is compressed.
    pub packing: Option<Packing>,
    pub body_bytes_max: usize,
    pub avoid_slow_brokers: bool,
    pub new_topic_queues: i32,
    pub create_topic_key: String,
}

/// What a producer is to be like. Get one from [`Producer::builder`].
pub struct ProducerBuilder {
    pub(super) options: Options,
    pub(super) settings: Settings,
}

impl ProducerBuilder {
    pub(super) fn new(group: String) -> ProducerBuilder {
        ProducerBuilder {
            options: Options {
                group,
                send_limit: Duration::from_secs(3),
                attempt_limit: None,
                attempts: 3,
                attempts_submitted: 3,
                retry_not_stored_ok: false,
                packing: Some(Packing {
                    bytes_min: COMPRESS_BYTES_MIN,
                    kind: Compression::Zlib,
                    level: LEVEL_DEFAULT,
                }),
                body_bytes_max: names::BODY_BYTES_MAX_DEFAULT,
                avoid_slow_brokers: false,
                new_topic_queues: NEW_TOPIC_QUEUES,
                create_topic_key: names::AUTO_CREATE_TOPIC.to_owned(),
            },
            settings: Settings::default(),
        }
    }

    shared_settings!();

    /// `sendMsgTimeout`: how long one send may take with all its attempts; 3 s unless said otherwise.
    pub fn send_timeout(mut self, limit: Duration) -> ProducerBuilder {
        self.options.send_limit = limit;
        self
    }

    /// `retryTimesWhenSendFailed` and `retryTimesWhenSendAsyncFailed`: how often a failed send is tried again; twice
    /// unless said otherwise.
    pub fn retries(mut self, retries: usize) -> ProducerBuilder {
        self.options.attempts = retries + 1;
        self.options.attempts_submitted = retries + 1;
        self
    }

    /// `retryAnotherBrokerWhenNotStoreOK`: an answer other than [`Stored::AsPromised`](crate::Stored) counts as a failure while there
    /// are attempts left. Off unless said otherwise.
    pub fn retry_when_not_stored_as_promised(mut self, retry: bool) -> ProducerBuilder {
        self.options.retry_not_stored_ok = retry;
        self
    }

    /// Whether large bodies are compressed, those from `compressMsgBodyOverHowmuch` bytes on: 4,096 unless said otherwise.
    pub fn compress(mut self, compress: bool) -> ProducerBuilder {
        self.options.packing = compress.then(|| self.packing());
        self
    }

    /// `compressMsgBodyOverHowmuch`: bodies from this length on are compressed.
    pub fn compress_from(mut self, bytes: usize) -> ProducerBuilder {
        self.options.packing = Some(Packing {
            bytes_min: bytes,
            ..self.packing()
        });
        self
    }

    /// `compressType`: zlib unless said otherwise. Consumers older than 5.0 read nothing but zlib.
    pub fn compress_type(mut self, kind: Compression) -> ProducerBuilder {
        self.options.packing = Some(Packing {
            kind,
            ..self.packing()
        });
        self
    }

    /// `compressLevel`: 0 (fast) to 9 (small), 5 unless said otherwise; not for lz4.
    pub fn compress_level(mut self, level: u32) -> ProducerBuilder {
        self.options.packing = Some(Packing {
            level: level.min(LEVEL_MAX),
            ..self.packing()
        });
        self
    }

    fn packing(&self) -> Packing {
        self.options.packing.unwrap_or(Packing {
            bytes_min: COMPRESS_BYTES_MIN,
            kind: Compression::Zlib,
            level: LEVEL_DEFAULT,
        })
    }

    /// `maxMessageSize`: bodies above this are refused before they are sent; 4 MiB unless said otherwise, as brokers do.
    pub fn body_bytes_max(mut self, bytes: usize) -> ProducerBuilder {
        self.options.body_bytes_max = bytes;
        self
    }

    /// `sendLatencyFaultEnable`: a broker that fails or is slow (550 ms and more) gets no messages for a while, from
    /// 2 s to 30 s, as long as there are others. Off unless said otherwise.
    pub fn send_latency_fault_enable(mut self, on: bool) -> ProducerBuilder {
        self.options.avoid_slow_brokers = on;
        self
    }

    /// `defaultTopicQueueNums`: queues of a topic that its first message makes; 4 unless said otherwise.
    pub fn default_topic_queues(mut self, queues: u16) -> ProducerBuilder {
        self.options.new_topic_queues = i32::from(queues.max(1));
        self
    }

    /// Sets what RocketMQ calls `name` to what a properties file would say: `set("sendMsgTimeout", "3000")`. Times
    /// are in milliseconds, sizes in bytes.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if a producer has no such setting, or it cannot have that value.
    pub fn set(mut self, name: &str, value: &str) -> Result<ProducerBuilder> {
        match name {
            "producerGroup" => self.options.group = value.to_owned(),
            "sendMsgTimeout" => self.options.send_limit = millis(name, value)?,
            "sendMsgMaxTimeoutPerRequest" => {
                let limit_ms: i64 = parse(name, value)?;
                let limit = u64::try_from(limit_ms).ok().map(Duration::from_millis);
                self.options.attempt_limit = limit;
            }
            "retryTimesWhenSendFailed" => self.options.attempts = parse::<usize>(name, value)? + 1,
            "retryTimesWhenSendAsyncFailed" => {
                self.options.attempts_submitted = parse::<usize>(name, value)? + 1;
            }
            "retryAnotherBrokerWhenNotStoreOK" => {
                self.options.retry_not_stored_ok = parse(name, value)?;
            }
            "compressMsgBodyOverHowmuch" => self = self.compress_from(parse(name, value)?),
            "compressLevel" => self = self.compress_level(parse(name, value)?),
            "compressType" => self = self.compress_type(compression(name, value)?),
            "maxMessageSize" => self.options.body_bytes_max = parse(name, value)?,
            "sendLatencyFaultEnable" | "sendLatencyEnable" => {
                self.options.avoid_slow_brokers = parse(name, value)?;
            }
            "defaultTopicQueueNums" => {
                let queues = u16::try_from(positive(name, value)?);
                self = self.default_topic_queues(queues.map_err(|_| wrong(name, "too many"))?);
            }
            "createTopicKey" => self.options.create_topic_key = value.to_owned(),
            _ if self.settings.set(name, value)? => {}
            _ => return Err(unknown(name)),
        }
        Ok(self)
    }

    /// Starts; brokers are looked for when the first message is sent.
    ///
    /// # Errors
    /// [`Error::NoNameServer`](crate::Error::NoNameServer), and [`Error::Illegal`](crate::Error::Illegal) for a group that cannot be.
    pub async fn start(self) -> Result<Producer> {
        Producer::start(self, None).await
    }
}

fn compression(name: &str, value: &str) -> Result<Compression> {
    match value.to_ascii_uppercase().as_str() {
        "ZLIB" => Ok(Compression::Zlib),
        "LZ4" => Ok(Compression::Lz4),
        "ZSTD" => Ok(Compression::Zstd),
        _ => Err(wrong(name, "one of ZLIB, LZ4, ZSTD")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn rocketmqs_names_and_defaults_are_known() {
        let builder = ProducerBuilder::new("g".into());
        assert_eq!(builder.options.send_limit, Duration::from_millis(3_000));
        assert_eq!(builder.options.attempts, 3);
        let set = builder
            .set("sendMsgTimeout", "500")
            .and_then(|builder| builder.set("compressType", "zstd"))
            .and_then(|builder| builder.set("sendLatencyFaultEnable", "true"))
            .and_then(|builder| builder.set("namespace", "tenant"));
        let builder = set.expect("known");
        assert_eq!(builder.options.send_limit, Duration::from_millis(500));
        assert_eq!(builder.packing().kind, Compression::Zstd);
        assert!(builder.options.avoid_slow_brokers);
    }

    #[test]
    fn an_unknown_name_or_an_impossible_value_is_refused() {
        let set = |name, value| ProducerBuilder::new("g".into()).set(name, value).err();
        for (name, value) in [
            ("sendMsgTimeOut", "3000"),
            ("sendMsgTimeout", "soon"),
            ("compressType", "rar"),
            ("defaultTopicQueueNums", "0"),
        ] {
            assert!(
                matches!(set(name, value), Some(Error::Setting { .. })),
                "{name}"
            );
        }
    }
}
