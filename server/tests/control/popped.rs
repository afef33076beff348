//! POP over the wire: hidden, acknowledged, given back, in order, held; over restarts, kills and power cuts.

use std::time::Duration;

use protocol::Value;
use protocol::body::Body;
use protocol::body::pop::{
    BatchAck, BatchAckRequest, Bits, QueryAssignmentAnswer, QueryAssignmentRequest, RequestMode,
    SetRequestMode,
};
use protocol::code::{request, response};
use protocol::json::Dialect;
use protocol::record::View;

use crate::cluster::Cluster;
use crate::peer::{Heard, Peer};

pub const GROUP: &str = "g";
pub const TOPIC: &str = "t";
const HIDDEN_MS: i64 = 10_000;

/// How a test pops.
#[derive(Clone, Copy)]
pub struct Pop<'a> {
    pub count: i32,
    pub invisible_ms: i64,
    /// Where a group begins that has no offset.
    pub from_end: bool,
    pub poll_ms: i64,
    pub order: bool,
    pub attempt: &'a str,
    pub expression: &'a str,
}

pub const ONCE: Pop<'static> = Pop {
    count: 32,
    invisible_ms: HIDDEN_MS,
    from_end: false,
    poll_ms: 0,
    order: false,
    attempt: "",
    expression: "*",
};

pub fn at_most(count: i32) -> Pop<'static> {
    Pop { count, ..ONCE }
}

/// A message that was popped.
#[derive(Clone, Debug)]
pub struct Got {
    pub body: String,
    pub topic: String,
    pub queue_id: i32,
    pub offset: i64,
    pub times: i32,
    pub handle: String,
}

pub async fn pop(peer: &mut Peer, how: Pop<'_>) -> Vec<Got> {
    let answer = ask_pop(peer, how).await;
    match answer.code {
        response::SUCCESS => got(&answer),
        response::POLLING_TIMEOUT => Vec::new(),
        code => panic!("{code} {}", answer.remark),
    }
}

pub async fn ask_pop(peer: &mut Peer, how: Pop<'_>) -> Heard {
    peer.ask(request::POP_MESSAGE, &pop_fields(how), &[]).await
}

fn pop_fields(how: Pop<'_>) -> [(&'static str, Value<'_>); 12] {
    [
        ("consumerGroup", Value::Str(GROUP)),
        ("topic", Value::Str(TOPIC)),
        ("queueId", Value::I32(-1)),
        ("maxMsgNums", Value::I32(how.count)),
        ("invisibleTime", Value::I64(how.invisible_ms)),
        ("pollTime", Value::I64(how.poll_ms)),
        ("bornTime", Value::I64(reactor::wall_ms())),
        ("initMode", Value::I32(i32::from(how.from_end))),
        ("expType", Value::Str("TAG")),
        ("exp", Value::Str(how.expression)),
        ("order", Value::Bool(how.order)),
        ("attemptId", Value::Str(how.attempt)),
    ]
}

fn got(answer: &Heard) -> Vec<Got> {
    let mut rest = answer.body.as_slice();
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let view = View::parse(rest).expect("whole records");
        rest = &rest[view.bytes.len()..];
        let (queue_id, offset) = (view.queue_id, view.queue_offset);
        let mark = i32::from(view.topic.starts_with(b"%RETRY%"));
        let listed = format!("{mark} {queue_id} ");
        assert!(answer.field("startOffsetInfo").contains(&listed));
        assert!(answer.field("msgOffsetInfo").contains(&offset.to_string()));
        let handle = format!(
            "{offset} {} {} {} 0 broker {queue_id} {offset}",
            answer.field("popTime"),
            answer.field("invisibleTime"),
            answer.field("reviveQid"),
        );
        messages.push(Got {
            body: String::from_utf8_lossy(view.body).into_owned(),
            topic: view.topic_str().into_owned(),
            queue_id,
            offset: i64::try_from(offset).expect("small"),
            times: view.reconsume_times,
            handle,
        });
    }
    messages
}

pub fn at(message: &Got) -> i64 {
    message.offset
}

