//! The state of POP as the log has it, made again at the start from the last complete round on.

use std::io;
use std::sync::Arc;

use engine::{Queue, QueueOffset, ReadLimits, Store};
use protocol::record::views;

use super::entry::{self, Place};
use super::queue::Op;
use super::table::Table;
use crate::reading::{self, At};

const READ: ReadLimits = reading::stretch(64, 1 << 20);

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
        match reading::read(store, queue, QueueOffset(at), &READ, &mut records).await? {
            At::End => return Ok(replayed),
            At::Outside => at = at.clamp(queue.min_offset(), queue.max_offset()),
            At::Records(next) => {
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
        let mut read = 0;
        for view in views(records).map_while(Result::ok) {
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
