//! A running name server on loopback, asked by every request it knows.

#[path = "support/client.rs"]
#[allow(dead_code)] // each test file uses its part
mod client;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use client::{Broker, Client, body, register_body, version};
use namesrv::{Config, NameServer};
use protocol::code::{request, response};
use protocol::{Encoding, Value, write_request};
use reactor::CoreConfig;

const PATIENCE: Duration = Duration::from_secs(20);

fn loopback() -> Config {
    Config {
        bind_addr: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 0,
        ..Config::default()
    }
}

/// Runs a scene against a fresh name server, which is stopped afterwards.
fn scene<F: Future<Output = ()> + 'static>(
    config: Config,
    play: impl FnOnce(SocketAddr) -> F + 'static,
) {
    let core = CoreConfig {
        name: "test".to_owned(),
        ..CoreConfig::default()
    };
    let done = reactor::run(core, || async move {
        let server = NameServer::start(config).expect("a name server on a free port");
        let addr = server.local_addr();
        reactor::timeout(PATIENCE, play(addr))
            .await
            .expect("the scene ends in time");
        server.stop().await;
    });
    done.expect("a core starts");
}

#[test]
fn a_broker_registers_is_routed_and_leaves() {
    scene(loopback(), |addr| async move {
        let mut broker = Client::connect(addr).await;
        let mut asker = Client::connect(addr).await;
        let a = Broker::master("a", "a:1");
        assert_eq!(broker.register(&a, &[("t", 4), ("u", 1)]).await.code, 0);
        let (code, route) = asker.route("t").await;
        assert_eq!(code, 0);
        assert!(route.contains("\"brokerAddrs\":{\"0\":\"a:1\"}"), "{route}");

        let answer = asker
            .ask(request::GET_ROUTEINFO_BY_TOPIC, &[("topic", "none")], b"")
            .await;
        assert_eq!(answer.code, response::TOPIC_NOT_EXIST);
        assert_eq!(
            answer.remark,
            "No topic route info in name server for the topic: none"
        );

        let left = broker
            .ask(request::UNREGISTER_BROKER, &a.fields(), b"")
            .await;
        assert_eq!(left.code, 0);
        assert!(!asker.has_route("t").await);
    });
}

#[test]
fn the_dialect_follows_the_version_of_the_asker() {
    scene(loopback(), |addr| async move {
        let mut client = Client::connect(addr).await;
        client
            .register(&Broker::master("a", "a:1"), &[("t", 4), ("u", 1)])
            .await;
        let ask_as = |version: i32| {
            let header = format!(
                "{{\"code\":105,\"flag\":0,\"language\":\"JAVA\",\"opaque\":9,\"version\":{version},\"extFields\":{{\"topic\":\"t\"}}}}"
            );
            let mut frame = (header.len() as u32 + 4).to_be_bytes().to_vec();
            frame.extend_from_slice(&(header.len() as u32).to_be_bytes());
            frame.extend_from_slice(header.as_bytes());
            frame
        };
        client.send(ask_as(400)).await.unwrap();
        let old = client.answer().await.expect("an answer");
        assert!(old.text().contains("{0:\"a:1\"}"), "{}", old.text());
        client.send(ask_as(401)).await.unwrap();
        let new = client.answer().await.expect("an answer");
        assert!(new.text().contains("{\"0\":\"a:1\"}"), "{}", new.text());
    });
}

#[test]
fn a_request_in_the_binary_header_is_answered_in_it() {
    scene(loopback(), |addr| async move {
        let mut client = Client::connect(addr).await;
        let mut frame = Vec::new();
        let fields = [("topic", Value::Str("none"))];
        write_request(
            &mut frame,
            Encoding::Binary,
            request::GET_ROUTEINFO_BY_TOPIC,
            77,
            false,
            &fields,
            b"",
        );
        client.send(frame).await.unwrap();
        let answer = client.answer().await.expect("an answer");
        assert_eq!(
            (answer.opaque, answer.code),
            (77, response::TOPIC_NOT_EXIST)
        );
    });
}

