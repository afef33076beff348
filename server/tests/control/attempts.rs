//! How often a message is tried before it is a dead letter, where a group has said so itself.

use std::time::Duration;

use protocol::Value;
use protocol::code::{request, response};
use protocol::record::parse_message_id;

use crate::cluster::Cluster;
use crate::peer::Peer;
use crate::popped::{ONCE, Pop, bodies, pop};

const TOPIC: &str = "t";
const DEAD_LETTERS: &str = "%DLQ%g";
/// RocketMQ's is 16: a broker that counts to that fails here.
const TIMES_MAX: i32 = 2;

async fn group_with_few_attempts(peer: &mut Peer) {
    let config = format!("{{\"groupName\":\"g\",\"retryMaxTimes\":{TIMES_MAX}}}");
    let code = request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
    let made = peer.ask(code, &[], config.as_bytes()).await;
    assert_eq!(made.code, response::SUCCESS, "{}", made.remark);
}

/// A message that was tried so often already; returns where it lies in the log.
async fn send_tried(peer: &mut Peer, topic: &str, times: i32) -> i64 {
    let fields = [
        ("producerGroup", Value::Str("g")),
        ("topic", Value::Str(topic)),
        ("defaultTopic", Value::Str("TBW102")),
        ("defaultTopicQueueNums", Value::I32(4)),
        ("queueId", Value::I32(0)),
        ("sysFlag", Value::I32(0)),
        ("bornTimestamp", Value::I64(1)),
        ("flag", Value::I32(0)),
        ("properties", Value::Str("")),
        ("reconsumeTimes", Value::I32(times)),
    ];
    let sent = peer.ask(request::SEND_MESSAGE, &fields, b"hard").await;
    assert_eq!(sent.code, response::SUCCESS, "{}", sent.remark);
    let (_, at) = parse_message_id(sent.field("msgId")).expect("an offset id");
    i64::try_from(at).expect("small")
}

#[test]
fn a_retry_that_its_client_sends_goes_by_the_groups_limit() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        group_with_few_attempts(&mut peer).await;
        for (times, dead) in [(TIMES_MAX, 0), (TIMES_MAX + 1, 1)] {
            send_tried(&mut peer, "%RETRY%g", times).await;
            assert_eq!(peer.max_offset(DEAD_LETTERS, 0).await, dead, "{times}");
        }
        assert_eq!(peer.max_offset("%RETRY%g", 0).await, 1);
    });
}

#[test]
fn a_message_that_is_given_back_goes_by_the_groups_limit() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        group_with_few_attempts(&mut peer).await;
        for (times, dead) in [(TIMES_MAX - 1, 0), (TIMES_MAX, 1)] {
            let log_offset = send_tried(&mut peer, TOPIC, times).await;
            let fields = [
                ("offset", Value::I64(log_offset)),
                ("group", Value::Str("g")),
                ("delayLevel", Value::I32(0)),
                ("originMsgId", Value::Str("")),
                ("originTopic", Value::Str(TOPIC)),
                ("unitMode", Value::Bool(false)),
            ];
            let code = request::CONSUMER_SEND_MSG_BACK;
            let answer = peer.ask(code, &fields, &[]).await;
            assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
            assert_eq!(peer.max_offset(DEAD_LETTERS, 0).await, dead, "{times}");
        }
    });
}

#[test]
fn a_message_that_is_popped_again_and_again_goes_by_the_groups_limit() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        group_with_few_attempts(&mut peer).await;
        peer.send(TOPIC, "", b"hard").await;
        let short = Pop {
            invisible_ms: 1_000,
            ..ONCE
        };
        for times in 0..=TIMES_MAX {
            assert_eq!(bodies(&pop(&mut peer, short).await), ["hard"], "{times}");
            reactor::sleep(Duration::from_secs(2)).await;
        }
        assert!(pop(&mut peer, short).await.is_empty());
        reactor::sleep(Duration::from_secs(2)).await;
        assert_eq!(peer.max_offset(DEAD_LETTERS, 0).await, 1);
    });
}
