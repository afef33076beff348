//! The simulated network: reliable byte streams between the addresses of a world, as TCP gives them.
//!
//! A connection is two ends. What one end sends travels as packets that are cut at random, take a random time and
//! arrive in order; a stream holds at most [`WINDOW_BYTES`] that its reader has not taken. The dead do not speak: packets
//! to an end that is gone are answered with a reset, a killed process resets its peers, a machine without power says
//! nothing, and what meets a partition waits for it to heal.

mod listener;
mod socket;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    task::{Poll, Waker},
};

pub(crate) use listener::Listener;
pub(crate) use socket::{DetachedSocket, Socket};

use super::{shared::State, world::NodeId};
use crate::time::Instant;

/// Bytes of one direction that are sent but not read.
const WINDOW_BYTES: usize = 256 * 1024;
/// The longest packet, and the longest chunk a receive returns: like a receive buffer of the ring.
const PACKET_BYTES_MAX: usize = 32 * 1024;
const BACKLOG_MAX: usize = 4096;
const EPHEMERAL_PORTS: std::ops::Range<u16> = 32_768..61_000;

/// The state of the network of one world.
pub(super) struct Net {
    hosts: BTreeMap<Ipv4Addr, NodeId>,
    ends: BTreeMap<EndId, End>,
    listeners: BTreeMap<ListenerId, Listening>,
    /// Pairs that cannot reach each other, the smaller first.
    partitions: BTreeSet<(NodeId, NodeId)>,
    /// What is caught in a partition, in order of arrival there.
    held: Vec<Packet>,
    next_id: u64,
    next_port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct EndId(u64);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct ListenerId(u64);

/// One end of a connection.
struct End {
    node: NodeId,
    peer_node: NodeId,
    local: SocketAddr,
    peer_addr: SocketAddr,
    /// None while the connection is being made.
    peer: Option<EndId>,
    /// The answer to the connecting side; None while there is none.
    connected: Option<Result<(), ErrorKind>>,
    inbound: VecDeque<u8>,
    /// The peer sends nothing more.
    ended: bool,
    /// This side has shut down.
    shut: bool,
    /// Why nothing works any more.
    broken: Option<ErrorKind>,
    /// Bytes sent that the peer has not read.
    unread_by_peer: usize,
    /// Nothing sent later arrives earlier.
    last_arrival: Instant,
    receiver: Option<Waker>,
    sender: Option<Waker>,
}

struct Listening {
    node: NodeId,
    addr: SocketAddr,
    queue: VecDeque<EndId>,
    acceptor: Option<Waker>,
}

/// Something under way between two nodes.
pub(super) struct Packet {
    from: NodeId,
    to: NodeId,
    content: Content,
}

enum Content {
    Connect {
        client: EndId,
        addr: SocketAddr,
    },
    Connected {
        client: EndId,
    },
    Refused {
        client: EndId,
    },
    Data {
        from: EndId,
        to: EndId,
        bytes: Vec<u8>,
    },
    End {
        to: EndId,
    },
    Reset {
        to: EndId,
    },
}

impl Default for Net {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            ends: BTreeMap::new(),
            listeners: BTreeMap::new(),
            partitions: BTreeSet::new(),
            held: Vec::new(),
            next_id: 0,
            next_port: EPHEMERAL_PORTS.start,
        }
    }
}

impl Net {
    pub(super) fn add_host(&mut self, ip: Ipv4Addr, node: NodeId) {
        let before = self.hosts.insert(ip, node);
        assert!(before.is_none(), "{ip} belongs to another node already");
    }

    pub(super) fn partition(&mut self, a: NodeId, b: NodeId) {
        self.partitions.insert(pair(a, b));
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn new_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = match port + 1 {
            end if end == EPHEMERAL_PORTS.end => EPHEMERAL_PORTS.start,
            next => next,
        };
        port
    }

    /// The node behind an address, as seen from `from`.
    fn node_of(&self, from: NodeId, ip: IpAddr) -> Option<NodeId> {
        match ip {
            IpAddr::V4(ip) if ip.is_loopback() => Some(from),
            IpAddr::V4(ip) => self.hosts.get(&ip).copied(),
            IpAddr::V6(_) => None,
        }
    }

    fn ip_of(&self, node: NodeId) -> Ipv4Addr {
        let host = self.hosts.iter().find(|(_, owner)| **owner == node);
        *host.expect("every node has an address").0
    }

    fn listener_at(&mut self, node: NodeId, addr: SocketAddr) -> Option<&mut Listening> {
        self.listeners
            .values_mut()
            .find(|listening| listening.node == node && listening.covers(addr))
    }

