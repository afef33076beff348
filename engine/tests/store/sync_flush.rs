//! What a SYNC_FLUSH store promises: nothing is acknowledged or shown before it survives a power cut.

use super::support::*;
use engine::{AppendError, Boundary, Config, LogOffset, OpenError, QueueOffset, Read, Store};
use reactor::sim::{Faults, World};
use reactor::{Gather, Instant};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

const SYNC_TAKES: Duration = Duration::from_millis(20);

fn flavours() -> impl Iterator<Item = Flavour> {
    FLAVOURS
        .iter()
        .filter(|flavour| flavour.sync_flush)
        .copied()
}

fn slow_disk() -> Faults {
    Faults {
        disk_delay: (SYNC_TAKES, SYNC_TAKES),
        ..Faults::default()
    }
}

/// Runs the scenario in every flavour that syncs; from `begun` on the disk has these faults.
fn with_faults<Fut>(
    faults: Faults,
    scenario: impl Fn(Config, Rc<Cell<bool>>) -> Fut + Copy + 'static,
) where
    Fut: Future<Output = ()> + 'static,
{
    for flavour in flavours() {
        let mut world = World::new(1);
        let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
        let (begun, ended) = <(Rc<Cell<bool>>, Rc<Cell<bool>>)>::default();
        let (begin, end) = (begun.clone(), ended.clone());
        world.start(node, "writer", move || async move {
            scenario(small(&flavour.root()), begin).await;
            end.set(true);
        });
        let patience = Duration::from_secs(20);
        assert!(world.run_until(|| begun.get(), patience), "{flavour:?}");
        world.set_faults(faults);
        assert!(world.run_until(|| ended.get(), patience), "{flavour:?}");
    }
}

/// Resumes when the faults are there.
async fn faults_begin(begin: &Cell<bool>) {
    begin.set(true);
    reactor::sleep(Duration::from_millis(1)).await;
}

/// Appends one message and ends the turn; where the log ends then.
async fn lay(broker: &mut Broker, queue: u32) -> LogOffset {
    let (mut batch, _) = broker.batch(&[("t", queue, 300, None)]);
    broker.writer.append(&mut batch).await;
    assert_eq!(batch.items()[0].error, None);
    broker.writer.publish();
    broker.writer.appended()
}

#[test]
fn a_message_is_nowhere_to_be_seen_before_it_is_durable() {
    with_faults(slow_disk(), |config, begin| async move {
        let mut broker = Broker::open(config).await;
        let store = broker.store.clone();
        let queue = store.queue("t", 0);
        assert_eq!(queue.park(3), 0);
        faults_begin(&begin).await;
        let start = reactor::now();
        let end = lay(&mut broker, 0).await;

        let mut gather = Gather::default();
        let limits = engine::ReadLimits::default();
        let read = store.read(&queue, QueueOffset(0), &limits, |_| true, &mut gather);
        assert!(matches!(read, Read::Empty), "{read:?}");
        assert_eq!(queue.max_offset(), 0);
        assert_eq!(store.written(), LogOffset(0));
        assert_eq!(
            store.record_at(LogOffset(0)).await.expect("reads work"),
            None
        );
        let at = store
            .offset_at_time(&queue, i64::MAX, Boundary::Lower)
            .await;
        assert_eq!(at.expect("reads work"), QueueOffset(0));
        let mut wakes = Vec::new();
        broker.writer.take_wakes(&mut wakes);
        assert_eq!(wakes, [], "nobody is woken for what he may not see");

        while store.written() < end {
            broker.writer.release().moved().await;
            broker.writer.release().show(&mut wakes);
        }
        assert!(start.elapsed() >= SYNC_TAKES);
        assert_eq!(store.flushed(), end);
        assert_eq!(wakes, [(3, queue.no())]);
        assert_eq!(read_all(&store, &queue, 0).await.len(), 1);
        broker.close().await;
    });
}

#[test]
fn all_that_is_laid_during_one_sync_shares_the_next() {
    with_faults(slow_disk(), |config, begin| async move {
        let mut broker = Broker::open(config).await;
        faults_begin(&begin).await;
        let before = broker.store.flush_stats().flushes;
        let start = reactor::now();
        let first = lay(&mut broker, 0).await;
        reactor::sleep(Duration::from_millis(1)).await;
        for n in 0..50 {
            lay(&mut broker, n % 7).await;
            reactor::yield_now().await;
        }
        broker.writer.release().moved().await;
        broker.writer.publish();
        assert_eq!(broker.store.written(), first);
        broker.publish().await;
        let took = start.elapsed();
        assert!(
            took < 3 * SYNC_TAKES,
            "the second sync began at once: {took:?}"
        );
        assert_eq!(broker.store.flush_stats().flushes - before, 2);
        let sent = broker.store.flush_stats().bytes;
        assert_eq!(sent, broker.store.written().0);
        broker.close().await;
    });
}

