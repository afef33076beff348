//! Appends of the broker itself: delayed messages that are due, retry copies. They take the same way as a client's send,
//! through the writer's mailbox, and come back to the task that made them.

use engine::{AppendError, Batch, Queue};
use protocol::record::Draft;
use reactor::mailbox::{Sender, oneshot};

use crate::messages::ToWriter;

/// Internal batches belong to no shard.
const NO_SHARD: u16 = u16::MAX;

/// Where a message was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub queue_offset: u64,
    pub log_offset: u64,
    pub store_ms: i64,
}

/// Why it was not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAppended {
    #[error(transparent)]
    Refused(AppendError),
    #[error("its topic or its properties are too long for a record")]
    TooLong,
    #[error("the store is closing")]
    Closing,
}

/// One task's way to the writer. Lives on one core; fill it with `add`, then `append` what was added.
pub struct Appender {
    writer: Sender<ToWriter>,
    batch: Option<Box<Batch>>,
    /// Which of those that were added no record can hold: there is nothing of them in the batch.
    too_long: Vec<usize>,
    is_promised: bool,
    is_whole: bool,
}

impl Appender {
    pub fn new(writer: Sender<ToWriter>) -> Self {
        Self {
            writer,
            batch: None,
            too_long: Vec::new(),
            is_promised: false,
            is_whole: false,
        }
    }

    /// For messages that were promised before: they are taken even when the disk is nearly full.
    pub fn promised(writer: Sender<ToWriter>) -> Self {
        Self {
            is_promised: true,
            ..Self::new(writer)
        }
    }

    /// What is appended together is taken together, or none of it.
    pub fn whole(self) -> Self {
        Self {
            is_whole: true,
            ..self
        }
    }

    /// Adds a message to what the next `append` takes along. Its properties may have come from a client, or from another
    /// store, and have grown since: one that does not fit is refused then, and costs no more than that.
    pub fn add(&mut self, queue: &Queue, tag_hash: i32, draft: &Draft<'_>) {
        if !draft.fits() {
            self.too_long.push(self.added());
            return;
        }
        let batch = self
            .batch
            .get_or_insert_with(|| Box::new(Batch::new(NO_SHARD)));
        batch.is_promised = self.is_promised;
        batch.is_whole = self.is_whole;
        let token = batch.len() as u64;
        batch.push(queue, tag_hash, token, |record| draft.append_to(record));
    }

    /// What was added and not appended stays out.
    pub fn forget(&mut self) {
        if let Some(batch) = &mut self.batch {
            batch.clear();
        }
        self.too_long.clear();
    }

    fn added(&self) -> usize {
        self.batch.as_ref().map_or(0, |batch| batch.len()) + self.too_long.len()
    }

    pub fn bytes_len(&self) -> usize {
        self.batch.as_ref().map_or(0, |batch| batch.bytes_len())
    }

    /// Appends what was added, in order, and says what became of each once that is as safe as this store makes it:
    /// what the broker does next (moving on, answering a consumer) must not outlive the message.
    pub async fn append(&mut self) -> Vec<Result<Appended, NotAppended>> {
        if self.is_whole && !self.too_long.is_empty() {
            let added = self.added();
            self.forget();
            return vec![Err(NotAppended::TooLong); added];
        }
        let too_long = std::mem::take(&mut self.too_long);
        let mut results = self.append_batch().await;
        for at in too_long {
            results.insert(at, Err(NotAppended::TooLong));
        }
        results
    }

    async fn append_batch(&mut self) -> Vec<Result<Appended, NotAppended>> {
        let Some(batch) = self.batch.take() else {
            return Vec::new();
        };
        let added = batch.len();
        let (reply, answer) = oneshot();
        let message = ToWriter::AppendInternal { batch, reply };
        let back = match self.writer.send(message).await {
            Ok(()) => answer.await,
            Err(_) => None,
        };
        let Some(mut batch) = back else {
            return vec![Err(NotAppended::Closing); added];
        };
        let results = batch.items().iter().map(|item| match &item.error {
            Some(error) => Err(NotAppended::Refused(*error)),
            None => Ok(Appended {
                queue_offset: item.queue_offset,
                log_offset: item.log_offset,
                store_ms: item.store_ms,
            }),
        });
        let results = results.collect();
        batch.clear();
        self.batch = Some(batch);
        results
    }

    /// Appends one message and nothing else.
    pub async fn append_one(
        &mut self,
        queue: &Queue,
        tag_hash: i32,
        draft: &Draft<'_>,
    ) -> Result<Appended, NotAppended> {
        self.add(queue, tag_hash, draft);
        let mut results = self.append().await;
        results.pop().unwrap_or(Err(NotAppended::Closing))
    }
}