pub fn bodies(messages: &[Got]) -> Vec<&str> {
    messages
        .iter()
        .map(|message| message.body.as_str())
        .collect()
}

pub async fn ack(peer: &mut Peer, message: &Got) -> Heard {
    let fields = [
        ("consumerGroup", Value::Str(GROUP)),
        ("topic", Value::Str(&message.topic)),
        ("queueId", Value::I32(message.queue_id)),
        ("extraInfo", Value::Str(&message.handle)),
        ("offset", Value::I64(message.offset)),
    ];
    peer.ask(request::ACK_MESSAGE, &fields, &[]).await
}

pub async fn change(peer: &mut Peer, message: &Got, invisible_ms: i64) -> Heard {
    let fields = [
        ("consumerGroup", Value::Str(GROUP)),
        ("topic", Value::Str(&message.topic)),
        ("queueId", Value::I32(message.queue_id)),
        ("extraInfo", Value::Str(&message.handle)),
        ("offset", Value::I64(message.offset)),
        ("invisibleTime", Value::I64(invisible_ms)),
    ];
    let code = request::CHANGE_MESSAGE_INVISIBLETIME;
    peer.ask(code, &fields, &[]).await
}

pub async fn send(peer: &mut Peer, bodies: &[&str]) {
    for body in bodies {
        let sent = peer.send(TOPIC, "", body.as_bytes()).await;
        assert_eq!(sent.code, response::SUCCESS, "{}", sent.remark);
    }
}

pub async fn seconds(seconds: u64) {
    reactor::sleep(Duration::from_secs(seconds)).await;
}

#[test]
fn a_popped_message_is_hidden_then_visible_again_and_gone_once_acknowledged() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        send(&mut peer, &["a", "b", "c"]).await;
        let first = pop(&mut peer, ONCE).await;
        assert_eq!(bodies(&first), ["a", "b", "c"]);
        assert!(pop(&mut peer, ONCE).await.is_empty(), "they are hidden");
        assert_eq!(ack(&mut peer, &first[1]).await.code, response::SUCCESS);
        seconds(11).await;
        let again = pop(&mut peer, ONCE).await;
        assert_eq!(bodies(&again), ["a", "c"]);
        assert!(again.iter().all(|message| message.times == 1));
        assert_eq!(ack(&mut peer, &first[0]).await.code, response::SUCCESS);
        assert_eq!(ack(&mut peer, &again[1]).await.code, response::SUCCESS);
        seconds(11).await;
        let third = pop(&mut peer, ONCE).await;
        assert_eq!(
            bodies(&third),
            ["a"],
            "the handle of the first delivery was old"
        );
        assert_eq!(third[0].times, 2);
    });
}

#[test]
fn acks_come_in_batches_and_a_message_given_back_comes_when_asked_for() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        send(&mut peer, &["a", "b", "c", "d"]).await;
        let first = pop(&mut peer, ONCE).await;
        let words: Vec<&str> = first[0].handle.split(' ').collect();
        let mut bits = Bits::default();
        bits.set(0);
        bits.set(2);
        let batch = BatchAckRequest {
            broker_name: Some("broker".to_owned()),
            acks: vec![BatchAck {
                bits,
                consumer_group: GROUP.to_owned(),
                invisible_ms: HIDDEN_MS,
                pop_ms: words[1].parse().expect("a number"),
                retry: "0".to_owned(),
                topic: TOPIC.to_owned(),
                ..BatchAck::default()
            }],
        };
        let body = batch.to_json(Dialect::Strict);
        let acked = peer.ask(request::BATCH_ACK_MESSAGE, &[], &body).await;
        assert_eq!(acked.code, response::SUCCESS, "{}", acked.remark);

        let back = change(&mut peer, &first[1], 1_000).await;
        assert_eq!(back.code, response::SUCCESS);
        assert_eq!(back.field("invisibleTime"), "1000");
        let longer = change(&mut peer, &first[3], 60_000).await;
        assert_eq!(longer.code, response::SUCCESS);
        seconds(2).await;
        assert_eq!(bodies(&pop(&mut peer, ONCE).await), ["b"]);
        seconds(11).await;
        assert_eq!(
            bodies(&pop(&mut peer, ONCE).await),
            ["b"],
            "d is hidden for a minute"
        );
    });
}

