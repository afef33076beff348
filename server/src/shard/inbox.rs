//! What other cores tell a shard, handled in order. Nothing here waits for a mailbox.

use std::rc::Rc;

use engine::QueueNo;
use reactor::mailbox::Receiver;

use crate::handlers::{pull, send};
use crate::messages::ToShard;
use crate::net::connection;
use crate::shard::{Shard, stop};

/// Taken at once; answers of all of them leave together.
const MESSAGES_PER_TURN_MAX: usize = 256;

pub async fn run(shard: Rc<Shard>, mut inbox: Receiver<ToShard>) {
    let mut messages = Vec::with_capacity(MESSAGES_PER_TURN_MAX);
    while inbox.recv_many(&mut messages, MESSAGES_PER_TURN_MAX).await > 0 {
        shard.refresh();
        for message in messages.drain(..) {
            handle(&shard, message);
        }
        shard.connections.commit();
    }
}

fn handle(shard: &Rc<Shard>, message: ToShard) {
    match message {
        ToShard::Appended(batch) => send::acknowledge(shard, batch),
        ToShard::Wake(queue) => pull::wake(shard, queue),
        ToShard::Reset(queue) => pull::tell_of_reset(shard, queue),
        ToShard::Deliver {
            conn,
            frames,
            is_answer,
        } => {
            shard
                .connections
                .reply(conn, |queued| queued.extend_from_slice(&frames));
            if is_answer && let Some(connection) = shard.connections.get(conn) {
                connection.answered();
            }
        }
        ToShard::Close { conn } => {
            if let Some(connection) = shard.connections.get(conn) {
                connection.outbox().close_after_flush();
            }
        }
        ToShard::Stored(records) => count(shard, &records),
        ToShard::Accepted(socket) => connection::start(shard, socket.attach()),
        ToShard::Stop(reply) => {
            reactor::spawn("shard stop", stop::run(Rc::clone(shard), reply));
        }
    }
}

fn count(shard: &Shard, records: &[(QueueNo, u32)]) {
    let stats = shard.stats();
    for (queue, bytes) in records {
        let bytes = u64::from(*bytes);
        stats.put_messages.add(1);
        stats.put_bytes.add(bytes);
        shard.tally.put(*queue, bytes, None);
    }
}
