//! The connections of one shard: who they are, what is queued for them, when they were last heard of.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::{Instant, Outbox, Socket};

use crate::messages::{ConnId, ToCoordinator};
use crate::request_inbox::RequestInbox;
use crate::shard::slab::{Key, Slab};

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
    /// What did not fit into the coordinator's inbox, in order; the connection is not read from until it is empty.
    for_coordinator: RefCell<VecDeque<ToCoordinator>>,
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
    pub fn to_coordinator(&self, inbox: &RequestInbox, message: ToCoordinator) {
        let mut waiting = self.for_coordinator.borrow_mut();
        if !waiting.is_empty() {
            waiting.push_back(message);
            return;
        }
        if let Err(message) = inbox.try_send(message) {
            waiting.push_back(message);
        }
    }

    pub async fn flush_to_coordinator(&self, inbox: &RequestInbox) {
        loop {
            let Some(message) = self.for_coordinator.borrow_mut().pop_front() else {
                return;
            };
            if !inbox.send(message).await {
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
}

impl Connections {
    pub fn new(shard: u16) -> Self {
        Self {
            shard,
            ..Self::default()
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
            outbox: Outbox::new(Rc::clone(&socket)),
            socket,
            dirty: Cell::new(false),
            last_traffic: Cell::new(reactor::turn_time()),
            parked_pulls: Cell::new(0),
            for_coordinator: RefCell::default(),
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
