//! POP consumers that acknowledge, forget, give back and hold on to messages while the broker is killed: each message is acked,
//! visible or hidden, and never gone.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use protocol::code::{request, response};
use protocol::record::View;
use protocol::{Command, Encoding, Value};
use reactor::sim::{Faults, World, each_seed, twice};

use crate::clients::{self, Shared, TOPIC};
use crate::cluster::Cluster;
use crate::wire::Wire;

const SEEDS: u64 = 300;
const CONSUMERS: usize = 3;
const NUMBERS: u64 = 60;
const RECONNECT_AFTER: Duration = Duration::from_millis(20);
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Consumers err on purpose in so many pops, then no more.
const ERRING_POPS: u64 = 60;
const PATIENCE: Duration = Duration::from_secs(200);
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// Queue and offset.
type Place = (i32, u64);

/// What consumers know. The oracle.
#[derive(Debug, Default)]
struct Book {
    last: BTreeMap<Place, Last>,
    acked: BTreeSet<Place>,
    /// With the name of the delivery: nobody heard the answer to its acknowledgement, or it came late.
    maybe_acked: BTreeSet<(Place, i64)>,
    pops: u64,
    is_ordered: bool,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    pop_ms: i64,
    /// Nobody may get it before; none if that is not known.
    due_ms: Option<i64>,
}

impl Book {
    fn delivered(&mut self, batch: &[Place], pop_ms: i64, due_ms: i64) {
        for place in batch {
            assert!(
                !self.acked.contains(place),
                "{place:?} comes again after its ack"
            );
            if let Some(last) = self.last.get(place) {
                let free_ms = last.due_ms.unwrap_or(i64::MIN);
                assert!(
                    pop_ms >= free_ms,
                    "{place:?} was hidden: {last:?}, popped at {pop_ms}"
                );
                assert!(
                    pop_ms > last.pop_ms,
                    "{place:?} has two deliveries of one name"
                );
            }
            if self.is_ordered {
                self.check_order(batch, *place);
            }
            let due_ms = Some(due_ms);
            self.last.insert(*place, Last { pop_ms, due_ms });
        }
    }

    fn is_settled(&self, place: &Place) -> bool {
        let last = self.last.get(place).map(|last| (*place, last.pop_ms));
        self.acked.contains(place) || last.is_some_and(|last| self.maybe_acked.contains(&last))
    }

    /// Nothing before it is open, except what comes with it.
    fn check_order(&self, batch: &[Place], (queue, offset): Place) {
        let before = self.last.range((queue, 0)..(queue, offset));
        for (place, _) in before {
            let is_settled = self.is_settled(place) || batch.contains(place);
            assert!(
                is_settled,
                "{offset} of queue {queue} came while {place:?} was open"
            );
        }
    }
}

#[test]
fn each_message_is_acked_visible_or_hidden_through_kills_and_power_cuts() {
    each_seed(SEEDS, |seed| {
        scene(seed);
    });
}

#[test]
fn the_same_seed_pops_the_same() {
    for seed in 0..3 {
        twice(seed, scene);
    }
}

fn scene(seed: u64) -> u64 {
    let faults = Faults {
        drop_connection_ppm: if seed.is_multiple_of(3) { 2_000 } else { 0 },
        ..Faults::default()
    };
    let shards = if seed.is_multiple_of(4) { "2" } else { "1" };
    let has_power_cuts = seed % 5 == 1;
    let mut cluster = Cluster::new(World::with(faults, seed), shards);
    if has_power_cuts {
        cluster = cluster.sync_flush();
    }
    cluster.start_broker();
    let ledger = Shared::default();
    let book = Rc::new(RefCell::new(Book {
        is_ordered: seed % 4 == 1,
        ..Book::default()
    }));
    start(&mut cluster, &ledger, &book);
    for _ in 0..cluster.world.random() % 3 {
        let after = Duration::from_micros(cluster.world.random() % 1_500_000);
        cluster.world.run_for(after);
        match has_power_cuts {
            true => cluster.cut_power(),
            false => cluster.kill_broker(),
        }
        cluster.start_broker();
    }
    let done = || {
        let (ledger, book) = (ledger.borrow(), book.borrow());
        let is_settled = |&(queue, offset): &(usize, u64)| book.is_settled(&(queue as i32, offset));
        ledger.producers_done == 1 && ledger.acknowledged().all(is_settled)
    };
    for _ in 0..2 {
        let finished = cluster.world.run_until(done, PATIENCE);
        let (ledger, book) = (ledger.borrow(), book.borrow());
        assert!(finished, "messages are gone or stuck: {ledger:?} {book:?}");
        // What was acknowledged in vain comes again by then.
        drop((ledger, book));
        cluster.world.run_for(SETTLED_AFTER);
    }
    cluster.world.trace_hash()
}

fn start(cluster: &mut Cluster, ledger: &Shared, book: &Rc<RefCell<Book>>) {
    let (ledger, book) = (Rc::clone(ledger), Rc::clone(book));
    cluster
        .world
        .start(cluster.clients, "clients", move || async move {
            for _ in 0..CONSUMERS {
                reactor::spawn("consumer", consume(Rc::clone(&book)));
            }
            let address = Cluster::address();
            reactor::spawn("producer", clients::produce(address, 0, NUMBERS, ledger));
            std::future::pending::<()>().await;
        });
}

