//! Readers that look at records themselves, in memory and on the disk.

use super::support::*;
use engine::{Accept, Config, Found, QueueOffset, Read, ReadLimits};
use protocol::record::View;
use reactor::Gather;
use std::path::Path;

/// Takes every so many-th message of a queue.
struct EveryNth(u64);

impl Accept for EveryNth {
    fn by_hash(&mut self, _tag_hash: i32) -> bool {
        true
    }

    fn looks_at_records(&self) -> bool {
        true
    }

    fn by_record(&mut self, record: &[u8]) -> bool {
        let view = View::parse(record).expect("a reader is shown whole records");
        view.bytes.len() == record.len() && view.queue_offset.is_multiple_of(self.0)
    }
}

fn cold_config(root: &Path) -> Config {
    let mut config = small(root);
    config.segment_bytes = 1 << 20;
    config.hot_bytes = 0;
    config
}

async fn sifted(broker: &Broker, offset: u64, nth: u64, limits: &ReadLimits) -> (Read, Gather) {
    let queue = broker.store.find_queue("t", 0).expect("sent to");
    let mut gather = Gather::default();
    let offset = QueueOffset(offset);
    let read = match broker
        .store
        .read(&queue, offset, limits, EveryNth(nth), &mut gather)
    {
        Read::Cold(cold) => {
            let fetched = broker.store.fetch(cold, EveryNth(nth), &mut gather).await;
            fetched.expect("the disk works")
        }
        read => read,
    };
    (read, gather)
}

/// Offsets of everything a reader gets who goes on where it is told to.
async fn all_sifted(broker: &Broker, nth: u64, limits: &ReadLimits) -> Vec<u64> {
    let (mut offset, mut taken) = (0, Vec::new());
    loop {
        match sifted(broker, offset, nth, limits).await {
            (Read::Found(found), gather) => {
                let Found {
                    next,
                    messages,
                    bytes,
                } = found;
                let read = parse(&gather);
                assert_eq!(read.len() as u32, messages);
                assert_eq!(gather.len() as u64, bytes);
                taken.extend(read.into_iter().map(|(offset, _)| offset));
                offset = next.0;
            }
            (Read::NoneMatched { next }, _) => {
                assert!(next.0 > offset);
                offset = next.0;
            }
            (Read::Empty, _) => return taken,
            other => panic!("{:?}", other.0),
        }
    }
}

#[test]
fn a_reader_that_looks_at_records_gets_those_it_wants_from_memory_and_from_disk() {
    on_both(|root| async move {
        let limits = ReadLimits::default();
        let mut broker = Broker::open(cold_config(&root)).await;
        for _ in 0..100 {
            broker.send(&[("t", 0, 1_000, None); 20]).await;
        }
        for nth in [1, 3, 700, 1_999] {
            let wanted: Vec<u64> = (0..2_000).step_by(nth).collect();
            assert_eq!(all_sifted(&broker, nth as u64, &limits).await, wanted);
        }
        let sent = broker.close().await;
        // So that nothing is left in memory.
        let broker = Broker::reopen(cold_config(&root), sent).await;
        for nth in [1, 3, 700, 1_999] {
            let wanted: Vec<u64> = (0..2_000).step_by(nth).collect();
            assert_eq!(all_sifted(&broker, nth as u64, &limits).await, wanted);
        }
        broker.close().await;
    });
}

#[test]
fn one_read_looks_at_no_more_messages_than_it_may() {
    on_both(|root| async move {
        let limits = ReadLimits {
            scan_max: 100,
            ..ReadLimits::default()
        };
        let mut broker = Broker::open(cold_config(&root)).await;
        for _ in 0..20 {
            broker.send(&[("t", 0, 1_000, None); 20]).await;
        }
        let sent = broker.close().await;
        let broker = Broker::reopen(cold_config(&root), sent).await;
        let (read, gather) = sifted(&broker, 1, 1_000, &limits).await;
        let Read::NoneMatched { next } = read else {
            panic!("{read:?}");
        };
        assert!((101..=133).contains(&next.0), "{next:?}");
        assert!(gather.is_empty());
        broker.close().await;
    });
}
