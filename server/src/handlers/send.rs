//! Sends (10, 310, 320): checked, turned into records of the shard's open batch, answered when the batch is back.
//!
//! What is refused and in which words follows RocketMQ 5.4: clients decide by the code whether to try another broker.

mod acknowledge;
mod batch;
mod limits;
mod properties;
mod retry;
mod single;

use std::rc::Rc;

use engine::ReleaseAt;
use protocol::body::topic_config::TopicFilterType;
use protocol::code::response;
use protocol::header::send::SendHeader;
use protocol::{Asked, Command, names, permission, sysflag};

pub use acknowledge::acknowledge;
use properties::Facts;

use crate::config::Settings;
use crate::handlers::missing::{self, Missing, NotDone};
use crate::messages::CreateTopic;
use crate::shard::sends::{self, BatchProgress, NO_ANSWER, PendingSend, UniqueKey};
use crate::shard::topics::Topic;
use crate::shard::{Connection, Shard, Views};

pub fn handle(shard: &Rc<Shard>, connection: &Rc<Connection>, command: &Command<'_>, frame: &[u8]) {
    missing::run(attempt, shard, connection, command, frame);
}

/// A send with everything found that it needs.
struct Sending<'a> {
    shard: &'a Rc<Shard>,
    connection: &'a Rc<Connection>,
    command: &'a Command<'a>,
    header: &'a SendHeader<'a>,
    settings: &'a Settings,
    views: &'a Views,
    topic: Rc<Topic>,
    queue_id: u32,
}

fn attempt(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    command: &Command<'_>,
) -> Result<(), NotDone> {
    let header = SendHeader::from(command)
        .map_err(|error| NotDone::refused(response::SYSTEM_ERROR, error.to_string()))?;
    check_store(shard)?;
    let views = shard.views.borrow();
    let settings: &Settings = views.settings.value();
    let topic = find_topic(shard, &views, &header)?;
    check_permission(settings, &topic)?;
    let queue_id = choose_queue(&header, &topic, connection)?;
    let send = Sending {
        shard,
        connection,
        command,
        header: &header,
        settings,
        views: &views,
        topic,
        queue_id,
    };
    if header.batch {
        batch::take(&send)
    } else {
        single::take(&send)
    }
}

/// Once the log has failed there is no need to ask the writer.
fn check_store(shard: &Shard) -> Result<(), NotDone> {
    match shard.shared.store.poison() {
        None => Ok(()),
        Some(why) => Err(NotDone::Refused(acknowledge::not_available(why))),
    }
}

fn find_topic(shard: &Shard, views: &Views, header: &SendHeader<'_>) -> Result<Rc<Topic>, NotDone> {
    let name = header.topic.as_str();
    // A closed topic is a known one: only unknown names need the longer look.
    if names::is_closed_topic(&name) {
        let remark = format!("Sending message to topic[{name}] is forbidden.");
        return Err(NotDone::refused(response::NO_PERMISSION, remark));
    }
    if let Some(topic) = shard.topics.get(&name, &views.topics) {
        return Ok(topic);
    }
    names::validate_topic(&name)
        .map_err(|error| NotDone::refused(response::INVALID_PARAMETER, error.to_string()))?;
    Err(NotDone::Missing(Missing::Topic {
        topic: name.into_owned(),
        kind: CreateTopic::BySend {
            default_topic: header.default_topic.as_str().into_owned(),
            queues: u32::try_from(header.default_topic_queues).unwrap_or(0),
            unit_mode: header.unit_mode,
        },
    }))
}

/// As in RocketMQ a broker without write permission still takes what is not ordered: clients stop by its route.
fn check_permission(settings: &Settings, topic: &Topic) -> Result<(), NotDone> {
    if permission::is_writable(settings.broker_permission) || !topic.config().order {
        return Ok(());
    }
    let ip = settings.advertised_ip;
    let remark = format!("the broker[{ip}] sending message is forbidden");
    Err(NotDone::refused(response::NO_PERMISSION, remark))
}

fn choose_queue(
    header: &SendHeader<'_>,
    topic: &Topic,
    connection: &Connection,
) -> Result<u32, NotDone> {
    let config = topic.config();
    match u32::try_from(header.queue_id) {
        Ok(queue_id) if header.queue_id < config.write_queue_nums.max(config.read_queue_nums) => {
            Ok(queue_id)
        }
        Ok(queue_id) => {
            let remark = format!(
                "request queueId[{queue_id}] is illegal, {} Producer: {}",
                topic.description(),
                connection.peer()
            );
            Err(NotDone::refused(response::INVALID_PARAMETER, remark))
        }
        Err(_) => Ok(any_queue(config.write_queue_nums)),
    }
}

/// A queue of the broker's choice.
fn any_queue(queues: i32) -> u32 {
    let queues = u64::try_from(queues).unwrap_or(0).max(1);
    (reactor::random() % queues) as u32
}

impl Sending<'_> {
    /// Whether the answer waits until the message is as safe as this store makes it. A sender may do without a power
    /// cut's safety, not without a kill's.
    fn waits(&self, facts: &Facts) -> bool {
        let store = &self.shard.shared.store;
        !facts.no_wait || store.release_at() != ReleaseAt::Flushed
    }

    fn sys_flag(&self) -> i32 {
        let multi_tag = self.topic.config().topic_filter_type == TopicFilterType::MultiTag;
        self.header.sys_flag | if multi_tag { sysflag::MULTI_TAGS } else { 0 }
    }

    /// The token of this send's records.
    fn expect_answer(
        &self,
        key: UniqueKey,
        recall_handle: Option<Box<str>>,
        batch: Option<Box<BatchProgress>>,
    ) -> u64 {
        if self.command.is_oneway() {
            return NO_ANSWER;
        }
        let send = PendingSend {
            conn: self.connection.id(),
            asked: Asked::from(self.command),
            taken: reactor::turn_time(),
            queue_id: self.queue_id as i32,
            unique_key: key,
            recall_handle,
            batch,
        };
        sends::wait_for(&mut self.shard.sends.borrow_mut(), send)
    }
}
