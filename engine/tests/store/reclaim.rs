//! Old log goes: by age, by space, beside readers, and whenever a crash comes.

use super::support::*;
use engine::{AppendError, Config, QueueOffset, Read, ReadLimits, Retention};
use reactor::sim::{Faults, World, each_seed};
use reactor::{Gather, fs};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Everything that is not the newest goes, at any hour and at once.
fn nothing_is_kept() -> Retention {
    Retention {
        keep_ms: 0,
        delete_hours: !0,
        between_segments_ms: 0,
        segments_per_round_max: 100,
        ..Retention::default()
    }
}

/// Nothing goes by age.
fn all_is_kept() -> Retention {
    Retention {
        keep_ms: i64::MAX,
        ..nothing_is_kept()
    }
}

fn config(root: &Path) -> Config {
    let mut config = small(root);
    config.hot_bytes = 96 << 10;
    config
}

/// Two busy queues over about ten segments, and two whose messages lie in the first segment only.
async fn filled(config: Config) -> Broker {
    let mut broker = Broker::open(config).await;
    for n in 0..600u32 {
        let topic = ["a", "b"][n as usize % 2];
        broker
            .send(&[(topic, 0, 900 + n as usize % 300, None)])
            .await;
        if n < 4 {
            let once = ["rare", "once"][n as usize % 2];
            broker.send(&[(once, 0, 100, None)]).await;
        }
    }
    broker
}

async fn segments_left(config: &Config, at_most: usize) {
    let mut waited = Duration::ZERO;
    let step = Duration::from_millis(100);
    loop {
        let names = fs::list(&config.root.join("commitlog")).expect("the log directory");
        if names.len() <= at_most {
            return;
        }
        assert!(waited < Duration::from_secs(60), "still there: {names:?}");
        reactor::sleep(step).await;
        waited += step;
    }
}

/// Every queue starts with its first message that is still in the log, and reads from there to its end.
async fn check_starts(broker: &Broker) {
    let first = broker.store.first().0;
    for ((topic, id), sent) in &broker.sent.queues {
        if sent.is_empty() {
            continue; // A power cut may have taken it all.
        }
        let queue = broker.store.find_queue(topic, *id).expect("it was sent to");
        let start = sent.partition_point(|message| message.log_offset < first) as u64;
        assert_eq!(queue.min_offset(), start, "start of {topic}/{id}");
        assert_eq!(queue.max_offset(), sent.len() as u64, "end of {topic}/{id}");
        let read = read_all(&broker.store, &queue, start).await;
        assert_eq!(read, sent[start as usize..], "{topic}/{id} from {start} on");
        if start > 0 {
            let (limits, mut gather) = (ReadLimits::default(), Gather::default());
            let below = QueueOffset(start - 1);
            let below = read_at(broker, &queue, below, &limits, &mut gather).await;
            assert!(
                matches!(below, Read::BelowStart { min } if min.0 == start),
                "{below:?}"
            );
        }
    }
}

async fn read_at(
    broker: &Broker,
    queue: &engine::Queue,
    offset: QueueOffset,
    limits: &ReadLimits,
    gather: &mut Gather,
) -> Read {
    read(&broker.store, queue, offset, limits, |_| true, gather).await
}

#[test]
fn expired_segments_go_and_queues_start_with_what_is_left() {
    on_both(|root| async move {
        let config = config(&root);
        let broker = filled(config.clone()).await;
        broker.store.set_retention(nothing_is_kept());
        segments_left(&config, 2).await;
        reactor::sleep(Duration::from_millis(500)).await;
        assert!(broker.store.first().0 > 0);
        check_starts(&broker).await;
        let rare = broker.store.find_queue("rare", 0).expect("it was sent to");
        assert_eq!((rare.min_offset(), rare.max_offset()), (2, 2));
        let first = broker.store.first().0;
        let companions = fs::list(&root.join("orbit")).expect("the companions");
        let of_old = |name: &String| {
            let base = name.split('.').next().and_then(|base| base.parse().ok());
            base.is_some_and(|base: u64| base < first)
        };
        assert!(!companions.iter().any(of_old), "{companions:?}");

        let sent = broker.close().await;
        let mut broker = Broker::reopen(config, sent).await;
        check_starts(&broker).await;
        // The next message of a queue without messages goes on where it was.
        broker.send(&[("rare", 0, 100, None)]).await;
        check_starts(&broker).await;
        broker.close().await;
    });
}

