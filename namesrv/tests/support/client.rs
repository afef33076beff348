//! A connection to a name server as tests need it: ask, and look at the answer.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use protocol::body::register::RegisterBrokerBody;
use protocol::body::topic_config::{DataVersion, TopicConfig};
use protocol::code::request;
use protocol::frame::FRAME_BYTES_MAX;
use protocol::{Command, DecodeError, Encoding, Value, write_request};
use reactor::{Frames, Socket};

pub struct Client {
    pub socket: Socket,
    frames: Frames,
    answers: Vec<Answer>,
    opaque: i32,
}

#[derive(Debug)]
pub struct Answer {
    pub opaque: i32,
    pub code: i32,
    pub remark: String,
    pub fields: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("bodies are UTF-8")
    }
}

impl Client {
    pub async fn connect(addr: SocketAddr) -> Client {
        let socket = Socket::connect(addr)
            .await
            .expect("the name server listens");
        Client {
            socket,
            frames: Frames::new(FRAME_BYTES_MAX),
            answers: Vec::new(),
            opaque: 0,
        }
    }

    pub async fn ask(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) -> Answer {
        self.tell(code, false, fields, body).await;
        self.answer()
            .await
            .expect("an answer before the connection ends")
    }

    /// Sends a request and does not wait.
    pub async fn tell(&mut self, code: i32, oneway: bool, fields: &[(&str, &str)], body: &[u8]) {
        self.opaque += 1;
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, Value::Str(value)))
            .collect();
        let mut frame = Vec::new();
        write_request(
            &mut frame,
            Encoding::Json,
            code,
            self.opaque,
            oneway,
            &fields,
            body,
        );
        self.send(frame)
            .await
            .expect("the connection takes a request");
    }

    pub async fn send(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.socket.send(bytes).await.0
    }

    /// The next answer, or `None` when the connection ends first.
    pub async fn answer(&mut self) -> Option<Answer> {
        while self.answers.is_empty() {
            let chunk = self
                .socket
                .recv()
                .await
                .ok()
                .filter(|chunk| !chunk.is_empty())?;
            let answers = &mut self.answers;
            let fed = self.frames.feed(&chunk, |frame| {
                let command = Command::decode(frame)?;
                let fields = command.fields.iter().map(|(name, value)| {
                    (
                        String::from_utf8_lossy(name).into_owned(),
                        value.as_str().into_owned(),
                    )
                });
                answers.push(Answer {
                    opaque: command.opaque,
                    code: command.code,
                    remark: command.remark_str().unwrap_or_default().into_owned(),
                    fields: fields.collect(),
                    body: command.body.to_vec(),
                });
                Ok::<(), DecodeError>(())
            });
            fed.expect("answers are well-formed");
        }
        Some(self.answers.remove(0))
    }

    pub async fn register(&mut self, broker: &Broker<'_>, topics: &[(&str, i32)]) -> Answer {
        let body = body(topics, broker.version);
        self.ask(request::REGISTER_BROKER, &broker.fields(), &body)
            .await
    }

    /// The code of the answer, and the route.
    pub async fn route(&mut self, topic: &str) -> (i32, String) {
        let fields = [("topic", topic), ("acceptStandardJsonOnly", "true")];
        let answer = self
            .ask(request::GET_ROUTEINFO_BY_TOPIC, &fields, b"")
            .await;
        (answer.code, answer.text().to_owned())
    }

    pub async fn has_route(&mut self, topic: &str) -> bool {
        self.route(topic).await.0 == 0
    }
}

#[derive(Clone, Copy)]
pub struct Broker<'a> {
    pub cluster: &'a str,
    pub name: &'a str,
    pub id: &'a str,
    pub addr: &'a str,
    pub version: i64,
}

impl<'a> Broker<'a> {
    pub fn master(name: &'a str, addr: &'a str) -> Broker<'a> {
        Broker {
            cluster: "c",
            name,
            id: "0",
            addr,
            version: 1,
        }
    }

    pub fn fields(&self) -> Vec<(&'a str, &'a str)> {
        vec![
            ("clusterName", self.cluster),
            ("brokerName", self.name),
            ("brokerId", self.id),
            ("brokerAddr", self.addr),
            ("haServerAddr", "ha:1"),
            ("enableActingMaster", "false"),
            ("compressed", "false"),
        ]
    }
}

pub fn version(counter: i64) -> DataVersion {
    DataVersion {
        counter,
        state_version: 0,
        timestamp: 1_700_000_000_000,
    }
}

pub fn register_body(topics: &[(&str, i32)], counter: i64) -> RegisterBrokerBody {
    let mut body = RegisterBrokerBody::default();
    body.topic_config_serialize_wrapper.data_version = version(counter);
    for (name, queues) in topics {
        let topic_name = (*name).to_owned();
        let config = TopicConfig {
            topic_name: topic_name.clone(),
            read_queue_nums: *queues,
            write_queue_nums: *queues,
            ..TopicConfig::default()
        };
        body.topic_config_serialize_wrapper
            .topic_config_table
            .insert(topic_name, config);
    }
    body
}

pub fn body(topics: &[(&str, i32)], counter: i64) -> Vec<u8> {
    serde_json::to_vec(&register_body(topics, counter)).expect("a body is JSON")
}
