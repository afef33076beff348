//! 370: a delayed message is withdrawn before it is delivered, by the handle that its sender got.
//!
//! What is appended to the timers' topic is a message that names the other one; it is due at the same time, and the task that
//! delivers timers leaves both out. Whether there is such a message nobody looks: RocketMQ answers the same.

use std::rc::Rc;

use protocol::code::response;
use protocol::header::message::Recall;
use protocol::names::TIMER_TOPIC;
use protocol::permission;
use protocol::properties::{self, MSG_REGION};
use protocol::recall::{self, Handle};
use protocol::record::Draft;
use protocol::{Command, Text};

use super::{Answer, Caller, Handled, Reply, refuse};
use crate::config::Settings;
use crate::coordinator::Coordinator;
use crate::delay::timed;
use crate::internal::Appender;
use crate::messages::Refusal;

const TAG: &str = "_RECALL_TAG_";
const BODY: &[u8] = b"0";

pub fn handle(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let header = Recall::from(command)?;
    let settings = coordinator.settings();
    check_broker(&settings)?;
    let topic = &*header.topic;
    if coordinator.tables().topics.get(topic).is_none() {
        let remark = format!("recall failed, the topic[{topic}] not exist");
        return Err(refuse(response::TOPIC_NOT_EXIST, remark));
    }
    let illegal = |remark: &str| refuse(response::ILLEGAL_OPERATION, remark);
    let handle =
        recall::decode(&header.recall_handle).ok_or_else(|| illegal("recall handle is invalid"))?;
    if handle.topic != topic {
        return Err(illegal("recall failed, topic not match"));
    }
    if handle.broker_name != settings.broker_name {
        return Err(illegal("recall failed, broker service not available"));
    }
    let now_ms = reactor::wall_ms();
    let due_ms: i64 = handle.time.parse().unwrap_or(-1);
    let wait_ms = due_ms.saturating_sub(now_ms);
    if wait_ms <= 0 || wait_ms >= settings.timer_delay_max_ms {
        return Err(illegal("recall failed, timestamp invalid"));
    }
    let group = header.producer_group.as_deref().unwrap_or_default();
    let names_topic = settings.withdrawal_names_topic;
    let properties = withdrawal(&handle, names_topic, group, due_ms, now_ms);
    let coordinator = Rc::clone(coordinator);
    Ok(Reply::later(async move {
        let queue = coordinator.shared.store.queue(TIMER_TOPIC, timed::QUEUE_ID);
        let draft = Draft {
            topic: TIMER_TOPIC,
            queue_id: timed::QUEUE_ID as i32,
            flag: 0,
            sys_flag: 0,
            born_ms: now_ms,
            born_host: caller.peer,
            store_host: settings.advertised(),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            properties: Text::plain(&properties),
            body: BODY,
        };
        let mut appender = Appender::new(coordinator.shared.writer.clone());
        let appended = appender
            .append_one(&queue, properties::tag_hash(TAG), &draft)
            .await;
        let answer = match appended {
            Ok(_) => Answer::ok().field("msgId", handle.message_id),
            Err(error) => {
                tracing::warn!(%error, "a delayed message was not withdrawn");
                Answer::code(response::SYSTEM_ERROR, "recall failed, execute error")
            }
        };
        answer.field(MSG_REGION, &settings.region_id)
    }))
}

fn check_broker(settings: &Settings) -> Result<(), Refusal> {
    if !settings.recall {
        return Err(refuse(
            response::NO_PERMISSION,
            "recall failed, operation is forbidden",
        ));
    }
    let is_writable = permission::is_writable(settings.broker_permission);
    if !is_writable && !settings.recall_when_not_writable {
        return Err(refuse(
            response::SERVICE_NOT_AVAILABLE,
            "recall failed, broker service not available",
        ));
    }
    Ok(())
}

/// The properties of the message that withdraws.
fn withdrawal(
    handle: &Handle,
    names_topic: bool,
    group: &str,
    due_ms: i64,
    now_ms: i64,
) -> Vec<u8> {
    let named = match names_topic {
        true => timed::name(handle.topic.as_bytes(), handle.message_id.as_bytes()),
        false => handle.message_id.as_bytes().to_vec(),
    };
    let (due, now) = (due_ms.to_string(), now_ms.to_string());
    let pairs: [(&str, &[u8]); 9] = [
        (properties::TAGS, TAG.as_bytes()),
        (properties::TIMER_DEL_UNIQKEY, &named),
        (properties::UNIQ_KEY, handle.message_id.as_bytes()),
        (properties::TIMER_DELIVER_MS, due.as_bytes()),
        (properties::BORN_TIMESTAMP, now.as_bytes()),
        (properties::PRODUCER_GROUP, group.as_bytes()),
        (properties::TIMER_OUT_MS, due.as_bytes()),
        (properties::REAL_TOPIC, handle.topic.as_bytes()),
        (properties::REAL_QID, b"0"),
    ];
    let mut bytes = Vec::new();
    for (name, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
        properties::append(&mut bytes, 0, name, value);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_withdrawal_names_the_message_and_is_due_with_it() {
        let handle = Handle {
            topic: "t".to_owned(),
            broker_name: "b".to_owned(),
            time: "7".to_owned(),
            message_id: "ID".to_owned(),
        };
        for (names_topic, expected) in [(true, "t+ID"), (false, "ID")] {
            let properties = withdrawal(&handle, names_topic, "g", 7, 3);
            let get = |name| properties::get_str(&properties, name);
            assert_eq!(get(properties::TIMER_DEL_UNIQKEY), Some(expected));
            assert_eq!(get(properties::TIMER_OUT_MS), Some("7"));
            assert_eq!(get(properties::PRODUCER_GROUP), Some("g"));
        }
    }
}
