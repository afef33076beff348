//! What has piled up makes no send slower, and a pull from anywhere only by the few looks that finding its segment takes.
//! Every access to the simulated disk takes as long as any other, so times are numbers of accesses one after the other.

use super::support::*;
use engine::{Config, QueueOffset, ReadLimits};
use reactor::Gather;
use reactor::sim::{Faults, World};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

const ACCESS: Duration = Duration::from_millis(1);
const FEW: u64 = 16_000;
/// As many segments of 1 MiB as a hundred million such messages fill of 1 GiB.
const MANY: u64 = FEW << DOUBLINGS;
const DOUBLINGS: u32 = 3;
/// The segment is found by halving, and what says where a segment's queues lie may have to be read each time.
const LOOKS_PER_DOUBLING: u32 = 3;
/// As far as there are as many: of each kind of measurement.
const SAMPLES: usize = 300;

/// Messages wait for the disk; a small part of what there is stays in memory.
fn config(root: &Path) -> Config {
    let mut config = small(root);
    config.sync_flush = true;
    config.segment_bytes = 1 << 20;
    config.part_bytes = 256 << 10;
    config.hot_bytes = 0;
    config.cold_cache_bytes = 1 << 20;
    config
}

async fn fill(broker: &mut Broker, messages: u64) {
    while broker.sent.count < messages {
        broker.send(&[("t", 0, 100, None); 100]).await;
    }
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

async fn sending(broker: &mut Broker) -> Duration {
    let mut took = Vec::new();
    for _ in 0..SAMPLES {
        let begun = reactor::now();
        broker.send(&[("t", 0, 100, None)]).await;
        took.push(begun.elapsed());
    }
    p99(took)
}

async fn pulling_anywhere(broker: &Broker) -> Duration {
    let queue = broker.store.find_queue("t", 0).expect("sent to");
    let limits = ReadLimits::default();
    let mut took = Vec::new();
    for _ in 0..SAMPLES {
        let offset = QueueOffset(reactor::random() % queue.max_offset());
        let mut gather = Gather::default();
        let begun = reactor::now();
        let read = read(
            &broker.store,
            &queue,
            offset,
            &limits,
            |_| true,
            &mut gather,
        );
        assert!(found(read.await).messages > 0);
        took.push(begun.elapsed());
        assert_eq!(parse(&gather)[0].0, offset.0, "what was asked for");
    }
    p99(took)
}

#[test]
fn eight_times_as_many_messages_make_no_send_slower_and_a_pull_from_anywhere_hardly() {
    let faults = Faults {
        disk_delay: (ACCESS, ACCESS),
        ..Faults::default()
    };
    let mut world = World::with(faults, 23);
    let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
    world.block_on(node, async {
        let mut broker = Broker::open(config(Path::new("/store"))).await;
        let mut measured = Vec::new();
        for messages in [FEW, MANY] {
            fill(&mut broker, messages).await;
            let sent = sending(&mut broker).await;
            measured.push((sent, pulling_anywhere(&broker).await));
        }
        let [(few_sent, few_pulled), (many_sent, many_pulled)] = measured[..] else {
            panic!("two of each");
        };
        assert!(
            few_sent >= ACCESS && few_pulled >= ACCESS,
            "the disk is used"
        );
        assert!(many_sent <= few_sent, "{many_sent:?} after {few_sent:?}");
        let most = few_pulled + ACCESS * LOOKS_PER_DOUBLING * DOUBLINGS;
        assert!(many_pulled <= most, "{many_pulled:?} after {few_pulled:?}");
        broker.close().await;
    });
}
