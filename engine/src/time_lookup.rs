//! From a time to a queue offset: a binary search, because store times in a log never go back.

use crate::QueueOffset;
use crate::queue::Queue;
use crate::store::Store;
use protocol::record::View;
use std::io;
use std::sync::Arc;

/// Which of the messages at or around a time is meant (RocketMQ's `BoundaryType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The first message stored at the time or later; the queue's end if there is none.
    Lower,
    /// The last message stored at the time or earlier; the queue's start if there is none.
    Upper,
}

impl Store {
    /// The offset that belongs to the time `ms`, milliseconds since the epoch.
    pub async fn offset_at_time(
        self: &Arc<Self>,
        queue: &Queue,
        ms: i64,
        boundary: Boundary,
    ) -> io::Result<QueueOffset> {
        let mut low = queue.min_offset();
        let mut high = queue.max_offset();
        // The first offset whose message is too late for what is before it.
        while low < high {
            let middle = low + (high - low) / 2;
            let is_after = match self.store_time(queue, QueueOffset(middle)).await? {
                Some(stored_ms) => match boundary {
                    Boundary::Lower => stored_ms >= ms,
                    Boundary::Upper => stored_ms > ms,
                },
                None => false, // It expired meanwhile: before everything that is left.
            };
            if is_after {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(QueueOffset(match boundary {
            Boundary::Lower => low,
            Boundary::Upper => low.saturating_sub(1).max(queue.min_offset()),
        }))
    }

    /// When the message was stored; `None` if it is not in the queue.
    pub async fn store_time(
        self: &Arc<Self>,
        queue: &Queue,
        offset: QueueOffset,
    ) -> io::Result<Option<i64>> {
        let Some(place) = self.place(queue, offset.0).await? else {
            return Ok(None);
        };
        if place.store_ms.is_some() {
            return Ok(place.store_ms);
        }
        let record = self.record_at(place.log_offset).await?;
        Ok(record
            .as_deref()
            .and_then(|bytes| View::parse(bytes).ok())
            .map(|view| view.store_ms))
    }
}
