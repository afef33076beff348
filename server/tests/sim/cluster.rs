//! One simulated broker machine, and the machine of its clients.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use protocol::Encoding;
use reactor::sim::{NodeId, World};
use server::config::Machine;
use server::{Broker, Settings};

use crate::wire::Wire;

const BROKER_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CLIENTS_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const LISTEN_PORT: u16 = 10_911;
const SEGMENT_BYTES: u64 = 32 << 10;

pub struct Cluster {
    pub world: World,
    pub clients: NodeId,
    broker: NodeId,
    shards: &'static str,
    /// Other than the usual settings.
    change: fn(&mut Settings),
}

impl Cluster {
    pub fn new(mut world: World, shards: &'static str) -> Self {
        let broker = world.node("broker", BROKER_IP);
        let clients = world.node("clients", CLIENTS_IP);
        world.set_cpus(broker, 4);
        Self {
            world,
            clients,
            broker,
            shards,
            change: |_| {},
        }
    }

    /// Its broker has other settings than usual.
    pub fn change(mut self, change: fn(&mut Settings)) -> Self {
        self.change = change;
        self
    }

    /// Its broker tells senders, and shows to consumers, only what the disk has.
    pub fn sync_flush(mut self) -> Self {
        self.change = |settings| settings.sync_flush = true;
        self
    }

    pub fn settings(&self) -> Settings {
        let mut settings = settings(self.shards);
        (self.change)(&mut settings);
        settings
    }

    pub fn address() -> SocketAddr {
        SocketAddr::new(IpAddr::V4(BROKER_IP), LISTEN_PORT)
    }

    /// Starts the broker's process; it runs until it is killed.
    pub fn start_broker(&mut self) {
        let settings = self.settings();
        self.start_with(|| async move {
            let broker = Broker::start(settings, None).await;
            let _running = broker.expect("a broker starts on whatever a kill left behind");
            std::future::pending::<()>().await;
        });
    }

    /// Starts a process of the test's own on the broker's machine.
    pub fn start_with<F>(&mut self, main: impl FnOnce() -> F + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        self.world.start(self.broker, "broker", main);
    }

    pub fn kill_broker(&mut self) {
        self.world.kill(self.broker);
    }

    pub fn cut_power(&mut self) {
        self.world.power_cut(self.broker);
    }

    /// Runs a client until it is done.
    pub fn client<F>(&mut self, client: F) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.world.block_on(self.clients, client)
    }
}

/// Runs a client against a healthy broker.
pub fn with_broker<F>(seed: u64, client: F) -> F::Output
where
    F: Future + 'static,
    F::Output: 'static,
{
    let mut cluster = Cluster::new(World::new(seed), "1");
    cluster.start_broker();
    cluster.client(client)
}

/// A connection to the broker, as soon as it listens.
pub async fn connect() -> Wire {
    loop {
        if let Ok(wire) = Wire::connect(Cluster::address(), Encoding::Json).await {
            return wire;
        }
        reactor::sleep(Duration::from_millis(5)).await;
    }
}

pub fn settings(shards: &str) -> Settings {
    let machine = Machine {
        host_name: "simulated".into(),
        address: IpAddr::V4(BROKER_IP),
        home: PathBuf::from("/home"),
        resolve: |_| Err(std::io::ErrorKind::Unsupported.into()),
    };
    let ip = BROKER_IP.to_string();
    let pairs = [
        ("brokerName", "broker"),
        ("brokerIP1", ip.as_str()),
        ("bindAddress", ip.as_str()),
        ("storePathRootDir", "/store"),
        ("shards", shards),
        // The engine's own worlds run both flushers.
        ("flusher", "mmap"),
    ];
    let mut settings = Settings::from_pairs(&machine, &pairs).expect("these settings are right");
    // Smaller than users may have them, so that a run crosses from one into the next.
    settings.segment_bytes = SEGMENT_BYTES;
    settings
}
