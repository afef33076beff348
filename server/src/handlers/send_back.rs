//! 36: a consumer failed on a message and gives it back, to come again later or, after too many times, never.
//!
//! The message is read from the log by its offset and appended again: delayed, for the group's retry topic, or at once to
//! its dead-letter topic.

use std::rc::Rc;
use std::sync::Arc;

use engine::LogOffset;
use protocol::body::topic_config::TopicConfig;
use protocol::code::response;
use protocol::header::message::SendBack;
use protocol::names::{self, SCHEDULE_TOPIC};
use protocol::permission::{self, READ_WRITE};
use protocol::record::{Draft, View};
use protocol::{Command, Text, properties};

use super::{Answer, Handled, Reply, refuse};
use crate::coordinator::journal::Entry;
use crate::coordinator::{self, Coordinator};
use crate::internal::Appender;
use crate::messages::Refusal;

/// The first retry waits this level, later ones one more each time.
const FIRST_RETRY_LEVEL: i32 = 3;
const DEAD_LETTER_QUEUES: u32 = 1;

/// What the request asks for, checked.
struct GivenBack {
    log_offset: LogOffset,
    group: String,
    delay_level: i32,
    reconsume_times_max: i32,
    retry_queues: u32,
    unit_mode: bool,
}

pub fn handle(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = SendBack::from(command)?;
    let settings = coordinator.settings();
    if !permission::is_writable(settings.broker_permission) {
        return Err(refuse(
            response::NO_PERMISSION,
            format!(
                "the broker[{}] sending message is forbidden",
                settings.advertised_ip
            ),
        ));
    }
    let group = header.group.into_owned();
    let ensured = coordinator.ensure_group(&group).map_err(|_| {
        refuse(
            response::SUBSCRIPTION_GROUP_NOT_EXIST,
            format!("subscription group not exist, {group}"),
        )
    })?;
    let config = ensured.value;
    let retry_queues = u32::try_from(config.retry_queue_nums).unwrap_or(0);
    if retry_queues == 0 {
        return Ok(Answer::ok().into());
    }
    let not_found = || {
        refuse(
            response::SYSTEM_ERROR,
            format!("look message by offset failed, {}", header.log_offset),
        )
    };
    let given_back = GivenBack {
        log_offset: LogOffset(u64::try_from(header.log_offset).map_err(|_| not_found())?),
        group,
        delay_level: header.delay_level,
        reconsume_times_max: header.max_reconsume_times.unwrap_or(config.retry_max_times),
        retry_queues,
        unit_mode: header.unit_mode.unwrap_or(false),
    };
    let coordinator = Rc::clone(coordinator);
    Ok(Reply::later(async move {
        match give_back(&coordinator, &given_back).await {
            Ok(()) => Answer::ok(),
            Err(refusal) => refusal.into(),
        }
    }))
}

async fn give_back(coordinator: &Coordinator, asked: &GivenBack) -> Result<(), Refusal> {
    let failed = |problem: String| refuse(response::SYSTEM_ERROR, problem);
    let store = &coordinator.shared.store;
    let found = store.record_at(asked.log_offset).await;
    let record = found
        .map_err(|error| failed(error.to_string()))?
        .ok_or_else(|| {
            failed(format!(
                "look message by offset failed, {}",
                asked.log_offset.0
            ))
        })?;
    let view = View::parse(&record).map_err(|error| failed(error.to_string()))?;
    let settings = coordinator.settings();
    let levels = i32::try_from(settings.delay_levels_ms.len()).unwrap_or(i32::MAX);
    let again = Again::of(&view, asked, levels, reactor::random());
    let topic = make_topic(coordinator, &again, asked.unit_mode);
    if !permission::is_writable(topic.perm) {
        let remark = format!("the topic[{}] sending message is forbidden", again.topic);
        return Err(refuse(response::NO_PERMISSION, remark));
    }

    let (topic, queue_id) = again.stored_in();
    let queue_no = u32::try_from(queue_id).expect("levels start at 1");
    let queue = store.queue(topic, queue_no);
    let draft = Draft {
        topic,
        queue_id,
        flag: view.flag,
        sys_flag: view.sys_flag,
        born_ms: view.born_ms,
        born_host: view.born_host,
        store_host: settings.advertised(),
        reconsume_times: view.reconsume_times + 1,
        prepared_transaction_offset: 0,
        properties: Text::plain(&again.properties),
        body: view.body,
    };
    let mut appender = Appender::new(coordinator.shared.writer.clone());
    let appended = appender.append_one(&queue, again.tag_hash, &draft).await;
    appended.map_err(|error| failed(error.to_string()))?;
    count(coordinator, asked, &again);
    Ok(())
}

fn count(coordinator: &Coordinator, asked: &GivenBack, again: &Again) {
    let now_s = coordinator::now_s();
    let came_from = properties::get_str(&again.properties, properties::RETRY_TOPIC);
    let came_from = came_from.unwrap_or(&again.topic);
    coordinator
        .figures
        .sent_back(&asked.group, came_from, now_s);
    if names::is_dlq_topic(&again.topic) {
        coordinator.figures.given_up(&asked.group, came_from, now_s);
    }
}

fn make_topic(coordinator: &Coordinator, again: &Again, unit_mode: bool) -> Arc<TopicConfig> {
    let created = coordinator.tables().topics.create_for_group(
        &again.topic,
        again.queues,
        READ_WRITE,
        None,
        unit_mode && again.waits_in.is_some(),
        reactor::wall_ms(),
    );
    let made = coordinator.keep_created(created);
    if made.is_new {
        coordinator.journal_entry(&Entry::Topic((*made.value).clone()));
    }
    made.value
}

