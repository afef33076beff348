//! Transactions: one outcome each, questions to those who do not decide, and what operators find of the rest.

use std::path::Path;
use std::time::Duration;

use protocol::body::Body;
use protocol::body::heartbeat::{HeartbeatData, ProducerData};
use protocol::code::{request, response};
use protocol::json::Dialect;
use protocol::record::{Draft, View, len_at, parse_message_id};
use protocol::sysflag::{TRANSACTION_COMMIT, TRANSACTION_NONE, TRANSACTION_ROLLBACK};
use protocol::{Text, Value};
use protocol::{names, properties};
use reactor::{File, OpenOptions, fs};

use crate::cluster::{Cluster, STORE};
use crate::peer::{Heard, Peer};

const TOPIC: &str = "t";
const GROUP: &str = "producers";
/// Asked after a second, then every two seconds, three times at most.
const SOON: [(&str, &str); 3] = [
    ("transactionTimeOut", "1000"),
    ("transactionCheckInterval", "2000"),
    ("transactionCheckMax", "3"),
];
const QUESTION: i32 = request::CHECK_TRANSACTION_STATE;

/// Where a producer was told that its half message lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Half {
    offset: i64,
    log_offset: i64,
}

async fn producer() -> Peer {
    let mut peer = Peer::connect().await;
    let beat = HeartbeatData {
        client_id: "client".to_owned(),
        producer_data_set: vec![ProducerData {
            group_name: GROUP.to_owned(),
        }],
        ..HeartbeatData::default()
    };
    let body = beat.to_json(Dialect::Strict);
    peer.ask(request::HEART_BEAT, &[], &body).await;
    peer.make_topic(TOPIC, 1).await;
    peer
}

async fn try_prepare(peer: &mut Peer, properties: &str, body: &[u8]) -> Heard {
    let properties =
        format!("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}{GROUP}\u{2}UNIQ_KEY\u{1}ID\u{2}{properties}");
    let fields = [
        ("producerGroup", Value::Str(GROUP)),
        ("topic", Value::Str(TOPIC)),
        ("defaultTopic", Value::Str("TBW102")),
        ("defaultTopicQueueNums", Value::I32(4)),
        ("queueId", Value::I32(0)),
        ("sysFlag", Value::I32(4)),
        ("bornTimestamp", Value::I64(reactor::wall_ms())),
        ("flag", Value::I32(0)),
        ("properties", Value::Str(&properties)),
        ("reconsumeTimes", Value::I32(0)),
    ];
    peer.ask(request::SEND_MESSAGE, &fields, body).await
}

async fn prepare(peer: &mut Peer, properties: &str, body: &[u8]) -> Half {
    let answer = try_prepare(peer, properties, body).await;
    assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
    assert_eq!(answer.field("transactionId"), "ID");
    let (_, log_offset) = parse_message_id(answer.field("msgId")).expect("an offset id");
    Half {
        offset: answer.field("queueOffset").parse().expect("a number"),
        log_offset: log_offset as i64,
    }
}

async fn end_as(peer: &mut Peer, group: &str, half: Half, decision: i32) -> Heard {
    let fields = [
        ("producerGroup", Value::Str(group)),
        ("tranStateTableOffset", Value::I64(half.offset)),
        ("commitLogOffset", Value::I64(half.log_offset)),
        ("commitOrRollback", Value::I32(decision)),
        ("msgId", Value::Str("ID")),
    ];
    peer.ask(request::END_TRANSACTION, &fields, &[]).await
}

async fn end(peer: &mut Peer, half: Half, decision: i32) -> i32 {
    end_as(peer, GROUP, half, decision).await.code
}

/// What a question is about.
fn asked_about(question: &Heard) -> Half {
    Half {
        offset: question
            .field("tranStateTableOffset")
            .parse()
            .expect("a number"),
        log_offset: question.field("commitLogOffset").parse().expect("a number"),
    }
}

