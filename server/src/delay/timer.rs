//! Delivers messages with a due time of their own (`timed`), each at its time.
//!
//! ```text
//! queue ─► look ─► parked ─► read, 2 s before it is due ─► ready ─► when it is due: append to the real queue
//!                    ▲                                                      └─► done
//!                    └── appended again before its log file goes (owed)
//! ```
//!
//! They lie in their queue in the order in which they came, so what is parked is kept in memory (`parked`, `pending`). What
//! was delivered before the last checkpoint is not delivered again after a crash.

mod start;

use std::cell::{Cell, Ref, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use engine::{LogOffset, Queue, QueueOffset, ReadLimits, Store};
use protocol::Text;
use protocol::names::TIMER_TOPIC;
use protocol::record::{View, views};
use reactor::{Instant, is_of_medium};

use super::checkpoint::{Checkpoint, LATE_MAX};
use super::gauges::Gauges;
use super::parked::Parked;
use super::pending::{Key, Timer};
use super::rolled::Rolled;
use super::theirs::Theirs;
use super::turn::Turn;
use super::{
    BATCH_BYTES_MAX, DELIVER_EVERY, IDLE_LOOK_EVERY, Interrupted, Progress, RETRY_AFTER, StopGate,
};
use super::{due, timed};
use crate::internal::Appender;
use crate::reading::{self, At};
use crate::shard::Shard;

/// What one look takes in before others have their turn: after a restart there may be a million messages to look at.
const LOOK: ReadLimits = reading::stretch(512, 512 << 10);
/// What is read ahead before it is looked whether something is due.
const READ_STEP: usize = 16;
const BATCH_MESSAGES_MAX: usize = 512;
/// What is appended again in one step.
const MOVE_STEP: usize = 512;
/// The clock on the wall may be set: a long sleep is cut into pieces.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Some of those whose time has come.
#[derive(Default)]
struct Batch {
    /// In the appender.
    added: Vec<Key>,
    /// Not delivered: withdrawn, or withdrawals, with the name that is free again.
    over: Vec<(Key, Option<Vec<u8>>)>,
}

/// Lives on the core of shard 0.
pub struct Timers {
    queue: Arc<Queue>,
    shard: Rc<Shard>,
    store: Arc<Store>,
    progress: Rc<Progress>,
    gate: Rc<StopGate>,
    gauges: Arc<Gauges>,
    theirs: Theirs,
    precision_ms: i64,
    /// For how long RocketMQ parks a message at once.
    roll_ms: i64,
    turn: Turn,
    parked: RefCell<Parked>,
    rolled: RefCell<Rolled>,
    /// Some that were replaced lie in front of their copies.
    has_rolled: Cell<bool>,
    /// Memory of the last look and of the last deliveries, for the next.
    looked_at: RefCell<Vec<u8>>,
    appender: RefCell<Option<Appender>>,
}

impl Timers {
    pub(super) fn new(
        shard: &Rc<Shard>,
        progress: &Rc<Progress>,
        gate: &Rc<StopGate>,
        theirs: Theirs,
        saved: Option<Checkpoint>,
    ) -> Rc<Self> {
        let store = Arc::clone(&shard.shared.store);
        let queue = store.queue(TIMER_TOPIC, timed::QUEUE_ID);
        let mut parked = Parked::restore(saved, queue.min_offset(), queue.max_offset());
        if let Some(inherited) = theirs.inherited() {
            let offset = inherited.queue_offset.min(queue.max_offset());
            parked.go_on_behind(inherited.delivered_ms, offset);
        }
        let settings = shard.shared.settings.load();
        let precision_ms = settings.timer_precision_ms;
        Rc::new(Self {
            queue,
            shard: Rc::clone(shard),
            store,
            progress: Rc::clone(progress),
            gate: Rc::clone(gate),
            gauges: Arc::clone(&shard.shared.timers),
            theirs,
            precision_ms,
            roll_ms: settings.timer_roll_slots.saturating_mul(precision_ms),
            turn: Turn::default(),
            parked: RefCell::new(parked),
            rolled: RefCell::default(),
            has_rolled: Cell::new(false),
            looked_at: RefCell::default(),
            appender: RefCell::default(),
        })
    }

    /// How far they are, to be saved once the log has all of that.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        // Behind a stop there is no better moment: what this run has delivered would come again.
        let late_max = match self.gate.stopping.get() {
            true => usize::MAX,
            false => LATE_MAX,
        };
        let checkpoint = self.parked.borrow_mut().checkpoint(late_max)?;
        Some(Checkpoint {
            log_end: Some(self.store.written().0),
            rocketmqs_until: self.theirs.until().0,
            // The next start looks at the copies first.
            withdrawals: checkpoint.withdrawals.filter(|_| !self.has_rolled.get()),
            ..checkpoint
        })
    }

    pub(super) fn parked(&self) -> Ref<'_, Parked> {
        self.parked.borrow()
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(super) fn theirs(&self) -> &Theirs {
        &self.theirs
    }

    pub async fn run(self: Rc<Self>) {
        loop {
            let began = reactor::now();
            match self.step().await {
                Ok(()) => {
                    self.wait().await;
                    self.rest(began).await;
                }
                Err(Interrupted::Stopping) => return,
                Err(Interrupted::Refused(problem)) => {
                    tracing::warn!(problem, "messages with a due time wait");
                    reactor::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    async fn rest(&self, began: Instant) {
        let left = DELIVER_EVERY.saturating_sub(began.elapsed());
        let is_starting = self.parked.borrow().is_starting();
        if !is_starting && !left.is_zero() {
            reactor::sleep(left).await;
        }
    }

    async fn step(&self) -> Result<(), Interrupted> {
        self.turn.take().await;
        let delivered = self.deliver_in_turn().await;
        self.turn.give();
        delivered
    }

    /// Until something is due, or there is more to look at.
    async fn wait(&self) {
        let (next, event_ms) = {
            let parked = self.parked.borrow();
            (parked.next(), parked.next_event_ms())
        };
        let longest = match event_ms {
            Some(event_ms) => {
                let left_ms = event_ms.saturating_sub(reactor::wall_ms());
                Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)).min(SLEEP_MAX)
            }
            None => IDLE_LOOK_EVERY,
        };
        // Parked pulls share their deadlines; these must be met to the millisecond.
        let never = reactor::turn_time() + IDLE_LOOK_EVERY;
        let more = self.shard.wait_for(&self.queue, QueueOffset(next), never);
        let _ = reactor::timeout(longest, more).await;
    }

    /// Takes in what the queue has until now: what is withdrawn by then is not delivered. During a start it takes in some
    /// of it, once it is known what is withdrawn.
    async fn look(&self) -> Result<(), Interrupted> {
        let is_starting = self.parked.borrow().is_starting();
        match is_starting {
            true => self.look_at_some().await,
            false => self.look_at_all().await,
        }
    }

    async fn look_at_all(&self) -> Result<(), Interrupted> {
        self.look_up_to(self.queue.max_offset()).await?;
        // What RocketMQ had has been looked at.
        self.rolled.borrow_mut().clear();
        Ok(())
    }

    async fn look_up_to(&self, end: u64) -> Result<(), Interrupted> {
        let mut records = self.looked_at.take();
        let looked = self.look_with(&mut records, end).await;
        self.looked_at.replace(records);
        self.say();
        looked
    }

    async fn look_with(&self, records: &mut Vec<u8>, end: u64) -> Result<(), Interrupted> {
        for read in 0usize.. {
            let at = self.parked.borrow().next();
            if at >= end {
                break;
            }
            if read > 0 {
                reactor::yield_now().await;
            }
            let next = match self.read(at, &LOOK, records).await {
                Ok(At::Records(next)) => next,
                Ok(At::End) => break,
                Ok(At::Outside) => {
                    let (min, max) = (self.queue.min_offset(), self.queue.max_offset());
                    self.parked.borrow_mut().set_next(at.clamp(min, max));
                    continue;
                }
                Err(problem) => return Err(problem),
            };
            if self.parked.borrow().next() == at {
                self.take(records, next)?;
            } // Else another task was faster.
        }
        Ok(())
    }

    async fn read(
        &self,
        at: u64,
        limits: &ReadLimits,
        records: &mut Vec<u8>,
    ) -> Result<At, Interrupted> {
        let at = QueueOffset(at);
        let found = reading::read(&self.store, &self.queue, at, limits, records).await;
        found.map_err(|error| Interrupted::Refused(error.to_string()))
    }

    fn take(&self, records: &[u8], next: u64) -> Result<(), Interrupted> {
        let now_ms = reactor::wall_ms();
        let mut parked = self.parked.borrow_mut();
        let mut rolled = self.rolled.borrow_mut();
        let mut taken = 0;
        for view in views(records) {
            let view = view.map_err(Interrupted::unreadable)?;
            if timed::is_revive(&view) {
                continue;
            }
            let was_theirs = view.log_offset < self.theirs.until().0;
            if was_theirs && let Some(before) = rolled.replaced_by(&view) {
                parked.remove(before);
                self.has_rolled.set(true);
            }
            let Some(mut due_ms) = self.theirs.due_ms(&view) else {
                continue;
            };
            let withdraws = timed::withdraws(&view);
            if withdraws.is_some() {
                due_ms = timed::withdrawal_ends_ms(due_ms, self.precision_ms);
            }
            let timer = Timer {
                due_ms,
                offset: view.queue_offset,
                place: LogOffset(view.log_offset),
            };
            if parked.add_read(timer, view.bytes, now_ms) {
                taken += 1;
                if was_theirs {
                    rolled.add(&view, timer.key(), self.roll_ms);
                }
                if let Some(name) = withdraws {
                    parked.add_withdrawal(view.queue_offset, name, due_ms);
                }
            }
        }
        parked.set_next(next);
        self.progress.mark_changed();
        self.gauges.taken(taken, now_ms);
        Ok(())
    }

    /// All that is due now. What was moved meanwhile is looked at first: it may be withdrawn by something that is due.
    async fn deliver_in_turn(&self) -> Result<(), Interrupted> {
        self.look().await?;
        let kept = self.appender.take();
        let mut appender =
            kept.unwrap_or_else(|| Appender::promised(self.shard.shared.writer.clone()));
        let delivered = self.deliver_with(&mut appender).await;
        appender.forget();
        self.appender.replace(Some(appender));
        delivered
    }

    async fn deliver_with(&self, appender: &mut Appender) -> Result<(), Interrupted> {
        loop {
            if self.deliver_some(appender).await? {
                self.look().await?;
            } else if !self.read_ahead().await? {
                self.parked.borrow_mut().all_due_is_done();
                self.say();
                return Ok(());
            } else {
                reactor::yield_now().await;
            }
        }
    }

    /// A batch of those whose time has come; false if there are none.
    async fn deliver_some(&self, appender: &mut Appender) -> Result<bool, Interrupted> {
        let now_ms = reactor::wall_ms();
        let batch = self.fill(appender, now_ms)?;
        if batch.added.is_empty() && batch.over.is_empty() {
            return Ok(false);
        }
        self.progress.mark_changed();
        for (key, withdrawn) in batch.over {
            let mut parked = self.parked.borrow_mut();
            match withdrawn {
                Some(name) => parked.end_withdrawal(key, &name, now_ms),
                None => parked.done(key),
            }
        }
        let results = self.gate.append(appender).await?;
        assert_eq!(
            results.len(),
            batch.added.len(),
            "a result for each message"
        );
        self.progress.mark_changed();
        let (mut delivered, mut problem) = (0, None);
        for (key, result) in batch.added.iter().zip(results) {
            match Interrupted::of(&result) {
                Some(refused) => problem = problem.or(Some(refused)),
                None => {
                    self.parked.borrow_mut().done(*key);
                    delivered += 1;
                }
            }
        }
        self.gauges.delivered(delivered, reactor::wall_ms());
        problem.map_or(Ok(true), Err)
    }

    fn fill(&self, appender: &mut Appender, now_ms: i64) -> Result<Batch, Interrupted> {
        let parked = self.parked.borrow();
        let mut batch = Batch::default();
        for (key, record) in parked.due(now_ms).take(BATCH_MESSAGES_MAX) {
            let view = View::parse(record).map_err(Interrupted::unreadable)?;
            if let Some(name) = timed::withdraws(&view) {
                batch.over.push((key, Some(name.to_vec())));
                continue;
            }
            let is_withdrawn = parked.has_withdrawn()
                && timed::names_of(&view)
                    .is_some_and(|names| names.iter().any(|name| parked.is_withdrawn(name)));
            if is_withdrawn {
                batch.over.push((key, None));
                continue;
            }
            // One that is for this topic itself would come round for ever.
            let message = due::message(&view).filter(|real| real.topic != TIMER_TOPIC);
            let Some(message) = message else {
                let queue_offset = key.1;
                tracing::error!(queue_offset, "message without a real topic skipped");
                batch.over.push((key, None));
                continue;
            };
            let queue = self.store.queue(&message.topic, message.queue_id);
            let properties = timed::properties_out(view.properties);
            let mut draft = message.draft(&view);
            draft.properties = Text::plain(&properties);
            appender.add(&queue, message.tag_hash, &draft);
            batch.added.push(key);
            if appender.bytes_len() >= BATCH_BYTES_MAX {
                break;
            }
        }
        Ok(batch)
    }

    /// Reads some of those that are due soon; false if there are none, or no room for more.
    async fn read_ahead(&self) -> Result<bool, Interrupted> {
        let mut was_any = false;
        for _ in 0..READ_STEP {
            let begun = self.parked.borrow_mut().begin_reading(reactor::wall_ms());
            let Some(timer) = begun else {
                break;
            };
            was_any = true;
            let read = self.record(&timer).await;
            let mut parked = self.parked.borrow_mut();
            match read {
                Ok(Some(record)) => parked.was_read(timer.key(), record),
                Ok(None) => {
                    let Timer { offset, place, .. } = timer;
                    tracing::error!(
                        queue_offset = offset,
                        log_offset = place.0,
                        "a message with a due time is damaged and will not be delivered"
                    );
                    parked.done(timer.key());
                }
                Err(error) => {
                    let again = RETRY_AFTER.as_millis() as i64;
                    parked.not_read(timer.key(), reactor::wall_ms() + again);
                    if !is_of_medium(&error) {
                        return Err(Interrupted::Refused(error.to_string()));
                    }
                    // Others lie on good sectors.
                    let queue_offset = timer.offset;
                    tracing::warn!(queue_offset, %error, "a message with a due time cannot be read now");
                }
            }
        }
        Ok(was_any)
    }

    async fn record(&self, timer: &Timer) -> io::Result<Option<Vec<u8>>> {
        let at = QueueOffset(timer.offset);
        reading::one(&self.store, &self.queue, at, timer.place).await
    }

    /// Appends again what lies below. Says how many bytes that took.
    pub(super) async fn move_from(&self, below: LogOffset) -> Result<u64, Interrupted> {
        self.look_at_all().await?;
        self.turn.take().await;
        let mut bytes = 0;
        self.parked.borrow_mut().begin_moving(below);
        let moved = self.move_in_turn(&mut bytes).await;
        self.parked.borrow_mut().end_moving();
        self.turn.give();
        self.progress.mark_changed();
        moved.map(|()| bytes)
    }

    async fn move_in_turn(&self, bytes: &mut u64) -> Result<(), Interrupted> {
        let mut appender = Appender::promised(self.shard.shared.writer.clone());
        loop {
            let old = self.parked.borrow().to_move(MOVE_STEP);
            if old.is_empty() {
                return Ok(());
            }
            let mut added = Vec::with_capacity(old.len());
            for timer in old {
                let read = self.record(&timer).await;
                let Some(record) = read.map_err(|error| Interrupted::Refused(error.to_string()))?
                else {
                    tracing::error!(
                        queue_offset = timer.offset,
                        "a message with a due time is damaged and goes with its log file"
                    );
                    self.parked.borrow_mut().moved(timer.key());
                    continue;
                };
                let view = View::parse(&record).map_err(Interrupted::unreadable)?;
                *bytes += record.len() as u64;
                let properties = timed::properties_again(view.properties, timer.due_ms);
                let draft = timed::draft(&view, &properties);
                appender.add(&self.queue, timed::tag_hash(&view), &draft);
                added.push(timer.key());
                if appender.bytes_len() >= BATCH_BYTES_MAX {
                    self.append_again(&mut appender, &mut added).await?;
                }
            }
            self.append_again(&mut appender, &mut added).await?;
        }
    }

    async fn append_again(
        &self,
        appender: &mut Appender,
        added: &mut Vec<Key>,
    ) -> Result<(), Interrupted> {
        let results = self.gate.append(appender).await?;
        let mut problem = None;
        for (key, result) in added.drain(..).zip(results) {
            match Interrupted::of(&result) {
                Some(refused) => problem = problem.or(Some(refused)),
                None => self.parked.borrow_mut().moved(key),
            }
        }
        problem.map_or(Ok(()), Err)
    }

    fn say(&self) {
        let parked = self.parked.borrow();
        let unread = self.queue.max_offset().saturating_sub(parked.next());
        self.gauges
            .parked(parked.len(), unread, parked.first_due_ms());
    }
}
