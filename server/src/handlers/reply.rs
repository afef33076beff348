//! 324, 325: the answer to a message, from the consumer that was asked to the client that asked.
//!
//! It is pushed to the asker (326) over the connection of one of its producer groups, and stored in the cluster's reply topic,
//! as RocketMQ does; who answers is told whether the asker has taken it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use engine::Queue;
use protocol::code::{request, response};
use protocol::header::send::SendHeader;
use protocol::record::{Draft, message_id};
use protocol::{Command, Text, Value, permission, properties};

use super::{Answer, Caller, Handled, Reply, refuse};
use crate::coordinator::Coordinator;
use crate::coordinator::journal::Entry;
use crate::internal::Appender;
use crate::messages::{ConnId, CreateTopic, Refusal};

const PATIENCE: Duration = Duration::from_secs(10);

/// A reply, taken out of its frame.
struct Given {
    /// The asker's connection; or why there is none.
    to: Result<(ConnId, String), String>,
    topic: String,
    queue_id: u32,
    producer_group: String,
    default_topic: String,
    default_topic_queues: i32,
    sys_flag: i32,
    born_ms: i64,
    born_host: SocketAddr,
    flag: i32,
    properties: Vec<u8>,
    reconsume_times: i32,
    unit_mode: bool,
    body: Vec<u8>,
}

pub fn handle(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let header = SendHeader::from(command)?;
    let settings = coordinator.settings();
    if !permission::is_writable(settings.broker_permission) {
        let ip = settings.advertised_ip;
        let remark = format!("the broker[{ip}] sending message is forbidden");
        return Err(refuse(response::NO_PERMISSION, remark));
    }
    let mut stored = Vec::new();
    header.properties.append_to(&mut stored);
    if command.body.len() > settings.message_bytes_max || stored.len() > i16::MAX as usize {
        return Err(refuse(response::MESSAGE_ILLEGAL, "the reply is too large"));
    }
    let topic = header.topic.as_str().into_owned();
    let queue_id = queue(coordinator, &header, &topic)?;
    let given = Given {
        to: asker(coordinator, &stored),
        topic,
        queue_id,
        producer_group: header.producer_group.as_str().into_owned(),
        default_topic: header.default_topic.as_str().into_owned(),
        default_topic_queues: header.default_topic_queues,
        sys_flag: header.sys_flag,
        born_ms: header.born_ms,
        born_host: caller.peer,
        flag: header.flag,
        properties: stored,
        reconsume_times: header.reconsume_times,
        unit_mode: header.unit_mode,
        body: command.body.to_vec(),
    };
    let coordinator = Rc::clone(coordinator);
    Ok(Reply::later(async move {
        let pushed = push(&coordinator, &given).await;
        let stored = match settings.store_replies {
            true => store(&coordinator, &given).await,
            false => None,
        };
        let (id, offset) = stored.unwrap_or_else(|| ("0".to_owned(), 0));
        let answer = match pushed {
            Ok(()) => Answer::ok(),
            Err(remark) => Answer::code(response::SYSTEM_ERROR, remark),
        };
        answer
            .field("msgId", id)
            .field("queueId", given.queue_id)
            .field("queueOffset", offset)
            .field(properties::MSG_REGION, &settings.region_id)
            .field(properties::TRACE_ON, settings.trace_on)
    }))
}

/// The queue it is stored in; its topic is there from the start, but a reply may go to any.
fn queue(coordinator: &Coordinator, header: &SendHeader<'_>, topic: &str) -> Result<u32, Refusal> {
    let made = coordinator.create_topic(
        topic,
        &CreateTopic::BySend {
            default_topic: header.default_topic.as_str().into_owned(),
            queues: u32::try_from(header.default_topic_queues).unwrap_or(0),
            unit_mode: header.unit_mode,
        },
    )?;
    if made.is_new {
        coordinator.journal_entry(&Entry::Topic((*made.value).clone()));
    }
    let queues = u32::try_from(made.value.write_queue_nums)
        .unwrap_or(0)
        .max(1);
    match u32::try_from(header.queue_id) {
        Ok(queue_id) if queue_id < queues => Ok(queue_id),
        Ok(queue_id) => {
            let remark =
                format!("request queueId[{queue_id}] is illegal, {topic} has {queues} queues");
            Err(refuse(response::INVALID_PARAMETER, remark))
        }
        Err(_) => {
            let any = reactor::random() % u64::from(queues);
            Ok(u32::try_from(any).expect("smaller than a u32"))
        }
    }
}

