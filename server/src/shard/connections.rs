//! The connections of one shard: who they are, what is queued for them, when they were last heard of.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use reactor::{Instant, Notify, Outbox, Socket};

use crate::handlers::pull::ColdReads;
use crate::messages::{ConnId, ToCoordinator};
use crate::request_inbox::RequestInbox;
use crate::shard::slab::{Key, Slab};

/// Requests of one connection that the coordinator works on: a few bytes may ask for megabytes, many times in one chunk.
const UNANSWERED_MAX: u32 = 16;

/// A peer that does not take its answers is neither read from nor read for while more than this is queued for it.
const OUTBOX_BYTES_MAX: usize = 4 << 20;

/// One client's connection. Lives on its shard's core, shared by its task and by whoever answers it.
pub struct Connection {
    id: Cell<ConnId>,
    peer: SocketAddr,
    socket: Rc<Socket>,
    outbox: Outbox,
    /// In the list of those to be committed.
    dirty: Cell<bool>,
    last_traffic: Cell<Instant>,
    parked_pulls: Cell<u32>,
    pub cold_reads: ColdReads,
    /// What the coordinator cannot have yet, in order, and whether it is to be answered; the connection is not read from
    /// until this is empty.
    for_coordinator: RefCell<VecDeque<(ToCoordinator, bool)>>,
    /// Requests that the coordinator has and has not answered.
    unanswered: Cell<u32>,
    answer_came: Notify,
}

impl Connection {
    pub fn id(&self) -> ConnId {
        self.id.get()
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Both directions count: a consumer that is only answered is alive.
    pub fn touch(&self) {
        self.last_traffic.set(reactor::turn_time());
    }

    pub fn parked_pulls(&self) -> &Cell<u32> {
        &self.parked_pulls
    }

    /// Sends now, or keeps it for `flush_to_coordinator`.
    pub fn to_coordinator(&self, inbox: &RequestInbox, message: ToCoordinator, wants_answer: bool) {
        let mut waiting = self.for_coordinator.borrow_mut();
        if !waiting.is_empty() || self.owed_enough() {
            waiting.push_back((message, wants_answer));
            return;
        }
        match inbox.try_send(message) {
            Ok(()) => self.expect_answer(wants_answer),
            Err(message) => waiting.push_back((message, wants_answer)),
        }
    }

    /// Everything that was kept goes, as fast as answers come and the peer takes them.
    pub async fn flush_to_coordinator(&self, inbox: &RequestInbox) {
        loop {
            let next = self.for_coordinator.borrow_mut().pop_front();
            let Some((message, wants_answer)) = next else {
                return;
            };
            self.owed_less().await;
            self.outbox.below(OUTBOX_BYTES_MAX).await;
            if self.outbox.is_closed() {
                return;
            }
            self.expect_answer(wants_answer);
            if !inbox.send(message).await {
                return;
            }
        }
    }

    /// The coordinator's answer to one request has been queued.
    pub fn answered(&self) {
        let left = self.unanswered.get().checked_sub(1);
        self.unanswered
            .set(left.expect("only what was asked is answered"));
        self.answer_came.notify();
    }

    fn expect_answer(&self, wants_answer: bool) {
        let more = u32::from(wants_answer);
        self.unanswered.set(self.unanswered.get() + more);
    }

    fn owed_enough(&self) -> bool {
        self.unanswered.get() >= UNANSWERED_MAX
    }

    /// Waits for an answer to an earlier request, or for the end of the connection.
    async fn owed_less(&self) {
        let mut closed = pin!(self.outbox.closed());
        while self.owed_enough() {
            let mut came = pin!(self.answer_came.notified());
            let ended = poll_fn(|context| {
                if closed.as_mut().poll(context).is_ready() {
                    return Poll::Ready(true);
                }
                came.as_mut().poll(context).map(|()| false)
            });
            if ended.await {
                return;
            }
        }
    }
}

/// All of a shard's connections, and which of them have bytes queued that nobody has sent off yet.
#[derive(Default)]
pub struct Connections {
    shard: u16,
    slab: RefCell<Slab<Rc<Connection>>>,
    dirty: RefCell<Vec<Rc<Connection>>>,
    /// What waits for peers to take it, of all of them.
    queued_bytes: Rc<Cell<usize>>,
    /// Their part of the broker's memory.
    queued_bytes_max: usize,
}

impl Connections {
    pub fn new(shard: u16, queued_bytes_max: usize) -> Self {
        Self {
            shard,
            queued_bytes_max,
            ..Self::default()
        }
    }

