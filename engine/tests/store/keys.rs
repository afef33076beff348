//! Messages by key: whatever happens to the files of the index, a query finds what a look at the whole log would find.

use super::support::*;
use engine::{Batch, Config, KeyAnswer, KeyKind, KeyQuery, QueueOffset, Read, ReadLimits, Store};
use protocol::properties;
use protocol::record::View;
use reactor::sim::World;
use reactor::{File, Gather, OpenOptions, fs};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const TOPICS: [&str; 2] = ["orders", "bills"];
const KEYS: [&str; 4] = ["red", "green", "blue", "rare"];
/// Messages to a batch.
const BATCH: usize = 8;

/// A message as the model knows it.
#[derive(Clone, Debug)]
struct Sent {
    topic: &'static str,
    keys: Vec<String>,
    tag: Option<String>,
    log_offset: u64,
    store_ms: i64,
}

/// Everything that was sent, in the order of the log.
type Log = Vec<Sent>;

fn config(root: &Path) -> Config {
    let mut config = small(root);
    config.hot_bytes = 48 << 10;
    config
}

/// Sends messages by their numbers, from which follows what is in them.
async fn send(broker: &mut Broker, log: &mut Log, numbers: Range<usize>) {
    for first in numbers.clone().step_by(BATCH) {
        let mut batch = Batch::new(0);
        let mut sent = Log::new();
        for n in first..numbers.end.min(first + BATCH) {
            sent.push(add(broker, &mut batch, n));
        }
        broker.writer.append(&mut batch).await;
        broker.publish().await;
        for (mut sent, item) in sent.into_iter().zip(batch.items()) {
            assert_eq!(item.error, None);
            sent.log_offset = item.log_offset;
            sent.store_ms = item.store_ms;
            log.push(sent);
        }
    }
}

/// Adds the `n`th message to the batch.
fn add(broker: &Broker, batch: &mut Batch, n: usize) -> Sent {
    let topic = TOPICS[n % 2];
    let unique = format!("id-{n}");
    let mut listed = vec![KEYS[n % 3], KEYS[n / 7 % 3]];
    if n.is_multiple_of(97) {
        listed.push(KEYS[3]);
    }
    let tag = (!n.is_multiple_of(5)).then_some(["new", "paid"][n / 2 % 2]);
    let properties = format!(
        "KEYS\u{1}{}\u{2}UNIQ_KEY\u{1}{unique}\u{2}{}",
        listed.join(" "),
        tag.map_or(String::new(), |tag| format!("TAGS\u{1}{tag}\u{2}"))
    );
    let body = vec![b'x'; 100 + n * 37 % 900];
    let queue = broker.store.queue(topic, 0);
    batch.push(&queue, hash(tag), n as u64, |out| {
        draft(topic, 0, &properties, &body).append_to(out)
    });
    let keys = [unique.as_str()].into_iter().chain(listed);
    Sent {
        topic,
        keys: keys.map(str::to_owned).collect(),
        tag: tag.map(str::to_owned),
        log_offset: 0,
        store_ms: 0,
    }
}

/// Everything there is, read from the queues: what queries have to agree with.
async fn read_log(store: &Arc<Store>) -> Log {
    let mut log = Log::new();
    for topic in TOPICS {
        let Some(queue) = store.find_queue(topic, 0) else {
            continue;
        };
        let (mut offset, limits) = (QueueOffset(0), ReadLimits::default());
        loop {
            let mut gather = Gather::default();
            match read(store, &queue, offset, &limits, |_| true, &mut gather).await {
                Read::Found(found) => offset = found.next,
                Read::Empty => break,
                other => panic!("{other:?}"),
            }
            let mut bytes = Vec::new();
            gather.copy_slices_to(&mut bytes);
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let view = View::parse(rest).expect("a gather holds whole records");
                log.push(Sent::of(topic, &view));
                rest = &rest[view.bytes.len()..];
            }
        }
    }
    log.sort_by_key(|sent| sent.log_offset);
    log
}

