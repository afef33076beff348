//! Killed processes and power cuts at any moment, in a simulated world.
//!
//! A diary keeps what was tried, acknowledged, seen by readers, and flushed. After a kill everything acknowledged
//! is there; after a power cut everything flushed is, which in a SYNC_FLUSH store is everything that was
//! acknowledged or seen. In both cases what is there is exactly the beginning of what was tried: never a hole,
//! never something else.

use super::support::*;
use engine::{Config, LogOffset, Store};
use reactor::sim::{Faults, World, twice};
use reactor::{File, OpenOptions, fs};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

const LIVES: u64 = 6;

struct Diary {
    flavour: Flavour,
    /// Every body tried, by queue, in order.
    tried: BTreeMap<(String, u32), Vec<Vec<u8>>>,
    /// How many of them were acknowledged.
    acknowledged: BTreeMap<(String, u32), u64>,
    /// The queues' ends as readers saw them.
    seen: BTreeMap<(String, u32), u64>,
    /// Ends of the records that were laid.
    ends: BTreeSet<u64>,
    /// End of the last record that was reported as flushed as a whole.
    flushed: u64,
    written: u64,
    /// The power was cut since the store was last opened.
    power_cut: bool,
    opened: u64,
    count: u64,
}

impl Diary {
    fn new(flavour: Flavour) -> Diary {
        Diary {
            flavour,
            tried: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            seen: BTreeMap::new(),
            ends: BTreeSet::new(),
            flushed: 0,
            written: 0,
            power_cut: false,
            opened: 0,
            count: 0,
        }
    }

    /// Whether what was acknowledged or seen may be gone.
    fn may_lose(&self) -> bool {
        self.power_cut && !self.flavour.sync_flush
    }

    /// Takes down how far the store is, and that it says nothing that it cannot keep.
    fn look(&mut self, store: &Store) {
        self.written = store.written().0;
        let flushed = self.ends.range(..=store.flushed().0).next_back();
        self.flushed = flushed.map_or(self.flushed, |end| self.flushed.max(*end));
        if self.flavour.sync_flush {
            assert!(
                store.written() <= store.flushed(),
                "released before its time"
            );
        }
        for ((topic, id), seen) in self.seen.iter_mut() {
            if let Some(queue) = store.find_queue(topic, *id) {
                *seen = queue.max_offset();
            }
        }
    }
}

/// A message on its way to being acknowledged: where the log has to be released to, its queue and its offset there.
struct OnTheWay {
    end: LogOffset,
    key: (String, u32),
    offset: u64,
}

/// What a store is filled with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    Mixed,
    /// So many small ones that indexes have no room in memory, and segments end early.
    Small,
}

fn config(root: &Path) -> Config {
    let mut config = small(root);
    config.flush.interval_ms = 10;
    config.flush.thorough_ms = 30;
    config.flush.least_pages = 2;
    config.hot_bytes = 96 << 10;
    config
}

/// One life of the broker: opens, compares with the diary, sends until it is ended from outside.
async fn live(config: Config, load: Load, diary: Rc<RefCell<Diary>>) {
    let mut broker = Broker::open(config).await;
    reconcile(&broker, &diary).await;
    let mut on_the_way = VecDeque::new();
    loop {
        let specs = specs(load);
        let (mut batch, bodies) = {
            let mut diary = diary.borrow_mut();
            broker.sent.count = diary.count;
            let batch = broker.batch(&specs);
            diary.count = broker.sent.count;
            batch
        };
        for (spec, body) in specs.iter().zip(bodies) {
            let key = (spec.0.to_owned(), spec.1);
            let mut diary = diary.borrow_mut();
            diary.seen.entry(key.clone()).or_default();
            diary.tried.entry(key).or_default().push(body);
        }
        broker.writer.append(&mut batch).await;
        let turn_end = broker.writer.appended();
        for (spec, item) in specs.iter().zip(batch.items()) {
            assert_eq!(item.error, None);
            let end = item.log_offset + u64::from(item.record_bytes());
            diary.borrow_mut().ends.insert(end);
            on_the_way.push_back(OnTheWay {
                end: turn_end,
                key: (spec.0.to_owned(), spec.1),
                offset: item.queue_offset,
            });
        }
        acknowledge(&mut broker, &mut on_the_way, &diary);
        let pause = Duration::from_micros(reactor::random() % 3_000);
        reactor::sleep(pause).await;
        acknowledge(&mut broker, &mut on_the_way, &diary);
    }
}

