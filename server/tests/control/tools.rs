//! What the dashboard, the exporter and mqadmin send to a broker, with the fields they send: every code is served.

use protocol::body::Body;
use protocol::body::consumer::ConsumerStatus;
use protocol::body::figures::{
    BrokerStats, ConsumeQueueEntries, ConsumeTimeSpans, ProducerTable, ReplicationState,
    SubscriptionGroupList,
};
use protocol::body::kv_table::KvTable;
use protocol::body::static_topic::TopicConfigAndMapping;
use protocol::body::stats::{ConsumeStats, TopicStats};
use protocol::body::subscription_group::SubscriptionGroupConfig;
use protocol::body::topic_config::{CreateTopicList, TopicConfig};
use protocol::code::{request, response};
use protocol::json::{self, Dialect};
use protocol::{Value, properties};
use std::collections::BTreeSet;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::peer::Peer;

type Fields = &'static [(&'static str, &'static str)];

const TOPIC: Fields = &[("topic", "t")];
const QUEUE: Fields = &[("topic", "t"), ("queueId", "0")];
const GROUP: Fields = &[("consumerGroup", "g")];

/// Code, fields, body. A topic `t` with messages and a group `g` with a consumer are there.
const REQUESTS: &[(i32, Fields, &str)] = &[
    (
        request::QUERY_MESSAGE,
        &[
            ("topic", "t"),
            ("key", "k"),
            ("maxNum", "32"),
            ("beginTimestamp", "0"),
            ("endTimestamp", "9223372036854775807"),
            ("_UNIQUE_KEY_QUERY", "false"),
        ],
        "",
    ),
    (
        request::UPDATE_CONSUMER_OFFSET,
        &[
            ("consumerGroup", "g"),
            ("topic", "t"),
            ("queueId", "0"),
            ("commitOffset", "1"),
        ],
        "",
    ),
    (
        request::UPDATE_AND_CREATE_TOPIC,
        &[
            ("topic", "u"),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", "4"),
            ("writeQueueNums", "4"),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("topicSysFlag", "0"),
            ("order", "false"),
            ("attributes", "+message.type=NORMAL"),
        ],
        "",
    ),
    (request::GET_ALL_TOPIC_CONFIG, &[], ""),
    (
        request::UPDATE_BROKER_CONFIG,
        &[],
        "waitTimeMillsInSendQueue=300\n",
    ),
    (request::GET_BROKER_CONFIG, &[], ""),
    (request::GET_BROKER_RUNTIME_INFO, &[], ""),
    (
        request::SEARCH_OFFSET_BY_TIMESTAMP,
        &[
            ("topic", "t"),
            ("queueId", "0"),
            ("timestamp", "0"),
            ("boundaryType", "lower"),
        ],
        "",
    ),
    (request::GET_MAX_OFFSET, QUEUE, ""),
    (request::GET_MIN_OFFSET, QUEUE, ""),
    (request::GET_EARLIEST_MSG_STORETIME, QUEUE, ""),
    (
        request::VIEW_MESSAGE_BY_ID,
        &[("topic", "t"), ("offset", "0")],
        "",
    ),
    (
        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP,
        &[],
        r#"{"groupName":"made","retryQueueNums":1}"#,
    ),
    (request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &[], ""),
    (request::GET_TOPIC_STATS_INFO, TOPIC, ""),
    (request::GET_CONSUMER_CONNECTION_LIST, GROUP, ""),
    (
        request::GET_PRODUCER_CONNECTION_LIST,
        &[("producerGroup", "p")],
        "",
    ),
    (
        request::GET_CONSUME_STATS,
        &[("consumerGroup", "g"), ("topic", "t")],
        "",
    ),
    (request::QUERY_TOPIC_CONSUME_BY_WHO, TOPIC, ""),
    (
        request::QUERY_CONSUME_TIME_SPAN,
        &[("topic", "t"), ("group", "g")],
        "",
    ),
    (request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER, &[], ""),
    (request::CLEAN_EXPIRED_CONSUMEQUEUE, &[], ""),
    (
        request::VIEW_BROKER_STATS_DATA,
        &[
            ("statsName", "BROKER_PUT_NUMS"),
            ("statsKey", "DefaultCluster"),
        ],
        "",
    ),
    (request::CLEAN_UNUSED_TOPIC, &[], ""),
    (
        request::GET_BROKER_CONSUME_STATS,
        &[("isOrder", "false")],
        "",
    ),
    (
        request::QUERY_CONSUME_QUEUE,
        &[
            ("topic", "t"),
            ("queueId", "0"),
            ("index", "0"),
            ("count", "10"),
            ("consumerGroup", "g"),
        ],
        "",
    ),
    (request::GET_ALL_PRODUCER_INFO, &[], ""),
    (request::DELETE_EXPIRED_COMMITLOG, &[], ""),
    (request::QUERY_TOPICS_BY_CONSUMER, &[("group", "g")], ""),
    (
        request::QUERY_SUBSCRIPTION_BY_CONSUMER,
        &[("group", "g"), ("topic", "t")],
        "",
    ),
    (
        request::QUERY_CORRECTION_OFFSET,
        &[("topic", "t"), ("compareGroup", "g"), ("filterGroups", "x")],
        "",
    ),
    (
        request::GET_TOPIC_CONFIG,
        &[("topic", "t"), ("lo", "true")],
        "",
    ),
    (request::GET_SUBSCRIPTIONGROUP_CONFIG, &[("group", "g")], ""),
    (request::UPDATE_COLD_DATA_FLOW_CTR_CONFIG, &[], "g=1000\n"),
    (request::REMOVE_COLD_DATA_FLOW_CTR_CONFIG, &[], "g"),
    (request::GET_COLD_DATA_FLOW_CTR_INFO, &[], ""),
    (
        request::SET_COMMITLOG_READ_MODE,
        &[("READ_AHEAD_MODE", "0")],
        "",
    ),
    (request::GET_BROKER_HA_STATUS, &[], ""),
    (
        request::RESET_MASTER_FLUSH_OFFSET,
        &[("masterFlushOffset", "0")],
        "",
    ),
    (
        request::CHECK_ROCKSDB_CQ_WRITE_PROGRESS,
        &[("topic", "t"), ("checkStoreTime", "0")],
        "",
    ),
    (
        request::EXPORT_ROCKSDB_CONFIG_TO_JSON,
        &[("configType", "topics;subscriptionGroups")],
        "",
    ),
    (request::SWITCH_TIMER_ENGINE, &[("E_T", "F")], ""),
    (
        request::UPDATE_AND_CREATE_TOPIC_LIST,
        &[],
        r#"{"topicConfigList":[{"topicName":"l","readQueueNums":3,"writeQueueNums":3,"perm":6,"topicFilterType":"SINGLE_TAG"}]}"#,
    ),
    (
        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST,
        &[],
        r#"{"groupConfigList":[{"groupName":"gl"}]}"#,
    ),
    (request::POP_ROLLBACK, &[], ""),
    (
        request::SET_MESSAGE_REQUEST_MODE,
        &[],
        r#"{"topic":"t","consumerGroup":"g","mode":"POP","popShareQueueNum":4}"#,
    ),
    (
        request::INVOKE_BROKER_TO_RESET_OFFSET,
        &[
            ("topic", "t"),
            ("group", "g"),
            ("timestamp", "0"),
            ("isForce", "true"),
        ],
        "",
    ),
    (
        request::CLONE_GROUP_OFFSET,
        &[
            ("srcGroup", "g"),
            ("destGroup", "copy"),
            ("topic", "t"),
            ("offline", "false"),
        ],
        "",
    ),
    (
        request::UPDATE_AND_GET_GROUP_FORBIDDEN,
        &[("group", "g"), ("topic", "t"), ("readable", "true")],
        "",
    ),
    (request::GET_ALL_CONSUMER_OFFSET, &[], ""),
    (request::GET_ALL_DELAY_OFFSET, &[], ""),
    (
        request::LITE_PULL_MESSAGE,
        &[
            ("consumerGroup", "lite"),
            ("topic", "t"),
            ("queueId", "0"),
            ("queueOffset", "0"),
            ("maxMsgNums", "32"),
            ("sysFlag", "4"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "0"),
            ("subscription", "*"),
            ("subVersion", "1"),
        ],
        "",
    ),
    (
        request::UNLOCK_BATCH_MQ,
        &[],
        r#"{"clientId":"client","consumerGroup":"g","mqSet":[{"brokerName":"broker-a","queueId":0,"topic":"t"}]}"#,
    ),
    (
        request::DELETE_SUBSCRIPTIONGROUP,
        &[("groupName", "made"), ("cleanOffset", "true")],
        "",
    ),
    (request::DELETE_TOPIC_IN_BROKER, &[("topic", "u")], ""),
];

