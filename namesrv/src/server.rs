//! The running name server: accepts connections, looks for silent brokers and idle connections, sweeps, stops.
//!
//! All of it is tasks on the core that called `start`. State is shared between them by `Rc` and `RefCell`; no borrow is held
//! across an await.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

use reactor::{Instant, Listener, Notify, Outbox, Socket, Task};

use crate::config::{Config, Live};
use crate::connection;
use crate::kv_config::KvConfig;
use crate::kv_file::KvFile;
use crate::routes::{ConnectionId, Routes};

/// More connections than this are closed as they come.
pub const CONNECTIONS_MAX: usize = 1_000_000;
/// How many topics or connections are walked before other tasks have their turn: well under a millisecond.
pub(crate) const SLICE: usize = 512;
/// How long clients may take to read the answers they are owed when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// After a failed accept (no file handles, mostly): long enough for others to close, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A name server on this core. Dropping it leaves it running; `stop` ends it.
pub struct NameServer {
    shared: Rc<Shared>,
    local_addr: SocketAddr,
    background: Vec<Task<()>>,
}

/// What the tasks of one name server share.
pub(crate) struct Shared {
    pub routes: RefCell<Routes>,
    pub kv: RefCell<KvConfig>,
    kv_file: KvFile,
    pub live: RefCell<Live>,
    pub config: Config,
    listener: Listener,
    connections: RefCell<BTreeMap<ConnectionId, Connection>>,
    connection_next: Cell<u64>,
    sweep: Notify,
    /// A connection has ended.
    ended: Notify,
    stopping: Cell<bool>,
}

/// The server's hold on a connection whose task runs on its own.
pub(crate) struct Connection {
    pub socket: Rc<Socket>,
    pub outbox: Outbox,
    pub heard_at: Rc<Cell<Instant>>,
}

impl NameServer {
    /// Binds, loads the key-value configuration and serves from then on. Blocks for a small file.
    pub fn start(config: Config) -> io::Result<NameServer> {
        let kv = match &config.kv_config_path {
            Some(path) => KvConfig::load(path).map_err(io::Error::other)?,
            None => KvConfig::default(),
        };
        let listener = Listener::bind(config.listen_addr()).map_err(|error| {
            let addr = config.listen_addr();
            let hint = "listenPort sets another port";
            io::Error::new(
                error.kind(),
                format!("the name server cannot listen on {addr}: {error}; {hint}"),
            )
        })?;
        let local_addr = listener.local_addr();
        let shared = Rc::new(Shared {
            routes: RefCell::new(Routes::new()),
            kv: RefCell::new(kv),
            kv_file: KvFile::new(config.kv_config_path.clone()),
            live: RefCell::new(config.live.clone()),
            config,
            listener,
            connections: RefCell::default(),
            connection_next: Cell::new(1),
            sweep: Notify::new(),
            ended: Notify::new(),
            stopping: Cell::new(false),
        });
        let background = vec![
            reactor::spawn("namesrv-accept", accept(shared.clone())),
            reactor::spawn("namesrv-scan", scan(shared.clone())),
            reactor::spawn("namesrv-sweep", sweep(shared.clone())),
        ];
        tracing::info!(address = %local_addr, "name server listens");
        Ok(NameServer {
            shared,
            local_addr,
            background,
        })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    pub fn broker_count(&self) -> usize {
        self.shared.routes.borrow().broker_count()
    }

    pub fn topic_count(&self) -> usize {
        self.shared.routes.borrow().topic_count()
    }

    pub fn connection_count(&self) -> usize {
        self.shared.connections.borrow().len()
    }

    /// Answers that peers have not taken yet.
    pub fn unsent_bytes(&self) -> usize {
        let connections = self.shared.connections.borrow();
        connections
            .values()
            .map(|one| one.outbox.queued_bytes())
            .sum()
    }

    /// Takes no more connections, sends the answers that are under way, closes everything.
    pub async fn stop(self) {
        self.shared.stopping.set(true);
        self.shared.listener.close();
        for connection in self.shared.connections.borrow().values() {
            connection.outbox.close_after_flush();
        }
        if reactor::timeout(STOP_GRACE, self.shared.all_ended())
            .await
            .is_err()
        {
            for connection in self.shared.connections.borrow().values() {
                connection.outbox.close();
            }
            self.shared.all_ended().await;
        }
        for task in self.background {
            task.cancel();
        }
        tracing::info!(address = %self.local_addr, "name server stopped");
    }
}

impl Shared {
    /// Has the sweeper look whether brokers that went have left something behind.
    pub fn sweep_if_wanted(&self) {
        if self.routes.borrow().sweep_wanted() {
            self.sweep.notify();
        }
    }

