//! Requests one by one: answers, refusals, settings and figures.

use std::path::Path;
use std::time::Duration;

use protocol::Value;
use protocol::body::Body;
use protocol::body::heartbeat::{CheckClientRequest, SubscriptionData};
use protocol::body::kv_table::KvTable;
use protocol::body::stats::{ConsumeStats, TopicStats};
use protocol::code::{request, response};
use protocol::json::Dialect;
use protocol::record::{View, parse_message_id};
use reactor::fs;

use crate::cluster::{Cluster, NAME_SERVER};
use crate::peer::Peer;

#[test]
fn an_unknown_code_is_answered_and_the_connection_lives() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        let answer = peer.ask(9_999, &[], &[]).await;
        assert_eq!(answer.code, response::REQUEST_CODE_NOT_SUPPORTED);
        assert_eq!(answer.remark, " request type 9999 not supported");
        assert_eq!(peer.max_offset("t", 0).await, 0);
    });
}

#[test]
fn bad_topics_are_refused_and_the_same_topic_twice_is_fine() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        let long = "x".repeat(128);
        for (topic, queues) in [
            ("a b", 1),
            ("", 1),
            (long.as_str(), 1),
            ("t", -1),
            ("SCHEDULE_TOPIC_XXXX", 1),
            ("broker-a", 1),
        ] {
            let answer = peer.make_topic(topic, queues).await;
            assert_eq!(answer.code, response::INVALID_PARAMETER, "{topic}");
        }
        for _ in 0..2 {
            assert_eq!(peer.make_topic("t", 2).await.code, response::SUCCESS);
        }
    });
}

#[test]
fn a_peer_that_takes_no_answers_has_its_further_requests_wait() {
    const TOPICS: usize = 300;
    const ASKED: usize = 400;
    Cluster::start(&[]).clients(|| async {
        let (mut peer, mut greedy) = (Peer::connect().await, Peer::connect().await);
        for number in 0..TOPICS {
            peer.make_topic(&format!("topic-{number:04}"), 1).await;
        }
        // All of it in one piece: tables of some 40 KiB each, and behind them something that can be seen elsewhere.
        greedy
            .ask_many(request::GET_ALL_TOPIC_CONFIG, ASKED, "behind")
            .await;
        reactor::sleep(Duration::from_secs(1)).await;
        let fields = [("topic", Value::Str("behind"))];
        let answer = peer.ask(request::GET_TOPIC_CONFIG, &fields, &[]).await;
        assert_eq!(answer.code, response::TOPIC_NOT_EXIST);
        for _ in 0..=ASKED {
            assert_eq!(greedy.next_answer().await.code, response::SUCCESS);
        }
        let answer = peer.ask(request::GET_TOPIC_CONFIG, &fields, &[]).await;
        assert_eq!(answer.code, response::SUCCESS);
    });
}

#[test]
fn a_group_with_more_retry_queues_than_anybody_can_mean_is_refused() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        for (queues, code) in [
            (i32::MAX, response::INVALID_PARAMETER),
            (-1, response::INVALID_PARAMETER),
            (8, response::SUCCESS),
        ] {
            let body = format!("{{\"groupName\":\"g\",\"retryQueueNums\":{queues}}}");
            let asked = request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
            let answer = peer.ask(asked, &[], body.as_bytes()).await;
            assert_eq!(answer.code, code, "{queues} {}", answer.remark);
        }
    });
}

#[test]
fn a_topic_of_mixed_types_is_made_only_where_the_settings_allow_it() {
    for (allowed, code) in [
        ("false", response::INVALID_PARAMETER),
        ("true", response::SUCCESS),
    ] {
        Cluster::start(&[("enableMixedMessageType", allowed)]).clients(move || async move {
            let mut peer = Peer::connect().await;
            for (kind, code) in [("NORMAL", response::SUCCESS), ("MIXED", code)] {
                let attributes = format!("+message.type={kind}");
                let fields = [
                    ("topic", Value::Str(kind)),
                    ("defaultTopic", Value::Str("TBW102")),
                    ("readQueueNums", Value::I32(1)),
                    ("writeQueueNums", Value::I32(1)),
                    ("perm", Value::I32(6)),
                    ("topicFilterType", Value::Str("SINGLE_TAG")),
                    ("topicSysFlag", Value::I32(0)),
                    ("order", Value::Bool(false)),
                    ("attributes", Value::Str(&attributes)),
                ];
                let made = request::UPDATE_AND_CREATE_TOPIC;
                let answer = peer.ask(made, &fields, &[]).await;
                assert_eq!(answer.code, code, "{kind} {allowed} {}", answer.remark);
            }
        });
    }
}