/// What clients send, and what is handed on to clients: each has its tests in other files of this folder.
const ELSEWHERE: &[i32] = &[
    request::SEND_MESSAGE,
    request::SEND_MESSAGE_V2,
    request::SEND_BATCH_MESSAGE,
    request::PULL_MESSAGE,
    request::QUERY_CONSUMER_OFFSET,
    request::HEART_BEAT,
    request::UNREGISTER_CLIENT,
    request::CONSUMER_SEND_MSG_BACK,
    request::END_TRANSACTION,
    request::GET_CONSUMER_LIST_BY_GROUP,
    request::LOCK_BATCH_MQ,
    request::CHECK_CLIENT_CONFIG,
    request::RESUME_CHECK_HALF_MESSAGE,
    request::SEND_REPLY_MESSAGE,
    request::SEND_REPLY_MESSAGE_V2,
    request::RECALL_MESSAGE,
    request::QUERY_ASSIGNMENT,
    request::POP_MESSAGE,
    request::ACK_MESSAGE,
    request::BATCH_ACK_MESSAGE,
    request::CHANGE_MESSAGE_INVISIBLETIME,
    request::PEEK_MESSAGE,
    request::NOTIFICATION,
    request::POLLING_INFO,
];

async fn ask(peer: &mut Peer, code: i32, fields: Fields, body: &str) -> crate::peer::Heard {
    let fields: Vec<(&str, Value<'_>)> = fields
        .iter()
        .map(|(name, value)| (*name, Value::Str(value)))
        .collect();
    peer.ask(code, &fields, body.as_bytes()).await
}

async fn prepared() -> Peer {
    let mut peer = Peer::connect().await;
    peer.make_topic("t", 1).await;
    for number in 0..3 {
        let properties = format!("KEYS{}k{}TAGS{}A{}", '\u{1}', '\u{2}', '\u{1}', '\u{2}');
        peer.send("t", &properties, format!("{number}").as_bytes())
            .await;
    }
    let beat = r#"{"clientID":"c","producerDataSet":[{"groupName":"p"}],"consumerDataSet":[]}"#;
    ask(&mut peer, request::HEART_BEAT, &[], beat).await;
    peer.join("client", "g", "t").await;
    peer.pull("g", "t", 0).await;
    peer.commit("g", "t", 2).await;
    peer
}

#[test]
fn every_code_of_the_tools_is_served() {
    let mut cluster = Cluster::prepare(&[]);
    cluster.on_disk(|| {
        let file = std::path::Path::new("/broker.conf");
        reactor::fs::replace(file, b"# mine\nbrokerName=broker-a\n").expect("a disk");
    });
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = prepared().await;
        for &(code, fields, body) in REQUESTS {
            let answer = ask(&mut peer, code, fields, body).await;
            assert_eq!(answer.code, response::SUCCESS, "{code}: {}", answer.remark);
        }
    });
}

