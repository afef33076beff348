//! One simulated machine with a broker that can be stopped, killed and started again, and one for its clients.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use reactor::mailbox::{self, Sender};
use reactor::sim::{NodeId, World};
use server::config::Machine;
use server::{Broker, Settings};

const BROKER_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CLIENTS_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const BROKER: SocketAddr = SocketAddr::new(IpAddr::V4(BROKER_IP), 10_911);
/// The one that the broker has in itself.
pub const NAME_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(BROKER_IP), 9_876);
pub const STORE: &str = "/store";

pub struct Cluster {
    pub world: World,
    clients: NodeId,
    broker: NodeId,
    settings: Vec<(String, String)>,
    stop: Option<Sender<Sender<()>>>,
}

impl Cluster {
    /// With a broker that runs.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let mut cluster = Self::prepare(settings);
        cluster.start_broker();
        cluster
    }

    /// Without one, for those who want to lay files out first.
    pub fn prepare(settings: &[(&str, &str)]) -> Self {
        let mut world = World::new(7);
        let broker = world.node("broker", BROKER_IP);
        let clients = world.node("clients", CLIENTS_IP);
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Self {
            world,
            clients,
            broker,
            settings: settings.iter().map(owned).collect(),
            stop: None,
        }
    }

    pub fn start_broker(&mut self) {
        let (stop, mut stopped) = mailbox::channel::<Sender<()>>(1);
        self.stop = Some(stop);
        let settings = self.settings();
        let config_file = PathBuf::from("/broker.conf");
        self.world.start(self.broker, "broker", || async move {
            let broker = Broker::start(settings, Some(config_file))
                .await
                .expect("the broker starts");
            if let Some(done) = stopped.recv().await {
                broker.stop().await.expect("the store is closed");
                // Nobody waits where the power is cut meanwhile.
                let _ = done.send(()).await;
            }
        });
        // Until it listens.
        self.clients(|| async {
            while reactor::Socket::connect(BROKER).await.is_err() {
                reactor::sleep(Duration::from_millis(1)).await;
            }
        });
    }

    pub fn kill_broker(&mut self) {
        self.world.kill(self.broker);
    }

    pub fn cut_power(&mut self) {
        self.world.power_cut(self.broker);
    }

    /// In the middle of an orderly end.
    pub fn cut_power_while_stopping(&mut self, after: Duration) {
        let stop = self.stop.take().expect("it runs");
        self.clients(move || async move {
            let (done, _finished) = mailbox::channel(1);
            assert!(stop.send(done).await.is_ok(), "it runs");
            reactor::sleep(after).await;
        });
        self.cut_power();
    }

    /// The orderly end, as on SIGTERM.
    pub fn stop_broker(&mut self) {
        let stop = self.stop.take().expect("it runs");
        self.clients(move || async move {
            let (done, mut finished) = mailbox::channel(1);
            assert!(stop.send(done).await.is_ok(), "it runs");
            finished.recv().await.expect("it stops");
        });
    }

    /// Runs on the clients' machine until it is done.
    pub fn clients<F>(&mut self, main: impl FnOnce() -> F + 'static) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.world.block_on(self.clients, async { main().await })
    }

    /// Runs on the broker's machine, beside its process.
    pub fn on_disk<T: 'static>(&mut self, work: impl FnOnce() -> T + 'static) -> T {
        self.world.block_on(self.broker, async { work() })
    }

    /// The same for what waits. The broker must not run.
    pub fn on_machine<F>(&mut self, work: F) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.world.block_on(self.broker, work)
    }

    fn settings(&self) -> Settings {
        let machine = Machine {
            host_name: "simulated".to_owned(),
            address: IpAddr::V4(BROKER_IP),
            home: PathBuf::from("/home"),
            resolve: |_| Err(std::io::ErrorKind::Unsupported.into()),
        };
        let ip = BROKER_IP.to_string();
        let mut pairs = vec![
            ("brokerName", "broker-a"),
            ("bindAddress", ip.as_str()),
            ("storePathRootDir", STORE),
            ("mappedFileSizeCommitLog", "1048576"),
        ];
        pairs.extend(self.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        Settings::from_pairs(&machine, &pairs).expect("these settings are right")
    }
}
