//! Pulls that wait: woken by their message, by nothing else, and answered in time.

use std::time::Duration;

use protocol::Command;
use protocol::code::{request, response};
use protocol::header::pull::PullAnswer;
use protocol::record::View;
use reactor::{Instant, now};

use crate::clients::TOPIC;
use crate::cluster::{connect, with_broker};
use crate::wire::{Wire, pull_header, send_header};

const HOLD_MS: i64 = 10_000;

async fn send(wire: &mut Wire, tag: &str, body: &[u8]) {
    let properties = format!("TAGS\u{1}{tag}\u{2}");
    let header = send_header(TOPIC, 0, properties.as_bytes());
    let code = request::SEND_MESSAGE_V2;
    let frame = wire.ask(code, &header.fields(), body).await;
    let frame = frame.expect("nobody cuts the connection");
    let answer = Command::decode(&frame).expect("a command");
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark_str());
}

/// What a pull came to, and when.
struct Pulled {
    code: i32,
    next: i64,
    bodies: Vec<Vec<u8>>,
    at: Instant,
}

async fn pull(wire: &mut Wire, offset: u64, expression: &str) -> Pulled {
    let header = pull_header(TOPIC, 0, offset, expression, HOLD_MS);
    let code = request::PULL_MESSAGE;
    let frame = wire.ask(code, &header.fields(), &[]).await;
    let frame = frame.expect("nobody cuts the connection");
    let answer = Command::decode(&frame).expect("a command");
    let next = PullAnswer::from(&answer).map_or(-1, |answer| answer.next_offset);
    let mut bodies = Vec::new();
    let mut records = answer.body;
    while !records.is_empty() {
        let view = View::parse(records).expect("a record");
        bodies.push(view.body.to_vec());
        records = &records[view.bytes.len()..];
    }
    Pulled {
        code: answer.code,
        next,
        bodies,
        at: now(),
    }
}

#[test]
fn a_parked_pull_is_woken_by_its_message() {
    with_broker(1, async {
        let (mut producer, mut consumer) = (connect().await, connect().await);
        send(&mut producer, "a", b"first").await;
        let waiting = reactor::spawn("consumer", async move {
            let pulled = pull(&mut consumer, 1, "*").await;
            (pulled.code, pulled.bodies, pulled.at)
        });
        reactor::sleep(Duration::from_secs(3)).await;
        let sent_at = now();
        send(&mut producer, "a", b"second").await;
        let (code, bodies, at) = waiting.await.expect("it ends by itself");
        assert_eq!(
            (code, bodies),
            (response::SUCCESS, vec![b"second".to_vec()])
        );
        assert!(at > sent_at, "it was parked until then");
        // Two ways over the simulated network, no timer.
        assert!(at.saturating_since(sent_at) < Duration::from_millis(10));
    });
}

#[test]
fn a_pull_that_nothing_wakes_is_answered_at_its_deadline() {
    with_broker(2, async {
        let mut wire = connect().await;
        send(&mut wire, "a", b"first").await;
        let asked_at = now();
        let pulled = pull(&mut wire, 1, "*").await;
        assert_eq!((pulled.code, pulled.next), (response::PULL_NOT_FOUND, 1));
        let held = pulled.at.saturating_since(asked_at);
        let hold = Duration::from_millis(HOLD_MS as u64);
        assert!(
            (hold..hold + Duration::from_millis(100)).contains(&held),
            "{held:?}"
        );
    });
}

#[test]
fn a_message_the_filter_does_not_take_moves_the_offset_but_is_not_sent() {
    with_broker(3, async {
        let (mut producer, mut consumer) = (connect().await, connect().await);
        send(&mut producer, "a", b"for nobody").await;
        let passed = pull(&mut consumer, 0, "b || c").await;
        assert_eq!(
            (passed.code, passed.next),
            (response::PULL_RETRY_IMMEDIATELY, 1)
        );

        let waiting = reactor::spawn("consumer", async move {
            let pulled = pull(&mut consumer, 1, "b || c").await;
            (pulled.code, pulled.bodies, pulled.next)
        });
        reactor::sleep(Duration::from_millis(100)).await;
        send(&mut producer, "a", b"for nobody").await;
        reactor::sleep(Duration::from_millis(100)).await;
        send(&mut producer, "c", b"for us").await;
        let woken = waiting.await.expect("it ends by itself");
        assert_eq!(woken, (response::SUCCESS, vec![b"for us".to_vec()], 3));
    });
}

#[test]
fn a_parked_filter_that_passes_over_everything_is_told_where_to_go_on() {
    with_broker(4, async {
        let (mut producer, mut consumer) = (connect().await, connect().await);
        send(&mut producer, "a", b"first").await;
        let waiting = reactor::spawn("consumer", async move {
            let pulled = pull(&mut consumer, 1, "b").await;
            (pulled.code, pulled.next, pulled.at)
        });
        reactor::sleep(Duration::from_millis(100)).await;
        let sent_at = now();
        send(&mut producer, "a", b"second").await;
        let (code, next, at) = waiting.await.expect("it ends by itself");
        assert_eq!((code, next), (response::PULL_RETRY_IMMEDIATELY, 2));
        assert!(
            at.saturating_since(sent_at) < Duration::from_secs(6),
            "before its own deadline"
        );
    });
}

#[test]
fn pulls_outside_the_queue_are_sent_back_into_it() {
    with_broker(5, async {
        let mut wire = connect().await;
        send(&mut wire, "a", b"first").await;
        let beyond = pull(&mut wire, 7, "*").await;
        assert_eq!((beyond.code, beyond.next), (response::PULL_OFFSET_MOVED, 1));
        let below = pull(&mut wire, u64::MAX, "*").await;
        assert_eq!((below.code, below.next), (response::PULL_OFFSET_MOVED, 0));
    });
}

#[test]
fn every_one_of_many_parked_pulls_is_woken() {
    with_broker(6, async {
        let mut producer = connect().await;
        send(&mut producer, "a", b"first").await;
        let mut waiting = Vec::new();
        for _ in 0..1_500 {
            waiting.push(reactor::spawn("consumer", async {
                let mut wire = connect().await;
                pull(&mut wire, 1, "*").await.code
            }));
        }
        reactor::sleep(Duration::from_secs(1)).await;
        let sent_at = now();
        send(&mut producer, "a", b"second").await;
        for pulled in waiting {
            assert_eq!(pulled.await, Some(response::SUCCESS));
        }
        assert!(sent_at.elapsed() < Duration::from_millis(100));
    });
}
