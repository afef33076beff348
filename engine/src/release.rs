//! What is laid and not yet shown: it waits here until the log may be released up to its end.
//!
//! Used where laying a record is not enough, as in a SYNC_FLUSH store. One entry is one turn of the writer with the
//! queues it made longer. Showing does not need the writer, so that what is durable is shown and acknowledged
//! while the writer waits for the next segment. In a store that releases what is written nothing ever waits here.

use crate::LogOffset;
use crate::QueueNo;
use crate::flush::Flusher;
use crate::queue::Queue;
use crate::queue_index::keeper::Keeper;
use crate::store::Store;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// The writer's core only.
pub struct Release {
    store: Arc<Store>,
    flusher: Rc<Flusher>,
    keeper: Rc<Keeper>,
    waiting: RefCell<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Oldest first.
    turns: VecDeque<Turn>,
    /// The queues of all turns in the same order, each with its end.
    queues: VecDeque<(Arc<Queue>, u64)>,
}

struct Turn {
    /// Log offset behind its last record.
    end: u64,
    queues: usize,
}

impl Release {
    pub(crate) fn new(store: Arc<Store>, flusher: Rc<Flusher>, keeper: Rc<Keeper>) -> Release {
        Release {
            store,
            flusher,
            keeper,
            waiting: RefCell::default(),
        }
    }

    /// Resumes when there may be something to show, or when the log was poisoned. For one task.
    pub async fn moved(&self) {
        self.flusher.moved().notified().await;
    }

    /// Shows what may be shown by now, adds which shards have readers parked on queues that grew, and returns the
    /// end of what is shown.
    pub fn show(&self, wakes: &mut Vec<(usize, QueueNo)>) -> LogOffset {
        let log = self.store.log();
        let mut waiting = self.waiting.borrow_mut();
        let to = log.releasable().0;
        let (mut end, mut queues) = (None, 0);
        while let Some(turn) = waiting.turns.pop_front_if(|turn| turn.end <= to) {
            end = Some(turn.end);
            queues += turn.queues;
        }
        let Some(end) = end else {
            return log.released();
        };
        log.publish_released(LogOffset(end));
        for (queue, max) in waiting.queues.range(..queues) {
            queue.store_max(*max);
        }
        // Between the ends and the parked bits: see `Queue::park`.
        fence(Ordering::SeqCst);
        for (queue, _) in waiting.queues.drain(..queues) {
            add_wakes(&queue, wakes);
        }
        self.keeper.look();
        LogOffset(end)
    }

    /// One turn: everything below `end` is laid, and the queues have these ends.
    pub(crate) fn wait(&self, end: LogOffset, queues: impl Iterator<Item = (Arc<Queue>, u64)>) {
        let mut waiting = self.waiting.borrow_mut();
        let before = waiting.queues.len();
        waiting.queues.extend(queues);
        let queues = waiting.queues.len() - before;
        waiting.turns.push_back(Turn { end: end.0, queues });
    }
}

/// Takes the queue's parked shards; a full fence lies behind the store of its end.
pub(crate) fn add_wakes(queue: &Queue, wakes: &mut Vec<(usize, QueueNo)>) {
    let mut parked = queue.take_parked();
    while parked != 0 {
        wakes.push((parked.trailing_zeros() as usize, queue.no()));
        parked &= parked - 1;
    }
}
