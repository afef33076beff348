//! A half message as it is stored, and the records that are made of it: the final message, a copy of itself, the message
//! that nobody decided. Fields and properties are RocketMQ's, so that it can go on where we stop, and the reverse.

use std::borrow::Cow;
use std::net::SocketAddr;

use engine::LogOffset;
use protocol::names::{
    PROPERTIES_BYTES_MAX, SCHEDULE_TOPIC, TIMER_TOPIC, TRANS_CHECK_MAX_TIME_TOPIC, TRANS_HALF_TOPIC,
};
use protocol::properties::{self, tag_hash};
use protocol::record::{Draft, View, patch};
use protocol::{Text, sysflag};

use crate::delay::timed;
use crate::delay::wish::{Granted, Wish};
use crate::internal::Appended;

/// RocketMQ uses one queue for half messages, and one for the marks on them.
pub const QUEUE_ID: u32 = 0;
/// The first offset of a half message that was appended again. RocketMQ has a property for this that it understands in a
/// different way, so this one is ours.
const ORIGIN: &str = "ORBIT_HALF_OFFSET";

/// What only the broker says of a half message.
pub const PROPERTIES: [&str; 3] = [
    properties::TRANSACTION_CHECK_TIMES,
    properties::TRAN_PREPARED_QUEUE_OFFSET,
    ORIGIN,
];

/// What the final message does not have any more; a delayed one needs the first two.
const COMMITTED_WITHOUT: [&str; 4] = [
    properties::REAL_TOPIC,
    properties::REAL_QID,
    properties::TRAN_MSG,
    ORIGIN,
];

/// What the broker has to know of a half message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Half<'a> {
    pub offset: u64,
    pub log_offset: LogOffset,
    pub store_ms: i64,
    pub born_ms: i64,
    pub group: &'a str,
    /// How often its producers were asked.
    pub checks: u32,
    /// How long after it was stored they are not, if it says so.
    pub immunity_ms: Option<u64>,
    /// Where its transaction began, of a copy.
    pub origin: Option<u64>,
    /// It is a copy made by RocketMQ: a mark on its origin decides it.
    pub is_rocketmqs_copy: bool,
}

impl<'a> Half<'a> {
    pub fn of(view: &View<'a>) -> Self {
        let mut half = Self {
            offset: view.queue_offset,
            log_offset: LogOffset(view.log_offset),
            store_ms: view.store_ms,
            born_ms: view.born_ms,
            group: "",
            checks: 0,
            immunity_ms: None,
            origin: None,
            is_rocketmqs_copy: false,
        };
        let mut theirs = None;
        for (name, value) in properties::iter(view.properties) {
            let is = |known: &str| name == known.as_bytes();
            let text = std::str::from_utf8(value).unwrap_or_default();
            if is(properties::PRODUCER_GROUP) {
                half.group = text;
            } else if is(properties::TRANSACTION_CHECK_TIMES) {
                half.checks = text.parse().unwrap_or(0);
            } else if is(properties::CHECK_IMMUNITY_TIME) {
                let seconds: Option<u64> = text.parse().ok();
                half.immunity_ms = seconds.map(|seconds| seconds.saturating_mul(1000));
            } else if is(ORIGIN) {
                half.origin = text.parse().ok();
            } else if is(properties::TRAN_PREPARED_QUEUE_OFFSET) {
                theirs = text.parse().ok();
            }
        }
        if half.origin.is_none() && theirs.is_some() {
            half.origin = theirs;
            half.is_rocketmqs_copy = true;
        }
        half.origin = half.origin.filter(|&origin| origin < half.offset);
        half
    }
}

/// A record to be appended: its draft borrows what was made for it.
pub struct Made<'a> {
    pub topic: Cow<'a, str>,
    pub queue_id: u32,
    pub tag_hash: i32,
    sys_flag: i32,
    prepared_transaction_offset: i64,
    properties: Vec<u8>,
    view: View<'a>,
}

impl Made<'_> {
    pub fn draft(&self) -> Draft<'_> {
        Draft {
            topic: &self.topic,
            queue_id: i32::try_from(self.queue_id).expect("queue ids have 31 bits"),
            flag: self.view.flag,
            sys_flag: self.sys_flag,
            born_ms: self.view.born_ms,
            born_host: self.view.born_host,
            store_host: self.view.store_host,
            reconsume_times: self.view.reconsume_times,
            prepared_transaction_offset: self.prepared_transaction_offset,
            properties: Text::plain(&self.properties),
            body: self.view.body,
        }
    }
}

/// The real topic and queue of a half message; none if it does not say.
pub fn real<'a>(view: &View<'a>) -> Option<(&'a str, u32)> {
    let topic = std::str::from_utf8(view.property(properties::REAL_TOPIC)?).ok()?;
    let queue_id = std::str::from_utf8(view.property(properties::REAL_QID)?).ok()?;
    Some((topic, u32::try_from(queue_id.parse::<i32>().ok()?).ok()?))
}

/// What the broker knows of delays when a transaction is committed.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    pub levels: usize,
    pub max_ms: i64,
    pub now_ms: i64,
}