#[test]
fn what_tools_ask_a_consumer_for_comes_back_through_the_broker() {
    Cluster::start(&[]).clients(|| async {
        let mut consumer = prepared().await;
        let sent = consumer.send("t", "", b"x").await;
        let id = sent.field("msgId").to_owned();
        let (info, directly) = (
            request::GET_CONSUMER_RUNNING_INFO,
            request::CONSUME_MESSAGE_DIRECTLY,
        );
        let (status, of_one) = (
            request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS,
            request::GET_CONSUMER_STATUS_FROM_CLIENT,
        );
        let group = ("consumerGroup", "g");
        let client = ("clientId", "client");
        let mut operator = Peer::connect().await;
        for (code, handed_on, fields) in [
            (info, info, vec![group, client, ("jstackEnable", "true")]),
            (
                directly,
                directly,
                vec![group, client, ("msgId", &id), ("brokerName", "broker-a")],
            ),
            (
                status,
                of_one,
                vec![("group", "g"), ("topic", "t"), ("clientAddr", "client")],
            ),
        ] {
            let fields: Vec<(&str, Value<'_>)> = fields
                .into_iter()
                .map(|(name, value)| (name, Value::Str(value)))
                .collect();
            operator.write(code, &fields).await;
            let asked = consumer.asked(handed_on, Duration::from_secs(1)).await;
            let asked = asked.expect("the consumer is asked");
            let body = ConsumerStatus::default().to_json();
            consumer.answer(&asked, response::SUCCESS, &body).await;
            let answer = operator.next_answer().await;
            assert_eq!(answer.code, response::SUCCESS, "{code}: {}", answer.remark);
        }
    });
}

#[test]
fn no_code_is_served_that_has_no_test() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        let in_this_file = [
            request::GET_CONSUMER_RUNNING_INFO,
            request::CONSUME_MESSAGE_DIRECTLY,
            request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS,
            request::UPDATE_AND_CREATE_STATIC_TOPIC,
            request::GET_BROKER_EPOCH_CACHE,
        ];
        let access = request::AUTH_CREATE_USER..=request::AUTH_LIST_ACL;
        let mut tested: BTreeSet<i32> = REQUESTS.iter().map(|&(code, ..)| code).collect();
        tested.extend(ELSEWHERE);
        tested.extend(in_this_file);
        tested.extend(access);
        let mut served = BTreeSet::new();
        for code in (0..6_000).chain(200_000..200_200) {
            let answer = ask(&mut peer, code, &[], "").await;
            if answer.code != response::REQUEST_CODE_NOT_SUPPORTED {
                served.insert(code);
            }
        }
        assert_eq!(served, tested);
    });
}

