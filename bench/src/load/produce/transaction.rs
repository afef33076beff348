//! The second step of a transaction: the half message is stored, and its producer decides. Asked for with an answer,
//! unlike by stock clients, so that a transaction is counted when it is over.

use super::template;
use super::{GROUP, Settings};
use crate::load::Choice;
use crate::payload::Stamp;
use crate::wire::{self, Reply, request};

/// Flags of a message and of a decision.
pub const PREPARED: &str = "4";
const COMMIT: &str = "8";
const ROLLBACK: &str = "12";

/// Where the broker has put a half message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half {
    queue_offset: u64,
    log_offset: u64,
}

impl Half {
    /// `None`: the answer does not say.
    pub fn of(reply: &Reply) -> Option<Half> {
        Some(Half {
            queue_offset: reply.number("queueOffset")?,
            log_offset: log_offset(reply.text("msgId")?)?,
        })
    }
}

/// A broker's message id is its address and the place in its log, in hex digits.
fn log_offset(message_id: &str) -> Option<u64> {
    let at = message_id.len().checked_sub(16)?;
    u64::from_str_radix(message_id.get(at..)?, 16).ok()
}

/// Commits what is chosen and rolls the rest back.
pub fn write_decision(
    out: &mut Vec<u8>,
    settings: &Settings,
    topic: &str,
    stamp: &Stamp,
    half: Half,
    opaque: i32,
) {
    let chosen = settings.transactions.unwrap_or(Choice::ALL);
    let decision = match chosen.rank(stamp.sequence) {
        Some(_) => COMMIT,
        None => ROLLBACK,
    };
    let unique = template::unique_key(stamp);
    let (queue_offset, log_offset) = (half.queue_offset.to_string(), half.log_offset.to_string());
    let fields = [
        ("topic", topic),
        ("producerGroup", GROUP),
        ("tranStateTableOffset", queue_offset.as_str()),
        ("commitLogOffset", log_offset.as_str()),
        ("commitOrRollback", decision),
        ("fromTransactionCheck", "false"),
        ("msgId", unique.as_str()),
        ("transactionId", unique.as_str()),
    ];
    let code = request::END_TRANSACTION;
    wire::write_request(out, settings.encoding, code, opaque, &fields, b"");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_in_the_log_is_the_last_half_of_a_message_id() {
        assert_eq!(log_offset("7F00000100002A9F00000000000004D2"), Some(1_234));
        assert_eq!(log_offset("4D2"), None);
        assert_eq!(log_offset("7F00000100002A9F000000000000zzzz"), None);
    }
}
