//! Accepting connections, and giving each to the shard with the fewest.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::{Listener, Socket, Task};

use crate::messages::ToShard;
use crate::net::connection;
use crate::shard::Shard;

/// Between two tries when accepting fails (no more file handles).
const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(100);

/// The ports this broker listens on. Lives on the core of the shard that accepts.
pub struct Listeners {
    open: Vec<(Rc<Listener>, Task<()>)>,
}

impl Listeners {
    /// Binds all addresses or none, and starts accepting.
    pub fn bind(shard: &Rc<Shard>, addresses: &[SocketAddr]) -> io::Result<Self> {
        let listeners: Vec<Rc<Listener>> = addresses
            .iter()
            .map(|&address| Listener::bind(address).map(Rc::new))
            .collect::<io::Result<_>>()?;
        let open = listeners.into_iter().map(|listener| {
            let accepting = accept(Rc::clone(shard), Rc::clone(&listener));
            (listener, reactor::spawn("listener", accepting))
        });
        Ok(Self {
            open: open.collect(),
        })
    }

    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        let listeners = self.open.iter();
        listeners
            .map(|(listener, _)| listener.local_addr())
            .collect()
    }

    /// From here on nobody new comes in.
    pub fn close(self) {
        for (listener, task) in self.open {
            task.cancel();
            listener.close();
        }
    }
}

async fn accept(shard: Rc<Shard>, listener: Rc<Listener>) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => place(&shard, socket).await,
            Err(error) => {
                tracing::error!(port = listener.local_addr().port(), %error, "cannot accept connections");
                reactor::sleep(ACCEPT_RETRY_AFTER).await;
            }
        }
    }
}

/// The counter goes up here, not when the shard hears of it: a burst spreads evenly.
async fn place(shard: &Rc<Shard>, socket: Socket) {
    let stats = &shard.shared.stats;
    let target = stats.least_loaded();
    stats.shard(target).connections.add(1);
    if target == shard.number() {
        connection::start(shard, socket);
        return;
    }
    let message = ToShard::Accepted(socket.detach());
    let mailbox = &shard.shared.shards[usize::from(target)];
    if mailbox.send(message).await.is_err() {
        stats.shard(target).connections.sub(1);
    }
}
