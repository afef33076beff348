//! What a connection still has to send. Handlers append, and commit once per batch; one task sends. Bounded by its users:
//! they ask `queued_bytes` or wait in `below`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use crate::core::{bulk_turn_after, spawn};
use crate::gather::Gather;
use crate::notify::Notify;
use crate::socket::Socket;

/// A vector that a burst made larger than this is not kept for reuse.
const KEPT_CAPACITY_BYTES_MAX: usize = 256 * 1024;
/// Cleared gathers kept for reuse by one connection.
const KEPT_GATHERS_MAX: usize = 8;
/// Answers up to this length never wait for longer ones of other connections.
const SHORT_BYTES_MAX: usize = 8 * 1024;
/// Gathers that wait together leave with one system call: so many, and but for the first no more bytes than this.
const TOGETHER_MAX: usize = 8;
const TOGETHER_BYTES_MAX: usize = 256 * 1024;

/// Clones are the same outbox. Dropping the last one flushes and closes.
#[derive(Clone)]
pub struct Outbox(Rc<Users>);

/// What all clones share; the sending task has only the state.
struct Users {
    state: Rc<State>,
}

impl Drop for Users {
    fn drop(&mut self) {
        self.state.close_after_flush();
    }
}

struct State {
    socket: Rc<Socket>,
    /// Sent in this order, and then `open`.
    queue: RefCell<VecDeque<Gather>>,
    /// Where bytes are appended now.
    open: RefCell<Vec<u8>>,
    spare: RefCell<Vec<u8>>,
    gathers: RefCell<Vec<Gather>>,
    /// An empty vector for those that leave together.
    together: RefCell<Vec<Gather>>,
    /// Includes what is being sent.
    queued_bytes: Cell<usize>,
    /// The same of all outboxes that share it.
    queued_in_all: Rc<Cell<usize>>,
    /// What is queued may stay there for long: the sending task waits for the peer, or for a later turn.
    waiting: Cell<bool>,
    /// Something was committed, or the outbox is to close.
    work: Notify,
    /// Fewer bytes are queued than before, or the outbox closed.
    drained: Notify,
    closing: Cell<bool>,
    closed: Cell<bool>,
}

enum Item {
    Bytes(Vec<u8>),
    Gathers(Vec<Gather>),
}

impl Outbox {
    /// Starts the sending task, which lives until the connection fails or the outbox is closed.
    pub fn new(socket: Rc<Socket>) -> Outbox {
        Outbox::counted(socket, Rc::default())
    }

    /// The same; what it has queued is counted in `queued_in_all` as well.
    pub fn counted(socket: Rc<Socket>, queued_in_all: Rc<Cell<usize>>) -> Outbox {
        let state = Rc::new(State {
            socket,
            queue: RefCell::default(),
            open: RefCell::default(),
            spare: RefCell::default(),
            gathers: RefCell::default(),
            together: RefCell::default(),
            queued_bytes: Cell::new(0),
            queued_in_all,
            waiting: Cell::new(false),
            work: Notify::new(),
            drained: Notify::new(),
            closing: Cell::new(false),
            closed: Cell::new(false),
        });
        spawn("outbox", send_all(state.clone()));
        Outbox(Rc::new(Users { state }))
    }

    /// Appends bytes. They leave with the next commit, or earlier. Ignored once closed.
    pub fn with(&self, append: impl FnOnce(&mut Vec<u8>)) {
        let state = &self.0.state;
        let mut open = state.open.borrow_mut();
        let before = open.len();
        append(&mut open);
        debug_assert!(open.len() >= before, "an outbox is only appended to");
        if state.takes_no_more() {
            open.truncate(before);
            return;
        }
        state.queued(open.len() - before);
    }

    /// Appends a gather write after everything appended so far. Ignored once closed. It is committed in this turn: what is lent in
    /// it is handed to the kernel within a few turns, or copied.
    pub fn push_gather(&self, mut gather: Gather) {
        let state = &self.0.state;
        if state.takes_no_more() {
            return;
        }
        if state.waiting.get() {
            gather.keep();
        }
        state.queued(gather.len());
        let mut open = state.open.borrow_mut();
        if !open.is_empty() {
            // One system call for both: the head is short.
            open.append(&mut gather.head);
            std::mem::swap(&mut *open, &mut gather.head);
        }
        state.queue.borrow_mut().push_back(gather);
    }

    /// Wakes the sending task. Once per batch.
    pub fn commit(&self) {
        let state = &self.0.state;
        if state.waiting.get() {
            // It goes out after what is being sent: the end of that must not be slept on.
            state.socket.notice();
        }
        state.work.notify();
    }

    /// Bytes appended and not yet taken by the kernel.
    pub fn queued_bytes(&self) -> usize {
        self.0.state.queued_bytes.get()
    }

    /// Waits until fewer than `bytes` are queued, or the outbox is closed.
    pub async fn below(&self, bytes: usize) {
        while self.queued_bytes() >= bytes && !self.is_closed() {
            self.0.state.socket.notice();
            self.0.state.drained.notified().await;
        }
    }

    /// Sends what is queued, then shuts the connection down. Takes nothing more.
    pub fn close_after_flush(&self) {
        self.0.state.close_after_flush();
    }

    /// Drops what is queued and shuts the connection down now.
    pub fn close(&self) {
        self.0.state.close();
    }

    pub fn is_closed(&self) -> bool {
        self.0.state.closed.get()
    }

    /// Waits until the outbox is closed, by whatever side.
    pub async fn closed(&self) {
        while !self.is_closed() {
            self.0.state.drained.notified().await;
        }
    }

