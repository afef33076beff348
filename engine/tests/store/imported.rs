//! Logs that RocketMQ wrote: queues with gaps, queues that begin anew, a clock that went back, files of its own beside.

use super::support::*;
use engine::check::{self, Request};
use engine::{Config, Queue, QueueOffset, Read, ReadLimits, Store};
use protocol::record;
use reactor::{File, Gather, OpenOptions, fs};
use std::path::Path;
use std::sync::Arc;

const SEGMENT_BYTES: usize = 64 << 10;

/// A record of a log that is made by hand: topic, queue, queue offset, store time.
type Line = (&'static str, u32, u64, i64);

/// Lays records of about a kilobyte one behind the other, as RocketMQ would, without anything else of a store.
fn lay_log(root: &Path, lines: &[Line]) {
    let dir = root.join("commitlog");
    fs::create_dir_all(&dir).expect("a directory");
    let mut base = 0u64;
    let mut bytes: Vec<u8> = Vec::new();
    for (number, (topic, queue, offset, store_ms)) in lines.iter().enumerate() {
        let body = vec![b'a' + (number % 26) as u8; 900];
        let mut one = Vec::new();
        let placed = draft(topic, *queue, "TAGS\u{1}a\u{2}", &body).append_to(&mut one);
        if bytes.len() + one.len() + record::HEADER_BYTES > SEGMENT_BYTES {
            let rest = SEGMENT_BYTES - bytes.len();
            record::blank(&mut bytes, rest);
            bytes.resize(SEGMENT_BYTES, 0);
            write(&dir.join(format!("{base:020}")), &bytes);
            base += SEGMENT_BYTES as u64;
            bytes.clear();
        }
        let at = base + bytes.len() as u64;
        record::patch(&mut one, *offset, at, placed.store_time_at, *store_ms);
        bytes.extend_from_slice(&one);
    }
    bytes.resize(SEGMENT_BYTES, 0);
    write(&dir.join(format!("{base:020}")), &bytes);
}

fn write(path: &Path, bytes: &[u8]) {
    let options = OpenOptions {
        read: true,
        write: true,
        create: true,
        ..OpenOptions::default()
    };
    let file = File::open(path, options).expect("a new file");
    file.write_all_at_blocking(bytes, 0)
        .expect("the disk has room");
    file.sync_blocking().expect("the disk works");
}

/// The offsets of all messages of a queue, found by reading it from its start.
async fn offsets(store: &Arc<Store>, queue: &Queue) -> Vec<u64> {
    let mut found = Vec::new();
    let mut at = QueueOffset(queue.min_offset());
    loop {
        let mut gather = Gather::default();
        let limits = ReadLimits::default();
        match read(store, queue, at, &limits, |_| true, &mut gather).await {
            Read::Found(read) => {
                found.extend(parse(&gather).iter().map(|(offset, _)| *offset));
                at = read.next;
            }
            Read::NoneMatched { next } => at = next,
            Read::Empty => return found,
            other => panic!("{other:?} at {at:?}"),
        }
    }
}

fn config(root: &Path) -> Config {
    let mut config = small(root);
    config.hot_bytes = 0; // everything is read from the companions
    config
}

async fn check_is_clean(root: &Path) {
    let request = Request {
        root: root.to_path_buf(),
        log_dirs: Vec::new(),
        repair: false,
    };
    let report = check::check(&request, |_| {}).await;
    let report = report.unwrap_or_else(|error| panic!("{error}"));
    assert!(report.is_clean(), "{:?}", report.findings);
}

/// Opens the log several times, with and without companions, and finds in `t/0` what is expected each time.
async fn expect(root: &Path, expected: &[u64]) {
    for round in 0..4 {
        let broker = Broker::open(config(root)).await;
        let queue = broker.store.find_queue("t", 0).expect("it has messages");
        assert_eq!(
            queue.max_offset(),
            expected.last().map_or(0, |last| last + 1)
        );
        assert_eq!(offsets(&broker.store, &queue).await, expected, "{round}");
        broker.close().await;
        check_is_clean(root).await;
        let orbit = root.join("orbit");
        for name in fs::list(&orbit).expect("the companions' directory") {
            // Nothing, the sealed indexes, all but the note whose log it is, everything.
            let gone = match round {
                0 => false,
                1 => name.ends_with(".index"),
                2 => name != "origin",
                _ => true,
            };
            if gone {
                fs::remove_file(&orbit.join(name)).expect("just listed");
            }
        }
    }
    let broker = Broker::open(config(root)).await;
    let queue = broker.store.find_queue("t", 0).expect("it has messages");
    assert_eq!(offsets(&broker.store, &queue).await, expected, "after all");
    broker.close().await;
}

#[test]
fn a_queue_with_gaps_is_read_over_them() {
    on_both(|root| async move {
        let offsets: Vec<u64> = (0..40)
            .chain(45..46)
            .chain(60..100)
            .chain(700..800)
            .collect();
        let lines: Vec<Line> = offsets
            .iter()
            .flat_map(|offset| [("t", 0, *offset, 5), ("u", 1, *offset, 5)])
            .collect();
        lay_log(&root, &lines);
        expect(&root, &offsets).await;
    });
}

#[test]
fn a_queue_that_begins_anew_shows_its_later_messages() {
    on_both(|root| async move {
        let mut lines: Vec<Line> = (0..150).map(|offset| ("t", 0, offset, 5)).collect();
        lines.extend((0..90).map(|offset| ("u", 0, offset, 5)));
        lines.extend((0..120).map(|offset| ("t", 0, offset, 5)));
        lay_log(&root, &lines);
        let expected: Vec<u64> = (0..120).collect();
        expect(&root, &expected).await;
    });
}

#[test]
fn a_queue_that_begins_anew_within_a_segment_shows_its_later_messages() {
    on_both(|root| async move {
        let mut lines: Vec<Line> = (70..90).map(|offset| ("t", 0, offset, 5)).collect();
        lines.extend((3..30).map(|offset| ("t", 0, offset, 5)));
        lay_log(&root, &lines);
        let expected: Vec<u64> = (3..30).collect();
        expect(&root, &expected).await;
    });
}

#[test]
fn a_clock_that_went_back_does_no_harm_to_the_indexes() {
    on_both(|root| async move {
        let lines: Vec<Line> = (0..300)
            .map(|offset| ("t", 0, offset, 1_000_000 - 2_000 * (offset as i64 / 7)))
            .collect();
        lay_log(&root, &lines);
        Broker::open(config(&root)).await.close().await;
        let index = root
            .join("orbit")
            .join(format!("{:020}.index", SEGMENT_BYTES));
        let before = fs::read(&index).expect("the second segment is full");
        // Were it not taken for good, it would be made again.
        fs::remove_file(&root.join("commitlog").join(format!("{:020}", 0))).expect("the oldest");
        let broker = Broker::open(config(&root)).await;
        assert!(before == fs::read(&index).expect("it stays"));
        let queue = broker.store.find_queue("t", 0).expect("it has messages");
        let found = offsets(&broker.store, &queue).await;
        assert_eq!(found.last(), Some(&299));
        broker.close().await;
    });
}

#[test]
fn what_rocketmq_derived_is_moved_aside_and_the_log_goes_on_under_our_rules() {
    on_ring(|root| async move {
        let lines: Vec<Line> = (0..100).map(|offset| ("t", 0, offset, 5)).collect();
        lay_log(&root, &lines);
        let queue_dir = root.join("consumequeue").join("t").join("0");
        fs::create_dir_all(&queue_dir).expect("a directory");
        write(&queue_dir.join("00000000000000000000"), b"entries");
        write(&root.join("checkpoint"), b"times");
        write(&root.join("abort"), b"");
        for _ in 0..2 {
            let mut broker = Broker::open(config(&root)).await;
            assert!(!fs::exists(&root.join("consumequeue")));
            assert!(!fs::exists(&root.join("checkpoint")));
            let aside = root.join("orbit").join("rocketmq-aside");
            assert!(fs::exists(&aside.join("consumequeue").join("t").join("0")));
            assert!(
                fs::exists(&root.join("abort")),
                "kept while the store is open"
            );
            let queue = broker.store.find_queue("t", 0).expect("it has messages");
            let end = queue.max_offset();
            let (mut batch, _) = broker.batch(&[("t", 0, 500, None)]);
            broker.writer.append(&mut batch).await;
            broker.writer.publish();
            assert_eq!(batch.items()[0].queue_offset, end);
            broker.close().await;
            check_is_clean(&root).await;
            // RocketMQ had it again.
            fs::create_dir_all(&queue_dir).expect("a directory");
            write(&queue_dir.join("00000000000000000000"), b"entries");
            write(&root.join("checkpoint"), b"times");
        }
    });
}

#[test]
fn a_log_without_companions_is_opened_with_few_indexes_in_memory() {
    on_both(|root| async move {
        let lines: Vec<Line> = (0..900).map(|offset| ("t", 0, offset, 5)).collect();
        lay_log(&root, &lines);
        let broker = Broker::open(config(&root)).await;
        let sealed = |name: &String| name.ends_with(".index");
        let names = fs::list(&root.join("orbit")).expect("the companions' directory");
        let logs = fs::list(&root.join("commitlog")).expect("the log directory");
        let sealed = names.iter().filter(|name| sealed(name)).count();
        // The last file may be one that was prepared and not used yet.
        assert!((sealed + 1..=sealed + 2).contains(&logs.len()));
        let queue = broker.store.find_queue("t", 0).expect("it has messages");
        assert_eq!(offsets(&broker.store, &queue).await.len(), 900);
        broker.close().await;
    });
}
