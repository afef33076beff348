//! Registration in a simulated network: against our name server, and against one that only writes down what it is told.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};

use namesrv::NameServer;
use protocol::body::register::RegisterBrokerBody;
use protocol::code::{request, response};
use protocol::frame::FRAME_BYTES_MAX;
use protocol::{Asked, Command, DecodeError, Value, write_response};
use reactor::sim::{NodeId, World};
use reactor::{Frames, Listener, Notify};

use super::link::Link;
use super::*;

mod followed;

const PATIENCE: Duration = Duration::from_secs(120);
const PERIOD: Duration = Duration::from_secs(30);

/// The table of a broker as its owner keeps it.
#[derive(Clone)]
struct Table(Rc<RefCell<Snapshot>>);

impl Table {
    fn of(count: usize) -> Table {
        let version = DataVersion {
            counter: 1,
            state_version: 0,
            timestamp: 1_700_000_000_000,
        };
        let table = Table(Rc::new(RefCell::new(Snapshot {
            topics: TopicTable::new(),
            version,
            broker_permission: 6,
        })));
        for number in 0..count {
            table.set(&format!("topic-{number:06}"), 8);
        }
        table
    }

    fn set(&self, name: &str, queues: i32) -> Arc<TopicConfig> {
        let topic = Arc::new(TopicConfig {
            topic_name: name.to_owned(),
            read_queue_nums: queues,
            write_queue_nums: queues,
            ..TopicConfig::default()
        });
        let mut snapshot = self.0.borrow_mut();
        snapshot.topics.insert(Arc::from(name), topic.clone());
        snapshot.version = snapshot.version.next(1_700_000_000_001);
        topic
    }

    fn source(&self) -> Source {
        let table = self.clone();
        Rc::new(move || table.0.borrow().clone())
    }

    /// What the coordinator does with them, without its notice to the registration.
    fn ordered(&self) -> Ordered {
        let table = self.clone();
        Rc::new(move |names: Vec<String>| {
            let mut snapshot = table.0.borrow_mut();
            for name in names {
                let Some(topic) = snapshot.topics.get(name.as_str()) else {
                    continue;
                };
                let order = true;
                let topic = TopicConfig {
                    order,
                    ..(**topic).clone()
                };
                snapshot.topics.insert(Arc::from(name), Arc::new(topic));
            }
        })
    }

    fn is_ordered(&self, name: &str) -> bool {
        self.0.borrow().topics[name].order
    }

    fn version(&self) -> i64 {
        self.0.borrow().version.counter
    }
}

fn identity(id: i64) -> Identity {
    Identity {
        cluster: "c".to_owned(),
        broker_name: "a".to_owned(),
        broker_id: id,
        broker_addr: format!("10.0.0.10:1091{id}"),
        ha_addr: format!("10.0.0.10:1092{id}"),
    }
}

fn options(name_servers: &[u8]) -> Options {
    Options {
        name_servers: name_servers
            .iter()
            .map(|number| addr(*number).to_string())
            .collect(),
        period: PERIOD,
        request_timeout: Duration::from_secs(24),
        force: false,
        single_topic: false,
        piece: PieceLimits::default(),
    }
}

fn addr(node: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node], 9876))
}

struct Scene {
    world: World,
    broker: NodeId,
    asker: NodeId,
}

impl Scene {
    fn new(seed: u64) -> Scene {
        let mut world = World::new(seed);
        let broker = world.node("broker", Ipv4Addr::new(10, 0, 0, 10));
        let asker = world.node("asker", Ipv4Addr::new(10, 0, 0, 20));
        Scene {
            world,
            broker,
            asker,
        }
    }

    fn name_server(&mut self, number: u8) -> NodeId {
        let node = self.world.node(
            &format!("namesrv-{number}"),
            Ipv4Addr::new(10, 0, 0, number),
        );
        self.start_name_server(node);
        node
    }