    pub fn enter(&self, connection: Connection) -> ConnectionId {
        let id = ConnectionId(self.connection_next.get());
        self.connection_next.set(id.0 + 1);
        self.connections.borrow_mut().insert(id, connection);
        id
    }

    /// A connection has ended: so have the brokers that spoke over it, as far as anyone can tell.
    pub fn forget_brokers_of(&self, id: ConnectionId) {
        let gone = self.routes.borrow_mut().remove_connection(id);
        for broker in gone {
            tracing::warn!(
                cluster = broker.cluster,
                address = broker.addr,
                "broker removed: its connection closed"
            );
        }
        self.sweep_if_wanted();
    }

    pub fn leave(&self, id: ConnectionId) {
        let connection = self.connections.borrow_mut().remove(&id);
        assert!(connection.is_some(), "a connection leaves once");
        self.ended.notify();
    }

    /// Returns once the file holds the last change of the key-value configuration.
    pub async fn save_kv(&self) -> io::Result<()> {
        self.kv_file.save(|| self.kv.borrow().to_json()).await
    }

    async fn all_ended(&self) {
        while !self.connections.borrow().is_empty() {
            self.ended.notified().await;
        }
    }
}

async fn accept(shared: Rc<Shared>) {
    loop {
        match shared.listener.accept().await {
            Ok(_) if shared.stopping.get() => return,
            Ok((socket, peer)) if shared.connections.borrow().len() >= CONNECTIONS_MAX => {
                tracing::warn!(%peer, "connection refused: more than {CONNECTIONS_MAX} are open");
                socket.shutdown();
            }
            Ok((socket, peer)) => {
                reactor::spawn(
                    "namesrv-connection",
                    connection::serve(shared.clone(), Rc::new(socket), peer),
                );
            }
            Err(_) if shared.stopping.get() => return,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                reactor::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Removes the brokers and connections that have been silent for too long.
async fn scan(shared: Rc<Shared>) {
    loop {
        reactor::sleep(shared.config.scan_interval).await;
        let expired = shared.routes.borrow_mut().expire(reactor::turn_time());
        for broker in &expired {
            let silence_s = broker.silence_max.as_secs();
            tracing::warn!(
                cluster = broker.key.cluster,
                address = broker.key.addr,
                silence_s,
                "broker removed: it has been silent for too long"
            );
            // Whatever still lives behind the connection is to connect and register anew.
            if let Some(connection) = shared.connections.borrow().get(&broker.connection) {
                connection.socket.shutdown();
            }
        }
        shared.sweep_if_wanted();
        close_idle(&shared).await;
    }
}

async fn close_idle(shared: &Shared) {
    let idle_max = shared.config.idle_max;
    if idle_max.is_zero() {
        return;
    }
    let mut after = Bound::Unbounded;
    loop {
        let last = {
            let connections = shared.connections.borrow();
            let mut last = None;
            for (id, connection) in connections.range((after, Bound::Unbounded)).take(SLICE) {
                if connection.heard_at.get().elapsed() > idle_max {
                    tracing::debug!(peer = %connection.socket.peer_addr(), "connection closed: idle");
                    connection.socket.shutdown();
                }
                last = Some(*id);
            }
            last
        };
        match last {
            None => return,
            Some(last) => after = Bound::Excluded(last),
        }
        reactor::yield_now().await;
    }
}

/// Cleans the topics of groups that are gone, a slice per turn.
async fn sweep(shared: Rc<Shared>) {
    loop {
        shared.sweep.notified().await;
        while shared.routes.borrow_mut().sweep(SLICE) {
            reactor::yield_now().await;
        }
    }
}
