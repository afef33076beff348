//! Messages that name their delivery time: never early, none lost, at most a moment late, and withdrawn if asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::code::{request, response};
use protocol::record::View;
use protocol::{Value, properties};

use crate::cluster::Cluster;
use crate::peer::Peer;

/// So much later than asked a message may come.
const LATE_MAX_MS: i64 = 10;
const HOURS_MS: i64 = 7_200_000;

fn delay_ms(ms: i64) -> String {
    format!("TIMER_DELAY_MS\u{1}{ms}\u{2}")
}

fn deliver_ms(ms: i64) -> String {
    format!("TIMER_DELIVER_MS\u{1}{ms}\u{2}")
}

/// What a consumer gets of a topic's only queue: body, and when it was stored there, by queue offset.
async fn delivered(peer: &mut Peer, topic: &str) -> Vec<(Vec<u8>, i64)> {
    let mut all = Vec::new();
    loop {
        let end = peer.max_offset(topic, 0).await;
        let at = i64::try_from(all.len()).expect("few");
        if at >= end {
            return all;
        }
        let answer = peer.pull("g", topic, at).await;
        assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
        let mut rest = answer.body.as_slice();
        while !rest.is_empty() {
            let view = View::parse(rest).expect("a record");
            rest = &rest[view.bytes.len()..];
            all.push((view.body.to_vec(), view.store_ms));
        }
    }
}

async fn recall(peer: &mut Peer, topic: &str, handle: &str) -> crate::peer::Heard {
    let fields = [
        ("producerGroup", Value::Str("p")),
        ("topic", Value::Str(topic)),
        ("recallHandle", Value::Str(handle)),
    ];
    peer.ask(request::RECALL_MESSAGE, &fields, &[]).await
}

#[test]
fn messages_come_at_the_times_they_name_in_the_order_of_these() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        let begin_ms = reactor::wall_ms();
        let mut due = BTreeMap::new();
        for (body, wait_ms) in [("c", 2_500), ("a", 40), ("b", 1_777), ("d", 61_003)] {
            peer.send("t", &deliver_ms(begin_ms + wait_ms), body.as_bytes())
                .await;
            due.insert(body.as_bytes().to_vec(), begin_ms + wait_ms);
        }
        peer.send("t", &delay_ms(0), b"now").await;
        reactor::sleep(Duration::from_secs(62)).await;
        let came = delivered(&mut peer, "t").await;
        let bodies: Vec<&[u8]> = came.iter().map(|(body, _)| body.as_slice()).collect();
        assert_eq!(bodies, [b"now".as_slice(), b"a", b"b", b"c", b"d"]);
        for (body, store_ms) in &came[1..] {
            let late_ms = store_ms - due[body];
            assert!((0..=LATE_MAX_MS).contains(&late_ms), "{late_ms} ms late");
        }
    });
}

#[test]
fn a_delay_counts_from_the_send_and_seconds_come_first() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        let before_ms = reactor::wall_ms();
        let both = format!("TIMER_DELAY_SEC\u{1}3\u{2}{}", delay_ms(100));
        let answer = peer.send("t", &both, b"x").await;
        assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
        let after_ms = reactor::wall_ms();
        reactor::sleep(Duration::from_secs(4)).await;
        let (_, store_ms) = delivered(&mut peer, "t").await[0];
        assert!((before_ms + 3_000..=after_ms + 3_000 + LATE_MAX_MS).contains(&store_ms));
    });
}

#[test]
fn what_lies_too_far_ahead_or_is_no_time_is_refused_as_rocketmq_refuses_it() {
    let mut cluster = Cluster::start(&[("timerMaxDelaySec", "60")]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        let far = deliver_ms(reactor::wall_ms() + 61_000);
        let past_withdrawal = format!("TIMER_DEL_UNIQKEY\u{1}t+1\u{2}{}", delay_ms(0));
        let soon = "TIMER_DELAY_SEC\u{1}soon\u{2}".to_owned();
        for properties in [far, past_withdrawal, soon] {
            let answer = peer.send("t", &properties, b"x").await;
            assert_eq!(answer.code, response::MESSAGE_ILLEGAL, "{properties}");
            assert_eq!(
                answer.remark,
                "timer message illegal, the delay time should not be bigger than the max delay 60000ms; \
                 or if set del msg, the delay time should be bigger than the current time"
            );
        }
        assert_eq!(peer.max_offset("t", 0).await, 0);
    });
    let mut cluster = Cluster::start(&[("timerWheelEnable", "false")]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        let answer = peer.send("t", &delay_ms(5), b"x").await;
        assert_eq!(answer.code, response::SYSTEM_ERROR);
        assert_eq!(
            answer.remark,
            "accurate timer message is not enabled, timerWheelEnable is false"
        );
    });
}

