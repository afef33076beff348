//! Copies of the messages in a queue that the broker itself reads (delays, transactions, ops of POP), hot or cold.

use std::io;
use std::sync::Arc;

use engine::{LogOffset, Queue, QueueOffset, Read, ReadLimits, Store};
use reactor::{Gather, is_of_medium};

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

/// So much at once, wherever it lies. Nobody shares the answer with clients, for whom cold messages are counted closer.
pub const fn stretch(messages_max: u32, bytes_max: u32) -> ReadLimits {
    ReadLimits {
        messages_max,
        bytes_max,
        memory_messages_max: messages_max,
        memory_bytes_max: bytes_max,
        disk_messages_max: messages_max,
        disk_bytes_max: bytes_max,
        scan_max: messages_max,
    }
}

const ONE: ReadLimits = stretch(1, 1);

/// The record of the message at an offset, of which the place is known. None: it is gone or damaged, or lies on a sector that
/// has been bad for so long that nobody waits for it any more.
pub async fn one(
    store: &Arc<Store>,
    queue: &Queue,
    at: QueueOffset,
    place: LogOffset,
) -> io::Result<Option<Vec<u8>>> {
    match store.record_at(place).await {
        Err(error) if is_of_medium(&error) => {}
        read => return read,
    }
    // As consumers read it, who are let past bad sectors in the end.
    let mut record = Vec::new();
    read(store, queue, at, &ONE, &mut record).await?;
    Ok((!record.is_empty()).then_some(record))
}

/// Replaces what is in `records` by the next messages.
pub async fn read(
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