/// The message as it is stored again.
#[derive(Debug, PartialEq, Eq)]
struct Again {
    /// The retry or dead-letter topic, and how many queues it has if it is made now.
    topic: String,
    queues: u32,
    /// Zero-based queue of the delayed messages' topic to wait in; none: it goes to `topic` at once.
    waits_in: Option<i32>,
    properties: Vec<u8>,
    tag_hash: i32,
}

impl Again {
    fn of(view: &View<'_>, asked: &GivenBack, levels: i32, random: u64) -> Self {
        let dead = asked.delay_level < 0 || view.reconsume_times >= asked.reconsume_times_max;
        let tags = view.property(properties::TAGS);
        let tags = tags.map(String::from_utf8_lossy).unwrap_or_default();
        let mut again = Self {
            topic: names::dlq_topic(&asked.group),
            queues: DEAD_LETTER_QUEUES,
            waits_in: None,
            properties: origin(view),
            tag_hash: properties::tag_hash(&tags),
        };
        again.set(properties::WAIT, "false");
        if dead {
            again.properties = properties::remove(&again.properties, properties::DELAY);
            return again;
        }
        again.topic = names::retry_topic(&asked.group);
        again.queues = asked.retry_queues;
        let level = match asked.delay_level {
            0 => FIRST_RETRY_LEVEL.saturating_add(view.reconsume_times),
            level => level,
        };
        let level = level.clamp(1, levels);
        again.waits_in = Some(level - 1);
        again.set(properties::DELAY, &level.to_string());
        let topic = again.topic.clone();
        again.set(properties::REAL_TOPIC, &topic);
        let queue_id = random % u64::from(asked.retry_queues);
        again.set(properties::REAL_QID, &queue_id.to_string());
        again
    }

    fn set(&mut self, name: &str, value: &str) {
        self.properties = properties::set(&self.properties, name, value.as_bytes());
    }

    /// Where the record goes first.
    fn stored_in(&self) -> (&str, i32) {
        match self.waits_in {
            Some(queue_id) => (SCHEDULE_TOPIC, queue_id),
            None => (&self.topic, 0),
        }
    }
}

/// The message's properties, with where it came from at first.
fn origin(view: &View<'_>) -> Vec<u8> {
    let mut properties = view.properties.to_vec();
    if view.property(properties::RETRY_TOPIC).is_none() {
        properties = properties::set(&properties, properties::RETRY_TOPIC, view.topic);
    }
    if view.property(properties::ORIGIN_MESSAGE_ID).is_none() {
        let id = view.message_id();
        properties = properties::set(&properties, properties::ORIGIN_MESSAGE_ID, id.as_bytes());
    }
    properties
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVELS: i32 = 18;

    fn record(reconsume_times: i32, properties: &str) -> Vec<u8> {
        let host = std::net::SocketAddr::from(([127, 0, 0, 1], 10_911));
        let draft = Draft {
            topic: "t",
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_ms: 1,
            born_host: host,
            store_host: host,
            reconsume_times,
            prepared_transaction_offset: 0,
            properties: Text::plain(properties.as_bytes()),
            body: b"body",
        };
        let mut bytes = Vec::new();
        draft.append_to(&mut bytes);
        bytes
    }

    fn again(reconsume_times: i32, delay_level: i32, properties: &str) -> Again {
        let bytes = record(reconsume_times, properties);
        let asked = GivenBack {
            log_offset: LogOffset(0),
            group: "g".to_owned(),
            delay_level,
            reconsume_times_max: 16,
            retry_queues: 1,
            unit_mode: false,
        };
        let view = View::parse(&bytes).expect("a record");
        Again::of(&view, &asked, LEVELS, 5)
    }

    fn property<'a>(again: &'a Again, name: &str) -> Option<&'a str> {
        properties::get_str(&again.properties, name)
    }

    #[test]
    fn retries_wait_longer_each_time_and_never_beyond_the_last_level() {
        assert_eq!(again(0, 0, "").stored_in(), (SCHEDULE_TOPIC, 2));
        assert_eq!(again(1, 0, "").stored_in(), (SCHEDULE_TOPIC, 3));
        assert_eq!(again(15, 0, "").stored_in(), (SCHEDULE_TOPIC, 17));
        assert_eq!(again(0, 5, "").stored_in(), (SCHEDULE_TOPIC, 4));
        assert_eq!(again(0, 99, "").stored_in(), (SCHEDULE_TOPIC, 17));
    }

    #[test]
    fn it_comes_back_to_the_groups_retry_topic_and_knows_its_first_one() {
        let first = again(0, 0, "TAGS\u{1}A\u{2}");
        assert_eq!(property(&first, "REAL_TOPIC"), Some("%RETRY%g"));
        assert_eq!(property(&first, "REAL_QID"), Some("0"));
        assert_eq!(property(&first, "RETRY_TOPIC"), Some("t"));
        assert_eq!(property(&first, "TAGS"), Some("A"));
        assert!(property(&first, "ORIGIN_MESSAGE_ID").is_some());
        let second = again(
            1,
            0,
            "RETRY_TOPIC\u{1}first\u{2}ORIGIN_MESSAGE_ID\u{1}ID\u{2}",
        );
        assert_eq!(property(&second, "RETRY_TOPIC"), Some("first"));
        assert_eq!(property(&second, "ORIGIN_MESSAGE_ID"), Some("ID"));
    }

    #[test]
    fn after_the_last_retry_or_on_demand_it_goes_to_the_dead_letters_at_once() {
        for dead in [again(16, 0, "DELAY\u{1}18\u{2}"), again(0, -1, "")] {
            assert_eq!(dead.stored_in(), ("%DLQ%g", 0));
            assert_eq!(property(&dead, "DELAY"), None);
        }
    }
}
