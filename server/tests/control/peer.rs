//! A client by hand: asks, and keeps what the broker says unasked.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use protocol::body::Body;
use protocol::body::heartbeat::{ConsumerData, HeartbeatData, SubscriptionData};
use protocol::code::request;
use protocol::frame::FRAME_BYTES_MAX;
use protocol::json::Dialect;
use protocol::{Asked, Command, Encoding, Value, write_request, write_response};
use reactor::{Frames, Socket};

use crate::cluster::BROKER;

/// A frame, taken apart.
#[derive(Clone, Debug)]
pub struct Heard {
    pub code: i32,
    pub opaque: i32,
    pub is_answer: bool,
    pub remark: String,
    pub fields: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Heard {
    fn of(frame: &[u8]) -> Self {
        let command = Command::decode(frame).expect("the broker's frames are whole");
        let fields = command.fields.iter();
        Self {
            code: command.code,
            opaque: command.opaque,
            is_answer: command.is_response(),
            remark: command
                .remark_str()
                .map(|r| r.into_owned())
                .unwrap_or_default(),
            fields: fields
                .map(|(name, value)| {
                    let name = String::from_utf8_lossy(name).into_owned();
                    (name, value.as_str().into_owned())
                })
                .collect(),
            body: command.body.to_vec(),
        }
    }

    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map(String::as_str).unwrap_or("")
    }
}

pub struct Peer {
    socket: Socket,
    frames: Frames,
    heard: VecDeque<Heard>,
    opaque: i32,
}

impl Peer {
    pub async fn connect() -> Self {
        Self::connect_to(BROKER).await
    }

    pub async fn connect_to(address: SocketAddr) -> Self {
        Self {
            socket: Socket::connect(address).await.expect("somebody listens"),
            frames: Frames::new(FRAME_BYTES_MAX),
            heard: VecDeque::new(),
            opaque: 0,
        }
    }

