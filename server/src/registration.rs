//! The broker's side of registration: every name server is told who this broker is and which topics it has.
//!
//! ```text
//! coordinator ── topics_changed ──► one task per name server ── 103, 217, 322, 104 ──► name server
//!                                   (link.rs: its connection; pieces.rs: the table in bodies of bounded size)
//! ```
//!
//! Each name server has a connection of its own, for its end is how the name server learns of this broker's end. At once on
//! connect everything is registered; after that every period the data version is confirmed, changed topics go alone, and
//! everything goes again only if the name server holds something else. Nothing here owns a topic: tables are read through
//! `Source` when they are needed.

pub mod address_server;
mod link;
mod pieces;
pub mod route;
mod server;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use protocol::body::topic_config::{DataVersion, TopicConfig};
use reactor::{Instant, Notify, Task};

use crate::config::{AddressServer, Settings};
use crate::messages::TopicTable;
use crate::published::Published;
use server::Server;

/// How long the start of the broker waits for name servers before it goes on without them.
const FIRST_ROUND_MAX: Duration = Duration::from_secs(3);
/// And once one of them knows the broker, how long for the others: one that is down must not hold up the start.
const FIRST_ROUND_OTHERS_MAX: Duration = Duration::from_millis(200);
/// How long this broker stays registered with a name server that is no longer named: as long as RocketMQ's clients take to
/// ask the address server again.
const LEAVING: Duration = Duration::from_secs(120);
/// How long the stop of the broker waits to be unregistered everywhere.
const STOP_MAX: Duration = Duration::from_secs(3);

/// Who this broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: String,
    pub broker_name: String,
    pub broker_id: i64,
    /// Where clients reach it.
    pub broker_addr: String,
    /// Where its slaves reach it.
    pub ha_addr: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `host:port` of each name server.
    pub name_servers: Vec<String>,
    pub period: Duration,
    pub request_timeout: Duration,
    /// Everything goes every period, even if the name server says that it has it.
    pub force: bool,
    /// Changed topics go by request 217, which stock name servers know from 5.0 on.
    pub single_topic: bool,
    pub piece: PieceLimits,
}

/// How much of the table goes in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceLimits {
    pub bytes_max: usize,
    pub topics_max: usize,
}

impl Default for PieceLimits {
    /// About 5,000 topics: far below a frame's limit, and parsed by any name server within some ten milliseconds.
    fn default() -> PieceLimits {
        PieceLimits {
            bytes_max: 1 << 20,
            topics_max: usize::MAX,
        }
    }
}

/// The table as it is now. Whoever owns it gives it a new version with every change, before telling of the change.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub topics: TopicTable,
    pub version: DataVersion,
    /// What the whole broker may do; taken from the permission of every topic.
    pub broker_permission: i32,
}

/// Where the tables are read when they are needed.
pub type Source = Rc<dyn Fn() -> Snapshot>;

/// Who is told which topics name servers say are ordered; of some again and again.
pub type Ordered = Rc<dyn Fn(Vec<String>)>;

/// What a slave is told of its master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    pub addr: String,
    pub ha_addr: String,
}

/// What the tasks of all name servers share.
struct Common {
    identity: Identity,
    options: Options,
    source: Source,
    ordered: Ordered,
    master: RefCell<Option<Master>>,
    /// A name server was tried for the first time.
    tried: Notify,
}

/// The registration of this broker everywhere. Lives on the coordinator's core.
pub struct Registration {
    members: RefCell<Vec<Member>>,
    common: Rc<Common>,
    /// Asks the address server for other name servers.
    following: RefCell<Option<Task<()>>>,
}

/// A name server and the task that keeps this broker registered there.
struct Member {
    server: Rc<Server>,
    task: Task<()>,
    /// It is no longer named: from then on this broker is not registered there.
    leaves_at: Option<Instant>,
}

impl Member {
    fn join(addr: &str, common: &Rc<Common>) -> Member {
        let server = Rc::new(Server::new(addr));
        let registering = server.clone().keep_registered(common.clone());
        Member {
            server,
            task: reactor::spawn("registration", registering),
            leaves_at: None,
        }
    }
}

