//! The task: follows the queue of half messages, and does what is to be done, one step after the other.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use engine::{LogOffset, Queue, QueueOffset, ReadLimits, Store};
use protocol::names::{TRANS_HALF_TOPIC, TRANS_OP_HALF_TOPIC};
use protocol::record::{View, views};
use reactor::Instant;

use super::Inbox;
use super::half::{Born, Half, QUEUE_ID};
use super::keep::Kept;
use super::marks::{self, Mark, Needed};
use super::open::Open;
use crate::config::Settings;
use crate::coordinator::Coordinator;
use crate::internal::{Appended, Appender, NotAppended};
use crate::published::Reader;
use crate::reading::{self, At};
use crate::shard::Shard;

/// After a refusal (disk full) or a failed read.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Read at once from a queue; after a start that may be long.
const STRETCH: ReadLimits = reading::stretch(1_024, 1 << 20);
/// With nothing open it looks again this often, for nothing: the append wakes it.
const IDLE_LOOK_EVERY: Duration = Duration::from_secs(600);
/// The clock on the wall may be set: a long sleep is cut into pieces.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// What one append takes along at most, but for its last message.
const BATCH_BYTES_MAX: u64 = 256 << 10;
/// And what share of a segment, or it could fit nowhere.
const BATCH_SEGMENT_SHARE: u64 = 8;

/// Lives on the core of shard 0; everything that changes is the task's own.
pub struct Work {
    pub coordinator: Rc<Coordinator>,
    pub inbox: Rc<Inbox>,
    pub store: Arc<Store>,
    shard: Rc<Shard>,
    pub halves: Arc<Queue>,
    pub marks: Arc<Queue>,
    /// As of the step that is made.
    settings: Reader<Arc<Settings>>,
    pub open: Open,
    pub needed: Needed,
    pub kept: Kept,
    pub appender: Appender,
    pub mark: Mark,
    /// Whose turn it is to be asked.
    pub turn: usize,
    /// So many decisions are carried out one by one.
    pub singly: usize,
    /// Went on as copies that came without a mark on what they replace.
    pub unmarked: Vec<u64>,
    records: Vec<u8>,
    /// No log goes before, as far as transactions are concerned.
    pub pause_until: Option<Instant>,
    /// As the last run left it.
    pub log_end: LogOffset,
    recovered: bool,
}

/// What could not be done now.
pub enum Trouble {
    Refused(NotAppended),
    Unreadable(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(why) => why.fmt(f),
            Self::Unreadable(error) => error.fmt(f),
        }
    }
}

impl Work {
    /// Finds out which transactions are open.
    pub async fn start(shard: &Rc<Shard>, coordinator: &Rc<Coordinator>) -> Self {
        let store = Arc::clone(&shard.shared.store);
        let mut work = Self {
            coordinator: Rc::clone(coordinator),
            inbox: Rc::clone(&coordinator.transactions),
            shard: Rc::clone(shard),
            halves: store.queue(TRANS_HALF_TOPIC, QUEUE_ID),
            marks: store.queue(TRANS_OP_HALF_TOPIC, QUEUE_ID),
            settings: shard.shared.settings.reader(),
            open: Open::default(),
            needed: Needed::default(),
            kept: Kept::default(),
            appender: Appender::promised(shard.shared.writer.clone()).whole(),
            mark: Mark::default(),
            turn: 0,
            singly: 0,
            unmarked: Vec::new(),
            records: Vec::new(),
            pause_until: None,
            log_end: store.written(),
            recovered: false,
            store,
        };
        if let Err(trouble) = work.try_to_recover().await {
            tracing::error!(
                %trouble,
                "the half messages of open transactions cannot be read; it is tried again"
            );
        }
        work
    }

    /// Without knowing what is open nothing can be decided; decisions wait meanwhile.
    async fn try_to_recover(&mut self) -> Result<(), Trouble> {
        self.recover().await?;
        self.recovered = true;
        Ok(())
    }

    pub async fn run(mut self) {
        loop {
            let done = match self.recovered {
                true => self.step().await,
                false => self.try_to_recover().await,
            };
            if let Err(trouble) = &done {
                self.appender.forget();
                self.mark = Mark::default();
                tracing::warn!(%trouble, "transactions wait");
            }
            // Nothing is left to be carried out, or it cannot be.
            let is_idle = done.is_err() || self.inbox.waiting() == 0;
            if is_idle && let Some(stop) = self.inbox.stop.borrow_mut().take() {
                return stop.send(());
            }
            match done {
                Ok(()) => self.wait().await,
                Err(_) => reactor::sleep(RETRY_AFTER).await,
            }
        }
    }

    async fn step(&mut self) -> Result<(), Trouble> {
        self.settings.refresh();
        self.mark_unmarked().await?;
        self.decide_what_waits().await?;
        self.follow().await?;
        self.look_at_due().await?;
        self.answer_asks().await?;
        self.close_up().await?;
        self.mark_unmarked().await?;
        self.note();
        Ok(())
    }

    pub async fn decide_what_waits(&mut self) -> Result<(), Trouble> {
        while self.inbox.waiting() > 0 {
            self.follow().await?;
            self.decide().await?;
        }
        Ok(())
    }

