//! Consumers that filter by an expression in SQL92.

use protocol::Value;
use protocol::body::Body;
use protocol::body::heartbeat::{
    CheckClientRequest, ConsumerData, EXPRESSION_SQL92, HeartbeatData, SubscriptionData,
};
use protocol::code::{request, response};
use protocol::json::Dialect;

use crate::cluster::Cluster;
use crate::peer::{Heard, Peer};

const ON: [(&str, &str); 1] = [("enablePropertyFilter", "true")];

fn subscription(expression: &str) -> SubscriptionData {
    SubscriptionData {
        topic: "t".to_owned(),
        expression_type: EXPRESSION_SQL92.to_owned(),
        sub_string: expression.to_owned(),
        sub_version: 1,
        ..SubscriptionData::default()
    }
}

async fn join(peer: &mut Peer, group: &str, expression: &str) {
    let beat = HeartbeatData {
        client_id: "a".to_owned(),
        consumer_data_set: vec![ConsumerData {
            group_name: group.to_owned(),
            subscription_data_set: vec![subscription(expression)],
            ..ConsumerData::default()
        }],
        ..HeartbeatData::default()
    };
    let body = beat.to_json(Dialect::Strict);
    peer.ask(request::HEART_BEAT, &[], &body).await;
}

async fn check(peer: &mut Peer, expression: &str) -> Heard {
    let request = CheckClientRequest {
        subscription_data: Some(subscription(expression)),
        ..CheckClientRequest::default()
    };
    let body = request.to_json(Dialect::Strict);
    peer.ask(request::CHECK_CLIENT_CONFIG, &[], &body).await
}

async fn pull(peer: &mut Peer, group: &str, offset: i64, own: Option<&str>) -> Heard {
    let mut fields = vec![
        ("consumerGroup", Value::Str(group)),
        ("topic", Value::Str("t")),
        ("queueId", Value::I32(0)),
        ("queueOffset", Value::I64(offset)),
        ("maxMsgNums", Value::I32(32)),
        ("sysFlag", Value::I32(if own.is_some() { 4 } else { 0 })),
        ("commitOffset", Value::I64(0)),
        ("suspendTimeoutMillis", Value::I64(0)),
        ("subVersion", Value::I64(1)),
        ("expressionType", Value::Str(EXPRESSION_SQL92)),
    ];
    fields.extend(own.map(|expression| ("subscription", Value::Str(expression))));
    peer.ask(request::PULL_MESSAGE, &fields, &[]).await
}

fn bodies(pulled: &Heard) -> Vec<u8> {
    let mut rest = pulled.body.as_slice();
    let mut bodies = Vec::new();
    while !rest.is_empty() {
        let view = protocol::record::View::parse(rest).expect("whole records");
        bodies.extend_from_slice(view.body);
        rest = &rest[view.bytes.len()..];
    }
    bodies
}

async fn ten_messages() -> Peer {
    let mut peer = Peer::connect().await;
    peer.make_topic("t", 1).await;
    for number in 0..10u8 {
        let properties = format!("price\u{1}{number}\u{2}TAGS\u{1}x\u{2}");
        peer.send("t", &properties, &[number]).await;
    }
    peer
}

#[test]
fn only_messages_whose_properties_match_come() {
    Cluster::start(&ON).clients(|| async {
        let mut peer = ten_messages().await;
        join(&mut peer, "g", "price BETWEEN 3 AND 5 AND TAGS = 'x'").await;
        let pulled = pull(&mut peer, "g", 0, None).await;
        assert_eq!((pulled.code, bodies(&pulled)), (0, vec![3, 4, 5]));
        assert_eq!(pulled.field("nextBeginOffset"), "10");
        let own = pull(&mut peer, "g", 0, Some("price > 7")).await;
        assert_eq!(bodies(&own), [8, 9], "what comes with the pull counts");
        let none = pull(&mut peer, "g", 0, Some("price > 70")).await;
        assert_eq!(none.code, response::PULL_RETRY_IMMEDIATELY);
        assert_eq!(none.field("nextBeginOffset"), "10");
    });
}

#[test]
fn the_same_messages_come_from_the_disk_after_a_restart() {
    let mut cluster = Cluster::start(&ON);
    cluster.clients(|| async { drop(ten_messages().await) });
    cluster.stop_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        let pulled = pull(&mut peer, "g", 0, Some("price IN ('1', '6')")).await;
        assert_eq!(bodies(&pulled), [1, 6]);
    });
}

#[test]
fn after_a_restart_a_condition_counts_from_the_next_heartbeat_on_and_nothing_is_pulled_before() {
    let mut cluster = Cluster::start(&ON);
    cluster.clients(|| async {
        let mut peer = ten_messages().await;
        join(&mut peer, "g", "price > 7").await;
        assert_eq!(bodies(&pull(&mut peer, "g", 0, None).await), [8, 9]);
    });
    cluster.stop_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        let unknown = pull(&mut peer, "g", 0, None).await;
        assert_eq!(unknown.code, response::SUBSCRIPTION_NOT_EXIST);
        join(&mut peer, "g", "price > 7").await;
        assert_eq!(bodies(&pull(&mut peer, "g", 0, None).await), [8, 9]);
    });
}

#[test]
fn a_wrong_expression_is_refused_when_a_client_asks_and_when_it_pulls() {
    Cluster::start(&ON).clients(|| async {
        let mut peer = ten_messages().await;
        assert_eq!(check(&mut peer, "price > 3").await.code, response::SUCCESS);
        let refused = check(&mut peer, "price > 'three'").await;
        assert_eq!(refused.code, response::SUBSCRIPTION_PARSE_FAILED);
        join(&mut peer, "g", "price >").await;
        let pulled = pull(&mut peer, "g", 0, None).await;
        assert_eq!(pulled.code, response::FILTER_DATA_NOT_EXIST);
        let own = pull(&mut peer, "g", 0, Some("price >")).await;
        assert_eq!(own.code, response::SUBSCRIPTION_PARSE_FAILED);
    });
}

#[test]
fn a_broker_that_does_not_filter_by_properties_says_so() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = ten_messages().await;
        let refused = check(&mut peer, "price > 3").await;
        assert_eq!(refused.code, response::SYSTEM_ERROR);
        assert!(refused.remark.ends_with("filter message by SQL92"));
        let own = pull(&mut peer, "g", 0, Some("price > 3")).await;
        assert_eq!(own.code, response::SYSTEM_ERROR);
        assert_eq!(own.remark, refused.remark);
    });
}