/// What consumers get when the transaction is committed: at once, after the delay of its level, or at its time, both
/// counted from the commit.
pub fn committed<'a>(view: &View<'a>, delays: Delays) -> Option<Made<'a>> {
    let (topic, queue_id) = real(view)?;
    let level = view.property(properties::DELAY);
    let level = level.and_then(|level| std::str::from_utf8(level).ok()?.parse().ok());
    let level = level.filter(|&level: &usize| level > 0 && delays.levels > 0);
    let due_ms = match level {
        Some(_) => None,
        None => due_ms(view, delays),
    };
    let waits_in = match (level, due_ms) {
        (Some(level), _) => Some((SCHEDULE_TOPIC, level.min(delays.levels) as u32 - 1)),
        (None, Some(_)) => Some((TIMER_TOPIC, timed::QUEUE_ID)),
        (None, None) => None,
    };
    let unwanted = match waits_in {
        Some(_) => &COMMITTED_WITHOUT[2..],
        None => &COMMITTED_WITHOUT[..],
    };
    let (topic, queue_id) = waits_in.unwrap_or((topic, queue_id));
    let mut made = Made {
        topic: Cow::Borrowed(topic),
        queue_id,
        sys_flag: sysflag::with_transaction(view.sys_flag, sysflag::TRANSACTION_COMMIT),
        prepared_transaction_offset: log_offset(view),
        ..of(view, unwanted)
    };
    if let Some(due_ms) = due_ms {
        made.set(properties::TIMER_OUT_MS, &due_ms.to_string());
    }
    Some(made)
}

/// What is too far away now was not when it was sent: it waits as long as anything may.
fn due_ms(view: &View<'_>, delays: Delays) -> Option<i64> {
    let wish = Wish::of(view.properties);
    let granted = wish
        .is_any()
        .then(|| wish.grant(delays.now_ms, delays.max_ms));
    match granted? {
        Granted::Now => None,
        Granted::At(due_ms) => Some(due_ms),
        Granted::Not => Some(delays.now_ms.saturating_add(delays.max_ms)),
    }
}

/// The same transaction once more: `checks` says how often its producers were asked then. None if its properties are too
/// long for that.
pub fn again<'a>(view: &View<'a>, origin: u64, checks: u32) -> Option<Made<'a>> {
    let mut made = of(view, &PROPERTIES);
    if checks > 0 {
        let checks = checks.to_string();
        made.set(properties::TRANSACTION_CHECK_TIMES, &checks);
    }
    made.set(ORIGIN, &origin.to_string());
    made.fits().then_some(made)
}

/// For an operator, who finds out what became of it, or has it asked about again.
pub fn given_up<'a>(view: &View<'a>, origin: u64) -> Made<'a> {
    let mut made = of(view, &[ORIGIN]);
    made.set(ORIGIN, &origin.to_string());
    if !made.fits() {
        made = of(view, &[ORIGIN]);
    }
    Made {
        topic: Cow::Borrowed(TRANS_CHECK_MAX_TIME_TOPIC),
        // Says which half message this was, in case its mark gets lost.
        prepared_transaction_offset: log_offset(view),
        ..made
    }
}

/// An operator has it asked about again, from the beginning. None if its properties are too long for that.
pub fn resumed<'a>(view: &View<'a>) -> Option<Made<'a>> {
    let mut made = of(view, &[properties::TRANSACTION_CHECK_TIMES]);
    made.set(properties::TRANSACTION_CHECK_TIMES, "0");
    made.prepared_transaction_offset = 0;
    made.fits().then_some(made)
}

fn log_offset(view: &View<'_>) -> i64 {
    i64::try_from(view.log_offset).expect("log offsets have 63 bits")
}

/// A half message with these properties left out.
fn of<'a>(view: &View<'a>, unwanted: &[&str]) -> Made<'a> {
    let mut kept = Vec::with_capacity(view.properties.len() + 64);
    properties::append_without(&mut kept, view.properties, unwanted);
    let tags = view.property(properties::TAGS).map(String::from_utf8_lossy);
    Made {
        topic: Cow::Borrowed(TRANS_HALF_TOPIC),
        queue_id: QUEUE_ID,
        tag_hash: tags.map_or(0, |tags| tag_hash(&tags)),
        sys_flag: view.sys_flag,
        prepared_transaction_offset: view.prepared_transaction_offset,
        properties: kept,
        view: *view,
    }
}

impl Made<'_> {
    fn set(&mut self, name: &str, value: &str) {
        properties::append(&mut self.properties, 0, name, value.as_bytes());
    }

    fn fits(&self) -> bool {
        self.properties.len() <= PROPERTIES_BYTES_MAX
    }
}

/// What a producer is asked about: the message as it was sent, in the form of a record that lies where the newest copy of
/// the half message does.
pub fn question(view: &View<'_>, checks: u32, place: Appended) -> Option<Vec<u8>> {
    let (topic, queue_id) = real(view)?;
    let mut made = Made {
        topic: Cow::Borrowed(topic),
        queue_id,
        ..of(view, &[properties::TRANSACTION_CHECK_TIMES, ORIGIN])
    };
    made.set(properties::TRANSACTION_CHECK_TIMES, &checks.to_string());
    let mut record = Vec::with_capacity(view.bytes.len());
    let placed = made.draft().append_to(&mut record);
    patch(
        &mut record,
        place.queue_offset,
        place.log_offset,
        placed.store_time_at,
        place.store_ms,
    );
    Some(record)
}

/// Where a message was born, when the broker itself is the one who sends.
#[derive(Clone, Copy, Debug)]
pub struct Born {
    pub ms: i64,
    pub host: SocketAddr,
}

#[cfg(test)]
mod tests;
