//! What a killed process left in its window, and when it counts.

use super::support::*;
use engine::{Config, FlusherKind, QueueOffset, ReadLimits, Store};
use reactor::{File, Gather, LoopedMemory, OpenOptions};
use std::path::{Path, PathBuf};

/// Words of the window's header.
const STORE_ID: usize = 2;
const BOOT_ID: usize = 4;
const GENERATION: usize = 8;
const CHECKSUM: usize = 9;
const WRITTEN: usize = 11;
const HEADER_BYTES: usize = 4096;

/// A store whose messages are in its window and nowhere else.
fn config(root: &Path) -> Config {
    let mut config = small(root);
    config.flusher = FlusherKind::Direct;
    config.flush.interval_ms = 60_000;
    config
}

async fn killed(root: &Path) -> Sent {
    let mut broker = Broker::open(config(root)).await;
    for _ in 0..10 {
        broker
            .send(&[("t", 0, 700, None), ("u", 1, 90, Some("a"))])
            .await;
    }
    assert_eq!(broker.store.flushed().0, 0, "nobody has written it");
    broker.kill()
}

fn window_of(root: &Path) -> PathBuf {
    let id = reactor::fs::read(&root.join("orbit").join("id")).expect("every store has one");
    let id = String::from_utf8(id).expect("it is text");
    PathBuf::from(id.lines().nth(1).expect("it has a window"))
}

/// Changes a word of the header.
fn change(root: &Path, word: usize, to: impl FnOnce(u64) -> u64) {
    let memory = LoopedMemory::find(&window_of(root), HEADER_BYTES)
        .expect("it can be opened")
        .expect("it was left");
    // SAFETY: the head has a page, and the store that had it is gone.
    unsafe {
        let word = memory.head().as_ptr().cast::<u64>().add(word);
        word.write(to(word.read()));
    }
}

#[test]
fn what_was_only_in_the_window_is_there_whatever_the_next_start_is_set_to() {
    for (flusher, bytes) in [
        (FlusherKind::Direct, 128 << 10),
        (FlusherKind::Direct, 64 << 10),
        (FlusherKind::Direct, 256 << 10),
        (FlusherKind::Mmap, 128 << 10),
    ] {
        on_sim(1, |root| async move {
            let sent = killed(&root).await;
            let mut next = config(&root);
            (next.flusher, next.window.bytes) = (flusher, bytes);
            let mut broker = Broker::reopen(next, sent).await;
            broker.check().await;
            broker.send(&[("t", 0, 700, None)]).await;
            broker.check().await;
            let sent = broker.close().await;
            let broker = Broker::reopen(config(&root), sent).await;
            broker.check().await;
            broker.close().await;
        });
    }
}

#[test]
fn a_window_that_cannot_be_trusted_is_passed_over_and_the_files_decide() {
    let flip = |word: u64| word ^ 1;
    type Damage = fn(&Path, fn(u64) -> u64);
    let damages: [Damage; 6] = [
        |root, flip| change(root, STORE_ID, flip),
        |root, flip| change(root, BOOT_ID, flip),
        |root, flip| change(root, GENERATION, flip),
        |root, flip| change(root, CHECKSUM, flip),
        |root, _| change(root, WRITTEN, |_| u64::MAX),
        |root, _| {
            let path = window_of(root);
            drop(LoopedMemory::create(&path, 4096, HEADER_BYTES).expect("it can be replaced"));
        },
    ];
    for damage in damages {
        on_sim(1, move |root| async move {
            drop(killed(&root).await);
            damage(&root, flip);
            let mut broker = Broker::open(config(&root)).await;
            assert_eq!(broker.store.written().0, 0, "the files hold nothing");
            broker.send(&[("t", 0, 700, None)]).await;
            broker.check().await;
            broker.close().await;
        });
    }
}

