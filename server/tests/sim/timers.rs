//! Messages with a due time of their own, on a disk of which some sectors are bad.

use std::time::Duration;

use protocol::Command;
use protocol::code::{request, response};
use protocol::header::pull::PullAnswer;
use protocol::record::views;
use reactor::sim::{Faults, World};

use crate::cluster::{Cluster, connect};
use crate::wire::{Wire, pull_header, send_header};

const TOPIC: &str = "timed";
const OTHERS_TOPIC: &str = "others";
/// Each lies in a segment of its own.
const OTHERS: u64 = 100;
const TIMERS: i64 = 30;
/// Long enough for all of them to be sent, and for a restart.
const DELAY: Duration = Duration::from_secs(8);
/// A disk takes no longer for what it can read.
const LATE_MS: i64 = 500;

/// Sends them, due one after the other; the last time.
async fn send_timers() -> i64 {
    let mut wire = connect().await;
    let first_ms = reactor::wall_ms() + DELAY.as_millis() as i64;
    for number in 0..TIMERS {
        let due_ms = first_ms + 10 * number;
        let sent = format!("TIMER_DELIVER_MS\u{1}{due_ms}\u{2}");
        let header = send_header(TOPIC, 0, sent.as_bytes());
        let code = request::SEND_MESSAGE_V2;
        let answer = wire.ask(code, &header.fields(), &[7; 3_000]).await;
        let answer = answer.expect("nobody cuts the connection");
        let answer = Command::decode(&answer).expect("a command");
        assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark_str());
    }
    first_ms + 10 * TIMERS
}

/// More than the cache holds.
async fn send_others() {
    let mut wire = connect().await;
    for _ in 0..OTHERS {
        let header = send_header(OTHERS_TOPIC, 0, b"");
        let code = request::SEND_MESSAGE_V2;
        let answer = wire.ask(code, &header.fields(), &[7; 20_000]).await;
        let answer = answer.expect("nobody cuts the connection");
        let answer = Command::decode(&answer).expect("a command");
        assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark_str());
    }
}

async fn read_others() {
    let mut wire = connect().await;
    for offset in 0..OTHERS {
        let header = pull_header(OTHERS_TOPIC, 0, offset, "*", 0);
        let frame = wire.ask(request::PULL_MESSAGE, &header.fields(), &[]).await;
        let frame = frame.expect("nobody cuts the connection");
        let answer = Command::decode(&frame).expect("a command");
        assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark_str());
    }
}

/// By how much each of them was late, in the order in which they were due.
async fn delivered() -> Vec<i64> {
    let mut wire = connect().await;
    let mut late = Vec::new();
    let mut next = 0;
    while let Some(behind) = pull(&mut wire, next, &mut late).await {
        next = behind;
    }
    late.sort_unstable();
    late.into_iter().map(|(_, late_ms)| late_ms).collect()
}

async fn pull(wire: &mut Wire, at: u64, late: &mut Vec<(i64, i64)>) -> Option<u64> {
    let header = pull_header(TOPIC, 0, at, "*", 100);
    let frame = wire.ask(request::PULL_MESSAGE, &header.fields(), &[]).await;
    let frame = frame.expect("nobody cuts the connection");
    let answer = Command::decode(&frame).expect("a command");
    if answer.code != response::SUCCESS {
        return None;
    }
    for view in views(answer.body) {
        let view = view.expect("a record");
        let due_ms = view.property("TIMER_DELIVER_MS").expect("it was sent so");
        let due_ms = std::str::from_utf8(due_ms).expect("digits");
        let due_ms: i64 = due_ms.parse().expect("a time");
        assert!(view.store_ms >= due_ms, "early");
        late.push((due_ms, view.store_ms - due_ms));
    }
    let answer = PullAnswer::from(&answer).expect("a pull's answer");
    Some(answer.next_offset as u64)
}

#[test]
fn a_timer_on_a_bad_sector_keeps_no_other_waiting() {
    let mut met = false;
    for seed in 0..5 {
        let cluster = Cluster::new(World::new(seed), "1");
        // The cache of what was read ahead is small, too.
        let mut cluster = cluster.change(|settings| settings.memory_bytes = 256 << 20);
        cluster.start_broker();
        let last_ms = cluster.client(send_timers());
        cluster.client(send_others());
        // From now on they lie on the disk only.
        cluster.kill_broker();
        cluster.start_broker();
        cluster.client(read_others());
        cluster.world.run_for(Duration::from_secs(1));
        cluster.client(read_others());
        cluster.world.set_faults(Faults {
            bad_page_ppm: 100_000,
            ..Faults::default()
        });
        cluster.client(async move {
            let left_ms = last_ms + 1_000 - reactor::wall_ms();
            reactor::sleep(Duration::from_millis(left_ms as u64)).await;
        });
        cluster.world.set_faults(Faults::default());
        cluster.world.run_for(Duration::from_secs(3));
        let late = cluster.client(delivered());
        assert_eq!(late.len() as i64, TIMERS, "seed {seed}");
        let first_late = late.iter().position(|&late_ms| late_ms > LATE_MS);
        let last_on_time = late.iter().rposition(|&late_ms| late_ms <= LATE_MS);
        met |= first_late.is_some();
        assert!(
            first_late.is_none() || first_late < last_on_time,
            "seed {seed}: {late:?}"
        );
    }
    assert!(met, "some lay on bad sectors");
}
