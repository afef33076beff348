//! What one client is told through the broker by another, or by an operator.

use std::time::Duration;

use protocol::Value;
use protocol::body::Body;
use protocol::body::consumer::ConsumerStatus;
use protocol::body::heartbeat::{HeartbeatData, ProducerData};
use protocol::body::queue::MessageQueue;
use protocol::code::{request, response};
use protocol::json::Dialect;

use crate::cluster::Cluster;
use crate::peer::{Heard, Peer};

const SOON: Duration = Duration::from_secs(1);

fn ask_consumer<'a>(group: &'a str, client: &'a str) -> [(&'static str, Value<'a>); 3] {
    [
        ("consumerGroup", Value::Str(group)),
        ("clientId", Value::Str(client)),
        ("jstackEnable", Value::Bool(true)),
    ]
}

#[test]
fn a_consumers_state_is_asked_of_it_and_handed_back_as_it_is() {
    Cluster::start(&[]).clients(|| async {
        let mut a = Peer::connect().await;
        a.join("a", "g", "t").await;
        let mut operator = Peer::connect().await;
        let code = request::GET_CONSUMER_RUNNING_INFO;
        operator.write(code, &ask_consumer("g", "a")).await;
        let asked = a.asked(code, SOON).await.expect("asked");
        assert_eq!(asked.field("jstackEnable"), "true");
        a.answer(&asked, 0, b"{\"any\":thing}").await;
        let answer = operator.next_answer().await;
        assert_eq!(
            (answer.code, answer.body.as_slice()),
            (0, b"{\"any\":thing}".as_slice())
        );
    });
}

#[test]
fn who_is_not_there_or_goes_or_does_not_answer_is_reported() {
    Cluster::start(&[]).clients(|| async {
        let mut operator = Peer::connect().await;
        let code = request::GET_CONSUMER_RUNNING_INFO;
        let answer = operator.ask(code, &ask_consumer("g", "a"), &[]).await;
        assert_eq!(answer.code, response::SYSTEM_ERROR);
        assert!(answer.remark.contains("not online"), "{}", answer.remark);

        let mut a = Peer::connect().await;
        a.join("a", "g", "t").await;
        let answer = operator.ask(code, &ask_consumer("g", "a"), &[]).await;
        assert_eq!(answer.code, response::CONSUME_MSG_TIMEOUT, "silent");

        operator.write(code, &ask_consumer("g", "a")).await;
        a.asked(code, SOON).await.expect("asked again");
        drop(a);
        let answer = reactor::timeout(SOON, operator.next_answer()).await;
        let answer = answer.expect("a closed connection is noticed at once");
        assert_eq!(answer.code, response::SYSTEM_ERROR);
    });
}

#[test]
fn an_answer_from_somebody_else_does_not_count() {
    Cluster::start(&[]).clients(|| async {
        let (mut a, mut b) = (Peer::connect().await, Peer::connect().await);
        a.join("a", "g", "t").await;
        let mut operator = Peer::connect().await;
        let code = request::GET_CONSUMER_RUNNING_INFO;
        operator.write(code, &ask_consumer("g", "a")).await;
        let asked = a.asked(code, SOON).await.expect("asked");
        b.answer(&asked, 0, b"not mine").await;
        reactor::sleep(Duration::from_millis(100)).await;
        a.answer(&asked, 0, b"mine").await;
        assert_eq!(operator.next_answer().await.body, b"mine");
    });
}

#[test]
fn a_message_is_given_to_the_consumer_it_is_meant_for() {
    Cluster::start(&[]).clients(|| async {
        let mut a = Peer::connect().await;
        a.make_topic("t", 1).await;
        a.join("a", "g", "t").await;
        let sent = a.send("t", "", b"body").await;
        let mut operator = Peer::connect().await;
        let code = request::CONSUME_MESSAGE_DIRECTLY;
        let fields = [
            ("consumerGroup", Value::Str("g")),
            ("clientId", Value::Str("a")),
            ("msgId", Value::Str(sent.field("msgId"))),
        ];
        operator.write(code, &fields).await;
        let asked = a.asked(code, SOON).await.expect("asked");
        let view = protocol::record::View::parse(&asked.body).expect("the record");
        assert_eq!(view.body, b"body");
        assert_eq!(asked.field("brokerName"), "broker-a");
        a.answer(&asked, 0, b"{}").await;
        assert_eq!(operator.next_answer().await.code, 0);
    });
}