fn acknowledge(broker: &mut Broker, on_the_way: &mut VecDeque<OnTheWay>, diary: &RefCell<Diary>) {
    broker.writer.publish();
    let mut diary = diary.borrow_mut();
    diary.look(&broker.store);
    while let Some(message) = on_the_way.pop_front_if(|next| next.end.0 <= diary.written) {
        let acknowledged = diary.acknowledged.entry(message.key).or_default();
        assert_eq!(message.offset, *acknowledged, "offsets have no gap");
        *acknowledged += 1;
    }
}

fn specs(load: Load) -> Vec<Spec> {
    let (most, longest) = match load {
        Load::Mixed => (6, 900),
        Load::Small => (30, 60),
    };
    (0..1 + reactor::random() % most)
        .map(|_| {
            let topic = ["orders", "payments", "%RETRY%g"][reactor::random() as usize % 3];
            let queue = (reactor::random() % 3) as u32;
            let long = load == Load::Mixed && reactor::random().is_multiple_of(20);
            let body_bytes = reactor::random() as usize % if long { 20_000 } else { longest };
            let tag = [None, Some("a")][reactor::random() as usize % 2];
            (topic, queue, body_bytes, tag)
        })
        .collect()
}

/// Compares the store with the diary, and the diary with the store from then on.
async fn reconcile(broker: &Broker, diary: &RefCell<Diary>) {
    let end = broker.store.written();
    {
        let diary = diary.borrow();
        assert!(
            end.0 >= diary.flushed,
            "{end:?}, yet {} was flushed",
            diary.flushed
        );
        let lost = diary.written.saturating_sub(end.0);
        assert!(
            diary.may_lose() || lost == 0,
            "{lost} bytes are lost that were released"
        );
    }
    let keys: Vec<(String, u32)> = diary.borrow().tried.keys().cloned().collect();
    for key in keys {
        let found = match broker.store.find_queue(&key.0, key.1) {
            Some(queue) => read_all(&broker.store, &queue, 0).await,
            None => Vec::new(),
        };
        let mut diary = diary.borrow_mut();
        let acknowledged = diary.acknowledged.get(&key).copied().unwrap_or(0);
        let tried = &diary.tried[&key];
        assert!(found.len() <= tried.len(), "{key:?} has more than was sent");
        for (offset, (message, body)) in found.iter().zip(tried).enumerate() {
            assert_eq!(&message.body, body, "{key:?} at {offset}");
            assert!(message.log_offset + u64::from(message.bytes) <= end.0);
        }
        let kept = found.len();
        let seen = diary.seen.get(&key).copied().unwrap_or(0);
        assert!(
            diary.may_lose() || kept as u64 >= acknowledged.max(seen),
            "{key:?} has {kept} messages, {acknowledged} were acknowledged and {seen} seen"
        );
        diary.seen.insert(key.clone(), kept as u64);
        diary.acknowledged.insert(key.clone(), kept as u64);
        diary.tried.entry(key).or_default().truncate(kept);
    }
    let mut diary = diary.borrow_mut();
    diary.written = end.0;
    diary.ends.split_off(&(end.0 + 1));
    diary.flushed = diary.flushed.min(end.0);
    diary.power_cut = false;
    diary.opened += 1;
}

/// Several lives on one disk, each ended by `end`. Returns the trace's hash.
fn lives(
    flavour: Flavour,
    load: Load,
    seed: u64,
    end: impl Fn(&mut World, reactor::sim::NodeId, &mut Diary),
) -> u64 {
    let mut config = config(&flavour.root());
    if load == Load::Small {
        config.index_bytes = 16 << 10;
        config.window.bytes = 64 << 10;
    }
    let mut world = World::new(seed);
    let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
    let diary = Rc::new(RefCell::new(Diary::new(flavour)));
    for _ in 0..LIVES {
        let alive = diary.clone();
        let config = config.clone();
        world.start(node, "writer", move || live(config, load, alive));
        let long = world.random().is_multiple_of(3);
        let micros = world.random() % if long { 400_000 } else { 30_000 };
        world.run_for(Duration::from_micros(micros));
        end(&mut world, node, &mut diary.borrow_mut());
    }
    let last = diary.clone();
    world.block_on(node, async move {
        let broker = Broker::open(config).await;
        reconcile(&broker, &last).await;
        broker.close().await;
    });
    assert!(diary.borrow().opened > 0);
    world.trace_hash()
}

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    each_flavour_and_seed(60, |flavour, seed| {
        lives(flavour, Load::Mixed, seed, |world, node, _| {
            world.kill(node)
        });
    });
}

