//! The tables against a model that does everything the plain way: no numbers, no slices, no sweeping.
//! Whatever order brokers come, go, fall silent and move in, both must answer the same.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use protocol::json::Dialect;

use super::*;

const CLUSTER: &str = "c";
const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
const ADDRS: [&str; 4] = ["h:1", "h:2", "h:3", "h:4"];
const TOPICS: [&str; 5] = ["t0", "t1", "t2", "t3", "t4"];

#[derive(Clone, Debug)]
enum Op {
    Register {
        name: usize,
        addr: usize,
        id: i64,
        connection: u64,
        version: i64,
        state: i64,
        topics: Vec<(usize, i32)>,
    },
    Unregister {
        name: usize,
        addr: usize,
    },
    Close {
        connection: u64,
    },
    Pass {
        secs: u64,
    },
    Heard {
        addr: usize,
    },
    Wipe {
        name: usize,
    },
    Delete {
        topic: usize,
    },
    Sweep {
        limit: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let topics = prop::collection::vec((0..TOPICS.len(), 1..4i32), 0..4);
    let register = (
        0..NAMES.len(),
        0..ADDRS.len(),
        0..3i64,
        0..4u64,
        0..4i64,
        0..2i64,
        topics,
    )
        .prop_map(
            |(name, addr, id, connection, version, state, topics)| Op::Register {
                name,
                addr,
                id,
                connection,
                version,
                state,
                topics,
            },
        );
    prop_oneof![
        6 => register,
        2 => (0..NAMES.len(), 0..ADDRS.len()).prop_map(|(name, addr)| Op::Unregister { name, addr }),
        1 => (0..4u64).prop_map(|connection| Op::Close { connection }),
        2 => (1..100u64).prop_map(|secs| Op::Pass { secs }),
        1 => (0..ADDRS.len()).prop_map(|addr| Op::Heard { addr }),
        1 => (0..NAMES.len()).prop_map(|name| Op::Wipe { name }),
        1 => (0..TOPICS.len()).prop_map(|topic| Op::Delete { topic }),
        2 => (1..4usize).prop_map(|limit| Op::Sweep { limit }),
    ]
}

/// Topic -> its broker names with their read queues, permission and addresses.
type View = BTreeMap<String, BTreeMap<String, (i32, i32, BTreeMap<i64, String>)>>;

#[derive(Debug)]
struct ModelBroker {
    name: &'static str,
    connection: u64,
    heard_at: Instant,
    version: DataVersion,
}

#[derive(Debug, Default)]
struct Model {
    brokers: BTreeMap<&'static str, ModelBroker>,
    addrs: BTreeMap<&'static str, BTreeMap<i64, &'static str>>,
    topics: BTreeMap<&'static str, BTreeMap<&'static str, Queues>>,
}

impl Model {
    fn register(
        &mut self,
        registration: &Registration<'_>,
        name: &'static str,
        addr: &'static str,
        topics: &[Topic],
        now: Instant,
    ) {
        let id = registration.broker_id;
        let holder = self
            .addrs
            .get(name)
            .and_then(|addrs| addrs.get(&id))
            .copied();
        if let Some(holder) = holder.filter(|holder| *holder != addr)
            && let Some(held) = self.brokers.get(holder)
            && held.version.state_version > registration.version.state_version
        {
            self.remove(addr);
            return;
        }
        if holder.is_none() && topics.len() == 1 {
            return;
        }
        if self
            .brokers
            .get(addr)
            .is_some_and(|before| before.name != name)
        {
            self.detach(self.brokers[addr].name, addr);
        }
        let addrs = self.addrs.entry(name).or_default();
        addrs.retain(|_, held| *held != addr);
        addrs.insert(id, addr);
        let lowest = *addrs.keys().next().unwrap();
        let known = self.brokers.get(addr).map(|broker| broker.version);
        if id == MASTER_ID || lowest == id {
            for topic in topics {
                let key = *TOPICS.iter().find(|known| **known == topic.name).unwrap();
                let held = self.topics.entry(key).or_default();
                if holder.is_none()
                    || known != Some(registration.version)
                    || !held.contains_key(name)
                {
                    held.insert(name, topic.queues);
                }
            }
        }
        let connection = registration.connection.0;
        self.brokers.insert(
            addr,
            ModelBroker {
                name,
                connection,
                heard_at: now,
                version: registration.version,
            },
        );
    }

    fn remove(&mut self, addr: &str) {
        if let Some(broker) = self.brokers.remove(addr) {
            self.detach(broker.name, addr);
        }
    }

    fn detach(&mut self, name: &str, addr: &str) {
        let Some(addrs) = self.addrs.get_mut(name) else {
            return;
        };
        addrs.retain(|_, held| *held != addr);
        if addrs.is_empty() {
            self.addrs.remove(name);
            for held in self.topics.values_mut() {
                held.remove(name);
            }
        }
    }

    fn remove_where(&mut self, gone: impl Fn(&ModelBroker) -> bool) {
        let addrs: Vec<_> = self
            .brokers
            .iter()
            .filter(|(_, broker)| gone(broker))
            .map(|(addr, _)| *addr)
            .collect();
        addrs.iter().for_each(|addr| self.remove(addr));
    }

