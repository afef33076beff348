//! The answers to a pull.

use std::rc::Rc;

use engine::Found;
use protocol::code::response;
use protocol::record::LOG_OFFSET_AT;
use protocol::{Value, write_response, write_response_head};
use reactor::Gather;

use super::Pull;
use crate::messages::Refusal;
use crate::net::transfer;
use crate::shard::{Connection, Shard};
use crate::stats::tally::{self, Got};

/// Why a consumer is told to go on elsewhere in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    NothingInQueue,
    BeyondEnd,
    BelowStart,
    /// An operator has set it.
    Reset,
}

impl Moved {
    /// The remark; clients and their users know these words.
    fn word(self) -> &'static str {
        match self {
            Self::NothingInQueue => "NO_MESSAGE_IN_QUEUE",
            Self::BeyondEnd => "OFFSET_OVERFLOW_BADLY",
            Self::BelowStart => "OFFSET_TOO_SMALL",
            Self::Reset => "OFFSET_RESET",
        }
    }
}

/// Records, as ranges of the log in `gather`.
pub fn found(
    shard: &Shard,
    connection: &Rc<Connection>,
    pull: &Pull,
    found: &Found,
    gather: &mut Gather,
) {
    assert!(found.messages > 0, "found means that something is there");
    let stats = shard.stats();
    stats.get_found.add(1);
    stats.get_messages.add(u64::from(found.messages));
    stats.get_bytes.add(found.bytes);
    count(shard, pull, found, gather);
    let body_len = gather.len();
    debug_assert_eq!(
        body_len as u64, found.bytes,
        "the head announces what follows"
    );
    let fields = fields(pull, found.next.0);
    let head = |out: &mut Vec<u8>| {
        let (code, remark) = (response::SUCCESS, Some("FOUND"));
        write_response_head(out, pull.asked, code, remark, &fields, body_len);
    };
    transfer::send(connection, head, gather);
    shard.connections.mark(connection);
}

fn count(shard: &Shard, pull: &Pull, found: &Found, gather: &Gather) {
    let (messages, bytes) = (u64::from(found.messages), found.bytes);
    let took = reactor::turn_time().saturating_since(pull.looked_at);
    let mut got = Got {
        messages,
        bytes,
        pulls: 1,
        took_us: tally::micros(took),
        ..Got::default()
    };
    if pull.from_disk {
        got.disk_messages = messages;
        got.disk_bytes = bytes;
        got.behind_bytes = behind(shard, gather).unwrap_or(0);
    }
    let (topic, queue_id) = (pull.topic.name(), pull.queue.id());
    shard
        .tally
        .pulled(&pull.group, topic, got, queue_id, found.next.0);
}

/// From the first record to the end of the log.
fn behind(shard: &Shard, gather: &Gather) -> Option<u64> {
    let mut first = None;
    gather.for_each_slice(|slice| {
        // The head, which comes first, is empty yet.
        if slice.is_empty() {
            return;
        }
        first.get_or_insert_with(|| {
            let place = slice.get(LOG_OFFSET_AT..)?.first_chunk()?;
            Some(u64::from_be_bytes(*place))
        });
    });
    Some(shard.shared.store.written().0.saturating_sub(first??))
}

/// Nothing came, or nothing that the filter takes: then the consumer goes on behind what was passed over.
pub fn nothing(shard: &Shard, pull: &Pull) {
    shard.stats().get_missed.add(1);
    let (code, word) = if pull.passed_over() {
        (response::PULL_RETRY_IMMEDIATELY, "NO_MATCHED_MESSAGE")
    } else if pull.queue.max_offset() == 0 {
        (response::PULL_NOT_FOUND, "NO_MESSAGE_IN_QUEUE")
    } else {
        (response::PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE")
    };
    without_records(shard, pull, code, word, pull.looked_until);
}

pub fn moved(shard: &Shard, pull: &Pull, why: Moved, next: u64) {
    shard.stats().get_missed.add(1);
    tracing::info!(
        topic = %pull.topic.name(),
        queue = pull.queue.id(),
        asked = pull.offset,
        next,
        why = why.word(),
        "a consumer is sent to another offset"
    );
    without_records(shard, pull, response::PULL_OFFSET_MOVED, why.word(), next);
}

/// It was allowed when it came, and is not any more.
pub fn refused(shard: &Shard, pull: &Pull, refusal: &Refusal) {
    let remark = Some(refusal.remark.as_str());
    shard.connections.reply(pull.conn, |queued| {
        write_response(queued, pull.asked, refusal.code, remark, &[], &[]);
    });
}

/// The log could not be read; what and why is in the log file, not in the answer.
pub fn failed(shard: &Shard, pull: &Pull) {
    let remark = "the message store could not be read";
    let next = pull.looked_until;
    without_records(shard, pull, response::SYSTEM_ERROR, remark, next);
}

fn without_records(shard: &Shard, pull: &Pull, code: i32, remark: &str, next: u64) {
    let fields = fields(pull, next);
    shard.connections.reply(pull.conn, |queued| {
        write_response(queued, pull.asked, code, Some(remark), &fields, &[]);
    });
}

fn fields(pull: &Pull, next: u64) -> [(&'static str, Value<'static>); 6] {
    let offset = |value: u64| Value::I64(i64::try_from(value).expect("offsets stay below 2^63"));
    [
        ("suggestWhichBrokerId", Value::I64(pull.suggested_broker)),
        ("nextBeginOffset", offset(next)),
        ("minOffset", offset(pull.queue.min_offset())),
        ("maxOffset", offset(pull.queue.max_offset())),
        ("topicSysFlag", Value::I32(pull.topic_sys_flag)),
        ("groupSysFlag", Value::I32(pull.group_sys_flag)),
    ]
}
