//! The store goes to RocketMQ and comes back: what a stop leaves for it, and what a start makes of what it left.
//! Here RocketMQ is what it writes; scripts/prove-stock-store has the real one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::code::response;
use reactor::fs;

use crate::cluster::{Cluster, STORE};
use crate::peer::Peer;
use crate::popped::{ONCE, ack, at_most, bodies, pop, send};

const SETTINGS: [(&str, &str); 1] = [("mappedFileSizeTimerLog", "8192")];

/// RocketMQ's timers: slot that is read next, offset of the queue.
type TimerCheck = (i64, u64);

fn path(name: &str) -> PathBuf {
    Path::new(STORE).join(name)
}

fn timer_check(cluster: &mut Cluster) -> TimerCheck {
    let bytes = cluster.on_disk(|| fs::read(&path("config/timercheck")).expect("written"));
    let word = |number: usize| {
        let word = bytes[8 * number..8 * number + 8].try_into();
        i64::from_be_bytes(word.expect("eight bytes"))
    };
    assert_eq!(word(2), word(3), "for itself and for its slaves");
    assert_eq!(word(1), 0, "it has to read the timer log from its start");
    (word(0), u64::try_from(word(2)).expect("an offset"))
}

/// RocketMQ had the store since, and its timers came as far as this.
fn was_rocketmqs(cluster: &mut Cluster, check: Option<TimerCheck>) {
    cluster.on_disk(move || {
        fs::create_dir_all(&path("consumequeue/t/0")).expect("made");
        let Some((slot_ms, offset)) = check else {
            return;
        };
        let mut bytes = vec![0; 4_096];
        bytes[..8].copy_from_slice(&slot_ms.to_be_bytes());
        bytes[16..24].copy_from_slice(&offset.to_be_bytes());
        bytes[24..32].copy_from_slice(&offset.to_be_bytes());
        fs::replace(&path("config/timercheck"), &bytes).expect("written");
    });
}

/// Log offsets of what RocketMQ would find parked.
fn laid_out(cluster: &mut Cluster) -> Vec<i64> {
    let (file, bytes) = cluster.on_disk(|| {
        let files = fs::list(&path("timerlog")).expect("there");
        let bytes = fs::read(&path("timerlog").join(&files[0])).expect("readable");
        (files, bytes)
    });
    assert_eq!(file, ["0".repeat(20)]);
    assert_eq!(bytes.len(), 8_192, "as long as RocketMQ wants it");
    let units = bytes.chunks_exact(52);
    let units = units.take_while(|unit| unit[..4] == 52i32.to_be_bytes());
    units
        .map(|unit| i64::from_be_bytes(unit[28..36].try_into().expect("eight bytes")))
        .collect()
}

async fn timer(peer: &mut Peer, wait_ms: i64) {
    let properties = format!("TIMER_DELAY_MS\u{1}{wait_ms}\u{2}");
    let body = wait_ms.to_string();
    let answer = peer.send("t", &properties, body.as_bytes()).await;
    assert_eq!(answer.code, response::SUCCESS);
}

async fn delivered() -> i64 {
    Peer::connect().await.max_offset("t", 0).await
}

fn seconds(cluster: &mut Cluster, seconds: u64) {
    cluster.clients(move || reactor::sleep(Duration::from_secs(seconds)));
}

#[test]
fn a_stop_lays_out_what_is_parked_and_the_next_start_takes_it_back() {
    let mut cluster = Cluster::start(&SETTINGS);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        for wait_ms in [3_600_000, 500, 7_200_000, 600, 700] {
            timer(&mut peer, wait_ms).await;
        }
        reactor::sleep(Duration::from_secs(2)).await;
        assert_eq!(delivered().await, 3);
    });
    for life in 0..3 {
        cluster.stop_broker();
        // Two are parked; the third says that the queue was read to its end.
        let units = laid_out(&mut cluster);
        assert_eq!(units.len(), 3, "stop {life}");
        assert!(units.is_sorted());
        let (slot_ms, offset) = timer_check(&mut cluster);
        assert_eq!(offset, 5);
        let now_ms = cluster.clients(|| async { reactor::wall_ms() });
        assert!(slot_ms % 1_000 == 0 && (now_ms - 10_000..=now_ms).contains(&slot_ms));
        cluster.start_broker();
        let is_there = |name: &'static str| move || fs::exists(&path(name));
        assert!(!cluster.on_disk(is_there("timerlog")));
        assert!(
            !cluster.on_disk(is_there("orbit/rocketmq-aside")),
            "it is ours"
        );
        assert_eq!(
            timer_check(&mut cluster).1,
            0,
            "whoever has it after a crash reads it all"
        );
        assert_eq!(cluster.clients(delivered), 3);
    }
    seconds(&mut cluster, 7_300);
    assert_eq!(cluster.clients(delivered), 5);
}