#[test]
fn the_end_of_its_connection_is_the_end_of_a_broker() {
    scene(loopback(), |addr| async move {
        let mut asker = Client::connect(addr).await;
        let mut broker = Client::connect(addr).await;
        broker
            .register(&Broker::master("a", "a:1"), &[("t", 4), ("u", 1)])
            .await;
        assert!(asker.has_route("t").await);
        broker.socket.shutdown();
        while asker.has_route("t").await {}
    });
}

#[test]
fn a_broker_that_reconnected_survives_the_end_of_its_old_connection() {
    scene(loopback(), |addr| async move {
        let a = Broker::master("a", "a:1");
        let mut old = Client::connect(addr).await;
        old.register(&a, &[("t", 4), ("u", 1)]).await;
        let mut new = Client::connect(addr).await;
        new.register(&a, &[("t", 4), ("u", 1)]).await;
        old.socket.shutdown();
        // The old connection's end is handled before the answers of one opened later.
        for _ in 0..3 {
            assert!(Client::connect(addr).await.has_route("t").await);
        }
    });
}

#[test]
fn versions_are_compared_and_the_known_one_is_told() {
    scene(loopback(), |addr| async move {
        let mut broker = Client::connect(addr).await;
        let a = Broker::master("a", "a:1");
        let current = serde_json::to_vec(&version(1)).unwrap();
        let unknown = broker
            .ask(request::QUERY_DATA_VERSION, &a.fields(), &current)
            .await;
        assert_eq!(unknown.fields["changed"], "true");
        assert!(unknown.body.is_empty());
        broker.register(&a, &[("t", 4), ("u", 1)]).await;
        let known = broker
            .ask(request::QUERY_DATA_VERSION, &a.fields(), &current)
            .await;
        assert_eq!(known.fields["changed"], "false");
        assert_eq!(
            known.text(),
            "{\"counter\":1,\"stateVersion\":0,\"timestamp\":1700000000000}"
        );
        let newer = serde_json::to_vec(&version(2)).unwrap();
        let changed = broker
            .ask(request::QUERY_DATA_VERSION, &a.fields(), &newer)
            .await;
        assert_eq!(changed.fields["changed"], "true");
    });
}

#[test]
fn a_compressed_registration_counts_like_a_plain_one_and_a_broken_one_not_at_all() {
    scene(loopback(), |addr| async move {
        let mut broker = Client::connect(addr).await;
        let a = Broker::master("a", "a:1");
        let compressed = register_body(&[("t", 4), ("u", 1)], 1).to_compressed();
        let mut fields: Vec<_> = a
            .fields()
            .into_iter()
            .filter(|(name, _)| *name != "compressed")
            .collect();
        fields.push(("compressed", "true"));
        assert_eq!(
            broker
                .ask(request::REGISTER_BROKER, &fields, &compressed)
                .await
                .code,
            0
        );
        assert!(broker.has_route("t").await);

        let broken = broker
            .ask(request::REGISTER_BROKER, &fields, &compressed[..20])
            .await;
        assert_eq!(broken.code, response::SYSTEM_ERROR);
        fields.push(("bodyCrc32", "5"));
        let wrong = broker
            .ask(request::REGISTER_BROKER, &fields, &compressed)
            .await;
        assert_eq!(
            (wrong.code, wrong.remark.as_str()),
            (response::SYSTEM_ERROR, "crc32 not match")
        );
    });
}

