//! Bodies of POP: acknowledgements in one piece (200151), who pops or pulls what (400, 401).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::heartbeat::MessageModel;
use super::null_as_default;
use super::queue::MessageQueue;

/// 200151
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchAckRequest {
    #[serde(deserialize_with = "null_as_default")]
    pub acks: Vec<BatchAck>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_name: Option<String>,
}

/// Messages that one pop brought from one queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchAck {
    /// Bit n: the message at `start_offset + n`.
    #[serde(rename = "b", alias = "bitSet")]
    pub bits: Bits,
    #[serde(rename = "c", alias = "consumerGroup")]
    pub consumer_group: String,
    #[serde(rename = "it", alias = "invisibleTime")]
    pub invisible_ms: i64,
    #[serde(rename = "pt", alias = "popTime")]
    pub pop_ms: i64,
    #[serde(rename = "q", alias = "queueId")]
    pub queue_id: i32,
    /// See [`crate::pop::Origin`].
    #[serde(rename = "r", alias = "retry")]
    pub retry: String,
    #[serde(rename = "rq", alias = "reviveQueueId")]
    pub revive_queue_id: i32,
    #[serde(rename = "so", alias = "startOffset")]
    pub start_offset: i64,
    #[serde(rename = "t", alias = "topic")]
    pub topic: String,
}

/// A set of small numbers: the bits of bytes, lowest first, in base 64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits(pub Vec<u8>);

impl Bits {
    pub fn set(&mut self, bit: usize) {
        if self.0.len() <= bit / 8 {
            self.0.resize(bit / 8 + 1, 0);
        }
        self.0[bit / 8] |= 1 << (bit % 8);
    }

    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let bytes = (0u64..).zip(&self.0);
        bytes.flat_map(|(index, byte)| {
            let set = (0..8u64).filter(move |bit| byte & (1 << bit) != 0);
            set.map(move |bit| index * 8 + bit)
        })
    }
}

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}

/// How a group gets a topic's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RequestMode {
    #[default]
    Pull,
    Pop,
}

/// 401, and the entries of `messageRequestMode.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SetRequestMode {
    pub consumer_group: String,
    pub mode: RequestMode,
    /// With how many other members a member shares its queues; 0 or less: with all.
    pub pop_share_queue_num: i32,
    pub topic: String,
}

/// 400
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryAssignmentRequest {
    pub client_id: String,
    pub consumer_group: String,
    pub message_model: MessageModel,
    pub strategy_name: String,
    pub topic: String,
}

/// The answer; none: the client keeps what it has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryAssignmentAnswer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_queue_assignments: Option<Vec<Assignment>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Assignment {
    pub message_queue: MessageQueue,
    pub mode: RequestMode,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;
    use crate::json::Dialect;
    use proptest::prelude::*;

    #[test]
    fn a_batch_as_the_java_client_writes_it() {
        let body = br#"{"acks":[{"b":"Kg==","c":"g","it":60000,"pt":1700000000000,"q":3,"r":"0","rq":2,"so":100,"t":"t"}],"brokerName":"b"}"#;
        let request = BatchAckRequest::from_json(body).expect("as documented");
        let ack = &request.acks[0];
        assert_eq!(ack.bits.iter().collect::<Vec<_>>(), [1, 3, 5]);
        assert_eq!((ack.start_offset, ack.queue_id), (100, 3));
        assert_eq!(request.to_json(Dialect::Strict), body);
    }

    #[test]
    fn modes_have_their_names() {
        let body = br#"{"consumerGroup":"g","mode":"POP","popShareQueueNum":8,"topic":"t"}"#;
        let mode = SetRequestMode::from_json(body).expect("as documented");
        assert_eq!(mode.mode, RequestMode::Pop);
        assert_eq!(mode.to_json(Dialect::Strict), body);
    }

    proptest! {
        #[test]
        fn bits_come_back_as_they_were_set(numbers in proptest::collection::btree_set(0usize..2000, 0..50)) {
            let mut bits = Bits::default();
            numbers.iter().for_each(|&bit| bits.set(bit));
            let json = serde_json::to_vec(&bits).expect("plain");
            let again: Bits = serde_json::from_slice(&json).expect("its own");
            let read: Vec<usize> = again.iter().map(|bit| bit as usize).collect();
            prop_assert_eq!(read, numbers.into_iter().collect::<Vec<_>>());
        }
    }
}
