//! Just enough of a client to judge a broker: one blocking connection, several requests under way. It retries nothing
//! and hides nothing.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::code::request;
use protocol::header::pull::PullAnswer;
use protocol::record::View;
use protocol::{Command, Encoding, Value, write_request};

use crate::payload::{self, Number};

/// Longer than any broker takes to say that a flush timed out.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const GROUP: &str = "orbit-faultdisk";
const PULL_MESSAGES: i32 = 64;
/// The subscription comes with the pull; it is not held.
const PULL_FLAGS: i32 = 4;
const FRAME_BYTES_MAX: usize = 64 << 20;

pub struct Client {
    stream: TcpStream,
    opaque: i32,
}

/// The answer to a send.
#[derive(Clone, Debug)]
pub struct Sent {
    pub code: i32,
    pub remark: String,
    /// Where it lies, if it is stored.
    pub queue_offset: Option<u64>,
}

#[derive(Debug)]
pub struct Pulled {
    pub code: i32,
    pub remark: String,
    pub next_offset: u64,
    pub min_offset: u64,
    pub max_offset: u64,
    pub messages: Vec<Message>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub queue_offset: u64,
    pub log_offset: u64,
    /// Where its body begins in the log.
    pub body_at: u64,
    /// `None`: the body is not what anybody sent.
    pub number: Option<Number>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Client { stream, opaque: 0 })
    }

    pub fn create_topic(&mut self, topic: &str, queues: u32) -> io::Result<()> {
        let fields = [
            ("topic", Value::Str(topic)),
            ("defaultTopic", Value::Str("TBW102")),
            ("readQueueNums", Value::I32(queues as i32)),
            ("writeQueueNums", Value::I32(queues as i32)),
            ("perm", Value::I32(6)),
            ("topicFilterType", Value::Str("SINGLE_TAG")),
            ("topicSysFlag", Value::I32(0)),
            ("order", Value::Bool(false)),
        ];
        let frame = self.ask(request::UPDATE_AND_CREATE_TOPIC, &fields)?;
        let answer = decode(&frame)?;
        match answer.code {
            0 => Ok(()),
            code => Err(io::Error::other(format!(
                "creating {topic} was refused: {code} {}",
                answer.remark_str().unwrap_or_default()
            ))),
        }
    }

    /// Sends messages and gives each answer with the message's place in the list, in whatever order they come.
    pub fn send(
        &mut self,
        topic: &str,
        messages: &[(u32, Vec<u8>)],
        mut each: impl FnMut(usize, Sent),
    ) -> io::Result<()> {
        let first = self.opaque + 1;
        let mut frames = Vec::new();
        for (queue, body) in messages {
            self.opaque += 1;
            write_send(&mut frames, self.opaque, topic, *queue, body);
        }
        self.stream.write_all(&frames)?;
        for _ in messages {
            let frame = self.next_frame()?;
            let answer = decode(&frame)?;
            let at = usize::try_from(answer.opaque - first).ok();
            let at = at.filter(|at| *at < messages.len()).ok_or_else(broken)?;
            let queue_offset = answer.fields.i64("queueOffset").ok().flatten();
            each(
                at,
                Sent {
                    code: answer.code,
                    remark: answer.remark_str().unwrap_or_default().into_owned(),
                    queue_offset: queue_offset.and_then(|offset| u64::try_from(offset).ok()),
                },
            );
        }
        Ok(())
    }

    pub fn send_one(&mut self, topic: &str, queue: u32, body: Vec<u8>) -> io::Result<Sent> {
        let mut sent = None;
        self.send(topic, &[(queue, body)], |_, answer| sent = Some(answer))?;
        Ok(sent.expect("one request, one answer"))
    }

    pub fn pull(&mut self, topic: &str, queue: u32, offset: u64) -> io::Result<Pulled> {
        let fields = [
            ("consumerGroup", Value::Str(GROUP)),
            ("topic", Value::Str(topic)),
            ("queueId", Value::I32(queue as i32)),
            ("queueOffset", Value::I64(offset as i64)),
            ("maxMsgNums", Value::I32(PULL_MESSAGES)),
            ("sysFlag", Value::I32(PULL_FLAGS)),
            ("commitOffset", Value::I64(0)),
            ("suspendTimeoutMillis", Value::I64(0)),
            ("subVersion", Value::I64(0)),
            ("subscription", Value::Str("*")),
            ("expressionType", Value::Str("TAG")),
        ];
        let frame = self.ask(request::PULL_MESSAGE, &fields)?;
        let answer = decode(&frame)?;
        let places = PullAnswer::from(&answer).unwrap_or_default();
        Ok(Pulled {
            code: answer.code,
            remark: answer.remark_str().unwrap_or_default().into_owned(),
            next_offset: places.next_offset.max(0) as u64,
            min_offset: places.min_offset.max(0) as u64,
            max_offset: places.max_offset.max(0) as u64,
            messages: messages(answer.body)?,
        })
    }

    pub fn max_offset(&mut self, topic: &str, queue: u32) -> io::Result<u64> {
        self.offset(request::GET_MAX_OFFSET, topic, queue)
    }

    pub fn min_offset(&mut self, topic: &str, queue: u32) -> io::Result<u64> {
        self.offset(request::GET_MIN_OFFSET, topic, queue)
    }

    fn offset(&mut self, code: i32, topic: &str, queue: u32) -> io::Result<u64> {
        let fields = [
            ("topic", Value::Str(topic)),
            ("queueId", Value::I32(queue as i32)),
            ("committed", Value::Bool(true)),
        ];
        let frame = self.ask(code, &fields)?;
        let answer = decode(&frame)?;
        let offset = answer.fields.i64("offset").ok().flatten();
        offset
            .and_then(|offset| u64::try_from(offset).ok())
            .ok_or_else(|| {
                let remark = answer.remark_str().unwrap_or_default();
                io::Error::other(format!("no offset but {} {remark}", answer.code))
            })
    }

    fn ask(&mut self, code: i32, fields: &[(&str, Value<'_>)]) -> io::Result<Vec<u8>> {
        self.opaque += 1;
        let mut frame = Vec::new();
        write_request(
            &mut frame,
            Encoding::Json,
            code,
            self.opaque,
            false,
            fields,
            b"",
        );
        self.stream.write_all(&frame)?;
        let answer = self.next_frame()?;
        match decode(&answer)?.opaque == self.opaque {
            true => Ok(answer),
            false => Err(broken()),
        }
    }

    /// The next answer, without its length; requests of the broker to its clients are passed over.
    fn next_frame(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let mut word = [0; 4];
            self.stream.read_exact(&mut word)?;
            let len = u32::from_be_bytes(word) as usize;
            if len > FRAME_BYTES_MAX {
                return Err(broken());
            }
            let mut frame = vec![0; len];
            self.stream.read_exact(&mut frame)?;
            if decode(&frame)?.is_response() {
                return Ok(frame);
            }
        }
    }
}

