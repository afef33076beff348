//! 222: an operator sends a group back or forth, to a time or to an offset; 314: one group takes over where another stands.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use engine::{Boundary, Store};
use protocol::body::consumer::ResetOffsets;
use protocol::body::queue::MessageQueue;
use protocol::code::{request, response};
use protocol::header::offset::{CloneOffsets, ResetOffset};
use protocol::{Command, Language, Value};

use super::{Answer, Caller, Handled, Reply, refuse};
use crate::coordinator::Coordinator;
use crate::messages::{ConnId, Refusal};
use crate::resets::Place;

/// What is asked for, checked.
struct Asked {
    group: Arc<str>,
    topic: Arc<str>,
    queues: Vec<u32>,
    to: To,
    /// Otherwise no queue goes forth.
    force: bool,
}

#[derive(Clone, Copy)]
enum To {
    End,
    Time(i64),
    Offset(i64),
}

/// Code 222: groups without members find the offset when they come back. Members are sent there by their next pulls
/// (`crate::resets`), or, where they keep their offsets themselves, by a request (220).
pub fn handle(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let header = ResetOffset::from(command)?;
    let asked = check(coordinator, &header)?;
    tracing::info!(
        group = %asked.group,
        topic = %asked.topic,
        time_ms = header.time_ms,
        offset = header.offset,
        queue_id = header.queue_id,
        force = asked.force,
        peer = %caller.peer,
        "offsets are to be reset"
    );
    let coordinator = Rc::clone(coordinator);
    Ok(Reply::later(async move {
        match reset(&coordinator, &asked).await {
            Ok(answer) => answer,
            Err(refusal) => refusal.into(),
        }
    }))
}