#[test]
fn members_tell_where_they_stand() {
    Cluster::start(&[]).clients(|| async {
        let mut a = Peer::connect().await;
        a.join("a", "g", "t").await;
        let mut operator = Peer::connect().await;
        let fields = [("group", Value::Str("g")), ("topic", Value::Str("t"))];
        operator
            .write(request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS, &fields)
            .await;
        let code = request::GET_CONSUMER_STATUS_FROM_CLIENT;
        let asked = a.asked(code, SOON).await.expect("asked");
        let queue = MessageQueue {
            broker_name: "broker-a".to_owned(),
            queue_id: 0,
            topic: "t".to_owned(),
        };
        let mine = ConsumerStatus {
            queues: [(queue.clone(), 7)].into(),
            ..ConsumerStatus::default()
        };
        a.answer(&asked, 0, &mine.to_json()).await;
        let answer = operator.next_answer().await;
        let status = ConsumerStatus::from_json(&answer.body).expect("a status");
        assert_eq!(status.consumers["a"][&queue], 7);
    });
}

async fn reply(peer: &mut Peer, to: &str) {
    let properties = format!("REPLY_TO_CLIENT\u{1}{to}\u{2}CORRELATION_ID\u{1}c\u{2}");
    let fields = [
        ("a", Value::Str("p")),
        ("b", Value::Str("DefaultCluster_REPLY_TOPIC")),
        ("c", Value::Str("TBW102")),
        ("d", Value::I32(4)),
        ("e", Value::I32(0)),
        ("f", Value::I32(0)),
        ("g", Value::I64(1)),
        ("h", Value::I32(0)),
        ("i", Value::Str(&properties)),
    ];
    peer.write_with(request::SEND_REPLY_MESSAGE_V2, &fields, b"yes")
        .await;
}

/// The same as clients write it that do not know the short names.
async fn reply_in_full(peer: &mut Peer, to: &str) {
    let properties = format!("REPLY_TO_CLIENT\u{1}{to}\u{2}CORRELATION_ID\u{1}c\u{2}");
    let fields = [
        ("producerGroup", Value::Str("p")),
        ("topic", Value::Str("DefaultCluster_REPLY_TOPIC")),
        ("defaultTopic", Value::Str("TBW102")),
        ("defaultTopicQueueNums", Value::I32(4)),
        ("queueId", Value::I32(0)),
        ("sysFlag", Value::I32(0)),
        ("bornTimestamp", Value::I64(1)),
        ("flag", Value::I32(0)),
        ("properties", Value::Str(&properties)),
    ];
    peer.write_with(request::SEND_REPLY_MESSAGE, &fields, b"yes")
        .await;
}

async fn asker(id: &str) -> Peer {
    let mut asker = Peer::connect().await;
    let beat = HeartbeatData {
        client_id: id.to_owned(),
        producer_data_set: vec![ProducerData {
            group_name: "p".to_owned(),
        }],
        ..HeartbeatData::default()
    };
    let body = beat.to_json(Dialect::Strict);
    asker.ask(request::HEART_BEAT, &[], &body).await;
    asker
}

async fn take_reply(asker: &mut Peer) -> Heard {
    let code = request::PUSH_REPLY_MESSAGE_TO_CLIENT;
    asker.asked(code, SOON).await.expect("a reply")
}

#[test]
fn a_reply_reaches_who_asked_and_is_kept() {
    Cluster::start(&[]).clients(|| async {
        let mut asker = asker("me").await;
        let mut replier = Peer::connect().await;
        for in_full in [false, true] {
            match in_full {
                false => reply(&mut replier, "me").await,
                true => reply_in_full(&mut replier, "me").await,
            }
            let heard = take_reply(&mut asker).await;
            assert_eq!(heard.body, b"yes");
            assert!(heard.field("properties").contains("CORRELATION_ID\u{1}c"));
            assert!(heard.field("properties").contains("PUSH_REPLY_TIME"));
            asker.answer(&heard, 0, &[]).await;
            assert_eq!(replier.next_answer().await.code, response::SUCCESS);
        }
        assert_eq!(replier.max_offset("DefaultCluster_REPLY_TOPIC", 0).await, 2);
    });
}

#[test]
fn a_reply_to_nobody_or_to_somebody_who_left_fails() {
    Cluster::start(&[]).clients(|| async {
        let mut replier = Peer::connect().await;
        reply(&mut replier, "nobody").await;
        assert_eq!(replier.next_answer().await.code, response::SYSTEM_ERROR);
        let mut one = asker("me").await;
        let other = asker("me").await;
        drop(other);
        reactor::sleep(Duration::from_millis(100)).await;
        reply(&mut replier, "me").await;
        assert_eq!(replier.next_answer().await.code, response::SYSTEM_ERROR);
        let beat = HeartbeatData {
            client_id: "me".to_owned(),
            producer_data_set: vec![ProducerData {
                group_name: "p".to_owned(),
            }],
            ..HeartbeatData::default()
        };
        one.ask(request::HEART_BEAT, &[], &beat.to_json(Dialect::Strict))
            .await;
        reply(&mut replier, "me").await;
        let heard = take_reply(&mut one).await;
        one.answer(&heard, 1, &[]).await;
        assert_eq!(replier.next_answer().await.code, response::SYSTEM_ERROR);
    });
}
