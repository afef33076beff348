//! Reading everything a broker has and holding it against what it promised.

use std::collections::HashSet;

use crate::client::Client;
use crate::ensure;
use crate::error::{Error, Result};
use crate::payload::Number;
use crate::promises::{Promises, Queue};

mod code {
    pub const FOUND: i32 = 0;
    pub const TOPIC_NOT_EXIST: i32 = 17;
    pub const NOT_FOUND: i32 = 19;
    pub const RETRY: i32 = 20;
    pub const OFFSET_MOVED: i32 = 21;
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub served: u64,
    pub promised: u64,
    /// Topics that were gone and had to be made again.
    pub topics_gone: u64,
}

/// Reads all queues of a topic. An error if anything served is wrong, out of place, twice there or out of order, if
/// there is a gap, or if something promised is missing.
pub fn read_back(
    client: &mut Client,
    topic: &str,
    queues: u32,
    promises: &Promises,
) -> Result<Counts> {
    let mut seen = HashSet::new();
    let mut counts = Counts::default();
    ensure!(
        promises.is_empty() || has_topic(client, topic)?,
        "TOPIC GONE: the broker does not know {topic}, of which {} messages were promised",
        promises.len()
    );
    for number in 0..queues {
        let queue = Queue {
            topic: topic.to_owned(),
            number,
        };
        let served = read_queue(client, &queue)?;
        let first = served.first().map_or(0, |(offset, _)| *offset);
        for (_, number) in &served {
            ensure!(seen.insert(*number), "{number:?} was served twice");
        }
        check_order(&queue, &served)?;
        for (offset, promised) in promises.0.get(&queue).into_iter().flatten() {
            counts.promised += 1;
            let at = offset.checked_sub(first).map(|at| at as usize);
            let found = at.and_then(|at| served.get(at));
            ensure!(
                found == Some(&(*offset, *promised)),
                "LOST: {queue:?} promised {promised:?} at {offset}, has {found:?}; it serves {first} to {}",
                first + served.len() as u64
            );
        }
        counts.served += served.len() as u64;
    }
    Ok(counts)
}

/// Whether the broker knows the topic.
pub fn has_topic(client: &mut Client, topic: &str) -> Result<bool> {
    let pulled = client
        .pull(topic, 0, 0)
        .map_err(Error::io(format!("pulling {topic}")))?;
    Ok(pulled.code != code::TOPIC_NOT_EXIST)
}

/// Every message of a queue with its offset, without a gap.
fn read_queue(client: &mut Client, queue: &Queue) -> Result<Vec<(u64, Number)>> {
    let mut served: Vec<(u64, Number)> = Vec::new();
    let mut next = 0;
    loop {
        let pulled = client
            .pull(&queue.topic, queue.number, next)
            .map_err(Error::io(format!("pulling {queue:?} at {next}")))?;
        match pulled.code {
            code::FOUND => {}
            code::TOPIC_NOT_EXIST if served.is_empty() => return Ok(served),
            code::NOT_FOUND | code::RETRY | code::OFFSET_MOVED => {
                // Before the first message it says where the queue begins, behind the last where it ends.
                if served.is_empty()
                    && pulled.min_offset > next
                    && pulled.min_offset < pulled.max_offset
                {
                    next = pulled.min_offset;
                    continue;
                }
                ensure!(
                    next >= pulled.max_offset,
                    "GAP: {queue:?} has nothing at {next} but goes up to {}: {}",
                    pulled.max_offset,
                    pulled.remark
                );
                return Ok(served);
            }
            other => {
                return Err(Error::Wrong(format!(
                    "pulling {queue:?} at {next} was refused: {other} {}",
                    pulled.remark
                )));
            }
        }
        for message in pulled.messages {
            ensure!(
                message.queue_offset == next,
                "GAP: {queue:?} serves {} at {next}",
                message.queue_offset
            );
            let Some(number) = message.number else {
                return Err(Error::Wrong(format!(
                    "WRONG BYTES: {queue:?} at {next}, log offset {}",
                    message.log_offset
                )));
            };
            served.push((next, number));
            next += 1;
        }
    }
}

/// A sender's messages are in the order it sent them.
fn check_order(queue: &Queue, served: &[(u64, Number)]) -> Result<()> {
    let mut last = std::collections::HashMap::new();
    for (offset, number) in served {
        let before = last.insert(number.sender(), *number);
        ensure!(
            before.is_none_or(|before| before < *number),
            "ORDER: {queue:?} has {number:?} at {offset} behind {before:?}"
        );
    }
    Ok(())
}
