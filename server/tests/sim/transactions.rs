//! Transactions under kills, power cuts and cut connections: each has one outcome, the one its producer wants.
//!
//! A producer prepares messages, decides most of them (some twice, some both ways), leaves others undecided, and answers
//! when it is asked. What it wants of a message follows from the message's number, so it says the same in every life of
//! its connection. In the end the topic has each number at most once, every committed one that was acknowledged, and
//! none that was rolled back.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use protocol::body::Body;
use protocol::body::heartbeat::{HeartbeatData, ProducerData};
use protocol::code::{request, response};
use protocol::header::message::{CheckTransaction, EndTransaction};
use protocol::header::send::{SendAnswer, SendHeader};
use protocol::json::Dialect;
use protocol::record::{View, parse_message_id};
use protocol::sysflag::{TRANSACTION_COMMIT, TRANSACTION_PREPARED, TRANSACTION_ROLLBACK};
use protocol::{Command, Encoding, Text};
use reactor::sim::{Faults, World, each_seed, twice};
use server::Settings;

use crate::cluster::Cluster;
use crate::wire::{Wire, pull_header, send_header};

const SEEDS: u64 = 300;
const TOPIC: &str = "transactions";
const QUEUES: i32 = 2;
const GROUP: &str = "producers";
const PREPARED: u64 = 30;
const KILLS_MAX: u64 = 3;
const RECONNECT_AFTER: Duration = Duration::from_millis(10);
/// Nothing a broker is asked for takes longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than a question waits for its turn, even if a few are not answered.
const QUIET: Duration = Duration::from_secs(15);
/// After so long without a word the producer connects anew.
const SILENCE: Duration = Duration::from_secs(1);

/// What the producer and the broker's answers say.
#[derive(Debug, Default)]
struct Book {
    next: u64,
    /// The broker has taken these half messages.
    acknowledged: BTreeSet<u64>,
    done: bool,
    /// When the last question came, by the world's clock.
    asked: u64,
}

type Shared = Rc<RefCell<Book>>;

/// What its producer wants of a message.
fn wants_commit(number: u64) -> bool {
    !number.is_multiple_of(3)
}

fn quick(settings: &mut Settings) {
    settings.transaction_timeout_ms = 300;
    settings.transaction_check_interval_ms = 500;
    settings.transaction_check_max = 1_000;
}

fn quick_and_durable(settings: &mut Settings) {
    quick(settings);
    settings.sync_flush = true;
}

#[test]
fn each_transaction_has_one_outcome_whatever_is_killed() {
    each_seed(SEEDS, |seed| {
        kills(seed);
    });
}

#[test]
fn with_sync_flush_a_power_cut_changes_no_outcome() {
    each_seed(SEEDS, |seed| {
        durable(seed);
    });
}

#[test]
fn after_any_power_cut_no_message_is_there_twice_or_against_its_producers_will() {
    each_seed(SEEDS, |seed| {
        power_cuts(seed);
    });
}

#[test]
fn the_same_seed_gives_the_same_transactions() {
    for seed in 0..3 {
        twice(seed, kills);
        twice(seed, power_cuts);
    }
}

#[test]
fn what_names_no_half_message_decides_none_though_one_lies_where_the_log_begins() {
    for decides_the_first in [false, true] {
        let mut cluster = Cluster::new(World::new(1), "1");
        cluster.start_broker();
        cluster.client(make_topic());
        let first = cluster.client(async move {
            let (mut wire, book) = (connect().await, Shared::default());
            let first = send_half(&mut wire, 1, &book).await.expect("sent");
            assert_eq!(first.1, 0, "the log begins with it");
            let second = send_half(&mut wire, 2, &book).await.expect("sent");
            decide(&mut wire, second, TRANSACTION_COMMIT, false)
                .await
                .expect("sent");
            reactor::sleep(Duration::from_secs(1)).await;
            give_back(&mut wire, 0).await;
            if decides_the_first {
                decide(&mut wire, first, TRANSACTION_COMMIT, false)
                    .await
                    .expect("sent");
                reactor::sleep(Duration::from_secs(1)).await;
            }
            first
        });
        cluster.kill_broker();
        cluster.start_broker();
        let there = cluster.client(async move {
            let mut wire = connect().await;
            decide(&mut wire, first, TRANSACTION_COMMIT, false)
                .await
                .expect("sent");
            reactor::sleep(Duration::from_secs(1)).await;
            read_all().await
        });
        assert_eq!(there, BTreeMap::from([(1, 1), (2, 1)]));
    }
}

