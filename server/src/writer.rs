//! The writer core's task: everything that waits is appended, published at once, and handed back to where it came from.
//!
//! It owns the store's `Writer`. Where senders wait for the disk, batches wait in `held`, and another task of this core hands
//! them back. Both wait for shards only: their mailbox tasks never wait for the writer.

mod held;
mod waiting;

use std::rc::Rc;
use std::sync::Arc;

use engine::{Batch, QueueNo, ReleaseAt, Writer};
use reactor::mailbox::{Receiver, Reply, Sender, TrySendError};

use crate::config::Settings;
use crate::messages::{ToShard, ToWriter, WRITER_INBOX_BATCHES_MAX};
use crate::published::Published;
use held::Held;

/// Runs until it is told to stop, or until nobody is left who could send.
pub async fn run(
    mut writer: Writer,
    mut inbox: Receiver<ToWriter>,
    shards: Vec<Sender<ToShard>>,
    settings: Published<Arc<Settings>>,
) {
    let shards = Rc::new(shards);
    let held = match writer.store().release_at() {
        ReleaseAt::Written => None,
        _ => Some(Held::start(&writer, Rc::clone(&shards), settings)),
    };
    let mut arrived = Vec::with_capacity(WRITER_INBOX_BATCHES_MAX);
    let mut turn = Turn::default();
    let mut stop = None;
    while stop.is_none()
        && inbox
            .recv_many(&mut arrived, WRITER_INBOX_BATCHES_MAX)
            .await
            > 0
    {
        for message in arrived.drain(..) {
            let (mut batch, reply) = match message {
                ToWriter::Append(batch) => (batch, None),
                ToWriter::AppendInternal { batch, reply } => (batch, Some(reply)),
                ToWriter::Stop(reply) => {
                    stop = Some(reply);
                    continue;
                }
            };
            writer.append(&mut batch).await;
            let back = Back { batch, reply };
            match &held {
                Some(held) if back.waits() => held.push(back, writer.appended()),
                _ => turn.laid.push(back),
            }
        }
        // Readers see the messages before their senders are told.
        writer.publish();
        writer.take_wakes(&mut turn.wakes);
        wake_parked(&mut turn.wakes, &shards).await;
        for back in turn.laid.drain(..) {
            back.give(&shards).await;
        }
        if let Some(held) = &held {
            // What was appended while the log was poisoned must not wait for a release that never comes.
            held.settle().await;
            held.room().await;
        }
    }
    if let Some(held) = held {
        held.all_handed_back().await;
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
    laid: Vec<Back>,
    wakes: Vec<(usize, QueueNo)>,
}

/// An appended batch, and where it goes back to: its shard, unless there is a reply.
struct Back {
    batch: Box<Batch>,
    reply: Option<Reply<Box<Batch>>>,
}

impl Back {
    /// Only those who want to wait for the disk are held, and only if anything of theirs is on the way there.
    fn waits(&self) -> bool {
        self.batch.wait && self.batch.has_taken()
    }

    async fn give(self, shards: &[Sender<ToShard>]) {
        match self.reply {
            Some(reply) => {
                // Counted where the coordinator's neighbour counts.
                tell(&shards[0], ToShard::Stored(stored(&self.batch))).await;
                reply.send(self.batch);
            }
            None => {
                let shard = &shards[usize::from(self.batch.shard)];
                tell(shard, ToShard::Appended(self.batch)).await;
            }
        }
    }
}

fn stored(batch: &Batch) -> Vec<(QueueNo, u32)> {
    let items = batch.items().iter().filter(|item| item.error.is_none());
    items
        .map(|item| (item.queue, item.record_bytes()))
        .collect()
}

async fn wake_parked(wakes: &mut Vec<(usize, QueueNo)>, shards: &[Sender<ToShard>]) {
    for (shard, queue) in wakes.drain(..) {
        tell(&shards[shard], ToShard::Wake(queue)).await;
    }
}

/// A shard that is gone has nobody left to tell.
async fn tell(shard: &Sender<ToShard>, message: ToShard) {
    if let Err(TrySendError::Full(message)) = shard.try_send(message) {
        let _ = shard.send(message).await;
    }
}
