//! How far a group has got in each queue: taken from the broker when a queue is taken over, told to it every few
//! seconds and when the queue is given up. In broadcasting nobody is told.

use std::collections::HashMap;

use protocol::Value;
use protocol::body::heartbeat::{ConsumeFromWhere, MessageModel};
use protocol::body::queue::MessageQueue;
use protocol::code::{request, response};
use protocol::names;

use super::Options;
use crate::connection::{Connection, refusal};
use crate::error::{Error, Result};
use crate::lock::Mutex;

/// Offsets that were reached and that the broker has not been told.
#[derive(Default)]
pub(super) struct Offsets {
    reached: Mutex<HashMap<MessageQueue, i64>>,
}

impl Offsets {
    /// Everything before `offset` is done with.
    pub fn reach(&self, queue: &MessageQueue, offset: i64) {
        let mut reached = self.reached.lock();
        match reached.get_mut(queue) {
            Some(known) => *known = offset.max(*known),
            None => drop(reached.insert(queue.clone(), offset)),
        }
    }

    /// What is to be told, of one queue or of all; nothing is told twice.
    pub fn take(&self, only: Option<&MessageQueue>) -> Vec<(MessageQueue, i64)> {
        let mut reached = self.reached.lock();
        match only {
            Some(queue) => reached.remove_entry(queue).into_iter().collect(),
            None => reached.drain().collect(),
        }
    }
}

pub(super) async fn commit(
    connection: &Connection,
    group: &str,
    queue: &MessageQueue,
    offset: i64,
) -> Result<()> {
    let fields = [
        ("consumerGroup", Value::Str(group)),
        ("topic", Value::Str(&queue.topic)),
        ("queueId", Value::I32(queue.queue_id)),
        ("commitOffset", Value::I64(offset)),
        ("bname", Value::Str(&queue.broker_name)),
    ];
    connection
        .tell(request::UPDATE_CONSUMER_OFFSET, &fields, b"")
        .await
}

/// Where to begin in a queue that was just taken over.
pub(super) async fn start(
    connection: &Connection,
    options: &Options,
    queue: &MessageQueue,
    limit: std::time::Duration,
) -> Result<i64> {
    if options.model == MessageModel::Clustering
        && let Some(offset) = committed(connection, &options.group, queue, limit).await?
    {
        return Ok(offset);
    }
    // What failed before we came must not be skipped.
    let first =
        options.from == ConsumeFromWhere::FirstOffset || names::is_retry_topic(&queue.topic);
    let code = if first {
        request::GET_MIN_OFFSET
    } else {
        request::GET_MAX_OFFSET
    };
    let fields = [
        ("topic", Value::Str(&queue.topic)),
        ("queueId", Value::I32(queue.queue_id)),
        ("bname", Value::Str(&queue.broker_name)),
    ];
    let answer = connection.demand(code, &fields, b"", limit).await?;
    offset_of(&answer, queue)
}

async fn committed(
    connection: &Connection,
    group: &str,
    queue: &MessageQueue,
    limit: std::time::Duration,
) -> Result<Option<i64>> {
    let fields = [
        ("consumerGroup", Value::Str(group)),
        ("topic", Value::Str(&queue.topic)),
        ("queueId", Value::I32(queue.queue_id)),
        ("bname", Value::Str(&queue.broker_name)),
    ];
    let answer = connection
        .call(request::QUERY_CONSUMER_OFFSET, &fields, b"", limit)
        .await?;
    match answer.command().code {
        response::SUCCESS => offset_of(&answer, queue).map(Some),
        response::QUERY_NOT_FOUND => Ok(None),
        _ => Err(refusal(&answer.command())),
    }
}

fn offset_of(answer: &crate::connection::Answer, queue: &MessageQueue) -> Result<i64> {
    answer
        .command()
        .fields
        .required_i64("offset")
        .map_err(|error| Error::Broken {
            address: queue.broker_name.clone(),
            what: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_never_goes_back_and_is_told_once() {
        let (offsets, queue) = (Offsets::default(), MessageQueue::default());
        offsets.reach(&queue, 7);
        offsets.reach(&queue, 5);
        assert_eq!(offsets.take(Some(&queue)), [(queue.clone(), 7)]);
        assert!(offsets.take(None).is_empty());
    }
}
