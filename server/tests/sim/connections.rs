//! Connections that misbehave, fall silent, or are there when the broker stops.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use protocol::code::{request, response};
use protocol::sysflag::pull as flags;
use protocol::{Command, Value};
use reactor::sim::World;
use server::Broker;

use crate::cluster::{self, Cluster, connect, with_broker};
use crate::wire::{Wire, pull_header, send_header};

const TOPIC: &str = "connections";

async fn send(wire: &mut Wire) -> i32 {
    let header = send_header(TOPIC, 0, b"");
    let code = request::SEND_MESSAGE_V2;
    let frame = wire.ask(code, &header.fields(), b"body").await;
    let frame = frame.expect("the connection is open");
    Command::decode(&frame).expect("a command").code
}

async fn is_closed(wire: &mut Wire) -> bool {
    let end = reactor::timeout(Duration::from_secs(1), wire.answer()).await;
    matches!(end, Ok(Err(error)) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset))
}

#[test]
fn bytes_that_are_no_request_cost_one_connection_and_nobody_else_notices() {
    let cases: [&[u8]; 4] = [
        // A frame beyond the limit, then headers that are none.
        b"\x7f\xff\xff\xff",
        b"\x00\x00\x00\x08\x00\x00\x00\x04junk",
        b"\x00\x00\x00\x08\x07\x00\x00\x04{}{}",
        b"\x00\x00\x00\x06\x00\x00\x00\xffab",
    ];
    with_broker(1, async move {
        let mut good = connect().await;
        for bytes in cases {
            let mut bad = connect().await;
            assert_eq!(send(&mut bad).await, response::SUCCESS);
            bad.raw(bytes).await.expect("bytes are bytes");
            assert!(is_closed(&mut bad).await, "{bytes:?}");
            assert_eq!(send(&mut good).await, response::SUCCESS);
        }
    });
}

#[test]
fn a_request_in_many_small_pieces_is_understood() {
    with_broker(2, async {
        let mut wire = connect().await;
        let header = send_header(TOPIC, 0, b"");
        let mut bytes = Vec::new();
        for opaque in 0..5 {
            let (encoding, code) = (protocol::Encoding::Binary, request::SEND_MESSAGE_V2);
            protocol::write_request(
                &mut bytes,
                encoding,
                code,
                opaque,
                false,
                &header.fields(),
                b"body",
            );
        }
        for piece in bytes.chunks(7) {
            wire.raw(piece).await.expect("sent");
            reactor::sleep(Duration::from_micros(300)).await;
        }
        for opaque in 0..5 {
            let frame = wire.answer().await.expect("answered");
            let answer = Command::decode(&frame).expect("a command");
            assert_eq!((answer.code, answer.opaque), (response::SUCCESS, opaque));
        }
    });
}

#[test]
fn a_silent_connection_is_closed_after_two_minutes_and_a_busy_one_is_not() {
    with_broker(3, async {
        let (mut silent, mut busy) = (connect().await, connect().await);
        assert_eq!(send(&mut silent).await, response::SUCCESS);
        for _ in 0..7 {
            reactor::sleep(Duration::from_secs(16)).await;
            assert_eq!(send(&mut busy).await, response::SUCCESS);
        }
        // 112 s have passed.
        assert!(!is_closed(&mut silent).await);
        reactor::sleep(Duration::from_secs(17)).await;
        assert!(is_closed(&mut silent).await);
        assert_eq!(send(&mut busy).await, response::SUCCESS);
    });
}

#[test]
fn an_offset_that_comes_with_a_pull_is_known_to_the_next_request() {
    with_broker(4, async {
        let mut wire = connect().await;
        assert_eq!(send(&mut wire).await, response::SUCCESS);
        let mut pull = pull_header(TOPIC, 0, 0, "*", 0);
        (pull.commit_offset, pull.sys_flag) = (1, flags::COMMIT_OFFSET | flags::SUBSCRIPTION);
        let code = request::PULL_MESSAGE;
        // The group must be known before anything is kept for it.
        wire.ask(code, &pull.fields(), &[]).await.expect("answered");
        let asked = wire
            .write(code, false, &pull.fields(), &[])
            .await
            .expect("sent");
        let query = [
            ("consumerGroup", Value::Str("consumers")),
            ("topic", Value::Str(TOPIC)),
            ("queueId", Value::I32(0)),
        ];
        let code = request::QUERY_CONSUMER_OFFSET;
        wire.write(code, false, &query, &[]).await.expect("sent");
        for _ in 0..2 {
            let frame = wire.answer().await.expect("answered");
            let answer = Command::decode(&frame).expect("a command");
            assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark_str());
            if answer.opaque != asked {
                assert_eq!(answer.fields.required_i64("offset"), Ok(1));
            }
        }
    });
}

