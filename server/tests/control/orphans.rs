//! Topics and power cuts: a message that was acknowledged durably has its topic afterwards, and a deleted topic stays so.

use std::path::Path;
use std::time::Duration;

use protocol::Value;
use protocol::body::Body;
use protocol::body::topic_config::TopicConfig;
use protocol::code::{request, response};
use reactor::fs;
use reactor::sim::Faults;

use crate::cluster::{Cluster, STORE};
use crate::peer::Peer;

const SYNC: [(&str, &str); 1] = [("flushDiskType", "SYNC_FLUSH")];
/// Longer than the tables wait to be saved.
const SAVED: Duration = Duration::from_secs(3);

/// How many queues a topic has; none if it is not there.
async fn queues(peer: &mut Peer, topic: &str) -> Option<i32> {
    let fields = [("topic", Value::Str(topic))];
    let answer = peer.ask(request::GET_TOPIC_CONFIG, &fields, &[]).await;
    if answer.code != response::SUCCESS {
        return None;
    }
    let config = TopicConfig::from_json(&answer.body).expect("a topic");
    assert_eq!(config.perm, 6);
    Some(config.write_queue_nums)
}

async fn delete(peer: &mut Peer, topic: &str) {
    let fields = [("topic", Value::Str(topic))];
    let code = request::DELETE_TOPIC_IN_BROKER;
    assert_eq!(peer.ask(code, &fields, &[]).await.code, response::SUCCESS);
}

/// As if the table had been lost, and the journal as well.
fn forget_topics(cluster: &mut Cluster) {
    cluster.on_disk(|| {
        let topics = Path::new(STORE).join("config").join("topics.json");
        fs::replace(&topics, br#"{"topicConfigTable":{}}"#).expect("written");
    });
}

#[test]
fn with_sync_flush_a_topic_survives_a_power_cut_as_it_was_acknowledged() {
    let mut cluster = Cluster::start(&SYNC);
    for round in 0..3 {
        cluster.clients(move || async move {
            let mut peer = Peer::connect().await;
            let made = peer.make_topic(&format!("made{round}"), 3).await;
            assert_eq!(made.code, response::SUCCESS);
            let sent = peer.send(&format!("sent{round}"), "", b"x").await;
            assert_eq!(sent.code, response::SUCCESS);
        });
        cluster.cut_power();
        cluster.start_broker();
    }
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        for round in 0..3 {
            let (made, sent) = (format!("made{round}"), format!("sent{round}"));
            assert_eq!(queues(&mut peer, &made).await, Some(3), "{made}");
            assert_eq!(queues(&mut peer, &sent).await, Some(4), "{sent}");
            assert_eq!(peer.max_offset(&sent, 0).await, 1);
        }
    });
}

#[test]
fn many_topics_made_at_once_share_syncs() {
    const TOPICS: usize = 20;
    let slow = Duration::from_millis(100);
    let mut cluster = Cluster::start(&SYNC);
    cluster.world.set_faults(Faults {
        disk_delay: (slow, slow),
        ..Faults::default()
    });
    let took = cluster.clients(|| async {
        let begin = reactor::now();
        let makers: Vec<_> = (0..TOPICS)
            .map(|number| {
                reactor::spawn("maker", async move {
                    let mut peer = Peer::connect().await;
                    let made = peer.make_topic(&format!("t{number}"), 1).await;
                    assert_eq!(made.code, response::SUCCESS);
                })
            })
            .collect();
        for maker in makers {
            maker.await;
        }
        begin.elapsed()
    });
    assert!(took >= 2 * slow, "a write and a sync: {took:?}");
    assert!(took < 10 * slow, "{took:?}");
}