#[test]
fn a_body_in_fastjsons_own_spelling_is_read() {
    scene(loopback(), |addr| async move {
        let mut broker = Client::connect(addr).await;
        let body = br#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":{"counter":3,"timestamp":5},
            "topicConfigTable":{"t":{"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"t",
            "topicSysFlag":0,"writeQueueNums":4},'u':{perm:6,"readQueueNums":1,"topicName":"u","writeQueueNums":1}}}}"#;
        let answer = broker
            .ask(
                request::REGISTER_BROKER,
                &Broker::master("a", "a:1").fields(),
                body,
            )
            .await;
        assert_eq!(answer.code, 0, "{}", answer.remark);
        assert!(broker.has_route("t").await && broker.has_route("u").await);
    });
}

#[test]
fn sixty_thousand_topics_register_in_pieces_and_stay_routed() {
    const TOPICS: usize = 60_000;
    const PIECE: usize = 12_000;
    scene(loopback(), |addr| async move {
        let names: Vec<String> = (0..TOPICS)
            .map(|number| format!("topic-with-a-usual-name-{number:06}"))
            .collect();
        let mut broker = Client::connect(addr).await;
        for (number, piece) in names.chunks(PIECE).enumerate() {
            let topics: Vec<_> = piece.iter().map(|name| (name.as_str(), 8)).collect();
            let a = Broker {
                version: number as i64,
                ..Broker::master("a", "a:1")
            };
            assert_eq!(broker.register(&a, &topics).await.code, 0);
        }
        for name in names.iter().step_by(997) {
            assert!(broker.has_route(name).await, "{name}");
        }
        let list = broker
            .ask(request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &[], b"")
            .await;
        let list: serde_json::Value = serde_json::from_slice(&list.body).unwrap();
        assert_eq!(list["topicList"].as_array().map(Vec::len), Some(TOPICS));

        let alone = Broker {
            version: 99,
            ..Broker::master("a", "a:1")
        };
        broker.register(&alone, &[(&names[5], 3)]).await;
        assert!(
            broker
                .route(&names[5])
                .await
                .1
                .contains("\"readQueueNums\":3")
        );
        assert!(broker.has_route(&names[6]).await);
    });
}

#[test]
fn brokers_clusters_and_topics_are_told() {
    scene(loopback(), |addr| async move {
        let mut broker = Client::connect(addr).await;
        broker
            .register(&Broker::master("a", "a:1"), &[("t", 4), ("u", 1)])
            .await;
        let slave = Broker {
            id: "1",
            ..Broker::master("a", "s:1")
        };
        let answer = broker.register(&slave, &[("t", 4), ("u", 1)]).await;
        assert_eq!(answer.fields["masterAddr"], "a:1");
        assert_eq!(answer.fields["haServerAddr"], "ha:1");

        let group = [("clusterName", "c"), ("brokerName", "a")];
        let group = broker
            .ask(request::GET_BROKER_MEMBER_GROUP, &group, b"")
            .await;
        assert!(
            group.text().contains("{0:\"a:1\",1:\"s:1\"}"),
            "{}",
            group.text()
        );
        let clusters = broker.ask(request::GET_BROKER_CLUSTER_INFO, &[], b"").await;
        assert!(
            clusters
                .text()
                .contains("\"clusterAddrTable\":{\"c\":[\"a\"]}"),
            "{}",
            clusters.text()
        );
        let system = broker
            .ask(request::GET_SYSTEM_TOPIC_LIST_FROM_NS, &[], b"")
            .await;
        assert_eq!(
            system.text(),
            "{\"brokerAddr\":\"a:1\",\"topicList\":[\"c\",\"a\"]}"
        );
        let of_cluster = broker
            .ask(request::GET_TOPICS_BY_CLUSTER, &[("cluster", "c")], b"")
            .await;
        assert_eq!(of_cluster.text(), "{\"topicList\":[\"t\",\"u\"]}");
        let units = broker.ask(request::GET_UNIT_TOPIC_LIST, &[], b"").await;
        assert_eq!(units.text(), "{\"topicList\":[]}");
        let beat = [
            ("clusterName", "c"),
            ("brokerName", "a"),
            ("brokerAddr", "a:1"),
        ];
        assert_eq!(
            broker.ask(request::BROKER_HEARTBEAT, &beat, b"").await.code,
            0
        );
    });
}

