//! Topics by request: make, change, delete, show.

use std::rc::Rc;

use protocol::body::Body;
use protocol::body::lists::TopicList;
use protocol::body::static_topic::TopicConfigAndMapping as TopicAndMapping;
use protocol::body::topic_config::{
    DataVersion, TopicConfig, TopicConfigAndMapping, TopicConfigTable, TopicFilterType,
};
use protocol::code::response;
use protocol::header::admin::TopicPage;
use protocol::header::topic::{CreateTopic, Topic};
use protocol::json::{self, Dialect};
use protocol::{Command, names, permission};

use super::attributes;
use crate::coordinator::Coordinator;
use crate::coordinator::journal::Entry;
use crate::handlers::{Answer, Caller, Handled, Reply, refuse};
use crate::messages::Refusal;

/// More queues than this in one topic is a mistake.
pub(super) const QUEUES_MAX: i32 = 65_536;

/// 17
pub fn create(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let header = CreateTopic::from(command)?;
    let config = wanted(coordinator, &header)?;
    let topics = &mut coordinator.tables().topics;
    if topics
        .get(&config.topic_name)
        .is_some_and(|now| **now == config)
    {
        return Ok(Answer::ok().into());
    }
    let config = topics.put(config, reactor::wall_ms());
    tracing::info!(
        topic = config.topic_name,
        read_queues = config.read_queue_nums,
        write_queues = config.write_queue_nums,
        perm = config.perm,
        peer = %caller.peer,
        "topic made or changed by request"
    );
    let entry = Entry::Topic((*config).clone());
    Ok(keep(coordinator, vec![config], entry))
}

/// The topic as it will be; refused if it cannot be so.
pub(super) fn wanted(
    coordinator: &Coordinator,
    header: &CreateTopic<'_>,
) -> Result<TopicConfig, Refusal> {
    let invalid = |remark: String| refuse(response::INVALID_PARAMETER, remark);
    let topic = &*header.topic;
    names::validate_topic(topic).map_err(|error| invalid(error.to_string()))?;
    let settings = coordinator.settings();
    let tables = coordinator.tables();
    if settings.protect_system_topics && tables.topics.is_system(topic) {
        return Err(conflict(topic));
    }
    let queues = 0..=QUEUES_MAX;
    if !queues.contains(&header.read_queues) || !queues.contains(&header.write_queues) {
        return Err(invalid(format!(
            "readQueueNums {} and writeQueueNums {} must lie between 0 and {QUEUES_MAX}",
            header.read_queues, header.write_queues
        )));
    }
    if !permission::is_valid(header.perm) {
        return Err(invalid(format!("perm {} is no permission", header.perm)));
    }
    let now = tables.topics.get(topic);
    let current = now
        .map(|config| config.attributes.clone())
        .unwrap_or_default();
    let changes = header.attributes.as_deref().unwrap_or_default();
    let attributes = attributes::change(&current, changes, now.is_none())
        .map_err(|problem| refuse(response::SYSTEM_ERROR, problem))?;
    let mixed = attributes.get(attributes::MESSAGE_TYPE).map(String::as_str) == Some("MIXED");
    if mixed && !settings.mixed_message_type {
        return Err(invalid("MIXED message type is not supported.".to_owned()));
    }
    let filter_type = header.filter_type.as_deref().unwrap_or_default();
    Ok(TopicConfig {
        attributes,
        order: header.order.unwrap_or(false),
        perm: header.perm,
        read_queue_nums: header.read_queues,
        topic_filter_type: TopicFilterType::from_name(filter_type),
        topic_name: topic.to_owned(),
        topic_sys_flag: header.sys_flag.unwrap_or(0),
        write_queue_nums: header.write_queues,
    })
}

fn conflict(topic: &str) -> Refusal {
    refuse(
        response::INVALID_PARAMETER,
        format!("The topic[{topic}] is conflict with system topic."),
    )
}

/// Publishes and registers a change that is in the table, and answers once it is kept.
fn keep(
    coordinator: &Rc<Coordinator>,
    changed: Vec<std::sync::Arc<TopicConfig>>,
    entry: Entry,
) -> Reply {
    let coordinator = Rc::clone(coordinator);
    // Later, because the caller still holds the tables.
    Reply::later(async move {
        coordinator.topics_changed(changed);
        match coordinator.kept(&entry).await {
            Ok(()) => Answer::ok(),
            Err(refusal) => refusal.into(),
        }
    })
}