#[test]
fn a_message_that_is_recalled_does_not_come_and_the_others_do() {
    let mut cluster = Cluster::start(&[("recallMessageEnable", "true")]);
    let handle = cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        let due = deliver_ms(reactor::wall_ms() + 20_000);
        let sent = peer
            .send("t", &format!("UNIQ_KEY\u{1}K1\u{2}{due}"), b"unwanted")
            .await;
        peer.send("t", &format!("UNIQ_KEY\u{1}K2\u{2}{due}"), b"wanted")
            .await;
        let handle = sent.field("recallHandle").to_owned();
        let answer = recall(&mut peer, "t", &handle).await;
        assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
        assert_eq!(answer.field("msgId"), "K1");
        let plain = peer.send("t", "", b"at once").await;
        assert_eq!(plain.field("recallHandle"), "");
        handle
    });
    // It is not forgotten.
    cluster.kill_broker();
    cluster.start_broker();
    cluster.clients(|| async move {
        let mut peer = Peer::connect().await;
        reactor::sleep(Duration::from_secs(25)).await;
        let came = delivered(&mut peer, "t").await;
        let bodies: Vec<&[u8]> = came.iter().map(|(body, _)| body.as_slice()).collect();
        assert_eq!(bodies, [b"at once".as_slice(), b"wanted"]);
        let late = recall(&mut peer, "t", &handle).await;
        assert_eq!(late.code, response::ILLEGAL_OPERATION);
        assert_eq!(late.remark, "recall failed, timestamp invalid");
        let due_ms = reactor::wall_ms() + 5_000;
        let of = |topic: &str, broker: &str| protocol::recall::encode(topic, broker, due_ms, "K");
        for (handle, remark) in [
            (of("other", "broker-a"), "recall failed, topic not match"),
            (
                of("t", "broker-b"),
                "recall failed, broker service not available",
            ),
            ("???".to_owned(), "recall handle is invalid"),
        ] {
            let answer = recall(&mut peer, "t", &handle).await;
            assert_eq!(
                (answer.code, &*answer.remark),
                (response::ILLEGAL_OPERATION, remark)
            );
        }
        let unknown = recall(&mut peer, "none", &of("none", "broker-a")).await;
        assert_eq!(unknown.code, response::TOPIC_NOT_EXIST);
    });
    Cluster::start(&[]).clients(|| async {
        let answer = recall(&mut Peer::connect().await, "t", "x").await;
        assert_eq!(answer.code, response::NO_PERMISSION, "it is off by default");
    });
}

#[test]
fn a_clean_restart_delivers_nothing_again_though_an_older_timer_is_still_parked() {
    let mut cluster = Cluster::start(&[]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        peer.send("t", &delay_ms(3_600_000), b"in an hour").await;
        for _ in 0..20 {
            peer.send("t", &delay_ms(500), b"soon").await;
        }
        reactor::sleep(Duration::from_secs(2)).await;
        assert_eq!(peer.max_offset("t", 0).await, 20);
    });
    cluster.stop_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        reactor::sleep(Duration::from_secs(30)).await;
        assert_eq!(peer.max_offset("t", 0).await, 20, "none comes twice");
        reactor::sleep(Duration::from_secs(3_600)).await;
        // Its connection was idle for too long.
        let mut peer = Peer::connect().await;
        assert_eq!(peer.max_offset("t", 0).await, 21);
    });
}

#[test]
fn what_was_delivered_before_the_last_checkpoint_does_not_come_again_after_a_kill() {
    let settings = [
        ("flushDelayOffsetInterval", "1000"),
        ("flushConsumerOffsetInterval", "1000"),
    ];
    let mut cluster = Cluster::start(&settings);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        peer.send("t", &delay_ms(60_000), b"later").await;
        for _ in 0..20 {
            peer.send("t", &delay_ms(500), b"soon").await;
        }
        // The log is synced within 10 s, then the checkpoint follows.
        reactor::sleep(Duration::from_secs(15)).await;
        assert_eq!(peer.max_offset("t", 0).await, 20);
    });
    cluster.kill_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        reactor::sleep(Duration::from_secs(20)).await;
        assert_eq!(peer.max_offset("t", 0).await, 20);
        reactor::sleep(Duration::from_secs(40)).await;
        assert_eq!(peer.max_offset("t", 0).await, 21);
    });
}

