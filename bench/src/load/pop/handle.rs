//! What a pop's answer says about where its messages come from, and what is said back to acknowledge them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::Settings;
use crate::record::Record;
use crate::wire::Reply;

/// What the messages of one answer share.
pub struct Origin<'a> {
    pop_ms: &'a str,
    invisible_ms: &'a str,
    revive_queue: &'a str,
    /// `mark queue start` for each queue, between semicolons.
    starts: &'a str,
}

/// One message of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    pub queue: u32,
    pub offset: u64,
    /// The first offset of its queue in the same answer.
    start: u64,
}

/// In place of a retry topic's: the message comes from the topic itself.
const MARK: &str = "0";

impl<'a> Origin<'a> {
    pub fn of(reply: &Reply<'a>) -> Option<Origin<'a>> {
        Some(Origin {
            pop_ms: reply.text("popTime")?,
            invisible_ms: reply.text("invisibleTime")?,
            revive_queue: reply.text("reviveQid")?,
            starts: reply.text("startOffsetInfo")?,
        })
    }

    /// `None` if the answer does not name the message's queue: it cannot be acknowledged.
    pub fn handle(&self, record: &Record) -> Option<Handle> {
        let start = self.starts.split(';').find_map(|part| {
            let mut words = part.split(' ');
            let (mark, queue, start) = (words.next()?, words.next()?, words.next()?);
            let is_this = mark == MARK && queue.parse() == Ok(record.queue_id);
            is_this.then(|| start.parse().ok())?
        })?;
        (start <= record.queue_offset).then_some(Handle {
            queue: record.queue_id,
            offset: record.queue_offset,
            start,
        })
    }

    /// As the broker wants it back.
    pub fn text(&self, handle: &Handle, broker_name: &str) -> String {
        let Handle {
            queue,
            offset,
            start,
        } = handle;
        let Origin {
            pop_ms,
            invisible_ms,
            revive_queue,
            ..
        } = self;
        format!(
            "{start} {pop_ms} {invisible_ms} {revive_queue} {MARK} {broker_name} {queue} {offset}"
        )
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchAckBody<'a> {
    broker_name: &'a str,
    acks: Vec<BatchAck<'a>>,
}

/// The acknowledgements of one queue.
#[derive(Serialize)]
struct BatchAck<'a> {
    #[serde(rename = "c")]
    group: &'a str,
    #[serde(rename = "t")]
    topic: &'a str,
    #[serde(rename = "r")]
    mark: &'a str,
    #[serde(rename = "so")]
    start: u64,
    #[serde(rename = "q")]
    queue: u32,
    #[serde(rename = "rq")]
    revive_queue: i64,
    #[serde(rename = "pt")]
    pop_ms: i64,
    #[serde(rename = "it")]
    invisible_ms: i64,
    /// Bit by bit from the start on, the lowest of each byte first.
    #[serde(rename = "b")]
    bits: String,
}

/// The body of one acknowledgement of them all.
pub fn batch_ack(settings: &Settings, origin: &Origin, handles: &[Handle]) -> Vec<u8> {
    let mut queues: Vec<u32> = handles.iter().map(|handle| handle.queue).collect();
    queues.sort_unstable();
    queues.dedup();
    let number = |text: &str| text.parse().unwrap_or(0);
    let of_queue = |queue| {
        let of_queue: Vec<&Handle> = handles.iter().filter(|one| one.queue == queue).collect();
        BatchAck {
            group: &settings.group,
            topic: &settings.topic,
            mark: MARK,
            start: of_queue[0].start,
            queue,
            revive_queue: number(origin.revive_queue),
            pop_ms: number(origin.pop_ms),
            invisible_ms: number(origin.invisible_ms),
            bits: STANDARD.encode(bits(of_queue.iter().map(|one| one.offset - one.start))),
        }
    };
    let body = BatchAckBody {
        broker_name: &settings.broker_name,
        acks: queues.into_iter().map(of_queue).collect(),
    };
    serde_json::to_vec(&body).expect("names and numbers")
}

fn bits(places: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut bits = Vec::new();
    for place in places {
        let at = (place / 8) as usize;
        if bits.len() <= at {
            bits.resize(at + 1, 0);
        }
        bits[at] |= 1u8 << (place % 8);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::pop::Acks;

    const ORIGIN: Origin = Origin {
        pop_ms: "1700000000000",
        invisible_ms: "60000",
        revive_queue: "3",
        starts: "0 1 40;1 2 7;0 2 10",
    };

    fn record(queue_id: u32, queue_offset: u64) -> Record<'static> {
        Record {
            queue_id,
            queue_offset,
            log_offset: 0,
            body_crc: 0,
            body: b"",
        }
    }

    #[test]
    fn a_handle_names_the_start_of_its_own_queue() {
        let handle = ORIGIN.handle(&record(2, 12)).expect("it is named");
        let text = ORIGIN.text(&handle, "b");
        assert_eq!(text, "10 1700000000000 60000 3 0 b 2 12");
        assert_eq!(ORIGIN.handle(&record(3, 12)), None);
        assert_eq!(ORIGIN.handle(&record(1, 39)), None, "before its start");
    }

    #[test]
    fn messages_of_one_queue_are_acknowledged_with_a_bit_each() {
        assert_eq!(bits([0, 3, 9].into_iter()), [0b1001, 0b10]);
        let settings = Settings {
            connections: 1,
            topic: "t".into(),
            queues: 3,
            group: "g".into(),
            broker_name: "b".into(),
            messages: 32,
            acks: Acks::Together,
        };
        let handles = [(2, 12), (1, 40), (2, 10)]
            .map(|(queue, offset)| ORIGIN.handle(&record(queue, offset)).expect("it is named"));
        let body = batch_ack(&settings, &ORIGIN, &handles);
        let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let of_queue = &json["acks"][1];
        assert_eq!((&of_queue["q"], &of_queue["so"]), (&2.into(), &10.into()));
        assert_eq!(of_queue["b"], STANDARD.encode([0b101]));
        assert_eq!(json["acks"].as_array().map(Vec::len), Some(2));
    }
}