#[test]
fn a_held_pop_is_woken_by_a_message_by_one_that_is_visible_again_or_by_its_time() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 4).await;
        let held = Pop {
            poll_ms: 20_000,
            ..ONCE
        };
        let began = reactor::now();
        assert!(pop(&mut peer, held).await.is_empty());
        assert!(began.elapsed() >= Duration::from_secs(20));

        let waiting = reactor::spawn("waiting", async move {
            let mut peer = Peer::connect().await;
            let began = reactor::now();
            let first = pop(&mut peer, held).await;
            assert_eq!(bodies(&first), ["a"]);
            assert!(
                began.elapsed() < Duration::from_secs(6),
                "{:?}",
                began.elapsed()
            );
            let second = pop(&mut peer, held).await;
            assert_eq!(bodies(&second), ["a"], "nobody acknowledged it");
            let took = began.elapsed();
            assert!(
                took > Duration::from_secs(14) && took < Duration::from_secs(17),
                "{took:?}"
            );
        });
        seconds(5).await;
        send(&mut peer, &["a"]).await;
        waiting.await.expect("it ran to its end");
    });
}

#[test]
fn in_order_a_queue_waits_for_its_batch_and_comes_again_from_what_is_left() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        send(&mut peer, &["a", "b", "c", "d"]).await;
        let ordered = Pop {
            count: 3,
            order: true,
            attempt: "one",
            ..ONCE
        };
        let other = Pop {
            attempt: "two",
            ..ordered
        };
        let first = pop(&mut peer, ordered).await;
        assert_eq!(bodies(&first), ["a", "b", "c"]);
        assert!(pop(&mut peer, other).await.is_empty(), "the batch is out");
        let repeated = pop(&mut peer, ordered).await;
        assert_eq!(bodies(&repeated), ["a", "b", "c"], "its answer was lost");
        assert!(repeated.iter().all(|message| message.times == 0));
        ack(&mut peer, &repeated[0]).await;
        ack(&mut peer, &repeated[2]).await;
        seconds(11).await;
        let answer = ask_pop(&mut peer, other).await;
        assert_eq!(bodies(&got(&answer)), ["b"]);
        assert_eq!(answer.field("orderCountInfo"), "0 qo0%1 1;0 0 1");
        ack(&mut peer, &got(&answer)[0]).await;
        assert_eq!(bodies(&pop(&mut peer, other).await), ["d"]);
    });
}

#[test]
fn a_held_ordered_pop_goes_on_as_soon_as_the_batch_is_done() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        send(&mut peer, &["a", "b"]).await;
        let ordered = Pop {
            count: 1,
            order: true,
            poll_ms: 9_000,
            ..ONCE
        };
        let first = pop(&mut peer, ordered).await;
        let waiting = reactor::spawn("waiting", async move {
            let mut peer = Peer::connect().await;
            let began = reactor::now();
            assert_eq!(bodies(&pop(&mut peer, ordered).await), ["b"]);
            assert!(began.elapsed() < Duration::from_secs(3));
        });
        seconds(2).await;
        ack(&mut peer, &first[0]).await;
        waiting.await.expect("it ran to its end");
    });
}

#[test]
fn what_is_hidden_or_done_stays_so_over_stops_and_kills() {
    let mut cluster = Cluster::start(&[]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        send(&mut peer, &["a", "b", "c", "d"]).await;
        let hour = Pop {
            count: 3,
            invisible_ms: 3_600_000,
            ..ONCE
        };
        let first = pop(&mut peer, hour).await;
        assert_eq!(bodies(&first), ["a", "b", "c"]);
        assert_eq!(ack(&mut peer, &first[1]).await.code, response::SUCCESS);
        change(&mut peer, &first[2], 5_000).await;
    });
    cluster.kill_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        assert_eq!(
            bodies(&pop(&mut peer, ONCE).await),
            ["d"],
            "a is hidden, b is done"
        );
    });
    cluster.stop_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        seconds(20).await;
        let mut left = pop(&mut peer, ONCE).await;
        left.extend(pop(&mut peer, ONCE).await);
        let mut found = bodies(&left);
        found.sort_unstable();
        assert_eq!(found, ["c", "d"]);
        let offset = peer.committed(GROUP, TOPIC).await;
        assert_eq!(offset.field("offset"), "0", "a is not done");
    });
}

