//! What a message may not be: sizes and kinds that are refused, in RocketMQ's words.

use protocol::code::response;
use protocol::names::PROPERTIES_BYTES_MAX;

use super::properties::Facts;
use crate::config::Settings;
use crate::handlers::missing::NotDone;

/// Longest topic of a batch, and of every message that is not a retry.
pub const TOPIC_BYTES_MAX: usize = 127;

pub fn check_body(body: &[u8], settings: &Settings) -> Result<(), NotDone> {
    if body.is_empty() || body.len() > settings.message_bytes_max {
        return Err(illegal(settings));
    }
    Ok(())
}

pub fn check_properties(stored: &[u8], settings: &Settings) -> Result<(), NotDone> {
    if stored.len() > PROPERTIES_BYTES_MAX {
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

/// Kinds of messages this broker does not take. A half message that became visible would be worse than an error.
pub fn check_kind(facts: &Facts, settings: &Settings) -> Result<(), NotDone> {
    if facts.prepared {
        let remark = format!(
            "the broker[{}] sending transaction message is forbidden",
            settings.advertised_ip
        );
        return Err(NotDone::refused(response::NO_PERMISSION, remark));
    }
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