impl Sent {
    fn of(topic: &'static str, view: &View<'_>) -> Sent {
        let get = |name| properties::get_str(view.properties, name);
        let listed = get("KEYS").expect("every message has some");
        let unique = get("UNIQ_KEY").expect("every message has one");
        let keys = listed.split(' ').chain([unique]);
        Sent {
            topic,
            keys: keys.map(str::to_owned).collect(),
            tag: get("TAGS").map(str::to_owned),
            log_offset: view.log_offset,
            store_ms: view.store_ms,
        }
    }
}

fn query(topic: &str, key: &str) -> KeyQuery {
    KeyQuery {
        topic: topic.to_owned(),
        key: key.to_owned(),
        kind: KeyKind::Key,
        begin_ms: 0,
        end_ms: i64::MAX,
        messages_max: 64,
        bytes_max: 1 << 30,
    }
}

/// What the log holds, looked at from its start: the newest that fit, oldest first.
fn expected(log: &Log, query: &KeyQuery) -> Vec<u64> {
    let fits = |sent: &&Sent| {
        let named = match query.kind {
            KeyKind::Key => sent.keys.contains(&query.key),
            KeyKind::Tag => sent.tag.as_deref() == Some(query.key.as_str()),
        };
        let in_time = (query.begin_ms..=query.end_ms).contains(&sent.store_ms);
        named && in_time && sent.topic == query.topic
    };
    let all: Vec<u64> = log
        .iter()
        .filter(fits)
        .map(|sent| sent.log_offset)
        .collect();
    all[all.len().saturating_sub(query.messages_max)..].to_vec()
}

fn places(answer: &KeyAnswer) -> Vec<u64> {
    let place = |record: &Vec<u8>| {
        let view = View::parse(record).expect("a whole record");
        view.check_body().expect("what was sent");
        view.log_offset
    };
    answer.records.iter().map(place).collect()
}

async fn ask(store: &Arc<Store>, query: KeyQuery) -> Vec<u64> {
    let answer = store.query_key(query).await.expect("the disk reads");
    assert!(!answer.is_partial, "there was time enough");
    places(&answer)
}

/// Compares answers of all kinds with the model.
async fn check(store: &Arc<Store>, log: &Log) {
    let end = log.last().map_or(0, |last| last.store_ms);
    let middle = log.get(log.len() / 2).map_or(0, |sent| sent.store_ms);
    let mut queries = Vec::new();
    for topic in ["orders", "bills", "none"] {
        for key in KEYS.into_iter().chain(["id-0", "id-1", "unknown"]) {
            queries.push(query(topic, key));
            for (begin_ms, end_ms) in [
                (middle, end),
                (0, middle),
                (middle, middle),
                (end + 1, i64::MAX),
            ] {
                queries.push(KeyQuery {
                    begin_ms,
                    end_ms,
                    messages_max: 5,
                    ..query(topic, key)
                });
            }
        }
        for tag in ["new", "paid", "red"] {
            queries.push(KeyQuery {
                kind: KeyKind::Tag,
                ..query(topic, tag)
            });
        }
    }
    for n in (0..log.len()).step_by(log.len() / 20 + 1) {
        queries.push(query(log[n].topic, &log[n].keys[0]));
    }
    for query in queries {
        let found = ask(store, query.clone()).await;
        assert_eq!(found, expected(log, &query), "{query:?}");
    }
}

/// A store of several segments, closed.
async fn filled(root: &Path, messages: usize) -> Log {
    let mut broker = Broker::open(config(root)).await;
    let mut log = Log::new();
    for first in (0..messages).step_by(50) {
        send(&mut broker, &mut log, first..messages.min(first + 50)).await;
        reactor::sleep(Duration::from_millis(1)).await;
    }
    broker.close().await;
    log
}

fn files(root: &Path, suffix: &str) -> Vec<PathBuf> {
    let dir = root.join("orbit");
    let names = fs::list(&dir).expect("the companions' directory");
    let ours = names.into_iter().filter(|name| name.ends_with(suffix));
    ours.map(|name| dir.join(name)).collect()
}

