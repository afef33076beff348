//! What becomes of popped messages when the disk is full, or the power is cut in the middle of a stop.

use std::time::Duration;

use protocol::code::response;
use reactor::sim::Faults;

use crate::cluster::Cluster;
use crate::peer::Peer;
use crate::popped::{ONCE, Pop, TOPIC, ack, ask_pop, bodies, pop, seconds, send};

const LONG: Pop<'static> = Pop {
    invisible_ms: 600_000,
    ..ONCE
};

fn set_full(cluster: &mut Cluster, is_full: bool) {
    let faults = Faults {
        full_at_bytes: is_full.then_some(1),
        ..cluster.world.faults()
    };
    cluster.world.set_faults(faults);
}

/// Until the log's last file has no room left for anything.
async fn fill_to_the_brim(peer: &mut Peer) {
    for bytes in [100 << 10, 10 << 10, 1 << 10, 100, 1] {
        while peer.send("filler", "", &vec![b'x'; bytes]).await.code == response::SUCCESS {}
    }
}

#[test]
fn pops_that_are_refused_are_no_deliveries() {
    let mut cluster = Cluster::start(&[]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        peer.make_topic("filler", 1).await;
        send(&mut peer, &["a"]).await;
    });
    set_full(&mut cluster, true);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        fill_to_the_brim(&mut peer).await;
        for number in 0..20 {
            let refused = ask_pop(&mut peer, ONCE).await;
            assert_eq!(refused.code, response::SYSTEM_ERROR, "{number}");
        }
    });
    set_full(&mut cluster, false);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        seconds(5).await;
        let popped = pop(&mut peer, ONCE).await;
        assert_eq!(bodies(&popped), ["a"], "it is no dead letter");
        assert!(popped[0].times <= 1, "{}", popped[0].times);
    });
}

#[test]
fn a_round_that_is_not_in_the_log_is_none() {
    let mut cluster = Cluster::start(&[]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        peer.make_topic("filler", 1).await;
        // More than one piece of a round holds.
        for _ in 0..4_300 {
            peer.send(TOPIC, "", b"m").await;
        }
        let mut popped = Vec::new();
        while popped.len() < 4_288 {
            popped.extend(pop(&mut peer, LONG).await);
        }
        for message in &popped[4_200..] {
            ack(&mut peer, message).await;
        }
    });
    set_full(&mut cluster, true);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        fill_to_the_brim(&mut peer).await;
        let refused = ask_pop(&mut peer, LONG).await;
        assert_eq!(refused.code, response::SYSTEM_ERROR, "a round is due");
        seconds(3).await;
    });
    set_full(&mut cluster, false);
    cluster.clients(|| seconds(5));
    cluster.kill_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        let left = pop(&mut peer, ONCE).await;
        assert_eq!(left.len(), 12, "the others are hidden or done");
        assert!(pop(&mut peer, ONCE).await.is_empty());
    });
}

#[test]
fn a_power_cut_while_it_stops_loses_no_message_that_is_out() {
    const STEPS: u32 = 16;
    let cut_after = |after: Duration| {
        let mut cluster = Cluster::start(&[]);
        cluster.clients(|| async {
            let mut peer = Peer::connect().await;
            peer.make_topic(TOPIC, 1).await;
            send(&mut peer, &["a"]).await;
            seconds(15).await; // The disk has it.
            assert_eq!(bodies(&pop(&mut peer, ONCE).await), ["a"]);
        });
        cluster.cut_power_while_stopping(after);
        cluster.start_broker();
        cluster.clients(move || async move {
            let mut peer = Peer::connect().await;
            seconds(11).await;
            assert_eq!(bodies(&pop(&mut peer, ONCE).await), ["a"], "{after:?}");
        });
    };
    let took = {
        let mut cluster = Cluster::start(&[]);
        let began = cluster.world.now();
        cluster.stop_broker();
        cluster.world.now().saturating_since(began)
    };
    for step in 0..STEPS {
        cut_after(took * step / STEPS);
    }
}
