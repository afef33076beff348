//! Transactions: half messages, the decisions on them, and questions to producers who have not decided.
//!
//! ```text
//! send with TRAN_MSG ─► half topic ──follow──► Open (memory) ──due──► copy of the half + mark ─► question to a producer
//! END_TRANSACTION ────► Inbox ──────decide───► final message + mark ─► closed          (none decides: given up)
//! ```
//!
//! One task beside the coordinator does all of it, one step after the other, so a transaction is never decided and moved at
//! the same time. What it appends for a step is one whole batch with the mark as its last record: if the mark is in the log
//! so is everything else, and what a crash may leave without its mark is found at the start and marked then. So each
//! transaction has one outcome: the first decision that reaches the log.

mod ask;
mod counters;
mod decide;
pub mod end;
mod half;
mod keep;
mod marks;
mod names;
mod open;
mod recover;
mod work;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use engine::{Ask, LogOffset};
use reactor::mailbox::{Reply, oneshot};
use reactor::{Notify, Task};

pub use counters::Counters;
pub use half::{PROPERTIES as HALF_PROPERTIES, QUEUE_ID};

use crate::coordinator::Coordinator;
use crate::handlers::Answer;
use crate::messages::{Shared, ToCoordinator};
use crate::shard::Shard;
use work::Work;

/// Decisions that wait for the task. More are refused: the producers will be asked.
pub const DECISIONS_MAX: usize = 100_000;

/// A producer's word on a transaction.
pub struct Decision {
    /// Where the producer was told that the half message lies.
    pub half_offset: u64,
    pub log_offset: LogOffset,
    pub group: Box<str>,
    pub commit: bool,
    /// None for the usual way, which wants no answer.
    pub reply: Option<Reply<Answer>>,
}

/// What others have for the task. Lives on the coordinator's core.
#[derive(Default)]
pub struct Inbox {
    decisions: RefCell<VecDeque<Decision>>,
    /// Log that is about to go.
    asks: RefCell<VecDeque<Ask>>,
    stop: RefCell<Option<Reply<()>>>,
    stopping: Cell<bool>,
    wake: Notify,
    pub counters: Counters,
}

impl Inbox {
    /// Hands the decision back if there are too many.
    pub fn decide(&self, decision: Decision) -> Result<(), Decision> {
        let mut decisions = self.decisions.borrow_mut();
        if decisions.len() >= DECISIONS_MAX || self.stopping.get() {
            return Err(decision);
        }
        decisions.push_back(decision);
        self.wake.notify();
        Ok(())
    }

    pub fn waiting(&self) -> usize {
        self.decisions.borrow().len()
    }
}

/// The running task. Lives on the core of shard 0.
pub struct Transactions {
    inbox: Rc<Inbox>,
    tasks: [Task<()>; 2],
}

impl Transactions {
    /// Returns once it is known which transactions are open, or once it is clear that this takes several attempts.
    pub async fn start(shard: &Rc<Shard>, coordinator: &Rc<Coordinator>) -> Self {
        let inbox = Rc::clone(&coordinator.transactions);
        // Before it looks at the log, or some of that could go meanwhile.
        let asked = shard.shared.store.owe();
        let work = Work::start(shard, coordinator).await;
        let tasks = [
            reactor::spawn("transactions", work.run()),
            reactor::spawn("hear of old transactions", hear(Rc::clone(&inbox), asked)),
        ];
        Self { inbox, tasks }
    }

    /// Decisions that have come are carried out first.
    pub async fn stop(self, shared: &Shared) {
        // What the coordinator has and has not handed on.
        let (reply, reached) = oneshot();
        let marker = ToCoordinator::Reached(reply);
        if shared.coordinator.send(marker).await.is_ok() {
            reached.await;
        }
        let (reply, stopped) = oneshot();
        self.inbox.stopping.set(true);
        *self.inbox.stop.borrow_mut() = Some(reply);
        self.inbox.wake.notify();
        stopped.await;
        for task in self.tasks {
            task.cancel();
        }
    }
}

async fn hear(inbox: Rc<Inbox>, mut asked: reactor::mailbox::Receiver<Ask>) {
    while let Some(ask) = asked.recv().await {
        inbox.asks.borrow_mut().push_back(ask);
        inbox.wake.notify();
    }
}
