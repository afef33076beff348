//! Accepting connections on a simulated address.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use super::{ListenerId, Listening, Socket};
use crate::driver::sim::{Core, shared::Shared};

pub(crate) struct Listener {
    shared: Arc<Shared>,
    id: ListenerId,
    addr: SocketAddr,
}

impl Listener {
    pub(crate) fn bind(core: &Rc<Core>, mut addr: SocketAddr) -> io::Result<Self> {
        let node = core.node();
        let id = core.shared.with(|state| {
            let net = &mut state.net;
            let own = match addr.ip() {
                IpAddr::V4(ip) => ip.is_unspecified() || net.node_of(node, addr.ip()) == Some(node),
                IpAddr::V6(_) => false,
            };
            if !own {
                return Err(ErrorKind::AddrNotAvailable);
            }
            if addr.port() == 0 {
                addr.set_port(net.new_port());
            }
            if net.listener_at(node, addr).is_some() {
                return Err(ErrorKind::AddrInUse);
            }
            let id = ListenerId(net.new_id());
            let listening = Listening {
                node,
                addr,
                queue: VecDeque::new(),
                acceptor: None,
            };
            net.listeners.insert(id, listening);
            Ok(id)
        })?;
        Ok(Self {
            shared: core.shared.clone(),
            id,
            addr,
        })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        let accepted = poll_fn(|context| {
            self.shared.with(|state| {
                let net = &mut state.net;
                let Some(listening) = net.listeners.get_mut(&self.id) else {
                    return Poll::Ready(Err(io::Error::from(ErrorKind::NotConnected)));
                };
                while let Some(id) = listening.queue.pop_front() {
                    if let Some(end) = net.ends.get(&id) {
                        return Poll::Ready(Ok((id, end.local, end.peer_addr)));
                    }
                }
                listening.acceptor = Some(context.waker().clone());
                Poll::Pending
            })
        });
        let (id, local, peer) = accepted.await?;
        Ok((Socket::new(self.shared.clone(), id, local, peer), peer))
    }

    pub(crate) fn close(&self) {
        self.shared.with(|state| state.close_listener(self.id));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}
