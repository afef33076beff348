use super::*;
use protocol::json::Dialect;
use reactor::Instant;

/// Registers and reads with defaults that fit most tests.
struct Bench {
    routes: Routes,
    now: Instant,
}

fn version(counter: i64) -> DataVersion {
    DataVersion {
        state_version: 0,
        timestamp: 1_700_000_000_000,
        counter,
    }
}

fn topic(name: &str, queues: i32) -> Topic {
    let queues = Queues {
        read: queues,
        write: queues,
        permission: 6,
        sys_flag: 0,
    };
    Topic {
        name: name.to_owned(),
        queues,
    }
}

fn broker(name: &'static str, id: i64, addr: &'static str) -> Registration<'static> {
    Registration {
        cluster: "c",
        broker_name: name,
        broker_addr: addr,
        broker_id: id,
        ha_addr: "ha:1",
        zone: None,
        silence_max: None,
        acting_master: Some(false),
        version: version(1),
        topics_in_body: 2,
        connection: ConnectionId(1),
    }
}

impl Bench {
    fn new() -> Bench {
        Bench {
            routes: Routes::new(),
            now: Instant::default(),
        }
    }

    fn register(
        &mut self,
        registration: &Registration<'_>,
        topics: &[Topic],
    ) -> Result<Registered, Refused> {
        self.routes.register(registration, topics, self.now)
    }

    fn route(&self, topic: &str) -> Option<String> {
        let mut body = Vec::new();
        let found = self
            .routes
            .append_route(&mut body, topic, None, Dialect::Strict);
        found.then(|| String::from_utf8(body).expect("JSON is UTF-8"))
    }

    fn queues(&self, topic: &str) -> Vec<(String, i64, i64)> {
        let Some(route) = self.route(topic) else {
            return Vec::new();
        };
        let route: serde_json::Value = serde_json::from_str(&route).expect("a route is JSON");
        let queues = route["queueDatas"].as_array().expect("a list");
        let one = |data: &serde_json::Value| {
            let number = |name: &str| data[name].as_i64().expect("a number");
            let name = data["brokerName"].as_str().expect("a name").to_owned();
            (name, number("readQueueNums"), number("perm"))
        };
        queues.iter().map(one).collect()
    }

    fn list(&self, filter: TopicFilter, limit: usize) -> Vec<String> {
        let mut names = Vec::new();
        let mut walk = Walk::default();
        while !walk.is_done() {
            self.routes.list(&filter, &mut walk, limit, |name| {
                names.push(name.to_owned())
            });
        }
        assert_eq!(walk.count, names.len());
        names
    }
}

#[test]
fn a_registered_topic_is_routed_and_an_unknown_one_is_not() {
    let mut bench = Bench::new();
    bench
        .register(&broker("a", 0, "a:1"), &[topic("t", 4), topic("u", 1)])
        .unwrap();
    assert_eq!(bench.queues("t"), [("a".to_owned(), 4, 6)]);
    assert_eq!(bench.route("none"), None);
}

#[test]
fn pieces_with_versions_of_their_own_add_up_and_replace() {
    let mut bench = Bench::new();
    bench
        .register(&broker("a", 0, "a:1"), &[topic("t", 4), topic("u", 1)])
        .unwrap();
    let next = Registration {
        version: version(2),
        ..broker("a", 0, "a:1")
    };
    bench
        .register(&next, &[topic("u", 2), topic("v", 3)])
        .unwrap();
    assert_eq!(bench.queues("t")[0].1, 4);
    assert_eq!(bench.queues("u")[0].1, 2);
    assert_eq!(bench.queues("v")[0].1, 3);
}

#[test]
fn pieces_of_one_version_add_what_is_missing() {
    let mut bench = Bench::new();
    bench
        .register(&broker("a", 0, "a:1"), &[topic("t", 4), topic("u", 1)])
        .unwrap();
    bench
        .register(&broker("a", 0, "a:1"), &[topic("u", 9), topic("v", 3)])
        .unwrap();
    assert_eq!(bench.queues("u")[0].1, 1);
    assert_eq!(bench.queues("v")[0].1, 3);
}

