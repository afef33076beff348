//! Messages as an application sees them: one to be sent, and one that was received.

use std::io::{Read, Write};
use std::net::SocketAddr;

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use protocol::record::View;
use protocol::{names, properties, sysflag};

use crate::error::{Error, Result};

/// Bodies above this are compressed if the producer was told to.
pub(crate) const COMPRESS_BYTES_MIN: usize = 4 << 10;
/// A compressed body may not unpack to more than this: a frame's limit, well above any honest message.
const UNPACKED_BYTES_MAX: u64 = 64 << 20;

/// A message to be sent.
///
/// ```
/// use orbitmq_client::Message;
///
/// let message = Message::new("Orders", "42 apples").tag("paid").key("order-4711").property("from", "shop");
/// assert_eq!(message.topic(), "Orders");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    topic: String,
    pub(crate) body: Vec<u8>,
    pub(crate) flag: i32,
    /// Name and value, in the order given.
    properties: Vec<(String, String)>,
}

impl Message {
    pub fn new(topic: impl Into<String>, body: impl Into<Vec<u8>>) -> Message {
        Message {
            topic: topic.into(),
            body: body.into(),
            flag: 0,
            properties: Vec::new(),
        }
    }

    /// What consumers can select by; one for each message.
    pub fn tag(self, tag: impl Into<String>) -> Message {
        self.property(properties::TAGS, tag)
    }

    /// What the message can be looked up by; several keys are separated by spaces.
    pub fn key(self, key: impl Into<String>) -> Message {
        self.property(properties::KEYS, key)
    }

    /// Deliver it later: 1 is the shortest of the broker's delays (1 s), 18 the longest (2 h).
    pub fn delay_level(self, level: u32) -> Message {
        self.property(properties::DELAY, level.to_string())
    }

    /// A number of the application's own.
    pub fn flag(mut self, flag: i32) -> Message {
        self.flag = flag;
        self
    }

    /// A property of the application's own; a second value for the same name replaces the first.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Message {
        let (name, value) = (name.into(), value.into());
        self.properties.retain(|(known, _)| *known != name);
        self.properties.push((name, value));
        self
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Refuses what no broker accepts, before anything is sent.
    pub(crate) fn check(&self, body_bytes_max: usize) -> Result<()> {
        names::validate_topic(&self.topic).map_err(|error| Error::Illegal(error.to_string()))?;
        if self.body.is_empty() {
            return Err(Error::Illegal("the body is empty".into()));
        }
        if self.body.len() > body_bytes_max {
            let len = self.body.len();
            return Err(Error::Illegal(format!(
                "the body has {len} bytes, {body_bytes_max} are allowed"
            )));
        }
        let broken = |text: &str| {
            text.bytes().any(|byte| {
                matches!(
                    byte,
                    properties::NAME_VALUE_SEPARATOR | properties::PAIR_SEPARATOR
                )
            })
        };
        match self
            .properties
            .iter()
            .find(|(name, value)| name.is_empty() || broken(name) || broken(value))
        {
            Some((name, _)) => Err(Error::Illegal(format!(
                "property {name:?} cannot be written"
            ))),
            None => Ok(()),
        }
    }

    /// The properties as they travel, with the unique key.
    pub(crate) fn encode_properties(&self, unique_key: &str) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let own = self
            .properties
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.chain([
            (properties::UNIQ_KEY, unique_key),
            (properties::WAIT, "true"),
        ]) {
            properties::append(&mut out, 0, name, value.as_bytes());
        }
        if out.len() > names::PROPERTIES_BYTES_MAX {
            let max = names::PROPERTIES_BYTES_MAX;
            return Err(Error::Illegal(format!(
                "properties take {} bytes, {max} are allowed",
                out.len()
            )));
        }
        Ok(out)
    }
}

/// A message that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The topic it was sent to, also when it comes from the retry topic.
    pub topic: String,
    pub body: Vec<u8>,
    pub flag: i32,
    pub broker_name: String,
    pub queue_id: i32,
    pub queue_offset: i64,
    /// The unique id its producer gave it.
    pub id: String,
    /// The id that says where the broker stores it.
    pub offset_id: String,
    pub born_ms: i64,
    pub born_host: SocketAddr,
    pub stored_ms: i64,
    /// How often it was delivered in vain before.
    pub reconsumed: i32,
    pub(crate) log_offset: i64,
    properties: Vec<(String, String)>,
}

