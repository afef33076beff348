//! Topics that an operator has taken from a group.

use std::path::Path;
use std::time::Duration;

use protocol::Value;
use protocol::body::Body;
use protocol::body::figures::GroupForbidden;
use protocol::code::{request, response};
use protocol::sysflag::pull::SUSPEND;
use reactor::fs;

use crate::cluster::{Cluster, STORE};
use crate::peer::{Heard, Peer};

/// What a pull says that goes by its group's subscriptions and waits for so long.
fn by_subscription(topic: &str, wait_ms: i64) -> [(&'static str, Value<'_>); 9] {
    let flags = if wait_ms > 0 { SUSPEND } else { 0 };
    [
        ("consumerGroup", Value::Str("g")),
        ("topic", Value::Str(topic)),
        ("queueId", Value::I32(0)),
        ("queueOffset", Value::I64(0)),
        ("maxMsgNums", Value::I32(32)),
        ("sysFlag", Value::I32(flags)),
        ("commitOffset", Value::I64(0)),
        ("suspendTimeoutMillis", Value::I64(wait_ms)),
        ("subVersion", Value::I64(1)),
    ]
}

async fn pull(peer: &mut Peer, topic: &str) -> Heard {
    let fields = by_subscription(topic, 0);
    peer.ask(request::PULL_MESSAGE, &fields, &[]).await
}

/// 353; without `readable` it is only asked. Says whether the group may read.
async fn may_read(peer: &mut Peer, topic: &str, readable: Option<bool>) -> bool {
    let mut fields = vec![("group", Value::Str("g")), ("topic", Value::Str(topic))];
    fields.extend(readable.map(|readable| ("readable", Value::Bool(readable))));
    let code = request::UPDATE_AND_GET_GROUP_FORBIDDEN;
    let answer = peer.ask(code, &fields, &[]).await;
    assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
    let said = GroupForbidden::from_json(&answer.body).expect("ours");
    assert_eq!((&*said.group, &*said.topic), ("g", topic));
    said.readable
}

/// Subscribes to both topics.
async fn member() -> Peer {
    let mut peer = Peer::connect().await;
    for topic in ["t", "u"] {
        peer.make_topic(topic, 1).await;
    }
    peer.beat("g", &["t", "u"], 1, false).await;
    peer
}

#[test]
fn a_group_does_not_read_what_is_forbidden_to_it_until_it_is_allowed_again() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = member().await;
        for topic in ["t", "u"] {
            peer.send(topic, "", b"x").await;
            assert_eq!(pull(&mut peer, topic).await.code, response::SUCCESS);
        }
        assert!(may_read(&mut peer, "t", None).await, "by default");
        assert!(!may_read(&mut peer, "t", Some(false)).await);
        assert!(!may_read(&mut peer, "t", None).await);
        let refused = pull(&mut peer, "t").await;
        assert_eq!(refused.code, response::NO_PERMISSION);
        assert_eq!(
            refused.remark,
            "the consumer group[g] is forbidden for topic[t]"
        );
        assert_eq!(pull(&mut peer, "u").await.code, response::SUCCESS);
        let own = peer.pull("g", "t", 0).await;
        assert_eq!(own.code, response::SUCCESS, "as with RocketMQ: {own:?}");

        may_read(&mut peer, "u", Some(false)).await;
        assert!(may_read(&mut peer, "t", Some(true)).await);
        assert_eq!(pull(&mut peer, "t").await.code, response::SUCCESS);
        assert!(
            !may_read(&mut peer, "u", None).await,
            "one topic is one topic"
        );
    });
}

#[test]
fn what_is_forbidden_outlives_the_broker_and_goes_with_the_group() {
    let mut cluster = Cluster::start(&[]);
    cluster.clients(|| async {
        let mut peer = member().await;
        may_read(&mut peer, "t", Some(false)).await;
    });
    cluster.kill_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = member().await;
        assert_eq!(pull(&mut peer, "t").await.code, response::NO_PERMISSION);
    });
    cluster.stop_broker();
    let path = Path::new(STORE).join("config/subscriptionGroup.json");
    let saved = cluster.on_disk(move || fs::read(&path).expect("it was saved"));
    let saved: serde_json::Value = protocol::json::from_slice(&saved).expect("JSON");
    // The bit of RocketMQ's permission to read.
    assert_eq!(saved["forbiddenTable"]["g"]["t"], 4);
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = member().await;
        assert_eq!(pull(&mut peer, "t").await.code, response::NO_PERMISSION);
        let fields = [("groupName", Value::Str("g"))];
        let code = request::DELETE_SUBSCRIPTIONGROUP;
        peer.ask(code, &fields, &[]).await;
        assert!(may_read(&mut peer, "t", None).await);
    });
}

#[test]
fn a_pull_that_waits_does_not_get_what_was_forbidden_meanwhile() {
    Cluster::start(&[]).clients(|| async {
        let (mut peer, mut operator) = (member().await, Peer::connect().await);
        for (topic, enabled) in [("t", true), ("u", false)] {
            let fields = by_subscription(topic, 20_000);
            peer.write(request::PULL_MESSAGE, &fields).await;
            reactor::sleep(Duration::from_secs(1)).await;
            match enabled {
                true => assert!(!may_read(&mut operator, topic, Some(false)).await),
                false => {
                    let code = request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
                    let body = br#"{"groupName":"g","consumeEnable":false}"#;
                    let answer = operator.ask(code, &[], body).await;
                    assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
                }
            }
            operator.send(topic, "", b"x").await;
            let answer = peer.next_answer().await;
            assert_eq!(answer.code, response::NO_PERMISSION, "{topic}");
        }
    });
}