async fn question(peer: &mut Peer, within_ms: u64) -> Option<Heard> {
    peer.asked(QUESTION, Duration::from_millis(within_ms)).await
}

#[test]
fn a_committed_message_appears_once_and_a_rolled_back_one_never() {
    Cluster::start(&SOON).clients(|| async {
        let mut peer = producer().await;
        let kept = prepare(&mut peer, "TAGS\u{1}A\u{2}", b"kept").await;
        let dropped = prepare(&mut peer, "", b"dropped").await;
        assert_eq!(peer.max_offset(TOPIC, 0).await, 0, "nobody has decided");
        assert_eq!(
            end(&mut peer, kept, TRANSACTION_COMMIT).await,
            response::SUCCESS
        );
        assert_eq!(
            end(&mut peer, dropped, TRANSACTION_ROLLBACK).await,
            response::SUCCESS
        );
        for half in [kept, dropped] {
            for decision in [TRANSACTION_COMMIT, TRANSACTION_ROLLBACK] {
                let code = end(&mut peer, half, decision).await;
                assert_eq!(code, response::SYSTEM_ERROR, "the first decision counts");
            }
        }
        assert!(question(&mut peer, 10_000).await.is_none());
        assert_eq!(peer.max_offset(TOPIC, 0).await, 1);
        let found = peer.pull("g", TOPIC, 0).await;
        let view = View::parse(&found.body).expect("a record");
        assert_eq!(view.body, b"kept");
        assert_eq!(view.prepared_transaction_offset, kept.log_offset);
        let property = |name| properties::get_str(view.properties, name);
        assert_eq!(property(properties::TAGS), Some("A"));
        assert_eq!(property(properties::TRANSACTION_ID), Some("ID"));
        assert_eq!(property(properties::TRAN_MSG), None);
        assert_eq!(property(properties::REAL_TOPIC), None);
    });
}

#[test]
fn a_decision_that_names_another_message_or_group_changes_nothing() {
    Cluster::start(&SOON).clients(|| async {
        let mut peer = producer().await;
        let plain = peer.send(TOPIC, "", b"plain").await;
        let (_, elsewhere) = parse_message_id(plain.field("msgId")).expect("an offset id");
        let half = prepare(&mut peer, "", b"half").await;
        let wrong = [
            Half {
                log_offset: elsewhere as i64,
                ..half
            },
            Half {
                offset: half.offset + 1,
                ..half
            },
            Half { offset: -1, ..half },
            Half {
                offset: 77,
                log_offset: elsewhere as i64,
            },
            Half {
                offset: 77,
                log_offset: 1 << 40,
            },
        ];
        for half in wrong {
            let code = end(&mut peer, half, TRANSACTION_COMMIT).await;
            assert_eq!(code, response::SYSTEM_ERROR, "{half:?}");
        }
        let stranger = end_as(&mut peer, "others", half, TRANSACTION_COMMIT).await;
        assert_eq!(stranger.code, response::SYSTEM_ERROR);
        assert!(stranger.remark.contains("group"), "{}", stranger.remark);
        assert_eq!(
            end_as(&mut peer, GROUP, half, 1).await.code,
            response::SYSTEM_ERROR
        );
        assert_eq!(
            end(&mut peer, half, TRANSACTION_NONE).await,
            response::SUCCESS
        );
        assert_eq!(peer.max_offset(TOPIC, 0).await, 1, "the plain one");
        assert_eq!(
            end(&mut peer, half, TRANSACTION_COMMIT).await,
            response::SUCCESS
        );
        assert_eq!(peer.max_offset(TOPIC, 0).await, 2);
    });
}