#[test]
fn after_a_kill_queues_without_messages_still_know_where_they_go_on() {
    on_both(|root| async move {
        let config = config(&root);
        let broker = filled(config.clone()).await;
        broker.store.set_retention(nothing_is_kept());
        segments_left(&config, 2).await;
        let sent = broker.kill();
        let broker = Broker::reopen(config, sent).await;
        check_starts(&broker).await;
        broker.close().await;
    });
}

#[test]
fn nothing_goes_before_its_time() {
    on_sim(3, |root| async move {
        let config = config(&root);
        let broker = filled(config.clone()).await;
        broker.store.set_retention(Retention {
            keep_ms: 3_600_000,
            ..nothing_is_kept()
        });
        reactor::sleep(Duration::from_secs(3_500)).await;
        assert_eq!(broker.store.first().0, 0);
        let names = fs::list(&root.join("commitlog")).expect("the log directory");
        assert!(names.contains(&format!("{:020}", 0)), "{names:?}");
        reactor::sleep(Duration::from_secs(200)).await;
        assert!(broker.store.first().0 > 0);
        check_starts(&broker).await;
        broker.close().await;
    });
}

#[test]
fn the_hour_of_the_day_decides_unless_an_operator_asks() {
    on_sim(4, |root| async move {
        let config = config(&root);
        let broker = filled(config.clone()).await;
        thread_local!(static HOUR: Cell<u8> = const { Cell::new(3) });
        broker.store.set_retention(Retention {
            delete_hours: 1 << 4,
            hour_at: |_| HOUR.get(),
            segments_per_round_max: 1,
            ..nothing_is_kept()
        });
        reactor::sleep(Duration::from_secs(60)).await;
        assert_eq!(broker.store.first().0, 0, "it is three o'clock");
        broker.store.reclaim_expired();
        reactor::sleep(Duration::from_secs(15)).await;
        let asked = broker.store.first().0;
        assert!(asked > 0);
        HOUR.set(4);
        reactor::sleep(Duration::from_secs(600)).await;
        assert!(broker.store.first().0 > asked);
        check_starts(&broker).await;
        broker.close().await;
    });
}

#[test]
fn what_a_reader_holds_stays_as_it_is_until_it_lets_go() {
    on_both(|root| async move {
        let config = config(&root);
        let broker = filled(config.clone()).await;
        let queue = broker.store.find_queue("a", 0).expect("it was sent to");
        let sent = &broker.sent.queues[&("a".to_owned(), 0)];
        // Hot and cold: from the mapping of a late segment, and from the disk.
        let limits = ReadLimits::default();
        let hot_at = sent.len() as u64 - 40;
        let (mut hot, mut cold) = (Gather::default(), Gather::default());
        let found = read_at(&broker, &queue, QueueOffset(hot_at), &limits, &mut hot).await;
        let hot_count = found_messages(found);
        let found = read_at(&broker, &queue, QueueOffset(0), &limits, &mut cold).await;
        let cold_count = found_messages(found);
        broker.store.set_retention(nothing_is_kept());
        segments_left(&config, 2).await;
        reactor::sleep(Duration::from_millis(300)).await;
        let expected = |from: u64, count: usize| sent[from as usize..][..count].to_vec();
        let held = |gather: &Gather| -> Vec<Message> {
            parse(gather)
                .into_iter()
                .map(|(_, message)| message)
                .collect()
        };
        assert_eq!(held(&hot), expected(hot_at, hot_count));
        assert_eq!(held(&cold), expected(0, cold_count));
        drop((hot, cold));
        broker.close().await;
    });
}