#[test]
fn kills_and_power_cuts_lose_no_timer_that_was_acknowledged_durably_and_none_comes_early() {
    for seed in 0..6u64 {
        let mut cluster = Cluster::start(&[
            // The same for both flushers, and this one is simulated fast.
            ("flusher", "mmap"),
            ("flushDiskType", "SYNC_FLUSH"),
            ("flushDelayOffsetInterval", "200"),
            ("flushConsumerOffsetInterval", "200"),
        ]);
        let mut due: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        for life in 0..5u64 {
            let sent = cluster.clients(move || async move {
                let mut peer = Peer::connect().await;
                peer.make_topic("t", 1).await;
                let mut sent = Vec::new();
                for number in 0..40u64 {
                    let chance = reactor::random().wrapping_add(seed);
                    let due_ms = reactor::wall_ms() + (chance % 9_000) as i64;
                    let body = format!("{seed} {life} {number}").into_bytes();
                    let answer = peer.send("t", &deliver_ms(due_ms), &body).await;
                    assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
                    sent.push((body, due_ms));
                }
                reactor::sleep(Duration::from_millis(reactor::random() % 4_000)).await;
                sent
            });
            due.extend(sent);
            match (seed + life) % 3 {
                0 => cluster.cut_power(),
                1 => cluster.kill_broker(),
                _ => cluster.stop_broker(),
            }
            cluster.start_broker();
        }
        cluster.clients(move || async move {
            reactor::sleep(Duration::from_secs(12)).await;
            let mut peer = Peer::connect().await;
            let mut times: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
            for (body, store_ms) in delivered(&mut peer, "t").await {
                assert!(store_ms >= due[&body], "early: {body:?}");
                *times.entry(body).or_default() += 1;
            }
            for body in due.keys() {
                assert!(times.contains_key(body), "lost: {body:?} of seed {seed}");
            }
            let twice = times.values().filter(|&&times| times > 1).count();
            assert!(twice < due.len() / 4, "{twice} of {} came twice", due.len());
        });
    }
}

#[test]
fn thousands_that_are_due_together_are_hardly_late() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        let begin_ms = reactor::wall_ms() + 30_000;
        for number in 0..3_000i64 {
            let due_ms = begin_ms + number % 500;
            peer.send("t", &deliver_ms(due_ms), due_ms.to_string().as_bytes())
                .await;
        }
        reactor::sleep(Duration::from_secs(40)).await;
        let came = delivered(&mut peer, "t").await;
        assert_eq!(came.len(), 3_000);
        let late = came.iter().map(|(body, store_ms)| {
            let due_ms: i64 = String::from_utf8_lossy(body).parse().expect("a time");
            store_ms - due_ms
        });
        let mut late: Vec<i64> = late.collect();
        late.sort_unstable();
        let (first, p99) = (late[0], late[late.len() * 99 / 100]);
        assert!(
            first >= 0 && p99 <= LATE_MAX_MS,
            "from {first} ms, p99 {p99} ms late"
        );
    });
}

#[test]
fn a_timer_outlives_its_log_file() {
    let settings = [
        ("fileReservedTime", "0"),
        (
            "deleteWhen",
            "00;01;02;03;04;05;06;07;08;09;10;11;12;13;14;15;16;17;18;19;20;21;22;23",
        ),
        ("cleanResourceInterval", "1000"),
        ("deleteCommitLogFilesInterval", "0"),
    ];
    let mut cluster = Cluster::start(&settings);
    let due_ms = cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        peer.make_topic("filler", 1).await;
        let due_ms = reactor::wall_ms() + HOURS_MS;
        let properties = format!("TAGS\u{1}a\u{2}{}", deliver_ms(due_ms));
        peer.send("t", &properties, b"in two hours").await;
        let body = vec![b'x'; 100 << 10];
        for _ in 0..40 {
            peer.send("filler", "", &body).await;
        }
        reactor::sleep(Duration::from_secs(30)).await;
        let fields = [("topic", Value::Str("filler")), ("queueId", Value::I32(0))];
        let first = peer.ask(request::GET_MIN_OFFSET, &fields, &[]).await;
        assert_ne!(first.field("offset"), "0", "its file is gone");
        due_ms
    });
    cluster.kill_broker();
    cluster.start_broker();
    cluster.clients(move || async move {
        let left_ms = due_ms - reactor::wall_ms();
        reactor::sleep(Duration::from_millis(left_ms as u64 - 1_000)).await;
        let mut peer = Peer::connect().await;
        assert_eq!(peer.max_offset("t", 0).await, 0);
        reactor::sleep(Duration::from_secs(2)).await;
        let came = delivered(&mut peer, "t").await;
        assert_eq!(came.len(), 1);
        assert!((due_ms..=due_ms + LATE_MAX_MS).contains(&came[0].1));
    });
}

#[test]
fn what_is_delivered_says_when_it_was_due() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        let due_ms = reactor::wall_ms() + 1_000;
        peer.send("t", &deliver_ms(due_ms), b"x").await;
        reactor::sleep(Duration::from_secs(2)).await;
        let answer = peer.pull("g", "t", 0).await;
        let view = View::parse(&answer.body).expect("a record");
        let due = view.property(properties::TIMER_OUT_MS).expect("it says so");
        assert_eq!(due, due_ms.to_string().as_bytes());
    });
}