fn write_send(out: &mut Vec<u8>, opaque: i32, topic: &str, queue: u32, body: &[u8]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let fields = [
        ("a", Value::Str(GROUP)),
        ("b", Value::Str(topic)),
        ("c", Value::Str("TBW102")),
        ("d", Value::I32(4)),
        ("e", Value::I32(queue as i32)),
        ("f", Value::I32(0)),
        ("g", Value::I64(now.unwrap_or_default().as_millis() as i64)),
        ("h", Value::I32(0)),
        ("i", Value::Str("")),
        ("j", Value::I32(0)),
        ("k", Value::Bool(false)),
        ("m", Value::Bool(false)),
    ];
    write_request(
        out,
        Encoding::Binary,
        request::SEND_MESSAGE_V2,
        opaque,
        false,
        &fields,
        body,
    );
}

fn messages(mut body: &[u8]) -> io::Result<Vec<Message>> {
    let mut messages = Vec::new();
    while !body.is_empty() {
        let view = View::parse(body).map_err(|error| io::Error::other(error.to_string()))?;
        messages.push(Message {
            queue_offset: view.queue_offset,
            log_offset: view.log_offset,
            body_at: view.log_offset + (view.body.as_ptr().addr() - body.as_ptr().addr()) as u64,
            number: payload::check(view.body),
        });
        body = &body[view.bytes.len()..];
    }
    Ok(messages)
}

fn decode(frame: &[u8]) -> io::Result<Command<'_>> {
    Command::decode(frame).map_err(|error| io::Error::other(error.to_string()))
}

fn broken() -> io::Error {
    io::Error::other("the answer is none to what was asked")
}