#[test]
fn a_stop_answers_what_was_sent_and_the_next_start_has_all_of_it() {
    let mut cluster = Cluster::new(World::new(5), "1");
    let settings = cluster::settings("1");
    let (stop, stopping) = reactor::mailbox::oneshot::<()>();
    cluster.start_with(|| async move {
        let broker = Broker::start(settings, None)
            .await
            .expect("a broker starts");
        stopping.await;
        broker
            .stop()
            .await
            .expect("nothing is in the way of a clean stop");
    });
    let acknowledged = cluster.client(async move {
        let mut wire = connect().await;
        let header = send_header(TOPIC, 0, b"");
        for _ in 0..20 {
            let code = request::SEND_MESSAGE_V2;
            wire.write(code, false, &header.fields(), b"body")
                .await
                .expect("sent");
        }
        stop.send(());
        let mut acknowledged = 0;
        while let Ok(frame) = wire.answer().await {
            let answer = Command::decode(&frame).expect("a command");
            assert_eq!(answer.code, response::SUCCESS);
            acknowledged += 1;
        }
        acknowledged
    });
    cluster.world.run_for(Duration::from_secs(10));
    // The process has ended; this is what the system does behind it.
    cluster.kill_broker();
    cluster.start_broker();
    let next = cluster.client(next_offset());
    assert!(
        next >= acknowledged,
        "{next} kept, {acknowledged} acknowledged"
    );
}

/// A client that sends until just around the stop, and whose connection ends in order, knows of everything that was kept.
#[test]
fn a_stop_under_load_answers_everything_that_it_keeps() {
    const CLIENTS: usize = 6;
    let mut ended_in_order = 0;
    for seed in 0..200 {
        let mut cluster = Cluster::new(World::new(seed), "1");
        if seed.is_multiple_of(2) {
            cluster = cluster.sync_flush();
        }
        let settings = cluster.settings();
        let (stop, stopping) = reactor::mailbox::oneshot::<()>();
        cluster.start_with(|| async move {
            let broker = Broker::start(settings, None)
                .await
                .expect("a broker starts");
            stopping.await;
            broker
                .stop()
                .await
                .expect("nothing is in the way of a clean stop");
        });
        let acknowledged = cluster.client(async move {
            assert_eq!(send(&mut connect().await).await, response::SUCCESS);
            let mut wires = Vec::new();
            for _ in 0..CLIENTS {
                wires.push(Rc::new(connect().await));
            }
            let until = reactor::now() + Duration::from_micros(500 + reactor::random() % 3_000);
            for wire in &wires {
                let wire = Rc::clone(wire);
                reactor::spawn("sends", async move {
                    while reactor::now() < until && wire.send_one(TOPIC).await.is_ok() {
                        reactor::sleep(Duration::from_micros(20)).await;
                    }
                });
            }
            reactor::sleep(Duration::from_micros(500)).await;
            stop.send(());
            let mut acknowledged = 0;
            for wire in wires {
                acknowledged += wire.count_answers().await?;
            }
            Ok::<_, std::io::Error>(acknowledged)
        });
        // A reset may overtake answers that are on their way.
        let Ok(acknowledged) = acknowledged else {
            continue;
        };
        ended_in_order += 1;
        cluster.world.run_for(Duration::from_secs(10));
        cluster.kill_broker();
        cluster.start_broker();
        assert_eq!(
            cluster.client(next_offset()),
            1 + acknowledged,
            "seed {seed}"
        );
    }
    assert!(ended_in_order > 10, "{ended_in_order}");
}

/// Where the next message is stored, by sending it.
async fn next_offset() -> i64 {
    let mut wire = connect().await;
    let header = send_header(TOPIC, 0, b"");
    let code = request::SEND_MESSAGE_V2;
    let frame = wire.ask(code, &header.fields(), b"body").await;
    let frame = frame.expect("answered");
    let answer = Command::decode(&frame).expect("a command");
    answer.fields.required_i64("queueOffset").expect("a place")
}
