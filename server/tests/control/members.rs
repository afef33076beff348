//! Who is in a group, and who is told when that changes.

use std::time::Duration;

use protocol::Value;
use protocol::body::Body;
use protocol::body::lists::ConsumerList;
use protocol::body::lock::{LockBatchAnswer, LockBatchRequest};
use protocol::body::queue::MessageQueue;
use protocol::code::{request, response};
use protocol::json::Dialect;

use crate::cluster::Cluster;
use crate::peer::{Peer, heartbeat};

const CHANGED: i32 = request::NOTIFY_CONSUMER_IDS_CHANGED;
/// Far less than any timer of the broker: what comes within it came at once.
const AT_ONCE: Duration = Duration::from_millis(500);

async fn list(peer: &mut Peer, group: &str) -> Vec<String> {
    let fields = [("consumerGroup", Value::Str(group))];
    let answer = peer
        .ask(request::GET_CONSUMER_LIST_BY_GROUP, &fields, &[])
        .await;
    if answer.code != response::SUCCESS {
        return Vec::new();
    }
    let list = ConsumerList::from_json(&answer.body).expect("a list");
    list.consumer_id_list
}

#[test]
fn members_are_told_at_once_and_once_when_somebody_comes_or_goes() {
    Cluster::start(&[]).clients(|| async {
        let (mut a, mut b) = (Peer::connect().await, Peer::connect().await);
        a.join("a", "g", "t").await;
        a.told(CHANGED, AT_ONCE).await;

        b.join("b", "g", "t").await;
        assert_eq!(a.told(CHANGED, AT_ONCE).await, 1, "b came");
        assert_eq!(list(&mut a, "g").await, ["a", "b"]);
        b.join("b", "g", "t").await;
        assert_eq!(a.told(CHANGED, AT_ONCE).await, 0, "b only confirmed");

        b.join("b", "g", "u").await;
        assert_eq!(a.told(CHANGED, AT_ONCE).await, 1, "other topics");
        drop(b);
        assert_eq!(
            a.told(CHANGED, AT_ONCE).await,
            1,
            "b's connection was closed"
        );
        assert_eq!(list(&mut a, "g").await, ["a"]);
    });
}

#[test]
fn who_unregisters_leaves_at_once() {
    Cluster::start(&[]).clients(|| async {
        let (mut a, mut b) = (Peer::connect().await, Peer::connect().await);
        a.join("a", "g", "t").await;
        b.join("b", "g", "t").await;
        a.told(CHANGED, AT_ONCE).await;
        let fields = [
            ("clientID", Value::Str("b")),
            ("consumerGroup", Value::Str("g")),
        ];
        b.ask(request::UNREGISTER_CLIENT, &fields, &[]).await;
        assert_eq!(a.told(CHANGED, AT_ONCE).await, 1);
        assert_eq!(list(&mut b, "g").await, ["a"]);
    });
}

#[test]
fn a_client_that_says_nothing_for_two_minutes_is_closed_and_missed() {
    let settings = [("serverChannelMaxIdleTimeSeconds", "0")];
    Cluster::start(&settings).clients(|| async {
        let (mut a, mut b) = (Peer::connect().await, Peer::connect().await);
        b.join("b", "g", "t").await;
        for _ in 0..6 {
            a.join("a", "g", "t").await;
            reactor::sleep(Duration::from_secs(25)).await;
        }
        assert_eq!(list(&mut a, "g").await, ["a"]);
        while b.hear().await {}
    });
}

#[test]
fn a_group_that_a_living_connection_no_longer_names_loses_that_member() {
    Cluster::start(&[]).clients(|| async {
        let (mut a, mut b) = (Peer::connect().await, Peer::connect().await);
        b.join("b", "g", "t").await;
        for _ in 0..6 {
            a.join("a", "g", "t").await;
            // The same client, which has lost its consumer of g without saying so.
            b.join("b", "h", "t").await;
            reactor::sleep(Duration::from_secs(25)).await;
        }
        assert_eq!(list(&mut a, "g").await, ["a"]);
    });
}

#[test]
fn a_short_heartbeat_leaves_the_retry_topic_as_it_is() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_ordered_topic("t").await;
        for without_sub in [false, true, true] {
            let topics: &[&str] = if without_sub { &[] } else { &["t"] };
            peer.beat("g", topics, 7, without_sub).await;
            let fields = [("topic", Value::Str("%RETRY%g"))];
            let answer = peer.ask(request::GET_TOPIC_CONFIG, &fields, &[]).await;
            let body = String::from_utf8(answer.body).expect("text");
            assert!(body.contains("\"order\":true"), "{without_sub} {body}");
        }
    });
}

#[test]
fn the_retry_topic_is_there_after_the_first_heartbeat() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        let answer = peer.join("a", "g", "t").await;
        assert_eq!(answer.field("IS_SUPPORT_HEART_BEAT_V2"), "true");
        let fields = [("topic", Value::Str("%RETRY%g"))];
        let answer = peer.ask(request::GET_TOPIC_CONFIG, &fields, &[]).await;
        assert_eq!(answer.code, response::SUCCESS);
        let body = String::from_utf8(answer.body).expect("text");
        assert!(
            body.contains("\"readQueueNums\":1") && body.contains("\"perm\":6"),
            "{body}"
        );
    });
}

#[test]
fn a_queue_is_locked_by_one_client_for_a_minute() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        assert_eq!(lock(&mut peer, "a").await, 1);
        assert_eq!(lock(&mut peer, "b").await, 0);
        reactor::sleep(Duration::from_secs(61)).await;
        let mut peer = Peer::connect().await;
        assert_eq!(lock(&mut peer, "b").await, 1);
    });
}

/// How many of one queue this client got.
async fn lock(peer: &mut Peer, client: &str) -> usize {
    let wanted = LockBatchRequest {
        client_id: client.to_owned(),
        consumer_group: "g".to_owned(),
        mq_set: vec![MessageQueue {
            broker_name: "broker-a".to_owned(),
            queue_id: 0,
            topic: "t".to_owned(),
        }],
        only_this_broker: false,
    };
    let body = wanted.to_json(Dialect::Strict);
    let answer = peer.ask(request::LOCK_BATCH_MQ, &[], &body).await;
    let got = LockBatchAnswer::from_json(&answer.body).expect("a set");
    got.lock_ok_mq_set.len()
}

#[test]
fn members_that_come_together_hear_of_each_other_without_a_notice_for_every_pair() {
    const MEMBERS: usize = 120;
    Cluster::start(&[]).clients(|| async {
        let mut peers = Vec::new();
        for _ in 0..MEMBERS {
            peers.push(Peer::connect().await);
        }
        for (number, peer) in peers.iter_mut().enumerate() {
            let body = heartbeat(&format!("client-{number}"), "g", "t");
            peer.write_with(request::HEART_BEAT, &[], &body).await;
        }
        let mut all = 0;
        for peer in &mut peers {
            let told = peer.told(CHANGED, AT_ONCE).await;
            assert!(told > 0, "each hears of the others");
            all += told;
        }
        let pairs = MEMBERS * MEMBERS / 2;
        assert!(all < pairs / 8, "{all} notices, {pairs} pairs");
        assert_eq!(list(&mut peers[0], "g").await.len(), MEMBERS);
    });
}
