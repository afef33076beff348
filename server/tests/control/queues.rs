//! A topic that gets more queues while it is used, and fewer.

use protocol::Value;
use protocol::code::{request, response};
use protocol::record::View;

use crate::cluster::{Cluster, NAME_SERVER};
use crate::peer::{Heard, Peer};

const TOPIC: &str = "t";

async fn send_to(peer: &mut Peer, queue_id: i32, body: &[u8]) -> Heard {
    let fields = [
        ("producerGroup", Value::Str("p")),
        ("topic", Value::Str(TOPIC)),
        ("defaultTopic", Value::Str("TBW102")),
        ("defaultTopicQueueNums", Value::I32(4)),
        ("queueId", Value::I32(queue_id)),
        ("sysFlag", Value::I32(0)),
        ("bornTimestamp", Value::I64(1)),
        ("flag", Value::I32(0)),
        ("properties", Value::Str("")),
        ("reconsumeTimes", Value::I32(0)),
    ];
    peer.ask(request::SEND_MESSAGE, &fields, body).await
}

async fn pull_from(peer: &mut Peer, queue_id: i32, offset: i64, wait_ms: i64) -> Heard {
    let fields = [
        ("consumerGroup", Value::Str("g")),
        ("topic", Value::Str(TOPIC)),
        ("queueId", Value::I32(queue_id)),
        ("queueOffset", Value::I64(offset)),
        ("maxMsgNums", Value::I32(32)),
        ("sysFlag", Value::I32(if wait_ms > 0 { 6 } else { 4 })),
        ("commitOffset", Value::I64(0)),
        ("suspendTimeoutMillis", Value::I64(wait_ms)),
        ("subscription", Value::Str("*")),
        ("subVersion", Value::I64(1)),
    ];
    peer.ask(request::PULL_MESSAGE, &fields, &[]).await
}

fn only_body(answer: &Heard) -> Vec<u8> {
    let view = View::parse(&answer.body).expect("a record");
    assert_eq!(view.bytes.len(), answer.body.len(), "one message");
    view.body.to_vec()
}

async fn set_queues(peer: &mut Peer, write: i32, read: i32) {
    let fields = [
        ("topic", Value::Str(TOPIC)),
        ("defaultTopic", Value::Str("TBW102")),
        ("readQueueNums", Value::I32(read)),
        ("writeQueueNums", Value::I32(write)),
        ("perm", Value::I32(6)),
        ("topicFilterType", Value::Str("SINGLE_TAG")),
        ("topicSysFlag", Value::I32(0)),
        ("order", Value::Bool(false)),
    ];
    let code = request::UPDATE_AND_CREATE_TOPIC;
    let answer = peer.ask(code, &fields, &[]).await;
    assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
}

#[test]
fn new_queues_take_and_give_messages_at_once_and_old_ones_go_on() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.join("a", "g", TOPIC).await;
        set_queues(&mut peer, 2, 2).await;
        assert_eq!(send_to(&mut peer, 1, b"old").await.code, response::SUCCESS);
        let refused = send_to(&mut peer, 3, b"early").await;
        assert_eq!(refused.code, response::INVALID_PARAMETER);
        let refused = pull_from(&mut peer, 3, 0, 0).await;
        assert_eq!(refused.code, response::INVALID_PARAMETER);

        set_queues(&mut peer, 4, 4).await;
        let sent = send_to(&mut peer, 3, b"new").await;
        assert_eq!(sent.code, response::SUCCESS, "{}", sent.remark);
        assert_eq!(
            (sent.field("queueId"), sent.field("queueOffset")),
            ("3", "0")
        );
        assert_eq!(only_body(&pull_from(&mut peer, 3, 0, 0).await), b"new");
        assert_eq!(only_body(&pull_from(&mut peer, 1, 0, 0).await), b"old");
        assert_eq!(peer.max_offset(TOPIC, 3).await, 1);
        assert_eq!(peer.max_offset(TOPIC, 1).await, 1);

        // Whoever waits at a new queue is told of its first message.
        let mut waiting = Peer::connect().await;
        let waits = reactor::spawn("waits", async move {
            only_body(&pull_from(&mut waiting, 2, 0, 10_000).await)
        });
        send_to(&mut peer, 2, b"awaited").await;
        assert_eq!(waits.await.expect("it ends"), b"awaited");

        let mut name_server = Peer::connect_to(NAME_SERVER).await;
        let fields = [("topic", Value::Str(TOPIC))];
        let code = request::GET_ROUTEINFO_BY_TOPIC;
        let route = name_server.ask(code, &fields, &[]).await;
        let route = String::from_utf8(route.body).expect("JSON is UTF-8");
        assert!(route.contains("\"writeQueueNums\":4"), "{route}");
    });
}

#[test]
fn a_removed_queue_is_emptied_before_it_is_closed_and_keeps_what_it_has() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.join("a", "g", TOPIC).await;
        set_queues(&mut peer, 4, 4).await;
        send_to(&mut peer, 3, b"kept").await;
        // First the route of senders: who still has the old one may send, and all is read.
        set_queues(&mut peer, 2, 4).await;
        assert_eq!(send_to(&mut peer, 3, b"late").await.code, response::SUCCESS);
        assert_eq!(only_body(&pull_from(&mut peer, 3, 1, 0).await), b"late");

        set_queues(&mut peer, 2, 2).await;
        let refused = send_to(&mut peer, 3, b"too late").await;
        assert_eq!(refused.code, response::INVALID_PARAMETER);
        assert!(refused.remark.contains("queueId[3]"), "{}", refused.remark);
        let refused = pull_from(&mut peer, 3, 0, 0).await;
        assert_eq!(refused.code, response::INVALID_PARAMETER);
        assert_eq!(send_to(&mut peer, 1, b"fine").await.code, response::SUCCESS);

        set_queues(&mut peer, 4, 4).await;
        let sent = send_to(&mut peer, 3, b"back").await;
        assert_eq!(sent.field("queueOffset"), "2", "nothing was lost");
        assert_eq!(only_body(&pull_from(&mut peer, 3, 2, 0).await), b"back");
    });
}