#[test]
fn with_sync_flush_a_power_cut_takes_no_ack_and_hides_nothing_for_ever() {
    let mut cluster = Cluster::start(&[("flushDiskType", "SYNC_FLUSH")]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        send(&mut peer, &["a", "b"]).await;
        let first = pop(&mut peer, ONCE).await;
        assert_eq!(ack(&mut peer, &first[0]).await.code, response::SUCCESS);
    });
    cluster.cut_power();
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        assert!(pop(&mut peer, ONCE).await.is_empty(), "b is hidden still");
        seconds(11).await;
        assert_eq!(bodies(&pop(&mut peer, ONCE).await), ["b"]);
    });
}

#[test]
fn only_wanted_messages_come_and_the_others_are_passed_over() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        for (tag, body) in [("A", "1"), ("B", "2"), ("A", "3"), ("C", "4")] {
            let properties = format!("TAGS\u{1}{tag}\u{2}");
            peer.send(TOPIC, &properties, body.as_bytes()).await;
        }
        let wanted = Pop {
            expression: "B || C",
            ..ONCE
        };
        let first = pop(&mut peer, wanted).await;
        assert_eq!(bodies(&first), ["2", "4"]);
        for message in &first {
            ack(&mut peer, message).await;
        }
        seconds(2).await;
        let offset = peer.committed(GROUP, TOPIC).await;
        assert_eq!(offset.field("offset"), "4");
    });
}

#[test]
fn a_wanted_message_is_found_however_many_others_lie_before_it() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        for _ in 0..5_000 {
            peer.send(TOPIC, "TAGS\u{1}B\u{2}", b"other").await;
        }
        peer.send(TOPIC, "TAGS\u{1}A\u{2}", b"wanted").await;
        let held = Pop {
            expression: "A",
            poll_ms: 15_000,
            ..ONCE
        };
        let began = reactor::now();
        assert_eq!(bodies(&pop(&mut peer, held).await), ["wanted"]);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn a_message_that_fails_too_often_is_a_dead_letter() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        send(&mut peer, &["hard"]).await;
        let short = Pop {
            invisible_ms: 1_000,
            ..ONCE
        };
        for times in 0..=16 {
            let message = pop(&mut peer, short).await;
            assert_eq!(bodies(&message), ["hard"], "{times}");
            assert_eq!(message[0].times, times);
            seconds(2).await;
        }
        assert!(pop(&mut peer, short).await.is_empty());
        seconds(2).await;
        assert_eq!(peer.max_offset("%DLQ%g", 0).await, 1);
        seconds(100).await;
        assert!(pop(&mut peer, short).await.is_empty(), "it is done here");
    });
}

#[test]
fn a_notification_says_that_there_is_something_and_takes_nothing() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        let fields = |poll_ms| {
            [
                ("consumerGroup", Value::Str(GROUP)),
                ("topic", Value::Str(TOPIC)),
                ("queueId", Value::I32(-1)),
                ("pollTime", Value::I64(poll_ms)),
                ("bornTime", Value::I64(0)),
            ]
        };
        let ask = |poll_ms| async move {
            let mut peer = Peer::connect().await;
            let code = request::NOTIFICATION;
            let answer = peer.ask(code, &fields(poll_ms), &[]).await;
            answer.field("hasMsg").to_owned()
        };
        assert_eq!(ask(0).await, "false");
        assert_eq!(ask(2_000).await, "false");
        let waiting = reactor::spawn("waiting", ask(9_000));
        seconds(1).await;
        send(&mut peer, &["a"]).await;
        assert_eq!(waiting.await.as_deref(), Some("true"));
        assert_eq!(bodies(&pop(&mut peer, ONCE).await), ["a"]);
        assert_eq!(ask(0).await, "false", "it is hidden");
    });
}

