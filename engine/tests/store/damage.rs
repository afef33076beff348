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
    forget_companions_from(root, 0);
}

/// Those of segments from `base` on.
fn forget_companions_from(root: &Path, base: u64) {
    let dir = root.join("orbit");
    for name in fs::list(&dir).expect("the companions' directory") {
        let of = name.get(..20).and_then(|digits| digits.parse::<u64>().ok());
        let is_companion = name.ends_with(".index") || name.ends_with(".part");
        if is_companion && of.is_some_and(|of| of >= base) {
            fs::remove_file(&dir.join(name)).expect("just listed");
        }
    }
}

/// The positions of a queue's messages in what was sent, by segment.
fn by_segment(config: &Config, sent: &Sent, id: u32) -> BTreeMap<u64, Vec<usize>> {
    let mut segments: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    let messages = &sent.queues[&("t".to_owned(), id)];
    for (number, message) in messages.iter().enumerate() {
        let segment = message.log_offset / config.segment_bytes;
        segments.entry(segment).or_default().push(number);
    }
    segments
}

/// Damages the bodies of these messages of queue 0; returns the others.
fn damage(config: &Config, sent: &Sent, numbers: &[usize]) -> BTreeMap<u64, Message> {
    let messages = sent.queues[&("t".to_owned(), 0)].clone();
    let mut left: BTreeMap<u64, Message> = (0..).zip(messages).collect();
    for number in numbers {
        let message = left.remove(&(*number as u64)).expect("each once");
        flip(config, message.log_offset + u64::from(message.bytes) / 2);
    }
    left
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

#[test]
fn indexes_of_damaged_segments_are_made_again_whichever_are_missing() {
    on_both(|root| async move {
        let (config, sent) = filled(&root).await;
        let segments = by_segment(&config, &sent, 0);
        // At the end of a file, at the start of the next, and in the middle of another.
        let damaged = [
            segments[&3][segments[&3].len() - 1],
            segments[&4][0],
            segments[&4][1],
            segments[&7][5],
        ];
        let expected = damage(&config, &sent, &damaged);
        forget_companions(&root);
        for missing in [
            &[][..],
            &[3],
            &[4],
            &[3, 4],
            &[2],
            &[2, 4],
            &[5, 7],
            &[4, 5],
        ] {
            for segment in missing {
                let base = segment * config.segment_bytes;
                let path = root.join(format!("orbit/{base:020}.index"));
                fs::remove_file(&path).unwrap_or_else(|error| panic!("{missing:?}: {error}"));
            }
            let broker = Broker::reopen(config.clone(), Sent::default()).await;
            assert!(readable(&broker, 0).await == expected, "{missing:?}");
            broker.close().await;
        }
        // What lies behind the damage is read again by itself.
        for from in [4, 5, 8] {
            forget_companions_from(&root, from * config.segment_bytes);
            let broker = Broker::reopen(config.clone(), Sent::default()).await;
            assert!(readable(&broker, 0).await == expected, "from {from}");
            broker.close().await;
        }
    });
}

#[test]
fn companions_of_a_segment_whose_first_record_is_damaged_are_believed() {
    on_both(|root| async move {
        let (config, sent) = filled(&root).await;
        let first = (0..2)
            .flat_map(|id| sent.queues[&("t".to_owned(), id)].clone())
            .filter(|message| message.log_offset % config.segment_bytes == 0)
            .filter(|message| message.log_offset > 0); // there queues would start later
        let mut firsts: Vec<Message> = first.collect();
        firsts.sort_by_key(|message| message.log_offset);
        firsts.pop(); // in the last file the log would end there
        assert!(firsts.len() >= 8, "every file has one");
        // The body, then what the header says of the place.
        for (number, message) in firsts.iter().enumerate() {
            let at = [u64::from(message.bytes) / 2, 30][number % 2];
            flip(&config, message.log_offset + at);
        }
        forget_companions(&root);
        let broker = Broker::reopen(config.clone(), Sent::default()).await;
        let before = [readable(&broker, 0).await, readable(&broker, 1).await];
        assert_eq!(before[0].len() + before[1].len(), 600 - firsts.len());
        broker.close().await;
        let broker = Broker::reopen(config.clone(), Sent::default()).await;
        let recovered = broker.store.recovered_bytes();
        assert_eq!(recovered, 0, "the companions say everything");
        let after = [readable(&broker, 0).await, readable(&broker, 1).await];
        assert!(after == before);
        broker.close().await;
    });
}

#[test]
fn a_wrong_queue_offset_in_rocketmqs_log_costs_one_message() {
    on_both(|root| async move {
        let (config, sent) = filled(&root).await;
        // One bit up in one of them, one bit down in another.
        let messages = sent.queues[&("t".to_owned(), 0)].clone();
        let mut expected: BTreeMap<u64, Message> = (0..).zip(messages).collect();
        for wrong in [70, 90] {
            let message = expected.remove(&wrong).expect("there are 300");
            let last_byte = protocol::record::LOG_OFFSET_AT as u64 - 1;
            flip(&config, message.log_offset + last_byte);
        }
        // As if OrbitMQ had never had it.
        fs::remove_dir_all(&root.join("orbit")).expect("it is there");
        for life in 0..2 {
            let broker = Broker::reopen(config.clone(), Sent::default()).await;
            let found = readable(&broker, 0).await;
            assert!(
                found == expected,
                "life {life}: {:?}",
                found.keys().collect::<Vec<_>>()
            );
            broker.close().await;
        }
    });
}
