//! What operators ask clients through the broker: their state (307), to consume a message now (309), where they stand (223).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use engine::LogOffset;
use protocol::body::consumer::ConsumerStatus;
use protocol::code::{request, response};
use protocol::header::client::{AskConsumer, AskStatus};
use protocol::record::parse_message_id;
use protocol::{Command, Value};

use super::{Answer, Handled, Reply, refuse};
use crate::coordinator::Coordinator;
use crate::coordinator::calls::NoAnswer;
use crate::messages::{ConnId, Refusal};

/// A client may have to run its listener, or to write down all its threads.
const PATIENCE: Duration = Duration::from_secs(10);
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

type Fields = Vec<(String, String)>;

/// 307: handed on as it came, and so is the answer.
pub fn running_info(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = AskConsumer::from(command)?;
    let to = find(coordinator, &header)?;
    let fields = owned_fields(command);
    let coordinator = Rc::clone(coordinator);
    Ok(Reply::later(async move {
        let code = request::GET_CONSUMER_RUNNING_INFO;
        hand_on(&coordinator, &to, code, &fields, &[]).await
    }))
}

/// 309: the message goes along.
pub fn consume_directly(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = AskConsumer::from(command)?;
    let to = find(coordinator, &header)?;
    let id = header.message_id.as_deref().unwrap_or_default();
    let not_found = || {
        let remark = format!("no message has the id {id}");
        refuse(response::SYSTEM_ERROR, remark)
    };
    let (_, at) = parse_message_id(id).ok_or_else(not_found)?;
    let mut fields = owned_fields(command);
    fields.retain(|(name, _)| name != "brokerName");
    fields.push((
        "brokerName".to_owned(),
        coordinator.settings().broker_name.clone(),
    ));
    add_flags(coordinator, &header, &mut fields);
    let refused = Answer::from(not_found());
    let coordinator = Rc::clone(coordinator);
    Ok(Reply::later(async move {
        let record = match coordinator.shared.store.record_at(LogOffset(at)).await {
            Ok(Some(record)) => record,
            Ok(None) => return refused,
            Err(error) => return Answer::code(response::SYSTEM_ERROR, error.to_string()),
        };
        let code = request::CONSUME_MESSAGE_DIRECTLY;
        hand_on(&coordinator, &to, code, &fields, &record).await
    }))
}

fn add_flags(coordinator: &Coordinator, header: &AskConsumer<'_>, fields: &mut Fields) {
    let tables = coordinator.tables();
    let topic = header
        .topic
        .as_deref()
        .and_then(|topic| tables.topics.get(topic));
    let topic_flag = topic.map(|config| ("topicSysFlag", config.topic_sys_flag));
    let group = tables.groups.get(&header.group);
    let group_flag = group.map(|config| ("groupSysFlag", config.group_sys_flag));
    for (name, flag) in topic_flag.into_iter().chain(group_flag) {
        fields.push((name.to_owned(), flag.to_string()));
    }
}

/// A client that is to be asked, and how to call it.
struct Client {
    conn: ConnId,
    group: String,
    id: String,
}

fn find(coordinator: &Coordinator, header: &AskConsumer<'_>) -> Result<Client, Refusal> {
    let (group, id) = (
        &header.group,
        header.client_id.as_deref().unwrap_or_default(),
    );
    let tables = coordinator.tables();
    let live = tables.clients.consumer_group(group);
    let conn = live
        .and_then(|live| live.connection_of(id))
        .ok_or_else(|| {
            let remark = format!("The Consumer <{group}> <{id}> not online");
            refuse(response::SYSTEM_ERROR, remark)
        })?;
    Ok(Client {
        conn,
        group: group.to_string(),
        id: id.to_owned(),
    })
}

fn owned_fields(command: &Command<'_>) -> Fields {
    let fields = command.fields.iter();
    let owned = |(name, value): (&[u8], protocol::Text<'_>)| {
        let name = String::from_utf8_lossy(name).into_owned();
        (name, value.as_str().into_owned())
    };
    fields.map(owned).collect()
}

async fn hand_on(
    coordinator: &Coordinator,
    to: &Client,
    code: i32,
    fields: &Fields,
    body: &[u8],
) -> Answer {
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), Value::Str(value)))
        .collect();
    let asked = coordinator.ask_client(to.conn, code, &fields, body, PATIENCE);
    match asked.await {
        Ok(answer) => Answer {
            code: answer.code,
            remark: answer.remark.map(Into::into),
            body: answer.body,
            ..Answer::default()
        },
        Err(NoAnswer::Late) => Answer::code(
            response::CONSUME_MSG_TIMEOUT,
            format!("consumer <{}> <{}> Timeout", to.group, to.id),
        ),
        Err(why) => Answer::code(
            response::SYSTEM_ERROR,
            format!("invoke consumer <{}> <{}> failed: {why}", to.group, to.id),
        ),
    }
}

/// 223: the members' own view of where they stand; of one of them, if it is named.
pub fn status(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = AskStatus::from(command)?;
    let wanted = header
        .client_id
        .as_deref()
        .map(str::trim)
        .unwrap_or_default();
    let members: Vec<(ConnId, String)> = {
        let tables = coordinator.tables();
        let live = tables
            .clients
            .consumer_group(&header.group)
            .ok_or_else(|| {
                let group = &header.group;
                let remark = format!("No Any Consumer online in the consumer group: [{group}]");
                refuse(response::SYSTEM_ERROR, remark)
            })?;
        let members = live.members.iter();
        members
            .filter(|(_, client)| wanted.is_empty() || client.id == wanted)
            .map(|(conn, client)| (*conn, client.id.clone()))
            .collect()
    };
    let (group, topic) = (header.group.to_string(), header.topic.to_string());
    let coordinator = Rc::clone(coordinator);
    Ok(Reply::later(async move {
        let fields = [("topic", Value::Str(&topic)), ("group", Value::Str(&group))];
        let code = request::GET_CONSUMER_STATUS_FROM_CLIENT;
        let mut of_clients = BTreeMap::new();
        for (conn, id) in members {
            let asked = coordinator.ask_client(conn, code, &fields, &[], STATUS_PATIENCE);
            match asked
                .await
                .map(|answer| ConsumerStatus::from_json(&answer.body))
            {
                Ok(Ok(status)) => {
                    of_clients.insert(id, status.queues);
                }
                Ok(Err(error)) => {
                    tracing::warn!(group, client = id, %error, "a status that cannot be read")
                }
                Err(why) => tracing::warn!(group, client = id, %why, "no status"),
            }
        }
        let status = ConsumerStatus {
            consumers: of_clients,
            ..ConsumerStatus::default()
        };
        Answer::with_body(status.to_json())
    }))
}
