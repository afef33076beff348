//! The writer core's task: everything that waits is appended, published at once, and handed back to where it came from.
//!
//! It owns the store's `Writer` and nothing else. It waits for shards only: their mailbox tasks never wait for it.

use engine::{Batch, QueueNo, Writer};
use reactor::mailbox::{Receiver, Reply, Sender, TrySendError};

use crate::messages::{ToShard, ToWriter, WRITER_INBOX_BATCHES_MAX};

/// Runs until it is told to stop, or until nobody is left who could send.
pub async fn run(mut writer: Writer, mut inbox: Receiver<ToWriter>, shards: Vec<Sender<ToShard>>) {
    let mut waiting = Vec::with_capacity(WRITER_INBOX_BATCHES_MAX);
    let mut turn = Turn::default();
    let mut stop = None;
    while stop.is_none()
        && inbox
            .recv_many(&mut waiting, WRITER_INBOX_BATCHES_MAX)
            .await
            > 0
    {
        for message in waiting.drain(..) {
            match message {
                ToWriter::Append(mut batch) => {
                    writer.append(&mut batch).await;
                    turn.to_shards.push(batch);
                }
                ToWriter::AppendInternal { mut batch, reply } => {
                    writer.append(&mut batch).await;
                    turn.to_internal.push((batch, reply));
                }
                ToWriter::Stop(reply) => stop = Some(reply),
            }
        }
        // Readers see the messages before their senders are told.
        writer.publish();
        turn.wake_parked(&mut writer, &shards).await;
        turn.hand_back(&shards).await;
    }
    let closed = writer.close().await;
    if let Err(error) = &closed {
        tracing::error!(%error, "the store was not closed cleanly");
    }
    if let Some(reply) = stop {
        reply.send(closed);
    }
}

/// What one turn leaves to be told. Kept from turn to turn for its memory.
#[derive(Default)]
struct Turn {
    #[allow(clippy::vec_box)] // they travel in their boxes
    to_shards: Vec<Box<Batch>>,
    to_internal: Vec<(Box<Batch>, Reply<Box<Batch>>)>,
    wakes: Vec<(usize, QueueNo)>,
}

impl Turn {
    async fn wake_parked(&mut self, writer: &mut Writer, shards: &[Sender<ToShard>]) {
        writer.take_wakes(&mut self.wakes);
        for (shard, queue) in self.wakes.drain(..) {
            tell(&shards[shard], ToShard::Wake(queue)).await;
        }
    }

    async fn hand_back(&mut self, shards: &[Sender<ToShard>]) {
        for batch in self.to_shards.drain(..) {
            let shard = &shards[usize::from(batch.shard)];
            tell(shard, ToShard::Appended(batch)).await;
        }
        for (batch, reply) in self.to_internal.drain(..) {
            reply.send(batch);
        }
    }
}

/// A shard that is gone has nobody left to tell.
async fn tell(shard: &Sender<ToShard>, message: ToShard) {
    if let Err(TrySendError::Full(message)) = shard.try_send(message) {
        let _ = shard.send(message).await;
    }
}