#[test]
fn a_topic_that_only_its_messages_know_of_is_made_again_with_all_its_queues() {
    let mut cluster = Cluster::start(&[]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("lost", 6).await;
        peer.make_topic("empty", 6).await;
        let fields = |queue_id| {
            [
                ("producerGroup", Value::Str("p")),
                ("topic", Value::Str("lost")),
                ("defaultTopic", Value::Str("TBW102")),
                ("defaultTopicQueueNums", Value::I32(4)),
                ("queueId", Value::I32(queue_id)),
                ("sysFlag", Value::I32(0)),
                ("bornTimestamp", Value::I64(1)),
                ("flag", Value::I32(0)),
                ("properties", Value::Str("")),
            ]
        };
        for queue_id in [0, 4] {
            let sent = peer
                .ask(request::SEND_MESSAGE, &fields(queue_id), b"x")
                .await;
            assert_eq!(sent.code, response::SUCCESS, "{}", sent.remark);
        }
    });
    cluster.stop_broker();
    forget_topics(&mut cluster);
    cluster.start_broker();
    // Once more: what was made again is kept like any other topic.
    cluster.kill_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        assert_eq!(queues(&mut peer, "lost").await, Some(5));
        assert_eq!(queues(&mut peer, "empty").await, None);
        let pulled = peer.pull("g", "lost", 0).await;
        assert_eq!(pulled.code, response::SUCCESS, "{}", pulled.remark);
    });
}

#[test]
fn a_deleted_topic_with_messages_stays_deleted_and_one_that_was_made_anew_does_not() {
    for (settings, is_cut, waits) in [
        (&SYNC[..], true, false),
        (&SYNC, true, true),
        (&[], false, false),
        (&[], false, true),
    ] {
        let mut cluster = Cluster::start(settings);
        cluster.clients(move || async move {
            let mut peer = Peer::connect().await;
            for topic in ["gone", "anew"] {
                peer.make_topic(topic, 1).await;
                peer.send(topic, "", b"x").await;
                delete(&mut peer, topic).await;
            }
            if waits {
                reactor::sleep(SAVED).await;
            }
            peer.make_topic("anew", 2).await;
            if waits {
                reactor::sleep(SAVED).await;
            }
        });
        if is_cut {
            cluster.cut_power();
        } else {
            cluster.kill_broker();
        }
        for _ in 0..2 {
            cluster.start_broker();
            cluster.clients(|| async {
                let mut peer = Peer::connect().await;
                assert_eq!(queues(&mut peer, "gone").await, None);
                assert_eq!(queues(&mut peer, "anew").await, Some(2));
            });
            cluster.stop_broker();
        }
    }
}

#[test]
fn without_a_list_of_deleted_topics_as_after_rocketmq_no_topic_is_made_again() {
    let mut cluster = Cluster::start(&[]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("unknown", 1).await;
        peer.send("unknown", "", b"x").await;
    });
    cluster.stop_broker();
    forget_topics(&mut cluster);
    cluster.on_disk(|| {
        let list = Path::new(STORE).join("orbit").join("deleted-topics.json");
        fs::remove_file(&list).expect("it was there");
    });
    for _ in 0..2 {
        cluster.start_broker();
        cluster.clients(|| async {
            assert_eq!(queues(&mut Peer::connect().await, "unknown").await, None);
        });
        cluster.stop_broker();
    }
}

#[test]
fn a_disk_that_takes_nothing_does_not_keep_a_new_group_from_reading_and_gets_the_group_later() {
    for settings in [&[][..], &SYNC] {
        let mut cluster = Cluster::start(settings);
        cluster.clients(|| async {
            let mut peer = Peer::connect().await;
            peer.make_topic("t", 1).await;
            peer.send("t", "", b"x").await;
        });
        cluster.world.set_faults(Faults {
            write_error_ppm: 1_000_000,
            ..Faults::default()
        });
        cluster.clients(|| async {
            let mut peer = Peer::connect().await;
            let pulled = peer.pull("new", "t", 0).await;
            assert_eq!(pulled.code, response::SUCCESS, "{}", pulled.remark);
            assert!(!pulled.body.is_empty());
            // Whoever makes a topic is told.
            let made = peer.make_topic("other", 1).await;
            assert_eq!(made.code, response::SYSTEM_ERROR);
            reactor::sleep(SAVED).await;
        });
        cluster.world.set_faults(Faults::default());
        cluster.clients(|| async { reactor::sleep(Duration::from_millis(1_500)).await });
        cluster.kill_broker();
        cluster.start_broker();
        cluster.clients(|| async {
            let mut peer = Peer::connect().await;
            let fields = [("group", Value::Str("new"))];
            let code = request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG;
            let groups = peer.ask(code, &fields, &[]).await;
            assert!(String::from_utf8_lossy(&groups.body).contains("\"new\""));
            assert_eq!(queues(&mut peer, "other").await, Some(1));
        });
    }
}

