//! Where a group begins that has no offset yet: at 0 while nothing is gone and the first message is in memory, otherwise where
//! its client says.

use std::time::Duration;

use protocol::Value;
use protocol::code::{request, response};

use crate::cluster::Cluster;
use crate::peer::Peer;
use crate::popped::{ONCE, Pop, at, pop};

const TOPIC: &str = "t";
const BODY_BYTES: usize = 100 << 10;
/// Of a file of 1 MiB.
const BODIES_PER_FILE: usize = 11;

async fn fill(peer: &mut Peer, files: usize) -> i64 {
    peer.make_topic(TOPIC, 1).await;
    let body = vec![b'x'; BODY_BYTES];
    for _ in 0..files * BODIES_PER_FILE {
        let answer = peer.send(TOPIC, "", &body).await;
        assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
    }
    peer.max_offset(TOPIC, 0).await
}

async fn min_offset(peer: &mut Peer) -> i64 {
    let fields = [("topic", Value::Str(TOPIC)), ("queueId", Value::I32(0))];
    let answer = peer.ask(request::GET_MIN_OFFSET, &fields, &[]).await;
    answer.field("offset").parse().expect("a number")
}

/// What a group is handed that pops for the first time, from the end.
async fn popped_from_end(peer: &mut Peer) -> i64 {
    let first = Pop {
        count: 1,
        from_end: true,
        ..ONCE
    };
    let messages = pop(peer, first).await;
    assert_eq!(messages.len(), 1);
    at(&messages[0])
}

#[test]
fn a_queue_whose_beginning_is_gone_leaves_it_to_the_client() {
    let at_once = [
        ("fileReservedTime", "0"),
        (
            "deleteWhen",
            "00;01;02;03;04;05;06;07;08;09;10;11;12;13;14;15;16;17;18;19;20;21;22;23",
        ),
        ("cleanResourceInterval", "1000"),
        ("deleteCommitLogFilesInterval", "0"),
    ];
    Cluster::start(&at_once).clients(|| async {
        let mut peer = Peer::connect().await;
        let end = fill(&mut peer, 3).await;
        reactor::sleep(Duration::from_secs(20)).await;
        assert!(min_offset(&mut peer).await > 0, "its first file is gone");
        let answer = peer.committed("new", TOPIC).await;
        assert_eq!(answer.code, response::QUERY_NOT_FOUND, "{}", answer.remark);
        assert_eq!(popped_from_end(&mut peer).await, end - 1);
    });
}

#[test]
fn a_queue_whose_beginning_is_on_the_disk_only_leaves_it_to_the_client() {
    // What counts as in memory is the window: an eighth of it.
    for (memory, fits) in [("256M", false), ("512M", true)] {
        let settings = [("flusher", "direct"), ("memory", memory)];
        Cluster::start(&settings).clients(move || async move {
            let mut peer = Peer::connect().await;
            let end = fill(&mut peer, 36).await;
            assert_eq!(min_offset(&mut peer).await, 0);
            let answer = peer.committed("new", TOPIC).await;
            let (code, first) = match fits {
                true => (response::SUCCESS, 0),
                false => (response::QUERY_NOT_FOUND, end - 1),
            };
            assert_eq!(answer.code, code, "{memory} {}", answer.remark);
            assert_eq!(popped_from_end(&mut peer).await, first, "{memory}");
        });
    }
}
