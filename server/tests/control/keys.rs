//! Messages by key (code 12), as RocketMQ's clients and its command line ask for them.

use protocol::Value;
use protocol::code::{request, response};
use protocol::properties;
use protocol::record::View;

use crate::cluster::Cluster;
use crate::peer::{Heard, Peer};

/// What is asked for, with times that include everything.
async fn ask(peer: &mut Peer, topic: &str, key: &str, max: i32, more: &[(&str, &str)]) -> Heard {
    let mut fields = vec![
        ("topic", Value::Str(topic)),
        ("key", Value::Str(key)),
        ("maxNum", Value::I32(max)),
        ("beginTimestamp", Value::I64(0)),
        ("endTimestamp", Value::I64(i64::MAX)),
    ];
    fields.extend(more.iter().map(|(name, value)| (*name, Value::Str(value))));
    peer.ask(request::QUERY_MESSAGE, &fields, &[]).await
}

/// The unique keys of the messages in an answer.
fn ids(answer: &Heard) -> Vec<String> {
    let mut rest = answer.body.as_slice();
    let mut ids = Vec::new();
    while !rest.is_empty() {
        let view = View::parse(rest).expect("whole records");
        let id = properties::get_str(view.properties, properties::UNIQ_KEY);
        ids.push(id.expect("every message has one").to_owned());
        rest = &rest[view.bytes.len()..];
    }
    ids
}

#[test]
fn messages_are_found_by_key_unique_key_and_tag() {
    Cluster::start(&[]).clients(|| async {
        let mut peer = Peer::connect().await;
        for topic in ["orders", "bills"] {
            peer.make_topic(topic, 1).await;
            for n in 0..6 {
                let keys = format!("KEYS\u{1}k{} all\u{2}", n % 3);
                let properties = format!("{keys}UNIQ_KEY\u{1}{topic}{n}\u{2}TAGS\u{1}t\u{2}");
                peer.send(topic, &properties, b"body").await;
            }
        }
        let found = ask(&mut peer, "orders", "k1", 32, &[]).await;
        assert_eq!(found.code, response::SUCCESS);
        assert_eq!(ids(&found), ["orders1", "orders4"]);
        // The newest, in the order of the log.
        let found = ask(&mut peer, "orders", "all", 2, &[]).await;
        assert_eq!(ids(&found), ["orders4", "orders5"]);
        // A unique key is a key, and asking for one has a limit of its own.
        let unique = [("_UNIQUE_KEY_QUERY", "true")];
        let found = ask(&mut peer, "bills", "bills3", 0, &unique).await;
        assert_eq!(ids(&found), ["bills3"]);
        let by_tag = [("_UNIQUE_KEY_QUERY", "false"), ("indexType", "T")];
        let found = ask(&mut peer, "bills", "t", 3, &by_tag).await;
        assert_eq!(ids(&found), ["bills3", "bills4", "bills5"]);
        for (topic, key, max) in [("orders", "t", 32), ("none", "k1", 32), ("orders", "k1", 0)] {
            let nothing = ask(&mut peer, topic, key, max, &[]).await;
            assert_eq!(nothing.code, response::QUERY_NOT_FOUND, "{topic} {key}");
            let remark = "can not find message, maybe time range not correct";
            assert_eq!(nothing.remark, remark);
        }
    });
}

#[test]
fn without_the_index_nothing_is_found() {
    Cluster::start(&[("messageIndexEnable", "false")]).clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("orders", 1).await;
        peer.send("orders", "KEYS\u{1}k\u{2}", b"body").await;
        let nothing = ask(&mut peer, "orders", "k", 32, &[]).await;
        assert_eq!(nothing.code, response::QUERY_NOT_FOUND);
    });
}
