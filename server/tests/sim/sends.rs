//! What a send may be, what becomes of it, and in which code and words it is refused.

use std::time::Duration;

use protocol::body::Body;
use protocol::body::subscription_group::SubscriptionGroupConfig;
use protocol::code::{request, response};
use protocol::header::send::{SendAnswer, SendHeader};
use protocol::json::Dialect;
use protocol::names::SCHEDULE_TOPIC;
use protocol::properties;
use protocol::record::{View, parse_message_id};
use protocol::{Command, Text, Value, recall};
use reactor::sim::World;

use crate::cluster::{Cluster, connect, with_broker};
use crate::wire::{Wire, pull_header, send_header};

const TOPIC: &str = "sends";

/// Code, remark and place of an answered send.
struct Sent {
    code: i32,
    remark: String,
    place: Option<SendAnswer<'static>>,
}

async fn send_as(wire: &mut Wire, code: i32, header: &SendHeader<'_>, body: &[u8]) -> Sent {
    let frame = wire.ask(code, &header.fields(), body).await;
    let frame = frame.expect("nobody cuts the connection");
    let answer = Command::decode(&frame).expect("a command");
    let place = SendAnswer::from(&answer).ok().map(|place| SendAnswer {
        message_id: place.message_id.into_owned().into(),
        transaction_id: place.transaction_id.map(|id| id.into_owned().into()),
        batch_uniq_id: None,
        recall_handle: None,
        ..place
    });
    Sent {
        code: answer.code,
        remark: answer.remark_str().unwrap_or_default().into_owned(),
        place,
    }
}

async fn send(wire: &mut Wire, header: &SendHeader<'_>, body: &[u8]) -> Sent {
    send_as(wire, request::SEND_MESSAGE_V2, header, body).await
}

/// The stored record at an offset: its properties and reconsume times.
async fn stored(wire: &mut Wire, topic: &str, queue_id: i32, offset: u64) -> (Vec<u8>, i32) {
    let header = pull_header(topic, queue_id, offset, "*", 1_000);
    let frame = wire.ask(request::PULL_MESSAGE, &header.fields(), &[]).await;
    let frame = frame.expect("nobody cuts the connection");
    let answer = Command::decode(&frame).expect("a command");
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark_str());
    let view = View::parse(answer.body).expect("a record");
    assert_eq!(view.queue_offset, offset);
    (view.properties.to_vec(), view.reconsume_times)
}

#[test]
fn an_answer_says_where_the_message_is() {
    with_broker(1, async {
        let mut wire = connect().await;
        for expected in 0..3 {
            let header = send_header(TOPIC, 2, b"UNIQ_KEY\x01key\x02");
            let sent = send(&mut wire, &header, b"body").await;
            let place = sent.place.expect("sent");
            assert_eq!((place.queue_id, place.queue_offset), (2, expected));
            assert_eq!(place.transaction_id.as_deref(), Some("key"));
            let (host, _) = parse_message_id(&place.message_id).expect("an id");
            assert_eq!(host, Cluster::address());
        }
    });
}

#[test]
fn a_negative_queue_is_the_broker_s_choice() {
    with_broker(2, async {
        let mut wire = connect().await;
        let sent = send(&mut wire, &send_header(TOPIC, -1, b""), b"body").await;
        let place = sent.place.expect("sent");
        assert!((0..4).contains(&place.queue_id));
        let (stored, _) = stored(&mut wire, TOPIC, place.queue_id, 0).await;
        let key = properties::get(&stored, properties::UNIQ_KEY).expect("a key was made up");
        assert_eq!(key.len(), 32);
        let cluster = properties::get(&stored, properties::CLUSTER);
        assert_eq!(cluster, Some(&b"DefaultCluster"[..]));
    });
}