    fn add_end(&mut self, end: End) -> EndId {
        let id = EndId(self.new_id());
        self.ends.insert(id, end);
        id
    }
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

impl Listening {
    fn covers(&self, addr: SocketAddr) -> bool {
        self.addr.port() == addr.port()
            && (self.addr.ip().is_unspecified()
                || addr.ip().is_unspecified()
                || self.addr.ip() == addr.ip())
    }
}

impl End {
    fn new(node: NodeId, peer_node: NodeId, local: SocketAddr, peer_addr: SocketAddr) -> Self {
        Self {
            node,
            peer_node,
            local,
            peer_addr,
            peer: None,
            connected: None,
            inbound: VecDeque::new(),
            ended: false,
            shut: false,
            broken: None,
            unread_by_peer: 0,
            last_arrival: Instant::from_nanos(0),
            receiver: None,
            sender: None,
        }
    }
}

/// What arrives.
impl State {
    pub(super) fn arrive(&mut self, packet: Packet) {
        let between = pair(packet.from, packet.to);
        if packet.from != packet.to && self.net.partitions.contains(&between) {
            self.net.held.push(packet);
            return;
        }
        match packet.content {
            Content::Connect { client, addr } => {
                self.trace.fold_all([1, client.0, u64::from(addr.port())]);
                self.connect_arrives(packet.to, client, addr);
            }
            Content::Connected { client } => {
                self.trace.fold_all([2, client.0]);
                self.answer_connect(client, Ok(()));
            }
            Content::Refused { client } => {
                self.trace.fold_all([3, client.0]);
                self.answer_connect(client, Err(ErrorKind::ConnectionRefused));
            }
            Content::Data { from, to, bytes } => {
                self.trace.fold_all([4, from.0, to.0]);
                self.trace.fold_bytes(&bytes);
                self.data_arrives(from, to, &bytes);
            }
            Content::End { to } => {
                self.trace.fold_all([5, to.0]);
                // Behind a reset nothing counts: what came in between is gone, and its reader is told so.
                self.change_end(to, |end| end.ended |= end.broken.is_none());
            }
            Content::Reset { to } => {
                self.trace.fold_all([6, to.0]);
                self.break_end(to);
            }
        }
    }

    fn connect_arrives(&mut self, node: NodeId, client: EndId, addr: SocketAddr) {
        let Some(asking) = self.net.ends.get(&client) else {
            return;
        };
        let mut end = End::new(node, asking.node, addr, asking.local);
        let client_node = asking.node;
        end.peer = Some(client);
        end.connected = Some(Ok(()));
        let free = self
            .net
            .listener_at(node, addr)
            .is_some_and(|listening| listening.queue.len() < BACKLOG_MAX);
        if !free {
            self.dispatch(node, client_node, Content::Refused { client });
            return;
        }
        let server = self.net.add_end(end);
        if let Some(asking) = self.net.ends.get_mut(&client) {
            asking.peer = Some(server);
        }
        let mut acceptor = None;
        if let Some(listening) = self.net.listener_at(node, addr) {
            listening.queue.push_back(server);
            acceptor = listening.acceptor.take();
        }
        self.wake(&mut acceptor);
        // Data of the accepting side may not overtake this answer.
        let at = self.dispatch(node, client_node, Content::Connected { client });
        if let Some(end) = self.net.ends.get_mut(&server) {
            end.last_arrival = at;
        }
    }

    fn answer_connect(&mut self, client: EndId, answer: Result<(), ErrorKind>) {
        self.change_end(client, |end| end.connected = Some(answer));
    }

    fn data_arrives(&mut self, from: EndId, to: EndId, bytes: &[u8]) {
        if self.chance.happens(self.faults.drop_connection_ppm) {
            self.break_end(from);
            self.break_end(to);
            return;
        }
        match self.net.ends.get_mut(&to) {
            Some(end) if end.broken.is_none() && !end.shut => {
                end.inbound.extend(bytes);
                let mut receiver = end.receiver.take();
                self.wake(&mut receiver);
            }
            _ => self.answer_with_reset(from),
        }
    }

    fn answer_with_reset(&mut self, from: EndId) {
        if let Some(end) = self.net.ends.get(&from) {
            let (node, peer_node) = (end.node, end.peer_node);
            self.dispatch(peer_node, node, Content::Reset { to: from });
        }
    }

    fn break_end(&mut self, id: EndId) {
        self.change_end(id, |end| {
            end.broken.get_or_insert(ErrorKind::ConnectionReset);
        });
    }

    /// Changes an end, if it still exists, and wakes whoever waits on it.
    fn change_end(&mut self, id: EndId, change: impl FnOnce(&mut End)) {
        if let Some(end) = self.net.ends.get_mut(&id) {
            change(end);
            let (mut receiver, mut sender) = (end.receiver.take(), end.sender.take());
            self.wake(&mut receiver);
            self.wake(&mut sender);
        }
    }
}

/// What leaves.
impl State {
    /// Sends something that belongs to no stream yet. Returns when it arrives.
    fn dispatch(&mut self, from: NodeId, to: NodeId, content: Content) -> Instant {
        let at = self.now + self.chance.between(self.faults.net_delay);
        self.schedule(at, Packet { from, to, content });
        at
    }

    /// Sends something behind all that the end has sent before.
    fn dispatch_in_order(&mut self, id: EndId, content: Content) {
        let delay = self.chance.between(self.faults.net_delay);
        let Some(end) = self.net.ends.get_mut(&id) else {
            return;
        };
        let at = (self.now + delay).max(end.last_arrival);
        end.last_arrival = at;
        let packet = Packet {
            from: end.node,
            to: end.peer_node,
            content,
        };
        self.schedule(at, packet);
    }