/// Whoever copies another store's files over this one must not lose either of the two.
#[test]
fn a_log_that_was_changed_since_is_refused_and_nothing_is_written_to_it() {
    on_sim(1, |root| async move {
        // It is compared in several pieces, of which the last one was changed.
        let config = |root: &Path| Config {
            segment_bytes: 8 << 20,
            window: engine::WindowConfig {
                bytes: 16 << 20,
                ..config(root).window
            },
            ..config(root)
        };
        let mut broker = Broker::open(config(&root)).await;
        for _ in 0..60 {
            broker.send(&[("t", 0, 60_000, None)]).await;
        }
        let changed_at = broker.store.written().0 - 500;
        let sent = broker.kill();
        let path = root.join("commitlog").join(format!("{:020}", 0));
        let options = OpenOptions {
            read: true,
            write: true,
            ..OpenOptions::default()
        };
        let log = File::open(&path, options).expect("the first segment");
        let mut before = [0];
        log.read_exact_at_blocking(&mut before, changed_at)
            .expect("it can be read");
        log.write_all_at_blocking(b"\xEE", changed_at)
            .expect("it can be written");
        log.sync_blocking().expect("it can be synced");
        let whole = || {
            let mut bytes = vec![0; 8 << 20];
            log.read_exact_at_blocking(&mut bytes, 0)
                .expect("it can be read");
            bytes
        };
        let as_changed = whole();
        let refused = Store::open(config(&root), |_| {}).await;
        let why = refused.err().expect("it was changed").to_string();
        let at = format!("at log offset {changed_at} it is not what");
        assert!(
            why.contains(&at) && why.contains("remove orbit/id"),
            "{why}"
        );
        assert!(whole() == as_changed, "something was written to it");
        log.write_all_at_blocking(&before, changed_at)
            .expect("it can be written");
        let broker = Broker::reopen(config(&root), sent).await;
        broker.check().await;
        broker.close().await;
    });
}

#[test]
fn a_store_that_was_closed_leaves_no_window() {
    on_sim(1, |root| async move {
        let broker = Broker::open(config(&root)).await;
        let window = window_of(&root);
        broker.close().await;
        let left = LoopedMemory::find(&window, HEADER_BYTES).expect("it can be looked for");
        assert!(left.is_none());
    });
}

#[test]
fn a_log_longer_than_the_window_goes_through_it_many_times() {
    on_both(|root| async move {
        let mut config = config(&root);
        config.window.bytes = 64 << 10;
        config.flush.interval_ms = 10;
        let mut broker = Broker::open(config.clone()).await;
        for round in 0..100 {
            let specs = [("t", round % 3, 3_000, None), ("u", 1, 9_000, Some("a"))];
            broker.send(&specs).await;
        }
        broker.check().await;
        let sent = broker.kill();
        let broker = Broker::reopen(config, sent).await;
        broker.check().await;
        broker.close().await;
    });
}

#[test]
fn what_is_lent_holds_the_writer_back_and_the_log_goes_on_when_it_is_given_back() {
    on_ring(|root| async move {
        let config = Config {
            flusher: FlusherKind::Direct,
            ..small(&root)
        };
        let window_bytes = config.window.bytes;
        let mut broker = Broker::open(config).await;
        broker
            .send(&[("t", 0, 700, None), ("t", 0, 900, None)])
            .await;
        let (store, limits) = (broker.store.clone(), ReadLimits::default());
        let queue = store.find_queue("t", 0).expect("sent to");
        let (first, mut lent) = (QueueOffset(0), Gather::default());
        found(store.read_to_send(&queue, first, &limits, |_| true, &mut lent));
        assert!(lent.is_lent());
        let mut before = Vec::new();
        lent.copy_slices_to(&mut before);
        let sending = reactor::spawn("send", async move {
            for _ in 0..40 {
                broker.send(&[("u", 0, 10_000, None)]).await;
            }
            broker
        });
        while store.flushed().0 + 12_000 < window_bytes {
            reactor::yield_now().await;
        }
        for _ in 0..1000 {
            reactor::yield_now().await;
        }
        assert!(
            store.written().0 <= window_bytes,
            "the rest would lie over it"
        );
        let mut after = Vec::new();
        lent.copy_slices_to(&mut after);
        assert!(after == before);
        lent.keep();
        let broker = sending.await.expect("nobody ends it");
        assert!(store.written().0 > 2 * window_bytes);
        broker.check().await;
        broker.close().await;
    });
}
