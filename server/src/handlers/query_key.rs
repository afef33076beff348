//! 12: messages by key, by the id their producer gave, or by tag.
//!
//! As RocketMQ 5.4 answers: the newest that fit, in the order of the log. It leaves it to clients to tell messages whose keys
//! only hash alike; here nothing comes that was not asked for.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use engine::{KeyAnswer, KeyKind, KeyQuery};
use protocol::Command;
use protocol::code::response;
use protocol::header::message::QueryMessage;
use reactor::Notify;

use super::{Answer, Handled, Reply};
use crate::coordinator::Coordinator;

/// What fits into one answer: clients refuse frames longer than 16 MiB.
const ANSWER_BYTES_MAX: usize = 12 << 20;
/// Queries that search at one time; more wait their turn.
const QUERIES_MAX: usize = 4;
/// `indexType` of a query by tag; every other kind is found among the keys.
const BY_TAG: &str = "T";

pub fn handle(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = QueryMessage::from(command)?;
    let settings = coordinator.settings();
    let by_unique_key = header.unique_key == Some(true);
    let asked_max = match by_unique_key {
        true => settings.unique_key_messages_max,
        false => u32::try_from(header.messages_max).unwrap_or(0),
    };
    let by_tag = !by_unique_key && header.index_type.as_deref() == Some(BY_TAG);
    let query = KeyQuery {
        topic: header.topic.into_owned(),
        key: header.key.into_owned(),
        kind: if by_tag { KeyKind::Tag } else { KeyKind::Key },
        begin_ms: header.begin_ms,
        end_ms: header.end_ms,
        messages_max: asked_max.min(settings.key_messages_max) as usize,
        bytes_max: ANSWER_BYTES_MAX,
    };
    let coordinator = Rc::clone(coordinator);
    Ok(Reply::later(async move {
        let _turn = coordinator.key_queries.wait().await;
        let store = Arc::clone(&coordinator.shared.store);
        match store.query_key(query).await {
            Ok(found) => answer(found),
            Err(error) => Answer::code(response::SYSTEM_ERROR, error.to_string()),
        }
    }))
}

fn answer(found: KeyAnswer) -> Answer {
    let is_empty = found.records.is_empty();
    if is_empty && found.is_partial {
        let remark = "the key index of older messages is being made; ask again later";
        return Answer::code(response::SYSTEM_BUSY, remark);
    }
    let answer = match is_empty {
        true => {
            let remark = "can not find message, maybe time range not correct";
            Answer::code(response::QUERY_NOT_FOUND, remark)
        }
        false => Answer::with_body(found.records.concat()),
    };
    // RocketMQ's zeros where nothing was found.
    let (last_ms, last_offset) = match is_empty {
        true => (0, 0),
        false => (found.last_ms, found.searched_from.0),
    };
    answer
        .field("indexLastUpdateTimestamp", last_ms)
        .field("indexLastUpdatePhyoffset", last_offset)
}

/// How many queries search at one time. The coordinator's core only.
pub struct Turns {
    free: Cell<usize>,
    freed: Notify,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            free: Cell::new(QUERIES_MAX),
            freed: Notify::new(),
        }
    }
}

impl Turns {
    async fn wait(&self) -> Turn<'_> {
        while self.free.get() == 0 {
            self.freed.notified().await;
        }
        self.free.set(self.free.get() - 1);
        Turn(self)
    }
}

struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        self.0.freed.notify();
    }
}
