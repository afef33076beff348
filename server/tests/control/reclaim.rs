//! Old log goes while the broker runs; what is owed of it does not, and the limits can be changed meanwhile.

use std::time::Duration;

use protocol::Value;
use protocol::code::{request, response};
use protocol::properties;
use protocol::record::View;

use crate::cluster::Cluster;
use crate::peer::Peer;

/// Log files may go at any hour, as soon as they are full.
const AT_ONCE: [(&str, &str); 4] = [
    ("fileReservedTime", "0"),
    (
        "deleteWhen",
        "00;01;02;03;04;05;06;07;08;09;10;11;12;13;14;15;16;17;18;19;20;21;22;23",
    ),
    ("cleanResourceInterval", "1000"),
    ("deleteCommitLogFilesInterval", "0"),
];
/// Level 5: a minute.
const LEVEL_5: &str = "TAGS\u{1}a\u{2}DELAY\u{1}5\u{2}";

/// Enough for `files` log files.
pub async fn fill(peer: &mut Peer, files: usize) {
    let body = vec![b'x'; 100 << 10];
    for _ in 0..files * 11 {
        let answer = peer.send("filler", "", &body).await;
        assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
    }
}

pub async fn min_offset(peer: &mut Peer, topic: &str) -> i64 {
    let fields = [("topic", Value::Str(topic)), ("queueId", Value::I32(0))];
    let answer = peer.ask(request::GET_MIN_OFFSET, &fields, &[]).await;
    answer.field("offset").parse().expect("a number")
}

/// The first message of a topic, as a consumer gets it.
async fn first_message(peer: &mut Peer, topic: &str) -> Vec<u8> {
    let fields = [
        ("consumerGroup", Value::Str("g")),
        ("topic", Value::Str(topic)),
        ("queueId", Value::I32(0)),
        ("queueOffset", Value::I64(0)),
        ("maxMsgNums", Value::I32(1)),
        ("sysFlag", Value::I32(4)),
        ("commitOffset", Value::I64(0)),
        ("suspendTimeoutMillis", Value::I64(0)),
        ("subscription", Value::Str("*")),
        ("subVersion", Value::I64(1)),
    ];
    let answer = peer.ask(request::PULL_MESSAGE, &fields, &[]).await;
    assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
    answer.body
}

#[test]
fn a_delayed_message_outlives_its_log_file_and_comes_once_at_its_time() {
    for ends_between in [false, true] {
        let mut cluster = Cluster::start(&AT_ONCE);
        cluster.clients(|| async {
            let mut peer = Peer::connect().await;
            peer.make_topic("t", 1).await;
            peer.make_topic("filler", 1).await;
            let answer = peer.send("t", LEVEL_5, b"later").await;
            assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
            fill(&mut peer, 3).await;
            reactor::sleep(Duration::from_secs(20)).await;
            assert!(
                min_offset(&mut peer, "filler").await > 0,
                "its file is gone"
            );
            assert_eq!(peer.max_offset("t", 0).await, 0, "it is not due yet");
            // Once more: what was moved is moved again.
            fill(&mut peer, 3).await;
            reactor::sleep(Duration::from_secs(20)).await;
            assert_eq!(peer.max_offset("t", 0).await, 0, "it is not due yet");
        });
        if ends_between {
            cluster.kill_broker();
            cluster.start_broker();
        }
        cluster.clients(|| async {
            let mut peer = Peer::connect().await;
            reactor::sleep(Duration::from_secs(14)).await;
            assert_eq!(peer.max_offset("t", 0).await, 0, "it is not due yet");
            reactor::sleep(Duration::from_secs(8)).await;
            assert_eq!(peer.max_offset("t", 0).await, 1);
            let record = first_message(&mut peer, "t").await;
            let view = View::parse(&record).expect("a record");
            assert_eq!(view.body, b"later");
            let property = |name| properties::get_str(view.properties, name);
            assert_eq!(property(properties::DELAY), Some("5"));
            assert_eq!(property(properties::TAGS), Some("a"));
            assert_eq!(property(properties::TIMER_OUT_MS), None);
            reactor::sleep(Duration::from_secs(90)).await;
            assert_eq!(peer.max_offset("t", 0).await, 1, "it comes once");
        });
    }
}

#[test]
fn what_is_kept_is_changed_while_the_broker_runs() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("filler", 1).await;
        fill(&mut peer, 3).await;
        for code in [
            request::DELETE_EXPIRED_COMMITLOG,
            request::CLEAN_EXPIRED_CONSUMEQUEUE,
        ] {
            let answer = peer.ask(code, &[], &[]).await;
            assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
        }
        reactor::sleep(Duration::from_secs(30)).await;
        assert_eq!(
            min_offset(&mut peer, "filler").await,
            0,
            "nothing has expired"
        );
        let body = b"fileReservedTime=0\ndiskSpaceWarningLevelRatio=0.88\n";
        let answer = peer.ask(request::UPDATE_BROKER_CONFIG, &[], body).await;
        assert!(
            answer.code == response::SUCCESS || answer.remark.contains("until the next start"),
            "{}",
            answer.remark
        );
        let shown = peer.ask(request::GET_BROKER_CONFIG, &[], &[]).await;
        let shown = String::from_utf8(shown.body).expect("text");
        assert!(shown.contains("fileReservedTime=0\n"), "{shown}");
        assert!(
            shown.contains("diskSpaceWarningLevelRatio=0.88\n"),
            "{shown}"
        );
        peer.ask(request::DELETE_EXPIRED_COMMITLOG, &[], &[]).await;
        reactor::sleep(Duration::from_secs(30)).await;
        assert!(min_offset(&mut peer, "filler").await > 0);
        for wrong in [
            "diskMaxUsedSpaceRatio=101",
            "deleteWhen=24",
            "deleteWhen=4,16",
        ] {
            let answer = peer
                .ask(request::UPDATE_BROKER_CONFIG, &[], wrong.as_bytes())
                .await;
            assert_eq!(answer.code, response::INVALID_PARAMETER, "{wrong}");
        }
    });
}
