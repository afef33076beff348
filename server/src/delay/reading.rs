//! Copies of a delay queue's messages, hot or cold.

use std::io;
use std::sync::Arc;

use engine::{Queue, QueueOffset, Read, ReadLimits, Store};
use reactor::Gather;

const READ_MESSAGES_MAX: u32 = 32;
const READ_BYTES_MAX: u32 = 256 << 10;

/// What was found at an offset.
#[derive(Debug, PartialEq, Eq)]
pub enum At {
    /// Records, and where to go on.
    Records(u64),
    /// Nothing yet.
    End,
    /// The queue lies elsewhere.
    Outside,
}

/// Replaces what is in `records` by the next messages.
pub async fn read(
    store: &Arc<Store>,
    queue: &Queue,
    at: QueueOffset,
    records: &mut Vec<u8>,
) -> io::Result<At> {
    let limits = ReadLimits {
        messages_max: READ_MESSAGES_MAX,
        bytes_max: READ_BYTES_MAX,
        ..ReadLimits::default()
    };
    read_up_to(store, queue, at, &limits, records).await
}

/// The same for those who read long stretches.
pub async fn read_up_to(
    store: &Arc<Store>,
    queue: &Queue,
    at: QueueOffset,
    limits: &ReadLimits,
    records: &mut Vec<u8>,
) -> io::Result<At> {
    records.clear();
    let mut gather = Gather::default();
    let mut read = store.read(queue, at, limits, |_| true, &mut gather);
    if let Read::Cold(cold) = read {
        read = store.fetch(cold, |_| true, &mut gather).await?;
    }
    Ok(match read {
        Read::Found(found) => {
            gather.copy_slices_to(records);
            At::Records(found.next.0)
        }
        Read::NoneMatched { next } => At::Records(next.0),
        Read::Empty | Read::Cold(_) => At::End,
        Read::BelowStart { .. } | Read::BeyondEnd { .. } => At::Outside,
    })
}
