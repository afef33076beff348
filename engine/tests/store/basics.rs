//! What a healthy store does.

use super::support::*;
use engine::{
    AppendError, Boundary, Config, LogOffset, OpenError, QueueOffset, Read, ReadLimits, Store,
};
use protocol::record::{MAGIC_BLANK, View};
use reactor::{Gather, fs};
use std::path::PathBuf;
use std::time::Duration;

/// Four topics with two queues, records of different lengths.
fn round(n: usize) -> Vec<Spec> {
    let tags = [None, Some("a"), Some("b")];
    (0..8)
        .map(|queue| {
            let topic = ["orders", "payments", "%RETRY%g", "audit"][queue / 2];
            let body_bytes = 20 + (n * 37 + queue * 101) % 700;
            (topic, queue as u32 % 2, body_bytes, tags[(n + queue) % 3])
        })
        .collect()
}

#[test]
fn what_was_sent_is_read_at_once_and_after_a_clean_restart() {
    on_both(|root| async move {
        let mut broker = Broker::open(small(&root)).await;
        for n in 0..200 {
            broker.send(&round(n)).await;
        }
        broker.check().await;
        let written = broker.store.written();
        assert!(written.0 > 8 * (64 << 10), "several segments were filled");
        let sent = broker.close().await;
        assert!(!fs::exists(&root.join("abort")), "closed in order");

        let mut broker = Broker::reopen(small(&root), sent).await;
        assert!(fs::exists(&root.join("abort")), "open");
        assert_eq!(broker.store.written(), written);
        assert_eq!(broker.store.flushed(), written, "a clean close flushed all");
        broker.check().await;
        for n in 200..300 {
            broker.send(&round(n)).await;
        }
        broker.check().await;
        broker.close().await;
    });
}

#[test]
fn a_store_whose_tail_is_never_hot_reads_everything_from_disk() {
    on_both(|root| async move {
        let mut config = small(&root);
        config.hot_bytes = 0;
        let mut broker = Broker::open(config.clone()).await;
        for n in 0..200 {
            broker.send(&round(n)).await;
        }
        let queue = broker.store.find_queue("orders", 0).expect("sent to");
        let mut gather = Gather::default();
        let limits = ReadLimits::default();
        let read = broker
            .store
            .read(&queue, QueueOffset(0), &limits, |_| true, &mut gather);
        assert!(matches!(read, Read::Cold(_)), "{read:?}");
        broker.check().await;
        let sent = broker.close().await;
        Broker::reopen(config, sent).await.check().await;
    });
}

#[test]
fn the_log_is_rocketmqs_byte_for_byte() {
    on_both(|root| async move {
        let mut broker = Broker::open(small(&root)).await;
        for n in 0..60 {
            broker.send(&round(n)).await;
        }
        let written = broker.close().await;
        let log = root.join("commitlog");
        let mut expected: Vec<&Message> = written.queues.values().flatten().collect();
        expected.sort_by_key(|message| message.log_offset);
        let mut expected = expected.into_iter().peekable();
        for name in fs::list(&log).expect("the log directory") {
            assert_eq!(name.len(), 20);
            let base: u64 = name
                .parse()
                .expect("a segment is named by its first offset");
            let bytes = fs::read(&log.join(&name)).expect("a segment");
            assert_eq!(bytes.len(), 64 << 10);
            let mut at = 0;
            while let Some(message) = expected.next_if(|next| next.log_offset == base + at as u64) {
                let view = View::parse(&bytes[at..]).expect("a record");
                assert_eq!(view.body, message.body);
                assert_eq!(view.log_offset, message.log_offset);
                at += view.bytes.len();
                assert!(at + 8 <= bytes.len(), "room for a blank is kept");
            }
            if expected.peek().is_some() {
                let rest = (bytes.len() - at) as u32;
                assert_eq!(
                    bytes[at..at + 4],
                    rest.to_be_bytes(),
                    "the blank fills the file"
                );
                assert_eq!(bytes[at + 4..at + 8], MAGIC_BLANK.to_be_bytes());
            } else {
                assert!(
                    bytes[at..].iter().all(|byte| *byte == 0),
                    "nothing behind the end"
                );
            }
        }
        assert_eq!(expected.next(), None, "every record was met");
    });
}

