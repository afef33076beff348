//! Name servers in a simulated network, where two minutes take no time and every run is repeated from its seed.

#[path = "support/client.rs"]
#[allow(dead_code)] // each test file uses its part
mod client;

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use client::{Broker, Client};
use namesrv::{Config, NameServer};
use protocol::code::request;
use protocol::{Encoding, write_request};
use reactor::sim::{NodeId, World};

const PATIENCE: Duration = Duration::from_secs(60);

fn addr(node: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node], 9876))
}

fn name_server(world: &mut World, number: u8) -> NodeId {
    let node = world.node(
        &format!("namesrv-{number}"),
        Ipv4Addr::new(10, 0, 0, number),
    );
    start(world, node);
    node
}

fn start(world: &mut World, node: NodeId) {
    world.start(node, "namesrv", || async {
        let _server = NameServer::start(Config::default()).expect("the port is free");
        std::future::pending::<()>().await;
    });
}

/// A broker that registers once and then holds its connection without a word.
fn silent_broker(
    world: &mut World,
    node: NodeId,
    to: SocketAddr,
    name: &'static str,
    extra: &'static [(&'static str, &'static str)],
) {
    let registered = Rc::new(RefCell::new(false));
    let done = registered.clone();
    world.start(node, "broker", move || async move {
        let mut client = Client::connect(to).await;
        let mut fields = Broker::master(name, name).fields();
        fields.extend_from_slice(extra);
        let body = client::body(&[(name, 4), ("shared", 4)], 1);
        let answer = client.ask(103, &fields, &body).await;
        assert_eq!(answer.code, 0);
        done.replace(true);
        while client.answer().await.is_some() {}
    });
    assert!(
        world.run_until(|| *registered.borrow(), PATIENCE),
        "the broker registers"
    );
}

fn is_routed(world: &mut World, asker: NodeId, at: SocketAddr, topic: &'static str) -> bool {
    world.block_on(asker, async move {
        Client::connect(at).await.has_route(topic).await
    })
}

#[test]
fn a_silent_broker_is_dropped_after_two_minutes_and_its_own_time_if_it_gave_one() {
    let mut world = World::new(1);
    name_server(&mut world, 1);
    let broker = world.node("broker", Ipv4Addr::new(10, 0, 0, 10));
    let asker = world.node("asker", Ipv4Addr::new(10, 0, 0, 20));
    silent_broker(&mut world, broker, addr(1), "slow", &[]);
    silent_broker(
        &mut world,
        broker,
        addr(1),
        "quick",
        &[("heartbeatTimeoutMillis", "20000")],
    );

    world.run_for(Duration::from_secs(19));
    assert!(is_routed(&mut world, asker, addr(1), "quick"));
    world.run_for(Duration::from_secs(7));
    assert!(!is_routed(&mut world, asker, addr(1), "quick"));
    assert!(is_routed(&mut world, asker, addr(1), "slow"));
    world.run_for(Duration::from_secs(119 - 26));
    assert!(is_routed(&mut world, asker, addr(1), "slow"));
    world.run_for(Duration::from_secs(7));
    assert!(!is_routed(&mut world, asker, addr(1), "slow"));
}

#[test]
fn a_killed_broker_is_gone_within_a_second() {
    let mut world = World::new(2);
    name_server(&mut world, 1);
    let first = world.node("first", Ipv4Addr::new(10, 0, 0, 10));
    let second = world.node("second", Ipv4Addr::new(10, 0, 0, 11));
    let asker = world.node("asker", Ipv4Addr::new(10, 0, 0, 20));
    silent_broker(&mut world, first, addr(1), "first", &[]);
    silent_broker(&mut world, second, addr(1), "second", &[]);
    assert!(is_routed(&mut world, asker, addr(1), "first"));
    world.kill(first);
    world.run_for(Duration::from_secs(1));
    assert!(!is_routed(&mut world, asker, addr(1), "first"));
    assert!(is_routed(&mut world, asker, addr(1), "second"));
    assert!(is_routed(&mut world, asker, addr(1), "shared"));
}

#[test]
fn name_servers_know_nothing_of_one_another() {
    let mut world = World::new(3);
    name_server(&mut world, 1);
    name_server(&mut world, 2);
    let broker = world.node("broker", Ipv4Addr::new(10, 0, 0, 10));
    let asker = world.node("asker", Ipv4Addr::new(10, 0, 0, 20));
    silent_broker(&mut world, broker, addr(1), "only-one", &[]);
    world.run_for(Duration::from_secs(60));
    assert!(is_routed(&mut world, asker, addr(1), "only-one"));
    assert!(!is_routed(&mut world, asker, addr(2), "only-one"));
}