#[test]
fn a_changed_topic_comes_alone_once_the_broker_is_known() {
    let mut bench = Bench::new();
    let alone = Registration {
        topics_in_body: 1,
        ..broker("a", 0, "a:1")
    };
    assert_eq!(
        bench.register(&alone, &[topic("t", 4)]),
        Err(Refused::NotRegisteredYet)
    );
    assert_eq!(bench.routes.broker_count(), 0);
    bench
        .register(&broker("a", 0, "a:1"), &[topic("t", 4), topic("u", 1)])
        .unwrap();
    let alone = Registration {
        version: version(2),
        ..alone
    };
    bench.register(&alone, &[topic("t", 5)]).unwrap();
    assert_eq!(bench.queues("t")[0].1, 5);
    assert_eq!(bench.queues("u")[0].1, 1);
}

#[test]
fn a_slave_learns_its_master_and_does_not_touch_topics() {
    let mut bench = Bench::new();
    let slave = broker("a", 1, "s:1");
    let old_slave = Registration {
        acting_master: None,
        ..slave.clone()
    };
    assert_eq!(
        bench.register(&old_slave, &[topic("t", 9), topic("u", 9)]),
        Ok(Registered::default())
    );
    assert_eq!(bench.route("t"), None);
    bench
        .register(&broker("a", 0, "a:1"), &[topic("t", 4), topic("u", 1)])
        .unwrap();
    let answer = bench
        .register(&slave, &[topic("t", 9), topic("u", 9)])
        .unwrap();
    assert_eq!(answer.master_addr.as_deref(), Some("a:1"));
    assert_eq!(answer.ha_addr.as_deref(), Some("ha:1"));
    assert_eq!(bench.queues("t")[0].1, 4);
}

#[test]
fn a_slave_that_stands_in_is_readable_but_not_writable() {
    let mut bench = Bench::new();
    let slave = Registration {
        acting_master: Some(true),
        ..broker("a", 1, "s:1")
    };
    bench
        .register(&slave, &[topic("t", 4), topic("u", 1)])
        .unwrap();
    assert_eq!(bench.queues("t"), [("a".to_owned(), 4, 4)]);
}

#[test]
fn a_broker_with_a_new_address_takes_the_place_of_the_old_one() {
    let mut bench = Bench::new();
    bench
        .register(&broker("a", 0, "old:1"), &[topic("t", 4), topic("u", 1)])
        .unwrap();
    let moved = Registration {
        connection: ConnectionId(2),
        ..broker("a", 0, "new:1")
    };
    bench
        .register(&moved, &[topic("t", 4), topic("u", 1)])
        .unwrap();
    assert!(bench.route("t").unwrap().contains("{\"0\":\"new:1\"}"));
    // The end of the old one must not take the new one along.
    assert_eq!(bench.routes.remove_connection(ConnectionId(1)).len(), 1);
    assert!(bench.route("t").is_some());
    bench.routes.remove_connection(ConnectionId(2));
    assert_eq!(bench.route("t"), None);
}

#[test]
fn an_address_with_older_state_does_not_take_over() {
    let mut bench = Bench::new();
    let newer = DataVersion {
        state_version: 7,
        ..version(1)
    };
    let first = Registration {
        version: newer,
        ..broker("a", 0, "first:1")
    };
    bench
        .register(&first, &[topic("t", 4), topic("u", 1)])
        .unwrap();
    let older = Registration {
        connection: ConnectionId(2),
        ..broker("a", 0, "second:1")
    };
    assert_eq!(
        bench.register(&older, &[topic("t", 9), topic("u", 9)]),
        Ok(Registered::default())
    );
    assert_eq!(bench.queues("t")[0].1, 4);
    assert!(bench.route("t").unwrap().contains("first:1"));
}

#[test]
fn a_slave_that_became_master_stands_in_one_place_only() {
    let mut bench = Bench::new();
    bench
        .register(&broker("a", 1, "s:1"), &[topic("t", 4), topic("u", 1)])
        .unwrap();
    bench
        .register(&broker("a", 0, "s:1"), &[topic("t", 4), topic("u", 1)])
        .unwrap();
    assert!(
        bench
            .route("t")
            .unwrap()
            .contains("{\"brokerAddrs\":{\"0\":\"s:1\"}")
    );
}

