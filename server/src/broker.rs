//! A whole broker: the order in which its parts start and stop.
//!
//! It runs on the core that starts it, as shard 0 with the coordinator; other shards, and the writer where it has a CPU of
//! its own, get cores of theirs. Parts talk by mailboxes in every case, so nothing below knows how many cores there are.

pub mod cores;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use engine::{FlushConfig, FlusherKind, OpenError, SEGMENT_BYTES_DEFAULT, Store, WindowConfig};
use namesrv::NameServer;
use reactor::mailbox::{self, Receiver, Reply, Sender, oneshot};
use reactor::{CoreHandle, Listener};

use crate::config::Settings;
use crate::coordinator::{Coordinator, state};
use crate::delay::{Delay, Progress};
use crate::health;
use crate::memory::Budget;
use crate::messages::{
    COORDINATOR_INBOX_REQUESTS_MAX, SHARD_INBOX_ITEMS_MAX, Shared, ToCoordinator, ToShard,
    ToWriter, WRITER_INBOX_BATCHES_MAX,
};
use crate::net::listener::Listeners;
use crate::published::Published;
use crate::registration::Registration;
use crate::request_inbox::RequestInbox;
use crate::shard::Shard;
use crate::stats::Stats;
use crate::transaction::Transactions;
use crate::writer;
use cores::Plan;

/// Why a broker did not start: one sentence with the way out.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error("the writer's core ended before the store was open")]
    Writer,
    #[error("the tables under {dir} cannot be loaded: {source}")]
    Tables { dir: PathBuf, source: io::Error },
    #[error(
        "{0} is in use already: stop what listens there, or set another listenPort (the port 2 below it is used as well)"
    )]
    PortInUse(SocketAddr),
    #[error(
        "{0} is in use already, so no name server can be embedded: use the one that is there with `-n {0}`, or set another namesrvListenPort"
    )]
    NameServerPortInUse(SocketAddr),
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("what POP consumers have taken cannot be read: {0}")]
    Pop(io::Error),
    #[error(transparent)]
    Core(#[from] reactor::StartError),
}

/// A running broker. Lives on the core of shard 0.
pub struct Broker {
    shared: Shared,
    coordinator: Rc<Coordinator>,
    /// One for each port.
    listeners: Vec<Listeners>,
    registration: Rc<Registration>,
    delay: Delay,
    transactions: Transactions,
    name_server: Option<NameServer>,
    other_cores: OtherCores,
}

/// Cores beside this one. Dropping `ends` lets the shards' cores end.
#[derive(Default)]
struct OtherCores {
    ends: Vec<Sender<()>>,
    handles: Vec<CoreHandle>,
}

/// The mailboxes' receiving ends, until their owners start.
struct Inboxes {
    shards: Vec<Receiver<ToShard>>,
    coordinator: Receiver<ToCoordinator>,
    writer: Receiver<ToWriter>,
}

/// And the sending ends.
struct Addresses {
    shards: Vec<Sender<ToShard>>,
    coordinator: Sender<ToCoordinator>,
    writer: Sender<ToWriter>,
}

