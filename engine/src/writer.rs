//! The writer: takes batches, gives every record its place, appends, publishes, says whom to wake.
//!
//! It lives on one core and is not shared. Per record it copies the bytes, patches three fields and stores a
//! 16-byte entry. The clock is read once per batch; ends and watermarks are published once per turn, where only
//! durable messages are shown by way of `release`. Beside it on the same core run the tasks that flush, work
//! ahead of the tail, and keep the index parts.

use crate::ahead::Ahead;
use crate::append::{AppendError, END_BLANK_BYTES, Tail};
use crate::batch::{Batch, Item};
use crate::commit_log::ReleaseAt;
use crate::flush::Flusher;
use crate::layout::Layout;
use crate::queue::Queue;
use crate::queue_index::Entry;
use crate::queue_index::keeper::Keeper;
use crate::reclaim::Reclaimer;
use crate::recovery::{self, Recovered};
use crate::release::{Release, add_wakes};
use crate::store::Store;
use crate::{LogOffset, QueueNo};
use protocol::record;
use reactor::Task;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// A larger part of the memory for indexes is not for the tail's.
const TAIL_INDEX_FRACTION: u64 = 4;

/// The one that appends. There is one per store.
pub struct Writer {
    store: Arc<Store>,
    tail: Tail,
    /// Up to where the tail may go without waiting, counted in its segment.
    limit: u64,
    /// By queue number.
    queues: Vec<QueueTail>,
    /// The queues with unpublished messages.
    touched: Vec<QueueNo>,
    wakes: Vec<(usize, QueueNo)>,
    /// Records that are laid and unpublished.
    unpublished: u64,
    /// Store time of the last record; it never goes back.
    last_ms: i64,
    flusher: Rc<Flusher>,
    release: Rc<Release>,
    ahead: Rc<Ahead>,
    keeper: Rc<Keeper>,
    tasks: Vec<Task<()>>,
}

struct QueueTail {
    queue: Arc<Queue>,
    /// The offset of the next message, published or not.
    next: u64,
    touched: bool,
}

impl Writer {
    /// Takes over where recovery ended, and starts the tasks beside it.
    pub(crate) fn start(store: Arc<Store>, layout: Arc<Layout>, recovered: &Recovered) -> Writer {
        let list = store.log().segments().load_full();
        let segment = list.items().last().expect("recovery leaves a segment");
        let tail = Tail::new(segment.clone(), recovered.end.0);
        let config = store.config();
        let flusher = Rc::new(Flusher::new(store.clone()));
        let ahead = Rc::new(Ahead::new(
            layout.clone(),
            flusher.clone(),
            config,
            segment.clone(),
            tail.position(),
            !recovered.fresh_tail,
        ));
        let keeper = Rc::new(Keeper::new(
            store.clone(),
            layout.clone(),
            flusher.clone(),
            recovered.covered.clone(),
        ));
        let reclaimer = Rc::new(Reclaimer::new(
            store.clone(),
            layout,
            flusher.clone(),
            keeper.clone(),
        ));
        let release = Release::new(store.clone(), flusher.clone(), keeper.clone());
        let mut tasks = flusher.start();
        tasks.extend([
            reactor::spawn("ahead of the log's tail", ahead.clone().run()),
            reactor::spawn("keep the queue index", keeper.clone().run()),
            reactor::spawn("keep the key index", keeper.keys().clone().run()),
            reactor::spawn("hear queries", keeper.keys().clone().listen()),
            reactor::spawn("reclaim", reclaimer.clone().run()),
            reactor::spawn("give old log back", reclaimer.give_back()),
            reactor::spawn(
                "make missing queue indexes",
                recovery::rebuild_missing(store.clone()),
            ),
        ]);
        ahead.advance(tail.position());
        keeper.look();
        let mut writer = Writer {
            store,
            limit: ahead.limit(tail.position()),
            tail,
            queues: Vec::new(),
            touched: Vec::new(),
            wakes: Vec::new(),
            unpublished: 0,
            last_ms: recovered.last_ms,
            flusher,
            release: Rc::new(release),
            ahead,
            keeper,
            tasks,
        };
        writer.learn_queues();
        writer
    }