/// A consumer gives the first message of a queue back, so that its copy lies in the log.
async fn give_back(wire: &mut Wire, queue: i32) {
    use protocol::Value;
    let header = pull_header(TOPIC, queue, 0, "*", 1);
    let frame = wire.ask(request::PULL_MESSAGE, &header.fields(), &[]).await;
    let frame = frame.expect("nobody cuts the connection");
    let answer = Command::decode(&frame).expect("a command");
    let view = View::parse(answer.body).expect("a record");
    let fields = [
        ("offset", Value::I64(view.log_offset as i64)),
        ("group", Value::Str("consumers")),
        ("delayLevel", Value::I32(0)),
    ];
    let code = request::CONSUMER_SEND_MSG_BACK;
    let frame = wire.ask(code, &fields, &[]).await;
    let frame = frame.expect("nobody cuts the connection");
    let answer = Command::decode(&frame).expect("a command");
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark_str());
}

fn kills(seed: u64) -> u64 {
    let faults = Faults {
        drop_connection_ppm: if seed.is_multiple_of(3) { 2_000 } else { 0 },
        ..Faults::default()
    };
    let shards = if seed.is_multiple_of(4) { "2" } else { "1" };
    let cluster = Cluster::new(World::with(faults, seed), shards).change(quick);
    run(cluster, Cluster::kill_broker, true)
}

fn durable(seed: u64) -> u64 {
    let faults = Faults {
        disk_delay: (Duration::ZERO, Duration::from_millis(seed % 4)),
        ..Faults::default()
    };
    let cluster = Cluster::new(World::with(faults, seed), "1").change(quick_and_durable);
    run(cluster, Cluster::cut_power, true)
}

fn power_cuts(seed: u64) -> u64 {
    let cluster = Cluster::new(World::new(seed), "1").change(quick);
    run(cluster, Cluster::cut_power, false)
}

/// One run; the hash of everything that happened in it. `all_kept`: what was acknowledged is there in the end.
fn run(mut cluster: Cluster, end_broker: fn(&mut Cluster), all_kept: bool) -> u64 {
    cluster.start_broker();
    let book = Shared::default();
    cluster.client(make_topic());
    let producing = Rc::clone(&book);
    cluster
        .world
        .start(cluster.clients, "producer", move || produce(producing));
    for _ in 0..1 + cluster.world.random() % KILLS_MAX {
        let after = Duration::from_micros(cluster.world.random() % 1_500_000);
        cluster.world.run_for(after);
        end_broker(&mut cluster);
        cluster.start_broker();
    }
    let done = || book.borrow().done;
    assert!(
        cluster.world.run_until(done, PATIENCE * 4),
        "the producer gets stuck"
    );
    // Everything that is open is asked about, and then there is nothing left to ask.
    cluster.world.run_for(QUIET);
    let asked = book.borrow().asked;
    cluster.world.run_for(QUIET);
    assert_eq!(
        book.borrow().asked,
        asked,
        "questions about what is decided"
    );
    let there = cluster.client(read_all());
    check(&book.borrow(), &there, all_kept);
    cluster.world.trace_hash()
}

fn check(book: &Book, there: &BTreeMap<u64, u64>, all_kept: bool) {
    for (&number, &times) in there {
        assert_eq!(times, 1, "number {number} is there {times} times");
        assert!(wants_commit(number), "number {number} was rolled back");
    }
    let committed = book
        .acknowledged
        .iter()
        .filter(|&&number| wants_commit(number));
    for number in committed {
        assert!(
            !all_kept || there.contains_key(number),
            "number {number} is lost"
        );
    }
}

