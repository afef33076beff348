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
const OF_SHARD_MAX: usize = 32;
/// And of one connection: a client with many queues far behind leaves turns to the others.
const OF_CONNECTION_MAX: usize = 8;

/// How many cold reads are running. Lives on one core.
pub struct ColdReads {
    running: Cell<usize>,
    running_max: usize,
    ended: Notify,
}

impl ColdReads {
    pub fn of_shard() -> Self {
        Self::new(OF_SHARD_MAX)
    }

    pub fn of_connection() -> Self {
        Self::new(OF_CONNECTION_MAX)
    }

    fn new(running_max: usize) -> Self {
        Self {
            running: Cell::new(0),
            running_max,
            ended: Notify::new(),
        }
    }

    pub async fn turn(&self) -> Turn<'_> {
        while self.running.get() >= self.running_max {
            self.ended.notified().await;
        }
        self.running.set(self.running.get() + 1);
        Turn(self)
    }
}

pub struct Turn<'a>(&'a ColdReads);

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
    let of_connection = connection.cold_reads.turn().await;
    let turn = shard.cold_reads.turn().await;
    if connection.outbox().is_closed() {
        return;
    }
    let mut gather = connection.outbox().recycle_gather();
    let fetched = shard
        .shared
        .store
        .fetch(cold, pull.wanted.filter(), &mut gather)
        .await;
    drop((turn, of_connection));
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
