//! Pulls of what is not in memory: read by a task of their own, so that no core waits for a disk.

use std::cell::Cell;
use std::rc::Rc;

use engine::Cold;
use reactor::Notify;

use super::look::{self, Outcome};
use super::{Pull, answer};
use crate::shard::{Connection, Shard};

/// Reads in flight of one shard; further ones wait for their turn.
const OF_SHARD_MAX: usize = 32;
/// And of one connection: a client with many queues far behind leaves turns to the others.
const OF_CONNECTION_MAX: usize = 8;
/// A connection with so many pulls that wait for a turn, or for the peer to take what it asked for, is not read.
const WAITING_MAX: usize = 1_000;

/// How many cold reads are running, and how many there are with those that wait. Lives on one core.
pub struct ColdReads {
    running: Cell<usize>,
    running_max: usize,
    ended: Notify,
    all: Cell<usize>,
    left: Notify,
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
            all: Cell::new(0),
            left: Notify::new(),
        }
    }

    /// Waits until there is room for more. For the one task that reads the connection.
    pub async fn room(&self) {
        while self.all.get() >= WAITING_MAX {
            self.left.notified().await;
        }
    }

    fn enter(&self) {
        self.all.set(self.all.get() + 1);
    }

    fn leave(&self) {
        let left = self.all.get().checked_sub(1);
        self.all.set(left.expect("who leaves has entered"));
        self.left.notify();
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

/// A cold pull of a connection, from its request to its answer, however that ends.
struct Entered(Rc<Connection>);

impl Entered {
    fn new(connection: &Rc<Connection>) -> Self {
        connection.cold_reads.enter();
        Self(Rc::clone(connection))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.cold_reads.leave();
    }
}

pub fn start(shard: &Rc<Shard>, connection: &Rc<Connection>, pull: Pull, cold: Cold) {
    let read = read(Rc::clone(shard), Entered::new(connection), pull, cold);
    reactor::spawn("cold pull", read);
}

async fn read(shard: Rc<Shard>, entered: Entered, pull: Pull, cold: Cold) {
    let connection = &entered.0;
    let queued_max = shard.connections.outbox_bytes_max();
    connection.outbox().below(queued_max).await;
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
        Ok(read) => match look::conclude(&shard, connection, pull, read, &mut gather) {
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use reactor::sim::World;

    use super::*;

    #[test]
    fn a_connection_with_too_many_waiting_pulls_is_read_on_when_one_has_ended() {
        let mut world = World::new(1);
        let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
        world.block_on(node, async {
            let reads = Rc::new(ColdReads::of_connection());
            (1..WAITING_MAX).for_each(|_| reads.enter());
            reads.room().await;
            reads.enter();
            let read_on = Rc::new(Cell::new(false));
            let (waiting, done) = (Rc::clone(&reads), Rc::clone(&read_on));
            let reader = reactor::spawn("reader", async move {
                waiting.room().await;
                done.set(true);
            });
            reactor::yield_now().await;
            assert!(!read_on.get());
            reads.leave();
            reader.await;
            assert!(read_on.get());
        });
    }
}
