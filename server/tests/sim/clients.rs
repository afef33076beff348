//! Producers and consumers of the simulated runs. They reconnect and go on, whatever happens to the broker.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use protocol::code::{request, response};
use protocol::header::pull::PullAnswer;
use protocol::header::send::SendAnswer;
use protocol::record::{self, View};
use protocol::{Command, Encoding, Text, Value, batch};

use crate::ledger::{Ledger, QUEUES};
use crate::wire::{Wire, pull_header, send_header};

pub const TOPIC: &str = "simulated";
const RECONNECT_AFTER: Duration = Duration::from_millis(20);
const PIPELINE_MAX: u64 = 6;
const HOLD_MS: i64 = 2_000;
/// A machine that lost its power does not say so.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

async fn in_time<T>(answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let answer = reactor::timeout(ANSWER_WAIT_MAX, answer).await;
    answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

pub type Shared = Rc<RefCell<Ledger>>;

/// Sends numbers `first..first + count`, each once; what an end of the connection swallows stays unacknowledged.
pub async fn produce(broker: SocketAddr, first: u64, count: u64, ledger: Shared) {
    let mut next = first;
    while next < first + count {
        let encoding = any_encoding();
        let Ok(mut wire) = in_time(Wire::connect(broker, encoding)).await else {
            reactor::sleep(RECONNECT_AFTER).await;
            continue;
        };
        // The broker died under it: the next connection goes on with the next number.
        let _ = produce_on(&mut wire, &mut next, first + count, &ledger).await;
    }
    ledger.borrow_mut().producers_done += 1;
}

fn any_encoding() -> Encoding {
    match reactor::random() % 2 {
        0 => Encoding::Json,
        _ => Encoding::Binary,
    }
}

async fn produce_on(wire: &mut Wire, next: &mut u64, end: u64, ledger: &Shared) -> io::Result<()> {
    while *next < end {
        let queue = (reactor::random() % QUEUES as u64) as usize;
        let wanted = 1 + reactor::random() % PIPELINE_MAX;
        let numbers = *next..end.min(*next + wanted);
        *next = numbers.end;
        match reactor::random() % 8 {
            0 => send_batch(wire, queue, numbers, ledger).await?,
            1 => send_one_way(wire, queue, numbers).await?,
            2 => send_unwaited(wire, queue, numbers).await?,
            _ => send_pipelined(wire, queue, numbers, ledger).await?,
        }
        if reactor::random().is_multiple_of(4) {
            reactor::sleep(Duration::from_micros(reactor::random() % 5_000)).await;
        }
    }
    Ok(())
}

fn body(number: u64) -> Vec<u8> {
    let len = 8 + (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54) as usize;
    let mut body = number.to_be_bytes().to_vec();
    body.resize(len, number as u8);
    body
}

fn properties(number: u64) -> Vec<u8> {
    format!(
        "UNIQ_KEY\u{1}{number:032X}\u{2}WAIT\u{1}true\u{2}TAGS\u{1}t{}\u{2}",
        number % 3
    )
    .into_bytes()
}

async fn send_pipelined(
    wire: &mut Wire,
    queue: usize,
    numbers: std::ops::Range<u64>,
    ledger: &Shared,
) -> io::Result<()> {
    let mut asked = Vec::new();
    for number in numbers {
        let properties = properties(number);
        let header = send_header(TOPIC, queue as i32, &properties);
        let code = request::SEND_MESSAGE_V2;
        let opaque = wire
            .write(code, false, &header.fields(), &body(number))
            .await?;
        asked.push((opaque, number));
    }
    for _ in 0..asked.len() {
        let frame = in_time(wire.answer()).await?;
        let answer = Command::decode(&frame).map_err(io::Error::other)?;
        assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark_str());
        let at = asked
            .iter()
            .position(|(opaque, _)| *opaque == answer.opaque);
        let (_, number) = asked.swap_remove(at.expect("each request is answered once"));
        let place = SendAnswer::from(&answer).map_err(io::Error::other)?;
        assert_eq!(place.queue_id, queue as i32);
        assert_eq!(
            place.transaction_id.as_deref(),
            Some(&*format!("{number:032X}"))
        );
        ledger
            .borrow_mut()
            .acknowledge(queue, place.queue_offset as u64, number);
    }
    Ok(())
}

async fn send_batch(
    wire: &mut Wire,
    queue: usize,
    numbers: std::ops::Range<u64>,
    ledger: &Shared,
) -> io::Result<()> {
    let mut inner = Vec::new();
    for number in numbers.clone() {
        let message = batch::Inner {
            flag: 0,
            body: &body(number),
            properties: &properties(number),
        };
        batch::append(&mut inner, &message);
    }
    let mut header = send_header(TOPIC, queue as i32, b"UNIQ_KEY\x01batch\x02");
    header.batch = true;
    let fields = header.fields();
    let frame = in_time(wire.ask(request::SEND_BATCH_MESSAGE, &fields, &inner)).await?;
    let answer = Command::decode(&frame).map_err(io::Error::other)?;
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark_str());
    let place = SendAnswer::from(&answer).map_err(io::Error::other)?;
    let ids = place.message_id.split(',').count() as u64;
    assert_eq!(ids, numbers.end - numbers.start, "one id for each message");
    for (number, offset) in numbers.zip(place.queue_offset as u64..) {
        ledger.borrow_mut().acknowledge(queue, offset, number);
    }
    Ok(())
}

