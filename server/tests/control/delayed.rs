//! Delayed messages: at their time, not before, and once over a restart.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use protocol::Value;
use protocol::code::{request, response};
use protocol::record::{View, parse_message_id};
use reactor::{File, OpenOptions, fs};

use crate::cluster::{Cluster, STORE};
use crate::peer::Peer;

/// Level 3: ten seconds.
const LEVEL_3: &str = "DELAY\u{1}3\u{2}";
const LEVEL_3_MS: i64 = 10_000;
const DAMAGED: &[u8] = b"one that the disk will not give back as it was";

#[test]
fn a_delayed_message_comes_at_its_time_and_not_before() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        let before_ms = reactor::wall_ms();
        let answer = peer.send("t", LEVEL_3, b"later").await;
        assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
        let after_ms = reactor::wall_ms();
        while peer.max_offset("t", 0).await == 0 {
            reactor::sleep(Duration::from_millis(1)).await;
        }
        let came_ms = reactor::wall_ms();
        assert!(came_ms >= before_ms + LEVEL_3_MS);
        assert!(
            came_ms <= after_ms + LEVEL_3_MS + 50,
            "{} ms late",
            came_ms - after_ms - LEVEL_3_MS
        );
    });
}

#[test]
fn levels_keep_their_order_and_a_later_one_holds_nothing_up() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        peer.send("t", LEVEL_3, b"10 s").await;
        for _ in 0..100 {
            peer.send("t", "DELAY\u{1}1\u{2}", b"1 s").await;
        }
        reactor::sleep(Duration::from_secs(2)).await;
        assert_eq!(peer.max_offset("t", 0).await, 100);
        reactor::sleep(Duration::from_secs(9)).await;
        assert_eq!(peer.max_offset("t", 0).await, 101);
    });
}

#[test]
fn delivery_goes_on_where_it_was_after_a_stop_and_after_a_kill() {
    let mut cluster = Cluster::start(&[]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        peer.send("t", "DELAY\u{1}1\u{2}", b"1 s").await;
        peer.send("t", LEVEL_3, b"10 s").await;
        reactor::sleep(Duration::from_secs(2)).await;
        assert_eq!(peer.max_offset("t", 0).await, 1);
    });
    cluster.stop_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        reactor::sleep(Duration::from_secs(1)).await;
        let mut peer = Peer::connect().await;
        assert_eq!(
            peer.max_offset("t", 0).await,
            1,
            "the first one is not delivered again"
        );
    });
    cluster.kill_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        reactor::sleep(Duration::from_secs(9)).await;
        let mut peer = Peer::connect().await;
        assert_eq!(peer.max_offset("t", 0).await, 2);
    });
}

#[test]
fn a_message_given_back_comes_again_in_the_retry_topic() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        let sent = peer.send("t", "", b"hard").await;
        let (_, log_offset) = parse_message_id(sent.field("msgId")).expect("an offset id");
        for (delay_level, topic, after) in [(1, "%RETRY%g", 1_100), (-1, "%DLQ%g", 0)] {
            let fields = [
                (
                    "offset",
                    Value::I64(i64::try_from(log_offset).expect("small")),
                ),
                ("group", Value::Str("g")),
                ("delayLevel", Value::I32(delay_level)),
            ];
            let answer = peer
                .ask(request::CONSUMER_SEND_MSG_BACK, &fields, &[])
                .await;
            assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
            reactor::sleep(Duration::from_millis(after)).await;
            assert_eq!(peer.max_offset(topic, 0).await, 1, "{topic}");
        }
        let fields = [
            ("offset", Value::I64(1 << 40)),
            ("group", Value::Str("g")),
            ("delayLevel", Value::I32(0)),
        ];
        let answer = peer
            .ask(request::CONSUMER_SEND_MSG_BACK, &fields, &[])
            .await;
        assert_eq!(answer.code, response::SYSTEM_ERROR);
    });
}

#[test]
fn a_damaged_delayed_message_holds_up_none_behind_it() {
    let mut cluster = Cluster::start(&[]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        let sent = peer.send("t", LEVEL_3, DAMAGED).await;
        assert_eq!(sent.code, response::SUCCESS, "{}", sent.remark);
    });
    cluster.stop_broker();
    cluster.on_disk(|| {
        let log = Path::new(STORE).join("commitlog").join("0".repeat(20));
        let bytes = fs::read(&log).expect("there");
        let body = bytes.windows(DAMAGED.len()).position(|at| at == DAMAGED);
        let at = body.expect("it is in the log") as u64;
        let options = OpenOptions {
            read: true,
            write: true,
            ..OpenOptions::default()
        };
        let file = File::open(&log, options).expect("there");
        file.write_all_at_blocking(b"X", at).expect("written");
    });
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        reactor::sleep(Duration::from_secs(12)).await;
        assert_eq!(peer.max_offset("SCHEDULE_TOPIC_XXXX", 2).await, 1);
        assert_eq!(peer.max_offset("t", 0).await, 0, "it is not delivered");
        peer.send("t", LEVEL_3, b"behind it").await;
        reactor::sleep(Duration::from_secs(11)).await;
        assert_eq!(peer.max_offset("t", 0).await, 1);
    });
}

/// The level's position is saved every 100 ms, the log only every 7 s.
const LOG_IS_SLOW: [(&str, &str); 3] = [
    ("flushDelayOffsetInterval", "100"),
    ("flushConsumerOffsetInterval", "100"),
    ("flushCommitLogThoroughInterval", "7000"),
];

#[test]
fn a_delayed_message_that_was_durable_survives_a_power_cut_right_after_its_delivery() {
    for after_ms in [300, 700, 1_100, 1_500, 1_900] {
        let mut cluster = Cluster::start(&LOG_IS_SLOW);
        cluster.clients(move || async move {
            let mut peer = Peer::connect().await;
            peer.make_topic("t", 1).await;
            peer.send("t", LEVEL_3, b"later").await;
            while peer.max_offset("t", 0).await == 0 {
                reactor::sleep(Duration::from_millis(10)).await;
            }
            // Long enough for the position to be saved, not for the log.
            reactor::sleep(Duration::from_millis(after_ms)).await;
        });
        cluster.cut_power();
        cluster.start_broker();
        cluster.clients(move || async move {
            let mut peer = Peer::connect().await;
            peer.make_topic("t", 1).await;
            reactor::sleep(Duration::from_secs(12)).await;
            // Some of what was not synced may have reached the disk: then it comes twice.
            let times = peer.max_offset("t", 0).await;
            assert!(times >= 1, "lost, {after_ms} ms after its delivery");
        });
    }
}

#[test]
fn messages_of_a_level_that_are_due_one_after_the_other_share_deliveries() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        for _ in 0..100 {
            peer.send_on("t", "DELAY\u{1}1\u{2}", b"x").await;
            reactor::sleep(Duration::from_micros(500)).await;
        }
        reactor::sleep(Duration::from_secs(2)).await;
        let mut times = BTreeSet::new();
        let mut count = 0;
        while count < peer.max_offset("t", 0).await {
            let answer = peer.pull("g", "t", count).await;
            let mut rest = answer.body.as_slice();
            while !rest.is_empty() {
                let view = View::parse(rest).expect("a record");
                rest = &rest[view.bytes.len()..];
                times.insert(view.store_ms);
                count += 1;
            }
        }
        assert_eq!(count, 100);
        assert!(times.len() <= 14, "delivered at {} times", times.len());
    });
}
