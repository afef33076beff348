//! A message that was received, as an application sees it.

use std::net::SocketAddr;

use protocol::properties;
use protocol::record::View;

use crate::compression;
use crate::namespace::Namespace;

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
    /// When its producer made it, in milliseconds since 1970.
    pub born_ms: i64,
    pub born_host: SocketAddr,
    /// When the broker stored it, in milliseconds since 1970.
    pub stored_ms: i64,
    pub stored_host: SocketAddr,
    /// How often it was delivered in vain before.
    pub reconsumed: i32,
    /// Bytes it takes in the broker's log, compressed if it was sent so.
    pub stored_bytes: usize,
    pub(crate) log_offset: i64,
    /// The topic of the queue it was read from.
    pub(crate) queue_topic: String,
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

    /// Where in the broker's log it lies, in bytes.
    pub fn log_offset(&self) -> i64 {
        self.log_offset
    }

    pub(crate) fn from_record(
        record: &View<'_>,
        broker_name: &str,
        namespace: &Namespace,
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
        let offset_id = record.message_id();
        let topic = text(record.topic);
        // Only what waits to be tried again shows the topic it came from; a dead letter shows its own.
        let origin = find(properties::RETRY_TOPIC)
            .filter(|_| protocol::names::is_retry_topic(&topic))
            .unwrap_or_else(|| topic.clone());
        Ok(Received {
            topic: namespace.unwrap(&origin).into_owned(),
            body: compression::unpack(record.body, record.sys_flag)?,
            flag: record.flag,
            broker_name: broker_name.to_owned(),
            queue_id: record.queue_id,
            queue_offset: record.queue_offset as i64,
            id: find(properties::UNIQ_KEY).unwrap_or_else(|| offset_id.clone()),
            offset_id,
            born_ms: record.born_ms,
            born_host: record.born_host,
            stored_ms: record.store_ms,
            stored_host: record.store_host,
            reconsumed: record.reconsume_times,
            stored_bytes: record.bytes.len(),
            log_offset: record.log_offset as i64,
            queue_topic: topic,
            properties,
        })
    }

    /// A message that no queue holds: a reply. `times_ms` are those of birth and storing, as are `hosts`.
    pub(crate) fn from_parts(
        topic: String,
        body: Vec<u8>,
        properties: &[u8],
        times_ms: [i64; 2],
        hosts: [SocketAddr; 2],
    ) -> Received {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let id = properties::get_str(properties, properties::UNIQ_KEY).unwrap_or_default();
        Received {
            queue_topic: topic.clone(),
            topic,
            stored_bytes: body.len(),
            body,
            flag: 0,
            broker_name: String::new(),
            queue_id: 0,
            queue_offset: 0,
            id: id.to_owned(),
            offset_id: String::new(),
            born_ms: times_ms[0],
            born_host: hosts[0],
            stored_ms: times_ms[1],
            stored_host: hosts[1],
            reconsumed: 0,
            log_offset: 0,
            properties: properties::iter(properties)
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
        }
    }

    /// Every message of an answer, or what is wrong with one of them.
    pub(crate) fn all_from(
        mut records: &[u8],
        broker_name: &str,
        namespace: &Namespace,
    ) -> std::result::Result<Vec<Received>, String> {
        let mut messages = Vec::new();
        while !records.is_empty() {
            let record = View::parse(records).map_err(|error| error.to_string())?;
            records = &records[record.bytes.len()..];
            messages.push(Received::from_record(&record, broker_name, namespace)?);
        }
        Ok(messages)
    }
}
