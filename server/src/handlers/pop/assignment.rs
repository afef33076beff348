//! Who consumes which queues, decided here: 400, and 401 which sets whether a group pulls or pops a topic.

use std::rc::Rc;

use protocol::Command;
use protocol::body::Body;
use protocol::body::heartbeat::MessageModel;
use protocol::body::pop::{
    Assignment, QueryAssignmentAnswer, QueryAssignmentRequest, RequestMode, SetRequestMode,
};
use protocol::body::queue::MessageQueue;
use protocol::code::response;
use protocol::json::Dialect;
use protocol::names;

use crate::coordinator::Coordinator;
use crate::handlers::{Answer, Handled, Reply, refuse};
use crate::messages::Refusal;
use crate::pop::{assign, wanted};

/// 400
pub fn query(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let request = QueryAssignmentRequest::from_json(command.body)?;
    let coordinator = Rc::clone(coordinator);
    Ok(Reply::later(async move {
        let mode = mode_of(&coordinator, &request);
        let queues = queues(&coordinator, &request, &mode).await;
        let assigned = |queues: Vec<MessageQueue>| {
            let queues = queues.into_iter();
            let assignments = queues.map(|message_queue| Assignment {
                message_queue,
                mode: mode.mode,
            });
            assignments.collect()
        };
        let answer = QueryAssignmentAnswer {
            message_queue_assignments: queues.map(assigned),
        };
        Answer::with_body(answer.to_json(Dialect::Fastjson1))
    }))
}

fn mode_of(coordinator: &Coordinator, request: &QueryAssignmentRequest) -> SetRequestMode {
    let (topic, group) = (&request.topic, &request.consumer_group);
    if let Some(set) = coordinator.pop.modes.get(topic, group) {
        return set;
    }
    // A group's retry topic is pulled.
    let mode = match names::is_retry_topic(topic) {
        true => RequestMode::Pull,
        false => coordinator.settings().default_request_mode,
    };
    SetRequestMode {
        consumer_group: group.clone(),
        topic: topic.clone(),
        mode,
        pop_share_queue_num: coordinator.settings().default_pop_share_queues,
    }
}

/// None: the client keeps what it has.
async fn queues(
    coordinator: &Rc<Coordinator>,
    request: &QueryAssignmentRequest,
    mode: &SetRequestMode,
) -> Option<Vec<MessageQueue>> {
    let all = coordinator
        .pop
        .routes
        .queues(coordinator, &request.topic)
        .await?;
    let settings = coordinator.settings();
    if request.message_model == MessageModel::Broadcasting || !settings.server_load_balancer {
        return Some(all);
    }
    let members = {
        let tables = coordinator.tables();
        let group = tables.clients.consumer_group(&request.consumer_group)?;
        group.client_ids()
    };
    let strategy = assign::Rule::named(&request.strategy_name)?;
    let client = &request.client_id;
    Some(match mode.mode {
        RequestMode::Pull => strategy.share(client, &all, &members),
        RequestMode::Pop => {
            let shared = mode.pop_share_queue_num;
            assign::for_pop(strategy, client, &all, &members, shared)
        }
    })
}

/// 401
pub fn set_mode(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let request = SetRequestMode::from_json(command.body)?;
    check(coordinator, &request)?;
    let saved = coordinator.pop.modes.set(request);
    Ok(Reply::later(async move {
        match saved.await {
            Ok(()) => Answer::ok(),
            Err(error) => {
                let remark = format!("the mode is in effect but could not be saved: {error}");
                Answer::code(response::SYSTEM_ERROR, remark)
            }
        }
    }))
}

fn check(coordinator: &Coordinator, request: &SetRequestMode) -> Result<(), Refusal> {
    let topic = &request.topic;
    if names::is_retry_topic(topic) {
        let remark = "retry topic is not allowed to set mode";
        return Err(refuse(response::NO_PERMISSION, remark));
    }
    let tables = coordinator.tables();
    if tables.topics.get(topic).is_none() {
        let remark = format!("topic[{topic}] not exist");
        return Err(refuse(response::TOPIC_NOT_EXIST, remark));
    }
    drop(tables);
    // It makes itself, if groups do.
    wanted::ensured_group(coordinator, &request.consumer_group).map_err(|_| {
        let remark = "subscription group does not exist";
        refuse(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark)
    })?;
    Ok(())
}