impl Broker {
    /// Starts everything; when this returns, the broker takes messages and name servers have been told.
    /// `config_file` is where changed settings are written back.
    pub async fn start(
        settings: Settings,
        config_file: Option<PathBuf>,
    ) -> Result<Self, StartError> {
        let settings = Arc::new(settings);
        let published = Published::new(Arc::clone(&settings));
        let plan = Plan::of(&settings, reactor::cpu_count());
        check_ports(&settings)?;
        state::refuse_rocksdb(&settings).map_err(cannot_load(&settings))?;
        let name_server = embedded_name_server(&settings)?;
        let (addresses, inboxes) = mailboxes(plan.shards.len());
        let mut other_cores = OtherCores::default();

        let opened = open_store(
            &published,
            &plan,
            inboxes.writer,
            &addresses,
            &mut other_cores,
        );
        let store = opened.await?;
        let loaded = state::load(&settings, &store).map_err(cannot_load(&settings))?;
        let shared = Shared {
            settings: published,
            store,
            topics: Published::new(loaded.tables.topics.snapshot()),
            groups: Published::new(loaded.tables.groups.snapshot()),
            forbidden: Published::new(Arc::clone(loaded.tables.groups.forbidden())),
            subscriptions: Published::new(imbl::HashMap::new()),
            ordered_groups: Published::new(imbl::HashSet::new()),
            resets: Published::new(imbl::HashMap::new()),
            writer: addresses.writer,
            requests: RequestInbox::new(addresses.coordinator.clone()),
            coordinator: addresses.coordinator,
            shards: addresses.shards,
            stats: Arc::new(Stats::new(plan.shards.len())),
            timers: Arc::default(),
        };
        let progress = Rc::new(Progress::restore(loaded.delay_offsets.clone()));
        let coordinator = Coordinator::start(
            shared.clone(),
            loaded,
            Rc::clone(&progress),
            config_file,
            inboxes.coordinator,
        );
        let shard = start_shards(&shared, &plan, inboxes.shards, &mut other_cores)?;
        let popped = coordinator.pop.load(&coordinator).await;
        popped.map_err(StartError::Pop)?;
        coordinator.pop.start(&coordinator, &shard);
        // First, at the end of the log as the last run left it.
        let transactions = Transactions::start(&shard, &coordinator).await;
        let delay = Delay::start(&shard, &settings.delay_levels_ms, &progress);
        let delay = delay.map_err(cannot_load(&settings))?;
        // From here on log may go: those who are owed something of it have said so.
        let retention = settings.retention.clone();
        shared.store.set_retention(retention);
        let listeners = listen(&shard, &settings)?;
        let registration = register(&coordinator).await;
        Ok(Self {
            shared,
            coordinator,
            listeners,
            registration,
            delay,
            transactions,
            name_server,
            other_cores,
        })
    }

    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    pub fn coordinator(&self) -> &Rc<Coordinator> {
        &self.coordinator
    }

    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        let listeners = self.listeners.iter();
        listeners.flat_map(Listeners::local_addrs).collect()
    }

    /// Ends in an order that loses nothing: nobody new comes in, what came in is answered, clients are closed, tables are
    /// saved, and the log is closed last.
    pub async fn stop(self) -> io::Result<()> {
        self.listeners.into_iter().for_each(Listeners::close);
        self.registration.stop().await;
        let delay = self.delay.stop().await;
        self.coordinator.members_may_vanish();
        for shard in &self.shared.shards {
            let (reply, stopped) = oneshot();
            if shard.send(ToShard::Stop(reply)).await.is_ok() {
                stopped.await;
            }
        }
        self.transactions.stop(&self.shared).await;
        let (reply, saved) = oneshot();
        if self
            .shared
            .coordinator
            .send(ToCoordinator::Stop(reply))
            .await
            .is_ok()
        {
            saved.await;
        }
        let (reply, closed) = oneshot();
        let closed = match self.shared.writer.send(ToWriter::Stop(reply)).await {
            Ok(()) => closed.await,
            Err(_) => None,
        };
        if let Some(Ok(())) = &closed {
            self.coordinator.log_is_closed().await;
        }
        drop(delay);
        if let Some(name_server) = self.name_server {
            name_server.stop().await;
        }
        self.other_cores.end().await;
        closed.unwrap_or_else(|| Err(io::Error::other("the writer ended before the stop")))
    }
}

impl OtherCores {
    async fn end(self) {
        drop(self.ends);
        for core in self.handles {
            if let Err(panicked) = core.finished().await {
                tracing::error!(%panicked, "a core ended badly");
            }
        }
    }
}

fn embedded_name_server(settings: &Settings) -> Result<Option<NameServer>, StartError> {
    if !settings.embeds_name_server() {
        return Ok(None);
    }
    let config = namesrv::Config {
        bind_addr: settings.bind_address,
        port: settings.namesrv_listen_port,
        kv_config_path: Some(settings.store_root.join("config").join("kvConfig.json")),
        ..namesrv::Config::default()
    };
    let address = config.listen_addr();
    match NameServer::start(config) {
        Ok(server) => Ok(Some(server)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(StartError::NameServerPortInUse(address))
        }
        Err(source) => Err(StartError::Listen { address, source }),
    }
}

fn mailboxes(shards: usize) -> (Addresses, Inboxes) {
    let (to_coordinator, coordinator) = mailbox::channel(COORDINATOR_INBOX_REQUESTS_MAX);
    let (to_writer, writer) = mailbox::channel(WRITER_INBOX_BATCHES_MAX);
    let (to_shards, shards) = (0..shards)
        .map(|_| mailbox::channel(SHARD_INBOX_ITEMS_MAX))
        .unzip();
    let addresses = Addresses {
        shards: to_shards,
        coordinator: to_coordinator,
        writer: to_writer,
    };
    let inboxes = Inboxes {
        shards,
        coordinator,
        writer,
    };
    (addresses, inboxes)
}

/// Opens the store on the core that will write it, and leaves the writer running there.
async fn open_store(
    settings: &Published<Arc<Settings>>,
    plan: &Plan,
    inbox: Receiver<ToWriter>,
    addresses: &Addresses,
    other_cores: &mut OtherCores,
) -> Result<Arc<Store>, StartError> {
    let settings = settings.clone();
    let config = store_config(&settings.load(), plan);
    let shards = addresses.shards.clone();
    let (reply, opened) = oneshot();
    match &plan.writer {
        None => {
            reactor::spawn_urgent("writer", write(config, inbox, shards, settings, reply));
        }
        Some(core) => {
            let core = core.config("writer");
            let handle =
                reactor::launch(core, move || write(config, inbox, shards, settings, reply))?;
            other_cores.handles.push(handle);
        }
    }
    Ok(opened.await.ok_or(StartError::Writer)??)
}

