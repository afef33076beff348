//! What a message may not be: sizes and kinds that are refused, in RocketMQ's words.

use protocol::code::response;
use protocol::names::PROPERTIES_BYTES_MAX;
use protocol::sysflag;

use super::properties::Facts;
use crate::config::Settings;
use crate::handlers::missing::NotDone;

const HALF_ROOM_BYTES: usize = 128;
/// Longest topic of a batch, and of every message that is not a retry.
pub const TOPIC_BYTES_MAX: usize = 127;

pub fn check_body(body: &[u8], settings: &Settings) -> Result<(), NotDone> {
    if body.is_empty() || body.len() > settings.message_bytes_max {
        return Err(illegal(settings));
    }
    Ok(())
}

/// A half message needs room for what its copies say beside: how often its producers were asked.
pub fn check_properties(stored: &[u8], half: bool, settings: &Settings) -> Result<(), NotDone> {
    let room = if half { HALF_ROOM_BYTES } else { 0 };
    if stored.len() + room > PROPERTIES_BYTES_MAX {
        return Err(illegal(settings));
    }
    Ok(())
}

pub fn illegal(settings: &Settings) -> NotDone {
    let remark = format!(
        "the message is illegal, maybe msg body or properties length not matched. \
         msg body length limit {}B, msg properties length limit 32KB.",
        settings.message_bytes_max
    );
    NotDone::refused(response::MESSAGE_ILLEGAL, remark)
}

/// A message that says it is prepared, or rolled back, and not of which transaction: no consumer would ever see it.
pub fn check_transaction(
    sys_flag: i32,
    half: bool,
    facts: &Facts,
    settings: &Settings,
) -> Result<(), NotDone> {
    if half && settings.reject_transaction_message {
        let remark = format!(
            "the broker[{}] sending transaction message is forbidden",
            settings.advertised_ip
        );
        return Err(NotDone::refused(response::NO_PERMISSION, remark));
    }
    match sysflag::transaction(sys_flag) {
        sysflag::TRANSACTION_PREPARED | sysflag::TRANSACTION_ROLLBACK if !facts.prepared => {
            Err(illegal(settings))
        }
        _ => Ok(()),
    }
}

/// Kinds of messages this broker does not take.
pub fn check_kind(facts: &Facts, settings: &Settings) -> Result<(), NotDone> {
    if facts.timed && facts.delay_level <= 0 {
        return Err(NotDone::refused(
            response::SYSTEM_ERROR,
            "accurate timer message is not enabled, timerWheelEnable is false",
        ));
    }
    if facts.inner_count {
        return Err(illegal(settings));
    }
    Ok(())
}