#[test]
fn a_topic_that_is_deleted_and_made_again_begins_without_messages_and_goes_on_counting() {
    let mut cluster = Cluster::start(&[]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        for _ in 0..3 {
            peer.send("t", "", b"old").await;
        }
        delete(&mut peer, "t").await;
        peer.make_topic("t", 1).await;
        assert_eq!(bounds(&mut peer, "t").await, (3, 3));
        peer.send("t", "", b"new").await;
        assert_eq!(bounds(&mut peer, "t").await, (3, 4));
    });
    for orderly in [false, true] {
        match orderly {
            true => cluster.stop_broker(),
            false => cluster.kill_broker(),
        }
        cluster.start_broker();
        cluster.clients(|| async {
            let mut peer = Peer::connect().await;
            assert_eq!(
                bounds(&mut peer, "t").await,
                (3, 4),
                "what is deleted stays so"
            );
        });
    }
}

#[test]
fn a_power_cut_behind_a_deletion_hides_nothing_that_is_sent_after_it() {
    let mut cluster = Cluster::start(&[("flushCommitLogThoroughInterval", "60000")]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        for _ in 0..3 {
            peer.send("t", "", b"old").await;
        }
        delete(&mut peer, "t").await;
        reactor::sleep(SAVED).await;
    });
    cluster.cut_power();
    cluster.start_broker();
    let before = cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        let (first, end) = bounds(&mut peer, "t").await;
        assert_eq!(first, end, "what the disk still has is deleted");
        peer.send("t", "", b"new").await;
        (first, end + 1)
    });
    for _ in 0..2 {
        cluster.kill_broker();
        cluster.start_broker();
        let now = cluster.clients(|| async { bounds(&mut Peer::connect().await, "t").await });
        assert_eq!(now, before);
    }
}

#[test]
fn while_tables_cannot_be_saved_journals_do_not_pile_up() {
    let mut cluster = Cluster::start(&[]);
    let in_the_way = || Path::new(STORE).join("config").join("topics.json.tmp");
    cluster.on_disk(move || fs::create_dir_all(&in_the_way()).expect("made"));
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        for number in 0..20 {
            peer.make_topic(&format!("t{number}"), 1).await;
            reactor::sleep(Duration::from_secs(1)).await;
        }
    });
    let journals = || {
        let names = fs::list(&Path::new(STORE).join("orbit")).expect("there");
        let journals = names.iter().filter(|name| name.ends_with(".journal"));
        journals.count()
    };
    let left = cluster.on_disk(journals);
    assert!(left <= 2, "{left} journals");
    cluster.on_disk(move || fs::remove_dir_all(&in_the_way()).expect("it is there"));
    cluster.clients(|| async { reactor::sleep(SAVED).await });
    cluster.kill_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        assert_eq!(queues(&mut peer, "t19").await, Some(1));
    });
}

/// Where the first queue begins and ends.
async fn bounds(peer: &mut Peer, topic: &str) -> (i64, i64) {
    let fields = [("topic", Value::Str(topic)), ("queueId", Value::I32(0))];
    let answer = peer.ask(request::GET_MIN_OFFSET, &fields, &[]).await;
    let first = answer.field("offset").parse().expect("a number");
    (first, peer.max_offset(topic, 0).await)
}