#[test]
fn write_permission_is_taken_and_given_by_broker() {
    scene(loopback(), |addr| async move {
        let mut client = Client::connect(addr).await;
        client
            .register(&Broker::master("a", "a:1"), &[("t", 4), ("u", 1)])
            .await;
        let wiped = client
            .ask(
                request::WIPE_WRITE_PERM_OF_BROKER,
                &[("brokerName", "a")],
                b"",
            )
            .await;
        assert_eq!(wiped.fields["wipeTopicCount"], "2");
        assert!(client.route("t").await.1.contains("\"perm\":4"));
        let added = client
            .ask(
                request::ADD_WRITE_PERM_OF_BROKER,
                &[("brokerName", "a")],
                b"",
            )
            .await;
        assert_eq!(added.fields["addTopicCount"], "2");
        assert!(client.route("t").await.1.contains("\"perm\":6"));
        let none = client
            .ask(
                request::WIPE_WRITE_PERM_OF_BROKER,
                &[("brokerName", "x")],
                b"",
            )
            .await;
        assert_eq!(none.fields["wipeTopicCount"], "0");
    });
}

#[test]
fn one_topic_is_added_and_deleted() {
    scene(loopback(), |addr| async move {
        let mut client = Client::connect(addr).await;
        client
            .register(&Broker::master("a", "a:1"), &[("t", 4), ("u", 1)])
            .await;
        let body = br#"{"queueDatas":[{"brokerName":"a","perm":6,"readQueueNums":3,"topicSysFlag":0,"writeQueueNums":3}]}"#;
        client
            .ask(
                request::REGISTER_TOPIC_IN_NAMESRV,
                &[("topic", "new")],
                body,
            )
            .await;
        assert!(client.has_route("new").await);
        client
            .ask(request::DELETE_TOPIC_IN_NAMESRV, &[("topic", "new")], b"")
            .await;
        assert!(!client.has_route("new").await);
    });
}

#[test]
fn configuration_values_survive_a_restart_and_go_to_brokers_and_routes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("deep").join("kvConfig.json");
    let config = || {
        let mut config = Config {
            kv_config_path: Some(path.clone()),
            ..loopback()
        };
        config.live.order_message_enable = true;
        config
    };
    scene(config(), |addr| async move {
        let mut client = Client::connect(addr).await;
        let put = [
            ("namespace", "ORDER_TOPIC_CONFIG"),
            ("key", "t"),
            ("value", "a:4"),
        ];
        assert_eq!(client.ask(request::PUT_KV_CONFIG, &put, b"").await.code, 0);
        let other = [("namespace", "n"), ("key", "k"), ("value", "v")];
        assert_eq!(
            client.ask(request::PUT_KV_CONFIG, &other, b"").await.code,
            0
        );
        assert_eq!(
            client
                .ask(request::DELETE_KV_CONFIG, &other[..2], b"")
                .await
                .code,
            0
        );
    });
    scene(config(), |addr| async move {
        let mut client = Client::connect(addr).await;
        let got = client
            .ask(
                request::GET_KV_CONFIG,
                &[("namespace", "ORDER_TOPIC_CONFIG"), ("key", "t")],
                b"",
            )
            .await;
        assert_eq!(got.fields["value"], "a:4");
        let none = client
            .ask(
                request::GET_KV_CONFIG,
                &[("namespace", "n"), ("key", "k")],
                b"",
            )
            .await;
        assert_eq!(none.code, response::QUERY_NOT_FOUND);
        assert_eq!(none.remark, "No config item, Namespace: n Key: k");
        let list = client
            .ask(
                request::GET_KVLIST_BY_NAMESPACE,
                &[("namespace", "ORDER_TOPIC_CONFIG")],
                b"",
            )
            .await;
        assert_eq!(list.text(), "{\"table\":{\"t\":\"a:4\"}}");
        let registered = client
            .register(&Broker::master("a", "a:1"), &[("t", 4), ("u", 1)])
            .await;
        assert_eq!(registered.text(), "{\"table\":{\"t\":\"a:4\"}}");
        assert!(
            client
                .route("t")
                .await
                .1
                .contains("\"orderTopicConf\":\"a:4\"")
        );
    });
}