#[test]
fn a_topic_that_an_operator_calls_ordered_at_the_name_server_is_ordered_here() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("ordered", 1).await;
        peer.make_topic("other", 1).await;
        let mut name_server = Peer::connect_to(NAME_SERVER).await;
        let fields = [
            ("namespace", Value::Str("ORDER_TOPIC_CONFIG")),
            ("key", Value::Str("ordered")),
            ("value", Value::Str("broker-a:1")),
        ];
        let told = name_server.ask(request::PUT_KV_CONFIG, &fields, &[]).await;
        assert_eq!(told.code, response::SUCCESS, "{}", told.remark);
        // A registration period.
        reactor::sleep(Duration::from_secs(31)).await;
        for (topic, order) in [("ordered", "\"order\":true"), ("other", "\"order\":false")] {
            let fields = [("topic", Value::Str(topic))];
            let shown = peer.ask(request::GET_TOPIC_CONFIG, &fields, &[]).await;
            let shown = String::from_utf8(shown.body).expect("JSON is UTF-8");
            assert!(shown.contains(order), "{shown}");
        }
    });
}

#[test]
fn a_groups_retry_policy_is_kept_as_it_was_given() {
    const POLICIES: [&str; 2] = [
        r#"{"customizedRetryPolicy":{"next":[1000,7000]},"type":"CUSTOMIZED"}"#,
        r#"{"exponentialRetryPolicy":{"initial":1000,"max":60000,"multiplier":3},"type":"EXPONENTIAL"}"#,
    ];
    let mut cluster = Cluster::start(&[]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        for (number, policy) in POLICIES.into_iter().enumerate() {
            let config = format!(r#"{{"groupName":"g{number}","groupRetryPolicy":{policy}}}"#);
            let code = request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
            let answer = peer.ask(code, &[], config.as_bytes()).await;
            assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
        }
    });
    for restarted in [false, true] {
        if restarted {
            cluster.stop_broker();
            cluster.start_broker();
        }
        cluster.clients(move || async move {
            let mut peer = Peer::connect().await;
            for (number, policy) in POLICIES.into_iter().enumerate() {
                let group = format!("g{number}");
                let fields = [("group", Value::Str(&group))];
                let code = request::GET_SUBSCRIPTIONGROUP_CONFIG;
                let shown = peer.ask(code, &fields, &[]).await;
                let shown = String::from_utf8(shown.body).expect("JSON is UTF-8");
                let wanted = format!(r#""groupRetryPolicy":{policy}"#);
                assert!(shown.contains(&wanted), "{restarted} {shown}");
            }
        });
    }
}

#[test]
fn a_committed_offset_below_zero_counts_as_none() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        peer.join("a", "g", "t").await;
        peer.commit("g", "t", -1).await;
        assert_eq!(peer.committed("g", "t").await.field("offset"), "0");
    });
}

#[test]
fn a_new_group_starts_at_zero_on_an_empty_queue_and_on_one_that_begins_in_memory() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        assert_eq!(peer.committed("g", "t").await.field("offset"), "0");
        peer.send("t", "", b"x").await;
        assert_eq!(peer.committed("g", "t").await.field("offset"), "0");
        let fields = [
            ("consumerGroup", Value::Str("g")),
            ("topic", Value::Str("t")),
            ("queueId", Value::I32(0)),
            ("setZeroIfNotFound", Value::Bool(false)),
        ];
        let answer = peer.ask(request::QUERY_CONSUMER_OFFSET, &fields, &[]).await;
        assert_eq!(answer.code, response::QUERY_NOT_FOUND);
    });
}

#[test]
fn only_tag_filters_pass_the_check() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        for (kind, code) in [
            ("TAG", response::SUCCESS),
            ("SQL92", response::SYSTEM_ERROR),
        ] {
            let check = CheckClientRequest {
                subscription_data: Some(SubscriptionData {
                    expression_type: kind.to_owned(),
                    ..SubscriptionData::by_tags("t", "a > 1", 1)
                }),
                ..CheckClientRequest::default()
            };
            let body = check.to_json(Dialect::Strict);
            let answer = peer.ask(request::CHECK_CLIENT_CONFIG, &[], &body).await;
            assert_eq!(answer.code, code, "{kind}");
        }
    });
}

#[test]
fn settings_change_at_run_time_and_in_the_file() {
    let mut cluster = Cluster::prepare(&[]);
    cluster.on_disk(|| {
        fs::replace(Path::new("/broker.conf"), b"# mine\nbrokerPermission=6\n").expect("written");
    });
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        let update = |text: &'static str| (request::UPDATE_BROKER_CONFIG, text.as_bytes());
        let (code, body) = update("brokerPermission=4\n");
        assert_eq!(peer.ask(code, &[], body).await.code, response::SUCCESS);
        let (code, body) = update("listenPort=1\n");
        assert_eq!(
            peer.ask(code, &[], body).await.code,
            response::INVALID_PARAMETER
        );
        let (code, body) = update("configBlackList=\n");
        assert_eq!(
            peer.ask(code, &[], body).await.code,
            response::NO_PERMISSION
        );
        let shown = peer.ask(request::GET_BROKER_CONFIG, &[], &[]).await;
        let shown = String::from_utf8(shown.body).expect("text");
        assert!(shown.contains("\nbrokerPermission=4\n"));
        assert!(shown.contains("\nlistenPort=10911\n"));
    });
    let text = cluster.on_disk(|| fs::read(Path::new("/broker.conf")).expect("there"));
    assert_eq!(text, b"# mine\nbrokerPermission=4\n");
}

