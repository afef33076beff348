//! RocketMQ's own notes on popped messages, as they lie in its revive topic: bodies of messages tagged `ck`, `ack`, `bAck`.

use serde::{Deserialize, Serialize};

use super::null_as_default;

/// What names a checkpoint: group, topic, queue, first offset, pop time.
pub type Name = (String, String, i32, i64, i64);

/// Messages of one queue that were popped together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checkpoint {
    /// Bit n: the n-th message is acknowledged.
    #[serde(rename = "bm")]
    pub acked: i32,
    #[serde(rename = "bn", skip_serializing_if = "Option::is_none")]
    pub broker_name: Option<String>,
    #[serde(rename = "c")]
    pub consumer_group: String,
    /// How far each message lies behind the first; none: they are neighbours.
    #[serde(rename = "d", skip_serializing_if = "Option::is_none")]
    pub differences: Option<Vec<i32>>,
    #[serde(rename = "it")]
    pub invisible_ms: i64,
    #[serde(rename = "n")]
    pub count: i8,
    #[serde(rename = "pt")]
    pub pop_ms: i64,
    #[serde(rename = "q")]
    pub queue_id: i32,
    #[serde(rename = "ro")]
    pub revive_offset: i64,
    #[serde(rename = "rp", skip_serializing_if = "Option::is_none")]
    pub put_again_times: Option<String>,
    #[serde(rename = "so", alias = "startOffset")]
    pub start_offset: i64,
    #[serde(rename = "t")]
    pub topic: String,
}

impl Checkpoint {
    pub fn due_ms(&self) -> i64 {
        self.pop_ms.saturating_add(self.invisible_ms)
    }

    pub fn name(&self) -> Name {
        let (group, topic) = (self.consumer_group.clone(), self.topic.clone());
        (group, topic, self.queue_id, self.start_offset, self.pop_ms)
    }

    /// The queue offsets of its messages, in order of their bits.
    pub fn offsets(&self) -> impl Iterator<Item = i64> + '_ {
        let count = usize::try_from(self.count).unwrap_or(0);
        (0..count.min(32)).map(move |index| {
            let difference = match &self.differences {
                Some(listed) if !listed.is_empty() => listed.get(index).copied(),
                _ => i32::try_from(index).ok(),
            };
            self.start_offset + i64::from(difference.unwrap_or(0))
        })
    }

    pub fn ack(&mut self, offset: i64) {
        let index = self.offsets().position(|listed| listed == offset);
        if let Some(index) = index {
            self.acked |= 1 << index;
        }
    }

    /// Those that are not acknowledged.
    pub fn unacked(&self) -> impl Iterator<Item = u64> + '_ {
        let offsets = self.offsets().enumerate();
        let open = offsets.filter(|(index, _)| self.acked & (1 << index) == 0);
        open.filter_map(|(_, offset)| u64::try_from(offset).ok())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ack {
    #[serde(rename = "ao", alias = "ackOffset")]
    pub ack_offset: i64,
    #[serde(rename = "c", alias = "consumerGroup")]
    pub consumer_group: String,
    #[serde(rename = "pt", alias = "popTime")]
    pub pop_ms: i64,
    #[serde(rename = "q", alias = "queueId")]
    pub queue_id: i32,
    #[serde(rename = "so", alias = "startOffset")]
    pub start_offset: i64,
    #[serde(rename = "t", alias = "topic")]
    pub topic: String,
}

impl Ack {
    /// Of the checkpoint it is about.
    pub fn name(&self) -> Name {
        let (group, topic) = (self.consumer_group.clone(), self.topic.clone());
        (group, topic, self.queue_id, self.start_offset, self.pop_ms)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchAck {
    #[serde(
        rename = "aol",
        alias = "ackOffsetList",
        deserialize_with = "null_as_default"
    )]
    pub ack_offsets: Vec<i64>,
    #[serde(rename = "c", alias = "consumerGroup")]
    pub consumer_group: String,
    #[serde(rename = "pt", alias = "popTime")]
    pub pop_ms: i64,
    #[serde(rename = "q", alias = "queueId")]
    pub queue_id: i32,
    #[serde(rename = "so", alias = "startOffset")]
    pub start_offset: i64,
    #[serde(rename = "t", alias = "topic")]
    pub topic: String,
}

impl BatchAck {
    /// Of the checkpoint it is about.
    pub fn name(&self) -> Name {
        let (group, topic) = (self.consumer_group.clone(), self.topic.clone());
        (group, topic, self.queue_id, self.start_offset, self.pop_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;
    use crate::json::Dialect;

    #[test]
    fn a_checkpoint_and_what_of_it_is_acknowledged() {
        let json = br#"{"bm":0,"bn":"b","c":"g","d":[0,1,4],"it":60000,"n":3,"pt":1700000000000,"q":2,"ro":0,"so":10,"t":"t"}"#;
        let mut checkpoint = Checkpoint::from_json(json).expect("as RocketMQ writes it");
        assert_eq!(checkpoint.to_json(Dialect::Strict), json);
        assert_eq!(checkpoint.due_ms(), 1_700_000_060_000);
        assert_eq!(checkpoint.unacked().collect::<Vec<_>>(), [10, 11, 14]);
        checkpoint.ack(11);
        checkpoint.ack(99);
        assert_eq!(checkpoint.unacked().collect::<Vec<_>>(), [10, 14]);
        checkpoint.differences = None;
        assert_eq!(checkpoint.offsets().collect::<Vec<_>>(), [10, 11, 12]);
    }

    #[test]
    fn acknowledgements_name_their_checkpoint() {
        let json = br#"{"ao":11,"bn":"b","c":"g","pt":1700000000000,"q":2,"so":10,"t":"t"}"#;
        let ack = Ack::from_json(json).expect("as RocketMQ writes it");
        let json =
            br#"{"ackOffset":-1,"aol":[11,14],"c":"g","pt":1700000000000,"q":2,"so":10,"t":"t"}"#;
        let batch = BatchAck::from_json(json).expect("as RocketMQ writes it");
        assert_eq!(ack.name(), batch.name());
        assert_eq!(
            (ack.ack_offset, batch.ack_offsets.as_slice()),
            (11, [11, 14].as_slice())
        );
    }
}