#[test]
fn a_power_cut_loses_only_an_end_that_was_not_flushed() {
    each_flavour_and_seed(60, |flavour, seed| {
        lives(flavour, Load::Mixed, seed, |world, node, diary| {
            world.power_cut(node);
            diary.power_cut = true;
        });
    });
}

#[test]
fn kills_and_power_cuts_in_any_order_keep_the_promise() {
    each_flavour_and_seed(60, |flavour, seed| {
        lives(flavour, Load::Mixed, seed, |world, node, diary| {
            match world.random() % 2 {
                0 => world.kill(node),
                _ => {
                    world.power_cut(node);
                    diary.power_cut = true;
                }
            }
        });
    });
}

#[test]
fn segments_that_end_early_keep_the_promise() {
    each_flavour_and_seed(60, |flavour, seed| {
        lives(flavour, Load::Small, seed, |world, node, diary| {
            match world.random() % 2 {
                0 => world.kill(node),
                _ => {
                    world.power_cut(node);
                    diary.power_cut = true;
                }
            }
        });
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for flavour in FLAVOURS {
        twice(7, |seed| {
            lives(*flavour, Load::Mixed, seed, |world, node, _| {
                world.kill(node)
            })
        });
    }
}

#[test]
fn after_a_failed_sync_nothing_more_is_accepted_and_reads_go_on() {
    each_flavour_and_seed(10, |flavour, seed| {
        let mut world = World::new(seed);
        let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
        world.block_on(node, async move {
            let mut broker = Broker::open(config(&flavour.root())).await;
            broker.send(&[("t", 0, 500, None); 3]).await;
            broker.close().await;
        });
        let failing = Faults {
            fsync_error_ppm: 1_000_000,
            ..Faults::default()
        };
        let ended = Rc::new(Cell::new(false));
        let end = ended.clone();
        world.start(node, "writer", move || async move {
            let mut broker = Broker::open(config(&flavour.root())).await;
            broker.sent.count = 3;
            reactor::sleep(Duration::from_millis(500)).await;
            let flushed = broker.store.flushed();
            let (mut batch, _) = broker.batch(&[("t", 0, 500, None)]);
            broker.writer.append(&mut batch).await;
            broker.writer.publish();
            assert_eq!(batch.items()[0].error, None);
            while !broker.store.is_poisoned() {
                reactor::sleep(Duration::from_millis(5)).await;
            }
            assert!(broker.store.flushed() < broker.writer.appended());
            assert!(broker.store.flushed() >= flushed);
            broker.writer.publish();
            let written = broker.store.written();
            let shown = if flavour.sync_flush { 3 } else { 4 };
            let (mut batch, _) = broker.batch(&[("t", 0, 500, None)]);
            broker.writer.append(&mut batch).await;
            broker.writer.publish();
            let error = batch.items()[0].error;
            assert_eq!(error, Some(engine::AppendError::Poisoned));
            assert_eq!(broker.store.written(), written);
            let queue = broker.store.find_queue("t", 0).expect("sent to");
            assert_eq!(read_all(&broker.store, &queue, 0).await.len(), shown);
            assert!(
                broker.writer.close().await.is_err(),
                "closing cannot promise anything"
            );
            assert!(fs::exists(&flavour.root().join("abort")));
            end.set(true);
        });
        world.run_for(Duration::from_millis(250));
        world.set_faults(failing);
        let done = world.run_until(|| ended.get(), Duration::from_secs(5));
        assert!(done, "the scene came to its end");
    });
}

#[test]
fn a_full_disk_refuses_sends_corrupts_nothing_and_is_forgotten_when_there_is_room() {
    each_flavour_and_seed(10, |flavour, seed| {
        let mut world = World::new(seed);
        let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
        world.set_disk_bytes(node, Some(400 << 10));
        let refused = Rc::new(Cell::new(0));
        let ended = Rc::new(Cell::new(false));
        let (count, end) = (refused.clone(), ended.clone());
        world.start(node, "writer", move || async move {
            let mut broker = Broker::open(config(&flavour.root())).await;
            let mut accepted_after = 0;
            while accepted_after < 100 {
                let spec = ("t", 0, 1_000, None);
                let (mut batch, bodies) = broker.batch(&[spec]);
                broker.writer.append(&mut batch).await;
                broker.publish().await;
                let item = batch.items()[0].clone();
                match item.error {
                    None => {
                        let body = bodies.into_iter().next().expect("one message");
                        broker.acknowledge(&spec, body, &item);
                        accepted_after += u32::from(count.get() > 0);
                    }
                    Some(engine::AppendError::DiskFull { .. }) => count.set(count.get() + 1),
                    Some(other) => panic!("{other}"),
                }
                reactor::sleep(Duration::from_millis(2)).await;
            }
            broker.check().await;
            let sent = broker.close().await;
            let broker = Broker::reopen(config(&flavour.root()), sent).await;
            broker.check().await;
            broker.close().await;
            end.set(true);
        });
        let full = world.run_until(|| refused.get() > 20, Duration::from_secs(60));
        assert!(full, "the disk filled up");
        world.set_disk_bytes(node, None);
        let done = world.run_until(|| ended.get(), Duration::from_secs(60));
        assert!(done, "sends were accepted again");
    });
}

#[test]
fn a_torn_last_record_is_cut_off_and_the_one_before_survives() {
    on_both(|root| async move {
        let mut broker = Broker::open(config(&root)).await;
        broker.send(&[("t", 0, 3_000, None); 4]).await;
        let sent = broker.lose_power().await;
        let last = sent.queues[&("t".to_owned(), 0)][3].clone();
        // Its last sectors never reached the disk.
        let path = root.join("commitlog").join(format!("{:020}", 0));
        let options = OpenOptions {
            read: true,
            write: true,
            ..OpenOptions::default()
        };
        let from = (last.log_offset + 1_024).next_multiple_of(512);
        let end = last.log_offset + u64::from(last.bytes);
        let zeros = vec![0; (end - from) as usize];
        reactor::sleep(Duration::from_millis(50)).await;
        let file = File::open(&path, options).expect("the first segment");
        file.write_all_at_blocking(&zeros, from)
            .expect("inside the file");
        let mut broker = Broker::open(config(&root)).await;
        assert_eq!(broker.store.written(), LogOffset(last.log_offset));
        let queue = broker.store.find_queue("t", 0).expect("three are left");
        assert_eq!(read_all(&broker.store, &queue, 0).await.len(), 3);
        let (mut batch, _) = broker.batch(&[("t", 0, 10, None)]);
        broker.writer.append(&mut batch).await;
        broker.writer.publish();
        assert_eq!(batch.items()[0].queue_offset, 3);
        assert_eq!(batch.items()[0].log_offset, last.log_offset);
        broker.close().await;
        // Of the torn record nothing is left.
        let bytes = fs::read(&path).expect("the first segment");
        let end =
            (batch.items()[0].log_offset + u64::from(batch.items()[0].record_bytes())) as usize;
        assert!(bytes[end..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn a_stale_record_that_lines_up_with_the_next_one_does_not_come_back() {
    on_both(|root| async move {
        let mut broker = Broker::open(config(&root)).await;
        broker.send(&[("t", 0, 2_000, None); 4]).await;
        let sent = broker.lose_power().await;
        let third = sent.queues[&("t".to_owned(), 0)][2].clone();
        // A power cut kept the fourth, which has offset 3 and lies where the one after the next will.
        let path = root.join("commitlog").join(format!("{:020}", 0));
        let options = OpenOptions {
            read: true,
            write: true,
            ..OpenOptions::default()
        };
        reactor::sleep(Duration::from_millis(50)).await;
        let file = File::open(&path, options).expect("the first segment");
        let body = third.log_offset + 500;
        file.write_all_at_blocking(&[0; 512], body)
            .expect("inside the file");
        let mut broker = Broker::open(config(&root)).await;
        assert_eq!(broker.store.written(), LogOffset(third.log_offset));
        let (mut batch, _) = broker.batch(&[("t", 0, 2_000, None)]);
        broker.writer.append(&mut batch).await;
        broker.writer.publish();
        assert_eq!(batch.items()[0].log_offset, third.log_offset);
        while broker.store.written() < broker.writer.appended() {
            reactor::sleep(Duration::from_millis(1)).await;
            broker.writer.publish();
        }
        broker.kill();
        reactor::sleep(Duration::from_millis(50)).await;
        let broker = Broker::open(config(&root)).await;
        let queue = broker.store.find_queue("t", 0).expect("three are left");
        assert_eq!(queue.max_offset(), 3);
        broker.close().await;
    });
}

#[test]
fn a_clean_stop_after_a_cut_leaves_nothing_behind_the_end() {
    on_both(|root| async move {
        let mut config = config(&root);
        // Farther than is looked ahead of the tail.
        config.segment_bytes = 8 << 20;
        config.window.bytes = 16 << 20;
        let mut broker = Broker::open(config.clone()).await;
        broker.send(&[("t", 0, 2_000, None); 4]).await;
        let sent = broker.lose_power().await;
        let path = root.join("commitlog").join(format!("{:020}", 0));
        let options = OpenOptions {
            read: true,
            write: true,
            ..OpenOptions::default()
        };
        let file = File::open(&path, options).expect("the first segment");
        for stale in [5 << 20, (8 << 20) - 100] {
            file.write_all_at_blocking(&[7; 100], stale)
                .expect("inside the file");
        }
        file.sync_blocking().expect("the disk works");
        let broker = Broker::reopen(config, sent).await;
        let end = broker.store.written().0 as usize;
        broker.check().await;
        broker.close().await;
        let bytes = fs::read(&path).expect("the first segment");
        assert_eq!(bytes.len(), 8 << 20);
        let left = bytes[end..].iter().position(|byte| *byte != 0);
        assert_eq!(left, None, "behind {end}");
    });
}

#[test]
fn a_store_opens_on_a_full_disk_with_what_was_kept_back() {
    const DISK_BYTES: u64 = 256 << 20;
    each_flavour_and_seed(1, |flavour, seed| {
        let mut world = World::new(seed);
        let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
        world.set_disk_bytes(node, Some(DISK_BYTES));
        let free = Rc::new(Cell::new(0));
        let told = free.clone();
        world.block_on(node, async move {
            let mut broker = Broker::open(config(&flavour.root())).await;
            broker.send(&[("t", 0, 2_000, None); 4]).await;
            broker.close().await;
            let options = OpenOptions {
                read: true,
                write: true,
                create: true,
                ..OpenOptions::default()
            };
            let kept = flavour.root().join("orbit").join("reserve");
            let kept = File::open(&kept, options).expect("there is room");
            kept.allocate(1 << 20).expect("there is room");
            told.set(fs::free_bytes(&flavour.root()).expect("it is told"));
        });
        world.set_disk_bytes(node, Some(DISK_BYTES - free.get()));
        world.block_on(node, async move {
            let broker = Broker::open(config(&flavour.root())).await;
            let queue = broker.store.find_queue("t", 0).expect("sent to");
            assert_eq!(read_all(&broker.store, &queue, 0).await.len(), 4);
        });
    });
}

#[test]
fn a_failed_sync_lets_everybody_go_who_waits_for_it() {
    each_flavour_and_seed(10, |flavour, seed| {
        let mut world = World::new(seed);
        let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
        let (opened, failing, ended) =
            <(Rc<Cell<bool>>, Rc<Cell<bool>>, Rc<Cell<bool>>)>::default();
        let (open, fail, end) = (opened.clone(), failing.clone(), ended.clone());
        world.start(node, "writer", move || async move {
            let mut broker = Broker::open(config(&flavour.root())).await;
            open.set(true);
            while !fail.get() {
                reactor::sleep(Duration::from_millis(1)).await;
            }
            // The keeper syncs for a part, the clock waits for that, and then so does the closing.
            let (mut batch, _) = broker.batch(&[("t", 0, 1_000, None); 20]);
            broker.writer.append(&mut batch).await;
            broker.writer.publish();
            reactor::sleep(Duration::from_millis(15)).await;
            assert!(!broker.store.is_poisoned(), "the sync is on its way");
            assert!(broker.writer.close().await.is_err());
            end.set(true);
        });
        assert!(world.run_until(|| opened.get(), Duration::from_secs(5)));
        world.set_faults(Faults {
            fsync_error_ppm: 1_000_000,
            disk_delay: (Duration::from_millis(30), Duration::from_millis(30)),
            ..Faults::default()
        });
        failing.set(true);
        let done = world.run_until(|| ended.get(), Duration::from_secs(5));
        assert!(done, "closing ended");
    });
}

#[test]
fn removing_what_lies_behind_the_end_leaves_no_hole_wherever_it_stops() {
    on_ring(|root| async move {
        let mut config = Config::for_root(&root);
        config.segment_bytes = 4 << 20;
        let mut broker = Broker::open(config.clone()).await;
        broker.send(&[("t", 0, 100_000, None); 15]).await;
        let sent = broker.kill();
        let segment = |number: u64| {
            let name = format!("{:020}", number * config.segment_bytes);
            root.join("commitlog").join(name)
        };
        let options = OpenOptions {
            read: true,
            write: true,
            create: true,
            ..OpenOptions::default()
        };
        for number in [1, 2] {
            let file = File::open(&segment(number), options).expect("a new file");
            file.allocate(config.segment_bytes)
                .expect("the disk has room");
        }
        // The last one cannot be removed: a directory has taken its place by then.
        let last = segment(2);
        let opened = open_when_free(config.clone(), |_| {
            if fs::list(&root.join("commitlog"))
                .expect("it is there")
                .len()
                == 3
            {
                fs::remove_file(&last).expect("made above");
                fs::create_dir_all(&last).expect("the name is free");
            }
        });
        assert!(matches!(opened.await, Err(engine::OpenError::Io { .. })));
        assert!(fs::exists(&segment(1)), "the one before it has to stay");
        fs::remove_dir_all(&last).expect("made above");
        let broker = Broker::reopen(config.clone(), sent).await;
        broker.check().await;
        assert!(!fs::exists(&segment(1)));
        broker.close().await;
    });
}

#[test]
fn stale_records_that_cannot_be_zeroed_durably_poison_the_log() {
    each_flavour_and_seed(5, |flavour, seed| {
        let mut world = World::new(seed);
        let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
        world.block_on(node, async move {
            let mut broker = Broker::open(config(&flavour.root())).await;
            broker.send(&[("t", 0, 2_000, None); 4]).await;
            let sent = broker.lose_power().await;
            let third = sent.queues[&("t".to_owned(), 0)][2].clone();
            let path = flavour.root().join("commitlog").join(format!("{:020}", 0));
            let options = OpenOptions {
                read: true,
                write: true,
                ..OpenOptions::default()
            };
            let file = File::open(&path, options).expect("the first segment");
            file.write_all_at_blocking(&[0; 512], third.log_offset + 500)
                .expect("inside the file");
        });
        world.kill(node);
        let (opened, healthy, ended) =
            <(Rc<Cell<bool>>, Rc<Cell<bool>>, Rc<Cell<bool>>)>::default();
        let (open, well, end) = (opened.clone(), healthy.clone(), ended.clone());
        world.start(node, "writer", move || async move {
            let mut config = config(&flavour.root());
            config.flush.interval_ms = 60_000; // nobody else syncs
            let mut broker = Broker::open(config).await;
            open.set(true);
            while !well.get() {
                reactor::sleep(Duration::from_millis(10)).await;
            }
            let (mut batch, _) = broker.batch(&[("t", 0, 2_000, None)]);
            broker.writer.append(&mut batch).await;
            let error = batch.items()[0].error;
            assert_eq!(error, Some(engine::AppendError::Poisoned));
            end.set(true);
        });
        assert!(world.run_until(|| opened.get(), Duration::from_secs(5)));
        world.set_faults(Faults {
            fsync_error_ppm: 1_000_000,
            ..Faults::default()
        });
        world.run_for(Duration::from_millis(500));
        world.set_faults(Faults::default());
        healthy.set(true);
        assert!(world.run_until(|| ended.get(), Duration::from_secs(10)));
    });
}
