//! Bytes written by RocketMQ's own classes, read and written back.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::{Path, PathBuf};

use protocol::body::Body;
use protocol::body::cluster::ClusterInfo;
use protocol::body::connection::{ConsumerConnection, ProducerConnection};
use protocol::body::heartbeat::{CheckClientRequest, HeartbeatData};
use protocol::body::kv_table::KvTable;
use protocol::body::lists::{ConsumerList, GroupList, TopicList};
use protocol::body::lock::{LockBatchAnswer, LockBatchRequest};
use protocol::body::offsets::ConsumerOffsetTable;
use protocol::body::register::RegisterBrokerBody;
use protocol::body::route::TopicRouteData;
use protocol::body::stats::{ConsumeStats, TopicStats};
use protocol::body::subscription_group::{SubscriptionGroupConfig, SubscriptionGroupTable};
use protocol::body::topic_config::{DataVersion, TopicConfigTable};
use protocol::header::pull::{PullAnswer, PullHeader};
use protocol::header::send::{SendAnswer, SendHeader};
use protocol::json::{self, Dialect};
use protocol::record::{Draft, View};
use protocol::{Asked, Command, Encoding, Text, Value, batch, header, properties, record};

const RELEASES: [&str; 2] = ["5.4.0", "4.9.7"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captured")
}

/// `None` where the older release has no such file, or the same one.
fn bytes_of(release: &str, name: &str) -> Option<Vec<u8>> {
    std::fs::read(folder().join(release).join(name)).ok()
}

fn newest(name: &str) -> Vec<u8> {
    bytes_of("5.4.0", name).unwrap_or_else(|| panic!("{name} is captured"))
}

