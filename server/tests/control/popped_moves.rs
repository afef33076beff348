//! Messages that were popped and not acknowledged when their log file goes.

use std::path::PathBuf;
use std::time::Duration;

use protocol::code::{request, response};
use reactor::{File, OpenOptions, fs};

use crate::cluster::{Cluster, STORE};
use crate::peer::Peer;
use crate::popped::{ONCE, Pop, TOPIC, ack, bodies, change, pop, seconds, send};
use crate::reclaim::{fill, min_offset};

/// Where messages of queue 0 move, and in which queue they are there.
const RETRY: (&str, i32) = ("%RETRY%g_t", 1);
const LONG: Pop<'static> = Pop {
    invisible_ms: 100_000,
    ..ONCE
};

/// Log files that are full go now.
async fn reclaim(peer: &mut Peer) {
    peer.make_topic("filler", 1).await;
    fill(peer, 3).await;
    let before = min_offset(peer, "filler").await;
    let kept = b"fileReservedTime=0\n";
    let answer = peer.ask(request::UPDATE_BROKER_CONFIG, &[], kept).await;
    assert!(
        answer.code == response::SUCCESS || answer.remark.contains("until the next start"),
        "{}",
        answer.remark
    );
    let code = request::DELETE_EXPIRED_COMMITLOG;
    peer.ask(code, &[], &[]).await;
    seconds(30).await;
    assert!(min_offset(peer, "filler").await > before, "files are gone");
}

#[test]
fn the_handle_of_a_message_is_good_after_its_log_file_is_gone() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        send(&mut peer, &["a", "b", "c", "d"]).await;
        let popped = pop(&mut peer, LONG).await;
        assert_eq!(bodies(&popped), ["a", "b", "c", "d"]);
        reclaim(&mut peer).await;
        assert_eq!(min_offset(&mut peer, TOPIC).await, 4, "their file is gone");
        assert_eq!(peer.max_offset(RETRY.0, RETRY.1).await, 4);

        let acked = ack(&mut peer, &popped[0]).await;
        assert_eq!(acked.code, response::SUCCESS, "{}", acked.remark);
        let back = change(&mut peer, &popped[1], 1_000).await;
        assert_eq!(back.code, response::SUCCESS, "{}", back.remark);
        seconds(2).await;
        let again = pop(&mut peer, ONCE).await;
        assert_eq!(bodies(&again), ["b"], "a is done, the others are hidden");
        assert_eq!(again[0].times, 1);
        ack(&mut peer, &again[0]).await;

        // What has moved moves again.
        reclaim(&mut peer).await;
        assert_eq!(peer.max_offset(RETRY.0, RETRY.1).await, 6);
        let acked = ack(&mut peer, &popped[2]).await;
        assert_eq!(acked.code, response::SUCCESS, "{}", acked.remark);
        seconds(100).await;
        let again = pop(&mut peer, ONCE).await;
        assert_eq!(bodies(&again), ["d"]);
        assert_eq!(again[0].times, 1);

        // Who waits is woken for what is hidden there.
        let held = Pop {
            poll_ms: 20_000,
            ..ONCE
        };
        let began = reactor::now();
        assert_eq!(bodies(&pop(&mut peer, held).await), ["d"]);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(12), "{took:?}");
    });
}

#[test]
fn in_order_what_has_moved_comes_before_what_was_not_popped_yet() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        send(&mut peer, &["a", "b"]).await;
        let first = Pop {
            order: true,
            attempt: "first",
            ..LONG
        };
        let other = Pop {
            attempt: "other",
            ..first
        };
        assert_eq!(bodies(&pop(&mut peer, first).await), ["a", "b"]);
        reclaim(&mut peer).await;
        send(&mut peer, &["c"]).await;
        assert!(pop(&mut peer, other).await.is_empty(), "the batch is out");
        let repeated = pop(&mut peer, first).await;
        assert_eq!(bodies(&repeated), ["a", "b"], "its answer was lost");
        ack(&mut peer, &repeated[1]).await;
        seconds(100).await;
        let again = pop(&mut peer, other).await;
        assert_eq!(bodies(&again), ["a"], "before c");
        let waiting = reactor::spawn("waiting", async move {
            let mut peer = Peer::connect().await;
            let held = Pop {
                attempt: "held",
                poll_ms: 60_000,
                ..other
            };
            let began = reactor::now();
            assert_eq!(bodies(&pop(&mut peer, held).await), ["c"]);
            assert!(began.elapsed() < Duration::from_secs(3));
        });
        seconds(2).await;
        ack(&mut peer, &again[0]).await;
        waiting.await.expect("it ran to its end");
    });
}

#[test]
fn a_message_that_is_lost_takes_none_behind_it_along() {
    let mut cluster = Cluster::start(&[]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        send(&mut peer, &["it is damaged", "b"]).await;
        assert_eq!(pop(&mut peer, LONG).await.len(), 2);
        peer.make_topic("filler", 1).await;
        fill(&mut peer, 3).await;
    });
    cluster.stop_broker();
    cluster.on_disk(|| {
        let path = PathBuf::from(STORE).join("commitlog").join("0".repeat(20));
        let bytes = fs::read(&path).expect("the first file of the log");
        let body = b"it is damaged";
        let at = bytes.windows(body.len()).position(|found| found == body);
        let options = OpenOptions {
            write: true,
            ..OpenOptions::default()
        };
        let file = File::open(&path, options).expect("it is there");
        let at = at.expect("it lies there") as u64;
        file.write_all_at_blocking(b"I", at).expect("written");
    });
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        reclaim(&mut peer).await;
        assert_eq!(min_offset(&mut peer, TOPIC).await, 2, "their file is gone");
        seconds(100).await;
        let again = pop(&mut peer, ONCE).await;
        assert_eq!(bodies(&again), ["b"]);
    });
}