#[test]
fn what_rocketmq_has_delivered_does_not_come_again_and_the_rest_does() {
    let mut cluster = Cluster::start(&SETTINGS);
    let begin_ms = cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        for wait_ms in [40_000, 20_500, 500, 7_200_000, 41_000] {
            timer(&mut peer, wait_ms).await;
        }
        reactor::sleep(Duration::from_secs(2)).await;
        assert_eq!(delivered().await, 1);
        reactor::wall_ms()
    });
    cluster.stop_broker();
    let slot_ms = (begin_ms + 30_000) / 1_000 * 1_000;
    was_rocketmqs(&mut cluster, Some((slot_ms, 5)));
    cluster.start_broker();
    seconds(&mut cluster, 20);
    assert_eq!(cluster.clients(delivered), 1, "it had the second one");
    // What RocketMQ's checkpoint said holds until ours says the same.
    cluster.kill_broker();
    cluster.start_broker();
    seconds(&mut cluster, 30);
    assert_eq!(cluster.clients(delivered), 3);
    cluster.stop_broker();
    cluster.start_broker();
    seconds(&mut cluster, 7_200);
    assert_eq!(cluster.clients(delivered), 4);
}

#[test]
fn a_rocketmq_without_timers_leaves_everything_parked() {
    let mut cluster = Cluster::start(&SETTINGS);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        for wait_ms in [20_000, 500, 30_000] {
            timer(&mut peer, wait_ms).await;
        }
        reactor::sleep(Duration::from_secs(2)).await;
    });
    cluster.stop_broker();
    was_rocketmqs(&mut cluster, None);
    seconds(&mut cluster, 60);
    cluster.start_broker();
    seconds(&mut cluster, 1);
    assert_eq!(cluster.clients(delivered), 3);
}

#[test]
fn what_is_hidden_stays_hidden_over_rocketmq_and_is_acknowledged_by_its_old_handle() {
    let mut cluster = Cluster::start(&SETTINGS);
    let kept = cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        send(&mut peer, &["a", "b", "c", "d"]).await;
        let got = pop(&mut peer, at_most(3)).await;
        assert_eq!(bodies(&got), ["a", "b", "c"]);
        assert_eq!(ack(&mut peer, &got[0]).await.code, response::SUCCESS);
        got
    });
    cluster.stop_broker();
    assert_eq!(
        laid_out(&mut cluster).len(),
        1,
        "one for all of the delivery"
    );
    was_rocketmqs(&mut cluster, None);
    cluster.start_broker();
    cluster.clients(|| async move {
        let mut peer = Peer::connect().await;
        assert_eq!(bodies(&pop(&mut peer, ONCE).await), ["d"], "two are hidden");
        assert_eq!(ack(&mut peer, &kept[1]).await.code, response::SUCCESS);
        reactor::sleep(Duration::from_secs(11)).await;
        let again = pop(&mut peer, ONCE).await;
        assert_eq!(
            bodies(&again),
            ["c", "d"],
            "neither of the acknowledged ones"
        );
        for message in &again {
            ack(&mut peer, message).await;
        }
    });
    // What was done meanwhile is not undone by what lies in RocketMQ's part of the log.
    for _ in 0..2 {
        cluster.stop_broker();
        was_rocketmqs(&mut cluster, None);
        cluster.start_broker();
        seconds(&mut cluster, 20);
        cluster.clients(|| async {
            let mut peer = Peer::connect().await;
            assert_eq!(bodies(&pop(&mut peer, ONCE).await), [""; 0]);
        });
    }
}
