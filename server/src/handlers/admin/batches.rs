//! Many topics or groups by one request (5.x): all of them, or none if one cannot be.

use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::Command;
use protocol::body::Body;
use protocol::body::figures::SubscriptionGroupList;
use protocol::body::topic_config::{CreateTopicList, TopicConfig};
use protocol::code::response;
use protocol::header::topic::CreateTopic;

use super::{groups, topics};
use crate::coordinator::Coordinator;
use crate::coordinator::journal::Entry;
use crate::handlers::{Answer, Caller, Handled, Reply, refuse};
use crate::messages::Refusal;

/// One request holds the coordinator for no longer than this takes.
const ENTRIES_MAX: usize = 10_000;

/// 18
pub fn topics(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let asked = CreateTopicList::from_json(command.body)?.topic_config_list;
    check_length(asked.len())?;
    let mut configs = Vec::with_capacity(asked.len());
    for config in &asked {
        let attributes = config.attributes.iter();
        let attributes: Vec<String> = attributes
            .map(|(key, value)| match key.starts_with('-') {
                true => key.clone(),
                false => format!("{key}={value}"),
            })
            .collect();
        configs.push(topics::wanted(
            coordinator,
            &header(config, &attributes.join(",")),
        )?);
    }
    let mut entries = Vec::with_capacity(configs.len());
    let mut changed = Vec::with_capacity(configs.len());
    {
        let topics = &mut coordinator.tables().topics;
        for config in configs {
            if topics
                .get(&config.topic_name)
                .is_none_or(|now| **now != config)
            {
                let config = topics.put(config, reactor::wall_ms());
                entries.push(Entry::Topic((*config).clone()));
                changed.push(config);
            }
        }
    }
    if changed.is_empty() {
        return Ok(Answer::ok().into());
    }
    tracing::info!(topics = changed.len(), peer = %caller.peer, "topics made or changed by request");
    let kept = Rc::clone(coordinator);
    Ok(Reply::later(async move {
        kept.topics_changed(changed);
        keep_all(&kept, &entries).await
    }))
}

fn header<'a>(config: &'a TopicConfig, attributes: &'a str) -> CreateTopic<'a> {
    CreateTopic {
        topic: config.topic_name.as_str().into(),
        default_topic: None,
        read_queues: config.read_queue_nums,
        write_queues: config.write_queue_nums,
        perm: config.perm,
        filter_type: Some(config.topic_filter_type.name().into()),
        sys_flag: Some(config.topic_sys_flag),
        order: Some(config.order),
        attributes: Some(attributes.into()),
        force: None,
    }
}

/// 225
pub fn groups(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let configs = SubscriptionGroupList::from_json(command.body)?.group_config_list;
    check_length(configs.len())?;
    configs.iter().try_for_each(groups::check)?;
    let mut by_name = BTreeMap::new();
    for config in configs {
        by_name.insert(config.group_name.clone(), config);
    }
    if by_name.is_empty() {
        return Ok(Answer::ok().into());
    }
    tracing::info!(groups = by_name.len(), peer = %caller.peer, "groups made or changed by request");
    let configs = by_name.into_values();
    let entries: Vec<Entry> = configs
        .map(|config| {
            let config = coordinator.tables().groups.put(config, reactor::wall_ms());
            Entry::Group((*config).clone())
        })
        .collect();
    coordinator.groups_changed();
    let kept = Rc::clone(coordinator);
    Ok(Reply::later(async move { keep_all(&kept, &entries).await }))
}

fn check_length(entries: usize) -> Result<(), Refusal> {
    if entries <= ENTRIES_MAX {
        return Ok(());
    }
    Err(refuse(
        response::INVALID_PARAMETER,
        format!("{entries} entries in one request are more than {ENTRIES_MAX}"),
    ))
}

/// Lines of the journal are written in order: when the last one is kept, all are.
async fn keep_all(coordinator: &Coordinator, entries: &[Entry]) -> Answer {
    let Some((last, before)) = entries.split_last() else {
        return Answer::ok();
    };
    for entry in before {
        coordinator.journal_entry(entry);
    }
    match coordinator.kept(last).await {
        Ok(()) => Answer::ok(),
        Err(refusal) => refusal.into(),
    }
}