#[test]
fn who_sends_again_when_answered_shares_one_sync_with_those_who_missed_the_last() {
    const SENDERS: usize = 8;
    const RETURN_TAKES: Duration = Duration::from_millis(2);
    with_faults(slow_disk(), |config, begin| async move {
        let mut broker = Broker::open(config).await;
        faults_begin(&begin).await;
        let mut ends = VecDeque::new();
        for _ in 0..SENDERS / 2 {
            ends.push_back(lay(&mut broker, 0).await);
        }
        reactor::sleep(Duration::from_millis(1)).await;
        for _ in 0..SENDERS / 2 {
            ends.push_back(lay(&mut broker, 1).await);
        }
        let (before, start) = (broker.store.flush_stats().flushes, reactor::now());
        let mut answered = 0;
        while answered < 20 * SENDERS {
            broker.writer.release().moved().await;
            broker.writer.release().show(&mut Vec::new());
            let waiting = ends.len();
            ends.retain(|end| *end > broker.store.written());
            let come_back = waiting - ends.len();
            answered += come_back;
            reactor::sleep(RETURN_TAKES).await;
            for _ in 0..come_back {
                ends.push_back(lay(&mut broker, 2).await);
            }
        }
        let flushes = broker.store.flush_stats().flushes - before;
        assert!(flushes <= 22, "{flushes} for 20 rounds of all");
        let took = start.elapsed();
        assert!(took < 24 * (SYNC_TAKES + RETURN_TAKES), "{took:?}");
        broker.publish().await;
        broker.close().await;
    });
}

#[test]
fn what_is_durable_is_shown_while_the_writer_waits_for_the_next_segment() {
    with_faults(slow_disk(), |config, begin| async move {
        let mut broker = Broker::open(config).await;
        faults_begin(&begin).await;
        // Its turn is not over.
        let (mut batch, _) = broker.batch(&[("t", 0, 300, None)]);
        broker.writer.append(&mut batch).await;
        let first = broker.writer.appended();
        let (shown, store) = (Rc::new(RefCell::new(None::<Instant>)), broker.store.clone());
        let (at, release) = (shown.clone(), broker.writer.release().clone());
        let follower = reactor::spawn("follower", async move {
            while store.written() < first {
                release.moved().await;
                release.show(&mut Vec::new());
            }
            *at.borrow_mut() = Some(reactor::now());
        });
        // More than a segment: the next one is made now, and that takes several turns of the disk.
        let (mut batch, _) = broker.batch(&[("t", 1, 1_000, None); 100]);
        broker.writer.append(&mut batch).await;
        let appended = reactor::now();
        assert!(batch.items().iter().all(|item| item.error.is_none()));
        let shown = shown.borrow().expect("it did not wait for the writer");
        assert!(appended.saturating_since(shown) >= SYNC_TAKES / 2);
        drop(follower);
        broker.publish().await;
        broker.close().await;
    });
}

#[test]
fn what_a_kill_left_unsynced_is_durable_before_it_is_shown_again() {
    for flavour in flavours() {
        let mut world = World::new(1);
        let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
        let config = small(&flavour.root());
        let opened = config.clone();
        world.block_on(node, async move {
            let mut broker = Broker::open(opened).await;
            broker.send(&[("t", 0, 300, None); 5]).await;
            lay(&mut broker, 0).await;
            assert!(broker.store.flushed() < broker.writer.appended());
        });
        world.kill(node);
        let opened = config.clone();
        world.block_on(node, async move {
            let broker = Broker::open(opened).await;
            let queue = broker.store.find_queue("t", 0).expect("sent to");
            assert_eq!(queue.max_offset(), 6, "a killed process loses nothing");
            assert_eq!(broker.store.flushed(), broker.store.written());
        });
        world.power_cut(node);
        world.block_on(node, async move {
            let broker = Broker::open(config).await;
            let queue = broker.store.find_queue("t", 0).expect("sent to");
            assert_eq!(queue.max_offset(), 6, "it was shown, so it stays");
            broker.close().await;
        });
    }
}

#[test]
fn a_store_that_cannot_make_durable_what_it_found_does_not_open() {
    for flavour in flavours() {
        let mut world = World::new(1);
        let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
        let config = small(&flavour.root());
        let opened = config.clone();
        world.block_on(node, async move {
            let mut broker = Broker::open(opened).await;
            broker.send(&[("t", 0, 300, None); 5]).await;
            lay(&mut broker, 0).await;
        });
        world.kill(node);
        world.set_faults(Faults {
            fsync_error_ppm: 1_000_000,
            ..Faults::default()
        });
        world.block_on(node, async move {
            let opened = Store::open(config, |_| {}).await;
            let error = opened.err().expect("a store that cannot keep its word");
            assert!(matches!(error, OpenError::Io { .. }), "{error}");
        });
    }
}

#[test]
fn after_a_failed_sync_nothing_waiting_is_ever_shown_and_the_reason_is_known() {
    let failing = Faults {
        fsync_error_ppm: 1_000_000,
        disk_delay: (SYNC_TAKES, SYNC_TAKES),
        ..Faults::default()
    };
    with_faults(failing, |config, begin| async move {
        let mut broker = Broker::open(config).await;
        broker.send(&[("t", 0, 300, None); 3]).await;
        let (written, flushed) = (broker.store.written(), broker.store.flushed());
        faults_begin(&begin).await;
        for _ in 0..5 {
            lay(&mut broker, 0).await;
        }
        while broker.store.poison().is_none() {
            broker.writer.release().moved().await;
        }
        let why = broker.store.poison().expect("looked at above").to_string();
        let op = ["syncing", "writing"].iter().any(|op| why.contains(op));
        assert!(op && why.contains("commitlog"), "{why}");
        for _ in 0..5 {
            let (mut batch, _) = broker.batch(&[("t", 0, 300, None)]);
            broker.writer.append(&mut batch).await;
            assert_eq!(batch.items()[0].error, Some(AppendError::Poisoned));
            broker.writer.publish();
            reactor::sleep(SYNC_TAKES).await;
        }
        assert_eq!(broker.store.written(), written);
        assert_eq!(broker.store.flushed(), flushed);
        let queue = broker.store.find_queue("t", 0).expect("sent to");
        assert_eq!(read_all(&broker.store, &queue, 0).await.len(), 3);
        assert!(broker.writer.close().await.is_err());
    });
}