async fn write(
    config: engine::Config,
    inbox: Receiver<ToWriter>,
    shards: Vec<Sender<ToShard>>,
    settings: Published<Arc<Settings>>,
    reply: Reply<Result<Arc<Store>, OpenError>>,
) {
    let mut recovery = health::Recovery::begin(&config.root);
    let opened = Store::open(config, |progress| recovery.say(progress)).await;
    drop(recovery);
    match opened {
        Ok((store, writer)) => {
            reply.send(Ok(store));
            writer::run(writer, inbox, shards, settings).await;
        }
        Err(error) => reply.send(Err(error)),
    }
}

fn store_config(settings: &Settings, plan: &Plan) -> engine::Config {
    let budget = Budget::of(settings.memory_bytes);
    let flusher = settings.fitting_flusher();
    if settings.flusher.is_none() && flusher == FlusherKind::Mmap {
        tracing::info!(
            "the log is written through the page cache: not all of its disks can be written past it"
        );
    }
    let defaults = engine::Config::for_root(&settings.store_root);
    engine::Config {
        log_dirs: settings.log_dirs.clone(),
        segment_bytes: segment_bytes(settings),
        key_index: settings.key_index,
        flusher,
        window: WindowConfig {
            bytes: budget.window_bytes,
            dir: settings.window_dir.clone(),
        },
        hot_bytes: match flusher {
            FlusherKind::Mmap => defaults.hot_bytes,
            FlusherKind::Direct => budget.window_bytes,
        },
        index_bytes: budget.index_bytes,
        cold_cache_bytes: budget.cold_cache_bytes as usize,
        sync_flush: settings.sync_flush,
        flush: FlushConfig {
            interval_ms: settings.flush_interval_ms,
            least_pages: settings.flush_least_pages,
            thorough_ms: settings.flush_thorough_ms,
        },
        shards: plan.shards.len(),
        ..defaults
    }
}

/// A store made with files of another size is opened with that size, unless the settings name one.
fn segment_bytes(settings: &Settings) -> u64 {
    let bytes = settings.segment_bytes;
    let is_named = bytes != SEGMENT_BYTES_DEFAULT;
    match engine::found_segment_bytes(&settings.log_dirs) {
        Ok(Some(found)) if found != bytes && !is_named => {
            tracing::info!(
                found,
                "log files of this size are there, so new ones get it as well"
            );
            found
        }
        _ => bytes,
    }
}

/// Shard 0 here, every other one on a core of its own.
fn start_shards(
    shared: &Shared,
    plan: &Plan,
    inboxes: Vec<Receiver<ToShard>>,
    other_cores: &mut OtherCores,
) -> Result<Rc<Shard>, StartError> {
    let mut inboxes = (0u16..).zip(inboxes);
    let (number, inbox) = inboxes.next().expect("a plan has at least one shard");
    let here = Shard::start(number, shared.clone(), inbox);
    for (number, inbox) in inboxes {
        let core = plan.shards[usize::from(number)].config(&format!("shard-{number}"));
        let shared = shared.clone();
        let (end, mut ended) = mailbox::channel(1);
        let main = move || async move {
            let _shard = Shard::start(number, shared, inbox);
            ended.recv().await;
        };
        other_cores.handles.push(reactor::launch(core, main)?);
        other_cores.ends.push(end);
    }
    Ok(here)
}

/// The main port and the fast one beside it, which serves the same.
fn addresses(settings: &Settings) -> impl Iterator<Item = SocketAddr> {
    let ports = [Some(settings.listen_port), settings.fast_listen_port];
    let ip = settings.bind_address;
    ports
        .into_iter()
        .flatten()
        .map(move |port| SocketAddr::new(ip, port))
}

/// A broker that cannot listen must not open (and leave) a store first.
fn check_ports(settings: &Settings) -> Result<(), StartError> {
    addresses(settings)
        .try_for_each(|address| Listener::check(address).map_err(cannot_listen(address)))
}

fn listen(shard: &Rc<Shard>, settings: &Settings) -> Result<Vec<Listeners>, StartError> {
    addresses(settings)
        .map(|address| Listeners::bind(shard, &[address]).map_err(cannot_listen(address)))
        .collect()
}

fn cannot_load(settings: &Settings) -> impl FnOnce(io::Error) -> StartError {
    let dir = settings.store_root.join("config");
    move |source| StartError::Tables { dir, source }
}

fn cannot_listen(address: SocketAddr) -> impl FnOnce(io::Error) -> StartError {
    move |source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortInUse(address),
        _ => StartError::Listen { address, source },
    }
}

async fn register(coordinator: &Rc<Coordinator>) -> Rc<Registration> {
    let table = {
        let coordinator = Rc::clone(coordinator);
        move || {
            let tables = coordinator.tables();
            (tables.topics.snapshot(), tables.topics.version())
        }
    };
    let settings = coordinator.shared.settings.clone();
    let ordered = {
        let coordinator = Rc::clone(coordinator);
        move |topics: Vec<String>| coordinator.make_ordered(&topics)
    };
    let registration = Registration::start(settings, Rc::new(table), Rc::new(ordered)).await;
    coordinator.set_registration(&registration);
    registration.first_round().await;
    registration
}