#[test]
fn what_a_broker_without_access_lists_and_controller_refuses_is_refused_in_words() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        let access = request::AUTH_CREATE_USER..=request::AUTH_LIST_ACL;
        for code in access.chain([request::GET_BROKER_EPOCH_CACHE]) {
            let answer = ask(&mut peer, code, &[], "").await;
            assert_eq!(answer.code, response::SYSTEM_ERROR, "{code}");
            assert!(!answer.remark.is_empty(), "{code}");
        }
        // Removed from RocketMQ for what they let people do, or never served.
        for code in [301, 302, 209, 214, 902, 4711] {
            let answer = ask(&mut peer, code, &[], "").await;
            assert_eq!(answer.code, response::REQUEST_CODE_NOT_SUPPORTED, "{code}");
        }
    });
}

#[test]
fn figures_say_what_was_put_and_got() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = prepared().await;
        // The shards tell once a second.
        reactor::sleep(Duration::from_secs(2)).await;
        for (name, key, sum) in [
            ("TOPIC_PUT_NUMS", "t", 3),
            ("GROUP_GET_NUMS", "t@g", 3),
            ("BROKER_PUT_NUMS", "DefaultCluster", 3),
            ("BROKER_GET_NUMS", "DefaultCluster", 3),
        ] {
            let fields = [
                ("statsName", Value::Str(name)),
                ("statsKey", Value::Str(key)),
            ];
            let answer = peer
                .ask(request::VIEW_BROKER_STATS_DATA, &fields, &[])
                .await;
            assert_eq!(answer.code, response::SUCCESS, "{name} {}", answer.remark);
            let stats = BrokerStats::from_json(&answer.body).expect("ours");
            assert_eq!(stats.stats_minute.sum, sum, "{name}");
            assert_eq!(stats.stats_day.sum, sum, "{name}");
            assert!(stats.stats_minute.tps > 0.0, "{name}");
        }
        let fields = [
            ("statsName", Value::Str("TOPIC_PUT_SIZE")),
            ("statsKey", Value::Str("t")),
        ];
        let answer = peer
            .ask(request::VIEW_BROKER_STATS_DATA, &fields, &[])
            .await;
        let size = BrokerStats::from_json(&answer.body)
            .expect("ours")
            .stats_minute
            .sum;
        let end = ask(&mut peer, request::GET_BROKER_RUNTIME_INFO, &[], "").await;
        let table = KvTable::from_json(&end.body).expect("a table").table;
        assert_eq!(
            table["commitLogMaxOffset"],
            size.to_string(),
            "nothing else was put"
        );
        assert_eq!(table["putMessageTimesTotal"], "3");
        assert!(
            table["putMessageDistributeTime"].contains("[<=0ms]:"),
            "{table:?}"
        );
        assert!(table.contains_key("putLatency999"));

        let answer = ask(&mut peer, request::GET_TOPIC_STATS_INFO, TOPIC, "").await;
        assert!(
            TopicStats::from_json(&answer.body)
                .expect("ours")
                .topic_put_tps
                > 0.0
        );
        let answer = ask(&mut peer, request::GET_CONSUME_STATS, GROUP, "").await;
        assert!(
            ConsumeStats::from_json(&answer.body)
                .expect("ours")
                .consume_tps
                > 0.0
        );
    });
}