/// 215: the topic and its offsets are forgotten, and its messages are shown to nobody any more, though they stay in the log
/// until they expire.
pub fn delete(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let topic = Topic::from(command)?.topic.into_owned();
    if topic.trim().is_empty() {
        return Err(refuse(
            response::INVALID_PARAMETER,
            "The specified topic is blank.",
        ));
    }
    let mut tables = coordinator.tables();
    if coordinator.settings().protect_system_topics && tables.topics.is_system(&topic) {
        return Err(conflict(&topic));
    }
    tables.offsets.remove_topic(&topic);
    if tables.topics.remove(&topic, reactor::wall_ms()).is_none() {
        return Ok(Answer::ok().into());
    }
    drop(tables);
    coordinator.figures.topic_gone(&topic);
    coordinator.pop.forget_topic(&topic);
    super::static_topics::forget(coordinator, &topic);
    tracing::info!(topic, peer = %caller.peer, "topic deleted");
    let entry = coordinator.hide_messages(topic);
    Ok(keep(coordinator, Vec::new(), entry))
}

/// 351
pub fn get(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let topic = Topic::from(command)?.topic;
    let tables = coordinator.tables();
    let config = tables.topics.get(&topic).ok_or_else(|| {
        refuse(
            response::TOPIC_NOT_EXIST,
            format!("No topic in this broker. topic: {topic}"),
        )
    })?;
    let with_mapping = command.fields.string("lo").as_deref() == Some("true");
    let mapping = with_mapping.then(|| coordinator.static_topics.get(&topic));
    let body = TopicAndMapping {
        mapping_detail: mapping.flatten(),
        config: (**config).clone(),
    };
    let body = body.to_json(Dialect::Fastjson1);
    Ok(Answer::with_body(body).into())
}

/// 21: everything, or a page of it. Encoded elsewhere: the table may be megabytes.
pub fn all(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let page = TopicPage::from(command)?;
    let settings = coordinator.settings();
    let tables = coordinator.tables();
    let version = tables.topics.version();
    let table = tables.topics.snapshot();
    let range = Page::of(
        page.start,
        page.topics_max,
        page.data_version.as_deref(),
        version,
        settings.metadata_piece_max,
    );
    Ok(Reply::later(async move {
        let total = table.len();
        let body = reactor::offload("topic table", move || {
            let whole: TopicConfigTable = crate::coordinator::topic_table(&table, version);
            let body = TopicConfigAndMapping {
                data_version: whole.data_version,
                topic_config_table: range.take(whole.topic_config_table),
                ..TopicConfigAndMapping::default()
            };
            body.to_json(Dialect::Fastjson1)
        })
        .await;
        Answer::with_body(body).field("totalTopicNum", total)
    }))
}

/// Which entries of a sorted table are asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    start: usize,
    entries_max: usize,
}

impl Page {
    /// Old askers name nothing and get everything; a page of another version starts again.
    pub(super) fn of(
        start: Option<i32>,
        entries_max: Option<i32>,
        version: Option<&str>,
        now: DataVersion,
        piece_max: usize,
    ) -> Self {
        if start.is_none() && entries_max.is_none() && version.is_none() {
            return Self {
                start: 0,
                entries_max: usize::MAX,
            };
        }
        let theirs: Option<DataVersion> =
            version.and_then(|text| json::from_slice(text.as_bytes()).ok());
        let start = if theirs == Some(now) { start } else { None };
        let asked = entries_max.and_then(|max| usize::try_from(max).ok());
        Self {
            start: start.and_then(|at| usize::try_from(at).ok()).unwrap_or(0),
            entries_max: asked.unwrap_or(usize::MAX).min(piece_max),
        }
    }

    pub(super) fn take<K: Ord, V>(
        self,
        table: std::collections::BTreeMap<K, V>,
    ) -> std::collections::BTreeMap<K, V> {
        table
            .into_iter()
            .skip(self.start)
            .take(self.entries_max)
            .collect()
    }
}

/// 305
pub fn system_list(coordinator: &Rc<Coordinator>) -> Handled {
    let tables = coordinator.tables();
    let mut topic_list: Vec<String> = names::SYSTEM_TOPICS
        .into_iter()
        .chain(tables.topics.system_names())
        .map(str::to_owned)
        .collect();
    topic_list.sort_unstable();
    topic_list.dedup();
    let list = TopicList {
        topic_list,
        ..TopicList::default()
    };
    Ok(Answer::with_body(list.to_json(Dialect::Fastjson1)).into())
}