#[test]
fn routes_live_in_memory_only() {
    let mut world = World::new(4);
    let server = name_server(&mut world, 1);
    let broker = world.node("broker", Ipv4Addr::new(10, 0, 0, 10));
    let asker = world.node("asker", Ipv4Addr::new(10, 0, 0, 20));
    silent_broker(&mut world, broker, addr(1), "before", &[]);
    world.kill(server);
    start(&mut world, server);
    world.run_for(Duration::from_secs(1));
    assert!(!is_routed(&mut world, asker, addr(1), "before"));
}

#[test]
fn an_idle_connection_is_closed_and_a_talking_one_is_not() {
    let mut world = World::new(5);
    name_server(&mut world, 1);
    let asker = world.node("asker", Ipv4Addr::new(10, 0, 0, 20));
    let ended = Rc::new(RefCell::new(false));
    let saw = ended.clone();
    world.start(asker, "idle", move || async move {
        let mut idle = Client::connect(addr(1)).await;
        assert!(idle.answer().await.is_none());
        saw.replace(true);
    });
    let answers = world.block_on(asker, async {
        let mut talking = Client::connect(addr(1)).await;
        let mut answers = 0;
        for _ in 0..5 {
            reactor::sleep(Duration::from_secs(30)).await;
            answers += i32::from(!talking.has_route("none").await);
        }
        answers
    });
    assert_eq!(answers, 5);
    assert!(*ended.borrow(), "the idle connection was closed");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World::new(seed);
        name_server(&mut world, 1);
        let broker = world.node("broker", Ipv4Addr::new(10, 0, 0, 10));
        let asker = world.node("asker", Ipv4Addr::new(10, 0, 0, 20));
        silent_broker(&mut world, broker, addr(1), "a", &[]);
        silent_broker(&mut world, broker, addr(1), "b", &[]);
        world.kill(broker);
        is_routed(&mut world, asker, addr(1), "a");
        world.run_for(Duration::from_secs(10));
        world.trace_hash()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn few_bytes_that_ask_for_many_are_answered_as_fast_as_they_are_taken() {
    const TOPICS: usize = 2_000;
    const ASKED: usize = 2_000;
    /// A chunk of requests may be under way when the bound is reached, and an answer has some 40 KiB here.
    const UNSENT_BYTES_MAX: usize = 5 << 20;

    let mut world = World::new(9);
    let node = world.node("namesrv", Ipv4Addr::new(10, 0, 0, 1));
    let most = Rc::new(RefCell::new(0));
    let seen = most.clone();
    world.start(node, "namesrv", || async move {
        let server = NameServer::start(Config::default()).expect("the port is free");
        loop {
            let unsent = server.unsent_bytes();
            seen.replace_with(|most| unsent.max(*most));
            reactor::sleep(Duration::from_micros(100)).await;
        }
    });
    let asker = world.node("asker", Ipv4Addr::new(10, 0, 0, 20));
    world.block_on(asker, async {
        let mut broker = Client::connect(addr(1)).await;
        let names: Vec<String> = (0..TOPICS).map(|n| format!("a-topic-{n:08}")).collect();
        let topics: Vec<_> = names.iter().map(|name| (name.as_str(), 4)).collect();
        let answer = broker.register(&Broker::master("a", "a:1"), &topics).await;
        assert_eq!(answer.code, 0);

        let mut greedy = Client::connect(addr(1)).await;
        let mut asked = Vec::new();
        for opaque in 0..ASKED as i32 {
            let (encoding, code) = (
                Encoding::Binary,
                request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER,
            );
            write_request(&mut asked, encoding, code, opaque, false, &[], b"");
        }
        greedy.send(asked).await.expect("taken");
        // It reads nothing for a while.
        reactor::sleep(Duration::from_secs(1)).await;
        for _ in 0..ASKED {
            let answer = greedy.answer().await.expect("an answer to each");
            assert_eq!(answer.code, 0);
        }
    });
    let most = *most.borrow();
    assert!(most > 1 << 20 && most < UNSENT_BYTES_MAX, "{most}");
}
