//! Routes and tables byte by byte as a stock name server (5.4.0) answered them, given the same registrations.

use namesrv::kv_config::{KvConfig, ORDER_TOPIC_CONFIG};
use namesrv::routes::{ConnectionId, Queues, Registration, Routes, Topic};
use protocol::body::topic_config::DataVersion;
use protocol::json::Dialect;
use reactor::Instant;

fn topic(name: &str, read: i32, write: i32, permission: i32, sys_flag: i32) -> Topic {
    Topic {
        name: name.to_owned(),
        queues: Queues {
            read,
            write,
            permission,
            sys_flag,
        },
    }
}

struct Broker<'a> {
    cluster: &'a str,
    name: &'a str,
    id: i64,
    addr: &'a str,
    zone: Option<&'a str>,
    acting_master: Option<bool>,
}

fn master<'a>(cluster: &'a str, name: &'a str, addr: &'a str) -> Broker<'a> {
    Broker {
        cluster,
        name,
        id: 0,
        addr,
        zone: None,
        acting_master: Some(false),
    }
}

fn register(routes: &mut Routes, broker: &Broker<'_>, topics: &[Topic]) {
    let registration = Registration {
        cluster: broker.cluster,
        broker_name: broker.name,
        broker_addr: broker.addr,
        broker_id: broker.id,
        ha_addr: "127.0.0.1:10912",
        zone: broker.zone,
        silence_max: None,
        acting_master: broker.acting_master,
        version: DataVersion {
            counter: 1,
            state_version: 0,
            timestamp: 1_700_000_000_000,
        },
        topics_in_body: topics.len(),
        connection: ConnectionId(1),
    };
    routes
        .register(&registration, topics, Instant::default())
        .expect("a broker registers");
}

fn three_brokers() -> Routes {
    let mut routes = Routes::new();
    let base = [
        topic("TBW102", 8, 8, 7, 0),
        topic("orders", 4, 4, 6, 0),
        topic("wide", 2, 3, 6, 1),
    ];
    let others = [topic("orders", 6, 6, 4, 0), topic("TBW102", 8, 8, 7, 0)];
    register(
        &mut routes,
        &master("DefaultCluster", "broker-a", "127.0.0.1:10911"),
        &base,
    );
    let slave = Broker {
        id: 1,
        ..master("DefaultCluster", "broker-a", "127.0.0.1:11911")
    };
    register(&mut routes, &slave, &base);
    register(
        &mut routes,
        &master("DefaultCluster", "broker-b", "127.0.0.1:12911"),
        &others,
    );
    let old = Broker {
        acting_master: None,
        ..master("Other", "broker-c", "127.0.0.1:13911")
    };
    register(&mut routes, &old, &others);
    routes
}

fn many_brokers() -> Routes {
    let mut routes = three_brokers();
    for number in 0..30 {
        let name = format!("wide-broker-{number}");
        let addr = format!("10.0.0.{number}:10911");
        let topics = [
            topic("wide", number + 1, number + 2, 6, 0),
            topic("TBW102", 8, 8, 7, 0),
        ];
        register(
            &mut routes,
            &master("DefaultCluster", &name, &addr),
            &topics,
        );
    }
    routes
}

fn odd_brokers() -> Routes {
    let mut routes = Routes::new();
    let topics = [topic("odd", 4, 4, 6, 0), topic("x", 8, 8, 6, 0)];
    let first = Broker {
        zone: Some("z/1"),
        ..master("Cü/\"", "b€", "127.0.0.1:10911")
    };
    register(&mut routes, &first, &topics);
    let second = master("Cü/\"", "b2", "127.0.0.1:10921");
    let second = Broker {
        zone: Some("z1"),
        acting_master: Some(true),
        ..second
    };
    register(&mut routes, &second, &topics);
    routes
}

fn route(routes: &Routes, topic: &str, order_conf: Option<&str>, dialect: Dialect) -> String {
    let mut body = Vec::new();
    assert!(routes.append_route(&mut body, topic, order_conf, dialect));
    String::from_utf8(body).expect("JSON is UTF-8")
}

fn clusters(routes: &Routes) -> String {
    let mut body = Vec::new();
    routes.append_clusters(&mut body);
    String::from_utf8(body).expect("JSON is UTF-8")
}

#[test]
fn a_route_of_three_brokers_is_the_stock_one_in_both_dialects() {
    let routes = three_brokers();
    let order = Some("broker-a:4;broker-b:6");
    let strict = include_str!("captured/route_three_brokers_strict.json");
    assert_eq!(route(&routes, "orders", order, Dialect::Strict), strict);
    let fastjson1 = include_str!("captured/route_three_brokers_fastjson1.json");
    assert_eq!(
        route(&routes, "orders", order, Dialect::Fastjson1),
        fastjson1
    );
}

#[test]
fn a_route_of_many_brokers_comes_in_the_stock_order() {
    let routes = many_brokers();
    let strict = include_str!("captured/route_many_brokers_strict.json");
    assert_eq!(route(&routes, "wide", None, Dialect::Strict), strict);
    let fastjson1 = include_str!("captured/route_many_brokers_fastjson1.json");
    assert_eq!(route(&routes, "wide", None, Dialect::Fastjson1), fastjson1);
}

#[test]
fn odd_characters_are_escaped_as_the_stock_one_does() {
    let routes = odd_brokers();
    let order = "a/b<>&'ü€😀\"\\\n\r\t\u{8}\u{c}\u{1}\u{b}\u{1f}\u{7f}\u{80}\u{2028}\u{2029};";
    let strict = include_str!("captured/route_odd_characters_strict.json");
    assert_eq!(route(&routes, "odd", Some(order), Dialect::Strict), strict);
    let fastjson1 = include_str!("captured/route_odd_characters_fastjson1.json");
    assert_eq!(
        route(&routes, "odd", Some(order), Dialect::Fastjson1),
        fastjson1
    );
    assert_eq!(
        clusters(&routes),
        include_str!("captured/cluster_odd_characters.json")
    );
}

#[test]
fn clusters_and_groups_are_the_stock_ones() {
    assert_eq!(
        clusters(&three_brokers()),
        include_str!("captured/cluster_three_brokers.json")
    );
    assert_eq!(
        clusters(&many_brokers()),
        include_str!("captured/cluster_many_brokers.json")
    );
    let mut group = Vec::new();
    three_brokers().append_member_group(&mut group, "DefaultCluster", "broker-a");
    assert_eq!(group, include_bytes!("captured/member_group.json"));
}

#[test]
fn the_order_configuration_is_the_stock_one() {
    let mut kv = KvConfig::default();
    kv.put(ORDER_TOPIC_CONFIG, "orders", "broker-a:4;broker-b:6")
        .expect("it fits");
    let mut body = Vec::new();
    assert!(kv.append_namespace(&mut body, ORDER_TOPIC_CONFIG));
    assert_eq!(body, include_bytes!("captured/kv_order_config.json"));
}
