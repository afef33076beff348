//! Indexes keep to their part of memory, whatever is sent: segments end early, and full ones leave memory sooner.

use super::support::*;
use engine::{AppendError, Config, FlusherKind};
use reactor::fs;
use std::path::Path;
use std::time::Duration;

const INDEX_BYTES: u64 = 16 << 10;
/// What a batch may add before it is looked at.
const BATCH_INDEX_BYTES: u64 = 4 << 10;
const SMALL: [Spec; 5] = [
    ("t", 0, 16, Some("a")),
    ("t", 1, 30, None),
    ("t", 0, 16, None),
    ("u", 0, 50, None),
    ("t", 0, 20, Some("b")),
];

/// Segments would be left in memory for ever, were it not for their indexes. The window is as small as they come, so that
/// what lies behind a blank takes the place of what lies before it.
fn config(root: &Path) -> Config {
    let mut config = small(root);
    config.index_bytes = INDEX_BYTES;
    config.hot_bytes = 1 << 30;
    config.window.bytes = 64 << 10;
    config
}

async fn send(broker: &mut Broker, batches: usize) {
    for _ in 0..batches {
        broker.send(&SMALL).await;
        let taken = broker.store.index_bytes();
        assert!(taken <= INDEX_BYTES + BATCH_INDEX_BYTES, "{taken} bytes");
    }
}

/// Bytes of records, and the log they take.
fn extent(broker: &Broker) -> (u64, u64) {
    let messages = broker.sent.queues.values().flatten();
    let records = messages.map(|message| u64::from(message.bytes)).sum();
    (records, broker.store.written().0)
}

#[test]
fn many_small_messages_end_segments_early_and_all_of_them_are_there() {
    on_both(|root| async move {
        let mut broker = Broker::open(config(&root)).await;
        send(&mut broker, 400).await;
        let (records, log) = extent(&broker);
        assert!(log > 2 * records, "{log} bytes of log for {records}");
        broker.check().await;
        let sent = broker.close().await;
        let mut broker = Broker::reopen(config(&root), sent).await;
        broker.check().await;
        send(&mut broker, 200).await;
        let sent = broker.lose_power().await;
        let mut broker = Broker::reopen(config(&root), sent).await;
        broker.check().await;
        send(&mut broker, 50).await;
        broker.close().await;
    });
}

#[test]
fn large_messages_fill_their_segments() {
    on_both(|root| async move {
        let mut broker = Broker::open(config(&root)).await;
        for _ in 0..200 {
            broker.send(&[("t", 0, 6_000, None)]).await;
        }
        let (records, log) = extent(&broker);
        assert!(log < records * 5 / 4, "{log} bytes of log for {records}");
        broker.check().await;
        broker.close().await;
    });
}

#[test]
fn the_other_flusher_goes_on_behind_a_blank() {
    on_sim(1, |root| async move {
        let mut direct = config(&root);
        direct.flusher = FlusherKind::Direct;
        let mapped = config(&root);
        let mut broker = Broker::open(direct.clone()).await;
        send(&mut broker, 100).await;
        let mut broker = Broker::reopen(mapped, broker.kill()).await;
        broker.check().await;
        send(&mut broker, 100).await;
        let broker = Broker::reopen(direct, broker.kill()).await;
        broker.check().await;
        broker.close().await;
    });
}

#[test]
fn an_index_that_cannot_be_written_refuses_sends_until_it_can() {
    on_sim(1, |root| async move {
        let mut broker = Broker::open(config(&root)).await;
        // Nothing can take the name of a directory that is not empty.
        let in_the_way = root.join("orbit").join("00000000000000000000.index");
        fs::create_dir_all(&in_the_way.join("something")).expect("a directory can be made");
        let error = loop {
            let (mut batch, bodies) = broker.batch(&SMALL[..1]);
            broker.writer.append(&mut batch).await;
            broker.publish().await;
            match batch.items()[0].error {
                Some(error) => break error,
                None => {
                    let body = bodies.into_iter().next().expect("one message");
                    broker.acknowledge(&SMALL[0], body, &batch.items()[0]);
                }
            }
        };
        assert_eq!(error, AppendError::IndexBehind);
        broker.check().await;
        fs::remove_dir_all(&in_the_way).expect("just made");
        reactor::sleep(Duration::from_secs(10)).await;
        send(&mut broker, 200).await;
        broker.check().await;
        broker.close().await;
    });
}