#[test]
fn a_reader_that_lets_nothing_go_holds_up_no_other_segment() {
    on_sim(6, |root| async move {
        let mut config = config(&root);
        config.hot_bytes = 192 << 10;
        let broker = filled(config.clone()).await;
        let queue = broker.store.find_queue("a", 0).expect("it was sent to");
        let end = queue.max_offset();
        // From the mappings of segments that are not among the newest two.
        let mut held = Vec::new();
        for back in [45, 60, 75] {
            let (limits, mut gather) = (ReadLimits::default(), Gather::default());
            let at = QueueOffset(end - back);
            let found = read_at(&broker, &queue, at, &limits, &mut gather).await;
            assert!(found_messages(found) > 0);
            held.push(gather);
        }
        broker.store.set_retention(nothing_is_kept());
        segments_left(&config, 2).await;
        let gone = |names: Vec<String>| {
            let left = names.iter().filter(|name| name.ends_with(".gone"));
            left.count()
        };
        reactor::sleep(Duration::from_secs(5)).await;
        let left = gone(fs::list(&root.join("orbit")).expect("the companions"));
        assert!(
            (1..=3).contains(&left),
            "only what is held keeps its space: {left}"
        );
        drop(held);
        reactor::sleep(Duration::from_secs(1)).await;
        let left = gone(fs::list(&root.join("orbit")).expect("the companions"));
        assert_eq!(left, 0);
        check_starts(&broker).await;
        broker.close().await;
    });
}

fn found_messages(read: Read) -> usize {
    found(read).messages as usize
}

