//! What the fuzz targets do with their bytes, one function per decoder.
//!
//! Each takes arbitrary bytes, and fails by panicking: on a panic of the decoder, and where what
//! was read does not survive being written and read again. The same functions run on stable over
//! mutated captured bytes, see `tests/mutated.rs` of the protocol crate.

use protocol::body::Body;
use protocol::body::cluster::ClusterInfo;
use protocol::body::connection::{ConsumerConnection, ProducerConnection};
use protocol::body::heartbeat::{CheckClientRequest, HeartbeatData};
use protocol::body::kv_table::KvTable;
use protocol::body::lists::{ConsumerList, TopicList};
use protocol::body::lock::{LockBatchAnswer, LockBatchRequest};
use protocol::body::offsets::{ConsumerOffsetTable, DelayOffsetTable};
use protocol::body::register::RegisterBrokerBody;
use protocol::body::route::TopicRouteData;
use protocol::body::stats::{ConsumeStats, TopicStats};
use protocol::body::subscription_group::SubscriptionGroupTable;
use protocol::body::topic_config::TopicConfigTable;
use protocol::header::pull::{PullAnswer, PullHeader};
use protocol::header::send::{SendAnswer, SendHeader};
use protocol::json::Dialect;
use protocol::record::View;
use protocol::{Asked, Command, Value, batch as batches, header, names, properties as pairs};

/// A frame without its length: what decodes must come back the same from our own writer.
pub fn command(data: &[u8]) {
    let Ok(command) = Command::decode(data) else {
        return;
    };
    let read: Vec<_> = command
        .fields
        .iter()
        .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.as_bytes()))
        .collect();
    // Names with escapes or broken UTF-8 are kept in wire form and would be escaped again.
    let plain = |name: &str| {
        name.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    let written: Vec<_> = read
        .iter()
        .filter(|(name, _)| plain(name) && !name.contains('"') && name.len() < 1 << 15)
        .collect();
    let fields: Vec<_> = written
        .iter()
        .map(|(name, value)| (name.as_str(), Value::Bytes(value)))
        .collect();
    let remark = command.remark_str();
    let mut out = Vec::new();
    let asked = Asked::from(&command);
    let (code, body) = (command.code, command.body);
    protocol::write_response(&mut out, asked, code, remark.as_deref(), &fields, body);
    let again = Command::decode(&out[4..]).expect("our own frames decode");
    assert_eq!(again.code as i16, command.code as i16);
    assert_eq!(again.opaque, command.opaque);
    assert_eq!(again.body, command.body);
    for (name, value) in fields
        .iter()
        .zip(&written)
        .map(|(field, read)| (field.0, &read.1))
    {
        let found = again.fields.get(name).map(|text| text.as_bytes());
        // An empty value is an absent one in the binary form.
        assert_eq!(found.unwrap_or_default().as_ref(), value.as_ref(), "{name}");
    }
}

/// Every typed header over the fields of an arbitrary frame.
pub fn headers(data: &[u8]) {
    let Ok(command) = Command::decode(data) else {
        return;
    };
    if let Ok(send) = SendHeader::from(&command) {
        let _ = names::validate_topic(&send.topic.as_str());
        let _ = names::validate_group(&send.producer_group.as_str());
        properties(&send.properties.as_bytes());
    }
    let _ = SendAnswer::from(&command);
    let _ = PullHeader::from(&command).map(|header| header.fields().len());
    let _ = PullAnswer::from(&command);
    let _ = header::offset::SearchOffset::from(&command);
    let _ = header::offset::QueryOffset::from(&command).map(|header| header.fields().len());
    let _ = header::offset::UpdateOffset::from(&command).map(|header| header.fields().len());
    let _ = header::client::Unregister::from(&command).map(|header| header.fields().len());
    let _ = header::topic::CreateTopic::from(&command).map(|header| header.fields().len());
    let _ = header::message::SendBack::from(&command).map(|header| header.fields().len());
    let _ = header::message::EndTransaction::from(&command).map(|header| header.fields().len());
    let _ = header::namesrv::RegisterBroker::from(&command).map(|header| header.fields().len());
    let _ = header::namesrv::Route::from(&command).map(|header| header.dialect(&command));
}