#[test]
fn what_is_too_large_or_empty_is_illegal_and_the_connection_lives() {
    with_broker(3, async {
        let mut wire = connect().await;
        let header = send_header(TOPIC, 0, b"");
        let largest = vec![b'x'; 4 << 20];
        assert_eq!(
            send(&mut wire, &header, &largest[..1024]).await.code,
            response::SUCCESS
        );

        let too_large = vec![b'x'; (4 << 20) + 1];
        let sent = send(&mut wire, &header, &too_large).await;
        assert_eq!(sent.code, response::MESSAGE_ILLEGAL);
        assert!(
            sent.remark.contains("msg body length limit 4194304B"),
            "{}",
            sent.remark
        );
        assert_eq!(
            send(&mut wire, &header, b"").await.code,
            response::MESSAGE_ILLEGAL
        );

        let properties = [b"a\x01".to_vec(), vec![b'p'; 32_767], b"\x02".to_vec()].concat();
        let header = send_header(TOPIC, 0, &properties);
        assert_eq!(
            send(&mut wire, &header, b"body").await.code,
            response::MESSAGE_ILLEGAL
        );
        let header = send_header(TOPIC, 0, b"");
        assert_eq!(
            send(&mut wire, &header, b"body").await.code,
            response::SUCCESS
        );
    });
}

#[test]
fn names_and_queues_that_cannot_be_are_refused() {
    with_broker(4, async {
        let mut wire = connect().await;
        let long = "t".repeat(128);
        let cases = [
            ("", 0, response::INVALID_PARAMETER),
            ("no spaces", 0, response::INVALID_PARAMETER),
            (long.as_str(), 0, response::INVALID_PARAMETER),
            (SCHEDULE_TOPIC, 0, response::NO_PERMISSION),
            ("TBW102", 100, response::INVALID_PARAMETER),
        ];
        for (topic, queue_id, code) in cases {
            let sent = send(&mut wire, &send_header(topic, queue_id, b""), b"body").await;
            assert_eq!(sent.code, code, "{topic}: {}", sent.remark);
            assert!(!sent.remark.is_empty());
        }
        let mut header = send_header("unknown", 0, b"");
        header.default_topic = Text::plain(b"no such pattern");
        assert_eq!(
            send(&mut wire, &header, b"body").await.code,
            response::TOPIC_NOT_EXIST
        );
    });
}

#[test]
fn a_timed_message_is_answered_for_its_queue_and_is_not_there_yet() {
    with_broker(5, async {
        let mut wire = connect().await;
        let timed = send_header(TOPIC, 2, b"TIMER_DELAY_MS\x015000\x02");
        let sent = send(&mut wire, &timed, b"body").await;
        assert_eq!(sent.code, response::SUCCESS);
        assert_eq!(sent.place.expect("sent").queue_id, 2);
        let plain = send_header(TOPIC, 2, b"UNIQ_KEY\x01key\x02");
        let sent = send(&mut wire, &plain, b"body").await;
        assert_eq!(
            sent.place.expect("sent").queue_offset,
            0,
            "the timed one has no place in the queue before its time"
        );
    });
}

#[test]
fn a_delay_level_sends_a_message_to_its_level_s_queue() {
    with_broker(6, async {
        let mut wire = connect().await;
        // Beyond the last level counts as the last.
        for (level, queue_id) in [("18", 17), ("99", 17)] {
            let sent = format!("DELAY\u{1}{level}\u{2}UNIQ_KEY\u{1}{level}\u{2}");
            let header = send_header(TOPIC, 3, sent.as_bytes());
            let sent = send(&mut wire, &header, b"body").await;
            let place = sent.place.expect("sent");
            assert_eq!(
                place.queue_id, 3,
                "the answer names the queue that was asked for"
            );
            let offset = place.queue_offset as u64;
            let (stored, _) = stored(&mut wire, SCHEDULE_TOPIC, queue_id, offset).await;
            assert_eq!(
                properties::get_str(&stored, properties::REAL_TOPIC),
                Some(TOPIC)
            );
            assert_eq!(
                properties::get_str(&stored, properties::REAL_QID),
                Some("3")
            );
        }
    });
}

#[test]
fn a_retry_goes_to_the_dead_letters_once_it_was_tried_too_often() {
    with_broker(7, async {
        let mut wire = connect().await;
        let group = SubscriptionGroupConfig {
            group_name: "tired".into(),
            ..SubscriptionGroupConfig::default()
        };
        let code = request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
        let made = wire.ask(code, &[], &group.to_json(Dialect::Strict)).await;
        let made = made.expect("nobody cuts the connection");
        let made = Command::decode(&made).expect("a command");
        assert_eq!(made.code, response::SUCCESS, "{:?}", made.remark_str());

        for (times, topic) in [(16, "%RETRY%tired"), (17, "%DLQ%tired")] {
            let mut header = send_header("%RETRY%tired", 0, b"DELAY\x010\x02");
            header.reconsume_times = times;
            let sent = send(&mut wire, &header, b"body").await;
            assert_eq!(sent.code, response::SUCCESS, "{}", sent.remark);
            let (properties, stored_times) = stored(&mut wire, topic, 0, 0).await;
            assert_eq!(stored_times, times);
            let delay = properties::get_str(&properties, properties::DELAY);
            assert_eq!(delay, Some(if times > 16 { "-1" } else { "0" }));
        }
        // The consumer may set another limit.
        let mut header = send_header("%RETRY%tired", 0, b"");
        (header.reconsume_times, header.max_reconsume_times) = (3, Some(2));
        let place = send(&mut wire, &header, b"body").await.place.expect("sent");
        stored(&mut wire, "%DLQ%tired", 0, place.queue_offset as u64).await;
    });
}