#[test]
fn a_whole_batch_lies_in_one_segment_or_nowhere() {
    on_both(|root| async move {
        let mut config = small(&root);
        config.segment_bytes = 8192;
        let mut broker = Broker::open(config.clone()).await;
        broker.send(&[("t", 0, 5_000, None)]).await;
        let before = broker.store.written();
        let (mut batch, _) = broker.batch(&[("t", 0, 3_000, None), ("u", 0, 9_000, None)]);
        batch.is_whole = true;
        broker.writer.append(&mut batch).await;
        for item in batch.items() {
            let error = item.error;
            assert!(
                matches!(error, Some(AppendError::TooLarge { .. })),
                "{error:?}"
            );
        }
        broker.publish().await;
        assert_eq!(broker.store.written(), before, "none of it is there");

        // The first would fit, both do not.
        let (mut batch, _) = broker.batch(&[("t", 0, 2_000, None), ("u", 0, 4_000, None)]);
        batch.is_whole = true;
        broker.writer.append(&mut batch).await;
        let [first, second] = batch.items() else {
            panic!("two were sent");
        };
        assert_eq!((first.error, first.log_offset), (None, 8192));
        let end = first.log_offset + u64::from(first.record_bytes());
        assert_eq!((second.error, second.log_offset), (None, end));
        broker.publish().await;
        broker.close().await;
    });
}

#[test]
fn a_record_that_exactly_fills_a_segment_fits_and_one_byte_more_rolls() {
    on_both(|root| async move {
        let mut config = small(&root);
        config.segment_bytes = 8192;
        let mut broker = Broker::open(config.clone()).await;
        // 91 fixed bytes and a topic of one letter; eight more stay free for a blank.
        let body_bytes = 8192 - 92 - 8;
        broker.send(&[("t", 0, body_bytes, None)]).await;
        assert_eq!(broker.store.written(), LogOffset(8192 - 8));
        broker.send(&[("t", 0, body_bytes, None)]).await;
        assert_eq!(broker.store.written(), LogOffset(2 * 8192 - 8));
        let (mut batch, _) = broker.batch(&[("t", 0, body_bytes + 1, None)]);
        broker.writer.append(&mut batch).await;
        let error = batch.items()[0].error;
        assert!(
            matches!(error, Some(AppendError::TooLarge { .. })),
            "{error:?}"
        );
        broker.send(&[("t", 0, 16, None)]).await;
        broker.check().await;
        let sent = broker.close().await;
        Broker::reopen(config, sent).await.check().await;
    });
}

#[test]
fn offsets_outside_a_queue_are_answered_with_its_limits() {
    on_both(|root| async move {
        let mut broker = Broker::open(small(&root)).await;
        let limits = ReadLimits::default();
        let mut gather = Gather::default();
        let queue = broker.store.queue("t", 0);
        let read = broker
            .store
            .read(&queue, QueueOffset(0), &limits, |_| true, &mut gather);
        assert!(matches!(read, Read::Empty), "{read:?}");
        broker.send(&[("t", 0, 50, None); 3]).await;
        let read = broker
            .store
            .read(&queue, QueueOffset(3), &limits, |_| true, &mut gather);
        assert!(matches!(read, Read::Empty), "{read:?}");
        let read = broker
            .store
            .read(&queue, QueueOffset(4), &limits, |_| true, &mut gather);
        assert!(
            matches!(
                read,
                Read::BeyondEnd {
                    max: QueueOffset(3)
                }
            ),
            "{read:?}"
        );
        broker.close().await;
    });
}

