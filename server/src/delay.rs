//! Delayed messages: one task per level, driven by the deadline of the level's oldest message.
//!
//! A delayed message lies in queue `level - 1` of SCHEDULE_TOPIC_XXXX, with its real topic and queue as properties. All
//! messages of a level wait equally long, so the queue is in order of deadlines: the task sleeps until its head is due,
//! appends it to the real queue, and notes how far it came. Nothing is delivered early; after a crash some may be twice.
//! Messages with a due time of their own are another task's (`timer`).

mod checkpoint;
mod due;
mod gauges;
mod handover;
mod owed;
mod parked;
mod pending;
mod progress;
mod rolled;
mod theirs;
pub(crate) mod timed;
mod timer;
mod turn;
mod wheel_log;
pub(crate) mod wish;

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use engine::{AppendError, Queue, QueueOffset, ReadLimits, Store};
use protocol::names::SCHEDULE_TOPIC;
use protocol::record::{RecordError, View, views};
use reactor::{Instant, Notify, Task};

pub use checkpoint::{TIMERS, read as read_timers, write as write_timers};
pub use gauges::{Gauges, TIMERS_MAX};
pub use handover::{LaidOut, end as hand_back};
pub use progress::{Progress, Saved};

use crate::internal::{Appended, Appender, NotAppended};
use crate::reading::{self, At};
use crate::shard::Shard;
use owed::{Movable, Mover};
pub use theirs::{Theirs, slot_ms};
use timer::Timers;
use turn::Turn;
pub use wheel_log::Wheel;

/// An idle level looks again this often, for nothing: it is woken by the append.
const IDLE_LOOK_EVERY: Duration = Duration::from_secs(600);
/// After a refusal (disk full) or a failed read.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How much longer than computed a message may wait for the clock on the wall, which may run slower or be set back.
const CLOCK_GRACE: Duration = Duration::from_millis(100);
/// What one append takes along at most.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Messages of a level that are read at once. The last of them leave by themselves: few would cut deliveries in two.
const READ: ReadLimits = reading::stretch(256, 256 << 10);
/// Between the beginnings of two deliveries: messages that are due one after the other share one. After a quiet time there is
/// no pause.
const DELIVER_EVERY: Duration = Duration::from_millis(5);

/// The running levels. Lives on the core of shard 0.
pub struct Delay {
    gate: Rc<StopGate>,
    tasks: Vec<Task<()>>,
    timers: Rc<Timers>,
}

/// To be kept until the progress has been saved.
pub struct Stopped {
    _timers: Rc<Timers>,
}

/// Lets appends that have begun end before the tasks are cancelled.
#[derive(Default)]
struct StopGate {
    stopping: Cell<bool>,
    appending: Cell<usize>,
    idle: Notify,
}

impl Delay {
    /// Blocks for as long as it takes to read how far the timers are.
    pub fn start(
        shard: &Rc<Shard>,
        delays_ms: &[u64],
        progress: &Rc<Progress>,
    ) -> io::Result<Self> {
        let gate = Rc::new(StopGate::default());
        let store = &shard.shared.store;
        let settings = shard.shared.settings.load();
        let timers_path = settings.store_root.join("orbit").join(TIMERS);
        let saved = checkpoint::read(&timers_path)?;
        let theirs = Theirs::read(
            &settings.store_root.join("config"),
            saved.as_ref(),
            store.rocketmqs_until(),
            settings.timer_precision_ms,
        )?;
        let saved = handover::begin(&settings.store_root, &timers_path, saved, &theirs)?;
        let timers = Timers::new(shard, progress, &gate, theirs, saved);
        progress.include(&timers);
        let mut mover = Mover {
            store: Arc::clone(store),
            writer: shard.shared.writer.clone(),
            progress: Rc::clone(progress),
            gate: Rc::clone(&gate),
            timers: Rc::clone(&timers),
            levels: Vec::new(),
        };
        let mut tasks = vec![reactor::spawn("timed messages", Rc::clone(&timers).run())];
        for (level, &delay_ms) in (1i32..).zip(delays_ms) {
            let queue_id = u32::try_from(level - 1).expect("levels start at 1");
            let queue = store.queue(SCHEDULE_TOPIC, queue_id);
            let turn = Rc::new(Turn::default());
            mover.levels.push(Movable {
                level,
                delay_ms,
                queue: Arc::clone(&queue),
                turn: Rc::clone(&turn),
            });
            let level = Level {
                level,
                delay_ms,
                queue,
                shard: Rc::clone(shard),
                store: Arc::clone(store),
                progress: Rc::clone(progress),
                appender: Appender::promised(shard.shared.writer.clone()),
                pending: Vec::new(),
                turn,
                has_turn: false,
                gate: Rc::clone(&gate),
                delivered: Instant::default(),
            };
            tasks.push(reactor::spawn("delay level", level.run()));
        }
        let asked = store.owe();
        tasks.push(reactor::spawn("move delayed messages", mover.run(asked)));
        Ok(Self {
            tasks,
            gate,
            timers,
        })
    }