impl Registration {
    /// Starts registering by the settings, and keeps on until `stop`. Where an address server names the name servers, it has
    /// been asked once when this returns.
    pub async fn start(
        settings: Published<Arc<Settings>>,
        table: Rc<dyn Fn() -> (TopicTable, DataVersion)>,
        ordered: Ordered,
    ) -> Rc<Registration> {
        let address_server = settings.load().address_server.clone();
        if let Some(server) = &address_server {
            address_server::ask_and_publish(server, &settings).await;
        }
        let now = settings.load();
        let identity = Identity {
            cluster: now.cluster_name.clone(),
            broker_name: now.broker_name.clone(),
            broker_id: now.broker_id,
            broker_addr: now.registered(),
            ha_addr: now.ha_address(),
        };
        let topics_max = match now.enable_split_registration {
            // One topic alone is a change to a registration, not a registration.
            true => now.split_registration_size.max(2),
            false => usize::MAX,
        };
        let options = Options {
            name_servers: now.namesrv_list(),
            period: Duration::from_millis(now.register_period_ms),
            request_timeout: Duration::from_millis(now.register_timeout_ms),
            force: now.force_register,
            single_topic: now.enable_single_topic_register,
            piece: PieceLimits {
                topics_max,
                ..PieceLimits::default()
            },
        };
        let read = settings.clone();
        let source = move || {
            let (topics, version) = table();
            Snapshot {
                topics,
                version,
                broker_permission: read.load().broker_permission,
            }
        };
        let registration = Registration::launch(identity, options, Rc::new(source), ordered);
        if let Some(server) = address_server {
            registration.follow(server, settings);
        }
        registration
    }

    pub fn launch(
        identity: Identity,
        options: Options,
        source: Source,
        ordered: Ordered,
    ) -> Rc<Registration> {
        let name_servers = options.name_servers.clone();
        let common = Rc::new(Common {
            identity,
            options,
            source,
            ordered,
            master: RefCell::new(None),
            tried: Notify::new(),
        });
        let registration = Rc::new(Registration {
            members: RefCell::default(),
            common,
            following: RefCell::default(),
        });
        registration.use_name_servers(&name_servers);
        registration
    }

    /// From now on these are the name servers. This broker registers with new ones at once; with one that is not named any
    /// longer it stays registered until clients have had time to hear of the others, too. To be called again and again.
    pub fn use_name_servers(&self, addrs: &[String]) {
        let now = reactor::turn_time();
        let mut members = self.members.borrow_mut();
        for member in members.iter_mut() {
            member.leaves_at = match addrs.contains(&member.server.addr) {
                true => None,
                false => member.leaves_at.or(Some(now + LEAVING)),
            };
        }
        members.retain(|member| {
            let stays = member.leaves_at.is_none_or(|at| at > now);
            if !stays {
                // Its task goes on until it is unregistered there.
                member.server.stop();
            }
            stays
        });
        for addr in addrs {
            if !members.iter().any(|member| member.server.addr == *addr) {
                members.push(Member::join(addr, &self.common));
            }
        }
    }

    /// Asks the address server every period from now on, and uses what it names.
    fn follow(self: &Rc<Self>, server: AddressServer, settings: Published<Arc<Settings>>) {
        let following = address_server::follow(Rc::downgrade(self), server, settings);
        let task = reactor::spawn("address-server", following);
        self.following.replace(Some(task));
    }

    fn all(&self, condition: impl Fn(&Server) -> bool) -> bool {
        let members = self.members.borrow();
        members.iter().all(|member| condition(&member.server))
    }

    fn any(&self, condition: impl Fn(&Server) -> bool) -> bool {
        let members = self.members.borrow();
        members.iter().any(|member| condition(&member.server))
    }

    /// These topics are new or changed. To be called after the table has its new version.
    pub fn topics_changed(&self, changed: Vec<Arc<TopicConfig>>) {
        for member in self.members.borrow().iter() {
            let names = changed.iter().map(|topic| topic.topic_name.as_str());
            member.server.topics_changed(names);
        }
    }

    /// Something that every registration carries has changed.
    pub fn register_all(&self) {
        let members = self.members.borrow();
        members
            .iter()
            .for_each(|member| member.server.everything_changed());
    }

    /// Waits until every name server was tried once, but not for long: the broker serves without them, too.
    pub async fn first_round(&self) {
        let all = || self.all(Server::was_tried);
        let one = || all() || self.any(Server::was_registered);
        // Whether that is so is looked at below.
        let _ = reactor::timeout(FIRST_ROUND_MAX, self.tried_until(one)).await;
        let others = self.tried_until(all);
        if reactor::timeout(FIRST_ROUND_OTHERS_MAX, others)
            .await
            .is_err()
        {
            tracing::warn!("not every name server has answered yet");
        }
    }

    async fn tried_until(&self, condition: impl Fn() -> bool) {
        while !condition() {
            self.common.tried.notified().await;
        }
    }

    /// The master of this slave, once a name server has named it.
    pub fn master(&self) -> Option<Master> {
        self.common.master.borrow().clone()
    }

    /// Unregisters everywhere and ends. Name servers that do not answer notice when the connection closes.
    pub async fn stop(&self) {
        if let Some(following) = self.following.take() {
            following.cancel();
        }
        let members = self.members.take();
        members.iter().for_each(|member| member.server.stop());
        let mut tasks: Vec<_> = members.into_iter().map(|member| member.task).collect();
        let all = async {
            for task in &mut tasks {
                task.await;
            }
        };
        if reactor::timeout(STOP_MAX, all).await.is_err() {
            tracing::warn!("not every name server has confirmed that this broker goes");
        }
        for task in tasks {
            task.cancel();
        }
    }
}