    fn start_name_server(&mut self, node: NodeId) {
        self.world.start(node, "namesrv", || async {
            let _server = NameServer::start(namesrv::Config::default()).expect("the port is free");
            std::future::pending::<()>().await;
        });
    }

    fn fake(&mut self, number: u8, habits: Habits) -> Rc<RefCell<Vec<Told>>> {
        let node = self
            .world
            .node(&format!("fake-{number}"), Ipv4Addr::new(10, 0, 0, number));
        let told = Rc::new(RefCell::new(Vec::new()));
        let log = told.clone();
        self.world.start(node, "fake", move || fake(log, habits));
        told
    }

    /// Starts a broker's registration; the handle comes out once it runs.
    fn launch(&mut self, identity: Identity, options: Options, table: &Table) -> Rc<Registration> {
        let slot: Rc<RefCell<Option<Rc<Registration>>>> = Rc::default();
        let out = slot.clone();
        let table = table.clone();
        self.world.start(self.broker, "broker", move || async move {
            let registration =
                Registration::launch(identity, options, table.source(), table.ordered());
            out.replace(Some(registration.clone()));
            registration.first_round().await;
            std::future::pending::<()>().await;
        });
        assert!(self.world.run_until(|| slot.borrow().is_some(), PATIENCE));
        let registration = slot.borrow().clone();
        registration.expect("it was just put there")
    }

    /// Runs on the broker's machine and core.
    fn on_broker(&mut self, act: impl FnOnce() + 'static) {
        self.world.block_on(self.broker, async move { act() });
    }

    fn route(&mut self, at: u8, topic: &str) -> Option<String> {
        let topic = topic.to_owned();
        self.world.block_on(self.asker, async move {
            let wake = Rc::new(Notify::new());
            let link = Link::open(&addr(at).to_string(), PATIENCE, wake)
                .await
                .expect("the name server listens");
            let fields = [("topic", Value::Str(&topic))];
            let frame = link
                .ask(request::GET_ROUTEINFO_BY_TOPIC, &fields, b"")
                .await
                .expect("an answer");
            let answer = Command::decode(&frame).expect("a command");
            let body = String::from_utf8(answer.body.to_vec()).expect("JSON is UTF-8");
            (answer.code == response::SUCCESS).then_some(body)
        })
    }

    /// What `mqadmin updateOrderConf` does.
    fn order(&mut self, at: u8, topic: &str) {
        let topic = topic.to_owned();
        self.world.block_on(self.asker, async move {
            let link = Link::open(&addr(at).to_string(), PATIENCE, Rc::new(Notify::new()))
                .await
                .expect("the name server listens");
            let fields = [
                ("namespace", Value::Str("ORDER_TOPIC_CONFIG")),
                ("key", Value::Str(&topic)),
                ("value", Value::Str("a:4")),
            ];
            let answer = link.ask(request::PUT_KV_CONFIG, &fields, b"").await;
            let answer = answer.expect("an answer");
            let answer = Command::decode(&answer).expect("a command");
            assert_eq!(answer.code, response::SUCCESS);
        });
    }

    fn wait_for(&mut self, condition: impl FnMut() -> bool) {
        assert!(
            self.world.run_until(condition, PATIENCE),
            "seed {}: it never happens",
            self.world.seed()
        );
    }
}

/// One request that the fake name server has had.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    code: i32,
    topics: usize,
    counter: i64,
}

/// How the fake name server answers.
#[derive(Clone, Copy, Default)]
struct Habits {
    /// It always says that it holds another version.
    always_changed: bool,
    single_topics: SingleTopics,
    /// It answers this many registrations with an error first.
    refusals: usize,
}

/// What the fake name server does with request 217.
#[derive(Clone, Copy, Default)]
enum SingleTopics {
    Known,
    #[default]
    Refused,
    /// As stock name servers before 5.0 do.
    Unanswered,
}