#[test]
fn figures_of_a_deleted_topic_are_gone() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = prepared().await;
        reactor::sleep(Duration::from_secs(2)).await;
        ask(&mut peer, request::DELETE_TOPIC_IN_BROKER, TOPIC, "").await;
        let fields: Fields = &[("statsName", "TOPIC_PUT_NUMS"), ("statsKey", "t")];
        let answer = ask(&mut peer, request::VIEW_BROKER_STATS_DATA, fields, "").await;
        assert_eq!(answer.code, response::SYSTEM_ERROR);
        assert_eq!(answer.remark, "The stats <TOPIC_PUT_NUMS> <t> not exist");
    });
}

#[test]
fn a_queues_entries_name_places_sizes_and_tags() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = prepared().await;
        let fields: Fields = &[
            ("topic", "t"),
            ("queueId", "0"),
            ("index", "1"),
            ("count", "5"),
            ("consumerGroup", "g"),
        ];
        let answer = ask(&mut peer, request::QUERY_CONSUME_QUEUE, fields, "").await;
        let found = ConsumeQueueEntries::from_json(&answer.body).expect("ours");
        assert_eq!((found.min_queue_index, found.max_queue_index), (0, 3));
        assert_eq!(found.queue_data.len(), 2);
        let (second, third) = (&found.queue_data[0], &found.queue_data[1]);
        assert_eq!(
            second.physic_offset + i64::from(second.physic_size),
            third.physic_offset
        );
        assert_eq!(second.tags_code, i64::from(properties::tag_hash("A")));
        assert!(second.eval, "the group takes everything");
        assert_eq!(found.subscription_data.expect("online").topic, "t");

        let fields: Fields = &[
            ("topic", "none"),
            ("queueId", "0"),
            ("index", "0"),
            ("count", "5"),
        ];
        let answer = ask(&mut peer, request::QUERY_CONSUME_QUEUE, fields, "").await;
        assert_eq!(answer.code, response::SYSTEM_ERROR);
    });
}

#[test]
fn how_far_groups_are_is_told_in_offsets_and_in_time() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = prepared().await;
        let answer = ask(&mut peer, request::GET_BROKER_CONSUME_STATS, &[], "").await;
        let text = String::from_utf8(answer.body).expect("text");
        assert!(
            text.contains(r#""totalDiff":1,"totalInflightDiff":0"#),
            "{text}"
        );
        assert!(text.contains(r#"{"g":[{"consumeTps":"#), "{text}");

        let fields: Fields = &[("topic", "t"), ("group", "g")];
        let answer = ask(&mut peer, request::QUERY_CONSUME_TIME_SPAN, fields, "").await;
        let spans = ConsumeTimeSpans::from_json(&answer.body).expect("ours");
        let span = &spans.consume_time_span_set[0];
        assert!(span.min_time_stamp > 0 && span.min_time_stamp <= span.consume_time_stamp);
        assert!(span.consume_time_stamp <= span.max_time_stamp && span.delay_time >= 0);

        let fields: Fields = &[
            ("topic", "t"),
            ("compareGroup", "nobody"),
            ("filterGroups", ""),
        ];
        let answer = ask(&mut peer, request::QUERY_CORRECTION_OFFSET, fields, "").await;
        assert_eq!(answer.body, br#"{"correctionOffsets":{0:2}}"#);
        let fields: Fields = &[
            ("topic", "t"),
            ("compareGroup", "nobody"),
            ("filterGroups", "g"),
        ];
        let answer = ask(&mut peer, request::QUERY_CORRECTION_OFFSET, fields, "").await;
        assert_eq!(answer.body, br#"{"correctionOffsets":{}}"#);
        let kept = peer.committed("g", "t").await;
        assert_eq!(kept.field("offset"), "2", "a question deletes nothing");
    });
}

#[test]
fn many_topics_or_groups_come_at_once_or_not_at_all() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        let config = |name: &str, queues| TopicConfig {
            topic_name: name.to_owned(),
            read_queue_nums: queues,
            write_queue_nums: queues,
            ..TopicConfig::default()
        };
        let list = |configs: Vec<TopicConfig>| {
            let list = CreateTopicList {
                topic_config_list: configs,
            };
            list.to_json(Dialect::Strict)
        };
        let code = request::UPDATE_AND_CREATE_TOPIC_LIST;
        let good = list(vec![config("a", 2), config("b", 3)]);
        assert_eq!(peer.ask(code, &[], &good).await.code, response::SUCCESS);
        let bad = list(vec![config("c", 2), config("not a name", 3)]);
        assert_eq!(
            peer.ask(code, &[], &bad).await.code,
            response::INVALID_PARAMETER
        );
        for (topic, code) in [
            ("a", response::SUCCESS),
            ("b", response::SUCCESS),
            ("c", response::TOPIC_NOT_EXIST),
        ] {
            let fields = [("topic", Value::Str(topic))];
            let answer = peer.ask(request::GET_TOPIC_CONFIG, &fields, &[]).await;
            assert_eq!(answer.code, code, "{topic}");
        }

        let group = |name: &str| SubscriptionGroupConfig {
            group_name: name.to_owned(),
            ..SubscriptionGroupConfig::default()
        };
        let groups = SubscriptionGroupList {
            group_config_list: vec![group("fine"), group("not fine")],
        };
        let code = request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST;
        let answer = peer.ask(code, &[], &groups.to_json(Dialect::Strict)).await;
        assert_eq!(answer.code, response::INVALID_PARAMETER);
        let all = peer
            .ask(request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &[], &[])
            .await;
        let text = String::from_utf8(all.body).expect("text");
        assert!(!text.contains("\"fine\""), "{text}");
    });
}