#[test]
fn a_renamed_broker_leaves_its_old_name() {
    let mut bench = Bench::new();
    bench
        .register(&broker("a", 0, "x:1"), &[topic("t", 4), topic("u", 1)])
        .unwrap();
    bench
        .register(&broker("b", 0, "x:1"), &[topic("t", 5), topic("v", 1)])
        .unwrap();
    assert_eq!(bench.queues("t"), [("b".to_owned(), 5, 6)]);
    assert_eq!(bench.route("u"), None);
    assert_eq!(bench.list(TopicFilter::All, 10), ["t", "v"]);
}

#[test]
fn silence_ends_a_broker_after_its_own_time() {
    let mut bench = Bench::new();
    bench
        .register(&broker("a", 0, "a:1"), &[topic("t", 4), topic("u", 1)])
        .unwrap();
    let short = Registration {
        silence_max: Some(Duration::from_secs(10)),
        ..broker("b", 0, "b:1")
    };
    bench
        .register(&short, &[topic("t", 4), topic("u", 1)])
        .unwrap();

    let at = |secs| bench.now + Duration::from_secs(secs);
    let (at_10, at_11, at_120, at_121) = (at(10), at(11), at(120), at(121));
    assert_eq!(bench.routes.expire(at_10), []);
    let gone = bench.routes.expire(at_11);
    assert_eq!(gone[0].key, BrokerKey::new("c", "b:1"));
    assert_eq!(bench.queues("t").len(), 1);
    assert_eq!(bench.routes.expire(at_120), []);
    assert_eq!(bench.routes.expire(at_121).len(), 1);
    assert_eq!(bench.route("t"), None);
}

#[test]
fn a_word_from_the_broker_starts_its_time_anew() {
    let mut bench = Bench::new();
    bench
        .register(&broker("a", 0, "a:1"), &[topic("t", 4), topic("u", 1)])
        .unwrap();
    bench
        .routes
        .heard("c", "a:1", bench.now + Duration::from_secs(100));
    assert_eq!(
        bench.routes.expire(bench.now + Duration::from_secs(200)),
        []
    );
}

#[test]
fn topics_of_a_gone_broker_are_invisible_at_once_and_swept_later() {
    let mut bench = Bench::new();
    let topics: Vec<_> = (0..1000)
        .map(|number| topic(&format!("t{number:04}"), 1))
        .collect();
    bench.register(&broker("a", 0, "a:1"), &topics).unwrap();
    bench
        .register(&broker("b", 0, "b:1"), &topics[..10])
        .unwrap();
    assert!(bench.routes.unregister("c", "a:1", "a"));

    assert_eq!(bench.list(TopicFilter::All, 64).len(), 10);
    assert_eq!(bench.route("t0500"), None);
    assert_eq!(bench.routes.topic_count(), 1000);
    let mut turns = 0;
    while bench.routes.sweep(64) {
        turns += 1;
    }
    assert_eq!(turns, 1000 / 64);
    assert_eq!(bench.routes.topic_count(), 10);
    assert!(!bench.routes.sweep_wanted());
}

#[test]
fn a_broker_that_comes_back_before_the_sweep_has_only_its_new_topics() {
    let mut bench = Bench::new();
    bench
        .register(&broker("a", 0, "a:1"), &[topic("t", 4), topic("u", 1)])
        .unwrap();
    bench.routes.unregister("c", "a:1", "a");
    bench
        .register(&broker("a", 0, "a:1"), &[topic("t", 4), topic("v", 1)])
        .unwrap();
    assert_eq!(bench.route("u"), None);
    while bench.routes.sweep(1) {}
    assert_eq!(bench.list(TopicFilter::All, 1), ["t", "v"]);
}

#[test]
fn a_registration_overtaken_by_another_stops() {
    let mut bench = Bench::new();
    let now = bench.now;
    let Ok(Admission::Admitted(first)) = bench.routes.admit(&broker("a", 0, "a:1"), now) else {
        panic!()
    };
    bench.routes.apply(&first, &[topic("t", 1)]).unwrap();
    let again = Registration {
        version: version(2),
        connection: ConnectionId(2),
        ..broker("a", 0, "a:1")
    };
    bench
        .register(&again, &[topic("t", 2), topic("u", 2)])
        .unwrap();
    assert_eq!(
        bench.routes.apply(&first, &[topic("t", 1)]),
        Err(Refused::Overtaken)
    );
    assert_eq!(bench.routes.seal(first, now), Err(Refused::Overtaken));
    assert_eq!(bench.queues("t")[0].1, 2);
    assert_eq!(bench.routes.version("c", "a:1"), Some(version(2)));
}