    fn view(&self) -> View {
        let mut view = BTreeMap::new();
        for (topic, held) in self.topics.iter().filter(|(_, held)| !held.is_empty()) {
            let one = |(name, queues): (&&str, &Queues)| {
                let addrs = self.addrs[name]
                    .iter()
                    .map(|(id, addr)| (*id, (*addr).to_owned()))
                    .collect();
                ((*name).to_owned(), (queues.read, queues.permission, addrs))
            };
            view.insert((*topic).to_owned(), held.iter().map(one).collect());
        }
        view
    }
}

fn real_view(routes: &Routes) -> View {
    let mut view = BTreeMap::new();
    for topic in TOPICS {
        let mut body = Vec::new();
        if !routes.append_route(&mut body, topic, None, Dialect::Strict) {
            continue;
        }
        let route: protocol::body::route::TopicRouteData =
            serde_json::from_slice(&body).expect("a route is JSON");
        assert_eq!(route.queue_datas.len(), route.broker_datas.len());
        let pairs = route.queue_datas.into_iter().zip(route.broker_datas);
        let one = |(queues, broker): (
            protocol::body::route::QueueData,
            protocol::body::route::BrokerData,
        )| {
            assert_eq!(queues.broker_name, broker.broker_name);
            (
                broker.broker_name,
                (queues.read_queue_nums, queues.perm, broker.broker_addrs),
            )
        };
        view.insert(topic.to_owned(), pairs.map(one).collect());
    }
    view
}

fn topics_of(picked: &[(usize, i32)]) -> Vec<Topic> {
    let unique: BTreeMap<usize, i32> = picked.iter().copied().collect();
    let one = |(number, queues): (usize, i32)| Topic {
        name: TOPICS[number].to_owned(),
        queues: Queues {
            read: queues,
            write: queues,
            permission: 6,
            sys_flag: 0,
        },
    };
    unique.into_iter().map(one).collect()
}

fn step(routes: &mut Routes, model: &mut Model, now: &mut Instant, op: &Op) {
    match op {
        Op::Register {
            name,
            addr,
            id,
            connection,
            version,
            state,
            topics,
        } => {
            let topics = topics_of(topics);
            let registration = Registration {
                cluster: CLUSTER,
                broker_name: NAMES[*name],
                broker_addr: ADDRS[*addr],
                broker_id: *id,
                ha_addr: "ha",
                zone: None,
                silence_max: None,
                acting_master: Some(false),
                version: DataVersion {
                    counter: *version,
                    state_version: *state,
                    timestamp: 0,
                },
                topics_in_body: topics.len(),
                connection: ConnectionId(*connection),
            };
            // Whether it was refused shows in what both hold afterwards.
            let _ = routes.register(&registration, &topics, *now);
            model.register(&registration, NAMES[*name], ADDRS[*addr], &topics, *now);
        }
        Op::Unregister { name, addr } => {
            routes.unregister(CLUSTER, ADDRS[*addr], NAMES[*name]);
            model.remove(ADDRS[*addr]);
            model.detach(NAMES[*name], ADDRS[*addr]);
        }
        Op::Close { connection } => {
            routes.remove_connection(ConnectionId(*connection));
            model.remove_where(|broker| broker.connection == *connection);
        }
        Op::Pass { secs } => {
            *now = *now + Duration::from_secs(*secs);
            routes.expire(*now);
            let limit = *now;
            model.remove_where(|broker| {
                limit.saturating_since(broker.heard_at) > BROKER_SILENCE_MAX
            });
        }
        Op::Heard { addr } => {
            routes.heard(CLUSTER, ADDRS[*addr], *now);
            if let Some(broker) = model.brokers.get_mut(ADDRS[*addr]) {
                broker.heard_at = *now;
            }
        }
        Op::Wipe { name } => {
            let mut walk = Walk::default();
            while !walk.is_done() {
                routes.change_write(NAMES[*name], false, &mut walk, 2);
            }
            let held = model
                .topics
                .values_mut()
                .filter_map(|held| held.get_mut(NAMES[*name]));
            held.for_each(|queues| *queues = queues.without_write());
        }
        Op::Delete { topic } => {
            routes.delete_topic(TOPICS[*topic], None);
            model.topics.remove(TOPICS[*topic]);
        }
        Op::Sweep { limit } => {
            routes.sweep(*limit);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_order_of_events_gives_what_the_plain_model_gives(ops in prop::collection::vec(op(), 1..60)) {
        let mut routes = Routes::new();
        let mut model = Model::default();
        let mut now = Instant::default();
        for op in &ops {
            step(&mut routes, &mut model, &mut now, op);
            prop_assert_eq!(real_view(&routes), model.view(), "after {:?}", op);
            prop_assert_eq!(routes.broker_count(), model.brokers.len());
            let mut listed = BTreeSet::new();
            let mut walk = Walk::default();
            while !walk.is_done() {
                routes.list(&TopicFilter::All, &mut walk, 2, |topic| { listed.insert(topic.to_owned()); });
            }
            prop_assert_eq!(listed, model.view().into_keys().collect::<BTreeSet<_>>());
        }
        // Swept clean, nothing is held for anybody who is gone.
        while routes.sweep(3) {}
        prop_assert_eq!(routes.topic_count(), model.view().len());
    }
}