#[test]
fn a_tag_filter_skips_and_says_where_to_go_on() {
    on_both(|root| async move {
        let mut broker = Broker::open(small(&root)).await;
        for n in 0..90 {
            let tag = [Some("a"), Some("b"), None][n % 3];
            broker.send(&[("t", 0, 50, tag)]).await;
        }
        let queue = broker.store.find_queue("t", 0).expect("sent to");
        for hot in [true, false] {
            let mut gather = Gather::default();
            let limits = ReadLimits {
                messages_max: 10,
                disk_messages_max: 10,
                ..ReadLimits::default()
            };
            let wanted = hash(Some("b"));
            let at = QueueOffset(0);
            let read = read(
                &broker.store,
                &queue,
                at,
                &limits,
                |tag| tag == wanted,
                &mut gather,
            )
            .await;
            let found = found(read);
            assert_eq!(found.messages, 10, "hot: {hot}");
            let offsets: Vec<u64> = parse(&gather).iter().map(|(offset, _)| *offset).collect();
            assert_eq!(offsets, (0..10).map(|n| 3 * n + 1).collect::<Vec<u64>>());
            gather.clear();
            let limits = ReadLimits {
                scan_max: 40,
                ..limits
            };
            let at = QueueOffset(5);
            let read =
                super::support::read(&broker.store, &queue, at, &limits, |_| false, &mut gather)
                    .await;
            assert!(
                matches!(
                    read,
                    Read::NoneMatched {
                        next: QueueOffset(45)
                    }
                ),
                "{read:?}"
            );
            if hot {
                let sent = broker.close().await;
                let mut config = small(&root);
                config.hot_bytes = 0;
                broker = Broker::reopen(config, sent).await;
                let known = broker.store.find_queue("t", 0).expect("sent to");
                assert_eq!(known.max_offset(), queue.max_offset());
            }
        }
        broker.close().await;
    });
}

#[test]
fn a_time_is_found_wherever_its_messages_are() {
    on_both(|root| async move {
        for hot_bytes in [1 << 30, 0] {
            let mut config = small(&root.join(hot_bytes.to_string()));
            config.hot_bytes = hot_bytes;
            let mut broker = Broker::open(config).await;
            for n in 0..150 {
                broker.send(&[("t", 0, 600, None)]).await;
                if n % 10 == 9 {
                    reactor::sleep(Duration::from_millis(3)).await;
                }
            }
            let queue = broker.store.find_queue("t", 0).expect("sent to");
            let times: Vec<i64> = broker.sent.queues[&("t".to_owned(), 0)]
                .iter()
                .map(|message| message.store_ms)
                .collect();
            assert!(times[0] < times[149], "time went on");
            let mut asked: Vec<i64> = times.iter().flat_map(|t| [t - 1, *t, t + 1]).collect();
            asked.dedup();
            for ms in asked {
                let lower = times.partition_point(|t| *t < ms) as u64;
                let upper = (times.partition_point(|t| *t <= ms) as u64).saturating_sub(1);
                for (boundary, expected) in [(Boundary::Lower, lower), (Boundary::Upper, upper)] {
                    let at = broker.store.offset_at_time(&queue, ms, boundary).await;
                    assert_eq!(at.expect("reads work").0, expected, "{boundary:?} {ms}");
                }
            }
            broker.close().await;
        }
    });
}

#[test]
fn a_record_is_found_by_its_log_offset_and_nothing_else_is() {
    on_both(|root| async move {
        let mut broker = Broker::open(small(&root)).await;
        for n in 0..40 {
            broker.send(&round(n)).await;
        }
        for message in broker.sent.queues.values().flatten() {
            let at = LogOffset(message.log_offset);
            let bytes = broker.store.record_at(at).await.expect("reads work");
            let bytes = bytes.expect("a record is there");
            let view = View::parse(&bytes).expect("a whole record");
            assert_eq!(view.body, message.body);
            let beside = LogOffset(message.log_offset + 3);
            assert_eq!(
                broker.store.record_at(beside).await.expect("reads work"),
                None
            );
        }
        let end = broker.store.written();
        assert_eq!(broker.store.record_at(end).await.expect("reads work"), None);
        broker.close().await;
    });
}