/// Calls `each` with both encodings of a frame of both releases, without the length.
fn each_frame(name: &str, mut each: impl FnMut(&str, Command<'_>)) {
    for release in RELEASES {
        for encoding in ["json", "binary"] {
            let Some(frame) = bytes_of(release, &format!("{name}.{encoding}.frame")) else {
                panic!("{name} of {release} is captured");
            };
            let total = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
            assert_eq!(total, frame.len() - 4);
            each(release, Command::decode(&frame[4..]).unwrap());
        }
    }
}

#[test]
fn every_captured_frame_decodes() {
    let mut seen = 0;
    for release in RELEASES {
        for entry in std::fs::read_dir(folder().join(release)).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_none_or(|extension| extension != "frame")
            {
                continue;
            }
            let frame = std::fs::read(&path).unwrap();
            let command = Command::decode(&frame[4..]).unwrap();
            assert_eq!(command.opaque, 1_234_567, "{}", path.display());
            assert!([493, 407].contains(&command.version));
            assert_eq!(command.language.name(), "JAVA");
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen} frames");
}

#[test]
fn both_send_forms_say_the_same_in_both_encodings() {
    for name in ["send-v1", "send-v2"] {
        each_frame(name, |release, command| {
            let header = SendHeader::from(&command).unwrap();
            assert!(header.producer_group.eq_str("group-p"));
            assert!(header.topic.eq_str("orders") && header.default_topic.eq_str("TBW102"));
            assert_eq!((header.default_topic_queues, header.queue_id), (4, 3));
            assert_eq!((header.sys_flag, header.flag), (1, -7));
            assert_eq!(header.born_ms, 1_700_000_000_123);
            assert!(!header.batch && !header.unit_mode);
            assert_eq!(header.broker_name.is_some(), release == "5.4.0");
            let bytes = header.properties.as_bytes();
            assert_eq!(properties::get_str(&bytes, properties::TAGS), Some("TagA"));
            let greeting = properties::get_str(&bytes, "greeting");
            assert_eq!(greeting, Some("\"hällo\" 中文 😀 \\ /\n"));
            assert_eq!(command.body, b"hello, world");
        });
    }
}

#[test]
fn a_batch_send_unpacks_into_its_messages() {
    each_frame("send-batch", |_, command| {
        assert!(SendHeader::from(&command).unwrap().batch);
        let messages: Vec<_> = batch::iter(command.body).map(Result::unwrap).collect();
        assert_eq!(messages.len(), 3);
        assert_eq!(
            (messages[2].flag, messages[2].body),
            (2, b"body 2".as_slice())
        );
        let tag = properties::get_str(messages[1].properties, properties::TAGS);
        assert_eq!(tag, Some("T1"));
        let mut again = Vec::new();
        for message in &messages {
            batch::append(&mut again, message);
        }
        assert_eq!(again, command.body);
    });
}

#[test]
fn a_pull_and_its_answer_are_understood() {
    each_frame("pull", |release, command| {
        let header = PullHeader::from(&command).unwrap();
        assert!(header.consumer_group.eq_str("group-c") && header.topic.eq_str("orders"));
        assert_eq!((header.queue_id, header.queue_offset), (2, 99));
        assert_eq!((header.messages_max, header.sys_flag), (32, 6));
        assert_eq!((header.commit_offset, header.suspend_ms), (98, 15_000));
        assert!(header.subscription.unwrap().eq_str("TagA || TagB"));
        assert_eq!(header.sub_version, 1_700_000_000_456);
        assert_eq!(header.bytes_max.is_some(), release == "5.4.0");
    });
    each_frame("pull-answer", |_, command| {
        let answer = PullAnswer::from(&command).unwrap();
        assert_eq!((answer.next_offset, answer.max_offset), (100, 120));
        assert_eq!(command.remark_str().unwrap(), "FOUND");
        assert_eq!(command.body, [1, 2, 3]);
    });
    each_frame("send-answer", |_, command| {
        let answer = SendAnswer::from(&command).unwrap();
        assert_eq!(answer.message_id, "7F00000100002A9F0000000000000064");
        assert_eq!((answer.queue_id, answer.queue_offset), (3, 5));
    });
}

#[test]
fn the_other_headers_are_understood() {
    each_frame("unregister-client", |_, command| {
        let header = header::client::Unregister::from(&command).unwrap();
        assert_eq!(header.client_id, "127.0.0.1@4711#123");
        assert_eq!(header.consumer_group.as_deref(), Some("group-c"));
        assert_eq!(header.producer_group, None);
    });
    each_frame("update-offset", |_, command| {
        let header = header::offset::UpdateOffset::from(&command).unwrap();
        assert_eq!((header.queue_id, header.commit_offset), (1, 42));
        assert!(command.is_oneway());
    });
    each_frame("search-offset", |release, command| {
        let header = header::offset::SearchOffset::from(&command).unwrap();
        assert_eq!(header.time_ms, 1_700_000_000_000);
        let upper = header.boundary == header::offset::Boundary::Upper;
        assert_eq!(upper, release == "5.4.0");
    });
    each_frame("create-topic", |_, command| {
        let header = header::topic::CreateTopic::from(&command).unwrap();
        assert_eq!(
            (header.read_queues, header.write_queues, header.perm),
            (8, 8, 6)
        );
    });
    each_frame("route", |release, command| {
        let header = header::namesrv::Route::from(&command).unwrap();
        assert_eq!(header.topic, "orders");
        assert_eq!(
            header.accept_standard_json_only.is_some(),
            release == "5.4.0"
        );
        assert_eq!(header.dialect(&command), Dialect::Strict);
    });
    each_frame("register", |_, command| {
        let header = header::namesrv::RegisterBroker::from(&command).unwrap();
        assert_eq!(header.compressed, Some(true));
        assert_eq!(header.body_crc, Some(record::body_crc(command.body) as i32));
        RegisterBrokerBody::from_compressed(command.body).unwrap();
    });
}

#[test]
fn answers_are_written_byte_for_byte_as_the_broker_writes_them() {
    for name in ["send-answer", "pull-answer", "error-answer"] {
        for encoding in ["json", "binary"] {
            let frame = newest(&format!("{name}.{encoding}.frame"));
            let command = Command::decode(&frame[4..]).unwrap();
            let mut out = Vec::new();
            let names: Vec<_> = command.fields.iter().collect();
            let values: Vec<_> = names.iter().map(|(_, value)| value.as_str()).collect();
            let fields: Vec<_> = names
                .iter()
                .zip(&values)
                .map(|((name, _), value)| (std::str::from_utf8(name).unwrap(), Value::Str(value)))
                .collect();
            let remark = command.remark_str();
            let asked = Asked::from(&command);
            let (code, body) = (command.code, command.body);
            protocol::write_response(&mut out, asked, code, remark.as_deref(), &fields, body);
            assert_eq!(out, frame, "{name} {encoding}");
        }
    }
}

#[test]
fn requests_are_written_as_the_client_writes_them_but_for_the_language() {
    for name in [
        "send-v1",
        "send-v2",
        "pull",
        "update-offset",
        "create-topic",
        "register",
    ] {
        for encoding in ["json", "binary"] {
            let mut frame = newest(&format!("{name}.{encoding}.frame"));
            let command = Command::decode(&frame[4..]).unwrap();
            let values: Vec<_> = command
                .fields
                .iter()
                .map(|(name, value)| (String::from_utf8(name.to_vec()).unwrap(), value.as_bytes()))
                .collect();
            let fields: Vec<_> = values
                .iter()
                .map(|(name, value)| (name.as_str(), Value::Bytes(value)))
                .collect();
            let mut out = Vec::new();
            let (code, opaque, oneway) = (command.code, command.opaque, command.is_oneway());
            let (encoding, body) = (command.encoding, command.body.to_vec());
            protocol::write_request(&mut out, encoding, code, opaque, oneway, &fields, &body);
            match encoding {
                Encoding::Binary => frame[10] = 12,
                Encoding::Json => {
                    let at = frame.windows(6).position(|at| at == b"\"JAVA\"").unwrap();
                    frame[at..at + 6].copy_from_slice(b"\"RUST\"");
                }
            }
            assert_eq!(out, frame, "{name}");
        }
    }
}

/// Reads a body of both releases, and writes the newer one back to the same bytes.
fn body_round_trip<T: Body + std::fmt::Debug + PartialEq>(name: &str) -> T {
    if let Some(older) = bytes_of("4.9.7", name) {
        let read = T::from_json(&older).unwrap();
        let again = T::from_json(&read.to_json(Dialect::Strict)).unwrap();
        assert_eq!(read, again, "{name} of 4.9.7");
    }
    let bytes = newest(name);
    let read = T::from_json(&bytes).unwrap();
    let written = String::from_utf8(read.to_json(Dialect::Fastjson1)).unwrap();
    assert_eq!(written, String::from_utf8(bytes).unwrap(), "{name}");
    let strict = T::from_json(&read.to_json(Dialect::Strict)).unwrap();
    assert_eq!(strict, read, "{name} through strict JSON");
    read
}

#[test]
fn bodies_are_written_byte_for_byte_as_rocketmq_writes_them() {
    let heartbeat: HeartbeatData = body_round_trip("heartbeat.body");
    assert_eq!(heartbeat.heartbeat_fingerprint, 985_451_760);
    let subscription = &heartbeat.consumer_data_set[0].subscription_data_set[0];
    assert_eq!(subscription.code_set, [2_598_919, 2_598_920]);
    let short: HeartbeatData = body_round_trip("heartbeat-short.body");
    assert!(short.without_sub);
    body_round_trip::<CheckClientRequest>("check-client.body");
    body_round_trip::<LockBatchRequest>("lock.body");
    body_round_trip::<LockBatchRequest>("unlock.body");
    body_round_trip::<LockBatchAnswer>("lock-answer.body");
    body_round_trip::<ConsumerList>("consumer-list.body");
    body_round_trip::<TopicList>("topic-list.body");
    body_round_trip::<GroupList>("group-list.body");
    body_round_trip::<KvTable>("kv-table.body");
    body_round_trip::<DataVersion>("data-version.body");
    body_round_trip::<RegisterBrokerBody>("register.body");
    body_round_trip::<TopicConfigTable>("topics.body");
    body_round_trip::<SubscriptionGroupTable>("subscription-groups.body");
    body_round_trip::<SubscriptionGroupConfig>("subscription-group.body");
    body_round_trip::<ConsumerOffsetTable>("consumer-offsets.body");
    body_round_trip::<ConsumerConnection>("consumer-connection.body");
    body_round_trip::<ProducerConnection>("producer-connection.body");
    let cluster: ClusterInfo = body_round_trip("cluster.body");
    assert_eq!(
        cluster.broker_addr_table["broker-a"].broker_addrs[&1],
        "127.0.0.1:10921"
    );
}

#[test]
fn the_route_is_written_in_both_dialects() {
    let route: TopicRouteData = body_round_trip("route-fastjson.body");
    let strict = String::from_utf8(newest("route-strict.body")).unwrap();
    assert_eq!(
        String::from_utf8(route.to_json(Dialect::Strict)).unwrap(),
        strict
    );
    let ordered = newest("route-order-strict.body");
    let read = TopicRouteData::from_json(&ordered).unwrap();
    assert_eq!(
        read.order_topic_conf.as_deref(),
        Some("broker-a:4;über/<x>")
    );
    assert_eq!(read.to_json(Dialect::Strict), ordered);
}

#[test]
fn tables_with_queues_as_keys_are_read_and_written() {
    for release in RELEASES {
        let bytes = bytes_of(release, "consume-stats.body").unwrap();
        let stats = ConsumeStats::from_json(&bytes).unwrap();
        let (queue, offset) = stats.offsets.first_key_value().unwrap();
        assert_eq!((queue.topic.as_str(), queue.queue_id), ("orders", 0));
        assert_eq!((offset.broker_offset, offset.consumer_offset), (10, 8));
        TopicStats::from_json(&bytes_of(release, "topic-stats.body").unwrap()).unwrap();
    }
    let bytes = newest("consume-stats.body");
    assert_eq!(ConsumeStats::from_json(&bytes).unwrap().to_json(), bytes);
    let bytes = newest("topic-stats.body");
    assert_eq!(TopicStats::from_json(&bytes).unwrap().to_json(), bytes);
}

/// Reads a file of both releases, and writes the newer one back to the same bytes.
fn file_round_trip<T: Body + std::fmt::Debug + PartialEq>(name: &str) {
    T::from_json(&bytes_of("4.9.7", name).unwrap()).unwrap();
    let bytes = newest(name);
    let read = T::from_json(&bytes).unwrap();
    let written = String::from_utf8(json::to_vec_pretty(&read)).unwrap();
    assert_eq!(written, String::from_utf8(bytes).unwrap(), "{name}");
}

#[test]
fn config_files_are_written_byte_for_byte_as_rocketmq_writes_them() {
    file_round_trip::<TopicConfigTable>("topics.json");
    file_round_trip::<SubscriptionGroupTable>("subscriptionGroup.json");
    file_round_trip::<ConsumerOffsetTable>("consumerOffset.json");
}

#[test]
fn a_compressed_registration_says_what_the_plain_one_says() {
    for release in RELEASES {
        let plain = bytes_of(release, "register.body").unwrap();
        let mut plain = RegisterBrokerBody::from_json(&plain).unwrap();
        let compressed = bytes_of(release, "register-compressed.body").unwrap();
        let compressed = RegisterBrokerBody::from_compressed(&compressed).unwrap();
        // The compressed form has no room for it.
        plain.topic_config_serialize_wrapper.mapping_data_version = DataVersion::default();
        assert_eq!(plain, compressed, "{release}");
        let again = RegisterBrokerBody::from_compressed(&compressed.to_compressed());
        assert_eq!(again.unwrap(), compressed);
    }
}

#[test]
fn records_are_written_byte_for_byte_as_the_broker_stores_them() {
    for release in RELEASES {
        for name in ["record-v4.bytes", "record-v6.bytes"] {
            let bytes = bytes_of(release, name).unwrap();
            let view = View::parse(&bytes).unwrap();
            view.check_body().unwrap();
            assert_eq!(view.topic_str(), "orders");
            assert_eq!(view.queue_offset, 1_234_567_890_123);
            assert_eq!(view.property(properties::TAGS), Some(b"TagA".as_slice()));
            let mut again = Vec::new();
            let draft = Draft {
                topic: &view.topic_str(),
                queue_id: view.queue_id,
                flag: view.flag,
                sys_flag: view.sys_flag & !0x30,
                born_ms: view.born_ms,
                born_host: view.born_host,
                store_host: view.store_host,
                reconsume_times: view.reconsume_times,
                prepared_transaction_offset: view.prepared_transaction_offset,
                properties: Text::plain(view.properties),
                body: view.body,
            };
            assert_eq!(draft.encoded_len(), bytes.len());
            let placed = draft.append_to(&mut again);
            record::patch(
                &mut again,
                view.queue_offset,
                view.log_offset,
                placed.store_time_at,
                view.store_ms,
            );
            assert_eq!(again, bytes, "{name} of {release}");
        }
    }
    let v4 = newest("record-v4.bytes");
    let id = View::parse(&v4).unwrap().message_id();
    assert_eq!(id, "C0A8000100002A9F000000024CB016EA");
    let v6 = newest("record-v6.bytes");
    let id = View::parse(&v6).unwrap().message_id();
    assert_eq!(
        id,
        "20010DB800000000000000000000000100002A9F000000024CB016EA"
    );
}
