//! A broker that acknowledges when the disk has it: what senders and consumers notice while the disk is slow, or fails.

use std::time::Duration;

use protocol::code::{request, response};
use protocol::header::send::SendAnswer;
use protocol::{Command, Value, batch};
use reactor::sim::{Faults, World};

use crate::cluster::{Cluster, connect};
use crate::wire::{Wire, pull_header, send_header};

const TOPIC: &str = "sync-flush";
const UNWAITED: &[u8] = b"WAIT\x01false\x02";
const SLOW: Duration = Duration::from_millis(400);

/// Code, remark and offset of an answered send.
struct Sent {
    code: i32,
    remark: String,
    offset: Option<i64>,
}

async fn answered(wire: &mut Wire) -> Sent {
    let frame = wire.answer().await.expect("nobody cuts the connection");
    let answer = Command::decode(&frame).expect("a command");
    Sent {
        code: answer.code,
        remark: answer.remark_str().unwrap_or_default().into_owned(),
        offset: SendAnswer::from(&answer)
            .ok()
            .map(|place| place.queue_offset),
    }
}

async fn ask_to_send(wire: &mut Wire, properties: &[u8]) {
    let header = send_header(TOPIC, 0, properties);
    let code = request::SEND_MESSAGE_V2;
    let written = wire.write(code, false, &header.fields(), b"body").await;
    written.expect("nobody cuts the connection");
}

async fn send(wire: &mut Wire, properties: &[u8]) -> Sent {
    ask_to_send(wire, properties).await;
    answered(wire).await
}

/// The code of a pull at this offset that does not wait.
async fn pull(wire: &mut Wire, offset: u64) -> i32 {
    let mut header = pull_header(TOPIC, 0, offset, "*", 0);
    header.sys_flag = protocol::sysflag::pull::SUBSCRIPTION;
    let frame = wire.ask(request::PULL_MESSAGE, &header.fields(), &[]).await;
    let frame = frame.expect("nobody cuts the connection");
    Command::decode(&frame).expect("a command").code
}

async fn max_offset(wire: &mut Wire) -> i64 {
    let fields = [("topic", Value::Str(TOPIC)), ("queueId", Value::I32(0))];
    let frame = wire.ask(request::GET_MAX_OFFSET, &fields, &[]).await;
    let frame = frame.expect("nobody cuts the connection");
    let answer = Command::decode(&frame).expect("a command");
    answer.fields.required_i64("offset").expect("an offset")
}

/// Changes a setting of the running broker.
async fn set(wire: &mut Wire, setting: &str) {
    let code = request::UPDATE_BROKER_CONFIG;
    let frame = wire.ask(code, &[], setting.as_bytes()).await;
    let frame = frame.expect("nobody cuts the connection");
    let answer = Command::decode(&frame).expect("a command");
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark_str());
}

/// A broker with one message stored, and from then on these faults.
fn broken_by(faults: Faults) -> Cluster {
    let mut cluster = Cluster::new(World::new(1), "1").sync_flush();
    cluster.start_broker();
    cluster.client(async {
        let mut wire = connect().await;
        let sent = send(&mut wire, b"").await;
        assert_eq!((sent.code, sent.offset), (response::SUCCESS, Some(0)));
        // A group is made by its first pull, and that takes the disk.
        assert_eq!(pull(&mut wire, 0).await, response::SUCCESS);
    });
    cluster.world.set_faults(faults);
    cluster
}

fn slow_disk() -> Faults {
    Faults {
        disk_delay: (SLOW, SLOW),
        ..Faults::default()
    }
}

#[test]
fn a_sender_who_does_not_wait_is_answered_at_once_and_consumers_see_the_message_when_it_is_durable()
{
    broken_by(slow_disk()).client(async {
        let (mut wire, mut consumer) = (connect().await, connect().await);
        let start = reactor::now();
        let sent = send(&mut wire, UNWAITED).await;
        assert_eq!((sent.code, sent.offset), (response::SUCCESS, Some(1)));
        assert!(start.elapsed() < SLOW / 4, "{:?}", start.elapsed());
        assert_eq!(pull(&mut consumer, 1).await, response::PULL_NOT_FOUND);
        assert_eq!(max_offset(&mut consumer).await, 1);

        let sent = send(&mut wire, b"").await;
        assert_eq!((sent.code, sent.offset), (response::SUCCESS, Some(2)));
        assert!(start.elapsed() >= SLOW, "{:?}", start.elapsed());
        assert_eq!(pull(&mut consumer, 1).await, response::SUCCESS);
        assert_eq!(max_offset(&mut consumer).await, 3);
    });
}