#[test]
fn what_has_no_room_for_the_broker_s_own_properties_is_answered_and_harms_nothing() {
    let cluster = Cluster::new(World::new(9), "1");
    let mut cluster = cluster.change(|settings| {
        settings.segment_bytes = 1 << 20;
        settings.recall = true;
    });
    cluster.start_broker();
    cluster.client(async {
        let mut wire = connect().await;
        let long = [b"a\x01".to_vec(), vec![b'p'; 32_680], b"\x02".to_vec()].concat();
        let sent = send(&mut wire, &send_header(TOPIC, 0, &long), b"body").await;
        assert_eq!(sent.code, response::SUCCESS, "{}", sent.remark);
        let id = sent.place.expect("sent").message_id;
        let (_, log_offset) = parse_message_id(&id).expect("an id");
        for delay_level in [0, -1] {
            let fields = [
                ("offset", Value::I64(log_offset as i64)),
                ("group", Value::Str("tired")),
                ("delayLevel", Value::I32(delay_level)),
            ];
            let code = request::CONSUMER_SEND_MSG_BACK;
            let answer = in_time(wire.ask(code, &fields, &[])).await;
            let answer = Command::decode(&answer).expect("a command");
            assert_eq!(answer.code, response::SYSTEM_ERROR);
            let remark = answer.remark_str().unwrap_or_default();
            assert!(remark.contains("too long for a record"), "{remark}");
        }

        let due_ms = reactor::wall_ms() + 60_000;
        let message_id = "i".repeat(20_000);
        let handle = recall::encode(TOPIC, "broker", due_ms, &message_id);
        let fields = [
            ("topic", Value::Str(TOPIC)),
            ("recallHandle", Value::Str(&handle)),
        ];
        let answer = in_time(wire.ask(request::RECALL_MESSAGE, &fields, &[])).await;
        let answer = Command::decode(&answer).expect("a command");
        assert_eq!(
            answer.remark_str().as_deref(),
            Some("recall failed, execute error")
        );

        let sent = send(&mut wire, &send_header(TOPIC, 0, b""), b"body").await;
        assert_eq!(sent.place.expect("sent").queue_offset, 1);
    });
}

/// A late answer that is lost never comes.
async fn in_time(answer: impl Future<Output = std::io::Result<Vec<u8>>>) -> Vec<u8> {
    let answer = reactor::timeout(Duration::from_secs(5), answer).await;
    answer
        .expect("an answer comes")
        .expect("nobody cuts the connection")
}

#[test]
fn a_broken_batch_is_refused_whole() {
    with_broker(8, async {
        let mut wire = connect().await;
        let mut header = send_header(TOPIC, 0, b"");
        header.batch = true;
        let message = protocol::batch::Inner {
            flag: 0,
            body: b"body",
            properties: b"",
        };
        let mut body = Vec::new();
        protocol::batch::append(&mut body, &message);
        protocol::batch::append(&mut body, &message);
        body.pop();
        let code = request::SEND_BATCH_MESSAGE;
        let sent = send_as(&mut wire, code, &header, &body).await;
        assert_eq!(sent.code, response::MESSAGE_ILLEGAL, "{}", sent.remark);
        header.topic = Text::plain(b"%RETRY%tired");
        let sent = send_as(&mut wire, code, &header, &body).await;
        assert_eq!(sent.code, response::MESSAGE_ILLEGAL, "{}", sent.remark);

        let place = send(&mut wire, &send_header(TOPIC, 0, b""), b"body")
            .await
            .place;
        assert_eq!(
            place.expect("sent").queue_offset,
            0,
            "nothing of the batch was kept"
        );
    });
}
