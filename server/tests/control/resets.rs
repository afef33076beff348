//! Operators set where groups stand, whether their consumers are there or not.

use std::time::Duration;

use protocol::Value;
use protocol::body::consumer::ResetOffsets;
use protocol::code::{request, response};

use crate::cluster::Cluster;
use crate::peer::{Heard, Peer};

const MOVED: i32 = response::PULL_OFFSET_MOVED;

async fn reset(peer: &mut Peer, fields: &[(&str, Value<'_>)]) -> Heard {
    let mut all = vec![
        ("group", Value::Str("g")),
        ("topic", Value::Str("t")),
        ("isForce", Value::Bool(true)),
    ];
    all.extend_from_slice(fields);
    peer.ask(request::INVOKE_BROKER_TO_RESET_OFFSET, &all, &[])
        .await
}

async fn reset_to(peer: &mut Peer, offset: i64) -> Heard {
    let fields = [
        ("timestamp", Value::I64(-1)),
        ("queueId", Value::I32(0)),
        ("offset", Value::I64(offset)),
    ];
    reset(peer, &fields).await
}

/// A member of the group that has consumed ten messages.
async fn consumer() -> Peer {
    let mut peer = Peer::connect().await;
    peer.make_topic("t", 1).await;
    peer.join("a", "g", "t").await;
    for number in 0..10 {
        peer.send("t", "", &[number]).await;
    }
    peer.commit("g", "t", 10).await;
    peer
}

#[test]
fn a_consumer_is_sent_to_the_offset_and_what_it_commits_before_it_is_there_does_not_count() {
    Cluster::start(&[]).clients(|| async {
        let mut a = consumer().await;
        let mut operator = Peer::connect().await;
        let answer = reset_to(&mut operator, 3).await;
        assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
        let body = ResetOffsets::from_json(&answer.body).expect("offsets");
        assert_eq!(body.offsets.values().collect::<Vec<_>>(), [&3]);

        a.commit("g", "t", 10).await;
        let pulled = a.pull("g", "t", 10).await;
        assert_eq!((pulled.code, pulled.field("nextBeginOffset")), (MOVED, "3"));
        a.commit("g", "t", 10).await;
        assert_eq!(a.committed("g", "t").await.field("offset"), "3");

        let pulled = a.pull("g", "t", 3).await;
        assert_eq!((pulled.code, pulled.field("nextBeginOffset")), (0, "10"));
        a.commit("g", "t", 4).await;
        assert_eq!(a.committed("g", "t").await.field("offset"), "4");
        let pulled = a.pull("g", "t", 10).await;
        assert_ne!(pulled.code, MOVED, "that is over");
    });
}

#[test]
fn who_waits_for_new_messages_hears_of_a_reset_at_once() {
    Cluster::start(&[]).clients(|| async {
        let mut a = consumer().await;
        let parked = [
            ("consumerGroup", Value::Str("g")),
            ("topic", Value::Str("t")),
            ("queueId", Value::I32(0)),
            ("queueOffset", Value::I64(10)),
            ("maxMsgNums", Value::I32(32)),
            ("sysFlag", Value::I32(2)),
            ("commitOffset", Value::I64(0)),
            ("suspendTimeoutMillis", Value::I64(60_000)),
            ("subVersion", Value::I64(1)),
        ];
        a.write(request::PULL_MESSAGE, &parked).await;
        let mut operator = Peer::connect().await;
        reset_to(&mut operator, 0).await;
        let answer = reactor::timeout(Duration::from_secs(1), a.next_answer()).await;
        let answer = answer.expect("long before the pull's own time is up");
        assert_eq!((answer.code, answer.field("nextBeginOffset")), (MOVED, "0"));
    });
}

#[test]
fn who_does_not_follow_is_left_alone_after_a_while() {
    Cluster::start(&[]).clients(|| async {
        let mut a = consumer().await;
        reset_to(&mut a, 3).await;
        assert_eq!(a.pull("g", "t", 10).await.code, MOVED);
        reactor::sleep(Duration::from_secs(45)).await;
        assert_ne!(a.pull("g", "t", 10).await.code, MOVED);
        a.commit("g", "t", 10).await;
        assert_eq!(a.committed("g", "t").await.field("offset"), "10");
    });
}

#[test]
fn a_group_without_members_finds_the_message_of_the_very_millisecond() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        let mut times = Vec::new();
        for number in 0..10 {
            peer.send("t", "", &[number]).await;
            times.push(reactor::wall_ms());
            reactor::sleep(Duration::from_millis(1)).await;
        }
        peer.pull("g", "t", 0).await;
        for (offset, time_ms) in times.iter().enumerate() {
            let fields = [("timestamp", Value::I64(*time_ms))];
            assert_eq!(reset(&mut peer, &fields).await.code, response::SUCCESS);
            let committed = peer.committed("g", "t").await;
            // It was stored in this millisecond or in the one before.
            let found: usize = committed.field("offset").parse().expect("a number");
            assert!((offset..=offset + 1).contains(&found), "{offset}: {found}");
        }
        let end = [("timestamp", Value::I64(-1))];
        reset(&mut peer, &end).await;
        assert_eq!(peer.committed("g", "t").await.field("offset"), "10");
    });
}

#[test]
fn what_cannot_be_is_refused() {
    Cluster::start(&[]).clients(|| async {
        let mut a = consumer().await;
        for offset in [11, -2] {
            assert_eq!(reset_to(&mut a, offset).await.code, response::SYSTEM_ERROR);
        }
        let fields = [
            ("group", Value::Str("g")),
            ("topic", Value::Str("nowhere")),
            ("timestamp", Value::I64(0)),
        ];
        let code = request::INVOKE_BROKER_TO_RESET_OFFSET;
        let answer = a.ask(code, &fields, &[]).await;
        assert_eq!(answer.code, response::TOPIC_NOT_EXIST);
        assert_eq!(a.committed("g", "t").await.field("offset"), "10");
    });
}

#[test]
fn without_the_newer_way_the_members_are_asked_to_move_by_themselves() {
    let settings = [("useServerSideResetOffset", "false")];
    Cluster::start(&settings).clients(|| async {
        let mut a = consumer().await;
        assert_eq!(reset_to(&mut a, 3).await.code, response::SUCCESS);
        let code = request::RESET_CONSUMER_CLIENT_OFFSET;
        let told = a.asked(code, Duration::from_secs(1)).await.expect("told");
        let body = ResetOffsets::from_json(&told.body).expect("offsets");
        assert_eq!(body.offsets.values().collect::<Vec<_>>(), [&3]);
        assert_eq!(told.field("topic"), "t");
        assert_eq!(a.committed("g", "t").await.field("offset"), "10");
    });
}

#[test]
fn a_cloned_group_begins_where_the_other_one_stands() {
    Cluster::start(&[]).clients(|| async {
        let mut a = consumer().await;
        for topic in ["t", ""] {
            let copy = format!("copy{topic}");
            let fields = [
                ("srcGroup", Value::Str("g")),
                ("destGroup", Value::Str(&copy)),
                ("topic", Value::Str(topic)),
            ];
            let answer = a.ask(request::CLONE_GROUP_OFFSET, &fields, &[]).await;
            assert_eq!(answer.code, response::SUCCESS);
            assert_eq!(a.committed(&copy, "t").await.field("offset"), "10");
        }
    });
}