async fn fake(log: Rc<RefCell<Vec<Told>>>, habits: Habits) {
    let listener =
        Listener::bind(SocketAddr::from(([0, 0, 0, 0], 9876))).expect("the port is free");
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            return;
        };
        let log = log.clone();
        reactor::spawn("fake-connection", async move {
            let mut frames = Frames::new(FRAME_BYTES_MAX);
            while let Ok(chunk) = socket.recv().await {
                if chunk.is_empty() {
                    return;
                }
                let mut out = Vec::new();
                let fed = frames.feed(&chunk, |frame| {
                    let command = Command::decode(frame)?;
                    // Of what it is asked without being told anything it keeps no record.
                    if command.code != request::GET_KVLIST_BY_NAMESPACE {
                        log.borrow_mut().push(Told::from(&command));
                    }
                    habits.answer(&command, log.borrow().len(), &mut out);
                    Ok::<(), DecodeError>(())
                });
                fed.expect("brokers send commands");
                let _ = socket.send(out).await;
            }
        });
    }
}

impl Habits {
    fn answer(&self, command: &Command<'_>, had: usize, out: &mut Vec<u8>) {
        let to = Asked::from(command);
        match command.code {
            request::QUERY_DATA_VERSION => {
                write_response(
                    out,
                    to,
                    0,
                    None,
                    &[("changed", Value::Bool(self.always_changed))],
                    b"",
                );
            }
            request::REGISTER_TOPIC_IN_NAMESRV => match self.single_topics {
                SingleTopics::Known => write_response(out, to, 0, None, &[], b""),
                SingleTopics::Refused => {
                    let code = response::REQUEST_CODE_NOT_SUPPORTED;
                    write_response(out, to, code, Some("unknown"), &[], b"");
                }
                SingleTopics::Unanswered => {}
            },
            request::REGISTER_BROKER if had <= self.refusals => {
                write_response(out, to, response::SYSTEM_ERROR, Some("not now"), &[], b"");
            }
            _ => write_response(out, to, 0, None, &[], b""),
        }
    }
}

impl From<&Command<'_>> for Told {
    fn from(command: &Command<'_>) -> Told {
        if command.code != request::REGISTER_BROKER {
            return Told {
                code: command.code,
                topics: 0,
                counter: 0,
            };
        }
        let body: RegisterBrokerBody = protocol::json::from_slice(command.body).expect("a body");
        let table = body.topic_config_serialize_wrapper;
        let crc = (crc32fast::hash(command.body) & 0x7fff_ffff).to_string();
        assert!(
            command
                .fields
                .get("bodyCrc32")
                .is_some_and(|sent| sent.eq_str(&crc))
        );
        Told {
            code: command.code,
            topics: table.topic_config_table.len(),
            counter: table.data_version.counter,
        }
    }
}

fn registered(topics: usize, counter: i64) -> Told {
    Told {
        code: request::REGISTER_BROKER,
        topics,
        counter,
    }
}

fn asked(code: i32) -> Told {
    Told {
        code,
        topics: 0,
        counter: 0,
    }
}

#[test]
fn everything_is_registered_at_once_on_every_name_server() {
    let mut scene = Scene::new(1);
    scene.name_server(1);
    scene.name_server(2);
    scene.launch(identity(0), options(&[1, 2]), &Table::of(10));
    scene.world.run_for(Duration::from_secs(1));
    for server in [1, 2] {
        let route = scene
            .route(server, "topic-000003")
            .expect("the topic is routed");
        assert!(route.contains("\"0\":\"10.0.0.10:10910\""), "{route}");
    }
}

#[test]
fn a_name_server_that_is_down_does_not_keep_the_others_waiting_and_is_told_when_it_is_back() {
    let mut scene = Scene::new(2);
    let first = scene.name_server(1);
    scene.name_server(2);
    scene.world.kill(first);
    scene.launch(identity(0), options(&[1, 2]), &Table::of(10));
    scene.world.run_for(Duration::from_secs(1));
    assert!(scene.route(2, "topic-000003").is_some());
    scene.start_name_server(first);
    scene.world.run_for(PERIOD + Duration::from_secs(5));
    assert!(scene.route(1, "topic-000003").is_some());
}