#[test]
fn a_long_poll_is_woken_when_the_message_is_durable_and_not_before() {
    broken_by(slow_disk()).client(async {
        let (mut wire, mut consumer) = (connect().await, connect().await);
        let header = pull_header(TOPIC, 0, 1, "*", 15_000);
        let code = request::PULL_MESSAGE;
        let written = consumer.write(code, false, &header.fields(), &[]).await;
        written.expect("nobody cuts the connection");
        reactor::sleep(Duration::from_millis(10)).await;
        let start = reactor::now();
        send(&mut wire, UNWAITED).await;
        let frame = consumer.answer().await.expect("the pull is answered");
        let answer = Command::decode(&frame).expect("a command");
        assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark_str());
        let waited = start.elapsed();
        assert!(waited >= SLOW && waited < 3 * SLOW, "{waited:?}");
    });
}

#[test]
fn order_is_kept_between_those_who_wait_and_those_who_do_not() {
    broken_by(slow_disk()).client(async {
        let mut wire = connect().await;
        for n in 0..6 {
            ask_to_send(&mut wire, if n % 2 == 0 { b"" } else { UNWAITED }).await;
        }
        let mut offsets = Vec::new();
        for _ in 0..6 {
            let sent = answered(&mut wire).await;
            assert_eq!(sent.code, response::SUCCESS, "{}", sent.remark);
            offsets.extend(sent.offset);
        }
        assert_eq!(
            offsets,
            [2, 4, 6, 1, 3, 5],
            "whoever does not wait is first"
        );
    });
}

#[test]
fn a_sender_is_told_when_the_disk_takes_too_long_and_where_the_message_is() {
    broken_by(slow_disk()).client(async {
        let mut wire = connect().await;
        set(&mut wire, "syncFlushTimeout=100\n").await;
        let start = reactor::now();
        for offset in 1..4 {
            let sent = send(&mut wire, b"").await;
            let told = (sent.code, sent.offset);
            assert_eq!(
                told,
                (response::FLUSH_DISK_TIMEOUT, Some(offset)),
                "{}",
                sent.remark
            );
        }
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(300), "{waited:?}");
        assert!(waited < SLOW, "{waited:?}");

        // A batch is one message in this, with an id for each of its parts.
        let (mut inner, mut header) = (Vec::new(), send_header(TOPIC, 0, b""));
        header.batch = true;
        for _ in 0..3 {
            let message = batch::Inner {
                flag: 0,
                body: b"body",
                properties: b"",
            };
            batch::append(&mut inner, &message);
        }
        let code = request::SEND_BATCH_MESSAGE;
        let frame = wire.ask(code, &header.fields(), &inner).await;
        let frame = frame.expect("nobody cuts the connection");
        let answer = Command::decode(&frame).expect("a command");
        assert_eq!(answer.code, response::FLUSH_DISK_TIMEOUT);
        let place = SendAnswer::from(&answer).expect("places");
        assert_eq!(
            (place.message_id.split(',').count(), place.queue_offset),
            (3, 4)
        );

        // All of it is there, and becomes durable in the end.
        reactor::sleep(4 * SLOW).await;
        assert_eq!(max_offset(&mut wire).await, 7);
        set(&mut wire, "syncFlushTimeout=5000\n").await;
        assert_eq!(send(&mut wire, b"").await.code, response::SUCCESS);
    });
}

#[test]
fn when_a_sync_fails_everybody_is_told_at_once_and_reads_go_on() {
    let failing = Faults {
        disk_delay: (SLOW, SLOW),
        fsync_error_ppm: 1_000_000,
        ..Faults::default()
    };
    broken_by(failing).client(async {
        let (mut wire, mut other) = (connect().await, connect().await);
        let start = reactor::now();
        for _ in 0..3 {
            ask_to_send(&mut wire, b"").await;
            ask_to_send(&mut other, b"").await;
            reactor::sleep(Duration::from_millis(5)).await;
        }
        for wire in [&mut wire, &mut other] {
            for _ in 0..3 {
                let sent = answered(wire).await;
                assert_eq!(sent.code, response::SERVICE_NOT_AVAILABLE);
                let says = |what| sent.remark.contains(what);
                assert!(
                    says("syncing /store/commitlog/") && says("restart"),
                    "{}",
                    sent.remark
                );
            }
        }
        assert!(start.elapsed() < 2 * SLOW, "{:?}", start.elapsed());
        let sent = send(&mut wire, UNWAITED).await;
        assert_eq!(
            sent.code,
            response::SERVICE_NOT_AVAILABLE,
            "{}",
            sent.remark
        );
        assert_eq!(
            max_offset(&mut wire).await,
            1,
            "what was not acknowledged is not shown"
        );
        assert_eq!(pull(&mut wire, 0).await, response::SUCCESS);
        assert_eq!(pull(&mut wire, 1).await, response::PULL_NOT_FOUND);
    });
}