fn check(coordinator: &Coordinator, header: &ResetOffset<'_>) -> Result<Asked, Refusal> {
    let tables = coordinator.tables();
    let (group, topic) = (&header.group, &header.topic);
    let Some(config) = tables.topics.get(topic) else {
        let remark = format!("Topic {topic} does not exist");
        return Err(refuse(response::TOPIC_NOT_EXIST, remark));
    };
    if tables.groups.get(group).is_none() {
        let remark = format!("Group {group} does not exist");
        return Err(refuse(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    }
    let queues = u32::try_from(config.read_queue_nums).unwrap_or(0);
    let one = u32::try_from(header.queue_id.unwrap_or(-1)).ok();
    let queues: Vec<u32> = match one {
        Some(one) if one < queues => vec![one],
        Some(_) => Vec::new(),
        None => (0..queues).collect(),
    };
    if queues.is_empty() {
        return Err(refuse(response::SYSTEM_ERROR, "No queues to reset."));
    }
    let offset = header
        .offset
        .filter(|&offset| offset != -1 && one.is_some());
    Ok(Asked {
        group: Arc::from(&**group),
        topic: Arc::from(&**topic),
        queues,
        to: match (offset, header.time_ms) {
            (Some(offset), _) => To::Offset(offset),
            (None, ..0) => To::End,
            (None, time_ms) => To::Time(time_ms),
        },
        force: header.force.unwrap_or(true),
    })
}

async fn reset(coordinator: &Rc<Coordinator>, asked: &Asked) -> Result<Answer, Refusal> {
    let mut offsets = BTreeMap::new();
    for &queue_id in &asked.queues {
        let offset = target(&coordinator.shared.store, asked, queue_id).await?;
        offsets.insert(i32::try_from(queue_id).expect("it was an i32"), offset);
    }
    apply(coordinator, asked, &offsets)?;
    coordinator.outgoing.send_all().await;
    let body = ResetOffsets {
        offsets: named(coordinator, &asked.topic, &offsets),
    };
    Ok(Answer::with_body(body.to_json()))
}

/// Where the group goes on in a queue.
async fn target(store: &Arc<Store>, asked: &Asked, queue_id: u32) -> Result<i64, Refusal> {
    let failed = |problem: String| refuse(response::SYSTEM_ERROR, problem);
    let Some(queue) = store.find_queue(&asked.topic, queue_id) else {
        // Nothing was ever sent to it.
        return match asked.to {
            To::Offset(offset) if offset > 0 => Err(failed(out_of_range(offset, 0, 0))),
            _ => Ok(0),
        };
    };
    let (min, max) = (queue.min_offset(), queue.max_offset());
    let offset = match asked.to {
        To::End => max,
        To::Time(time_ms) => {
            let found = store.offset_at_time(&queue, time_ms, Boundary::Lower);
            found.await.map_err(|error| failed(error.to_string()))?.0
        }
        To::Offset(offset) => match u64::try_from(offset) {
            Ok(wanted) if (min..=max).contains(&wanted) => wanted,
            _ => return Err(failed(out_of_range(offset, min, max))),
        },
    };
    Ok(i64::try_from(offset).expect("offsets stay below 2^63"))
}

fn out_of_range(offset: i64, min: u64, max: u64) -> String {
    format!("Target offset {offset} not in consume queue range [{min}-{max}]")
}

fn apply(
    coordinator: &Coordinator,
    asked: &Asked,
    offsets: &BTreeMap<i32, i64>,
) -> Result<(), Refusal> {
    let (group, topic) = (&asked.group, &asked.topic);
    let server_side = coordinator.settings().server_side_reset;
    let mut tables = coordinator.tables();
    let live = tables.clients.consumer_group(group);
    let members: Vec<_> = live.map_or(Vec::new(), |live| {
        live.members
            .iter()
            .map(|(conn, client)| (*conn, client.language))
            .collect()
    });
    let keep_their_own = live.is_some_and(|live| live.is_broadcasting());
    if !server_side && members.is_empty() {
        let remark =
            format!("Consumer not online, so can not reset offset, Group: {group} Topic: {topic}");
        return Err(refuse(response::CONSUMER_NOT_ONLINE, remark));
    }
    let mut changed = BTreeMap::new();
    for (&queue_id, &offset) in offsets {
        let old = tables.offsets.get(group, topic, queue_id);
        if !asked.force && old.is_some_and(|old| old <= offset) {
            continue;
        }
        tracing::info!(%group, %topic, queue_id, old, offset, "offset reset");
        changed.insert(queue_id, offset);
        if keep_their_own || !server_side {
            continue;
        }
        tables.offsets.commit(group, topic, queue_id, offset);
        let pops = |queue_id| coordinator.pop.progress(group, topic, queue_id).is_some();
        let popped = u32::try_from(queue_id).is_ok_and(pops);
        // Who pops is not sent anywhere: the broker knows where it goes on.
        if !members.is_empty() && !popped {
            let place = Place {
                group: Arc::clone(group),
                topic: Arc::clone(topic),
                queue_id,
            };
            tables.resets.set(place, offset);
        }
    }
    drop(tables);
    if keep_their_own || !server_side {
        tell_members(coordinator, asked, &members, &changed);
        return Ok(());
    }
    for (&queue_id, &offset) in &changed {
        let queue_id = u32::try_from(queue_id).expect("queues that are there");
        let offset = u64::try_from(offset).expect("offsets of a queue");
        coordinator.pop.reset(group, topic, queue_id, offset);
    }
    coordinator.resets_changed();
    coordinator.tell_pulls(topic, changed.keys().copied());
    Ok(())
}

/// 220: to clients that set their offsets themselves.
fn tell_members(
    coordinator: &Coordinator,
    asked: &Asked,
    members: &[(ConnId, Language)],
    offsets: &BTreeMap<i32, i64>,
) {
    let time_ms = match asked.to {
        To::Time(time_ms) => time_ms,
        To::End | To::Offset(_) => -1,
    };
    let fields = [
        ("topic", Value::Str(&asked.topic)),
        ("group", Value::Str(&asked.group)),
        ("timestamp", Value::I64(time_ms)),
        ("isForce", Value::Bool(asked.force)),
    ];
    let body = ResetOffsets {
        offsets: named(coordinator, &asked.topic, offsets),
    };
    let code = request::RESET_CONSUMER_CLIENT_OFFSET;
    for (conn, language) in members {
        let body = match language.name() == "CPP" {
            true => body.to_json_list(),
            false => body.to_json(),
        };
        coordinator.tell_client(*conn, code, &fields, &body);
    }
}

fn named(
    coordinator: &Coordinator,
    topic: &str,
    offsets: &BTreeMap<i32, i64>,
) -> BTreeMap<MessageQueue, i64> {
    let broker_name = &coordinator.settings().broker_name;
    let named = |(&queue_id, &offset): (&i32, &i64)| {
        let queue = MessageQueue {
            broker_name: broker_name.clone(),
            queue_id,
            topic: topic.to_owned(),
        };
        (queue, offset)
    };
    offsets.iter().map(named).collect()
}

/// 314
pub fn clone(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let header = CloneOffsets::from(command)?;
    let (from, to) = (&header.source_group, &header.destination_group);
    let mut tables = coordinator.tables();
    let topics = match header.topic.as_deref().map(str::trim) {
        None | Some("") => tables.offsets.topics_of_group(from),
        Some(topic) => vec![topic.to_owned()],
    };
    for topic in topics {
        if tables.topics.get(&topic).is_none() {
            tracing::warn!(
                topic,
                "offsets of a topic that does not exist are not cloned"
            );
            continue;
        }
        let live = tables.clients.consumer_group(from);
        let reads_others = live.is_some_and(|live| {
            !live.subscriptions.is_empty() && !live.subscriptions.contains_key(&topic)
        });
        if !header.offline.unwrap_or(false) && reads_others {
            tracing::warn!(topic, %from, "a topic that the group no longer reads is not cloned");
            continue;
        }
        let queues = tables.offsets.clone_group(from, to, &topic);
        tracing::info!(%from, %to, topic, queues, peer = %caller.peer, "offsets cloned");
    }
    Ok(Answer::ok().into())
}