#[test]
fn a_restarted_name_server_knows_the_broker_within_seconds() {
    let mut scene = Scene::new(3);
    let server = scene.name_server(1);
    scene.launch(identity(0), options(&[1]), &Table::of(10));
    scene.world.run_for(Duration::from_secs(100));
    scene.world.kill(server);
    scene.start_name_server(server);
    assert!(scene.route(1, "topic-000003").is_none());
    scene.world.run_for(Duration::from_secs(3));
    assert!(scene.route(1, "topic-000003").is_some());
}

#[test]
fn a_live_broker_stays_routed_for_longer_than_silence_is_borne() {
    let mut scene = Scene::new(4);
    scene.name_server(1);
    scene.launch(identity(0), options(&[1]), &Table::of(10));
    scene.world.run_for(Duration::from_secs(600));
    assert!(scene.route(1, "topic-000003").is_some());
}

#[test]
fn unchanged_data_is_only_confirmed() {
    let mut scene = Scene::new(5);
    let told = scene.fake(1, Habits::default());
    let table = Table::of(10);
    scene.launch(identity(0), options(&[1]), &table);
    scene.world.run_for(PERIOD * 2 + Duration::from_secs(5));
    let version = asked(request::QUERY_DATA_VERSION);
    assert_eq!(
        *told.borrow(),
        [registered(10, table.version()), version.clone(), version]
    );
}

#[test]
fn with_force_everything_goes_every_period() {
    let mut scene = Scene::new(6);
    let told = scene.fake(1, Habits::default());
    let table = Table::of(10);
    scene.launch(
        identity(0),
        Options {
            force: true,
            ..options(&[1])
        },
        &table,
    );
    scene.world.run_for(PERIOD + Duration::from_secs(5));
    let all = registered(10, table.version());
    assert_eq!(*told.borrow(), [all.clone(), all]);
}

#[test]
fn a_name_server_that_holds_something_else_is_told_everything() {
    let mut scene = Scene::new(7);
    let told = scene.fake(
        1,
        Habits {
            always_changed: true,
            ..Habits::default()
        },
    );
    let table = Table::of(10);
    scene.launch(identity(0), options(&[1]), &table);
    scene.world.run_for(PERIOD + Duration::from_secs(5));
    let all = registered(10, table.version());
    assert_eq!(
        *told.borrow(),
        [all.clone(), asked(request::QUERY_DATA_VERSION), all]
    );
}

fn not_told() -> Ordered {
    Rc::new(|_| {})
}

#[test]
fn topics_that_an_operator_calls_ordered_are_so_at_the_next_registration_or_confirmation() {
    let mut scene = Scene::new(32);
    scene.name_server(1);
    scene.order(1, "topic-000001");
    scene.order(1, "not-here");
    let table = Table::of(3);
    scene.launch(identity(0), options(&[1]), &table);
    scene.world.run_for(Duration::from_secs(1));
    assert!(table.is_ordered("topic-000001"), "told by the registration");
    assert!(!table.is_ordered("topic-000002"));
    scene.order(1, "topic-000002");
    scene.world.run_for(PERIOD);
    assert!(table.is_ordered("topic-000002"), "told by the confirmation");
    assert!(!table.is_ordered("topic-000000"));
}

#[test]
fn a_changed_topic_goes_alone_and_at_once() {
    let mut scene = Scene::new(8);
    let told = scene.fake(1, Habits::default());
    scene.name_server(2);
    let table = Table::of(10);
    let registration = scene.launch(identity(0), options(&[1, 2]), &table);
    scene.world.run_for(Duration::from_secs(1));

    let changing = table.clone();
    scene.on_broker(move || registration.topics_changed(vec![changing.set("new", 3)]));
    scene.world.run_for(Duration::from_millis(500));
    assert_eq!(told.borrow().last(), Some(&registered(1, table.version())));
    assert!(
        scene
            .route(2, "new")
            .is_some_and(|route| route.contains("\"readQueueNums\":3"))
    );
    // The name server holds the new version now: the next confirmation finds nothing to do.
    scene.world.run_for(PERIOD);
    assert_eq!(
        told.borrow().last(),
        Some(&asked(request::QUERY_DATA_VERSION))
    );
}

