//! Reads of what is no longer hot: ahead of whoever goes through the log in order, and only what was stored.

use super::support::*;
use engine::{Config, QueueOffset, Read, ReadLimits};
use reactor::{File, Gather, OpenOptions};
use std::path::Path;

/// Segments of several blocks, and nothing stays hot that need not.
fn config(root: &Path) -> Config {
    let mut config = small(root);
    config.segment_bytes = 1 << 20;
    config.part_bytes = 256 << 10;
    config.hot_bytes = 0;
    config
}

async fn filled(config: Config, messages: usize) -> Broker {
    let mut broker = Broker::open(config).await;
    for _ in 0..messages / 20 {
        broker.send(&[("t", 0, 1_000, None); 20]).await;
    }
    broker
}

#[test]
fn who_goes_through_old_log_in_order_gets_as_much_at_once_as_from_memory() {
    on_both(|root| async move {
        let broker = filled(config(&root), 3_000).await;
        let sent = broker.close().await;
        // So that nothing is left in memory.
        let broker = Broker::reopen(config(&root), sent).await;
        let queue = broker.store.find_queue("t", 0).expect("sent to");
        let (limits, mut offset) = (ReadLimits::default(), QueueOffset(0));
        let mut sizes = Vec::new();
        while offset.0 < 2_500 {
            let mut gather = Gather::default();
            let read = read(
                &broker.store,
                &queue,
                offset,
                &limits,
                |_| true,
                &mut gather,
            )
            .await;
            let found = found(read);
            assert_eq!(parse(&gather).len() as u32, found.messages);
            sizes.push(found.messages);
            offset = found.next;
        }
        assert_eq!(sizes[0], limits.disk_messages_max);
        let like_memory = sizes
            .iter()
            .filter(|size| **size == limits.memory_messages_max);
        assert!(like_memory.count() * 10 > sizes.len() * 8, "{sizes:?}");
        broker.check().await;
        broker.close().await;
    });
}

#[test]
fn readers_of_many_places_share_a_small_cache() {
    on_both(|root| async move {
        let mut config = config(&root);
        config.cold_cache_bytes = 1 << 20;
        let broker = filled(config.clone(), 3_000).await;
        let sent = broker.close().await;
        let broker = Broker::reopen(config, sent).await;
        let queue = broker.store.find_queue("t", 0).expect("sent to");
        let readers: Vec<_> = (0..6u64)
            .map(|number| {
                let (store, queue) = (broker.store.clone(), queue.clone());
                reactor::spawn("reader", async move {
                    read_all(&store, &queue, number * 400).await.len() as u64
                })
            })
            .collect();
        for (number, reader) in (0..).zip(readers) {
            assert_eq!(reader.await, Some(3_000 - number * 400));
        }
        broker.close().await;
    });
}

#[test]
fn a_message_damaged_on_the_disk_is_left_out_and_the_rest_is_served() {
    on_both(|root| async move {
        let broker = filled(config(&root), 1_500).await;
        let sent = broker.close().await;
        let broker = Broker::reopen(config(&root), sent).await;
        let damaged = 700;
        let message = broker.sent.queues[&("t".to_owned(), 0)][damaged].clone();
        flip(&root, message.log_offset + u64::from(message.bytes) / 2);
        let queue = broker.store.find_queue("t", 0).expect("sent to");
        let (limits, mut offset) = (ReadLimits::default(), QueueOffset(690));
        let mut bodies = Vec::new();
        while offset.0 < 720 {
            let mut gather = Gather::default();
            match read(
                &broker.store,
                &queue,
                offset,
                &limits,
                |_| true,
                &mut gather,
            )
            .await
            {
                Read::Found(found) => {
                    let read = parse(&gather);
                    assert_eq!(read.len() as u32, found.messages);
                    assert_eq!(gather.len() as u64, found.bytes);
                    bodies.extend(read.into_iter().map(|(offset, _)| offset));
                    offset = found.next;
                }
                Read::NoneMatched { next } => offset = next,
                other => panic!("{other:?}"),
            }
        }
        let expected = (690..offset.0).filter(|offset| *offset != damaged as u64);
        assert_eq!(bodies, expected.collect::<Vec<_>>());
        let at = engine::LogOffset(message.log_offset);
        let record = broker.store.record_at(at).await.expect("the disk reads");
        assert!(record.is_none(), "nobody is shown it");
        broker.close().await;
    });
}

/// Changes one bit of the first segment.
fn flip(root: &Path, at: u64) {
    let options = OpenOptions {
        read: true,
        write: true,
        ..OpenOptions::default()
    };
    let path = root.join("commitlog").join(format!("{:020}", 0));
    let file = File::open(&path, options).expect("the first segment");
    let mut byte = [0];
    let inside = "inside the file";
    file.read_exact_at_blocking(&mut byte, at).expect(inside);
    byte[0] ^= 0x10;
    file.write_all_at_blocking(&byte, at).expect(inside);
    file.sync_blocking().expect("the disk works");
}