async fn send_one_way(
    wire: &mut Wire,
    queue: usize,
    numbers: std::ops::Range<u64>,
) -> io::Result<()> {
    for number in numbers {
        let properties = properties(number);
        let mut header = send_header(TOPIC, queue as i32, &properties);
        header.producer_group = Text::plain(b"nobody waits");
        let code = request::SEND_MESSAGE_V2;
        wire.write(code, true, &header.fields(), &body(number))
            .await?;
    }
    Ok(())
}

/// The answers come before the disk has the messages, so nothing is relied on.
async fn send_unwaited(
    wire: &mut Wire,
    queue: usize,
    numbers: std::ops::Range<u64>,
) -> io::Result<()> {
    for number in numbers {
        let properties = format!("UNIQ_KEY\u{1}{number:032X}\u{2}WAIT\u{1}false\u{2}");
        let header = send_header(TOPIC, queue as i32, properties.as_bytes());
        let code = request::SEND_MESSAGE_V2;
        let frame = in_time(wire.ask(code, &header.fields(), &body(number))).await?;
        let answer = Command::decode(&frame).map_err(io::Error::other)?;
        assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark_str());
    }
    Ok(())
}

/// By request, with all queues.
pub async fn make_topic(broker: SocketAddr) {
    let queues = Value::I32(QUEUES as i32);
    let fields = [
        ("topic", Value::Str(TOPIC)),
        ("defaultTopic", Value::Str("TBW102")),
        ("readQueueNums", queues),
        ("writeQueueNums", queues),
        ("perm", Value::I32(6)),
        ("topicFilterType", Value::Str("SINGLE_TAG")),
        ("topicSysFlag", Value::I32(0)),
        ("order", Value::Bool(false)),
    ];
    let mut wire = loop {
        match Wire::connect(broker, any_encoding()).await {
            Ok(wire) => break wire,
            // It is starting.
            Err(_) => reactor::sleep(RECONNECT_AFTER).await,
        }
    };
    let asked = wire.ask(request::UPDATE_AND_CREATE_TOPIC, &fields, &[]);
    let frame = asked.await.expect("nobody cuts the connection");
    let answer = Command::decode(&frame).expect("a command");
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark_str());
}

/// Reads one queue from its start, for ever.
pub async fn consume(broker: SocketAddr, queue: usize, ledger: Shared) {
    loop {
        if let Ok(mut wire) = in_time(Wire::connect(broker, any_encoding())).await {
            let _ = consume_on(&mut wire, queue, &ledger).await;
        }
        reactor::sleep(RECONNECT_AFTER).await;
    }
}

async fn consume_on(wire: &mut Wire, queue: usize, ledger: &Shared) -> io::Result<()> {
    loop {
        let offset = ledger.borrow().next_offset(queue);
        let header = pull_header(TOPIC, queue as i32, offset, "*", HOLD_MS);
        let fields = header.fields();
        let frame = in_time(wire.ask(request::PULL_MESSAGE, &fields, &[])).await?;
        let answer = Command::decode(&frame).map_err(io::Error::other)?;
        match answer.code {
            response::SUCCESS => {
                let found = PullAnswer::from(&answer).map_err(io::Error::other)?;
                take(queue, answer.body, ledger);
                let next = ledger.borrow().next_offset(queue);
                assert_eq!(found.next_offset as u64, next);
                assert!(found.max_offset as u64 >= next);
            }
            response::PULL_NOT_FOUND => {}
            // Nobody has sent to it yet.
            response::TOPIC_NOT_EXIST => reactor::sleep(RECONNECT_AFTER).await,
            code => panic!(
                "queue {queue} at {offset}: {code} {:?}",
                answer.remark_str()
            ),
        }
    }
}

fn take(queue: usize, mut records: &[u8], ledger: &Shared) {
    while !records.is_empty() {
        let header = record::len_at(records).expect("a pull returns whole records");
        let (this, rest) = records.split_at(header.total);
        let view = View::parse(this).expect("a pull returns records");
        view.check_body().expect("a body is as it was sent");
        let number = u64::from_be_bytes(view.body[..8].try_into().expect("eight bytes"));
        assert_eq!(view.body, body(number), "a body is as it was sent");
        ledger.borrow_mut().read(queue, view.queue_offset, number);
        records = rest;
    }
}
