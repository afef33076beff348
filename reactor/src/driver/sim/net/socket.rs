//! One end of a simulated connection, as a task holds it.

use std::{
    future::poll_fn,
    io::{self, ErrorKind},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use super::{Content, End, EndId};
use crate::{
    chunk::Chunk,
    driver::sim::{Core, shared::Shared},
    gather::Gather,
    timer::timeout,
};

/// Nobody answers, not even with a refusal.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct Socket {
    shared: Arc<Shared>,
    id: EndId,
    local: SocketAddr,
    peer: SocketAddr,
}

/// A socket between two cores of its node.
pub(crate) struct DetachedSocket(Socket);

impl Socket {
    pub(super) fn new(shared: Arc<Shared>, id: EndId, local: SocketAddr, peer: SocketAddr) -> Self {
        Self {
            shared,
            id,
            local,
            peer,
        }
    }

    pub(crate) async fn connect(core: &Rc<Core>, peer: SocketAddr) -> io::Result<Self> {
        let node = core.node();
        let (id, local) = core.shared.with(|state| {
            let peer_node = state
                .net
                .node_of(node, peer.ip())
                .ok_or(ErrorKind::HostUnreachable)?;
            let own_ip = if peer.ip().is_loopback() {
                peer.ip()
            } else {
                state.net.ip_of(node).into()
            };
            let local = SocketAddr::new(own_ip, state.net.new_port());
            let id = state.net.add_end(End::new(node, peer_node, local, peer));
            let content = Content::Connect {
                client: id,
                addr: peer,
            };
            state.dispatch(node, peer_node, content);
            Ok::<_, ErrorKind>((id, local))
        })?;
        // From here on dropping it closes the end, also when the wait below is given up.
        let socket = Self::new(core.shared.clone(), id, local, peer);
        match timeout(CONNECT_TIMEOUT, socket.connected()).await {
            Ok(answer) => answer.map(|()| socket),
            Err(_) => Err(ErrorKind::TimedOut.into()),
        }
    }

    async fn connected(&self) -> io::Result<()> {
        poll_fn(|context| {
            self.shared.with(|state| {
                let Some(end) = state.net.ends.get_mut(&self.id) else {
                    return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
                };
                match (end.connected, end.broken) {
                    (Some(answer), _) => Poll::Ready(answer.map_err(io::Error::from)),
                    (None, Some(broken)) => Poll::Ready(Err(broken.into())),
                    (None, None) => {
                        end.receiver = Some(context.waker().clone());
                        Poll::Pending
                    }
                }
            })
        })
        .await
    }

    pub(crate) async fn recv(&self) -> io::Result<Chunk> {
        let bytes = poll_fn(|context| {
            self.shared
                .with(|state| state.receive(self.id, context.waker()))
        });
        Ok(Chunk::from_vec(bytes.await?))
    }

    pub(crate) async fn send(&self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        (self.send_all(&bytes).await, bytes)
    }

    pub(crate) async fn send_gathers(&self, gathers: Vec<Gather>) -> (io::Result<()>, Vec<Gather>) {
        let (bytes, gathers) = copied(gathers);
        (self.send_all(&bytes).await, gathers)
    }

    /// As on a connection whose peer takes nothing at once.
    pub(crate) async fn send_at_once(
        &self,
        gathers: Vec<Gather>,
    ) -> (io::Result<Vec<u8>>, Vec<Gather>) {
        let (bytes, gathers) = copied(gathers);
        (Ok(bytes), gathers)
    }

    async fn send_all(&self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = poll_fn(|context| {
                self.shared
                    .with(|state| state.send(self.id, rest, context.waker()))
            });
            rest = &rest[taken.await?..];
        }
        Ok(())
    }

    pub(crate) fn shutdown(&self) {
        self.shared.with(|state| state.shut_down(self.id));
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn detach(self) -> DetachedSocket {
        DetachedSocket(self)
    }
}

/// Their bytes, and the gathers, empty.
fn copied(mut gathers: Vec<Gather>) -> (Vec<u8>, Vec<Gather>) {
    let mut bytes = Vec::new();
    for gather in &mut gathers {
        gather.for_each_slice(|slice| bytes.extend_from_slice(slice));
        gather.clear();
    }
    (bytes, gathers)
}

impl DetachedSocket {
    pub(crate) fn attach(self, _core: &Rc<Core>) -> Socket {
        self.0
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.0.peer
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.shared.with(|state| state.close_end(self.id));
    }
}
