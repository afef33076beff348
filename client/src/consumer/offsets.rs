//! How far a group has got in each queue: taken from the broker when a queue is taken over, told to it every few
//! seconds and when the queue is given up. In broadcasting a file of this machine stands for the broker.

use std::collections::HashMap;
use std::time::Duration;

use protocol::Value;
use protocol::body::queue::MessageQueue;
use protocol::code::{request, response};
use protocol::names;

use super::joining::ConsumeFrom;
use crate::connection::{Connection, refusal};
use crate::error::Result;
use crate::lock::Mutex;

/// Offsets that were reached and that the broker has not been told.
#[derive(Default)]
pub(super) struct Offsets {
    reached: Mutex<HashMap<MessageQueue, i64>>,
}

impl Offsets {
    /// Everything before `offset` is done with, unless that is no longer ours to tell. It is asked under the
    /// lock: nothing can come between a queue that is given up and the offset it is then [`set`](Offsets::set) to.
    pub fn reach(&self, queue: &MessageQueue, offset: i64, is_anothers: impl FnOnce() -> bool) {
        let mut reached = self.reached.lock();
        if is_anothers() {
            return;
        }
        match reached.get_mut(queue) {
            Some(known) => *known = offset.max(*known),
            None => drop(reached.insert(queue.clone(), offset)),
        }
    }

    /// From here on, also if it is further back.
    pub fn set(&self, queue: &MessageQueue, offset: i64) {
        self.reached.lock().insert(queue.clone(), offset);
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

/// The same, waiting until the broker has noted it.
pub(super) async fn commit_surely(
    connection: &Connection,
    group: &str,
    queue: &MessageQueue,
    offset: i64,
    limit: Duration,
) -> Result<()> {
    let fields = [
        ("consumerGroup", Value::Str(group)),
        ("topic", Value::Str(&queue.topic)),
        ("queueId", Value::I32(queue.queue_id)),
        ("commitOffset", Value::I64(offset)),
        ("bname", Value::Str(&queue.broker_name)),
    ];
    connection
        .demand(request::UPDATE_CONSUMER_OFFSET, &fields, b"", limit)
        .await?;
    Ok(())
}

/// Where a group begins in a queue it has no offset in.
pub(super) async fn start(
    connection: &Connection,
    from: ConsumeFrom,
    queue: &MessageQueue,
    limit: Duration,
) -> Result<i64> {
    match from {
        // What failed before we came must not be skipped.
        _ if names::is_retry_topic(&queue.topic) => edge(connection, queue, false, limit).await,
        ConsumeFrom::First => edge(connection, queue, false, limit).await,
        ConsumeFrom::Last => edge(connection, queue, true, limit).await,
        ConsumeFrom::Timestamp(time_ms) => at_time(connection, queue, time_ms, limit).await,
    }
}

/// The first offset of a queue, or the one behind the last.
pub(super) async fn edge(
    connection: &Connection,
    queue: &MessageQueue,
    end: bool,
    limit: Duration,
) -> Result<i64> {
    let code = match end {
        true => request::GET_MAX_OFFSET,
        false => request::GET_MIN_OFFSET,
    };
    let answer = connection.demand(code, &place(queue), b"", limit).await?;
    answer.i64("offset", connection.address())
}

/// The first message stored at or after a time; behind the last message if there is none.
pub(super) async fn at_time(
    connection: &Connection,
    queue: &MessageQueue,
    time_ms: i64,
    limit: Duration,
) -> Result<i64> {
    let mut fields = place(queue).to_vec();
    fields.push(("timestamp", Value::I64(time_ms)));
    let code = request::SEARCH_OFFSET_BY_TIMESTAMP;
    let answer = connection.demand(code, &fields, b"", limit).await?;
    answer.i64("offset", connection.address())
}

/// When the oldest message of a queue was stored, in milliseconds.
pub(super) async fn earliest_ms(
    connection: &Connection,
    queue: &MessageQueue,
    limit: Duration,
) -> Result<i64> {
    let code = request::GET_EARLIEST_MSG_STORETIME;
    let answer = connection.demand(code, &place(queue), b"", limit).await?;
    answer.i64("timestamp", connection.address())
}

pub(super) async fn committed(
    connection: &Connection,
    group: &str,
    queue: &MessageQueue,
    limit: Duration,
) -> Result<Option<i64>> {
    let mut fields = place(queue).to_vec();
    fields.push(("consumerGroup", Value::Str(group)));
    let code = request::QUERY_CONSUMER_OFFSET;
    let answer = connection.call(code, &fields, b"", limit).await?;
    match answer.command().code {
        response::SUCCESS => answer.i64("offset", connection.address()).map(Some),
        response::QUERY_NOT_FOUND => Ok(None),
        _ => Err(refusal(&answer.command())),
    }
}

fn place(queue: &MessageQueue) -> [(&'static str, Value<'_>); 3] {
    [
        ("topic", Value::Str(&queue.topic)),
        ("queueId", Value::I32(queue.queue_id)),
        ("bname", Value::Str(&queue.broker_name)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_goes_back_only_when_it_is_set_and_is_told_once() {
        let (offsets, queue) = (Offsets::default(), MessageQueue::default());
        offsets.reach(&queue, 7, || false);
        offsets.reach(&queue, 5, || false);
        assert_eq!(offsets.take(Some(&queue)), [(queue.clone(), 7)]);
        assert!(offsets.take(None).is_empty());
        offsets.reach(&queue, 9, || false);
        offsets.set(&queue, 3);
        offsets.reach(&queue, 11, || true);
        assert_eq!(offsets.take(None), [(queue, 3)]);
    }
}