#[test]
fn thresholds_of_cold_reading_are_kept_and_shown() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        let set = request::UPDATE_COLD_DATA_FLOW_CTR_CONFIG;
        let answer = ask(&mut peer, set, &[], "g=soon\n").await;
        assert_eq!(answer.code, response::INVALID_PARAMETER);
        ask(&mut peer, set, &[], "g=1000\nh=5\n").await;
        ask(
            &mut peer,
            request::REMOVE_COLD_DATA_FLOW_CTR_CONFIG,
            &[],
            "h",
        )
        .await;
        let answer = ask(&mut peer, request::GET_COLD_DATA_FLOW_CTR_INFO, &[], "").await;
        let info: serde_json::Value = json::from_slice(&answer.body).expect("JSON");
        assert_eq!(info["configTable"], serde_json::json!({ "g": 1000 }));
        let mode: Fields = &[("READ_AHEAD_MODE", "7")];
        let answer = ask(&mut peer, request::SET_COMMITLOG_READ_MODE, mode, "").await;
        assert_eq!(answer.code, response::INVALID_PARAMETER);
    });
}

#[test]
fn producers_and_replication_are_shown() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        let beat = r#"{"clientID":"c","producerDataSet":[{"groupName":"p"}],"consumerDataSet":[]}"#;
        ask(&mut peer, request::HEART_BEAT, &[], beat).await;
        let answer = ask(&mut peer, request::GET_ALL_PRODUCER_INFO, &[], "").await;
        let table = ProducerTable::from_json(&answer.body).expect("ours");
        let producer = &table.data["p"][0];
        assert_eq!(producer.client_id, "c");
        assert!(producer.remote_ip.starts_with("/10.0.0.2:"), "{producer:?}");
        assert!(producer.last_update_timestamp > 0);

        let answer = ask(&mut peer, request::GET_BROKER_HA_STATUS, &[], "").await;
        let state = ReplicationState::from_json(&answer.body).expect("ours");
        assert!(state.master && state.ha_connection_info.is_empty());
    });
}

