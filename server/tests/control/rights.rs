//! What a broker does whose own permission is taken, and what a group may not do.

use std::path::Path;
use std::time::Duration;

use protocol::Value;
use protocol::body::Body;
use protocol::body::heartbeat::{ConsumerData, HeartbeatData, MessageModel, SubscriptionData};
use protocol::code::{request, response};
use protocol::json::Dialect;
use protocol::permission::{READ, READ_WRITE, WRITE};
use protocol::record::parse_message_id;
use reactor::{Socket, fs};

use crate::cluster::{Cluster, NAME_SERVER};
use crate::peer::Peer;
use crate::popped::{ONCE, ask_pop};

const TOPIC: &str = "t";
const GROUP: &str = "g";

/// A broker with a file, into which its settings are written when they are changed.
fn start() -> Cluster {
    let mut cluster = Cluster::prepare(&[]);
    cluster.on_disk(|| fs::replace(Path::new("/broker.conf"), b"").expect("written"));
    cluster.start_broker();
    cluster
}

async fn permit(peer: &mut Peer, permission: i32) {
    let change = format!("brokerPermission={permission}\n");
    let code = request::UPDATE_BROKER_CONFIG;
    let answer = peer.ask(code, &[], change.as_bytes()).await;
    assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
}

async fn send_back(peer: &mut Peer, log_offset: i64) -> i32 {
    let fields = [
        ("offset", Value::I64(log_offset)),
        ("group", Value::Str(GROUP)),
        ("delayLevel", Value::I32(0)),
        ("originMsgId", Value::Str("")),
        ("originTopic", Value::Str(TOPIC)),
        ("unitMode", Value::Bool(false)),
    ];
    let code = request::CONSUMER_SEND_MSG_BACK;
    peer.ask(code, &fields, &[]).await.code
}

async fn reply(peer: &mut Peer) -> i32 {
    let fields = [
        ("producerGroup", Value::Str("p")),
        ("topic", Value::Str("DefaultCluster_REPLY_TOPIC")),
        ("defaultTopic", Value::Str("TBW102")),
        ("defaultTopicQueueNums", Value::I32(4)),
        ("queueId", Value::I32(0)),
        ("sysFlag", Value::I32(0)),
        ("bornTimestamp", Value::I64(1)),
        ("flag", Value::I32(0)),
        ("properties", Value::Str("")),
    ];
    let code = request::SEND_REPLY_MESSAGE;
    peer.ask(code, &fields, b"reply").await.code
}

#[test]
fn a_broker_that_may_not_be_read_gives_nothing_out() {
    start().clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        peer.join("a", GROUP, TOPIC).await;
        peer.send(TOPIC, "", b"x").await;
        permit(&mut peer, WRITE).await;
        let pulled = peer.pull(GROUP, TOPIC, 0).await;
        assert_eq!(pulled.code, response::NO_PERMISSION, "{}", pulled.remark);
        assert!(pulled.remark.contains("10.0.0.1"), "{}", pulled.remark);
        let popped = ask_pop(&mut peer, ONCE).await;
        assert_eq!(popped.code, response::NO_PERMISSION, "{}", popped.remark);
        assert_eq!(peer.send(TOPIC, "", b"y").await.code, response::SUCCESS);

        permit(&mut peer, READ_WRITE).await;
        assert_eq!(peer.pull(GROUP, TOPIC, 0).await.code, response::SUCCESS);
        assert_eq!(ask_pop(&mut peer, ONCE).await.code, response::SUCCESS);
    });
}

#[test]
fn a_broker_that_may_not_be_written_takes_nothing_ordered_nothing_back_and_no_reply() {
    start().clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        peer.make_ordered_topic("ordered").await;
        peer.join("a", GROUP, TOPIC).await;
        let sent = peer.send(TOPIC, "", b"x").await;
        let (_, at) = parse_message_id(sent.field("msgId")).expect("an offset id");
        let at = i64::try_from(at).expect("small");
        permit(&mut peer, READ).await;
        let ordered = peer.send("ordered", "", b"x").await;
        assert_eq!(ordered.code, response::NO_PERMISSION, "{}", ordered.remark);
        assert_eq!(send_back(&mut peer, at).await, response::NO_PERMISSION);
        assert_eq!(reply(&mut peer).await, response::NO_PERMISSION);
        // As with RocketMQ: clients are to stop by the route.
        assert_eq!(peer.send(TOPIC, "", b"y").await.code, response::SUCCESS);
        assert_eq!(peer.pull(GROUP, TOPIC, 0).await.code, response::SUCCESS);

        permit(&mut peer, READ_WRITE).await;
        let ordered = peer.send("ordered", "", b"x").await;
        assert_eq!(ordered.code, response::SUCCESS, "{}", ordered.remark);
        assert_eq!(send_back(&mut peer, at).await, response::SUCCESS);
    });
}