    pub async fn ask(&mut self, code: i32, fields: &[(&str, Value<'_>)], body: &[u8]) -> Heard {
        self.opaque += 1;
        let opaque = self.opaque;
        let mut bytes = Vec::new();
        write_request(
            &mut bytes,
            Encoding::Json,
            code,
            opaque,
            false,
            fields,
            body,
        );
        self.socket.send(bytes).await.0.expect("connected");
        loop {
            let answers = |heard: &Heard| heard.is_answer && heard.opaque == opaque;
            if let Some(at) = self.heard.iter().position(answers) {
                return self.heard.remove(at).expect("it is there");
            }
            assert!(self.hear().await, "the broker closed the connection");
        }
    }

    /// A request whose answer nobody waits for now.
    pub async fn write(&mut self, code: i32, fields: &[(&str, Value<'_>)]) {
        self.opaque += 1;
        let mut bytes = Vec::new();
        let (encoding, opaque) = (Encoding::Json, self.opaque);
        write_request(&mut bytes, encoding, code, opaque, false, fields, &[]);
        self.socket.send(bytes).await.0.expect("connected");
    }

    /// The same request many times and one for a topic behind it, in one piece; nothing is read.
    pub async fn ask_many(&mut self, code: i32, count: usize, topic: &str) {
        let mut bytes = Vec::new();
        for _ in 0..count {
            self.opaque += 1;
            let (encoding, opaque) = (Encoding::Binary, self.opaque);
            write_request(&mut bytes, encoding, code, opaque, false, &[], &[]);
        }
        let fields = topic_fields(topic, 1, false);
        let (encoding, code) = (Encoding::Binary, request::UPDATE_AND_CREATE_TOPIC);
        write_request(&mut bytes, encoding, code, 0, false, &fields, &[]);
        self.socket.send(bytes).await.0.expect("connected");
    }

    pub async fn next_answer(&mut self) -> Heard {
        loop {
            if let Some(at) = self.heard.iter().position(|heard| heard.is_answer) {
                return self.heard.remove(at).expect("it is there");
            }
            assert!(self.hear().await, "the broker closed the connection");
        }
    }

    /// The next request of the broker with this code, if one comes in time.
    pub async fn asked(&mut self, code: i32, time: Duration) -> Option<Heard> {
        let until = reactor::now() + time;
        loop {
            let wanted = |heard: &Heard| !heard.is_answer && heard.code == code;
            if let Some(at) = self.heard.iter().position(wanted) {
                return self.heard.remove(at);
            }
            let left = until.saturating_since(reactor::now());
            match reactor::timeout(left, self.hear()).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return None,
            }
        }
    }

    /// How many requests of the broker with this code have come within `time`.
    pub async fn told(&mut self, code: i32, time: Duration) -> usize {
        let until = reactor::now() + time;
        loop {
            let left = until.saturating_since(reactor::now());
            match reactor::timeout(left, self.hear()).await {
                Ok(true) => {}
                Ok(false) | Err(_) => break,
            }
        }
        let before = self.heard.len();
        self.heard
            .retain(|heard| heard.is_answer || heard.code != code);
        before - self.heard.len()
    }

    /// False once the broker has closed the connection.
    pub async fn hear(&mut self) -> bool {
        let Ok(chunk) = self.socket.recv().await else {
            return false;
        };
        let heard = &mut self.heard;
        let keep = |frame: &[u8]| {
            heard.push_back(Heard::of(frame));
            Ok::<(), std::convert::Infallible>(())
        };
        self.frames.feed(&chunk, keep).expect("frames are whole");
        !chunk.is_empty()
    }

    /// As `write`, with a body.
    pub async fn write_with(&mut self, code: i32, fields: &[(&str, Value<'_>)], body: &[u8]) {
        self.opaque += 1;
        let mut bytes = Vec::new();
        let (encoding, opaque) = (Encoding::Json, self.opaque);
        write_request(&mut bytes, encoding, code, opaque, false, fields, body);
        self.socket.send(bytes).await.0.expect("connected");
    }

    /// What a request of the broker is told.
    pub async fn answer(&mut self, to: &Heard, code: i32, body: &[u8]) {
        let mut bytes = Vec::new();
        let (encoding, opaque) = (Encoding::Json, to.opaque);
        let to = Asked { opaque, encoding };
        write_response(&mut bytes, to, code, None, &[], body);
        self.socket.send(bytes).await.0.expect("connected");
    }

    /// Joins a group, subscribing to all of a topic.
    pub async fn join(&mut self, client: &str, group: &str, topic: &str) -> Heard {
        let body = heartbeat(client, group, topic);
        self.ask(request::HEART_BEAT, &[], &body).await
    }

    /// A heartbeat of 5.x, in full or in short.
    pub async fn beat(
        &mut self,
        group: &str,
        topics: &[&str],
        fingerprint: i32,
        without_sub: bool,
    ) -> Heard {
        let subscriptions = topics
            .iter()
            .map(|topic| SubscriptionData::by_tags(topic, "*", 1));
        let beat = HeartbeatData {
            client_id: "client".to_owned(),
            consumer_data_set: vec![ConsumerData {
                group_name: group.to_owned(),
                subscription_data_set: subscriptions.collect(),
                ..ConsumerData::default()
            }],
            heartbeat_fingerprint: fingerprint,
            without_sub,
            ..HeartbeatData::default()
        };
        let body = beat.to_json(Dialect::Strict);
        self.ask(request::HEART_BEAT, &[], &body).await
    }

    pub async fn make_topic(&mut self, topic: &str, queues: i32) -> Heard {
        self.put_topic(topic, queues, false).await
    }

    pub async fn make_ordered_topic(&mut self, topic: &str) -> Heard {
        self.put_topic(topic, 1, true).await
    }

    async fn put_topic(&mut self, topic: &str, queues: i32, order: bool) -> Heard {
        let fields = topic_fields(topic, queues, order);
        self.ask(request::UPDATE_AND_CREATE_TOPIC, &fields, &[])
            .await
    }

    pub async fn send(&mut self, topic: &str, properties: &str, body: &[u8]) -> Heard {
        let fields = send_fields(topic, properties);
        self.ask(request::SEND_MESSAGE, &fields, body).await
    }

    /// The same, and nobody waits for the answer.
    pub async fn send_on(&mut self, topic: &str, properties: &str, body: &[u8]) {
        let fields = send_fields(topic, properties);
        self.write_with(request::SEND_MESSAGE, &fields, body).await;
    }

    /// All there is from an offset of queue 0 on; does not wait for more.
    pub async fn pull(&mut self, group: &str, topic: &str, offset: i64) -> Heard {
        let fields = [
            ("consumerGroup", Value::Str(group)),
            ("topic", Value::Str(topic)),
            ("queueId", Value::I32(0)),
            ("queueOffset", Value::I64(offset)),
            ("maxMsgNums", Value::I32(32)),
            ("sysFlag", Value::I32(4)),
            ("commitOffset", Value::I64(0)),
            ("suspendTimeoutMillis", Value::I64(0)),
            ("subscription", Value::Str("*")),
            ("subVersion", Value::I64(1)),
        ];
        self.ask(request::PULL_MESSAGE, &fields, &[]).await
    }

    pub async fn max_offset(&mut self, topic: &str, queue_id: i32) -> i64 {
        let fields = [
            ("topic", Value::Str(topic)),
            ("queueId", Value::I32(queue_id)),
        ];
        let answer = self.ask(request::GET_MAX_OFFSET, &fields, &[]).await;
        answer.field("offset").parse().expect("a number")
    }

    pub async fn commit(&mut self, group: &str, topic: &str, offset: i64) -> Heard {
        let fields = [
            ("consumerGroup", Value::Str(group)),
            ("topic", Value::Str(topic)),
            ("queueId", Value::I32(0)),
            ("commitOffset", Value::I64(offset)),
        ];
        self.ask(request::UPDATE_CONSUMER_OFFSET, &fields, &[])
            .await
    }

    pub async fn committed(&mut self, group: &str, topic: &str) -> Heard {
        let fields = [
            ("consumerGroup", Value::Str(group)),
            ("topic", Value::Str(topic)),
            ("queueId", Value::I32(0)),
        ];
        self.ask(request::QUERY_CONSUMER_OFFSET, &fields, &[]).await
    }
}

fn send_fields<'a>(topic: &'a str, properties: &'a str) -> [(&'static str, Value<'a>); 10] {
    [
        ("producerGroup", Value::Str("p")),
        ("topic", Value::Str(topic)),
        ("defaultTopic", Value::Str("TBW102")),
        ("defaultTopicQueueNums", Value::I32(4)),
        ("queueId", Value::I32(0)),
        ("sysFlag", Value::I32(0)),
        ("bornTimestamp", Value::I64(1)),
        ("flag", Value::I32(0)),
        ("properties", Value::Str(properties)),
        ("reconsumeTimes", Value::I32(0)),
    ]
}

/// Of a consumer that subscribes to all of a topic.
pub fn heartbeat(client: &str, group: &str, topic: &str) -> Vec<u8> {
    let beat = HeartbeatData {
        client_id: client.to_owned(),
        consumer_data_set: vec![ConsumerData {
            group_name: group.to_owned(),
            subscription_data_set: vec![SubscriptionData::by_tags(topic, "*", 1)],
            ..ConsumerData::default()
        }],
        ..HeartbeatData::default()
    };
    beat.to_json(Dialect::Strict)
}

fn topic_fields(topic: &str, queues: i32, order: bool) -> [(&'static str, Value<'_>); 8] {
    [
        ("topic", Value::Str(topic)),
        ("defaultTopic", Value::Str("TBW102")),
        ("readQueueNums", Value::I32(queues)),
        ("writeQueueNums", Value::I32(queues)),
        ("perm", Value::I32(6)),
        ("topicFilterType", Value::Str("SINGLE_TAG")),
        ("topicSysFlag", Value::I32(0)),
        ("order", Value::Bool(order)),
    ]
}