/// Resumes when every full segment has its file, and runs are left of the newest segment alone.
async fn settled(broker: &Broker, root: &Path) {
    loop {
        let full = broker.store.written().0 / broker.store.config().segment_bytes;
        let newest = format!("{:020}", full * broker.store.config().segment_bytes);
        let of_newest = |run: &PathBuf| run.to_string_lossy().contains(&newest);
        if files(root, ".keys").len() as u64 == full && files(root, ".keyrun").iter().all(of_newest)
        {
            return;
        }
        reactor::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn messages_are_found_while_the_log_grows_after_it_has_and_after_a_restart() {
    on_both(|root| async move {
        let mut broker = Broker::open(config(&root)).await;
        let mut log = Log::new();
        for first in (0..700).step_by(175) {
            send(&mut broker, &mut log, first..first + 175).await;
            check(&broker.store, &log).await;
        }
        settled(&broker, &root).await;
        assert!(files(&root, ".keys").len() > 5);
        check(&broker.store, &log).await;
        let last = log.last().expect("sent").clone();
        let found = broker.store.query_key(query(last.topic, &last.keys[0]));
        let found = found.await.expect("the disk reads");
        assert_eq!(found.last_ms, last.store_ms);
        assert_eq!(found.searched_from, broker.store.written());
        broker.close().await;
        let broker = Broker::open(config(&root)).await;
        check(&broker.store, &log).await;
        broker.close().await;
    });
}

/// Files without a name that this process has open, of those under `root`.
fn open_without_name(root: &Path) -> Vec<PathBuf> {
    let open = std::fs::read_dir("/proc/self/fd").expect("it can be listed");
    let targets = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let gone =
        |path: &PathBuf| path.starts_with(root) && path.to_string_lossy().contains("(deleted)");
    targets.filter(gone).collect()
}

#[test]
fn runs_that_were_merged_do_not_stay_open() {
    on_ring(|root| async move {
        let mut broker = Broker::open(config(&root)).await;
        send(&mut broker, &mut Log::new(), 0..700).await;
        settled(&broker, &root).await;
        let closed = async {
            while !open_without_name(&root).is_empty() {
                reactor::sleep(Duration::from_millis(1)).await;
            }
        };
        let closed = reactor::timeout(Duration::from_secs(20), closed).await;
        assert!(closed.is_ok(), "{:?}", open_without_name(&root));
        broker.close().await;
    });
}

#[test]
fn without_its_files_the_index_is_made_again_and_nothing_is_missed_meanwhile() {
    on_both(|root| async move {
        let log = filled(&root, 300).await;
        for path in files(&root, ".keys").iter().chain(&files(&root, ".keyrun")) {
            fs::remove_file(path).expect("just listed");
        }
        let broker = Broker::open(config(&root)).await;
        check(&broker.store, &log).await;
        settled(&broker, &root).await;
        check(&broker.store, &log).await;
        broker.close().await;
    });
}

#[test]
fn a_file_damaged_anywhere_is_noticed_and_made_again() {
    on_both(|root| async move {
        let log = filled(&root, 300).await;
        for round in 0..3 {
            for path in files(&root, ".keys").iter().chain(&files(&root, ".keyrun")) {
                let bytes = fs::read(path).expect("just listed").len() as u64;
                flip(path, [20, 4096 + 100, bytes - 100][round]);
            }
            let broker = Broker::open(config(&root)).await;
            check(&broker.store, &log).await;
            broker.close().await;
        }
    });
}

#[test]
fn a_file_damaged_while_the_store_is_open_is_made_again_by_the_query_that_meets_it() {
    on_both(|root| async move {
        let log = filled(&root, 300).await;
        let broker = Broker::open(config(&root)).await;
        check(&broker.store, &log).await;
        for path in files(&root, ".keys").iter().chain(&files(&root, ".keyrun")) {
            flip(path, 4096 + 100);
        }
        check(&broker.store, &log).await;
        broker.close().await;
    });
}

#[test]
fn files_of_another_log_are_not_believed() {
    on_both(|root| async move {
        let (one, two) = (root.join("one"), root.join("two"));
        filled(&one, 400).await;
        reactor::sleep(Duration::from_millis(20)).await;
        let log = filled(&two, 300).await;
        for path in files(&one, ".keys") {
            let name = path.file_name().expect("just listed");
            let to = two.join("orbit").join(name);
            if fs::exists(&to) {
                fs::rename(&path, &to).expect("both are there");
            }
        }
        let broker = Broker::open(config(&two)).await;
        check(&broker.store, &log).await;
        broker.close().await;
    });
}

#[test]
fn what_is_switched_off_costs_nothing_and_finds_nothing_new() {
    on_both(|root| async move {
        let mut config = config(&root);
        config.key_index = false;
        let mut broker = Broker::open(config.clone()).await;
        let mut log = Log::new();
        send(&mut broker, &mut log, 0..300).await;
        assert!(ask(&broker.store, query("orders", "red")).await.is_empty());
        broker.close().await;
        assert!(files(&root, ".keys").is_empty() && files(&root, ".keyrun").is_empty());
        config.key_index = true;
        let broker = Broker::open(config).await;
        check(&broker.store, &log).await;
        broker.close().await;
    });
}

#[test]
fn an_answer_is_bounded_in_bytes_but_never_empty_for_it() {
    on_both(|root| async move {
        let mut broker = Broker::open(config(&root)).await;
        let mut log = Log::new();
        send(&mut broker, &mut log, 0..300).await;
        let all = expected(&log, &query("orders", "red"));
        for bytes_max in [0, 1, 3_000] {
            let bounded = KeyQuery {
                bytes_max,
                ..query("orders", "red")
            };
            let some = ask(&broker.store, bounded).await;
            assert!(!some.is_empty() && some.len() < 12, "{some:?}");
            assert!(all.ends_with(&some));
        }
        let none = KeyQuery {
            messages_max: 0,
            ..query("orders", "red")
        };
        assert!(ask(&broker.store, none).await.is_empty());
        broker.close().await;
    });
}

#[test]
fn kills_and_power_cuts_leave_an_index_that_answers_like_the_log() {
    each_flavour_and_seed(20, |flavour, seed| {
        let mut world = World::new(seed);
        let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
        for number in 0..4 {
            world.start(node, "writer", move || life(flavour.root(), number));
            let long = world.random().is_multiple_of(2);
            let micros = world.random() % if long { 600_000 } else { 60_000 };
            world.run_for(Duration::from_micros(micros));
            match world.random() % 2 {
                0 => world.kill(node),
                _ => world.power_cut(node),
            }
        }
        world.block_on(node, async move {
            let broker = Broker::open(config(&flavour.root())).await;
            let log = read_log(&broker.store).await;
            check(&broker.store, &log).await;
            broker.close().await;
        });
    });
}

/// Opens, compares, sends and asks until it is ended.
async fn life(root: PathBuf, number: usize) {
    let mut config = config(&root);
    if number % 2 == 1 {
        // Segments end early.
        config.index_bytes = 16 << 10;
    }
    let mut broker = Broker::open(config).await;
    let mut log = read_log(&broker.store).await;
    check(&broker.store, &log).await;
    for first in (10_000 * (number + 1)..).step_by(40) {
        send(&mut broker, &mut log, first..first + 40).await;
        reactor::sleep(Duration::from_millis(5)).await;
        let last = log.last().expect("sent");
        let found = ask(&broker.store, query(last.topic, &last.keys[0])).await;
        assert_eq!(found, [last.log_offset]);
    }
}

fn flip(path: &Path, at: u64) {
    let options = OpenOptions {
        read: true,
        write: true,
        ..OpenOptions::default()
    };
    let file = File::open(path, options).expect("a companion");
    let mut byte = [0];
    let inside = "inside the file";
    file.read_exact_at_blocking(&mut byte, at).expect(inside);
    byte[0] ^= 0x10;
    file.write_all_at_blocking(&byte, at).expect(inside);
}