fn asker(coordinator: &Coordinator, stored: &[u8]) -> Result<(ConnId, String), String> {
    let name = properties::REPLY_TO_CLIENT;
    let id = properties::get(stored, name).map(String::from_utf8_lossy);
    let Some(id) = id else {
        return Err(format!("reply message properties[{name}] is null"));
    };
    match coordinator.tables().clients.producer_connection(&id) {
        Some(conn) => Ok((conn, id.into_owned())),
        None => Err(format!(
            "push reply message fail, channel of <{id}> not found."
        )),
    }
}

/// 326
async fn push(coordinator: &Coordinator, given: &Given) -> Result<(), String> {
    let (conn, id) = given.to.as_ref().map_err(Clone::clone)?;
    let now_ms = reactor::wall_ms();
    let stamped = properties::set(
        &given.properties,
        properties::PUSH_REPLY_TIME,
        now_ms.to_string().as_bytes(),
    );
    let (born_host, store_host) = (
        given.born_host.to_string(),
        coordinator.settings().advertised().to_string(),
    );
    let fields = [
        ("producerGroup", Value::Str(&given.producer_group)),
        ("topic", Value::Str(&given.topic)),
        ("defaultTopic", Value::Str(&given.default_topic)),
        (
            "defaultTopicQueueNums",
            Value::I32(given.default_topic_queues),
        ),
        ("queueId", Value::I64(i64::from(given.queue_id))),
        ("sysFlag", Value::I32(given.sys_flag)),
        ("bornTimestamp", Value::I64(given.born_ms)),
        ("flag", Value::I32(given.flag)),
        ("properties", Value::Bytes(&stamped)),
        ("reconsumeTimes", Value::I32(given.reconsume_times)),
        ("unitMode", Value::Bool(given.unit_mode)),
        ("bornHost", Value::Str(&born_host)),
        ("storeHost", Value::Str(&store_host)),
        ("storeTimestamp", Value::I64(now_ms)),
    ];
    let code = request::PUSH_REPLY_MESSAGE_TO_CLIENT;
    let asked = coordinator.ask_client(*conn, code, &fields, &given.body, PATIENCE);
    let problem = match asked.await {
        Ok(answer) if answer.code == response::SUCCESS => return Ok(()),
        Ok(answer) => answer.remark.unwrap_or_else(|| answer.code.to_string()),
        Err(why) => why.to_string(),
    };
    tracing::warn!(client = id, problem, "a reply was not taken");
    Err(format!("push reply message to {id} fail."))
}

/// The reply's id and offset; none if it could not be stored, which costs nothing but its trace.
async fn store(coordinator: &Coordinator, given: &Given) -> Option<(String, u64)> {
    let queue: std::sync::Arc<Queue> = coordinator.shared.store.queue(&given.topic, given.queue_id);
    let store_host = coordinator.settings().advertised();
    let tags = properties::get(&given.properties, properties::TAGS).map(String::from_utf8_lossy);
    let draft = Draft {
        topic: &given.topic,
        queue_id: i32::try_from(given.queue_id).expect("it was an i32"),
        flag: given.flag,
        sys_flag: given.sys_flag,
        born_ms: given.born_ms,
        born_host: given.born_host,
        store_host,
        reconsume_times: given.reconsume_times,
        prepared_transaction_offset: 0,
        properties: Text::plain(&given.properties),
        body: &given.body,
    };
    let mut appender = Appender::new(coordinator.shared.writer.clone());
    let tag_hash = properties::tag_hash(&tags.unwrap_or_default());
    match appender.append_one(&queue, tag_hash, &draft).await {
        Ok(at) => Some((message_id(store_host, at.log_offset), at.queue_offset)),
        Err(error) => {
            tracing::warn!(topic = given.topic, %error, "a reply could not be stored");
            None
        }
    }
}