#[test]
fn a_full_disk_refuses_deletes_the_oldest_and_takes_messages_again() {
    each_seed(10, |seed| {
        let mut world = World::new(seed);
        let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
        world.set_disk_bytes(node, Some(900 << 10));
        world.block_on(node, async {
            let mut broker = Broker::open(config(Path::new("/store"))).await;
            broker.store.set_retention(Retention {
                may_force: false,
                ..all_is_kept()
            });
            let mut refused = 0;
            while refused < 2_000 {
                let spec = [("t", 0, 1_000, None)];
                let (mut batch, bodies) = broker.batch(&spec);
                broker.writer.append(&mut batch).await;
                broker.writer.publish();
                match batch.items()[0].error {
                    None => {
                        let body = bodies.into_iter().next().expect("one");
                        broker.acknowledge(&spec[0], body, &batch.items()[0]);
                    }
                    Some(AppendError::DiskFull { used_percent }) => {
                        assert!(used_percent > 80, "{used_percent} %");
                        refused += 1;
                    }
                    Some(other) => panic!("{other}"),
                }
                reactor::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(broker.store.first().0, 0, "nothing may go");
            broker.check().await;
            // From now on it may.
            broker.store.set_retention(all_is_kept());
            let mut waited = 0;
            let taken = loop {
                let spec = [("t", 0, 1_000, None)];
                let (mut batch, bodies) = broker.batch(&spec);
                broker.writer.append(&mut batch).await;
                broker.writer.publish();
                if batch.items()[0].error.is_none() {
                    break (batch, bodies);
                }
                assert!(waited < 10_000, "it resumes within 10 s");
                reactor::sleep(Duration::from_millis(10)).await;
                waited += 10;
            };
            let body = taken.1.into_iter().next().expect("one");
            broker.acknowledge(&("t", 0, 1_000, None), body, &taken.0.items()[0]);
            assert!(broker.store.first().0 > 0, "the oldest went");
            reactor::sleep(Duration::from_secs(5)).await;
            check_starts(&broker).await;
            let sent = broker.close().await;
            let broker = Broker::reopen(config(Path::new("/store")), sent).await;
            check_starts(&broker).await;
            broker.close().await;
        });
    });
}

#[test]
fn behind_one_that_found_no_room_none_of_its_batch_is_taken() {
    each_seed(10, |seed| {
        let mut world = World::new(seed);
        let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
        world.set_disk_bytes(node, Some(900 << 10));
        world.block_on(node, async {
            let mut broker = Broker::open(config(Path::new("/store"))).await;
            broker.store.set_retention(Retention {
                may_force: false,
                ..all_is_kept()
            });
            let (long, short) = (("t", 0, 8_000, None), ("t", 0, 10, None));
            let mut is_full = false;
            while !is_full {
                is_full = append_promised(&mut broker, &[long]).await[0].is_some();
                reactor::sleep(Duration::from_millis(5)).await;
            }
            let refused = append_promised(&mut broker, &[long, short]).await;
            assert!(refused.iter().all(Option::is_some), "{refused:?}");
            let alone = append_promised(&mut broker, &[short]).await;
            assert_eq!(alone, [None], "there was room for it");
            broker.check().await;
        });
    });
}

/// Why each of them was refused.
async fn append_promised(broker: &mut Broker, spec: &[Spec]) -> Vec<Option<AppendError>> {
    let (mut batch, bodies) = broker.batch(spec);
    batch.is_promised = true;
    broker.writer.append(&mut batch).await;
    broker.writer.publish();
    for ((spec, item), body) in spec.iter().zip(batch.items()).zip(bodies) {
        if item.error.is_none() {
            broker.acknowledge(spec, body, item);
        }
    }
    batch.items().iter().map(|item| item.error).collect()
}

#[test]
fn what_is_owed_keeps_its_segment() {
    on_sim(5, |root| async move {
        let config = config(&root);
        let broker = filled(config.clone()).await;
        let mut asked = broker.store.owe();
        broker.store.set_retention(nothing_is_kept());
        let first = asked.recv().await.expect("asked before anything goes");
        assert_eq!(first.below.0, config.segment_bytes);
        first.settled.send(false);
        let again = asked.recv().await.expect("asked again");
        assert_eq!(again.below.0, config.segment_bytes);
        assert_eq!(broker.store.first().0, 0);
        again.settled.send(true);
        let next = asked.recv().await.expect("asked for the next");
        assert_eq!(next.below.0, 2 * config.segment_bytes);
        assert_eq!(broker.store.first().0, config.segment_bytes);
        drop(next);
        drop(asked);
        reactor::sleep(Duration::from_secs(30)).await;
        assert_eq!(
            broker.store.first().0,
            config.segment_bytes,
            "nobody said yes"
        );
        broker.close().await;
    });
}

/// A single seed is being repeated.
fn one_seed() -> bool {
    std::env::var_os("SIM_SEED").is_some() || std::env::var_os("SIM_SEEDS").is_some()
}

#[derive(Default)]
struct Diary {
    sent: Sent,
    tried: BTreeMap<(String, u32), Vec<Vec<u8>>>,
    power_cut: bool,
    first: u64,
    opened: u64,
    removed: u64,
}

const LIVES: u64 = 5;

/// Sends and reclaims until it is ended from outside. Each life begins with a look at what the last one left.
async fn live(root: PathBuf, diary: Rc<RefCell<Diary>>) {
    let mut config = config(&root);
    config.flush.interval_ms = 10;
    let sent = diary.borrow().sent.clone();
    let mut broker = Broker::reopen(config, sent).await;
    reconcile(&mut broker, &diary).await;
    let reclaims = reactor::random().is_multiple_of(2);
    if reclaims {
        broker.store.set_retention(Retention {
            segments_per_round_max: 3,
            check_interval_ms: 1,
            ..nothing_is_kept()
        });
    }
    loop {
        let queue = (reactor::random() % 3) as u32;
        let spec = [("t", queue, 400 + reactor::random() as usize % 3_000, None)];
        let (mut batch, bodies) = broker.batch(&spec);
        let body = bodies.into_iter().next().expect("one");
        {
            let mut diary = diary.borrow_mut();
            diary.sent.count = broker.sent.count;
            let tried = diary.tried.entry(("t".to_owned(), queue)).or_default();
            tried.push(body.clone());
        }
        broker.writer.append(&mut batch).await;
        broker.writer.publish();
        assert_eq!(batch.items()[0].error, None);
        broker.acknowledge(&spec[0], body, &batch.items()[0]);
        {
            let mut diary = diary.borrow_mut();
            diary.sent = broker.sent.clone();
            let first = broker.store.first().0;
            diary.removed += u64::from(first > diary.first);
            diary.first = diary.first.max(first);
        }
        reactor::sleep(Duration::from_millis(reactor::random() % 40)).await;
    }
}

/// What is there is what was sent, without a hole, from the first log offset on.
async fn reconcile(broker: &mut Broker, diary: &RefCell<Diary>) {
    let first = broker.store.first().0;
    let power_cut = std::mem::take(&mut diary.borrow_mut().power_cut);
    let keys: Vec<(String, u32)> = broker.sent.queues.keys().cloned().collect();
    for key in keys {
        let sent = broker.sent.queues.get_mut(&key).expect("listed");
        let queue = broker.store.find_queue(&key.0, key.1);
        let end = queue.map_or(0, |queue| queue.max_offset()) as usize;
        // After a power cut the end may be missing. After a kill a batch may be there that was not acknowledged.
        assert!(power_cut || end >= sent.len(), "{key:?} ends at {end}");
        sent.truncate(end);
        let missing: Vec<Vec<u8>> = {
            let mut diary = diary.borrow_mut();
            let tried = diary.tried.get_mut(&key).expect("sent is tried");
            assert!(end <= tried.len());
            tried.truncate(end);
            tried[sent.len()..].to_vec()
        };
        let queue = broker.store.find_queue(&key.0, key.1);
        for body in missing {
            let queue = queue.as_ref().expect("it has an end");
            let at = broker.sent.queues[&key].len() as u64;
            let read = read_all(&broker.store, queue, at).await;
            assert_eq!(read[0].body, body, "{key:?} at {at}");
            let sent = broker.sent.queues.get_mut(&key).expect("listed");
            sent.push(read[0].clone());
        }
    }
    check_starts(broker).await;
    let mut diary = diary.borrow_mut();
    assert!(power_cut || first >= diary.first, "what was gone is back");
    diary.first = first;
    diary.sent = broker.sent.clone();
    diary.opened += 1;
}

#[test]
fn reclaim_leaves_no_hole_wherever_it_is_ended() {
    let removed = AtomicU64::new(0);
    each_seed(25, |seed| {
        let diary = Rc::new(RefCell::new(Diary::default()));
        let mut world = World::new(seed);
        world.set_faults(Faults {
            disk_delay: (Duration::from_micros(20), Duration::from_millis(5)),
            ..Faults::default()
        });
        let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
        for life in 1..=LIVES {
            let (root, pages) = (PathBuf::from("/store"), diary.clone());
            world.start(node, "writer", move || live(root, pages));
            let opened = || diary.borrow().opened >= life;
            assert!(world.run_until(opened, Duration::from_secs(60)), "opens");
            let life_ms = world.random() % 8_000;
            world.run_for(Duration::from_millis(life_ms));
            if world.random().is_multiple_of(2) {
                world.power_cut(node);
                diary.borrow_mut().power_cut = true;
            } else {
                world.kill(node);
            }
        }
        removed.fetch_add(diary.borrow().removed, Ordering::Relaxed);
    });
    let removed = removed.into_inner();
    assert!(removed > 20 || one_seed(), "segments went: {removed}");
}
