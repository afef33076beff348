//! Messages that were delivered too often: to the group's dead-letter topic, then done.
//!
//! RocketMQ leaves this to its clients, and delivers a message whose consumer dies of it for ever.

use std::rc::Rc;

use protocol::permission::READ_WRITE;
use protocol::record::{Draft, View};
use protocol::{Text, names, properties};

use super::entry::Place;
use super::queue::Op;
use crate::coordinator::journal::Entry;
use crate::coordinator::{Coordinator, now_s};
use crate::internal::Appender;

const DEAD_LETTER_QUEUES: u32 = 1;
/// Hidden from everybody for this long while it is being moved, whatever happens to that.
const HIDDEN_MS: i64 = 60_000;

pub struct Dead {
    pub place: Place,
    pub offset: u64,
    pub record: Vec<u8>,
}

/// Moves them, beside whatever else happens.
pub fn bury(coordinator: &Rc<Coordinator>, dead: Vec<Dead>) {
    let pop = &coordinator.pop;
    let now_ms = reactor::wall_ms();
    for dead in dead {
        let pop_ms = {
            let mut table = pop.table.borrow_mut();
            let message = table
                .at(&dead.place)
                .and_then(|slot| slot.state.get(dead.offset).copied());
            let Some(message) = message else {
                continue;
            };
            message.pop_ms
        };
        let new_pop_ms = now_ms.max(pop_ms + 1);
        let hide = Op::Change {
            offset: dead.offset,
            pop_ms,
            new_pop_ms,
            due_ms: now_ms + HIDDEN_MS,
        };
        pop.change(&dead.place, &hide);
        let moving = move_one(Rc::clone(coordinator), dead, new_pop_ms);
        reactor::spawn("dead letter", moving);
    }
}

async fn move_one(coordinator: Rc<Coordinator>, dead: Dead, pop_ms: i64) {
    match append(&coordinator, &dead).await {
        Ok(()) => {
            let (group, topic) = (&dead.place.group, &dead.place.topic);
            coordinator.figures.given_up(group, topic, now_s());
            let offsets = vec![dead.offset];
            coordinator
                .pop
                .change(&dead.place, &Op::Ack { offsets, pop_ms });
        }
        // It is visible again in a while.
        Err(problem) => {
            tracing::warn!(place = ?dead.place, problem, "a dead letter stays where it is")
        }
    }
}

async fn append(coordinator: &Rc<Coordinator>, dead: &Dead) -> Result<(), String> {
    let view = View::parse(&dead.record).map_err(|error| error.to_string())?;
    let topic = names::dlq_topic(&dead.place.group);
    let created = coordinator.tables().topics.create_for_group(
        &topic,
        DEAD_LETTER_QUEUES,
        READ_WRITE,
        None,
        false,
        reactor::wall_ms(),
    );
    let made = coordinator.keep_created(created);
    if made.is_new {
        coordinator.journal_entry(&Entry::Topic((*made.value).clone()));
    }
    let properties = dead_properties(&view);
    let queue = coordinator.shared.store.queue(&topic, 0);
    let tags = view.property(properties::TAGS);
    let tags = tags.map(String::from_utf8_lossy).unwrap_or_default();
    let draft = Draft {
        topic: &topic,
        queue_id: 0,
        flag: view.flag,
        sys_flag: view.sys_flag,
        born_ms: view.born_ms,
        born_host: view.born_host,
        store_host: coordinator.settings().advertised(),
        reconsume_times: view.reconsume_times,
        prepared_transaction_offset: 0,
        properties: Text::plain(&properties),
        body: view.body,
    };
    let mut appender = Appender::promised(coordinator.shared.writer.clone());
    let appended = appender.append_one(&queue, properties::tag_hash(&tags), &draft);
    appended.await.map_err(|error| error.to_string())?;
    tracing::info!(place = ?dead.place, offset = dead.offset, "delivered too often: now a dead letter");
    Ok(())
}

/// With where it came from, as far as there is room.
fn dead_properties(view: &View<'_>) -> Vec<u8> {
    let mut found = properties::remove(view.properties, properties::DELAY);
    let id = view.message_id();
    let origin: [(&str, &[u8]); 4] = [
        (properties::RETRY_TOPIC, view.topic),
        (properties::ORIGIN_MESSAGE_ID, id.as_bytes()),
        (properties::DLQ_ORIGIN_TOPIC, view.topic),
        (properties::DLQ_ORIGIN_MESSAGE_ID, id.as_bytes()),
    ];
    for (name, value) in origin {
        if properties::get(&found, name).is_none() {
            let with = properties::set(&found, name, value);
            if with.len() <= names::PROPERTIES_BYTES_MAX {
                found = with;
            }
        }
    }
    found
}