    /// Gives every record of the batch its place and appends it; behind the first one that may be taken later, none. Usually this does not suspend: only a segment
    /// that is not ready yet makes it wait. Nothing is visible before [`Writer::publish`].
    pub async fn append(&mut self, batch: &mut Batch) {
        self.last_ms = self.last_ms.max(reactor::wall_ms());
        let refused = if self.store.log().is_poisoned() {
            Some(AppendError::Poisoned)
        } else if self.store.is_disk_full() && !batch.is_promised {
            let used_percent = self.store.disk_used_percent();
            Some(AppendError::DiskFull { used_percent })
        } else {
            None
        };
        let refused = match refused {
            None if batch.is_whole => self.make_room_for_all(batch).await.err(),
            refused => refused,
        };
        let Batch { bytes, items, .. } = batch;
        // A shorter one may still fit behind one that found no room. But who sends them in this order tries again in it.
        let mut refused = refused;
        for item in items {
            item.error = refused;
            if refused.is_some() {
                continue;
            }
            let end = self.tail.position() + u64::from(item.len) + END_BLANK_BYTES;
            if end > self.limit
                && let Err(error) = self.make_room(item.len).await
            {
                item.error = Some(error);
                let is_for_ever = matches!(error, AppendError::TooLarge { .. });
                refused = (!is_for_ever).then_some(error);
                continue;
            }
            let start = item.start as usize;
            self.append_one(item, &mut bytes[start..start + item.len as usize]);
        }
    }

    #[inline]
    fn append_one(&mut self, item: &mut Item, record: &mut [u8]) {
        if item.queue.0 as usize >= self.queues.len() {
            self.learn_queues();
        }
        let queue = &mut self.queues[item.queue.0 as usize];
        item.queue_offset = queue.next;
        item.log_offset = self.tail.log_offset();
        item.store_ms = self.last_ms;
        record::patch(
            record,
            item.queue_offset,
            item.log_offset,
            item.store_time_at as usize,
            item.store_ms,
        );
        let index = &self.tail.hot().index;
        if self.tail.position() == 0 {
            index.set_base_ms(item.store_ms);
        }
        let entry = Entry {
            position: self.tail.position() as u32,
            bytes: item.len,
            tag_hash: item.tag_hash,
            delta_ms: Entry::delta(index.base_ms(), item.store_ms),
        };
        index.append(item.queue, queue.next, entry);
        queue.next += 1;
        if !queue.touched {
            queue.touched = true;
            self.touched.push(item.queue);
        }
        self.tail.lay(record);
        self.unpublished += 1;
    }

    /// Whether the tail's segment is to end here, however long it is.
    fn is_index_large(&self) -> bool {
        let bytes = self.tail.hot().index.bytes();
        bytes > self.store.config().index_bytes / TAIL_INDEX_FRACTION && self.tail.position() > 0
    }

    /// The records of a whole batch lie behind each other in one segment, with nothing to wait for in between.
    async fn make_room_for_all(&mut self, batch: &Batch) -> Result<(), AppendError> {
        let bytes = u32::try_from(batch.bytes_len()).expect("a batch stays under 4 GiB");
        if self.tail.position() + u64::from(bytes) + END_BLANK_BYTES > self.limit {
            self.make_room(bytes).await?;
        }
        Ok(())
    }

    /// Resumes when so many bytes of records can be laid into the tail.
    #[cold]
    async fn make_room(&mut self, record_bytes: u32) -> Result<(), AppendError> {
        let limit = self.tail.record_bytes_max();
        if u64::from(record_bytes) > limit {
            return Err(AppendError::TooLarge {
                bytes: record_bytes,
                limit,
            });
        }
        loop {
            if self.store.log().is_poisoned() {
                return Err(AppendError::Poisoned);
            }
            if !self.tail.fits(record_bytes) || self.is_index_large() {
                self.roll().await?;
            }
            let end = self.tail.position() + u64::from(record_bytes) + END_BLANK_BYTES;
            self.limit = self.ahead.limit(end);
            if end <= self.limit {
                return Ok(());
            }
            // Only what is published is written, and so makes room.
            self.publish();
            self.ahead.moved(end).await;
        }
    }