async fn in_time<T>(answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let answer = reactor::timeout(ANSWER_WAIT_MAX, answer).await;
    answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn consume(book: Rc<RefCell<Book>>) {
    loop {
        let wire = Wire::connect(Cluster::address(), Encoding::Json);
        if let Ok(mut wire) = in_time(wire).await {
            let _ = consume_on(&mut wire, &book).await;
        }
        reactor::sleep(RECONNECT_AFTER).await;
    }
}

/// A message as it was popped.
struct Got {
    place: Place,
    handle: String,
    pop_ms: i64,
}

async fn consume_on(wire: &mut Wire, book: &Rc<RefCell<Book>>) -> io::Result<()> {
    loop {
        for got in pop(wire, book).await? {
            let errs = book.borrow().pops < ERRING_POPS;
            match reactor::random() % 8 {
                0 | 1 if errs => {}
                2 if errs => change(wire, book, &got, 20).await?,
                3 if errs => change(wire, book, &got, 700).await?,
                4 if errs => {
                    reactor::sleep(Duration::from_millis(reactor::random() % 400)).await;
                    ack(wire, book, &got).await?;
                }
                _ => ack(wire, book, &got).await?,
            }
        }
    }
}

async fn pop(wire: &mut Wire, book: &Rc<RefCell<Book>>) -> io::Result<Vec<Got>> {
    let invisible_ms = 100 + (reactor::random() % 300) as i64;
    let poll_ms = (reactor::random() % 3 * 200) as i64;
    let is_ordered = book.borrow().is_ordered;
    let fields = [
        ("consumerGroup", Value::Str("pops")),
        ("topic", Value::Str(TOPIC)),
        ("queueId", Value::I32(-1)),
        ("maxMsgNums", Value::I32(1 + (reactor::random() % 8) as i32)),
        ("invisibleTime", Value::I64(invisible_ms)),
        ("pollTime", Value::I64(poll_ms)),
        ("bornTime", Value::I64(0)),
        ("initMode", Value::I32(0)),
        ("order", Value::Bool(is_ordered)),
    ];
    let asked = wire.ask(request::POP_MESSAGE, &fields, &[]);
    let frame = in_time(asked).await?;
    let answer = Command::decode(&frame).map_err(io::Error::other)?;
    book.borrow_mut().pops += 1;
    match answer.code {
        response::SUCCESS => {}
        response::POLLING_TIMEOUT => {
            reactor::sleep(Duration::from_millis(10)).await;
            return Ok(Vec::new());
        }
        // Nobody has sent to it yet, or the store is being closed.
        _ => {
            reactor::sleep(RECONNECT_AFTER).await;
            return Ok(Vec::new());
        }
    }
    let number = |name: &'static str| answer.fields.required_i64(name);
    let pop_ms = number("popTime").map_err(io::Error::other)?;
    let revive = number("reviveQid").map_err(io::Error::other)?;
    let mut got = Vec::new();
    let mut rest = answer.body;
    while !rest.is_empty() {
        let view = View::parse(rest).map_err(io::Error::other)?;
        rest = &rest[view.bytes.len()..];
        view.check_body().expect("a body is as it was sent");
        let (queue, offset) = (view.queue_id, view.queue_offset);
        got.push(Got {
            place: (queue, offset),
            handle: format!("{offset} {pop_ms} {invisible_ms} {revive} 0 broker {queue} {offset}"),
            pop_ms,
        });
    }
    let places: Vec<Place> = got.iter().map(|got| got.place).collect();
    let due_ms = pop_ms + invisible_ms;
    book.borrow_mut().delivered(&places, pop_ms, due_ms);
    Ok(got)
}

fn fields<'a>(got: &'a Got) -> Vec<(&'static str, Value<'a>)> {
    vec![
        ("consumerGroup", Value::Str("pops")),
        ("topic", Value::Str(TOPIC)),
        ("queueId", Value::I32(got.place.0)),
        ("extraInfo", Value::Str(&got.handle)),
        ("offset", Value::I64(got.place.1 as i64)),
    ]
}

async fn ack(wire: &mut Wire, book: &Rc<RefCell<Book>>, got: &Got) -> io::Result<()> {
    // Until an answer says more.
    let name = (got.place, got.pop_ms);
    book.borrow_mut().maybe_acked.insert(name);
    let fields = fields(got);
    let frame = in_time(wire.ask(request::ACK_MESSAGE, &fields, &[])).await?;
    let answer = Command::decode(&frame).map_err(io::Error::other)?;
    let mut book = book.borrow_mut();
    let last = book.last.get(&got.place).copied().expect("it was popped");
    let is_ours = last.pop_ms == got.pop_ms;
    let in_time = last
        .due_ms
        .is_some_and(|due_ms| reactor::wall_ms() < due_ms);
    if answer.code == response::SUCCESS && is_ours && in_time {
        book.acked.insert(got.place);
    }
    if answer.code != response::SUCCESS {
        book.maybe_acked.remove(&name);
    }
    Ok(())
}

async fn change(
    wire: &mut Wire,
    book: &Rc<RefCell<Book>>,
    got: &Got,
    invisible_ms: i64,
) -> io::Result<()> {
    if let Some(last) = book.borrow_mut().last.get_mut(&got.place) {
        last.due_ms = None;
    }
    let mut fields = fields(got);
    fields.push(("invisibleTime", Value::I64(invisible_ms)));
    let code = request::CHANGE_MESSAGE_INVISIBLETIME;
    let frame = in_time(wire.ask(code, &fields, &[])).await?;
    let answer = Command::decode(&frame).map_err(io::Error::other)?;
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark_str());
    Ok(())
}