#[test]
fn figures_are_true_and_have_the_names_tools_parse() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 2).await;
        for _ in 0..3 {
            peer.send("t", "", b"body").await;
        }
        let answer = peer.ask(request::GET_BROKER_RUNTIME_INFO, &[], &[]).await;
        let table = KvTable::from_json(&answer.body).expect("a table").table;
        assert_eq!(table["putMessageTimesTotal"], "3");
        assert_eq!(table["msgPutTotalTodayNow"], "3");
        for key in [
            "bootTimestamp",
            "brokerVersionDesc",
            "putTps",
            "getTotalTps",
            "commitLogMaxOffset",
            "commitLogDiskRatio",
            "commitLogDirCapacity",
            "earliestMessageTimeStamp",
            "remainHowManyDataToFlush",
            "sendThreadPoolQueueCapacity",
            "dispatchBehindBytes",
        ] {
            assert!(table.contains_key(key), "{key}");
        }
        let written: u64 = table["commitLogMaxOffset"].parse().expect("a number");
        assert!(written > 0);
    });
}

#[test]
fn topic_and_group_statistics_agree_with_what_was_sent_and_committed() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 2).await;
        peer.join("a", "g", "t").await;
        for _ in 0..3 {
            peer.send("t", "", b"body").await;
        }
        peer.commit("g", "t", 2).await;
        let fields = [("topic", Value::Str("t"))];
        let answer = peer.ask(request::GET_TOPIC_STATS_INFO, &fields, &[]).await;
        let stats = TopicStats::from_json(&answer.body).expect("statistics");
        let ends: Vec<i64> = stats.offsets.values().map(|o| o.max_offset).collect();
        assert_eq!(ends, [3, 0]);

        let fields = [("consumerGroup", Value::Str("g"))];
        let answer = peer.ask(request::GET_CONSUME_STATS, &fields, &[]).await;
        let stats = ConsumeStats::from_json(&answer.body).expect("statistics");
        let (_, first) = stats.offsets.first_key_value().expect("two queues");
        assert_eq!((first.broker_offset, first.consumer_offset), (3, 2));
        assert!(first.last_timestamp > 0);
    });
}

#[test]
fn what_was_pulled_and_is_not_committed_yet_is_in_flight() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        peer.join("a", "g", "t").await;
        for _ in 0..3 {
            peer.send("t", "", b"body").await;
        }
        let stats = async |peer: &mut Peer| {
            // Shards tell the coordinator once a second.
            reactor::sleep(Duration::from_secs(2)).await;
            let fields = [("consumerGroup", Value::Str("g"))];
            let answer = peer.ask(request::GET_CONSUME_STATS, &fields, &[]).await;
            let stats = ConsumeStats::from_json(&answer.body).expect("statistics");
            let (_, queue) = stats.offsets.first_key_value().expect("one queue");
            (queue.consumer_offset, queue.pull_offset)
        };
        peer.commit("g", "t", 1).await;
        assert_eq!(stats(&mut peer).await, (1, 1), "nothing was pulled");
        let pulled = peer.pull("g", "t", 1).await;
        assert_eq!(pulled.field("nextBeginOffset"), "3");
        assert_eq!(stats(&mut peer).await, (1, 3));
        peer.commit("g", "t", 3).await;
        assert_eq!(stats(&mut peer).await, (3, 3));
    });
}

#[test]
fn a_message_is_shown_by_its_place_in_the_log() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        let sent = peer.send("t", "", b"find me").await;
        let (_, log_offset) = parse_message_id(sent.field("msgId")).expect("an offset id");
        let log_offset = i64::try_from(log_offset).expect("small");
        for (offset, code) in [
            (log_offset, response::SUCCESS),
            (log_offset + 1, response::SYSTEM_ERROR),
            (-1, response::SYSTEM_ERROR),
        ] {
            let fields = [("offset", Value::I64(offset))];
            let answer = peer.ask(request::VIEW_MESSAGE_BY_ID, &fields, &[]).await;
            assert_eq!(answer.code, code, "{offset}");
            if code == response::SUCCESS {
                let view = View::parse(&answer.body).expect("a record");
                assert_eq!(view.body, b"find me");
            }
        }
    });
}
