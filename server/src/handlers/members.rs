//! Who is in a group: for rebalancing clients, and for operators.

use std::rc::Rc;

use protocol::Command;
use protocol::body::Body;
use protocol::body::connection::{Connection, ConsumerConnection, ProducerConnection};
use protocol::code::response;
use protocol::header::client::{ConsumerGroup, ProducerGroup};
use protocol::json::Dialect;

use super::{Answer, Handled, refuse};
use crate::clients::Client;
use crate::coordinator::Coordinator;

/// 38
pub fn of_group(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let group = ConsumerGroup::from(command)?.consumer_group;
    let tables = coordinator.tables();
    let live = tables.clients.consumer_group(&group).ok_or_else(|| {
        refuse(
            response::SYSTEM_ERROR,
            format!("no consumer for this group, {group}"),
        )
    })?;
    Ok(Answer::with_body(live.list_answer()).into())
}

/// 203
pub fn consumers(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let group = ConsumerGroup::from(command)?.consumer_group;
    let tables = coordinator.tables();
    let live = tables.clients.consumer_group(&group).ok_or_else(|| {
        refuse(
            response::CONSUMER_NOT_ONLINE,
            format!("the consumer group[{group}] not online"),
        )
    })?;
    let body = ConsumerConnection {
        connection_set: live.members.values().map(connection).collect(),
        consume_from_where: live.consume_from_where,
        consume_type: live.consume_type,
        message_model: live.message_model,
        subscription_table: live.subscriptions.clone(),
    };
    Ok(Answer::with_body(body.to_json(Dialect::Fastjson1)).into())
}

/// 204
pub fn producers(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let group = ProducerGroup::from(command)?.producer_group;
    let tables = coordinator.tables();
    let members = tables.clients.producers(&group).ok_or_else(|| {
        refuse(
            response::SYSTEM_ERROR,
            format!("the producer group[{group}] not exist"),
        )
    })?;
    let body = ProducerConnection {
        connection_set: members.values().map(connection).collect(),
    };
    Ok(Answer::with_body(body.to_json(Dialect::Fastjson1)).into())
}

fn connection(client: &Client) -> Connection {
    Connection {
        client_addr: client.peer.to_string(),
        client_id: client.id.clone(),
        language: client.language.name().to_owned(),
        version: client.version,
    }
}
