//! Damage in the middle of a log whose companions are gone: what can be read stays, and no file with messages is deleted.

use super::support::*;
use engine::{Config, QueueOffset, Read, ReadLimits};
use reactor::{File, Gather, OpenOptions, fs};
use std::collections::BTreeMap;
use std::path::Path;

/// Enough for ten segments, in two queues.
async fn filled(root: &Path) -> (Config, Sent) {
    let config = small(root);
    let mut broker = Broker::open(config.clone()).await;
    for n in 0..600u32 {
        broker.send(&[("t", n % 2, 1_000, None)]).await;
    }
    (config, broker.close().await)
}

fn forget_companions(root: &Path) {
    let dir = root.join("orbit");
    for name in fs::list(&dir).expect("the companions' directory") {
        if name.ends_with(".index") || name.ends_with(".part") {
            fs::remove_file(&dir.join(name)).expect("just listed");
        }
    }
}

fn flip(config: &Config, log_offset: u64) {
    let base = log_offset / config.segment_bytes * config.segment_bytes;
    let path = config.root.join(format!("commitlog/{base:020}"));
    let options = OpenOptions {
        read: true,
        write: true,
        ..OpenOptions::default()
    };
    let file = File::open(&path, options).expect("a segment");
    let (mut byte, at) = ([0], log_offset - base);
    file.read_exact_at_blocking(&mut byte, at).expect("inside");
    byte[0] ^= 0x10;
    file.write_all_at_blocking(&byte, at).expect("inside");
    file.sync_blocking().expect("the disk works");
}

/// The queue's messages by offset, as far as they can be read.
async fn readable(broker: &Broker, id: u32) -> BTreeMap<u64, Message> {
    let queue = broker.store.find_queue("t", id).expect("sent to");
    let (limits, mut offset) = (ReadLimits::default(), QueueOffset(0));
    let mut messages = BTreeMap::new();
    loop {
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
                messages.extend(parse(&gather));
                offset = found.next;
            }
            Read::NoneMatched { next } => offset = next,
            Read::Empty => return messages,
            other => panic!("{other:?} at {offset:?}"),
        }
    }
}

#[test]
fn one_bad_record_in_an_old_file_costs_that_record_only() {
    on_both(|root| async move {
        let (config, sent) = filled(&root).await;
        let files = fs::list(&root.join("commitlog")).expect("the log");
        let damaged = 70;
        let message = &sent.queues[&("t".to_owned(), 0)][damaged];
        flip(&config, message.log_offset + u64::from(message.bytes) / 2);
        forget_companions(&root);
        let mut broker = Broker::reopen(config.clone(), sent).await;
        for life in 0..2 {
            for id in 0..2 {
                let mut expected: BTreeMap<u64, Message> = (0..)
                    .zip(broker.sent.queues[&("t".to_owned(), id)].clone())
                    .collect();
                if id == 0 {
                    expected.remove(&(damaged as u64));
                }
                assert!(readable(&broker, id).await == expected, "life {life}");
            }
            broker
                .send(&[("t", 0, 500, None), ("t", 1, 500, None)])
                .await;
            let sent = broker.close().await;
            broker = Broker::reopen(config.clone(), sent).await;
        }
        let now = fs::list(&root.join("commitlog")).expect("the log");
        assert!(now.starts_with(&files[..files.len() - 1]), "{now:?}");
        broker.close().await;
    });
}

#[test]
fn a_file_with_messages_behind_the_torn_end_is_kept_aside() {
    on_both(|root| async move {
        let (config, sent) = filled(&root).await;
        let queue = &sent.queues[&("t".to_owned(), 0)];
        let last = queue.last().expect("sent").log_offset / config.segment_bytes;
        let in_last_but_one =
            |message: &&Message| message.log_offset / config.segment_bytes == last - 1;
        let damaged = queue
            .iter()
            .position(|m| in_last_but_one(&m))
            .expect("many")
            + 3;
        let message = &queue[damaged];
        flip(&config, message.log_offset + u64::from(message.bytes) / 2);
        forget_companions(&root);
        // As after a crash: what was closed in order cannot be torn.
        let options = OpenOptions {
            write: true,
            create: true,
            ..OpenOptions::default()
        };
        File::open(&root.join("abort"), options).expect("the store's directory");
        let broker = Broker::reopen(config.clone(), Sent::default()).await;
        let end = broker.store.find_queue("t", 0).expect("sent to");
        assert_eq!(end.max_offset(), damaged as u64, "the log is cut there");
        let names = fs::list(&root.join("orbit")).expect("the companions' directory");
        let name = format!("{:020}.", last * config.segment_bytes);
        let kept = |kept: &&String| kept.starts_with(&name) && kept.ends_with(".cut");
        assert_eq!(names.iter().filter(kept).count(), 1, "{names:?}");
        broker.close().await;
    });
}