#[test]
fn the_flusher_follows_by_the_clock() {
    on_both(|root| async move {
        let mut config = small(&root);
        config.flush.interval_ms = 5;
        config.flush.thorough_ms = 50;
        let mut broker = Broker::open(config).await;
        broker.send(&[("t", 0, 100, None)]).await;
        if broker.store.config().sync_flush {
            let (flushed, written) = (broker.store.flushed(), broker.store.written());
            assert_eq!(flushed, written, "what is acknowledged is durable");
            broker.close().await;
            return;
        }
        let start = reactor::now();
        while broker.store.flushed() < broker.store.written() {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "one page is flushed in the end"
            );
            reactor::sleep(Duration::from_millis(5)).await;
        }
        assert!(
            start.elapsed() >= Duration::from_millis(40),
            "a single page waits for more"
        );
        broker.close().await;
    });
}

#[test]
fn a_parked_shard_is_named_when_its_queue_grows() {
    on_both(|root| async move {
        let mut broker = Broker::open(small(&root)).await;
        let (a, b) = (broker.store.queue("t", 0), broker.store.queue("t", 1));
        assert_eq!(a.park(3), 0);
        assert_eq!(b.park(1), 0);
        broker.send(&[("t", 0, 50, None), ("t", 0, 50, None)]).await;
        let mut wakes = Vec::new();
        broker.writer.take_wakes(&mut wakes);
        assert_eq!(wakes, [(3, a.no())]);
        assert_eq!(a.park(3), 2, "the end tells that it is too late to sleep");
        broker.close().await;
    });
}

async fn refused(config: Config) -> OpenError {
    match Store::open(config, |_| {}).await {
        Ok(_) => panic!("the store opened"),
        Err(error) => error,
    }
}

#[test]
fn a_file_that_is_no_segment_is_refused_by_name() {
    on_both(|root| async move {
        let sent = Broker::open(small(&root)).await.close().await;
        assert_eq!(sent.count, 0);
        let stranger = root.join("commitlog").join("00000000000000000000.bak");
        fs::replace(&stranger, b"x").expect("a small file");
        let error = refused(small(&root)).await;
        assert!(
            matches!(&error, OpenError::ForeignFile { path } if *path == stranger),
            "{error}"
        );
        assert!(error.to_string().contains("00000000000000000000.bak"));
        fs::remove_file(&stranger).expect("just made");
        Broker::open(small(&root)).await.close().await;
    });
}

#[test]
fn a_log_made_with_another_segment_size_is_refused() {
    on_both(|root| async move {
        Broker::open(small(&root)).await.close().await;
        let mut config = small(&root);
        config.segment_bytes = 128 << 10;
        let error = refused(config).await;
        assert!(
            matches!(
                error,
                OpenError::SegmentLength {
                    found: 65536,
                    expected: 131072,
                    ..
                }
            ),
            "{error}"
        );
    });
}

#[test]
fn a_missing_segment_is_refused_by_name() {
    on_both(|root| async move {
        let mut broker = Broker::open(small(&root)).await;
        for n in 0..100 {
            broker.send(&round(n)).await;
        }
        broker.close().await;
        let missing: PathBuf = root.join("commitlog").join(format!("{:020}", 64 << 10));
        fs::remove_file(&missing).expect("the second segment");
        let error = refused(small(&root)).await;
        assert!(
            matches!(&error, OpenError::MissingSegment { path } if *path == missing),
            "{error}"
        );
    });
}

#[test]
fn a_store_that_is_open_is_refused() {
    on_both(|root| async move {
        let broker = Broker::open(small(&root)).await;
        let error = refused(small(&root)).await;
        assert!(matches!(error, OpenError::InUse { .. }), "{error}");
        broker.close().await;
    });
}

