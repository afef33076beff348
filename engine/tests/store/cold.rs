//! Reads of what is no longer hot: ahead of whoever goes through the log in order, and only what was stored.

use super::support::*;
use engine::{Config, LogOffset, QueueOffset, Read, ReadLimits};
use protocol::record::{self, View};
use reactor::sim::{Faults, World};
use reactor::{Buffer, File, Gather, OpenOptions};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

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
        let sent_to = &broker.sent.queues[&("t".to_owned(), 0)];
        let in_body = u64::from(sent_to[0].bytes) / 2;
        let damages = [
            (700, in_body),
            (703, topic_at(&broker, sent_to[0].log_offset).await),
            (706, record::QUEUE_ID_AT as u64 + 3),
            (709, record::QUEUE_OFFSET_AT as u64 + 7),
            (712, record::LOG_OFFSET_AT as u64 + 7),
            (715, record::SYS_FLAG_AT as u64 + 3),
        ];
        for (offset, at) in damages {
            flip(&root, sent_to[offset].log_offset + at);
        }
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
        let is_whole = |offset: &u64| damages.iter().all(|damage| damage.0 as u64 != *offset);
        let expected = (690..offset.0).filter(is_whole);
        assert_eq!(bodies, expected.collect::<Vec<_>>());
        let at = LogOffset(sent_to[700].log_offset);
        let record = broker.store.record_at(at).await.expect("the disk reads");
        assert!(record.is_none(), "nobody is shown it");
        broker.close().await;
    });
}

/// What a consumer gets that tries again a while later when it is refused.
async fn consume(broker: &Broker, end: u64) -> Vec<u64> {
    let queue = broker.store.find_queue("t", 0).expect("sent to");
    let (limits, mut offset) = (ReadLimits::default(), QueueOffset(0));
    let (mut seen, mut refusals) = (Vec::new(), 0);
    while offset.0 < end {
        let mut gather = Gather::default();
        let cold = match broker
            .store
            .read(&queue, offset, &limits, |_| true, &mut gather)
        {
            Read::Cold(cold) => broker.store.fetch(cold, |_| true, &mut gather).await,
            hot => Ok(hot),
        };
        match cold {
            Ok(Read::Found(found)) => {
                let read = parse(&gather);
                assert_eq!(read.len() as u32, found.messages);
                seen.extend(read.into_iter().map(|(offset, _)| offset));
                assert!(seen.last().is_some_and(|last| *last < found.next.0));
                offset = found.next;
            }
            Ok(Read::NoneMatched { next }) => offset = next,
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                refusals += 1;
                assert!(
                    refusals < 1_000,
                    "it gets past {offset:?} some day: {error}"
                );
                reactor::sleep(Duration::from_secs(3)).await;
            }
        }
    }
    seen
}

#[test]
fn a_bad_sector_withholds_only_the_messages_in_it() {
    let mut withheld = 0;
    for seed in 0..5 {
        let mut world = World::new(seed);
        let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
        let root = Path::new("/store");
        let broker = world.block_on(node, async move {
            let broker = filled(config(root), 2_000).await;
            let sent = broker.close().await;
            Broker::reopen(config(root), sent).await
        });
        world.set_faults(Faults {
            bad_page_ppm: 5_000,
            ..Faults::default()
        });
        withheld += world.block_on(node, async move {
            // What lies before the last segments is read from the disk.
            let end = 1_500;
            let seen = consume(&broker, end).await;
            let messages = &broker.sent.queues[&("t".to_owned(), 0)];
            let mut withheld = 0;
            for (offset, message) in (0..end).zip(messages) {
                if seen.binary_search(&offset).is_err() {
                    assert!(
                        !is_readable(root, message).await,
                        "message {offset} was withheld"
                    );
                    withheld += 1;
                }
            }
            withheld
        });
    }
    assert!(withheld > 0, "some messages are on bad pages");
}

/// Whether the disk has all of the pages a message lies in.
async fn is_readable(root: &Path, message: &Message) -> bool {
    let segment_bytes = config(root).segment_bytes;
    let base = message.log_offset / segment_bytes * segment_bytes;
    let options = OpenOptions {
        read: true,
        ..OpenOptions::default()
    };
    let path = root.join("commitlog").join(format!("{base:020}"));
    let file = File::open(&path, options).expect("a segment of the log");
    let from = (message.log_offset - base) / 4096 * 4096;
    let end = (message.log_offset - base + u64::from(message.bytes)).next_multiple_of(4096);
    let len = (end - from) as usize;
    let (read, _) = file.read_at(Buffer::with_capacity(len), from, len).await;
    read.is_ok()
}

#[test]
fn answers_that_nobody_takes_do_not_hold_more_than_the_cache() {
    on_both(|root| async move {
        let mut config = config(&root);
        config.cold_cache_bytes = 4 << 20;
        let sent = filled(config.clone(), 9_000).await.close().await;
        let broker = Broker::reopen(config, sent).await;
        let queue = broker.store.find_queue("t", 0).expect("sent to");
        let limits = ReadLimits::default();
        // Every answer is kept, as a socket would that nobody reads.
        let (mut stalled, mut offset) = (Vec::new(), QueueOffset(0));
        while offset.0 < 8_000 {
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
            offset = found(read).next;
            stalled.push(gather);
        }
        let mut blocks = std::collections::BTreeSet::new();
        for gather in &stalled {
            for source in &gather.sources {
                if let reactor::Source::Buffer(buffer) = source {
                    blocks.insert(std::sync::Arc::as_ptr(buffer) as usize);
                }
            }
        }
        let pinned = blocks.len() as u64 * (256 << 10);
        assert!(pinned <= 6 << 20, "{pinned} bytes are held by answers");
        broker.close().await;
    });
}

/// How far behind a record's start its topic is.
async fn topic_at(broker: &Broker, log_offset: u64) -> u64 {
    let record = broker.store.record_at(LogOffset(log_offset)).await;
    let record = record.expect("the disk reads").expect("a message is there");
    let view = View::parse(&record).expect("it is whole");
    (view.topic.as_ptr().addr() - record.as_ptr().addr()) as u64
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
