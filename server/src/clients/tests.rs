use super::*;

fn conn(slot: u32) -> ConnId {
    ConnId {
        shard: 0,
        slot,
        generation: 1,
    }
}

fn client(id: &str, seen_ms: u64) -> Client {
    Client {
        id: id.to_owned(),
        peer: SocketAddr::from(([127, 0, 0, 1], 4000)),
        language: Language::JAVA,
        version: 479,
        seen_ms,
    }
}

fn consumer(group: &str, topics: &[(&str, i64)]) -> ConsumerData {
    ConsumerData {
        group_name: group.to_owned(),
        subscription_data_set: topics
            .iter()
            .map(|(topic, version)| SubscriptionData {
                topic: (*topic).to_owned(),
                sub_string: "*".to_owned(),
                sub_version: *version,
                ..SubscriptionData::default()
            })
            .collect(),
        ..ConsumerData::default()
    }
}

const JOINED: Change = Change {
    members_must_know: true,
    subscriptions: true,
    disagrees: false,
    send_in_full: false,
};
const NOTHING: Change = Change {
    members_must_know: false,
    subscriptions: false,
    disagrees: false,
    send_in_full: false,
};

#[test]
fn a_group_changes_when_a_member_comes_and_not_when_it_confirms() {
    let mut clients = Clients::default();
    let data = consumer("g", &[("t", 1)]);
    assert_eq!(
        clients.consumer_heartbeat(conn(1), client("a", 0), &data, Form::Long),
        JOINED
    );
    assert_eq!(
        clients.consumer_heartbeat(conn(1), client("a", 9), &data, Form::Long),
        NOTHING
    );
    let second = clients.consumer_heartbeat(conn(2), client("b", 9), &data, Form::Long);
    assert!(second.members_must_know && !second.subscriptions);
    let group = clients.consumer_group("g").expect("live");
    assert_eq!(group.client_ids(), ["a", "b"]);
}

#[test]
fn a_new_expression_is_seen_by_pulls_and_a_new_topic_by_members_too() {
    let mut clients = Clients::default();
    let mut beat = |topics: &[(&str, i64)]| {
        clients.consumer_heartbeat(conn(1), client("a", 0), &consumer("g", topics), Form::Long)
    };
    beat(&[("t", 5)]);
    assert_eq!(beat(&[("t", 4)]), NOTHING, "an older one changes nothing");
    assert_eq!(
        beat(&[("t", 6)]),
        Change {
            members_must_know: false,
            subscriptions: true,
            ..NOTHING
        }
    );
    assert_eq!(beat(&[("t", 6), ("u", 1)]), JOINED);
    assert_eq!(beat(&[("u", 1)]), JOINED, "a topic less is a change");
}

#[test]
fn members_that_want_something_else_than_the_others_are_noticed() {
    let mut clients = Clients::default();
    let mut beat = |conn_of: u32, topics: &[(&str, i64)]| {
        let client = client(&conn_of.to_string(), 0);
        let data = consumer("g", topics);
        let changed = clients.consumer_heartbeat(conn(conn_of), client, &data, Form::Long);
        changed.disagrees
    };
    assert!(!beat(1, &[("t", 1)]));
    assert!(
        !beat(1, &[("t", 1), ("u", 1)]),
        "alone it may change its mind"
    );
    assert!(!beat(2, &[("t", 2), ("u", 2)]), "the same, said later");
    assert!(beat(2, &[("t", 3)]));
    assert!(beat(1, &[("t", 1), ("u", 1)]));
}

#[test]
fn replies_go_where_the_client_was_heard_last() {
    let mut clients = Clients::default();
    clients.producer_heartbeat(conn(1), client("a", 0), "p");
    clients.producer_heartbeat(conn(1), client("a", 0), "q");
    clients.producer_leaves(conn(1), "p");
    assert_eq!(
        clients.producer_connection("a"),
        Some(conn(1)),
        "still in q"
    );
    clients.producer_heartbeat(conn(2), client("a", 1), "p");
    assert_eq!(clients.producer_connection("a"), Some(conn(2)));
    clients.connection_closed(conn(1));
    assert_eq!(clients.producer_connection("a"), Some(conn(2)));
    clients.producer_leaves(conn(2), "p");
    assert_eq!(clients.producer_connection("a"), None);
}