#[test]
fn several_log_directories_share_the_segments() {
    on_both(|root| async move {
        let mut config = small(&root);
        config.log_dirs = vec![root.join("disk1/log"), root.join("disk2/log")];
        let mut broker = Broker::open(config.clone()).await;
        for n in 0..100 {
            broker.send(&round(n)).await;
        }
        let sent = broker.close().await;
        for dir in &config.log_dirs {
            assert!(fs::list(dir).expect("a log directory").len() >= 3);
        }
        Broker::reopen(config, sent).await.check().await;
    });
}

#[test]
fn readers_on_another_core_see_every_message_in_order_while_it_is_written() {
    on_both(|root| async move {
        const MESSAGES: u64 = 3_000;
        let mut config = small(&root);
        config.hot_bytes = 100 << 10;
        let mut broker = Broker::open(config).await;
        let store = broker.store.clone();
        let queue = store.queue("t", 0);
        let reader = reactor::launch(reactor::CoreConfig::default(), move || async move {
            let mut read = 0;
            while read < MESSAGES {
                let messages = read_all(&store, &queue, read).await;
                for (message, number) in messages.iter().zip(read + 1..) {
                    let expected = format!("{number:016x}");
                    assert_eq!(&message.body[..16], expected.as_bytes());
                }
                read += messages.len() as u64;
                reactor::sleep(Duration::from_micros(50)).await;
            }
        });
        let reader = reader.expect("a second core");
        for n in 0..MESSAGES {
            broker.send(&[("t", 0, 50 + n as usize % 300, None)]).await;
            if n % 64 == 0 {
                reactor::sleep(Duration::from_micros(100)).await;
            }
        }
        reader.finished().await.expect("the reader saw all of it");
        broker.close().await;
    });
}

#[test]
fn nothing_is_read_before_it_is_published_even_across_a_new_segment() {
    on_both(|root| async move {
        let mut broker = Broker::open(small(&root)).await;
        broker.send(&[("t", 0, 1_000, None); 10]).await;
        let queue = broker.store.find_queue("t", 0).expect("sent to");
        let written = broker.store.written();
        // As many as take the tail into the next segment; nobody has been told of them.
        let (mut batch, _) = broker.batch(&[("t", 0, 1_000, None); 80]);
        broker.writer.append(&mut batch).await;
        let limits = ReadLimits::default();
        let mut gather = Gather::default();
        let read = broker
            .store
            .read(&queue, QueueOffset(5), &limits, |_| true, &mut gather);
        assert_eq!(found(read).next, QueueOffset(10));
        assert_eq!(broker.store.written(), written);
        broker.publish().await;
        assert_eq!(queue.max_offset(), 90);
        assert_eq!(read_all(&broker.store, &queue, 0).await.len(), 90);
        broker.close().await;
    });
}

#[test]
fn a_log_directory_is_added_while_the_next_segment_is_prepared_already() {
    on_both(|root| async move {
        let mut config = small(&root);
        config.log_dirs = vec![root.join("a")];
        let mut broker = Broker::open(config.clone()).await;
        // More than half of the first segment.
        broker.send(&[("t", 0, 1_000, None); 40]).await;
        let next = root.join("a").join(format!("{:020}", 64 << 10));
        while !fs::exists(&next) {
            reactor::sleep(Duration::from_millis(1)).await;
        }
        let sent = broker.close().await;
        config.log_dirs.push(root.join("b"));
        let mut broker = Broker::reopen(config.clone(), sent).await;
        assert!(!fs::exists(&next), "nothing is in it yet");
        broker.send(&[("t", 0, 1_000, None); 80]).await;
        broker.check().await;
        let sent = broker.close().await;
        let broker = Broker::reopen(config, sent).await;
        broker.check().await;
        broker.close().await;
    });
}