#[test]
fn a_static_topic_is_kept_over_a_restart_and_goes_with_its_topic() {
    let mut cluster = Cluster::start(&[]);
    let fields: Fields = &[
        ("topic", "fixed"),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", "2"),
        ("writeQueueNums", "2"),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", "false"),
        ("force", "false"),
    ];
    let mapping = |epoch: i64, queue: i32| {
        format!(
            r#"{{"bname":"broker-a","dirty":false,"epoch":{epoch},"hostedQueues":{{0:[{{"bname":"broker-a","endOffset":-1,"gen":0,"logicOffset":0,"queueId":{queue},"startOffset":0,"timeOfEnd":-1,"timeOfStart":-1}}]}},"scope":"__global__","topic":"fixed","totalQueues":1}}"#
        )
    };
    let (first, same_epoch, moved) = (mapping(5, 0), mapping(5, 0), mapping(6, 1));
    cluster.clients(move || async move {
        let mut peer = Peer::connect().await;
        let code = request::UPDATE_AND_CREATE_STATIC_TOPIC;
        let answer = ask(&mut peer, code, fields, &first).await;
        assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
        for refused in [same_epoch, moved] {
            let answer = ask(&mut peer, code, fields, &refused).await;
            assert_eq!(answer.code, response::SYSTEM_ERROR, "{refused}");
        }
    });
    cluster.kill_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        let with_mapping: Fields = &[("topic", "fixed"), ("lo", "true")];
        let answer = ask(&mut peer, request::GET_TOPIC_CONFIG, with_mapping, "").await;
        let shown: TopicConfigAndMapping = json::from_slice(&answer.body).expect("ours");
        assert_eq!(shown.config.write_queue_nums, 2);
        assert_eq!(shown.mapping_detail.expect("a static topic").epoch, 5);
        let fields: Fields = &[("topic", "fixed")];
        ask(&mut peer, request::DELETE_TOPIC_IN_BROKER, fields, "").await;
        peer.make_topic("fixed", 1).await;
        let answer = ask(&mut peer, request::GET_TOPIC_CONFIG, with_mapping, "").await;
        let shown: TopicConfigAndMapping = json::from_slice(&answer.body).expect("ours");
        assert_eq!(shown.mapping_detail, None);
    });
}

async fn sum_of(peer: &mut Peer, name: &str, key: &str) -> i64 {
    let fields = [
        ("statsName", Value::Str(name)),
        ("statsKey", Value::Str(key)),
    ];
    let code = request::VIEW_BROKER_STATS_DATA;
    let answer = peer.ask(code, &fields, &[]).await;
    assert_eq!(answer.code, response::SUCCESS, "{name} {}", answer.remark);
    let stats = BrokerStats::from_json(&answer.body).expect("ours");
    stats.stats_minute.sum
}

#[test]
fn figures_know_what_was_given_back() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = prepared().await;
        for level in ["0", "-1"] {
            let fields = [
                ("offset", Value::Str("0")),
                ("group", Value::Str("g")),
                ("delayLevel", Value::Str(level)),
            ];
            let code = request::CONSUMER_SEND_MSG_BACK;
            let answer = peer.ask(code, &fields, &[]).await;
            assert_eq!(answer.code, response::SUCCESS, "{}", answer.remark);
        }
        reactor::sleep(Duration::from_secs(2)).await;
        assert_eq!(sum_of(&mut peer, "SNDBCK_PUT_NUMS", "t@g").await, 2);
        assert_eq!(sum_of(&mut peer, "DLQ_PUT_NUMS", "t@g").await, 1);
        assert_eq!(sum_of(&mut peer, "TOPIC_PUT_NUMS", "%DLQ%g").await, 1);
    });
}

#[test]
fn a_group_that_reads_too_far_behind_is_disabled_if_the_operator_wishes() {
    let far = [
        ("disableConsumeIfConsumerReadSlowly", "true"),
        ("consumerFallbehindThreshold", "200000"),
    ];
    let mut cluster = Cluster::start(&far);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        for _ in 0..30 {
            peer.send("t", "", &[7; 100_000]).await;
        }
    });
    // The first of three segments is not in memory after a start.
    cluster.stop_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.join("client", "near", "t").await;
        peer.join("client", "far", "t").await;
        assert_eq!(peer.pull("near", "t", 29).await.code, response::SUCCESS);
        assert_eq!(peer.pull("far", "t", 0).await.code, response::SUCCESS);
        reactor::sleep(Duration::from_secs(2)).await;
        assert_eq!(peer.pull("near", "t", 29).await.code, response::SUCCESS);
        let refused = peer.pull("far", "t", 0).await;
        assert_eq!(refused.code, response::NO_PERMISSION, "{}", refused.remark);
    });
}