    /// How much may be queued for one peer before it is neither read from nor read for. While all together have more than
    /// their part of the memory, nobody gets another answer who has not taken the last one.
    pub fn outbox_bytes_max(&self) -> usize {
        match self.queued_bytes.get() > self.queued_bytes_max {
            true => 1,
            false => OUTBOX_BYTES_MAX,
        }
    }

    pub fn open(&self, socket: Rc<Socket>) -> Rc<Connection> {
        let connection = Rc::new(Connection {
            id: Cell::new(ConnId {
                shard: self.shard,
                slot: 0,
                generation: 0,
            }),
            peer: canonical(socket.peer_addr()),
            outbox: Outbox::counted(Rc::clone(&socket), Rc::clone(&self.queued_bytes)),
            socket,
            dirty: Cell::new(false),
            last_traffic: Cell::new(reactor::turn_time()),
            cold_reads: ColdReads::of_connection(),
            parked_pulls: Cell::new(0),
            for_coordinator: RefCell::default(),
            unanswered: Cell::new(0),
            answer_came: Notify::new(),
        });
        let key = self.slab.borrow_mut().insert(Rc::clone(&connection));
        connection.id.set(ConnId {
            shard: self.shard,
            slot: key.slot,
            generation: key.generation,
        });
        connection
    }

    /// From here on answers to this connection are dropped.
    pub fn close(&self, id: ConnId) {
        self.slab.borrow_mut().remove(key(id));
    }

    pub fn get(&self, id: ConnId) -> Option<Rc<Connection>> {
        debug_assert_eq!(
            id.shard, self.shard,
            "answers go to the shard that owns the socket"
        );
        self.slab.borrow().get(key(id)).map(Rc::clone)
    }

    /// Runs `write` on the bytes queued for a connection; false if it is gone. `commit` sends them off.
    pub fn reply(&self, id: ConnId, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let slab = self.slab.borrow();
        let Some(connection) = slab.get(key(id)) else {
            return false;
        };
        connection.outbox.with(write);
        self.mark(connection);
        true
    }

    /// To be called by whoever queued something through `Connection::outbox`.
    pub fn mark(&self, connection: &Rc<Connection>) {
        if !connection.dirty.replace(true) {
            connection.touch();
            self.dirty.borrow_mut().push(Rc::clone(connection));
        }
    }

    /// Sends off what was queued since the last call: once for each connection, however many answers it got.
    pub fn commit(&self) {
        for connection in self.dirty.borrow_mut().drain(..) {
            connection.dirty.set(false);
            connection.outbox.commit();
        }
    }

    pub fn len(&self) -> usize {
        self.slab.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn all(&self) -> Vec<Rc<Connection>> {
        self.slab.borrow().values().map(Rc::clone).collect()
    }

    /// Those without a byte in either direction for `idle`.
    pub fn silent_for(&self, idle: Duration) -> Vec<Rc<Connection>> {
        let now = reactor::turn_time();
        let silent = |connection: &&Rc<Connection>| {
            now.saturating_since(connection.last_traffic.get()) >= idle
        };
        let slab = self.slab.borrow();
        slab.values().filter(silent).map(Rc::clone).collect()
    }
}

/// An IPv4 peer of a dual-stack socket is an IPv4 peer.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

fn key(id: ConnId) -> Key {
    Key {
        slot: id.slot,
        generation: id.generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_all_together_hold_too_much_nobody_gets_a_second_answer_before_the_first_was_taken() {
        let connections = Connections::new(0, 100);
        connections.queued_bytes.set(100);
        assert_eq!(connections.outbox_bytes_max(), OUTBOX_BYTES_MAX);
        connections.queued_bytes.set(101);
        assert_eq!(connections.outbox_bytes_max(), 1);
    }
}