#[test]
fn a_removed_topic_brings_the_new_version_alone() {
    let mut scene = Scene::new(9);
    let told = scene.fake(1, Habits::default());
    let table = Table::of(10);
    let registration = scene.launch(identity(0), options(&[1]), &table);
    scene.world.run_for(Duration::from_secs(1));
    let changing = table.clone();
    scene.on_broker(move || {
        let mut snapshot = changing.0.borrow_mut();
        snapshot.topics.remove("topic-000001");
        snapshot.version = snapshot.version.next(1);
        drop(snapshot);
        registration.topics_changed(Vec::new());
    });
    scene.world.run_for(Duration::from_secs(1));
    assert_eq!(told.borrow().last(), Some(&registered(0, table.version())));
}

#[test]
fn a_single_topic_request_is_used_where_it_is_known_and_replaced_where_it_is_not() {
    let (single, whole) = (request::REGISTER_TOPIC_IN_NAMESRV, request::REGISTER_BROKER);
    for (single_topics, expected) in [
        (SingleTopics::Known, vec![whole, single, single]),
        (SingleTopics::Refused, vec![whole, single, whole, whole]),
        (SingleTopics::Unanswered, vec![whole, single, whole, whole]),
    ] {
        let mut scene = Scene::new(10);
        let habits = Habits {
            single_topics,
            ..Habits::default()
        };
        let told = scene.fake(1, habits);
        let table = Table::of(10);
        let by_single = Options {
            single_topic: true,
            ..options(&[1])
        };
        let registration = scene.launch(identity(0), by_single, &table);
        for name in ["new", "newer"] {
            scene.world.run_for(Duration::from_secs(5));
            let (registration, table) = (registration.clone(), table.clone());
            scene.on_broker(move || registration.topics_changed(vec![table.set(name, 3)]));
        }
        scene.world.run_for(Duration::from_secs(5));
        let codes: Vec<_> = told.borrow().iter().map(|told| told.code).collect();
        assert_eq!(codes, expected);
    }
}

#[test]
fn a_large_table_goes_in_pieces_and_only_the_last_has_its_version() {
    let mut scene = Scene::new(11);
    let told = scene.fake(1, Habits::default());
    scene.name_server(2);
    let table = Table::of(20_000);
    scene.launch(identity(0), options(&[1, 2]), &table);
    scene.world.run_for(Duration::from_secs(10));
    let told = told.borrow().clone();
    assert!(told.len() > 2, "{told:?}");
    assert_eq!(told.iter().map(|told| told.topics).sum::<usize>(), 20_000);
    let (last, interim) = told.split_last().expect("more than two");
    assert_eq!(last.counter, table.version());
    assert!(interim.iter().all(|told| told.counter < 0));
    for topic in ["topic-000000", "topic-010000", "topic-019999"] {
        assert!(scene.route(2, topic).is_some(), "{topic}");
    }
}

#[test]
fn a_refused_registration_is_tried_again() {
    let mut scene = Scene::new(12);
    let told = scene.fake(
        1,
        Habits {
            refusals: 2,
            ..Habits::default()
        },
    );
    let table = Table::of(10);
    scene.launch(identity(0), options(&[1]), &table);
    let log = told.clone();
    scene.wait_for(move || log.borrow().len() == 3);
    scene.world.run_for(Duration::from_secs(20));
    assert_eq!(told.borrow().len(), 3, "the third was taken");
}