async fn connect() -> Wire {
    loop {
        let encoding = match reactor::random().is_multiple_of(2) {
            true => Encoding::Json,
            false => Encoding::Binary,
        };
        let connected = reactor::timeout(PATIENCE, Wire::connect(Cluster::address(), encoding));
        if let Ok(Ok(wire)) = connected.await {
            return wire;
        }
        reactor::sleep(RECONNECT_AFTER).await;
    }
}

async fn make_topic() {
    use protocol::Value;
    let fields = [
        ("topic", Value::Str(TOPIC)),
        ("defaultTopic", Value::Str("TBW102")),
        ("readQueueNums", Value::I32(QUEUES)),
        ("writeQueueNums", Value::I32(QUEUES)),
        ("perm", Value::I32(6)),
        ("topicFilterType", Value::Str("SINGLE_TAG")),
        ("topicSysFlag", Value::I32(0)),
        ("order", Value::Bool(false)),
    ];
    let frame = loop {
        let mut wire = connect().await;
        let asked = wire.ask(request::UPDATE_AND_CREATE_TOPIC, &fields, &[]);
        // A cut connection may have made it all the same: it is made again.
        if let Ok(frame) = asked.await {
            break frame;
        }
    };
    let answer = Command::decode(&frame).expect("a command");
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark_str());
}

/// Prepares its messages, over as many connections as it takes, and answers questions for ever.
async fn produce(book: Shared) {
    loop {
        let mut wire = connect().await;
        let _ = produce_on(&mut wire, &book).await;
        reactor::sleep(RECONNECT_AFTER).await;
    }
}

async fn produce_on(wire: &mut Wire, book: &Shared) -> io::Result<()> {
    let beat = HeartbeatData {
        client_id: "client".to_owned(),
        producer_data_set: vec![ProducerData {
            group_name: GROUP.to_owned(),
        }],
        ..HeartbeatData::default()
    };
    let body = beat.to_json(Dialect::Strict);
    wire.write(request::HEART_BEAT, false, &[], &body).await?;
    loop {
        let number = {
            let mut book = book.borrow_mut();
            book.done = book.next >= PREPARED;
            book.next += u64::from(!book.done);
            (!book.done).then(|| book.next - 1)
        };
        match number {
            Some(number) => prepare(wire, number, book).await?,
            None => answer_question(wire, book).await?,
        }
        if number.is_some() && reactor::random().is_multiple_of(4) {
            reactor::sleep(Duration::from_micros(reactor::random() % 100_000)).await;
        }
    }
}

/// A number is used once, whatever comes of it: nobody knows what became of a send that was not answered.
async fn prepare(wire: &mut Wire, number: u64, book: &Shared) -> io::Result<()> {
    let half = send_half(wire, number, book).await?;
    book.borrow_mut().acknowledged.insert(number);
    let wanted = decision(number);
    match reactor::random() % 6 {
        0 => {} // It will be asked.
        1 => {
            decide(wire, half, wanted, false).await?;
            decide(wire, half, wanted, false).await?;
        }
        2 => {
            decide(wire, half, wanted, false).await?;
            let other = TRANSACTION_COMMIT + TRANSACTION_ROLLBACK - wanted;
            decide(wire, half, other, false).await?;
        }
        _ => decide(wire, half, wanted, false).await?,
    }
    Ok(())
}