#[test]
fn settings_are_told_and_only_harmless_ones_are_changed_and_written_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("namesrv.properties");
    std::fs::write(&path, "# mine\nlistenPort=1\norderMessageEnable=false\n").unwrap();
    let config = Config {
        config_store_path: Some(path.clone()),
        ..loopback()
    };
    scene(config, |addr| async move {
        let mut client = Client::connect(addr).await;
        for refused in [
            "kvConfigPath=/etc/passwd",
            "configStorePath=/tmp/x",
            "listenPort=1",
        ] {
            let body = format!("enableTopicList=false\n{refused}\n");
            let answer = client
                .ask(request::UPDATE_NAMESRV_CONFIG, &[], body.as_bytes())
                .await;
            assert_eq!(answer.code, response::NO_PERMISSION, "{refused}");
        }
        let answer = client
            .ask(
                request::UPDATE_NAMESRV_CONFIG,
                &[],
                b"orderMessageEnable=true\n",
            )
            .await;
        assert_eq!(answer.code, 0);
        let all = client.ask(request::GET_NAMESRV_CONFIG, &[], b"").await;
        assert!(
            all.text().contains("orderMessageEnable=true\n"),
            "{}",
            all.text()
        );
        assert!(
            all.text().contains("enableTopicList=true\n"),
            "nothing of a refused request is taken"
        );
    });
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written, "# mine\nlistenPort=1\norderMessageEnable=true\n");
}

#[test]
fn an_unknown_request_is_refused_and_the_connection_lives() {
    scene(loopback(), |addr| async move {
        let mut client = Client::connect(addr).await;
        let answer = client.ask(9999, &[], b"").await;
        assert_eq!(answer.code, response::REQUEST_CODE_NOT_SUPPORTED);
        assert_eq!(answer.remark, " request type 9999 not supported");
        let answer = client
            .ask(request::REGISTER_BROKER, &[("brokerName", "a")], b"")
            .await;
        assert_eq!(answer.code, response::SYSTEM_ERROR);
    });
}

#[test]
fn a_oneway_request_takes_effect_and_is_not_answered() {
    scene(loopback(), |addr| async move {
        let mut client = Client::connect(addr).await;
        let a = Broker::master("a", "a:1");
        client
            .tell(
                request::REGISTER_BROKER,
                true,
                &a.fields(),
                &body(&[("t", 4), ("u", 1)], 1),
            )
            .await;
        // The next answer is the one to the next question.
        assert!(client.has_route("t").await);
    });
}

#[test]
fn bytes_that_are_no_frame_end_their_connection_and_no_other() {
    scene(loopback(), |addr| async move {
        let mut good = Client::connect(addr).await;
        good.register(&Broker::master("a", "a:1"), &[("t", 4), ("u", 1)])
            .await;
        let too_large = 0x7fff_ffff_u32.to_be_bytes().to_vec();
        let garbage = [&16_u32.to_be_bytes()[..], &[0xff; 16]].concat();
        let bad_json = [
            &12_u32.to_be_bytes()[..],
            &8_u32.to_be_bytes()[..],
            b"{\"code\":",
        ]
        .concat();
        let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
        for bytes in [too_large, garbage, bad_json, http] {
            let mut bad = Client::connect(addr).await;
            bad.send(bytes).await.unwrap();
            assert!(bad.answer().await.is_none(), "the connection is closed");
        }
        assert!(good.has_route("t").await);
    });
}