/// A record: what parses has parts within its bytes, and its id parses back.
pub fn record(data: &[u8]) {
    let Ok(view) = View::parse(data) else {
        return;
    };
    assert!(view.bytes.len() <= data.len());
    let parts = view.body.len() + view.topic.len() + view.properties.len();
    assert!(parts < view.bytes.len());
    let _ = view.check_body();
    properties(view.properties);
    let place = protocol::record::parse_message_id(&view.message_id());
    assert_eq!(place.map(|place| place.1), Some(view.log_offset));
}

/// A batch body: whole messages come back from our own writer.
pub fn batch(data: &[u8]) {
    let messages: Vec<_> = batches::iter(data).map_while(Result::ok).collect();
    let mut out = Vec::new();
    for message in &messages {
        batches::append(&mut out, message);
    }
    let again: Vec<_> = batches::iter(&out).collect();
    assert!(again.into_iter().eq(messages.into_iter().map(Ok)));
}

/// Properties: pairs stay pairs when one is set or removed.
pub fn properties(data: &[u8]) {
    let count = pairs::iter(data).count();
    let without = pairs::remove(data, pairs::TAGS);
    assert_eq!(pairs::get(&without, pairs::TAGS), None);
    let with = pairs::set(data, pairs::TAGS, b"fuzz");
    assert_eq!(pairs::get(&with, pairs::TAGS), Some(b"fuzz".as_slice()));
    assert!(pairs::iter(&with).count() <= count + 1);
}

/// Loose JSON: the result is bounded, and what is strict stays as it is.
pub fn json(data: &[u8]) {
    const GROWTH_MAX: usize = 16;
    let strict = protocol::json::lenient(data);
    assert!(strict.len() <= data.len() * GROWTH_MAX);
    for bytes in [data, &strict] {
        if serde_json::from_slice::<serde_json::Value>(bytes).is_ok() {
            assert_eq!(protocol::json::lenient(bytes), bytes);
        }
    }
}

/// Every body: what reads is read again the same from what we write, in both dialects.
pub fn bodies(data: &[u8]) {
    again::<HeartbeatData>(data);
    again::<CheckClientRequest>(data);
    again::<LockBatchRequest>(data);
    again::<LockBatchAnswer>(data);
    again::<TopicList>(data);
    again::<ConsumerList>(data);
    again::<KvTable>(data);
    again::<TopicConfigTable>(data);
    again::<TopicRouteData>(data);
    again::<ClusterInfo>(data);
    again::<ConsumerConnection>(data);
    again::<ProducerConnection>(data);
    again::<SubscriptionGroupTable>(data);
    again::<ConsumerOffsetTable>(data);
    again::<DelayOffsetTable>(data);
    again::<RegisterBrokerBody>(data);
    let _ = ConsumeStats::from_json(data).map(|stats| stats.to_json());
    let _ = TopicStats::from_json(data).map(|stats| stats.to_json());
}

fn again<T: Body + PartialEq + std::fmt::Debug>(data: &[u8]) {
    let Ok(read) = T::from_json(data) else {
        return;
    };
    for dialect in [Dialect::Strict, Dialect::Fastjson1] {
        let written = read.to_json(dialect);
        let same = T::from_json(&written).expect("our own bodies are read");
        assert_eq!(same, read);
    }
}

/// A compressed registration: bounded, and what reads comes back from our own writer.
pub fn register(data: &[u8]) {
    let Ok(read) = RegisterBrokerBody::from_compressed(data) else {
        return;
    };
    let same = RegisterBrokerBody::from_compressed(&read.to_compressed());
    assert_eq!(same.expect("our own registrations are read"), read);
}