#[test]
fn a_silent_producer_is_asked_in_time_and_its_answer_counts() {
    Cluster::start(&SOON).clients(|| async {
        let mut peer = producer().await;
        let began = reactor::now();
        let half = prepare(&mut peer, "", b"half").await;
        let first = question(&mut peer, 60_000).await.expect("it is asked");
        let after = began.elapsed();
        assert!(after >= Duration::from_secs(1), "{after:?}");
        assert!(after <= Duration::from_millis(1_300), "{after:?}");
        let view = View::parse(&first.body).expect("a record");
        assert_eq!((&*view.topic_str(), view.queue_id), (TOPIC, 0));
        assert_eq!(view.body, b"half");
        assert_eq!(first.field("msgId"), "ID");
        assert_eq!(first.field("transactionId"), "ID");
        assert_eq!(first.field("bname"), "broker-a");
        let (_, at) = parse_message_id(first.field("offsetMsgId")).expect("an offset id");
        assert_eq!(at as i64, asked_about(&first).log_offset);

        let second = question(&mut peer, 60_000).await.expect("it is asked");
        // From the copy on, which is a moment older than its question.
        assert!(began.elapsed() >= after + Duration::from_millis(1_900));
        assert_ne!(asked_about(&first), asked_about(&second));
        // Any place it was ever told of leads to the transaction.
        assert_eq!(
            end(&mut peer, half, TRANSACTION_COMMIT).await,
            response::SUCCESS
        );
        for place in [asked_about(&first), asked_about(&second), half] {
            let code = end(&mut peer, place, TRANSACTION_ROLLBACK).await;
            assert_eq!(code, response::SYSTEM_ERROR, "the first decision counts");
        }
        assert!(question(&mut peer, 20_000).await.is_none(), "it is over");
        assert_eq!(peer.max_offset(TOPIC, 0).await, 1);
    });
}

#[test]
fn after_the_last_question_an_operator_finds_it_and_can_have_it_asked_about_again() {
    Cluster::start(&SOON).clients(|| async {
        let mut peer = producer().await;
        let half = prepare(&mut peer, "", b"half").await;
        for times in 1..=3 {
            let question = question(&mut peer, 60_000).await.expect("it is asked");
            let view = View::parse(&question.body).expect("a record");
            let said = view.property(properties::TRANSACTION_CHECK_TIMES);
            assert_eq!(said, Some(times.to_string().as_bytes()));
        }
        assert!(
            question(&mut peer, 60_000).await.is_none(),
            "three times at most"
        );
        let late = end(&mut peer, half, TRANSACTION_COMMIT).await;
        assert_eq!(late, response::SYSTEM_ERROR);
        assert_eq!(peer.max_offset(TOPIC, 0).await, 0);
        let given_up = names::TRANS_CHECK_MAX_TIME_TOPIC;
        assert_eq!(peer.max_offset(given_up, 0).await, 1);
        let found = peer.pull("g", given_up, 0).await;
        let id = View::parse(&found.body).expect("a record").message_id();

        let fields = [("topic", Value::Str(given_up)), ("msgId", Value::Str(&id))];
        let resumed = peer
            .ask(request::RESUME_CHECK_HALF_MESSAGE, &fields, &[])
            .await;
        assert_eq!(resumed.code, response::SUCCESS, "{}", resumed.remark);
        let asked = question(&mut peer, 60_000).await.expect("it is asked");
        let code = end(&mut peer, asked_about(&asked), TRANSACTION_COMMIT).await;
        assert_eq!(code, response::SUCCESS);
        assert!(question(&mut peer, 20_000).await.is_none());
        assert_eq!(peer.max_offset(TOPIC, 0).await, 1);

        let plain = peer.send(TOPIC, "", b"plain").await;
        for id in [plain.field("msgId"), "x"] {
            let fields = [("topic", Value::Str(TOPIC)), ("msgId", Value::Str(id))];
            let refused = peer
                .ask(request::RESUME_CHECK_HALF_MESSAGE, &fields, &[])
                .await;
            assert_eq!(refused.code, response::SYSTEM_ERROR);
        }
    });
}