    /// Takes as many of the bytes as the window has room for.
    fn send(&mut self, id: EndId, bytes: &[u8], waker: &Waker) -> Poll<io::Result<usize>> {
        let Some(end) = self.net.ends.get_mut(&id) else {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        };
        if let Some(broken) = end.broken {
            return Poll::Ready(Err(broken.into()));
        }
        let Some(to) = end.peer.filter(|_| !end.shut) else {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        };
        let room = WINDOW_BYTES - end.unread_by_peer;
        let taken = room.min(bytes.len());
        if taken == 0 {
            end.sender = Some(waker.clone());
            return Poll::Pending;
        }
        end.unread_by_peer += taken;
        let mut rest = &bytes[..taken];
        while !rest.is_empty() {
            let (packet, later) = rest.split_at(self.cut(rest.len()));
            rest = later;
            let content = Content::Data {
                from: id,
                to,
                bytes: packet.to_vec(),
            };
            self.dispatch_in_order(id, content);
        }
        Poll::Ready(Ok(taken))
    }

    /// How many of `len` bytes go together: all of them as often as not.
    fn cut(&mut self, len: usize) -> usize {
        let longest = len.min(PACKET_BYTES_MAX);
        if self.chance.flip() {
            longest
        } else {
            1 + self.chance.below(longest)
        }
    }

    fn receive(&mut self, id: EndId, waker: &Waker) -> Poll<io::Result<Vec<u8>>> {
        let Some(end) = self.net.ends.get_mut(&id) else {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        };
        let available = end.inbound.len();
        if available == 0 {
            if end.shut || end.ended {
                return Poll::Ready(Ok(Vec::new()));
            }
            if let Some(broken) = end.broken {
                return Poll::Ready(Err(broken.into()));
            }
            end.receiver = Some(waker.clone());
            return Poll::Pending;
        }
        let count = self.cut(available);
        let mut bytes = Vec::new();
        let mut peer = None;
        if let Some(end) = self.net.ends.get_mut(&id) {
            bytes.extend(end.inbound.drain(..count));
            peer = end.peer;
        }
        if let Some(peer) = peer.and_then(|peer| self.net.ends.get_mut(&peer)) {
            peer.unread_by_peer = peer
                .unread_by_peer
                .checked_sub(count)
                .expect("only what was sent is read");
            let mut sender = peer.sender.take();
            self.wake(&mut sender);
        }
        Poll::Ready(Ok(bytes))
    }

    fn shut_down(&mut self, id: EndId) {
        let Some(end) = self.net.ends.get(&id) else {
            return;
        };
        if let Some(to) = end.peer.filter(|_| !end.shut) {
            self.dispatch_in_order(id, Content::End { to });
        }
        self.change_end(id, |end| end.shut = true);
    }

    /// The last owner is gone. The peer is told in order, with a reset if bytes were left unread.
    fn close_end(&mut self, id: EndId) {
        let Some(end) = self.net.ends.get(&id) else {
            return;
        };
        if let Some(to) = end.peer {
            if !end.inbound.is_empty() {
                self.dispatch_in_order(id, Content::Reset { to });
            } else if !end.shut {
                self.dispatch_in_order(id, Content::End { to });
            }
        }
        self.net.ends.remove(&id);
    }

    fn close_listener(&mut self, id: ListenerId) {
        if let Some(mut listening) = self.net.listeners.remove(&id) {
            self.wake(&mut listening.acceptor);
            for end in listening.queue {
                self.reset_end(end);
            }
        }
    }

    fn reset_end(&mut self, id: EndId) {
        if let Some(to) = self.net.ends.get(&id).and_then(|end| end.peer) {
            self.dispatch_in_order(id, Content::Reset { to });
        }
        self.net.ends.remove(&id);
    }
}

/// What befalls whole nodes.
impl State {
    /// The node's process is gone; with power left, its kernel resets all peers.
    pub(super) fn drop_node(&mut self, node: NodeId, has_power: bool) {
        self.net
            .listeners
            .retain(|_, listening| listening.node != node);
        let ends: Vec<EndId> = self
            .net
            .ends
            .iter()
            .filter(|(_, end)| end.node == node)
            .map(|(id, _)| *id)
            .collect();
        for id in ends {
            if has_power {
                self.reset_end(id);
            } else {
                self.net.ends.remove(&id);
            }
        }
    }

    /// The two nodes reach each other again; what was held arrives now.
    pub(super) fn heal(&mut self, a: NodeId, b: NodeId) {
        self.net.partitions.remove(&pair(a, b));
        let between = |packet: &Packet| pair(packet.from, packet.to) == pair(a, b);
        let (free, held) = std::mem::take(&mut self.net.held)
            .into_iter()
            .partition(between);
        self.net.held = held;
        let free: Vec<Packet> = free;
        free.into_iter().for_each(|packet| self.arrive(packet));
    }
}
