//! TCP sockets: listeners, connections, and moving a connection to another core. Nagle's algorithm is always off.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::chunk::Chunk;
use crate::core;
use crate::driver::{ring, sim};
use crate::gather::Gather;

/// Accepts connections on one address.
pub struct Listener(ListenerBody);

enum ListenerBody {
    Ring(ring::Listener),
    Sim(sim::Listener),
}

impl Listener {
    /// Binds and listens. The address may be taken again at once after a restart.
    pub fn bind(addr: SocketAddr) -> io::Result<Listener> {
        let body = match core::sim() {
            Some(core) => ListenerBody::Sim(sim::Listener::bind(&core, addr)?),
            None => ListenerBody::Ring(ring::Listener::bind(&core::ring(), addr)?),
        };
        Ok(Listener(body))
    }

    /// Whether the address could be bound, without listening on it: who connects while a listener goes away again may be
    /// neither accepted nor refused, and tries again only a second later.
    pub fn check(addr: SocketAddr) -> io::Result<()> {
        match core::sim() {
            Some(core) => sim::Listener::bind(&core, addr).map(drop),
            None => ring::Listener::check(addr),
        }
    }

    pub fn local_addr(&self) -> SocketAddr {
        match &self.0 {
            ListenerBody::Ring(listener) => listener.local_addr(),
            ListenerBody::Sim(listener) => listener.local_addr(),
        }
    }

    /// The next connection. An error (too many open files, say) leaves the listener usable. One accepting task at a time.
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        match &self.0 {
            ListenerBody::Ring(listener) => {
                let socket = listener.accept().await?;
                let peer = socket.peer_addr();
                Ok((Socket(SocketBody::Ring(socket)), peer))
            }
            ListenerBody::Sim(listener) => {
                let (socket, peer) = listener.accept().await?;
                Ok((Socket(SocketBody::Sim(socket)), peer))
            }
        }
    }

    /// Stops listening: a pending and every later accept fails, waiting connections are refused.
    pub fn close(&self) {
        match &self.0 {
            ListenerBody::Ring(listener) => listener.close(),
            ListenerBody::Sim(listener) => listener.close(),
        }
    }
}

/// A connection. Stays on its core; share it with Rc. Closed when the last owner drops it.
pub struct Socket(SocketBody);

enum SocketBody {
    Ring(ring::Socket),
    Sim(sim::Socket),
}

impl Socket {
    pub async fn connect(addr: SocketAddr) -> io::Result<Socket> {
        let body = match core::sim() {
            Some(core) => SocketBody::Sim(sim::Socket::connect(&core, addr).await?),
            None => SocketBody::Ring(ring::Socket::connect(core::ring(), addr).await?),
        };
        Ok(Socket(body))
    }

    /// The next bytes that arrived; empty once the peer has closed. One receiving task at a time. Dropping the future
    /// loses nothing.
    pub async fn recv(&self) -> io::Result<Chunk> {
        match &self.0 {
            SocketBody::Ring(socket) => socket.recv().await,
            SocketBody::Sim(socket) => socket.recv().await,
        }
    }

    /// Sends all bytes and gives the vector back, unchanged. One sending task at a time. Dropping the future leaves open
    /// how much was sent: close the connection then.
    pub async fn send(&self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        match &self.0 {
            SocketBody::Ring(socket) => socket.send(bytes).await,
            SocketBody::Sim(socket) => socket.send(bytes).await,
        }
    }

    /// Like `send`, for whoever has nothing to do before something else happens on this core: that all is sent does not end the
    /// core's sleep, unless somebody asks by `notice` before it begins. Failures and a peer that takes no more do.
    pub(crate) async fn send_quietly(&self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        match &self.0 {
            SocketBody::Ring(socket) => socket.send_quietly(bytes).await,
            SocketBody::Sim(socket) => socket.send(bytes).await,
        }
    }

    /// The core does not sleep before it has noticed which quiet sends are done.
    pub(crate) fn notice(&self) {
        match &self.0 {
            SocketBody::Ring(socket) => socket.notice(),
            SocketBody::Sim(_) => {}
        }
    }

    /// Sends one gather behind the other, of each the head and all slices in order, nothing copied. Gives them back empty. Otherwise
    /// like `send`.
    pub async fn send_gathers(&self, gathers: Vec<Gather>) -> (io::Result<()>, Vec<Gather>) {
        match &self.0 {
            SocketBody::Ring(socket) => socket.send_gathers(gathers).await,
            SocketBody::Sim(socket) => socket.send_gathers(gathers).await,
        }
    }

    /// The same as far as the peer's window allows now; the rest is returned as a copy, to be sent next. Resumes in the next turn,
    /// whatever the peer does.
    pub async fn send_at_once(&self, gathers: Vec<Gather>) -> (io::Result<Vec<u8>>, Vec<Gather>) {
        match &self.0 {
            SocketBody::Ring(socket) => socket.send_at_once(gathers).await,
            SocketBody::Sim(socket) => socket.send_at_once(gathers).await,
        }
    }

    /// Ends both directions at once; a pending receive ends like at a close by the peer.
    pub fn shutdown(&self) {
        match &self.0 {
            SocketBody::Ring(socket) => socket.shutdown(),
            SocketBody::Sim(socket) => socket.shutdown(),
        }
    }

    pub fn peer_addr(&self) -> SocketAddr {
        match &self.0 {
            SocketBody::Ring(socket) => socket.peer_addr(),
            SocketBody::Sim(socket) => socket.peer_addr(),
        }
    }

    pub fn local_addr(&self) -> SocketAddr {
        match &self.0 {
            SocketBody::Ring(socket) => socket.local_addr(),
            SocketBody::Sim(socket) => socket.local_addr(),
        }
    }

    /// Takes the connection off this core. Only before the first receive or send.
    pub fn detach(self) -> DetachedSocket {
        DetachedSocket(match self.0 {
            SocketBody::Ring(socket) => DetachedBody::Ring(socket.detach()),
            SocketBody::Sim(socket) => DetachedBody::Sim(socket.detach()),
        })
    }
}

/// A connection between two cores. Dropping it closes the connection.
pub struct DetachedSocket(DetachedBody);

enum DetachedBody {
    Ring(ring::DetachedSocket),
    Sim(sim::DetachedSocket),
}

impl DetachedSocket {
    /// Makes the connection one of the current core's.
    pub fn attach(self) -> Socket {
        Socket(match self.0 {
            DetachedBody::Ring(socket) => SocketBody::Ring(socket.attach(core::ring())),
            DetachedBody::Sim(socket) => {
                let core = core::sim().expect("a simulated connection stays in its world");
                SocketBody::Sim(socket.attach(&core))
            }
        })
    }

    pub fn peer_addr(&self) -> SocketAddr {
        match &self.0 {
            DetachedBody::Ring(socket) => socket.peer_addr(),
            DetachedBody::Sim(socket) => socket.peer_addr(),
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.local_addr())
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({} - {})", self.local_addr(), self.peer_addr())
    }
}

impl fmt::Debug for DetachedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DetachedSocket({})", self.peer_addr())
    }
}
