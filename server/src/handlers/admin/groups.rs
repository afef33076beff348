//! Consumer groups by request: make, change, delete, show.

use std::rc::Rc;

use protocol::body::Body;
use protocol::body::figures::GroupForbidden;
use protocol::body::subscription_group::{SubscriptionGroupConfig, SubscriptionGroupTable};
use protocol::code::response;
use protocol::header::admin::{GroupPage, GroupReads};
use protocol::header::topic::{DeleteGroup, Group};
use protocol::json::Dialect;
use protocol::{Command, names, permission};

use super::topics::{Page, QUEUES_MAX};
use crate::coordinator::Coordinator;
use crate::coordinator::journal::Entry;
use crate::handlers::{Answer, Caller, Handled, Reply, refuse};
use crate::messages::Refusal;

/// 200
pub fn create(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let config = SubscriptionGroupConfig::from_json(command.body)?;
    check(&config)?;
    tracing::info!(group = config.group_name, peer = %caller.peer, "group made or changed by request");
    let entry = Entry::Group(config.clone());
    coordinator.tables().groups.put(config, reactor::wall_ms());
    coordinator.groups_changed();
    Ok(keep(coordinator, entry))
}

pub(super) fn check(config: &SubscriptionGroupConfig) -> Result<(), Refusal> {
    names::validate_group(&config.group_name)
        .map_err(|error| refuse(response::INVALID_PARAMETER, error.to_string()))?;
    if (0..=QUEUES_MAX).contains(&config.retry_queue_nums) {
        return Ok(());
    }
    Err(refuse(
        response::INVALID_PARAMETER,
        format!(
            "retryQueueNums {} must lie between 0 and {QUEUES_MAX}",
            config.retry_queue_nums
        ),
    ))
}

fn keep(coordinator: &Rc<Coordinator>, entry: Entry) -> Reply {
    let coordinator = Rc::clone(coordinator);
    Reply::later(async move {
        match coordinator.kept(&entry).await {
            Ok(()) => Answer::ok(),
            Err(refusal) => refusal.into(),
        }
    })
}

/// 207
pub fn delete(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let header = DeleteGroup::from(command)?;
    let group = header.group.into_owned();
    let removed = {
        let mut tables = coordinator.tables();
        if header.clean_offsets == Some(true) {
            tables.offsets.remove_group(&group);
        }
        tables.groups.remove(&group, reactor::wall_ms())
    };
    if !removed {
        return Ok(Answer::ok().into());
    }
    tracing::info!(group, peer = %caller.peer, "group deleted");
    coordinator.groups_changed();
    coordinator.figures.group_gone(&group);
    coordinator.pop.forget_group(&group);
    Ok(keep(coordinator, Entry::GroupGone(group)))
}

/// 353: whether a group may read a topic, said or asked. RocketMQ lifts what is forbidden in all topics of a group when one
/// of them is allowed again, and forgets to save that; here one topic is one topic.
pub fn may_read(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let header = GroupReads::from(command)?;
    let (group, topic) = (header.group.into_owned(), header.topic.into_owned());
    let (bits, is_new) = {
        let groups = &mut coordinator.tables().groups;
        let before = groups.forbidden_bits(&group, &topic);
        let bits = match header.readable {
            Some(true) => before & !permission::READ,
            Some(false) => before | permission::READ,
            None => before,
        };
        let is_new = groups.forbid(&group, &topic, bits, reactor::wall_ms());
        (bits, is_new)
    };
    let answer = GroupForbidden {
        readable: bits & permission::READ == 0,
        group: group.clone(),
        topic: topic.clone(),
    };
    let answer = Answer {
        remark: Some("".into()),
        ..Answer::with_body(answer.to_json(Dialect::Fastjson1))
    };
    if !is_new {
        return Ok(answer.into());
    }
    tracing::info!(group, topic, bits, peer = %caller.peer, "what a group may read is changed");
    coordinator.groups_changed();
    let coordinator = Rc::clone(coordinator);
    let entry = Entry::GroupForbidden { group, topic, bits };
    Ok(Reply::later(async move {
        match coordinator.kept(&entry).await {
            Ok(()) => answer,
            Err(refusal) => refusal.into(),
        }
    }))
}

/// 352
pub fn get(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let group = Group::from(command)?.group;
    // Asking for a group makes it, if groups make themselves.
    let ensured = coordinator.ensure_group(&group).map_err(|_| {
        refuse(
            response::SUBSCRIPTION_GROUP_NOT_EXIST,
            "No group in this broker",
        )
    })?;
    if ensured.is_new {
        coordinator.journal_entry(&Entry::Group((*ensured.value).clone()));
    }
    let body = ensured.value.to_json(Dialect::Fastjson1);
    Ok(Answer::with_body(body).into())
}

/// 201: everything, or a page of it.
pub fn all(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let page = GroupPage::from(command)?;
    let settings = coordinator.settings();
    let tables = coordinator.tables();
    let version = tables.groups.version();
    let forbidden = (**tables.groups.forbidden()).clone();
    let table = tables.groups.snapshot();
    let range = Page::of(
        page.start,
        page.groups_max,
        page.data_version.as_deref(),
        version,
        settings.metadata_piece_max,
    );
    Ok(Reply::later(async move {
        let total = table.len();
        let body = reactor::offload_bulk("group table", move || {
            let whole: SubscriptionGroupTable =
                crate::coordinator::group_table(&table, forbidden, version);
            let body = SubscriptionGroupTable {
                subscription_group_table: range.take(whole.subscription_group_table),
                ..whole
            };
            body.to_json(Dialect::Fastjson1)
        })
        .await;
        Answer::with_body(body).field("totalGroupNum", total)
    }))
}