impl Received {
    pub fn tag(&self) -> Option<&str> {
        self.property(properties::TAGS)
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let keys = self.property(properties::KEYS).unwrap_or_default();
        keys.split(properties::KEY_SEPARATOR)
            .filter(|key| !key.is_empty())
    }

    pub fn property(&self, name: &str) -> Option<&str> {
        let found = self.properties.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn properties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.properties
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(crate) fn from_record(
        record: &View<'_>,
        broker_name: &str,
    ) -> std::result::Result<Received, String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let properties: Vec<_> = properties::iter(record.properties)
            .map(|(name, value)| (text(name), text(value)))
            .collect();
        let find = |name: &str| {
            properties
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
        };
        let offset_id = protocol::record::message_id(record.store_host, record.log_offset);
        Ok(Received {
            topic: find(properties::RETRY_TOPIC).unwrap_or_else(|| text(record.topic)),
            body: unpack(record.body, record.sys_flag)?,
            flag: record.flag,
            broker_name: broker_name.to_owned(),
            queue_id: record.queue_id,
            queue_offset: record.queue_offset as i64,
            id: find(properties::UNIQ_KEY).unwrap_or_else(|| offset_id.clone()),
            offset_id,
            born_ms: record.born_ms,
            born_host: record.born_host,
            stored_ms: record.store_ms,
            reconsumed: record.reconsume_times,
            log_offset: record.log_offset as i64,
            properties,
        })
    }
}

/// The body to send and the flags that say what was done to it.
pub(crate) fn pack(body: &[u8], compress: bool) -> (Option<Vec<u8>>, i32) {
    if !compress || body.len() < COMPRESS_BYTES_MIN {
        return (None, 0);
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let packed = encoder.write_all(body).and_then(|()| encoder.finish());
    let packed = packed.expect("writing to memory does not fail");
    (
        Some(packed),
        sysflag::with_compression(0, sysflag::Compression::Zlib),
    )
}

fn unpack(body: &[u8], flags: i32) -> std::result::Result<Vec<u8>, String> {
    match sysflag::compression(flags) {
        None => Ok(body.to_vec()),
        Some(sysflag::Compression::Zlib) => {
            let mut unpacked = Vec::new();
            let mut decoder = ZlibDecoder::new(body).take(UNPACKED_BYTES_MAX);
            let read = decoder
                .read_to_end(&mut unpacked)
                .map_err(|error| error.to_string())?;
            match (read as u64) < UNPACKED_BYTES_MAX {
                true => Ok(unpacked),
                false => Err("the body unpacks to too much".into()),
            }
        }
        Some(other) => Err(format!(
            "the body is compressed with {other:?}, which this client cannot read"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_broker_accepts_is_refused_here() {
        let check = |message: Message| message.check(100).is_ok();
        assert!(check(Message::new("t", "body")));
        assert!(!check(Message::new("", "body")));
        assert!(!check(Message::new("no spaces", "body")));
        assert!(!check(Message::new("t", "")));
        assert!(!check(Message::new("t", vec![0; 101])));
        assert!(!check(
            Message::new("t", "body").property("name", "va\u{1}lue")
        ));
    }

    #[test]
    fn properties_hold_the_unique_key_and_the_last_value_of_a_name() {
        let message = Message::new("t", "b").tag("one").tag("two").key("k");
        let encoded = message.encode_properties("ID").expect("short");
        assert_eq!(properties::get_str(&encoded, "TAGS"), Some("two"));
        assert_eq!(properties::get_str(&encoded, "KEYS"), Some("k"));
        assert_eq!(properties::get_str(&encoded, "UNIQ_KEY"), Some("ID"));
    }

    #[test]
    fn large_bodies_are_compressed_and_unpacked_again() {
        let body = b"so much of the same ".repeat(1_000);
        let (packed, flags) = pack(&body, true);
        let packed = packed.expect("large enough");
        assert!(packed.len() < body.len() / 10);
        assert_eq!(unpack(&packed, flags), Ok(body.clone()));
        assert_eq!(pack(&body, false), (None, 0));
        assert_eq!(pack(&body[..100], true), (None, 0));
        assert!(unpack(b"rubbish", flags).is_err());
    }
}
