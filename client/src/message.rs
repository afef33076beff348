//! A message to be sent, as an application sees it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::{names, properties};

use crate::error::{Error, Result};
use crate::received::Received;

/// What [`properties::MSG_TYPE`] holds in an answer to a request.
pub(crate) const REPLY: &str = "reply";

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
    /// `topic`: up to 127 letters, digits, `-`, `_`, `%`, `|`. `body`: 1 byte to 4 MiB, unless producer and broker are
    /// set to more. Both are checked when the message is sent.
    pub fn new(topic: impl Into<String>, body: impl Into<Vec<u8>>) -> Message {
        Message {
            topic: topic.into(),
            body: body.into(),
            flag: 0,
            properties: Vec::new(),
        }
    }

    /// An answer to a request, see [`Producer::request`](crate::Producer::request). It is sent as any message is.
    ///
    /// # Errors
    /// [`Error::Illegal`] if `request` is not a request.
    pub fn reply(request: &Received, body: impl Into<Vec<u8>>) -> Result<Message> {
        let wanted = |name: &str| {
            request
                .property(name)
                .ok_or_else(|| Error::Illegal(format!("not a request: it has no property {name}")))
        };
        let topic = format!(
            "{}{}",
            wanted(properties::CLUSTER)?,
            names::REPLY_TOPIC_SUFFIX
        );
        let mut reply = Message::new(topic, body)
            .property(properties::MSG_TYPE, REPLY)
            .property(
                properties::CORRELATION_ID,
                wanted(properties::CORRELATION_ID)?,
            )
            .property(
                properties::REPLY_TO_CLIENT,
                wanted(properties::REPLY_TO_CLIENT)?,
            );
        if let Some(limit_ms) = request.property(properties::TTL) {
            reply = reply.property(properties::TTL, limit_ms);
        }
        Ok(reply)
    }

    /// What consumers can select by; one for each message.
    pub fn tag(self, tag: impl Into<String>) -> Message {
        self.property(properties::TAGS, tag)
    }

    /// What the message can be looked up by; several keys are separated by spaces.
    pub fn key(self, key: impl Into<String>) -> Message {
        self.property(properties::KEYS, key)
    }

    /// Deliver it later: 1 is the shortest of the broker's delays (1 s), 18 the longest (2 h), as long as
    /// `messageDelayLevel` of the broker says nothing else.
    pub fn delay_level(self, level: u32) -> Message {
        self.property(properties::DELAY, level.to_string())
    }

    /// Deliver it after a time: in steps of 1 ms, up to the broker's `timerMaxDelaySec` (3 days).
    pub fn delay(self, delay: Duration) -> Message {
        self.property(properties::TIMER_DELAY_MS, delay.as_millis().to_string())
    }

    /// Deliver it at a time, in steps of 1 ms, up to the broker's `timerMaxDelaySec` (3 days) ahead. A time that has
    /// passed means now.
    pub fn deliver_at(self, time: SystemTime) -> Message {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.property(properties::TIMER_DELIVER_MS, since.as_millis().to_string())
    }

    /// Messages with one key keep their order: [`Producer::send_keyed`](crate::Producer::send_keyed) puts them into one queue.
    pub fn sharding_key(self, key: impl Into<String>) -> Message {
        self.property(properties::SHARDING_KEY, key)
    }

    /// Whether the answer waits for what the broker promises: flush and replication. True unless said otherwise.
    pub fn wait_store_ok(self, wait: bool) -> Message {
        self.property(properties::WAIT, wait.to_string())
    }

    /// A number of the application's own.
    pub fn flag(mut self, flag: i32) -> Message {
        self.flag = flag;
        self
    }

    /// A property of the application's own; a second value for the same name replaces the first. All properties
    /// together take up to 32,767 bytes.
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

    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.properties.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn without(mut self, name: &str) -> Message {
        self.properties.retain(|(known, _)| known != name);
        self
    }

    /// Whether its delivery waits for a time.
    pub(crate) fn is_delayed(&self) -> bool {
        let delays = [
            properties::DELAY,
            properties::TIMER_DELAY_MS,
            properties::TIMER_DELAY_SEC,
            properties::TIMER_DELIVER_MS,
        ];
        delays.iter().any(|name| self.get(name).is_some())
    }

    /// Refuses what no broker accepts, before anything is sent.
    pub(crate) fn check(&self, body_bytes_max: usize) -> Result<()> {
        names::validate_topic(&self.topic).map_err(|error| Error::Illegal(error.to_string()))?;
        if names::is_closed_topic(&self.topic) {
            let topic = &self.topic;
            return Err(Error::Illegal(format!("nobody may send to {topic}")));
        }
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
            .filter(|(name, _)| name != properties::UNIQ_KEY)
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let wait = self
            .get(properties::WAIT)
            .is_none()
            .then_some((properties::WAIT, "true"));
        for (name, value) in own.chain([(properties::UNIQ_KEY, unique_key)]).chain(wait) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_broker_accepts_is_refused_here() {
        let check = |message: Message| message.check(100).is_ok();
        assert!(check(Message::new("t", "body")));
        assert!(!check(Message::new("", "body")));
        assert!(!check(Message::new("no spaces", "body")));
        assert!(!check(Message::new(names::TRANS_HALF_TOPIC, "body")));
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
        assert_eq!(properties::get_str(&encoded, "WAIT"), Some("true"));
        let hasty = Message::new("t", "b").wait_store_ok(false);
        let encoded = hasty.encode_properties("ID").expect("short");
        assert_eq!(properties::get_str(&encoded, "WAIT"), Some("false"));
    }

    #[test]
    fn every_way_to_delay_is_a_delay() {
        let plain = Message::new("t", "b");
        assert!(!plain.is_delayed());
        assert!(plain.clone().delay_level(3).is_delayed());
        assert!(
            plain
                .clone()
                .delay(Duration::from_millis(1_500))
                .is_delayed()
        );
        let at = plain.deliver_at(UNIX_EPOCH + Duration::from_secs(1));
        assert_eq!(at.get(properties::TIMER_DELIVER_MS), Some("1000"));
    }
}
