//! A client of the simulated broker: one connection, requests written and answers read in order of arrival.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use protocol::frame::FRAME_BYTES_MAX;
use protocol::header::pull::PullHeader;
use protocol::header::send::SendHeader;
use protocol::{Command, Encoding, Text, Value, write_request};
use reactor::{Frames, Socket};

pub struct Wire {
    socket: Socket,
    frames: Frames,
    arrived: VecDeque<Vec<u8>>,
    encoding: Encoding,
    opaque: i32,
}

impl Wire {
    pub async fn connect(broker: SocketAddr, encoding: Encoding) -> io::Result<Self> {
        Ok(Self {
            socket: Socket::connect(broker).await?,
            frames: Frames::new(FRAME_BYTES_MAX),
            arrived: VecDeque::new(),
            encoding,
            opaque: 0,
        })
    }

    /// Writes a request and returns its number.
    pub async fn write(
        &mut self,
        code: i32,
        oneway: bool,
        fields: &[(&str, Value<'_>)],
        body: &[u8],
    ) -> io::Result<i32> {
        self.opaque += 1;
        let mut bytes = Vec::new();
        let (encoding, opaque) = (self.encoding, self.opaque);
        write_request(&mut bytes, encoding, code, opaque, oneway, fields, body);
        self.socket.send(bytes).await.0?;
        Ok(opaque)
    }

    /// Writes a send, while others read the answers.
    pub async fn send_one(&self, topic: &str) -> io::Result<()> {
        let fields = send_header(topic, 0, b"");
        let code = protocol::code::request::SEND_MESSAGE_V2;
        let mut bytes = Vec::new();
        write_request(
            &mut bytes,
            self.encoding,
            code,
            1,
            false,
            &fields.fields(),
            b"body",
        );
        self.socket.send(bytes).await.0
    }

    /// Reads until the connection ends, and says how many sends were acknowledged if it ends in order.
    pub async fn count_answers(&self) -> io::Result<i64> {
        let mut frames = Frames::new(FRAME_BYTES_MAX);
        let mut count = 0;
        loop {
            let chunk = self.socket.recv().await?;
            if chunk.is_empty() {
                return Ok(count);
            }
            let each = |frame: &[u8]| {
                let answer = Command::decode(frame)?;
                assert_eq!(answer.code, protocol::code::response::SUCCESS);
                count += 1;
                Ok::<(), protocol::DecodeError>(())
            };
            frames.feed(&chunk, each).map_err(io::Error::other)?;
        }
    }

    /// Writes bytes as they are.
    pub async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send(bytes.to_vec()).await.0
    }

    /// The next frame that answers something; requests of the broker's own are passed over.
    pub async fn answer(&mut self) -> io::Result<Vec<u8>> {
        loop {
            while let Some(frame) = self.arrived.pop_front() {
                let command = Command::decode(&frame).map_err(io::Error::other)?;
                if command.is_response() {
                    return Ok(frame);
                }
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> io::Result<()> {
        let chunk = self.socket.recv().await?;
        if chunk.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let arrived = &mut self.arrived;
        let keep = |frame: &[u8]| {
            arrived.push_back(frame.to_vec());
            Ok::<(), io::Error>(())
        };
        self.frames.feed(&chunk, keep).map_err(io::Error::other)
    }

    /// The next frame, whoever it asks or answers.
    pub async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(frame) = self.arrived.pop_front() {
                return Ok(frame);
            }
            self.receive().await?;
        }
    }

    /// Asks and waits for the answer.
    pub async fn ask(
        &mut self,
        code: i32,
        fields: &[(&str, Value<'_>)],
        body: &[u8],
    ) -> io::Result<Vec<u8>> {
        let opaque = self.write(code, false, fields, body).await?;
        let frame = self.answer().await?;
        let command = Command::decode(&frame).map_err(io::Error::other)?;
        assert_eq!(
            command.opaque, opaque,
            "answers come in the order of requests here"
        );
        Ok(frame)
    }
}

/// A plain send as a stock client makes it.
pub fn send_header<'a>(topic: &'a str, queue_id: i32, properties: &'a [u8]) -> SendHeader<'a> {
    SendHeader {
        producer_group: Text::plain(b"producers"),
        topic: Text::plain(topic.as_bytes()),
        default_topic: Text::plain(b"TBW102"),
        default_topic_queues: 4,
        queue_id,
        sys_flag: 0,
        born_ms: 1_700_000_000_000,
        flag: 0,
        properties: Text::plain(properties),
        reconsume_times: 0,
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker_name: None,
    }
}

/// A pull that brings its subscription along and may be held.
pub fn pull_header<'a>(
    topic: &'a str,
    queue_id: i32,
    offset: u64,
    expression: &'a str,
    suspend_ms: i64,
) -> PullHeader<'a> {
    use protocol::sysflag::pull as flags;
    PullHeader {
        consumer_group: Text::plain(b"consumers"),
        topic: Text::plain(topic.as_bytes()),
        queue_id,
        queue_offset: offset as i64,
        messages_max: 32,
        sys_flag: flags::SUSPEND | flags::SUBSCRIPTION,
        commit_offset: 0,
        suspend_ms,
        subscription: Some(Text::plain(expression.as_bytes())),
        sub_version: 0,
        expression_type: None,
        bytes_max: None,
        request_source: None,
        broker_name: None,
    }
}