#[test]
fn the_version_is_known_only_when_all_is_applied() {
    let mut bench = Bench::new();
    let now = bench.now;
    let Ok(Admission::Admitted(ticket)) = bench.routes.admit(&broker("a", 0, "a:1"), now) else {
        panic!()
    };
    assert_eq!(bench.routes.version("c", "a:1"), None);
    bench.routes.seal(ticket, now).unwrap();
    assert_eq!(bench.routes.version("c", "a:1"), Some(version(1)));
}

#[test]
fn wiped_write_permission_survives_a_repeated_registration_and_not_a_changed_one() {
    let mut bench = Bench::new();
    let topics = [topic("t", 4), topic("u", 1)];
    bench.register(&broker("a", 0, "a:1"), &topics).unwrap();
    let mut walk = Walk::default();
    while !walk.is_done() {
        bench.routes.change_write("a", false, &mut walk, 1);
    }
    assert_eq!(walk.count, 2);
    bench.register(&broker("a", 0, "a:1"), &topics).unwrap();
    assert_eq!(bench.queues("t")[0].2, 4);
    bench
        .register(
            &Registration {
                version: version(2),
                ..broker("a", 0, "a:1")
            },
            &topics,
        )
        .unwrap();
    assert_eq!(bench.queues("t")[0].2, 6);
}

#[test]
fn a_single_topic_of_a_known_broker_is_added_and_of_an_unknown_one_is_not() {
    let mut bench = Bench::new();
    bench
        .register(&broker("a", 0, "a:1"), &[topic("t", 4), topic("u", 1)])
        .unwrap();
    let queues = topic("", 3).queues;
    let known = ("a".to_owned(), queues);
    let unknown = ("x".to_owned(), queues);
    assert_eq!(
        bench
            .routes
            .register_topic("new", std::slice::from_ref(&known)),
        Ok(true)
    );
    assert_eq!(
        bench.routes.register_topic("mixed", &[known, unknown]),
        Ok(false)
    );
    assert_eq!(bench.queues("new")[0].1, 3);
    assert_eq!(bench.route("mixed"), None);
}

#[test]
fn deleting_a_topic_in_one_cluster_keeps_the_others() {
    let mut bench = Bench::new();
    let topics = [topic("t", 4), topic("u", 1)];
    bench.register(&broker("a", 0, "a:1"), &topics).unwrap();
    bench
        .register(
            &Registration {
                cluster: "d",
                ..broker("b", 0, "b:1")
            },
            &topics,
        )
        .unwrap();
    bench.routes.delete_topic("t", Some("c"));
    assert_eq!(bench.queues("t"), [("b".to_owned(), 4, 6)]);
    bench.routes.delete_topic("u", None);
    assert_eq!(bench.route("u"), None);
}

#[test]
fn lists_pass_what_their_filter_names() {
    let mut bench = Bench::new();
    let flagged = |name: &str, sys_flag| {
        let plain = topic(name, 1);
        Topic {
            queues: Queues {
                sys_flag,
                ..plain.queues
            },
            ..plain
        }
    };
    bench
        .register(
            &broker("a", 0, "a:1"),
            &[flagged("unit", 1), flagged("both", 3), flagged("sub", 2)],
        )
        .unwrap();
    let other = Registration {
        cluster: "d",
        ..broker("b", 0, "b:1")
    };
    bench
        .register(&other, &[topic("plain", 1), topic("both", 1)])
        .unwrap();
    assert_eq!(
        bench.list(TopicFilter::All, 2),
        ["both", "plain", "sub", "unit"]
    );
    assert_eq!(
        bench.list(TopicFilter::Cluster("d".to_owned()), 2),
        ["both", "plain"]
    );
    assert!(
        bench
            .list(TopicFilter::Cluster("none".to_owned()), 2)
            .is_empty()
    );
    assert_eq!(bench.list(TopicFilter::Unit, 1), ["both", "unit"]);
    assert_eq!(bench.list(TopicFilter::UnitSubscribed, 3), ["both", "sub"]);
    assert_eq!(bench.list(TopicFilter::UnitSubscribedOnly, 3), ["sub"]);
}
