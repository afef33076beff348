//! What a client asks for with a pop or a notification, after its checks.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use protocol::body::subscription_group::SubscriptionGroupConfig;
use protocol::body::topic_config::TopicConfig;
use protocol::code::response;
use protocol::header::pop::{Notification, PopMessage};
use protocol::{Asked, Command, permission};
use reactor::Instant;

use crate::coordinator::Coordinator;
use crate::coordinator::journal::Entry;
use crate::filter::Filter;
use crate::handlers::missing::with_faq;
use crate::handlers::{Caller, refuse};
use crate::messages::Refusal;

/// More in one pop are refused, as RocketMQ does.
const MESSAGES_MAX: i32 = 32;
/// What a client may ask for at most.
const INVISIBLE_MS_MAX: i64 = 12 * 3600 * 1000;
const SUSPEND_MS_MAX: i64 = 120_000;
const FROM_END: i32 = 1;
const TAG: &str = "TAG";

/// A request that may be answered at once, or parked and taken up again.
pub struct Wanted {
    pub caller: Caller,
    pub asked: Asked,
    pub kind: Kind,
    pub group: Arc<str>,
    pub topic: Arc<str>,
    /// None: all of them.
    pub queue_id: Option<u32>,
    pub is_ordered: bool,
    pub attempt: String,
    /// None: it is not to be held.
    pub until: Option<Instant>,
    /// It was parked, and its connection counts it as answered.
    pub was_parked: bool,
}

pub enum Kind {
    Pop {
        messages_max: usize,
        invisible_ms: i64,
        /// A group without an offset begins at the end.
        from_end: bool,
        filter: Filter,
    },
    /// Whether there is something.
    Notify,
}

/// Group and topic as the coordinator's tables have them, for a client that may read them.
pub struct Known {
    pub group: Arc<str>,
    pub topic: Arc<str>,
    pub config: Arc<TopicConfig>,
}

/// What every request about a group's topic must meet.
pub fn known(
    coordinator: &Coordinator,
    peer: SocketAddr,
    group: &str,
    topic: &str,
    queue_id: i32,
) -> Result<Known, Refusal> {
    let settings = coordinator.settings();
    if !permission::is_readable(settings.broker_permission) {
        let ip = settings.advertised_ip;
        let remark = format!("the broker[{ip}] pop message is forbidden");
        return Err(refuse(response::NO_PERMISSION, remark));
    }
    let tables = coordinator.tables();
    let Some((name, config)) = tables.topics.get_key_value(topic) else {
        let remark = with_faq(format!("topic[{topic}] not exist, apply first please! "));
        return Err(refuse(response::TOPIC_NOT_EXIST, remark));
    };
    let (topic, config) = (Arc::clone(name), Arc::clone(config));
    if !permission::is_readable(config.perm) {
        let remark = format!("the topic[{topic}] peeking message is forbidden");
        return Err(refuse(response::NO_PERMISSION, remark));
    }
    let queues = config.read_queue_nums;
    if queue_id >= queues {
        let remark = format!(
            "queueId[{queue_id}] is illegal, topic:[{topic}] topicConfig.readQueueNums:[{queues}] consumer:[{peer}]"
        );
        return Err(refuse(response::INVALID_PARAMETER, remark));
    }
    drop(tables);
    let group = known_group(coordinator, group)?;
    Ok(Known {
        group,
        topic,
        config,
    })
}

/// The group, made if groups make themselves.
pub fn ensured_group(
    coordinator: &Coordinator,
    group: &str,
) -> Result<Arc<SubscriptionGroupConfig>, Refusal> {
    let ensured = coordinator.ensure_group(group).map_err(|_| {
        let remark = with_faq(format!("subscription group [{group}] does not exist, "));
        refuse(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark)
    })?;
    if ensured.is_new {
        coordinator.journal_entry(&Entry::Group((*ensured.value).clone()));
    }
    Ok(ensured.value)
}

fn known_group(coordinator: &Coordinator, group: &str) -> Result<Arc<str>, Refusal> {
    let config = ensured_group(coordinator, group)?;
    if !config.consume_enable {
        let remark = format!("subscription group no permission, {group}");
        return Err(refuse(response::NO_PERMISSION, remark));
    }
    let tables = coordinator.tables();
    let name = tables.groups.get_key_value(group).map(|(name, _)| name);
    Ok(name.map_or_else(|| Arc::from(group), Arc::clone))
}

pub fn pop(
    coordinator: &Coordinator,
    caller: Caller,
    command: &Command<'_>,
) -> Result<Wanted, Refusal> {
    let header = PopMessage::from(command)?;
    let is_ordered = header.order.unwrap_or(false);
    if header.messages_max > MESSAGES_MAX {
        let ip = coordinator.settings().advertised_ip;
        let remark = format!("the broker[{ip}] pop message's num is greater than {MESSAGES_MAX}");
        return Err(refuse(response::INVALID_PARAMETER, remark));
    }
    let (group, topic) = (&header.consumer_group, &header.topic);
    let known = known(coordinator, caller.peer, group, topic, header.queue_id)?;
    let expression = header.expression.as_deref().unwrap_or_default();
    let kind = header.expression_type.as_deref().unwrap_or(TAG);
    let filter = Filter::compile(kind, expression).map_err(|why| {
        tracing::warn!(kind, expression, why, "a filter is refused");
        let remark = "parse the consumer's subscription failed";
        refuse(response::SUBSCRIPTION_PARSE_FAILED, remark)
    })?;
    Ok(Wanted {
        caller,
        asked: Asked::from(command),
        kind: Kind::Pop {
            messages_max: usize::try_from(header.messages_max).unwrap_or(0).max(1),
            invisible_ms: bounded_invisible_ms(header.invisible_ms),
            from_end: header.init_mode == FROM_END,
            filter,
        },
        group: known.group,
        topic: known.topic,
        queue_id: u32::try_from(header.queue_id).ok(),
        is_ordered,
        attempt: attempt(is_ordered, header.attempt_id),
        until: until(header.poll_ms),
        was_parked: false,
    })
}

pub fn notification(
    coordinator: &Coordinator,
    caller: Caller,
    command: &Command<'_>,
) -> Result<Wanted, Refusal> {
    let header = Notification::from(command)?;
    let is_ordered = header.order.unwrap_or(false);
    let (group, topic) = (&header.consumer_group, &header.topic);
    let known = known(coordinator, caller.peer, group, topic, header.queue_id)?;
    Ok(Wanted {
        caller,
        asked: Asked::from(command),
        kind: Kind::Notify,
        group: known.group,
        topic: known.topic,
        queue_id: u32::try_from(header.queue_id).ok(),
        is_ordered,
        attempt: attempt(is_ordered, header.attempt_id),
        until: until(header.poll_ms),
        was_parked: false,
    })
}

/// It means something in order only.
fn attempt(is_ordered: bool, id: Option<Cow<'_, str>>) -> String {
    match is_ordered {
        true => id.unwrap_or_default().into_owned(),
        false => String::new(),
    }
}

/// From now on by our clock: those of clients are set as they like.
fn until(poll_ms: i64) -> Option<Instant> {
    let poll_ms = u64::try_from(poll_ms.min(SUSPEND_MS_MAX)).ok()?;
    let held = std::time::Duration::from_millis(poll_ms);
    (poll_ms > 0).then(|| reactor::turn_time() + held)
}

/// How long a message may be hidden, whatever a client asks for.
pub fn bounded_invisible_ms(asked_ms: i64) -> i64 {
    asked_ms.clamp(0, INVISIBLE_MS_MAX)
}