#[test]
fn while_nobody_of_the_group_is_there_no_question_is_counted() {
    Cluster::start(&SOON).clients(|| async {
        let mut stranger = Peer::connect().await;
        stranger.make_topic(TOPIC, 1).await;
        prepare(&mut stranger, "", b"half").await;
        reactor::sleep(Duration::from_secs(60)).await;
        let mut peer = producer().await;
        let asked = question(&mut peer, 2_300).await.expect("it is asked");
        let view = View::parse(&asked.body).expect("a record");
        let said = view.property(properties::TRANSACTION_CHECK_TIMES);
        assert_eq!(said, Some(&b"1"[..]));
    });
}

#[test]
fn one_that_asks_for_more_time_gets_it() {
    Cluster::start(&SOON).clients(|| async {
        let mut peer = producer().await;
        prepare(
            &mut peer,
            "CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}30\u{2}",
            b"half",
        )
        .await;
        assert!(question(&mut peer, 29_000).await.is_none());
        assert!(question(&mut peer, 2_000).await.is_some());
    });
}

#[test]
fn delays_begin_with_the_commit() {
    Cluster::start(&SOON).clients(|| async {
        let mut peer = producer().await;
        let delayed = [
            prepare(&mut peer, "DELAY\u{1}1\u{2}", b"level").await,
            prepare(&mut peer, "TIMER_DELAY_SEC\u{1}1\u{2}", b"time").await,
        ];
        reactor::sleep(Duration::from_millis(900)).await;
        for half in delayed {
            assert_eq!(
                end(&mut peer, half, TRANSACTION_COMMIT).await,
                response::SUCCESS
            );
        }
        reactor::sleep(Duration::from_millis(900)).await;
        assert_eq!(peer.max_offset(TOPIC, 0).await, 0, "not yet");
        reactor::sleep(Duration::from_millis(200)).await;
        assert_eq!(peer.max_offset(TOPIC, 0).await, 2);
        let too_far = "TIMER_DELAY_SEC\u{1}999999999\u{2}";
        let answer = try_prepare(&mut peer, too_far, b"never").await;
        assert_eq!(answer.code, response::MESSAGE_ILLEGAL);
    });
}

#[test]
fn a_restart_forgets_no_open_transaction_and_revives_no_decided_one() {
    let mut cluster = Cluster::start(&SOON);
    let halves = cluster.clients(|| async {
        let mut peer = producer().await;
        let mut halves = Vec::new();
        for number in 0..6u8 {
            halves.push(prepare(&mut peer, "", &[number]).await);
        }
        end(&mut peer, halves[0], TRANSACTION_COMMIT).await;
        end(&mut peer, halves[1], TRANSACTION_ROLLBACK).await;
        // Some have been asked about, and are copies by now.
        assert!(question(&mut peer, 60_000).await.is_some());
        halves
    });
    cluster.stop_broker();
    cluster.start_broker();
    let halves = cluster.clients(|| async move {
        let mut peer = producer().await;
        end(&mut peer, halves[2], TRANSACTION_COMMIT).await;
        end(&mut peer, halves[3], TRANSACTION_ROLLBACK).await;
        for &half in &halves[..4] {
            let code = end(&mut peer, half, TRANSACTION_COMMIT).await;
            assert_eq!(code, response::SYSTEM_ERROR, "the first decision counts");
        }
        halves
    });
    cluster.kill_broker();
    cluster.start_broker();
    cluster.clients(|| async move {
        let mut peer = producer().await;
        let mut asked = 0;
        while let Some(question) = question(&mut peer, 5_000).await {
            asked += 1;
            let place = asked_about(&question);
            assert_eq!(
                end(&mut peer, place, TRANSACTION_COMMIT).await,
                response::SUCCESS
            );
        }
        assert_eq!(asked, 2);
        for &half in &halves {
            let code = end(&mut peer, half, TRANSACTION_COMMIT).await;
            assert_eq!(code, response::SYSTEM_ERROR, "the first decision counts");
        }
        let found = peer.pull("g", TOPIC, 0).await;
        let mut rest = found.body.as_slice();
        let mut bodies = Vec::new();
        while !rest.is_empty() {
            let view = View::parse(rest).expect("a record");
            bodies.push(view.body[0]);
            rest = &rest[view.bytes.len()..];
        }
        bodies.sort_unstable();
        assert_eq!(bodies, [0, 2, 4, 5]);
    });
}