/// Parks more than a start looks at in one step; the first is due after the last, and the second is recalled.
async fn park_for_a_start(is_heard_late: bool) {
    let mut peer = Peer::connect().await;
    peer.make_topic("t", 1).await;
    let begin_ms = reactor::wall_ms();
    let later = deliver_ms(begin_ms + 60_000);
    peer.send("t", &later, b"first in the queue").await;
    let unwanted = format!("UNIQ_KEY\u{1}K1\u{2}{later}");
    let sent = peer.send("t", &unwanted, b"unwanted").await;
    let handle = sent.field("recallHandle").to_owned();
    for _ in 0..1_500 {
        peer.send("t", &delay_ms(HOURS_MS), b"parked").await;
    }
    for is_late in [false, true] {
        if is_late == is_heard_late {
            let answer = recall(&mut peer, "t", &handle).await;
            assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
        }
        if !is_late {
            // The log is synced within 10 s, then the checkpoint follows.
            reactor::sleep(Duration::from_secs(15)).await;
        }
    }
    let sooner = deliver_ms(begin_ms + 50_000);
    peer.send("t", &sooner, b"last in the queue").await;
}

const SAVED_OFTEN: [(&str, &str); 3] = [
    ("recallMessageEnable", "true"),
    ("flushDelayOffsetInterval", "1000"),
    ("flushConsumerOffsetInterval", "1000"),
];

#[test]
fn what_is_due_at_a_start_goes_out_while_the_rest_is_looked_at_and_what_is_recalled_does_not() {
    for (is_clean, is_heard_late) in [(true, false), (false, false), (false, true)] {
        let mut cluster = Cluster::start(&SAVED_OFTEN);
        cluster.clients(move || park_for_a_start(is_heard_late));
        match is_clean {
            true => cluster.stop_broker(),
            false => cluster.kill_broker(),
        }
        cluster.clients(|| reactor::sleep(Duration::from_secs(60)));
        cluster.start_broker();
        cluster.clients(move || async move {
            reactor::sleep(Duration::from_secs(5)).await;
            let mut peer = Peer::connect().await;
            let came = delivered(&mut peer, "t").await;
            let bodies: Vec<&[u8]> = came.iter().map(|(body, _)| body.as_slice()).collect();
            // In the order of their times if all had been looked at before.
            let expected: [&[u8]; 2] = [b"first in the queue", b"last in the queue"];
            assert_eq!(bodies, expected, "clean: {is_clean}, late: {is_heard_late}");
        });
    }
}

#[test]
fn a_stop_in_the_middle_of_a_start_lets_nothing_come_twice() {
    let mut cluster = Cluster::start(&SAVED_OFTEN);
    cluster.clients(|| park_for_a_start(false));
    cluster.stop_broker();
    cluster.clients(|| reactor::sleep(Duration::from_secs(60)));
    for _ in 0..3 {
        cluster.start_broker();
        cluster.stop_broker();
    }
    cluster.start_broker();
    cluster.clients(|| async {
        reactor::sleep(Duration::from_secs(5)).await;
        let mut peer = Peer::connect().await;
        assert_eq!(peer.max_offset("t", 0).await, 2);
        reactor::sleep(Duration::from_millis(HOURS_MS as u64)).await;
        let mut peer = Peer::connect().await;
        assert_eq!(peer.max_offset("t", 0).await, 1_502);
    });
}

#[test]
fn timers_that_are_due_one_after_the_other_share_deliveries_and_a_lone_one_is_not_put_off() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        let begin_ms = reactor::wall_ms() + 5_000;
        for number in 0..100 {
            let due_ms = begin_ms + number;
            peer.send("t", &deliver_ms(due_ms), due_ms.to_string().as_bytes())
                .await;
        }
        let lone_ms = begin_ms + 1_000;
        let body = lone_ms.to_string();
        peer.send("t", &deliver_ms(lone_ms), body.as_bytes()).await;
        reactor::sleep(Duration::from_secs(7)).await;
        let came = delivered(&mut peer, "t").await;
        assert_eq!(came.len(), 101);
        for (body, store_ms) in &came {
            let due_ms: i64 = String::from_utf8_lossy(body).parse().expect("a time");
            let late_max_ms = if due_ms == lone_ms { 1 } else { 6 };
            let late_ms = store_ms - due_ms;
            assert!((0..=late_max_ms).contains(&late_ms), "{late_ms} ms late");
        }
        let times: BTreeSet<i64> = came.iter().map(|(_, store_ms)| *store_ms).collect();
        assert!(times.len() <= 25, "delivered at {} times", times.len());
    });
}