/// Where it is, in its queue and in the log.
async fn send_half(wire: &mut Wire, number: u64, book: &Shared) -> io::Result<(i64, i64)> {
    let properties = format!(
        "UNIQ_KEY\u{1}{number:032X}\u{2}TRAN_MSG\u{1}true\u{2}PGROUP\u{1}{GROUP}\u{2}WAIT\u{1}{}\u{2}",
        !number.is_multiple_of(5)
    );
    let header = SendHeader {
        producer_group: Text::plain(GROUP.as_bytes()),
        sys_flag: TRANSACTION_PREPARED,
        born_ms: reactor::wall_ms(),
        ..send_header(
            TOPIC,
            (number % QUEUES as u64) as i32,
            properties.as_bytes(),
        )
    };
    let body = number.to_be_bytes();
    let code = request::SEND_MESSAGE_V2;
    let opaque = wire.write(code, false, &header.fields(), &body).await?;
    loop {
        let frame = next(wire).await?;
        let command = Command::decode(&frame).map_err(io::Error::other)?;
        if !command.is_response() {
            hear(wire, &command, book).await?;
        } else if command.opaque == opaque {
            assert_eq!(
                command.code,
                response::SUCCESS,
                "{:?}",
                command.remark_str()
            );
            let place = SendAnswer::from(&command).map_err(io::Error::other)?;
            let (_, log_offset) = parse_message_id(&place.message_id).expect("an offset id");
            return Ok((place.queue_offset, log_offset as i64));
        }
    }
}

fn decision(number: u64) -> i32 {
    match wants_commit(number) {
        true => TRANSACTION_COMMIT,
        false => TRANSACTION_ROLLBACK,
    }
}

async fn decide(
    wire: &mut Wire,
    (half_queue_offset, log_offset): (i64, i64),
    decision: i32,
    from_check: bool,
) -> io::Result<()> {
    let header = EndTransaction {
        topic: None,
        producer_group: GROUP.into(),
        half_queue_offset,
        log_offset,
        decision,
        from_check: Some(from_check),
        message_id: "id".into(),
        transaction_id: None,
    };
    let fields = header.fields();
    wire.write(request::END_TRANSACTION, true, &fields, &[])
        .await?;
    Ok(())
}

async fn next(wire: &mut Wire) -> io::Result<Vec<u8>> {
    let frame = reactor::timeout(PATIENCE, wire.next()).await;
    frame.map_err(io::Error::other)?
}

/// Waits for one, on a connection that may be dead without a word.
async fn answer_question(wire: &mut Wire, book: &Shared) -> io::Result<()> {
    let frame = reactor::timeout(SILENCE, wire.next()).await;
    let frame = frame.map_err(io::Error::other)??;
    let command = Command::decode(&frame).map_err(io::Error::other)?;
    match command.is_response() {
        true => Ok(()),
        false => hear(wire, &command, book).await,
    }
}

async fn hear(wire: &mut Wire, command: &Command<'_>, book: &Shared) -> io::Result<()> {
    if command.code != request::CHECK_TRANSACTION_STATE {
        return Ok(());
    }
    book.borrow_mut().asked += 1;
    let header = CheckTransaction::from(command).map_err(io::Error::other)?;
    let view = View::parse(command.body).expect("a question carries a record");
    view.check_body().expect("a body is as it was sent");
    let number = u64::from_be_bytes(view.body.try_into().expect("eight bytes"));
    let place = (header.half_queue_offset, header.log_offset);
    match reactor::random() % 4 {
        0 => Ok(()), // It does not know yet.
        _ => decide(wire, place, decision(number), true).await,
    }
}

/// How often each number is in the topic.
async fn read_all() -> BTreeMap<u64, u64> {
    let mut there = BTreeMap::new();
    let mut wire = connect().await;
    for queue in 0..QUEUES {
        let mut offset = 0;
        loop {
            let header = pull_header(TOPIC, queue, offset, "*", 1);
            let frame = wire.ask(request::PULL_MESSAGE, &header.fields(), &[]).await;
            let Ok(frame) = frame else {
                wire = connect().await;
                continue;
            };
            let answer = Command::decode(&frame).expect("a command");
            if answer.code != response::SUCCESS {
                assert_eq!(answer.code, response::PULL_NOT_FOUND);
                break;
            }
            let mut rest = answer.body;
            while !rest.is_empty() {
                let view = View::parse(rest).expect("a pull returns records");
                let number = u64::from_be_bytes(view.body.try_into().expect("eight bytes"));
                *there.entry(number).or_default() += 1;
                offset = view.queue_offset + 1;
                rest = &rest[view.bytes.len()..];
            }
        }
    }
    there
}