    /// Takes what is new in both queues into memory.
    pub async fn follow(&mut self) -> io::Result<()> {
        self.follow_halves().await?;
        while let Some(records) = self.next_marks().await? {
            for view in views(&records) {
                self.add_mark(&view.map_err(io::Error::other)?);
            }
            self.records = records;
        }
        Ok(())
    }

    pub async fn follow_halves(&mut self) -> io::Result<()> {
        while let Some(records) = self.next_halves().await? {
            for view in views(&records) {
                self.add(&Half::of(&view.map_err(io::Error::other)?));
            }
            self.records = records;
        }
        self.inbox.counters.open.set(self.open.len() as u64);
        Ok(())
    }

    pub fn add(&mut self, half: &Half<'_>) {
        let due_ms = self.due_ms(half);
        if let Some(superseded) = self.open.add(half, due_ms) {
            self.unmarked.push(superseded);
        }
    }

    pub fn add_mark(&mut self, view: &View<'_>) {
        let largest = marks::offsets(view).max().unwrap_or(0);
        self.needed.add(view.queue_offset, largest);
    }

    /// Some of the next half messages, none if all of them are known.
    pub async fn next_halves(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let at = self.open.next();
            match self.read(&self.halves.clone(), at).await? {
                At::Records(next) if self.records.is_empty() => self.open.skip_to(next),
                At::Records(_) => return Ok(Some(std::mem::take(&mut self.records))),
                At::End => return Ok(None),
                At::Outside if at >= self.halves.max_offset() => return Ok(None),
                At::Outside => self.open.skip_to(self.halves.min_offset().max(at)),
            }
        }
    }

    /// The same of marks.
    pub async fn next_marks(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let at = self.needed.next();
            match self.read(&self.marks.clone(), at).await? {
                At::Records(next) if self.records.is_empty() => self.needed.skip_to(next),
                At::Records(_) => return Ok(Some(std::mem::take(&mut self.records))),
                At::End => return Ok(None),
                At::Outside if at >= self.marks.max_offset() => return Ok(None),
                At::Outside => self.needed.skip_to(self.marks.min_offset()),
            }
        }
    }

    async fn read(&mut self, queue: &Arc<Queue>, at: u64) -> io::Result<At> {
        let at = QueueOffset(at);
        reading::read(&self.store, queue, at, &STRETCH, &mut self.records).await
    }

    /// When producers are asked about it, if they have not decided by then.
    pub fn due_ms(&self, half: &Half<'_>) -> i64 {
        let settings = self.settings();
        let wait_ms = match half.checks {
            0 => {
                let immunity_ms = half.immunity_ms.unwrap_or(0);
                settings.transaction_timeout_ms.max(immunity_ms)
            }
            _ => settings.transaction_check_interval_ms,
        };
        let wait_ms = i64::try_from(wait_ms).unwrap_or(i64::MAX);
        // A store time in the future (the clock was set back) makes it wait as long as any other, from now on.
        half.store_ms
            .min(reactor::wall_ms())
            .saturating_add(wait_ms)
    }

    pub fn batch_bytes_max(&self) -> usize {
        let share = self.store.config().segment_bytes / BATCH_SEGMENT_SHARE;
        BATCH_BYTES_MAX.min(share) as usize
    }

    /// Whether the next append has as much to take along as it may.
    pub fn is_batch_full(&self) -> bool {
        self.appender.bytes_len() + self.mark.bytes_len() >= self.batch_bytes_max()
    }

    /// The record there; none if it is gone or damaged.
    pub async fn record(&self, at: LogOffset) -> io::Result<Option<Vec<u8>>> {
        self.store.record_at(at).await
    }

    /// Appends what was added and, behind it, the mark on those who need no more attention. All of it or nothing.
    pub async fn append(&mut self) -> Result<Vec<Appended>, NotAppended> {
        if !self.mark.is_empty() {
            let born = Born {
                ms: reactor::wall_ms(),
                host: self.settings().advertised(),
            };
            let key = format!("{:016X}{:016X}", reactor::random(), reactor::random());
            let draft = self.mark.draft(&key, born);
            self.appender.add(&self.marks, Mark::tag_hash(), &draft);
        }
        self.mark = Mark::default();
        let results = self.appender.append().await;
        results.into_iter().collect()
    }

    /// Something to do, or time to look.
    async fn wait(&self) {
        let longest = match self.open.next_due() {
            Some(due_ms) => {
                let left_ms = due_ms.saturating_sub(reactor::wall_ms());
                Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)).min(SLEEP_MAX)
            }
            None if self.kept.is_waiting() => SLEEP_MAX,
            None => IDLE_LOOK_EVERY,
        };
        let deadline = reactor::turn_time() + longest;
        let woken = self.inbox.wake.notified();
        if self.open.next_due().is_some() {
            // What is sent meanwhile is due later.
            let _ = reactor::timeout(longest, woken).await;
            return;
        }
        let next = QueueOffset(self.open.next());
        let grown = self.shard.wait_for(&self.halves, next, deadline);
        either(woken, grown).await;
    }

    pub fn settings(&self) -> &Settings {
        self.settings.value()
    }
}

/// Until one of the two is done.
async fn either<A: Future, B: Future>(a: A, b: B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    poll_fn(|context| {
        if a.as_mut().poll(context).is_ready() || b.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}