#[test]
fn the_name_server_hears_at_once_what_the_broker_may_do() {
    start().clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        for (permission, shown) in [(READ, "\"perm\":4"), (READ_WRITE, "\"perm\":6")] {
            permit(&mut peer, permission).await;
            // Far less than the period in which everything is confirmed.
            reactor::sleep(Duration::from_millis(500)).await;
            let mut name_server = Peer::connect_to(NAME_SERVER).await;
            let fields = [("topic", Value::Str(TOPIC))];
            let code = request::GET_ROUTEINFO_BY_TOPIC;
            let route = name_server.ask(code, &fields, &[]).await;
            let route = String::from_utf8(route.body).expect("JSON is UTF-8");
            assert!(route.contains(shown), "{route}");
        }
    });
}

#[test]
fn a_group_that_may_not_broadcast_is_refused_only_as_a_broadcasting_one() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        for (group, may, code) in [
            ("may", true, response::SUCCESS),
            ("may-not", false, response::NO_PERMISSION),
        ] {
            let config = format!("{{\"groupName\":\"{group}\",\"consumeBroadcastEnable\":{may}}}");
            let made = request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
            peer.ask(made, &[], config.as_bytes()).await;
            peer.send(TOPIC, "", b"x").await;
            for (model, code) in [
                (MessageModel::Clustering, response::SUCCESS),
                (MessageModel::Broadcasting, code),
            ] {
                let mut member = Peer::connect().await;
                join_as(&mut member, group, model).await;
                let pulled = pull_subscribed(&mut member, group).await;
                assert_eq!(pulled, code, "{group} {model:?}");
            }
        }
    });
}

async fn join_as(peer: &mut Peer, group: &str, model: MessageModel) {
    let beat = HeartbeatData {
        client_id: "client".to_owned(),
        consumer_data_set: vec![ConsumerData {
            group_name: group.to_owned(),
            message_model: model,
            subscription_data_set: vec![SubscriptionData::by_tags(TOPIC, "*", 1)],
            ..ConsumerData::default()
        }],
        ..HeartbeatData::default()
    };
    let body = beat.to_json(Dialect::Strict);
    peer.ask(request::HEART_BEAT, &[], &body).await;
}

/// By what the group subscribed to in its heartbeat.
async fn pull_subscribed(peer: &mut Peer, group: &str) -> i32 {
    let fields = [
        ("consumerGroup", Value::Str(group)),
        ("topic", Value::Str(TOPIC)),
        ("queueId", Value::I32(0)),
        ("queueOffset", Value::I64(0)),
        ("maxMsgNums", Value::I32(32)),
        ("sysFlag", Value::I32(0)),
        ("commitOffset", Value::I64(0)),
        ("suspendTimeoutMillis", Value::I64(0)),
        ("subVersion", Value::I64(1)),
    ];
    peer.ask(request::PULL_MESSAGE, &fields, &[]).await.code
}

#[test]
fn the_port_two_below_serves_the_same() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        let mut fast = crate::cluster::BROKER;
        fast.set_port(10_909);
        let mut vip = Peer::connect_to(fast).await;
        assert_eq!(vip.send(TOPIC, "", b"x").await.code, response::SUCCESS);
        vip.join("a", GROUP, TOPIC).await;
        assert_eq!(vip.pull(GROUP, TOPIC, 0).await.code, response::SUCCESS);
        assert_eq!(peer.max_offset(TOPIC, 0).await, 1);
        fast.set_port(10_908);
        assert!(Socket::connect(fast).await.is_err(), "and no other one");
    });
}
