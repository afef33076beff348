//! Batches that are in the log and wait to be released, as those of a SYNC_FLUSH broker do until the disk has them.
//!
//! Two tasks of the writer's core work here beside the writer, so that senders are answered while it waits for room in the
//! log: one goes on when more of the log is released or the log is poisoned, one when somebody's time is up.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use engine::{AppendError, LogOffset, Release, Store, Writer};
use reactor::mailbox::Sender;
use reactor::{Instant, Notify, Task};

use super::waiting::Waiting;
use super::{Back, wake_parked};
use crate::config::Settings;
use crate::messages::ToShard;
use crate::published::{Published, Reader};

/// With so many waiting, or so much, the writer takes no more, and connections stop reading in the end.
const HELD_BATCHES_MAX: usize = 1024;
const HELD_BYTES_MAX: usize = 32 << 20;

/// Lives on the writer's core.
pub struct Held {
    shared: Rc<Inner>,
    tasks: [Task<()>; 2],
}

struct Inner {
    store: Arc<Store>,
    release: Rc<Release>,
    shards: Rc<Vec<Sender<ToShard>>>,
    settings: RefCell<Reader<Arc<Settings>>>,
    waiting: RefCell<Waiting<Back>>,
    /// Of their records.
    bytes: Cell<usize>,
    /// The deadline the second task sleeps until.
    armed: Cell<Option<Instant>>,
    rearm: Notify,
    /// How many are being handed back: they wait no more, and have not arrived yet.
    leaving: Cell<usize>,
    /// Somebody has left.
    left: Notify,
}

impl Held {
    pub fn start(
        writer: &Writer,
        shards: Rc<Vec<Sender<ToShard>>>,
        settings: Published<Arc<Settings>>,
    ) -> Self {
        let shared = Rc::new(Inner {
            store: Arc::clone(writer.store()),
            release: Rc::clone(writer.release()),
            shards,
            settings: RefCell::new(settings.reader()),
            waiting: RefCell::default(),
            bytes: Cell::new(0),
            armed: Cell::new(None),
            rearm: Notify::new(),
            leaving: Cell::new(0),
            left: Notify::new(),
        });
        let tasks = [
            reactor::spawn_urgent("acknowledge what is durable", follow(Rc::clone(&shared))),
            reactor::spawn("answer what is late", give_up(Rc::clone(&shared))),
        ];
        Self { shared, tasks }
    }

    /// Holds what ends at `end` of the log; its senders wait no longer than `syncFlushTimeout`. The broker's own appends have
    /// nobody who would give up and try elsewhere.
    pub fn push(&self, back: Back, end: LogOffset) {
        let deadline = back.reply.is_none().then(|| self.shared.deadline());
        let bytes = self.shared.bytes.get() + back.batch.bytes_len();
        self.shared.bytes.set(bytes);
        self.shared.waiting.borrow_mut().push(back, end, deadline);
        if let Some(deadline) = deadline {
            self.shared.arm(deadline);
        }
    }

    /// Hands back what need not wait any more.
    pub async fn settle(&self) {
        self.shared.settle().await;
    }

    /// Waits while too many wait.
    pub async fn room(&self) {
        while self.shared.waiting.borrow().len() >= HELD_BATCHES_MAX
            || self.shared.bytes.get() >= HELD_BYTES_MAX
        {
            self.shared.left.notified().await;
        }
    }

    /// Waits until everybody was handed back, and ends.
    pub async fn all_handed_back(self) {
        while !self.shared.waiting.borrow().is_empty() || self.shared.leaving.get() > 0 {
            self.shared.left.notified().await;
        }
        for task in self.tasks {
            task.cancel();
        }
    }
}

/// The first task: as the log is released, its readers are woken and then its senders told.
async fn follow(shared: Rc<Inner>) {
    let mut wakes = Vec::new();
    loop {
        shared.release.moved().await;
        shared.release.show(&mut wakes);
        wake_parked(&mut wakes, &shared.shards).await;
        shared.settle().await;
    }
}

/// The second: those who have waited long enough are told so.
async fn give_up(shared: Rc<Inner>) {
    loop {
        let next = shared.waiting.borrow().next_deadline();
        shared.armed.set(next);
        match next {
            None => shared.rearm.notified().await,
            Some(deadline) => {
                let left = deadline.saturating_since(reactor::now());
                // Either way it is looked at again.
                let _ = reactor::timeout(left, shared.rearm.notified()).await;
            }
        }
        let now = reactor::now();
        loop {
            let late = shared.waiting.borrow_mut().take_late(now);
            let Some(mut back) = late else { break };
            back.batch.late = true;
            shared.give(back).await;
        }
    }
}

impl Inner {
    async fn settle(&self) {
        loop {
            let released = self.store.written();
            let taken = self.waiting.borrow_mut().take_released(released);
            let Some(back) = taken else { break };
            self.give(back).await;
        }
        while self.store.is_poisoned() {
            let taken = self.waiting.borrow_mut().take_any();
            let Some(mut back) = taken else { break };
            back.batch.refuse(AppendError::Poisoned);
            self.give(back).await;
        }
    }

    async fn give(&self, back: Back) {
        let left = self.bytes.get().checked_sub(back.batch.bytes_len());
        self.bytes.set(left.expect("whoever leaves had come"));
        self.leaving.set(self.leaving.get() + 1);
        back.give(&self.shards).await;
        self.leaving.set(self.leaving.get() - 1);
        self.left.notify();
    }

    fn deadline(&self) -> Instant {
        let mut settings = self.settings.borrow_mut();
        let limit_ms = settings.get().sync_flush_timeout_ms;
        reactor::turn_time() + Duration::from_millis(limit_ms)
    }

    fn arm(&self, deadline: Instant) {
        if self.armed.get().is_none_or(|armed| deadline < armed) {
            self.armed.set(Some(deadline));
            self.rearm.notify();
        }
    }
}