#[test]
fn requests_of_one_connection_take_effect_in_their_order() {
    scene(loopback(), |addr| async move {
        let mut client = Client::connect(addr).await;
        let a = Broker::master("a", "a:1");
        // All in one go, so that the later ones are there while the registration is still being worked on.
        for (number, queues) in [(1, 1), (2, 2), (3, 3)] {
            let a = Broker {
                version: number,
                ..a
            };
            client
                .tell(
                    request::REGISTER_BROKER,
                    false,
                    &a.fields(),
                    &body(&[("t", queues), ("u", 1)], number),
                )
                .await;
            client
                .tell(
                    request::GET_ROUTEINFO_BY_TOPIC,
                    false,
                    &[("topic", "t")],
                    b"",
                )
                .await;
        }
        for queues in 1..=3 {
            client.answer().await.expect("the registration's answer");
            let route = client.answer().await.expect("the route");
            assert!(
                route
                    .text()
                    .contains(&format!("\"readQueueNums\":{queues}")),
                "{}",
                route.text()
            );
        }
    });
}

type Fields = &'static [(&'static str, &'static str)];

/// Code, fields, body as the dashboard, the exporter and mqadmin send them.
const TOOLS: &[(i32, Fields, &str)] = &[
    (
        request::PUT_KV_CONFIG,
        &[("namespace", "n"), ("key", "k"), ("value", "v")],
        "",
    ),
    (
        request::GET_KV_CONFIG,
        &[("namespace", "n"), ("key", "k")],
        "",
    ),
    (request::GET_KVLIST_BY_NAMESPACE, &[("namespace", "n")], ""),
    (
        request::DELETE_KV_CONFIG,
        &[("namespace", "n"), ("key", "k")],
        "",
    ),
    (
        request::GET_ROUTEINFO_BY_TOPIC,
        &[("topic", "t"), ("acceptStandardJsonOnly", "true")],
        "",
    ),
    (request::GET_BROKER_CLUSTER_INFO, &[], ""),
    (
        request::WIPE_WRITE_PERM_OF_BROKER,
        &[("brokerName", "a")],
        "",
    ),
    (
        request::ADD_WRITE_PERM_OF_BROKER,
        &[("brokerName", "a")],
        "",
    ),
    (request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &[], ""),
    (
        request::GET_TOPICS_BY_CLUSTER,
        &[("cluster", "DefaultCluster")],
        "",
    ),
    (request::GET_SYSTEM_TOPIC_LIST_FROM_NS, &[], ""),
    (request::GET_UNIT_TOPIC_LIST, &[], ""),
    (request::GET_HAS_UNIT_SUB_TOPIC_LIST, &[], ""),
    (request::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST, &[], ""),
    (request::GET_NAMESRV_CONFIG, &[], ""),
    (
        request::UPDATE_NAMESRV_CONFIG,
        &[],
        "returnOrderTopicConfigToBroker=true\n",
    ),
    (
        request::GET_BROKER_MEMBER_GROUP,
        &[("clusterName", "DefaultCluster"), ("brokerName", "a")],
        "",
    ),
    (
        request::DELETE_TOPIC_IN_NAMESRV,
        &[("topic", "t"), ("clusterName", "DefaultCluster")],
        "",
    ),
];

#[test]
fn every_code_of_the_tools_is_served() {
    scene(loopback(), |addr| async move {
        let mut client = Client::connect(addr).await;
        let broker = Broker::master("a", "a:1");
        let registered = client.register(&broker, &[("t", 4), ("u", 1)]).await;
        assert_eq!(registered.code, response::SUCCESS, "{}", registered.remark);
        for (code, fields, body) in TOOLS {
            let answer = client.ask(*code, fields, body.as_bytes()).await;
            assert_eq!(answer.code, response::SUCCESS, "{code}: {}", answer.remark);
        }
    });
}
