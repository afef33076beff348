//! The way of ops into the log, and of answers behind them.
//!
//! Ops of one turn become one message of `LOG_TOPIC`; while it is on its way the next one grows. What a client is told
//! (messages that are hidden now, an acknowledgement that is kept) waits until its op is as safe as this store makes it. Being
//! in the log, an op never survives a message it speaks of, and never outlives it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use engine::Queue;
use protocol::code::response;
use protocol::record::Draft;
use protocol::{Asked, Text};
use reactor::Notify;
use reactor::mailbox::Reply;

use super::entry::{Place, Writer};
use super::queue::Op;
use crate::coordinator::Coordinator;
use crate::handlers::Answer;
use crate::internal::Appender;
use crate::messages::ConnId;

/// Where the ops lie. RocketMQ knows nothing of it and leaves it alone.
pub const LOG_TOPIC: &str = "rmq_sys_ORBIT_POP_LOG";
pub const LOG_QUEUE: u32 = 0;
/// A message is closed when it is as long.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// Lives on the coordinator's core.
pub struct Journal {
    queue: Arc<Queue>,
    pending: RefCell<Pending>,
    wake: Notify,
    is_writing: Cell<bool>,
    landed: Notify,
    /// Written since this was last taken.
    bytes: Cell<u64>,
}

#[derive(Default)]
struct Pending {
    messages: Vec<Writer>,
    held: Vec<Held>,
}

/// What happens once everything before it is in the log.
pub enum Held {
    Answer {
        conn: ConnId,
        asked: Asked,
        /// The whole answer.
        frame: Vec<u8>,
        /// The connection counts it among its unanswered requests.
        is_counted: bool,
        /// Messages that are in the answer, and are visible again if it cannot be given.
        popped: Vec<Popped>,
    },
    /// True if it is in the log.
    Task(Reply<bool>),
}

/// Messages of one queue under one name.
#[derive(Clone, Debug)]
pub struct Popped {
    pub place: Place,
    /// Each with the `times` that it was listed with before, or none.
    pub messages: Vec<(u64, u32)>,
    pub pop_ms: i64,
    /// The queue's before this.
    pub attempt: String,
}

impl Journal {
    pub fn new(queue: Arc<Queue>) -> Self {
        Self {
            queue,
            pending: RefCell::default(),
            wake: Notify::new(),
            is_writing: Cell::new(false),
            landed: Notify::new(),
            bytes: Cell::new(0),
        }
    }

    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    pub fn add(&self, place: &Place, op: &Op) {
        let mut pending = self.pending.borrow_mut();
        let is_full = |writer: &Writer| writer.bytes().len() >= MESSAGE_BYTES_MAX;
        if pending.messages.last().is_none_or(is_full) {
            pending.messages.push(Writer::default());
        }
        let message = pending.messages.last_mut().expect("put there");
        message.add(place, op);
        self.wake.notify();
    }

    /// To be done once everything added so far is in the log.
    pub fn hold(&self, held: Held) {
        self.pending.borrow_mut().held.push(held);
        self.wake.notify();
    }

    /// Until nothing is on its way.
    pub async fn idle(&self) {
        while self.is_writing.get() || !self.is_empty() {
            self.landed.notified().await;
        }
    }

    /// How many bytes of ops were written since this was last asked.
    pub fn take_bytes(&self) -> u64 {
        self.bytes.take()
    }

    fn is_empty(&self) -> bool {
        let pending = self.pending.borrow();
        pending.messages.is_empty() && pending.held.is_empty()
    }

    /// The task that writes.
    pub async fn run(coordinator: Rc<Coordinator>) {
        let journal = &coordinator.pop.journal;
        let mut appender = Appender::promised(coordinator.shared.writer.clone());
        loop {
            while journal.is_empty() {
                journal.wake.notified().await;
            }
            let pending = journal.pending.take();
            journal.is_writing.set(true);
            let is_safe = journal.append(&coordinator, &mut appender, &pending.messages);
            let is_safe = is_safe.await;
            for held in pending.held {
                release(&coordinator, held, is_safe);
            }
            coordinator.outgoing.send_all().await;
            journal.is_writing.set(false);
            journal.landed.notify_all();
        }
    }

    async fn append(
        &self,
        coordinator: &Coordinator,
        appender: &mut Appender,
        messages: &[Writer],
    ) -> bool {
        let host = coordinator.settings().advertised();
        for message in messages {
            self.bytes
                .set(self.bytes.get() + message.bytes().len() as u64);
            let draft = Draft {
                topic: LOG_TOPIC,
                queue_id: LOG_QUEUE as i32,
                flag: 0,
                sys_flag: 0,
                born_ms: reactor::wall_ms(),
                born_host: host,
                store_host: host,
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                properties: Text::plain(b""),
                body: message.bytes(),
            };
            appender.add(&self.queue, 0, &draft);
        }
        let results = appender.append().await;
        let problem = results.into_iter().find_map(Result::err);
        if let Some(problem) = &problem {
            // What is in memory is ahead of the log now; the next round writes all of it.
            tracing::warn!(%problem, "changes of POP are not in the log");
            coordinator.pop.rounds.want();
        }
        problem.is_none()
    }
}

fn release(coordinator: &Rc<Coordinator>, held: Held, is_safe: bool) {
    let (conn, asked, frame, is_counted, popped) = match held {
        Held::Task(reply) => return reply.send(is_safe),
        Held::Answer {
            conn,
            asked,
            frame,
            is_counted,
            popped,
        } => (conn, asked, frame, is_counted, popped),
    };
    let frame = match is_safe {
        true => frame,
        false => {
            for popped in popped {
                coordinator.pop.give_up(&popped);
            }
            let mut refused = Vec::new();
            let remark = "the change could not be stored";
            Answer::code(response::SYSTEM_ERROR, remark).write(&mut refused, asked);
            refused
        }
    };
    match is_counted {
        true => coordinator.outgoing.answer(conn, frame),
        false => coordinator.outgoing.tell(conn, frame),
    }
}
