//! One message: where it goes (itself, a delay level, the timers, the half messages, a dead-letter topic), and its record.

use std::rc::Rc;

use protocol::code::response;
use protocol::names::{self, SCHEDULE_TOPIC, TIMER_TOPIC, TRANS_HALF_TOPIC};
use protocol::record::Draft;
use protocol::{Text, recall, sysflag};

use super::properties::{self, Additions, Facts};
use super::{Sending, any_queue, limits, retry};
use crate::delay::timed;
use crate::handlers::missing::NotDone;
use crate::shard::sends::UniqueKey;
use crate::shard::topics::Topic;
use crate::transaction;

const UNIQUE_KEY_CHARS: usize = 32;

/// Where a message is stored.
struct Target {
    topic: Rc<Topic>,
    queue_id: u32,
    /// Its consumer gave it up.
    dead: bool,
}

pub fn take(send: &Sending<'_>) -> Result<(), NotDone> {
    limits::check_body(send.command.body, send.settings)?;
    let mut stored = send.shard.scratch.properties.borrow_mut();
    stored.clear();
    send.header.properties.append_to(&mut stored);
    let mut facts = Facts::read(&stored);
    let addressed = addressed(send)?;
    // Consumers older than 4.6.1 give back a message with all its properties.
    let half = facts.prepared && !(send.header.reconsume_times > 0 && facts.delay_level > 0);
    limits::check_transaction(send.header.sys_flag, half, &facts, send.settings)?;
    limits::check_kind(&facts, send.settings)?;

    let is_timed_already = &**addressed.topic.name() == TIMER_TOPIC;
    let due_ms = match addressed.dead || facts.delay_level > 0 || is_timed_already {
        true => None,
        false => limits::check_timer(&facts, send.settings, &send.shard.shared.timers)?,
    };
    // A half message keeps its wish until it is committed.
    let due_ms = due_ms.filter(|_| !half);
    let waiting = if half {
        Some(half_queue(send)?)
    } else if due_ms.is_some() {
        Some(timer_queue(send)?)
    } else if addressed.dead {
        None
    } else {
        delay_queue(send, facts.delay_level)?
    };
    let generated = facts.unique_key.is_none().then(new_unique_key);
    let add = Additions {
        cluster: &send.settings.cluster_name,
        unique_key: generated.as_ref().map(<[u8; UNIQUE_KEY_CHARS]>::as_slice),
        real: waiting
            .is_some()
            .then(|| (&**addressed.topic.name(), addressed.queue_id)),
        transaction_id: half.then(|| {
            let sent = facts.unique_key.as_ref().map(UniqueKey::as_bytes);
            sent.or(generated.as_ref().map(<[u8; UNIQUE_KEY_CHARS]>::as_slice))
                .unwrap_or_default()
        }),
        due_ms,
        dead: addressed.dead,
    };
    properties::complete(&mut stored, &facts, &add);
    limits::check_properties(&stored, half, send.settings)?;

    let target = waiting.unwrap_or_else(|| Target {
        topic: Rc::clone(&addressed.topic),
        ..addressed
    });
    let unique_key = match (facts.unique_key.take(), generated) {
        (Some(sent), _) => sent,
        (None, generated) => UniqueKey::new(generated.as_ref().map_or(&[], |key| key.as_slice())),
    };
    let handle = due_ms.and_then(|due_ms| recall_handle(send, due_ms, &unique_key));
    append(send, &target, &facts, unique_key, handle, &stored);
    Ok(())
}

