//! What a message may not be: sizes and kinds that are refused, in RocketMQ's words.

use protocol::code::response;
use protocol::names::PROPERTIES_BYTES_MAX;
use protocol::sysflag;

use super::properties::Facts;
use crate::config::Settings;
use crate::delay::wish::Granted;
use crate::delay::{Gauges, TIMERS_MAX};
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

/// When a message is to be delivered that names a time of its own; none: at once.
pub fn check_timer(
    facts: &Facts,
    settings: &Settings,
    timers: &Gauges,
) -> Result<Option<i64>, NotDone> {
    if !facts.wish.is_any() {
        return Ok(None);
    }
    if !settings.timers {
        return Err(NotDone::refused(
            response::SYSTEM_ERROR,
            "accurate timer message is not enabled, timerWheelEnable is false",
        ));
    }
    let granted = facts
        .wish
        .grant(reactor::wall_ms(), settings.timer_delay_max_ms);
    let Granted::At(due_ms) = granted else {
        // A withdrawal that is not parked would reach consumers.
        if granted == Granted::Now && !facts.withdraws {
            return Ok(None);
        }
        let remark = format!(
            "timer message illegal, the delay time should not be bigger than the max delay {}ms; \
             or if set del msg, the delay time should be bigger than the current time",
            settings.timer_delay_max_ms
        );
        return Err(NotDone::refused(response::MESSAGE_ILLEGAL, remark));
    };
    if timers.is_full() {
        let remark = format!(
            "timer message is under flow control, max num limit is {TIMERS_MAX}: so many wait for their time"
        );
        return Err(NotDone::refused(response::SYSTEM_ERROR, remark));
    }
    Ok(Some(due_ms))
}

/// Kinds of messages this broker does not take.
pub fn check_kind(facts: &Facts, settings: &Settings) -> Result<(), NotDone> {
    if facts.inner_count {
        return Err(illegal(settings));
    }
    Ok(())
}
