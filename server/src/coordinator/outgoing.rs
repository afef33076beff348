//! What the coordinator has to say to connections, until the shards have it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use reactor::mailbox::Sender;

use crate::messages::{ConnId, ToShard};

/// Lives on the coordinator's core. Filled while tables are borrowed, emptied when nothing is.
pub struct Outgoing {
    shards: Vec<Sender<ToShard>>,
    queued: RefCell<VecDeque<(u16, ToShard)>>,
    opaque: Cell<i32>,
}

impl Outgoing {
    pub fn new(shards: Vec<Sender<ToShard>>) -> Self {
        Self {
            shards,
            queued: RefCell::default(),
            opaque: Cell::new(0),
        }
    }

    /// For the next request of ours.
    pub fn next_opaque(&self) -> i32 {
        let opaque = self.opaque.get();
        self.opaque.set(opaque.wrapping_add(1));
        opaque
    }

    /// The whole frame of a request of ours, length included.
    pub fn tell(&self, conn: ConnId, frame: Vec<u8>) {
        self.deliver(conn, frame, false);
    }

    /// The same of the answer to a request of the connection.
    pub fn answer(&self, conn: ConnId, frame: Vec<u8>) {
        self.deliver(conn, frame, true);
    }

    fn deliver(&self, conn: ConnId, frames: Vec<u8>, is_answer: bool) {
        let message = ToShard::Deliver {
            conn,
            frames,
            is_answer,
        };
        self.push(conn.shard, message);
    }

    pub fn close(&self, conn: ConnId) {
        self.push(conn.shard, ToShard::Close { conn });
    }

    pub fn push(&self, shard: u16, message: ToShard) {
        self.queued.borrow_mut().push_back((shard, message));
    }

    /// Waits for shards only, and they never wait for the coordinator's core.
    pub async fn send_all(&self) {
        loop {
            let next = self.queued.borrow_mut().pop_front();
            let Some((shard, message)) = next else {
                return;
            };
            // A shard that is gone has no connections left to tell.
            drop(self.shards[usize::from(shard)].send(message).await);
        }
    }
}