    /// Goes on in the next segment.
    async fn roll(&mut self) -> Result<(), AppendError> {
        // The blank's header may lie behind what has been checked so far.
        let end = self.tail.blank_end();
        while end > self.ahead.limit(end) {
            if self.store.log().is_poisoned() {
                return Err(AppendError::Poisoned);
            }
            self.publish();
            self.ahead.moved(end).await;
        }
        // What is laid and has senders waiting for the disk does not wait for a file to be made.
        if self.store.log().release_at() != ReleaseAt::Written {
            self.publish();
        }
        while !self.keeper.has_room_for_index() {
            self.publish();
            self.keeper.more_room_for_index().await?;
        }
        // From here on nothing fails: there is one next segment.
        let next = self.ahead.next().await?;
        let left_out = self.tail.fill_blank();
        self.flusher.leave_out(left_out);
        assert_eq!(
            next.base(),
            self.tail.log_offset(),
            "segments follow each other"
        );
        self.store.log().segments().push(next.clone());
        let base = next.base();
        self.tail = Tail::new(next, base);
        Ok(())
    }

    /// Ends a turn, after all its batches: what was appended becomes visible as soon as it may be released.
    pub fn publish(&mut self) {
        if self.is_index_large() {
            self.limit = 0;
        }
        let log = self.store.log();
        let at = LogOffset(self.tail.log_offset());
        let moved = at > log.written();
        if moved {
            log.publish_written(at);
            self.ahead.advance(self.tail.position());
            self.flusher.laid(std::mem::take(&mut self.unpublished));
        }
        match log.release_at() {
            ReleaseAt::Written => {
                log.publish_released(at);
                self.show_touched();
                if moved {
                    self.keeper.look();
                }
            }
            ReleaseAt::OnDisk | ReleaseAt::Flushed => {
                if moved {
                    let queues = &mut self.queues;
                    let touched = self.touched.drain(..).map(|no| {
                        let queue = &mut queues[no.0 as usize];
                        queue.touched = false;
                        (queue.queue.clone(), queue.next)
                    });
                    self.release.wait(at, touched);
                }
                self.release.show(&mut self.wakes);
            }
        }
    }

    fn show_touched(&mut self) {
        for no in &self.touched {
            let queue = &self.queues[no.0 as usize];
            queue.queue.store_max(queue.next);
        }
        // Between the ends and the parked bits: see `Queue::park`.
        fence(Ordering::SeqCst);
        for no in self.touched.drain(..) {
            let queue = &mut self.queues[no.0 as usize];
            queue.touched = false;
            add_wakes(&queue.queue, &mut self.wakes);
        }
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// End of what has been appended, visible or not.
    pub fn appended(&self) -> LogOffset {
        LogOffset(self.tail.log_offset())
    }

    /// What is appended and not visible yet.
    pub fn release(&self) -> &Rc<Release> {
        &self.release
    }

    /// Makes what recovery found durable, where nothing else may be shown.
    pub(crate) async fn sync_recovered(&self) -> io::Result<()> {
        match self.store.log().release_at() {
            ReleaseAt::Written | ReleaseAt::OnDisk => Ok(()),
            ReleaseAt::Flushed => self.flusher.sync_to(self.store.log().written()).await,
        }
    }

    /// Moves out which shards have readers parked on queues that grew.
    pub fn take_wakes(&mut self, into: &mut Vec<(usize, QueueNo)>) {
        into.append(&mut self.wakes);
    }

    /// Flushes everything, brings the checkpoint up to the end, and marks the store as closed in order.
    pub async fn close(mut self) -> io::Result<()> {
        self.publish();
        // Their jobs sync as well, so they are the first to come to an end.
        self.keeper.keys().stop().await;
        self.keeper.stop().await;
        // A sync must not be cancelled: its error would be lost.
        self.ahead.settle().await;
        self.flusher.settle().await;
        self.stop_tasks();
        self.flusher.sync_to(self.store.log().written()).await?;
        if let Some(why) = self.store.log().poison() {
            return Err(io::Error::other(why.to_string()));
        }
        self.publish();
        self.keeper.finish().await;
        self.ahead.tidy().await;
        self.store.mark_closed()
    }

    fn stop_tasks(&mut self) {
        for task in self.tasks.drain(..) {
            task.cancel();
        }
    }

    fn learn_queues(&mut self) {
        let mut queues = Vec::new();
        self.store
            .registry()
            .extend_from(self.queues.len(), &mut queues);
        for queue in queues {
            self.queues.push(QueueTail {
                next: queue.max_offset(),
                queue,
                touched: false,
            });
        }
    }
}

impl Drop for Writer {
    /// Without [`Writer::close`] this is what a killed process leaves behind.
    fn drop(&mut self) {
        self.stop_tasks();
    }
}