#[test]
fn a_commit_whose_mark_a_crash_took_is_not_made_again() {
    // What was laid is in the file at once.
    let settings = [&SOON[..], &[("flusher", "mmap")]].concat();
    let mut cluster = Cluster::start(&settings);
    cluster.clients(|| async {
        let mut peer = producer().await;
        prepare(&mut peer, "", b"open").await;
        let half = prepare(&mut peer, "", b"committed").await;
        assert_eq!(
            end(&mut peer, half, TRANSACTION_COMMIT).await,
            response::SUCCESS
        );
    });
    cluster.kill_broker();
    cluster.on_disk(take_last_record);
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = producer().await;
        assert_eq!(peer.max_offset(TOPIC, 0).await, 1, "it was there first");
        assert_eq!(peer.max_offset(names::TRANS_OP_HALF_TOPIC, 0).await, 1);
        while let Some(question) = question(&mut peer, 5_000).await {
            let view = View::parse(&question.body).expect("a record");
            assert_eq!(view.body, b"open");
        }
        assert_eq!(peer.max_offset(TOPIC, 0).await, 1);
    });
}

/// As if the process had died in front of it.
fn take_last_record() {
    let log = Path::new(STORE).join("commitlog").join("0".repeat(20));
    let bytes = fs::read(&log).expect("there");
    let mut last = 0..0;
    while let Ok(header) = len_at(&bytes[last.end..]) {
        last = last.end..last.end + header.total;
    }
    let view = View::parse(&bytes[last.clone()]).expect("a record");
    assert_eq!(view.topic, names::TRANS_OP_HALF_TOPIC.as_bytes());
    let options = OpenOptions {
        read: true,
        write: true,
        ..OpenOptions::default()
    };
    let file = File::open(&log, options).expect("there");
    let zeros = vec![0; last.len()];
    file.write_all_at_blocking(&zeros, last.start as u64)
        .expect("written");
}

#[test]
fn an_open_transaction_outlives_its_log_file() {
    let at_once = [
        ("fileReservedTime", "0"),
        (
            "deleteWhen",
            "00;01;02;03;04;05;06;07;08;09;10;11;12;13;14;15;16;17;18;19;20;21;22;23",
        ),
        ("cleanResourceInterval", "1000"),
        ("deleteCommitLogFilesInterval", "0"),
        ("transactionTimeOut", "60000"),
    ];
    let mut cluster = Cluster::start(&at_once);
    let half = cluster.clients(|| async {
        let mut peer = producer().await;
        peer.make_topic("filler", 1).await;
        let half = prepare(&mut peer, "", b"half").await;
        let other = prepare(&mut peer, "", b"other").await;
        assert_eq!(
            end(&mut peer, other, TRANSACTION_COMMIT).await,
            response::SUCCESS
        );
        for _ in 0..2 {
            let body = vec![b'x'; 100 << 10];
            for _ in 0..33 {
                let answer = peer.send("filler", "", &body).await;
                assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
            }
            reactor::sleep(Duration::from_secs(20)).await;
        }
        half
    });
    cluster.kill_broker();
    cluster.start_broker();
    cluster.clients(move || async move {
        let mut peer = producer().await;
        let halves = names::TRANS_HALF_TOPIC;
        assert!(peer.max_offset(halves, 0).await >= 4, "it was moved twice");
        let fields = [("topic", Value::Str(halves)), ("queueId", Value::I32(0))];
        let answer = peer.ask(request::GET_MIN_OFFSET, &fields, &[]).await;
        assert!(answer.field("offset").parse::<i64>().expect("a number") >= 2);
        // The place that its producer was told is gone.
        assert_eq!(
            end(&mut peer, half, TRANSACTION_COMMIT).await,
            response::SUCCESS
        );
        assert_eq!(peer.max_offset(TOPIC, 0).await, 2);
        assert!(question(&mut peer, 70_000).await.is_none());
    });
}