    /// Afterwards the progress is final.
    pub async fn stop(self) -> Stopped {
        self.gate.stopping.set(true);
        while self.gate.appending.get() > 0 {
            self.gate.idle.notified().await;
        }
        for task in self.tasks {
            task.cancel();
        }
        self.timers.end().await;
        Stopped {
            _timers: self.timers,
        }
    }
}

impl StopGate {
    /// Appends unless the broker is stopping; a stop waits for what has begun.
    async fn append(
        &self,
        appender: &mut Appender,
    ) -> Result<Vec<Result<Appended, NotAppended>>, Interrupted> {
        if self.stopping.get() {
            return Err(Interrupted::Stopping);
        }
        self.appending.set(self.appending.get() + 1);
        let results = appender.append().await;
        self.appending.set(self.appending.get() - 1);
        self.idle.notify();
        Ok(results)
    }
}

struct Level {
    level: i32,
    delay_ms: u64,
    queue: Arc<Queue>,
    shard: Rc<Shard>,
    store: Arc<Store>,
    progress: Rc<Progress>,
    appender: Appender,
    /// For each message in the appender: where the level is once that one is appended.
    pending: Vec<u64>,
    /// Taken from the first message in the appender to its result.
    turn: Rc<Turn>,
    has_turn: bool,
    gate: Rc<StopGate>,
    /// The beginning of the last delivery.
    delivered: Instant,
}

/// Why a level cannot go on for now.
enum Interrupted {
    /// To be tried again from where it was.
    Refused(String),
    Stopping,
}

impl Interrupted {
    fn unreadable(error: RecordError) -> Self {
        Self::Refused(error.to_string())
    }

    /// What keeps one message from being appended; a message no store could take is given up.
    fn of(result: &Result<Appended, NotAppended>) -> Option<Self> {
        match result {
            Ok(_) => None,
            Err(NotAppended::Refused(error @ AppendError::TooLarge { .. })) => {
                tracing::error!(%error, "delayed message dropped");
                None
            }
            Err(error @ NotAppended::TooLong) => {
                tracing::error!(%error, "delayed message dropped");
                None
            }
            Err(NotAppended::Refused(error)) => Some(Self::Refused(error.to_string())),
            Err(NotAppended::Closing) => Some(Self::Stopping),
        }
    }
}