    /// A cleared gather, with memory from an earlier one if there is any.
    pub fn recycle_gather(&self) -> Gather {
        self.0.state.gathers.borrow_mut().pop().unwrap_or_default()
    }
}

impl State {
    fn takes_no_more(&self) -> bool {
        self.closed.get() || self.closing.get()
    }

    /// How long the next item is at least.
    fn next_bytes(&self) -> usize {
        match self.queue.borrow().front() {
            Some(gather) => gather.len(),
            None => self.open.borrow().len(),
        }
    }

    /// Nothing that is queued, or comes to it, is lent while the sending task waits.
    fn begin_waiting(&self) {
        self.waiting.set(true);
        self.queue.borrow_mut().iter_mut().for_each(Gather::keep);
    }

    fn next(&self) -> Option<Item> {
        let mut queue = self.queue.borrow_mut();
        if let Some(first) = queue.pop_front() {
            let mut bytes = first.len();
            let mut together = self.together.take();
            together.push(first);
            while together.len() < TOGETHER_MAX
                && let Some(next) =
                    queue.pop_front_if(|next| bytes + next.len() <= TOGETHER_BYTES_MAX)
            {
                bytes += next.len();
                together.push(next);
            }
            return Some(Item::Gathers(together));
        }
        let mut open = self.open.borrow_mut();
        if open.is_empty() {
            return None;
        }
        let spare = self.spare.take();
        Some(Item::Bytes(std::mem::replace(&mut *open, spare)))
    }

    fn queued(&self, bytes: usize) {
        self.queued_bytes.set(self.queued_bytes.get() + bytes);
        self.queued_in_all.set(self.queued_in_all.get() + bytes);
    }

    fn sent(&self, bytes: usize) {
        self.forget(bytes);
        self.drained.notify_all();
    }

    fn forget(&self, bytes: usize) {
        for count in [&self.queued_bytes, &*self.queued_in_all] {
            let left = count.get().checked_sub(bytes);
            count.set(left.expect("what was sent had been counted as queued"));
        }
    }

    fn keep_vector(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        if bytes.capacity() <= KEPT_CAPACITY_BYTES_MAX {
            self.spare.replace(bytes);
        }
    }

    fn keep_gathers(&self, mut sent: Vec<Gather>) {
        let mut gathers = self.gathers.borrow_mut();
        for mut gather in sent.drain(..) {
            gather.clear();
            gather.give_back_copies();
            if gathers.len() < KEPT_GATHERS_MAX && gather.head.capacity() <= KEPT_CAPACITY_BYTES_MAX
            {
                gathers.push(gather);
            }
        }
        self.together.replace(sent);
    }

    fn close_after_flush(&self) {
        self.closing.set(true);
        self.socket.notice();
        self.work.notify();
    }

    fn close(&self) {
        if self.closed.replace(true) {
            return;
        }
        self.queue.borrow_mut().clear();
        self.open.take();
        self.forget(self.queued_bytes.get());
        self.socket.shutdown();
        self.socket.notice();
        self.work.notify();
        self.drained.notify_all();
    }
}

async fn send_all(state: Rc<State>) {
    while !state.closed.get() {
        let bytes = state.next_bytes();
        if bytes > SHORT_BYTES_MAX {
            bulk_turn_after(bytes, || state.begin_waiting()).await;
        }
        state.waiting.set(false);
        let Some(item) = state.next() else {
            if state.closing.get() {
                break;
            }
            state.work.notified().await;
            continue;
        };
        let (bytes, outcome) = send(&state, item).await;
        if state.closed.get() {
            break; // the count was reset while this was being sent
        }
        match outcome {
            Ok(()) => state.sent(bytes),
            Err(error) => {
                tracing::debug!(peer = %state.socket.peer_addr(), %error, "a send failed");
                break;
            }
        }
    }
    state.close();
}

/// How many bytes it sends, all of them or in vain.
async fn send(state: &State, item: Item) -> (usize, io::Result<()>) {
    match item {
        Item::Bytes(bytes) => {
            let sent = bytes.len();
            (sent, send_bytes(state, bytes).await)
        }
        Item::Gathers(gathers) => {
            let sent = gathers.iter().map(Gather::len).sum();
            let (outcome, gathers) = if gathers.iter().any(Gather::is_lent) {
                state.socket.send_at_once(gathers).await
            } else {
                state.begin_waiting();
                let (outcome, gathers) = state.socket.send_gathers(gathers).await;
                (outcome.map(|()| Vec::new()), gathers)
            };
            state.keep_gathers(gathers);
            match outcome {
                Ok(rest) if !rest.is_empty() => (sent, send_rest(state, rest).await),
                outcome => (sent, outcome.map(drop)),
            }
        }
    }
}

async fn send_bytes(state: &State, bytes: Vec<u8>) -> io::Result<()> {
    state.begin_waiting();
    // There is nothing behind it yet. The last one before the end is waited for.
    let is_quiet = bytes.len() <= SHORT_BYTES_MAX && !state.closing.get();
    let (outcome, bytes) = if is_quiet {
        state.socket.send_quietly(bytes).await
    } else {
        state.socket.send(bytes).await
    };
    state.keep_vector(bytes);
    outcome
}

/// What the peer did not take at once.
async fn send_rest(state: &State, bytes: Vec<u8>) -> io::Result<()> {
    state.begin_waiting();
    let (outcome, bytes) = state.socket.send(bytes).await;
    state.keep_vector(bytes);
    outcome
}
