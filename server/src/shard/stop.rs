//! The orderly end of a shard: what was read is answered, what is queued is sent, then every connection is closed.

use std::rc::Rc;
use std::time::Duration;

use reactor::mailbox::Reply;

use crate::shard::Shard;

/// How long the end may wait for the writer, and then for slow peers.
const ANSWERS_WAIT_MAX: Duration = Duration::from_secs(5);
const FLUSH_WAIT_MAX: Duration = Duration::from_secs(1);

pub async fn run(shard: Rc<Shard>, reply: Reply<()>) {
    shard.stopping.set(true);
    // Their clients ask again elsewhere once the connection is closed.
    drop(shard.polls.drain());
    if reactor::timeout(ANSWERS_WAIT_MAX, shard.outgoing.drained())
        .await
        .is_err()
    {
        tracing::warn!(
            shard = shard.number(),
            batches = shard.outgoing.in_flight(),
            "stopping without the answers to what is still with the writer"
        );
    }
    let connections = shard.connections.all();
    for connection in &connections {
        connection.outbox().close_after_flush();
    }
    let all_flushed = async {
        for connection in &connections {
            connection.outbox().closed().await;
        }
    };
    if reactor::timeout(FLUSH_WAIT_MAX, all_flushed).await.is_err() {
        for connection in &connections {
            connection.socket().shutdown();
        }
    }
    reply.send(());
}