impl Level {
    async fn run(mut self) {
        self.start_within_the_queue();
        let mut records = Vec::new();
        loop {
            let at = self.position();
            let deadline = reactor::turn_time() + IDLE_LOOK_EVERY;
            if !self.shard.wait_for(&self.queue, at, deadline).await {
                continue;
            }
            let delivered = match self.read(at, &mut records).await {
                Ok(next) => self.deliver_up_to(next, &records).await,
                Err(error) => Err(Interrupted::Refused(error.to_string())),
            };
            self.give_turn();
            match delivered {
                Ok(()) => {}
                Err(Interrupted::Stopping) => return,
                Err(Interrupted::Refused(problem)) => {
                    let level = self.level;
                    tracing::warn!(level, problem, "delayed messages wait");
                    reactor::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    fn position(&self) -> QueueOffset {
        QueueOffset(self.progress.get(self.level))
    }

    /// What was saved may point in front of the oldest message, or, after a power cut, behind the newest.
    fn start_within_the_queue(&self) {
        let saved = self.position().0;
        let (min, max) = (self.queue.min_offset(), self.queue.max_offset());
        let inside = saved.clamp(min, max);
        if inside != saved {
            let level = self.level;
            tracing::warn!(level, saved, inside, "delay offset corrected");
            self.progress.set(self.level, inside);
        }
    }

    /// Copies the next messages out of the log; none if there is nothing at `at`. Says where the level is after them.
    async fn read(&self, at: QueueOffset, records: &mut Vec<u8>) -> io::Result<u64> {
        match reading::read(&self.store, &self.queue, at, &READ, records).await? {
            At::Records(next) => return Ok(next),
            At::End => {}
            At::Outside => self.start_within_the_queue(),
        }
        Ok(self.position().0)
    }

    /// Messages that are damaged are not among `records`; the level goes on behind them all the same.
    async fn deliver_up_to(&mut self, next: u64, records: &[u8]) -> Result<(), Interrupted> {
        self.deliver(records).await?;
        if self.position().0 < next {
            self.progress.set(self.level, next);
        }
        Ok(())
    }

    /// All of `records`, each at its time.
    async fn deliver(&mut self, records: &[u8]) -> Result<(), Interrupted> {
        for view in views(records) {
            let view = view.map_err(Interrupted::unreadable)?;
            let wait_ms = due::wait_ms(view.store_ms, self.delay_ms, reactor::wall_ms());
            if wait_ms > 0 {
                self.append().await?;
                self.sleep_until_due(view.store_ms).await;
                self.rest().await;
            }
            if !self.has_turn {
                self.turn.take().await;
                self.has_turn = true;
            }
            let was_moved = self.pending.is_empty() && view.queue_offset < self.position().0;
            if !was_moved {
                self.add(&view);
            }
            if self.appender.bytes_len() >= BATCH_BYTES_MAX {
                self.append().await?;
            }
        }
        self.append().await
    }

    async fn sleep_until_due(&self, store_ms: i64) {
        let wait = || {
            let left_ms = due::wait_ms(store_ms, self.delay_ms, reactor::wall_ms());
            Duration::from_millis(left_ms)
        };
        // Then it has waited long enough, whatever the clock on the wall did meanwhile.
        let latest = reactor::turn_time() + wait() + CLOCK_GRACE;
        loop {
            let left = wait().min(latest.saturating_since(reactor::turn_time()));
            if left.is_zero() {
                return;
            }
            reactor::sleep(left).await;
        }
    }

    async fn rest(&self) {
        let left = DELIVER_EVERY.saturating_sub(self.delivered.elapsed());
        if !left.is_zero() {
            reactor::sleep(left).await;
        }
    }

    /// Queues the message for its real queue.
    fn add(&mut self, view: &View<'_>) {
        let next = view.queue_offset + 1;
        let Some(message) = due::message(view) else {
            let (level, queue_offset) = (self.level, view.queue_offset);
            tracing::error!(
                level,
                queue_offset,
                "delayed message without a real topic skipped"
            );
            // Passed over together with the one in front of it.
            match self.pending.last_mut() {
                Some(last) => *last = next,
                None => self.progress.set(self.level, next),
            }
            return;
        };
        let queue = self.store.queue(&message.topic, message.queue_id);
        self.appender
            .add(&queue, message.tag_hash, &message.draft(view));
        self.pending.push(next);
    }

    /// Appends what is queued and notes how far the level has come.
    async fn append(&mut self) -> Result<(), Interrupted> {
        if !self.pending.is_empty() {
            self.delivered = reactor::now();
        }
        let results = self.gate.append(&mut self.appender).await?;
        let noted = self.note(results);
        self.give_turn();
        noted
    }

    fn give_turn(&mut self) {
        if std::mem::take(&mut self.has_turn) {
            self.turn.give();
        }
    }

    fn note(&mut self, results: Vec<Result<Appended, NotAppended>>) -> Result<(), Interrupted> {
        assert_eq!(
            results.len(),
            self.pending.len(),
            "a result for each message"
        );
        for (next, result) in self.pending.drain(..).zip(results) {
            if let Some(problem) = Interrupted::of(&result) {
                return Err(problem);
            }
            self.progress.set(self.level, next);
        }
        Ok(())
    }
}
