//! The way from a shard to the writer: records of every connection gather in one open batch, which leaves when all
//! connections that had bytes in this turn of the core have been served. Where senders wait for the disk it leaves before
//! that, as soon as it has some records: the disk commits them while the core serves the next connections.
//!
//! When the writer's inbox is full the gate closes and connections stop reading; nothing is refused, nothing piles up.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use engine::Batch;
use reactor::Notify;
use reactor::mailbox::{Sender, TrySendError};

use crate::messages::ToWriter;
use crate::shard::gate::Gate;

/// An open batch of this size leaves at once.
const OPEN_BATCH_BYTES_MAX: usize = 1 << 20;
/// A batch of so many records is worth a commit of its own: handing it over costs little beside them, and small commits
/// keep disk and core busy at the same time.
const HURRIED_RECORDS: usize = 32;
/// Empty batches kept for use again.
const SPARE_BATCHES_MAX: usize = 8;
/// A batch that has grown beyond this is given back to the allocator.
const SPARE_BATCH_BYTES_MAX: usize = 4 << 20;

/// Lives on one core.
pub struct Outgoing {
    shard: u16,
    writer: Sender<ToWriter>,
    open: RefCell<Box<Batch>>,
    /// Closed because what came next is acknowledged at another time; they leave before the open one.
    closed: RefCell<VecDeque<Box<Batch>>>,
    #[allow(clippy::vec_box)] // they travel in their boxes
    spare: RefCell<Vec<Box<Batch>>>,
    /// The flushing task has been told of the open batch.
    announced: Cell<bool>,
    ready: Notify,
    /// Senders wait for the disk.
    hurries: bool,
    /// The open batch should leave before other connections are served.
    hurry: Notify,
    /// One task is handing batches over. It takes all there are.
    is_leaving: Cell<bool>,
    gate: Gate,
    in_flight: Cell<usize>,
    /// Nothing is on the way any more.
    empty: Notify,
}

impl Outgoing {
    /// With `hurries` two tasks are needed: `run`, and an urgent one for `run_hurried`.
    pub fn new(shard: u16, writer: Sender<ToWriter>, hurries: bool) -> Self {
        Self {
            shard,
            writer,
            open: RefCell::new(Box::new(Batch::new(shard))),
            closed: RefCell::default(),
            spare: RefCell::new(Vec::new()),
            announced: Cell::new(false),
            ready: Notify::new(),
            hurries,
            hurry: Notify::new(),
            is_leaving: Cell::new(false),
            gate: Gate::default(),
            in_flight: Cell::new(0),
            empty: Notify::new(),
        }
    }

    /// Lets `push` add records to the open batch. With `wait` they come back when they are released, otherwise as soon
    /// as they are laid; the order of all of them is kept.
    pub fn add(&self, wait: bool, push: impl FnOnce(&mut Batch)) {
        let (records, bytes) = {
            let mut open = self.open.borrow_mut();
            if open.wait != wait {
                if !open.is_empty() {
                    let closed = std::mem::replace(&mut *open, self.empty());
                    self.closed.borrow_mut().push_back(closed);
                }
                open.wait = wait;
            }
            push(&mut open);
            (open.len(), open.bytes_len())
        };
        if !self.announced.replace(true) {
            self.ready.notify();
        }
        if self.hurries && records == HURRIED_RECORDS {
            self.hurry.notify();
        }
        if bytes >= OPEN_BATCH_BYTES_MAX {
            self.gate.close();
        }
    }

    fn empty(&self) -> Box<Batch> {
        let spare = self.spare.borrow_mut().pop();
        spare.unwrap_or_else(|| Box::new(Batch::new(self.shard)))
    }

    /// Connections wait here between two chunks.
    pub async fn room(&self) {
        self.gate.passed().await;
    }

    /// Batches that the writer has not given back.
    pub fn in_flight(&self) -> usize {
        let closed = self.closed.borrow().len();
        self.in_flight.get() + closed + usize::from(!self.open.borrow().is_empty())
    }

    /// Waits until everything that was added has come back.
    pub async fn drained(&self) {
        while self.in_flight() > 0 {
            self.empty.notified().await;
        }
    }

    /// A batch has come back and was answered.
    pub fn recycle(&self, mut batch: Box<Batch>) {
        let left = self.in_flight.get().checked_sub(1);
        self.in_flight
            .set(left.expect("only what was sent comes back"));
        if self.in_flight() == 0 {
            self.empty.notify();
        }
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_BATCHES_MAX && batch.bytes_len() <= SPARE_BATCH_BYTES_MAX {
            batch.clear();
            spare.push(batch);
        }
    }

    /// Runs behind the connections that were ready in the same turn, for as long as the writer takes batches.
    pub async fn run(self: Rc<Self>) {
        loop {
            self.ready.notified().await;
            self.announced.set(false);
            if !self.leave().await {
                return;
            }
        }
    }

    /// Runs before other connections that are ready, whenever there is enough for a commit, for as long as the writer
    /// takes batches.
    pub async fn run_hurried(self: Rc<Self>) {
        loop {
            self.hurry.notified().await;
            if !self.leave().await {
                return;
            }
        }
    }

    /// Hands over all there is, in order. False: nobody takes it.
    async fn leave(&self) -> bool {
        if self.is_leaving.replace(true) {
            return true;
        }
        let mut is_taken = true;
        while is_taken && let Some(batch) = self.next_to_leave() {
            self.in_flight.set(self.in_flight.get() + 1);
            is_taken = self.hand_over(batch).await;
        }
        self.is_leaving.set(false);
        if is_taken {
            self.gate.open();
        }
        is_taken
    }

    /// The oldest batch with anything in it.
    fn next_to_leave(&self) -> Option<Box<Batch>> {
        if let Some(closed) = self.closed.borrow_mut().pop_front() {
            return Some(closed);
        }
        if self.open.borrow().is_empty() {
            return None;
        }
        let next = self.empty();
        Some(self.open.replace(next))
    }

    async fn hand_over(&self, batch: Box<Batch>) -> bool {
        match self.writer.try_send(ToWriter::Append(batch)) {
            Ok(()) => true,
            Err(TrySendError::Full(message)) => {
                self.gate.close();
                self.writer.send(message).await.is_ok()
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }
}