#[test]
fn stopping_unregisters_everywhere() {
    let mut scene = Scene::new(13);
    let told = scene.fake(1, Habits::default());
    scene.name_server(2);
    let registration = scene.launch(identity(0), options(&[1, 2]), &Table::of(10));
    scene.world.run_for(Duration::from_secs(1));
    assert!(scene.route(2, "topic-000003").is_some());
    let broker = scene.broker;
    scene
        .world
        .block_on(broker, async move { registration.stop().await });
    assert_eq!(
        told.borrow().last(),
        Some(&asked(request::UNREGISTER_BROKER))
    );
    assert!(scene.route(2, "topic-000003").is_none());
}

#[test]
fn stopping_does_not_wait_for_a_name_server_that_is_gone() {
    let mut scene = Scene::new(14);
    let server = scene.name_server(1);
    let registration = scene.launch(identity(0), options(&[1]), &Table::of(10));
    scene.world.run_for(Duration::from_secs(1));
    let broker = scene.broker;
    scene.world.partition(broker, server);
    let before = scene.world.now();
    scene
        .world
        .block_on(broker, async move { registration.stop().await });
    assert!(scene.world.now().saturating_since(before) <= STOP_MAX);
}

#[test]
fn a_slave_learns_where_its_master_is() {
    let mut scene = Scene::new(15);
    scene.name_server(1);
    let table = Table::of(10);
    let master = scene.launch(identity(0), options(&[1]), &table);
    scene.world.run_for(Duration::from_secs(1));
    let slave = scene.launch(identity(1), options(&[1]), &table);
    scene.world.run_for(Duration::from_secs(1));
    let expected = Master {
        addr: "10.0.0.10:10910".to_owned(),
        ha_addr: "10.0.0.10:10920".to_owned(),
    };
    assert_eq!(slave.master(), Some(expected));
    assert_eq!(master.master(), None);
}

#[test]
fn changes_during_a_partition_are_there_after_it() {
    let mut scene = Scene::new(16);
    let server = scene.name_server(1);
    let table = Table::of(10);
    let registration = scene.launch(identity(0), options(&[1]), &table);
    scene.world.run_for(Duration::from_secs(1));
    let broker = scene.broker;
    scene.world.partition(broker, server);
    scene.on_broker(move || registration.topics_changed(vec![table.set("new", 3)]));
    scene.world.run_for(Duration::from_secs(200));
    assert!(
        scene.route(1, "topic-000003").is_none(),
        "silent for too long"
    );
    scene.world.heal(broker, server);
    scene.world.run_for(PERIOD + Duration::from_secs(30));
    assert!(scene.route(1, "topic-000003").is_some());
    assert!(scene.route(1, "new").is_some());
}

#[test]
fn one_name_server_that_is_not_there_does_not_hold_up_the_start() {
    let mut scene = Scene::new(31);
    scene.name_server(1);
    let lost = scene.name_server(2);
    let broker = scene.broker;
    scene.world.partition(broker, lost);
    let table = Table::of(10);
    let waited = scene.world.block_on(broker, async move {
        let began = reactor::now();
        let source = Rc::new(move || table.0.borrow().clone());
        let registration = Registration::launch(identity(0), options(&[1, 2]), source, not_told());
        registration.first_round().await;
        assert!(registration.members.borrow()[0].server.was_registered());
        began.elapsed()
    });
    assert!(waited < Duration::from_millis(500), "{waited:?}");
}

#[test]
fn without_any_name_server_the_start_waits_three_seconds() {
    let mut scene = Scene::new(32);
    let lost = scene.name_server(1);
    let broker = scene.broker;
    scene.world.partition(broker, lost);
    let table = Table::of(1);
    let waited = scene.world.block_on(broker, async move {
        let began = reactor::now();
        let source = Rc::new(move || table.0.borrow().clone());
        let registration = Registration::launch(identity(0), options(&[1]), source, not_told());
        registration.first_round().await;
        began.elapsed()
    });
    assert!(waited >= FIRST_ROUND_MAX && waited < FIRST_ROUND_MAX * 2);
}