fn append(
    send: &Sending<'_>,
    target: &Target,
    facts: &Facts,
    unique_key: UniqueKey,
    recall_handle: Option<Box<str>>,
    stored_properties: &[u8],
) {
    let draft = Draft {
        topic: target.topic.name(),
        queue_id: target.queue_id as i32,
        flag: send.header.flag,
        sys_flag: sysflag::with_transaction(send.sys_flag(), sysflag::TRANSACTION_NONE),
        born_ms: send.header.born_ms,
        born_host: send.connection.peer(),
        store_host: send.settings.advertised(),
        reconsume_times: send.header.reconsume_times,
        prepared_transaction_offset: 0,
        properties: Text::plain(stored_properties),
        body: send.command.body,
    };
    let token = send.expect_answer(unique_key, recall_handle, None);
    let queue = target
        .topic
        .queue(&send.shard.shared.store, target.queue_id);
    // A decision may come as soon as the sender is told: the half message is visible by then.
    let waits = send.waits(facts) || facts.prepared;
    send.shard.outgoing.add(waits, |batch| {
        batch.push(&queue, facts.tag_hash, token, |record| {
            draft.append_to(record)
        });
    });
}

/// The queue the sender means; a retry that was tried too often goes to its group's dead-letter topic.
fn addressed(send: &Sending<'_>) -> Result<Target, NotDone> {
    let topic = &send.topic;
    if names::is_retry_topic(topic.name())
        && let Some(dead_letters) = retry::dead_letter_topic(send)?
    {
        let queue_id = any_queue(dead_letters.config().write_queue_nums);
        return Ok(Target {
            topic: dead_letters,
            queue_id,
            dead: true,
        });
    }
    Ok(Target {
        topic: Rc::clone(topic),
        queue_id: send.queue_id,
        dead: false,
    })
}

/// With this its sender can withdraw a delayed message. A retry has no sender who could.
fn recall_handle(send: &Sending<'_>, due_ms: i64, unique_key: &UniqueKey) -> Option<Box<str>> {
    let topic = send.topic.name();
    if names::is_retry_topic(topic) {
        return None;
    }
    let id = String::from_utf8_lossy(unique_key.as_bytes());
    let handle = recall::encode(topic, &send.settings.broker_name, due_ms, &id);
    Some(handle.into_boxed_str())
}

/// Where messages with a delivery time of their own are parked.
fn timer_queue(send: &Sending<'_>) -> Result<Target, NotDone> {
    Ok(Target {
        topic: system_topic(send, TIMER_TOPIC)?,
        queue_id: timed::QUEUE_ID,
        dead: false,
    })
}

/// The queue of a delay level: one for each, all in one topic.
fn delay_queue(send: &Sending<'_>, level: i32) -> Result<Option<Target>, NotDone> {
    let levels = send.settings.delay_levels_ms.len();
    let Some(level) = usize::try_from(level).ok().filter(|&level| level > 0) else {
        return Ok(None);
    };
    Ok(Some(Target {
        topic: system_topic(send, SCHEDULE_TOPIC)?,
        queue_id: level.min(levels).saturating_sub(1) as u32,
        dead: false,
    }))
}

/// Where half messages wait for their producers' decisions.
fn half_queue(send: &Sending<'_>) -> Result<Target, NotDone> {
    Ok(Target {
        topic: system_topic(send, TRANS_HALF_TOPIC)?,
        queue_id: transaction::QUEUE_ID,
        dead: false,
    })
}

fn system_topic(send: &Sending<'_>, name: &str) -> Result<Rc<Topic>, NotDone> {
    let topic = send.shard.topics.get(name, &send.views.topics);
    topic.ok_or_else(|| {
        let remark = format!("topic[{name}] not exist");
        NotDone::refused(response::SYSTEM_ERROR, remark)
    })
}

/// For clients that do not name their messages: random, in the form of those that do.
fn new_unique_key() -> [u8; UNIQUE_KEY_CHARS] {
    let random = u128::from(reactor::random()) << 64 | u128::from(reactor::random());
    let mut key = [0; UNIQUE_KEY_CHARS];
    for (at, digit) in key.iter_mut().enumerate() {
        *digit = b"0123456789ABCDEF"[(random >> (4 * at)) as usize & 15];
    }
    key
}
