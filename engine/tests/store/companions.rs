//! The files in `orbit/` can be deleted or damaged at any time; they are made again.

use super::support::*;
use engine::Config;
use reactor::{File, OpenOptions, fs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Enough for ten segments and some parts of the last one. Nothing stays hot.
async fn filled(root: &Path) -> (Config, Sent) {
    let mut config = small(root);
    config.hot_bytes = 0;
    let mut broker = Broker::open(config.clone()).await;
    for n in 0..600u32 {
        let topic = ["a", "b", "c"][n as usize % 3];
        let once = ["rare", "once"][n as usize % 2];
        broker
            .send(&[(topic, n % 2, 900 + n as usize % 300, None)])
            .await;
        if n < 4 {
            // Its messages are in the first segment only.
            broker.send(&[(once, 0, 100, None)]).await;
        }
    }
    broker.check().await;
    (config, broker.close().await)
}

fn companions(root: &Path) -> Vec<PathBuf> {
    let dir = root.join("orbit");
    let names = fs::list(&dir).expect("the companions' directory");
    let of_queues = |name: &String| name.ends_with(".index") || name.ends_with(".part");
    let names = names.into_iter().filter(of_queues);
    names.map(|name| dir.join(name)).collect()
}

fn flip(path: &Path, at: u64) {
    let options = OpenOptions {
        read: true,
        write: true,
        ..OpenOptions::default()
    };
    let file = File::open(path, options).expect("a companion");
    let mut byte = [0];
    file.read_exact_at_blocking(&mut byte, at)
        .expect("inside the file");
    byte[0] ^= 0x10;
    file.write_all_at_blocking(&byte, at)
        .expect("inside the file");
}

fn file_bytes(path: &Path) -> u64 {
    fs::read(path).expect("a companion").len() as u64
}

#[test]
fn a_closed_store_has_one_index_per_full_segment_and_parts_for_the_last() {
    on_both(|root| async move {
        let (config, _) = filled(&root).await;
        let names = fs::list(&root.join("orbit")).expect("the companions' directory");
        let segments = fs::list(&root.join("commitlog")).expect("the log directory");
        let sealed = names.iter().filter(|name| name.ends_with(".index")).count();
        let parts = names.iter().filter(|name| name.ends_with(".part")).count();
        assert!(
            !names.iter().any(|name| name.ends_with(".tmp")),
            "{names:?}"
        );
        assert!(sealed >= 8, "{names:?}");
        // The last file may be one that was prepared and not used yet.
        assert!((sealed + 1..=sealed + 2).contains(&segments.len()));
        let parts_max = config.segment_bytes / config.part_bytes + 1;
        assert!((1..=parts_max).contains(&(parts as u64)), "{names:?}");
    });
}

#[test]
fn a_close_while_indexes_are_being_written_leaves_nothing_to_read_again() {
    on_both(|root| async move {
        let (config, _) = filled(&root).await;
        for life in 0..24 {
            for path in companions(&root) {
                fs::remove_file(&path).expect("just listed");
            }
            let broker = Broker::reopen(config.clone(), Sent::default()).await;
            // Closed at another moment each time.
            reactor::sleep(Duration::from_micros(life * 250)).await;
            broker.close().await;
            let broker = Broker::reopen(config.clone(), Sent::default()).await;
            let read = broker.store.recovered_bytes();
            assert_eq!(read, 0, "life {life}: the companions say everything");
            broker.close().await;
        }
    });
}

#[test]
fn without_companions_everything_is_rebuilt_from_the_log() {
    on_both(|root| async move {
        let (config, sent) = filled(&root).await;
        let before = companions(&root);
        for path in &before {
            fs::remove_file(path).expect("just listed");
        }
        let broker = Broker::reopen(config.clone(), sent).await;
        broker.check().await;
        let sent = broker.close().await;
        let indexes = |paths: &[PathBuf]| {
            let is_index = |path: &&PathBuf| path.extension().is_some_and(|end| end == "index");
            paths.iter().filter(is_index).count()
        };
        assert_eq!(indexes(&companions(&root)), indexes(&before));
        Broker::reopen(config, sent).await.check().await;
    });
}

#[test]
fn any_one_companion_may_be_missing() {
    on_both(|root| async move {
        let (config, mut sent) = filled(&root).await;
        for number in 0..companions(&root).len() {
            let paths = companions(&root);
            let path = &paths[number % paths.len()];
            fs::remove_file(path).expect("just listed");
            let broker = Broker::reopen(config.clone(), sent).await;
            broker.check().await;
            sent = broker.close().await;
        }
    });
}

#[test]
fn a_companion_damaged_anywhere_is_noticed_and_rebuilt() {
    on_both(|root| async move {
        let (config, mut sent) = filled(&root).await;
        for round in 0..3 {
            // Header, directory, entries.
            for path in companions(&root) {
                if !fs::exists(&path) {
                    continue; // Another damage made the parts be cut differently.
                }
                let at = [20, 140, file_bytes(&path) - 100][round];
                flip(&path, at.min(file_bytes(&path) - 1));
            }
            let broker = Broker::reopen(config.clone(), sent).await;
            broker.check().await;
            sent = broker.close().await;
        }
        Broker::reopen(config, sent).await.check().await;
    });
}

#[test]
fn an_index_damaged_while_the_store_is_open_is_rebuilt_by_the_read_that_meets_it() {
    on_both(|root| async move {
        let (config, sent) = filled(&root).await;
        let broker = Broker::reopen(config, sent).await;
        for path in companions(&root) {
            if path.extension().is_some_and(|end| end == "index") {
                let last_block = file_bytes(&path) - 4096;
                flip(&path, last_block + 8);
            }
        }
        broker.check().await;
        broker.close().await;
    });
}

#[test]
fn companions_of_another_log_are_not_believed() {
    on_both(|root| async move {
        let (_, mut sent) = filled(&root.join("one")).await;
        // The same sizes, but stored at another time, and only half as much.
        reactor::sleep(std::time::Duration::from_millis(5)).await;
        let mut config = small(&root.join("two"));
        config.hot_bytes = 0;
        let mut broker = Broker::open(config.clone()).await;
        for _ in 0..300 {
            broker.send(&[("other", 0, 1000, None)]).await;
        }
        let other = broker.close().await;
        for path in companions(&root.join("two")) {
            fs::remove_file(&path).expect("just listed");
        }
        for path in companions(&root.join("one")) {
            let name = path.file_name().expect("a file");
            fs::rename(&path, &root.join("two/orbit").join(name)).expect("one disk");
        }
        sent.queues.clear();
        let broker = Broker::reopen(config, other).await;
        broker.check().await;
        assert_eq!(broker.store.queue_count(), 1);
        broker.close().await;
    });
}
