//! The state of POP as the log has it, made again at the start from the last complete round on.

use std::io;
use std::sync::Arc;

use engine::{Queue, QueueOffset, Read, ReadLimits, Store};
use protocol::record::View;
use reactor::Gather;

use super::entry::{self, Place};
use super::queue::Op;
use super::table::Table;

const READ_MESSAGES_MAX: u32 = 64;
const READ_BYTES_MAX: u32 = 1 << 20;

/// What was found at a place of the log of ops.
enum At {
    Next(u64),
    End,
    /// The queue lies elsewhere.
    Outside,
}

/// What the log says.
pub struct Replayed {
    pub table: Table,
    /// Nothing was damaged. Otherwise it is not known what is missing.
    pub is_whole: bool,
}

/// Reads everything from `from` on.
pub async fn run(store: &Arc<Store>, queue: &Queue, from: u64) -> io::Result<Replayed> {
    let mut replayed = Replayed {
        table: Table::default(),
        is_whole: true,
    };
    let mut at = from.clamp(queue.min_offset(), queue.max_offset());
    let mut records = Vec::new();
    loop {
        match read(store, queue, QueueOffset(at), &mut records).await? {
            At::End => return Ok(replayed),
            At::Outside => at = at.clamp(queue.min_offset(), queue.max_offset()),
            At::Next(next) => {
                let read = replayed.apply(store, &records);
                // Damaged messages are passed over by the store.
                replayed.is_whole &= read == next - at;
                at = next;
            }
        }
    }
}

impl Replayed {
    /// How many messages were read.
    fn apply(&mut self, store: &Store, records: &[u8]) -> u64 {
        let mut rest = records;
        let mut read = 0;
        while let Ok(view) = View::parse(rest) {
            rest = &rest[view.bytes.len()..];
            read += 1;
            // RocketMQ had the store since: it went on from the consumer offsets.
            if view.log_offset < store.rocketmqs_until().0 {
                continue;
            }
            let each = |place: &Place, op: Op| one(store, &mut self.table, place, &op);
            self.is_whole &= entry::read(view.body, each).is_ok();
        }
        read
    }
}

fn one(store: &Store, table: &mut Table, place: &Place, op: &Op) {
    if *op != Op::Forget && table.at(place).is_none() {
        let queue = store.queue(&place.topic, place.queue_id);
        table.insert(place, queue, 0);
    }
    table.apply(place, op);
}

async fn read(
    store: &Arc<Store>,
    queue: &Queue,
    at: QueueOffset,
    records: &mut Vec<u8>,
) -> io::Result<At> {
    records.clear();
    let limits = ReadLimits {
        messages_max: READ_MESSAGES_MAX,
        bytes_max: READ_BYTES_MAX,
        memory_messages_max: READ_MESSAGES_MAX,
        memory_bytes_max: READ_BYTES_MAX,
        disk_messages_max: READ_MESSAGES_MAX,
        disk_bytes_max: READ_BYTES_MAX,
        ..ReadLimits::default()
    };
    let mut gather = Gather::default();
    let mut read = store.read(queue, at, &limits, |_| true, &mut gather);
    if let Read::Cold(cold) = read {
        read = store.fetch(cold, |_| true, &mut gather).await?;
    }
    Ok(match read {
        Read::Found(found) => {
            gather.copy_slices_to(records);
            At::Next(found.next.0)
        }
        Read::NoneMatched { next } => At::Next(next.0),
        Read::Empty | Read::Cold(_) => At::End,
        Read::BelowStart { .. } | Read::BeyondEnd { .. } => At::Outside,
    })
}
