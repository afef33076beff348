//! Pulls of what is not in memory: read by a task of their own, so that no core waits for a disk.

use std::cell::Cell;
use std::rc::Rc;

use engine::Cold;
use reactor::Notify;

use super::look::{self, Outcome};
use super::{Pull, answer};
use crate::net::connection::OUTBOX_BYTES_MAX;
use crate::shard::{Connection, Shard};

/// Reads in flight of one shard; further ones wait for their turn.
const COLD_READS_MAX: usize = 32;

/// How many cold reads are running. Lives on one core.
#[derive(Default)]
pub struct ColdReads {
    running: Cell<usize>,
    ended: Notify,
}

impl ColdReads {
    async fn turn(&self) -> Turn<'_> {
        while self.running.get() >= COLD_READS_MAX {
            self.ended.notified().await;
        }
        self.running.set(self.running.get() + 1);
        Turn(self)
    }
}

struct Turn<'a>(&'a ColdReads);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0.ended.notify();
    }
}

pub fn start(shard: &Rc<Shard>, connection: &Rc<Connection>, pull: Pull, cold: Cold) {
    let read = read(Rc::clone(shard), Rc::clone(connection), pull, cold);
    reactor::spawn("cold pull", read);
}

async fn read(shard: Rc<Shard>, connection: Rc<Connection>, pull: Pull, cold: Cold) {
    connection.outbox().below(OUTBOX_BYTES_MAX).await;
    let turn = shard.cold_reads.turn().await;
    if connection.outbox().is_closed() {
        return;
    }
    let mut gather = connection.outbox().recycle_gather();
    let accept = |tag_hash| pull.filter.accepts(tag_hash);
    let fetched = shard.shared.store.fetch(cold, accept, &mut gather).await;
    drop(turn);
    match fetched {
        Ok(read) => match look::conclude(&shard, &connection, pull, read, &mut gather) {
            Outcome::Done => {}
            Outcome::Nothing(pull) => answer::nothing(&shard, &pull),
        },
        Err(error) => {
            let (topic, queue) = (pull.topic.name(), pull.queue.id());
            tracing::error!(%topic, queue, offset = pull.offset, %error, "a cold read failed");
            answer::failed(&shard, &pull);
        }
    }
    shard.connections.commit();
}