#[test]
fn a_peek_leaves_everything_where_it_is() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        let fields = [
            ("consumerGroup", Value::Str(GROUP)),
            ("topic", Value::Str(TOPIC)),
            ("queueId", Value::I32(-1)),
            ("maxMsgNums", Value::I32(8)),
        ];
        let none = peer.ask(request::PEEK_MESSAGE, &fields, &[]).await;
        assert_eq!(none.code, response::PULL_NOT_FOUND);
        send(&mut peer, &["a", "b"]).await;
        for _ in 0..2 {
            let some = peer.ask(request::PEEK_MESSAGE, &fields, &[]).await;
            assert_eq!(some.code, response::SUCCESS);
            assert_eq!(some.field("restNum"), "2");
        }
        assert_eq!(pop(&mut peer, ONCE).await.len(), 2);
    });
}

#[test]
fn a_group_that_is_set_to_pop_is_assigned_all_queues_of_the_broker() {
    let mut cluster = Cluster::start(&[]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 4).await;
        peer.join("client", GROUP, TOPIC).await;
        assert_eq!(
            assigned(&mut peer).await,
            (RequestMode::Pull, vec![0, 1, 2, 3])
        );
        let mode = SetRequestMode {
            consumer_group: GROUP.to_owned(),
            mode: RequestMode::Pop,
            pop_share_queue_num: 8,
            topic: TOPIC.to_owned(),
        };
        let body = mode.to_json(Dialect::Strict);
        let set = peer
            .ask(request::SET_MESSAGE_REQUEST_MODE, &[], &body)
            .await;
        assert_eq!(set.code, response::SUCCESS, "{}", set.remark);
        assert_eq!(assigned(&mut peer).await, (RequestMode::Pop, vec![-1]));
    });
    cluster.kill_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.join("client", GROUP, TOPIC).await;
        assert_eq!(assigned(&mut peer).await, (RequestMode::Pop, vec![-1]));
    });
}

async fn assigned(peer: &mut Peer) -> (RequestMode, Vec<i32>) {
    let request = QueryAssignmentRequest {
        client_id: "client".to_owned(),
        consumer_group: GROUP.to_owned(),
        strategy_name: "AVG".to_owned(),
        topic: TOPIC.to_owned(),
        ..QueryAssignmentRequest::default()
    };
    let body = request.to_json(Dialect::Strict);
    let answer = peer.ask(request::QUERY_ASSIGNMENT, &[], &body).await;
    assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
    let answer = QueryAssignmentAnswer::from_json(&answer.body).expect("a body");
    let assignments = answer.message_queue_assignments.expect("some");
    let ids = assignments.iter().map(|one| one.message_queue.queue_id);
    (assignments[0].mode, ids.collect())
}

#[test]
fn held_pops_are_counted_and_share_what_comes() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        let mut waiting = Vec::new();
        for _ in 0..3 {
            let held = Pop {
                count: 1,
                poll_ms: 30_000,
                ..ONCE
            };
            waiting.push(reactor::spawn("waiting", async move {
                let mut peer = Peer::connect().await;
                let messages = pop(&mut peer, held).await;
                assert_eq!(messages.len(), 1, "each gets one");
            }));
        }
        seconds(1).await;
        let fields = [
            ("consumerGroup", Value::Str(GROUP)),
            ("topic", Value::Str(TOPIC)),
            ("queueId", Value::I32(-1)),
        ];
        let info = peer.ask(request::POLLING_INFO, &fields, &[]).await;
        assert_eq!(info.field("pollingNum"), "3");
        send(&mut peer, &["a", "b", "c"]).await;
        for task in waiting {
            task.await.expect("it ran to its end");
        }
    });
}

#[test]
fn many_held_pops_of_one_connection_leave_room_for_its_other_requests() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic(TOPIC, 1).await;
        let fields = pop_fields(Pop {
            poll_ms: 30_000,
            ..ONCE
        });
        for _ in 0..100 {
            peer.write(request::POP_MESSAGE, &fields).await;
        }
        // It is answered while all of them are held.
        assert_eq!(peer.max_offset(TOPIC, 0).await, 0);
    });
}