#[test]
fn a_short_heartbeat_keeps_the_subscriptions() {
    let mut clients = Clients::default();
    clients.consumer_heartbeat(
        conn(1),
        client("a", 0),
        &consumer("g", &[("t", 1)]),
        Form::Long,
    );
    let short = clients.consumer_heartbeat(
        conn(1),
        client("a", 5),
        &consumer("g", &[]),
        Form::Short { fingerprint: 0 },
    );
    assert_eq!(short, NOTHING);
    let group = clients.consumer_group("g").expect("live");
    assert!(group.subscriptions.contains_key("t"));
}

#[test]
fn a_closed_connection_leaves_all_its_groups() {
    let mut clients = Clients::default();
    for group in ["g", "h"] {
        clients.consumer_heartbeat(
            conn(1),
            client("a", 0),
            &consumer(group, &[("t", 1)]),
            Form::Long,
        );
    }
    clients.consumer_heartbeat(
        conn(2),
        client("b", 0),
        &consumer("g", &[("t", 1)]),
        Form::Long,
    );
    clients.producer_heartbeat(conn(1), client("a", 0), "p");
    let mut left = clients.connection_closed(conn(1));
    left.sort();
    assert_eq!(left, [Arc::from("g"), Arc::from("h")]);
    assert_eq!(
        clients
            .consumer_group("g")
            .expect("b is there")
            .client_ids(),
        ["b"]
    );
    assert!(
        clients.consumer_group("h").is_none(),
        "a group without members is forgotten"
    );
    assert!(clients.producers("p").is_none());
    assert!(
        clients.connection_closed(conn(1)).is_empty(),
        "once per change"
    );
}

#[test]
fn leaving_one_group_keeps_the_other() {
    let mut clients = Clients::default();
    for group in ["g", "h"] {
        clients.consumer_heartbeat(
            conn(1),
            client("a", 0),
            &consumer(group, &[("t", 1)]),
            Form::Long,
        );
    }
    assert!(clients.consumer_leaves(conn(1), "g"));
    assert!(!clients.consumer_leaves(conn(1), "g"));
    assert!(clients.consumer_group("h").is_some());
    assert_eq!(clients.connection_closed(conn(1)), [Arc::from("h")]);
}

#[test]
fn silent_clients_are_found_when_one_group_of_theirs_has_not_heard_of_them() {
    let mut clients = Clients::default();
    clients.consumer_heartbeat(
        conn(1),
        client("a", 0),
        &consumer("g", &[("t", 1)]),
        Form::Long,
    );
    clients.producer_heartbeat(conn(1), client("a", 100), "p");
    clients.producer_heartbeat(conn(2), client("b", 100), "p");
    assert!(clients.silent(120_000, 120_000).is_empty());
    assert_eq!(clients.silent(120_001, 120_000), [conn(1)]);
    assert_eq!(clients.silent(120_101, 120_000), [conn(1), conn(2)]);
}

#[test]
fn the_groups_of_a_topic_are_those_that_subscribe_to_it_now() {
    let mut clients = Clients::default();
    clients.consumer_heartbeat(
        conn(1),
        client("a", 0),
        &consumer("g", &[("t", 1)]),
        Form::Long,
    );
    clients.consumer_heartbeat(
        conn(2),
        client("b", 0),
        &consumer("h", &[("u", 1)]),
        Form::Long,
    );
    assert_eq!(clients.groups_of_topic("t"), ["g"]);
    clients.connection_closed(conn(1));
    assert!(clients.groups_of_topic("t").is_empty());
}

#[test]
fn a_short_heartbeat_that_confirms_nothing_known_asks_for_the_full_one() {
    let mut clients = Clients::default();
    let mut beat = |slot: u32, form: Form, topics: &[(&str, i64)]| {
        let data = consumer("g", topics);
        clients
            .consumer_heartbeat(conn(slot), client("a", 0), &data, form)
            .send_in_full
    };
    assert!(
        beat(1, Form::Short { fingerprint: 7 }, &[]),
        "after a restart"
    );
    assert!(!beat(1, Form::Full { fingerprint: 7 }, &[("t", 1)]));
    assert!(!beat(1, Form::Short { fingerprint: 7 }, &[]));
    assert!(
        beat(2, Form::Short { fingerprint: 8 }, &[]),
        "members differ"
    );
}
