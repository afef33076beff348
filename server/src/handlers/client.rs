//! Clients coming, staying and going: heartbeat, unregister, check of a filter.

use std::rc::Rc;

use protocol::body::Body;
use protocol::body::heartbeat::{CheckClientRequest, ConsumeType, ConsumerData, HeartbeatData};
use protocol::code::response;
use protocol::header::client::{Unregister, heartbeat_answer};
use protocol::permission::READ_WRITE;
use protocol::{Command, names};

use super::{Answer, Caller, Handled, refuse};
use crate::clients::{Client, Form};
use crate::coordinator::journal::Entry;
use crate::coordinator::{Coordinator, now_ms};
use crate::filter::Filter;

/// 34, in the long form and the short one (5.x), which carries a fingerprint in place of unchanged subscriptions.
pub fn heartbeat(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let beat = HeartbeatData::from_json(command.body)?;
    let client = Client {
        id: beat.client_id.clone(),
        peer: caller.peer,
        language: command.language,
        version: command.version,
        seen_ms: now_ms(),
    };
    let mut send_all_again = beat.heartbeat_fingerprint == 0;
    for data in &beat.consumer_data_set {
        send_all_again |= consumer(coordinator, caller, &client, &beat, data);
    }
    if coordinator.settings().register_producers {
        let clients = &mut coordinator.tables().clients;
        for data in &beat.producer_data_set {
            clients.producer_heartbeat(caller.conn, client.clone(), &data.group_name);
        }
    }
    let answer = Answer::ok()
        .field(heartbeat_answer::SUPPORTS_V2, true)
        .field(heartbeat_answer::SUB_CHANGED, send_all_again);
    Ok(answer.into())
}

/// One consumer group of a heartbeat; true if its subscriptions have to be sent in full.
fn consumer(
    coordinator: &Rc<Coordinator>,
    caller: Caller,
    client: &Client,
    beat: &HeartbeatData,
    data: &ConsumerData,
) -> bool {
    let actively = data.consume_type == ConsumeType::Actively;
    if actively && coordinator.settings().reject_pull_consumer {
        return false;
    }
    let group = &data.group_name;
    let Ok(ensured) = coordinator.ensure_group(group) else {
        tracing::debug!(group, peer = %caller.peer, "heartbeat for a group that may not be made");
        return false;
    };
    if ensured.is_new {
        coordinator.journal_entry(&Entry::Group((*ensured.value).clone()));
    }
    let form = match beat.heartbeat_fingerprint {
        0 => Form::Long,
        fingerprint if beat.without_sub => Form::Short { fingerprint },
        fingerprint => Form::Full { fingerprint },
    };
    make_retry_topic(coordinator, data, form, ensured.value.retry_queue_nums);
    let change =
        coordinator
            .tables()
            .clients
            .consumer_heartbeat(caller.conn, client.clone(), data, form);
    if change.disagrees {
        tracing::warn!(
            group,
            client = client.id,
            peer = %caller.peer,
            "members of one group subscribe differently: whose heartbeat came last decides for all of them, and others miss messages"
        );
    }
    if change.subscriptions {
        coordinator.subscriptions_changed(std::iter::once(group.as_str()));
    }
    if change.members_must_know {
        tracing::info!(group, client = client.id, peer = %caller.peer, "consumer group changed");
        coordinator.tell_members(group);
    }
    change.send_in_full
}

/// `%RETRY%group` is there from the group's first heartbeat, ordered if anything the group reads is.
fn make_retry_topic(coordinator: &Coordinator, data: &ConsumerData, form: Form, queues: i32) {
    let retry_topic = names::retry_topic(&data.group_name);
    let created = {
        let topics = &mut coordinator.tables().topics;
        let mut read = data.subscription_data_set.iter();
        let order = match form {
            // Says nothing of what is read: what was known stays.
            Form::Short { .. } => None,
            Form::Long | Form::Full { .. } => Some(read.any(|one| topics.is_order(&one.topic))),
        };
        let queues = u32::try_from(queues).unwrap_or(0);
        topics.create_for_group(
            &retry_topic,
            queues,
            READ_WRITE,
            order,
            data.unit_mode,
            reactor::wall_ms(),
        )
    };
    let made = coordinator.keep_created(created);
    if made.is_new {
        coordinator.journal_entry(&Entry::Topic((*made.value).clone()));
    }
}

/// 35
pub fn unregister(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let header = Unregister::from(command)?;
    if let Some(group) = &header.producer_group {
        let clients = &mut coordinator.tables().clients;
        clients.producer_leaves(caller.conn, group);
    }
    if let Some(group) = &header.consumer_group {
        let left = coordinator
            .tables()
            .clients
            .consumer_leaves(caller.conn, group);
        if left {
            tracing::info!(%group, client = %header.client_id, peer = %caller.peer, "consumer left");
            coordinator.groups_lost_a_member(&[(&**group).into()]);
        }
    }
    Ok(Answer::ok().into())
}

/// 46: whether a consumer may filter as it wants to; asked before it starts.
pub fn check(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let request = CheckClientRequest::from_json(command.body)?;
    let Some(subscription) = request.subscription_data.filter(|wanted| !wanted.is_tag()) else {
        return Ok(Answer::ok().into());
    };
    let kind = &subscription.expression_type;
    if !coordinator.settings().enable_property_filter {
        return Err(refuse(
            response::SYSTEM_ERROR,
            format!("The broker does not support consumer to filter message by {kind}"),
        ));
    }
    Filter::compile(kind, &subscription.sub_string)
        .map_err(|why| refuse(response::SUBSCRIPTION_PARSE_FAILED, why))?;
    Ok(Answer::ok().into())
}