#[test]
fn transactions_can_be_switched_off_and_what_looks_like_half_of_one_is_refused() {
    let mut cluster = Cluster::start(&[("rejectTransactionMessage", "true")]);
    cluster.clients(|| async {
        let mut peer = producer().await;
        let answer = try_prepare(&mut peer, "", b"half").await;
        assert_eq!(answer.code, response::NO_PERMISSION);
        assert!(
            answer
                .remark
                .contains("sending transaction message is forbidden")
        );
        for sys_flag in [4, 12] {
            let fields = [
                ("producerGroup", Value::Str(GROUP)),
                ("topic", Value::Str(TOPIC)),
                ("defaultTopic", Value::Str("TBW102")),
                ("defaultTopicQueueNums", Value::I32(4)),
                ("queueId", Value::I32(0)),
                ("sysFlag", Value::I32(sys_flag)),
                ("bornTimestamp", Value::I64(1)),
                ("flag", Value::I32(0)),
                ("properties", Value::Str("")),
            ];
            let answer = peer.ask(request::SEND_MESSAGE, &fields, b"body").await;
            assert_eq!(answer.code, response::MESSAGE_ILLEGAL, "{sys_flag}");
        }
    });
}

/// As RocketMQ leaves it that is stopped before it marks what it has decided.
async fn rocketmq_commits(half: Half) {
    let mut config = engine::Config::for_root(Path::new(STORE));
    config.segment_bytes = 1 << 20;
    config.flusher = engine::FlusherKind::Mmap;
    let (store, mut writer) = engine::Store::open(config, |_| {}).await.expect("ours");
    let queue = store.queue(TOPIC, 0);
    let at = engine::LogOffset(u64::try_from(half.log_offset).expect("an offset"));
    let prepared = store.record_at(at).await.expect("readable");
    let prepared = prepared.expect("the half message");
    let prepared = View::parse(&prepared).expect("a record");
    let mut batch = engine::Batch::new(0);
    let host = crate::cluster::BROKER;
    batch.push(&queue, 0, 1, |out| {
        let draft = Draft {
            topic: TOPIC,
            queue_id: 0,
            flag: 0,
            sys_flag: TRANSACTION_COMMIT,
            born_ms: prepared.born_ms,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: half.log_offset,
            properties: Text::plain(prepared.properties),
            body: prepared.body,
        };
        draft.append_to(out)
    });
    writer.append(&mut batch).await;
    writer.publish();
    let end = writer.appended();
    while store.flushed() < end {
        reactor::sleep(Duration::from_millis(1)).await;
        writer.publish();
    }
    fs::create_dir_all(&Path::new(STORE).join("consumequeue")).expect("made");
}

#[test]
fn what_rocketmq_has_committed_and_not_marked_is_not_asked_about() {
    let mut cluster = Cluster::start(&SOON);
    let decided = cluster.clients(|| async {
        let mut peer = producer().await;
        let decided = prepare(&mut peer, "", b"decided").await;
        prepare(&mut peer, "", b"open").await;
        decided
    });
    cluster.stop_broker();
    cluster.on_machine(rocketmq_commits(decided));
    cluster.kill_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = producer().await;
        assert_eq!(peer.max_offset(TOPIC, 0).await, 1);
        let first = question(&mut peer, 5_000).await.expect("one is open");
        let body = View::parse(&first.body).expect("a record").body.to_vec();
        assert_eq!(body, b"open");
        assert_eq!(
            question(&mut peer, 1_000).await.map(|other| other.body),
            None
        );
    });
}
