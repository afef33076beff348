use std::collections::BTreeMap;

use proptest::prelude::*;

use super::heartbeat::{HeartbeatData, SubscriptionData};
use super::offsets::{ConsumerOffsetTable, DelayOffsetTable, offset_key, split_offset_key};
use super::register::{CompressedError, RegisterBrokerBody};
use super::route::{BrokerData, TopicRouteData};
use super::topic_config::{TopicConfig, TopicConfigTable, TopicFilterType};
use super::*;

fn topics() -> impl Strategy<Value = TopicConfig> {
    let numbers = (0..8i32, 0..1024i32, 0..1024i32);
    let attributes = prop::collection::btree_map("[a-z.+]{1,9}", "[ -~]{0,9}", 0..3);
    ("[a-zA-Z0-9_%-]{1,40}", numbers, any::<bool>(), attributes).prop_map(
        |(topic_name, (perm, read_queue_nums, write_queue_nums), multi, attributes)| TopicConfig {
            attributes,
            perm,
            read_queue_nums,
            topic_filter_type: match multi {
                true => TopicFilterType::MultiTag,
                false => TopicFilterType::SingleTag,
            },
            topic_name,
            write_queue_nums,
            ..TopicConfig::default()
        },
    )
}

proptest! {
    #[test]
    fn a_registration_survives_both_forms(topics in prop::collection::vec(topics(), 0..6)) {
        let mut body = RegisterBrokerBody::default();
        let table = &mut body.topic_config_serialize_wrapper.topic_config_table;
        table.extend(topics.into_iter().map(|topic| (topic.topic_name.clone(), topic)));
        let compressed = RegisterBrokerBody::from_compressed(&body.to_compressed()).unwrap();
        prop_assert_eq!(&compressed, &body);
        for dialect in [Dialect::Strict, Dialect::Fastjson1] {
            let plain = RegisterBrokerBody::from_json(&body.to_json(dialect)).unwrap();
            prop_assert_eq!(&plain, &body);
        }
    }

    #[test]
    fn a_route_survives_both_dialects(
        addrs in prop::collection::btree_map(any::<i64>(), "[0-9.:]{1,20}", 0..4),
        name in any::<String>(),
    ) {
        let broker = BrokerData {
            broker_addrs: addrs,
            broker_name: name.clone(),
            zone_name: Some(name),
            ..BrokerData::default()
        };
        let route = TopicRouteData {
            broker_datas: vec![broker],
            ..TopicRouteData::default()
        };
        for dialect in [Dialect::Strict, Dialect::Fastjson1] {
            let read = TopicRouteData::from_json(&route.to_json(dialect)).unwrap();
            prop_assert_eq!(&read, &route);
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_registration(bytes in any::<Vec<u8>>()) {
        let _ = RegisterBrokerBody::from_compressed(&bytes);
        let _ = RegisterBrokerBody::from_json(&bytes);
    }
}

#[test]
fn unknown_fields_are_ignored_and_missing_or_null_ones_have_defaults() {
    let heartbeat = br#"{"clientID":"c","future":{"x":[1]},"consumerDataSet":[{"groupName":"g",
        "consumeType":null,"subscriptionDataSet":null}],"producerDataSet":null}"#;
    let read = HeartbeatData::from_json(heartbeat).unwrap();
    assert_eq!(read.client_id, "c");
    assert_eq!(read.consumer_data_set[0].group_name, "g");
    assert!(read.producer_data_set.is_empty() && !read.without_sub);
    let topics = br#"{"topicConfigTable":{"t":{"topicName":"t"}}}"#;
    let topic = &TopicConfigTable::from_json(topics)
        .unwrap()
        .topic_config_table["t"];
    assert_eq!((topic.perm, topic.read_queue_nums), (6, 16));
}

#[test]
fn offsets_are_read_in_either_spelling() {
    for file in [
        r#"{"offsetTable":{"t@g":{0:5,1:7}}}"#,
        r#"{"dataVersion":{"counter":1},"offsetTable":{"t@g":{"0":5,"1":7}}}"#,
    ] {
        let table = ConsumerOffsetTable::from_json(file.as_bytes()).unwrap();
        assert_eq!(table.offset_table["t@g"], BTreeMap::from([(0, 5), (1, 7)]));
    }
    let delay = DelayOffsetTable::from_json(b"{\"offsetTable\":{3:100,12:1}}").unwrap();
    assert_eq!(delay.offset_table, BTreeMap::from([(3, 100), (12, 1)]));
    assert_eq!(split_offset_key(&offset_key("t", "g")), Some(("t", "g")));
    assert_eq!(split_offset_key("t"), None);
    assert_eq!(split_offset_key("t@g@x"), None);
}

#[test]
fn tags_are_split_as_the_clients_split_them() {
    let tags = SubscriptionData::by_tags("t", " a ||b|| ", 7);
    assert_eq!(tags.tags_set, ["a", "b"]);
    assert_eq!(tags.code_set, [97, 98]);
    let all = SubscriptionData::by_tags("t", "*", 7);
    assert!(all.tags_set.is_empty() && all.sub_string == "*" && all.is_tag());
}

#[test]
fn a_registration_that_inflates_without_end_is_refused() {
    use std::io::Write;
    let mut bomb = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..65 {
        bomb.write_all(&zeros).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 1 << 20);
    let error = RegisterBrokerBody::from_compressed(&bomb).unwrap_err();
    assert!(matches!(error, CompressedError::TooLarge));
}

#[test]
fn the_go_clients_tag_hashes_are_strings_and_are_read() {
    let subscription = |codes: &str| {
        let text = format!(r#"{{"topic":"t","subString":"A","codeSet":{codes}}}"#);
        SubscriptionData::from_json(text.as_bytes())
    };
    assert_eq!(subscription(r#"["65","-2"]"#).unwrap().code_set, [65, -2]);
    assert_eq!(subscription("[65]").unwrap().code_set, [65]);
    assert!(subscription("null").unwrap().code_set.is_empty());
    assert!(subscription(r#"["A"]"#).is_err());
}
