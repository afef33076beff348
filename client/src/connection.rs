//! One connection: requests go out in batches, answers find their asker by number, and what the broker asks of us
//! is handed to the owner. Any number of requests may be under way at once.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use protocol::code::response;
use protocol::frame::FRAME_BYTES_MAX;
use protocol::{Command, Encoding, Value, write_request, write_response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::lock::Mutex;

/// Bytes that wait to be written; above this, senders wait.
const OUTBOX_BYTES_MAX: usize = 8 << 20;
const READ_BYTES: usize = 64 << 10;

pub(crate) struct Connection {
    shared: Arc<Shared>,
    next_opaque: AtomicI32,
    tasks: [JoinHandle<()>; 2],
}

/// What the connection, its two tasks and the answers under way have in common.
struct Shared {
    address: String,
    outbox: Mutex<Outbox>,
    filled: Notify,
    drained: Notify,
    /// Who waits for which answer; `None` once the connection is closed.
    waiting: Mutex<Option<HashMap<i32, oneshot::Sender<Answer>>>>,
}

#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    /// The writer has taken a batch and is not done with it.
    writing: bool,
}

/// A whole frame without its length, known to decode.
pub(crate) struct Answer(Vec<u8>);

impl Answer {
    fn from(frame: Vec<u8>) -> Option<Answer> {
        Command::decode(&frame).is_ok().then_some(Answer(frame))
    }

    pub fn command(&self) -> Command<'_> {
        Command::decode(&self.0).expect("decoded when it arrived")
    }

    /// The body as JSON of a known form.
    pub fn json<T: serde::de::DeserializeOwned>(&self, address: &str) -> Result<T> {
        protocol::json::from_slice(self.command().body).map_err(|error| Error::Broken {
            address: address.to_owned(),
            what: error.to_string(),
        })
    }

    /// A field that must be there and hold a number.
    pub fn i64(&self, name: &'static str, address: &str) -> Result<i64> {
        let found = self.command().fields.required_i64(name);
        found.map_err(|error| Error::Broken {
            address: address.to_owned(),
            what: error.to_string(),
        })
    }
}

/// Something the broker asks of us, such as to look again who is in a group.
pub(crate) struct Asked {
    frame: Answer,
    shared: Arc<Shared>,
}

impl Asked {
    pub fn command(&self) -> Command<'_> {
        self.frame.command()
    }

    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// Answers on the connection the question came by, unless that is closed or no answer is wanted.
    pub fn answer(&self, code: i32, remark: Option<&str>, body: &[u8]) {
        let command = self.command();
        if command.is_oneway() {
            return;
        }
        let mut outbox = self.shared.outbox.lock();
        write_response(
            &mut outbox.bytes,
            (&command).into(),
            code,
            remark,
            &[],
            body,
        );
        drop(outbox);
        self.shared.filled.notify_one();
    }
}

pub(crate) type Fields<'a> = &'a [(&'a str, Value<'a>)];

impl Connection {
    pub async fn open(
        address: &str,
        limit: Duration,
        asked: mpsc::Sender<Asked>,
    ) -> Result<Connection> {
        let failed = |source| Error::Connect {
            address: address.to_owned(),
            source,
        };
        let connecting = tokio::time::timeout(limit, TcpStream::connect(address)).await;
        let stream = connecting
            .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let shared = Arc::new(Shared {
            address: address.to_owned(),
            outbox: Mutex::default(),
            filled: Notify::new(),
            drained: Notify::new(),
            waiting: Mutex::new(Some(HashMap::new())),
        });
        let (reader, writer) = stream.into_split();
        let reading = tokio::spawn(read(reader, shared.clone(), asked));
        let writing = tokio::spawn(write(writer, shared.clone()));
        Ok(Connection {
            shared,
            next_opaque: AtomicI32::new(0),
            tasks: [reading, writing],
        })
    }

    pub fn address(&self) -> &str {
        &self.shared.address
    }

    pub fn is_closed(&self) -> bool {
        self.shared.waiting.lock().is_none()
    }

    /// One request and its answer, whatever its code.
    pub async fn call(
        &self,
        code: i32,
        fields: Fields<'_>,
        body: &[u8],
        limit: Duration,
    ) -> Result<Answer> {
        self.submit(code, fields, body).await?.answer(limit).await
    }

    /// The same, taking only SUCCESS for an answer.
    pub async fn demand(
        &self,
        code: i32,
        fields: Fields<'_>,
        body: &[u8],
        limit: Duration,
    ) -> Result<Answer> {
        let answer = self.call(code, fields, body, limit).await?;
        match answer.command().code {
            response::SUCCESS => Ok(answer),
            _ => Err(refusal(&answer.command())),
        }
    }

    /// Queues a request; requests leave in the order in which this is called.
    pub async fn submit(&self, code: i32, fields: Fields<'_>, body: &[u8]) -> Result<Pending> {
        self.shared.wait_for_room().await;
        let opaque = self.next_opaque.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match self.shared.waiting.lock().as_mut() {
            Some(waiting) => drop(waiting.insert(opaque, sender)),
            None => return Err(self.shared.disconnected()),
        }
        self.shared.append(code, opaque, false, fields, body);
        Ok(Pending {
            opaque,
            receiver,
            shared: self.shared.clone(),
        })
    }

    /// A request that nobody answers.
    pub async fn tell(&self, code: i32, fields: Fields<'_>, body: &[u8]) -> Result<()> {
        self.shared.wait_for_room().await;
        if self.is_closed() {
            return Err(self.shared.disconnected());
        }
        let opaque = self.next_opaque.fetch_add(1, Ordering::Relaxed);
        self.shared.append(code, opaque, true, fields, body);
        Ok(())
    }

    /// Waits until everything queued has been handed to the kernel.
    pub async fn flush(&self) {
        loop {
            let drained = self.shared.drained.notified();
            let idle = {
                let outbox = self.shared.outbox.lock();
                outbox.bytes.is_empty() && !outbox.writing
            };
            if idle || self.is_closed() {
                return;
            }
            drained.await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.shared.close();
    }
}

/// An answer that is on its way. Dropping it means not caring.
pub(crate) struct Pending {
    opaque: i32,
    receiver: oneshot::Receiver<Answer>,
    shared: Arc<Shared>,
}

impl Pending {
    pub async fn answer(mut self, limit: Duration) -> Result<Answer> {
        match tokio::time::timeout(limit, &mut self.receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.shared.disconnected()),
            Err(_) => Err(Error::Timeout {
                address: self.shared.address.clone(),
                after: limit,
            }),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(waiting) = self.shared.waiting.lock().as_mut() {
            waiting.remove(&self.opaque);
        }
    }
}

pub(crate) fn refusal(command: &Command<'_>) -> Error {
    Error::Refused {
        code: command.code,
        remark: command.remark_str().unwrap_or_default().into_owned(),
    }
}

impl Shared {
    fn disconnected(&self) -> Error {
        Error::Disconnected {
            address: self.address.clone(),
        }
    }

    fn append(&self, code: i32, opaque: i32, oneway: bool, fields: Fields<'_>, body: &[u8]) {
        write_request(
            &mut self.outbox.lock().bytes,
            Encoding::Json,
            code,
            opaque,
            oneway,
            fields,
            body,
        );
        self.filled.notify_one();
    }

    async fn wait_for_room(&self) {
        loop {
            let drained = self.drained.notified();
            if self.outbox.lock().bytes.len() < OUTBOX_BYTES_MAX || self.waiting.lock().is_none() {
                return;
            }
            drained.await;
        }
    }

    /// Whoever waits for an answer learns that none will come.
    fn close(&self) {
        self.waiting.lock().take();
        self.drained.notify_waiters();
        self.filled.notify_one();
    }
}

async fn write(mut socket: OwnedWriteHalf, shared: Arc<Shared>) {
    let mut batch = Vec::new();
    loop {
        shared.filled.notified().await;
        if shared.waiting.lock().is_none() {
            return;
        }
        {
            let mut outbox = shared.outbox.lock();
            std::mem::swap(&mut batch, &mut outbox.bytes);
            outbox.writing = true;
        }
        if let Err(error) = socket.write_all(&batch).await {
            tracing::debug!(address = %shared.address, %error, "writing failed");
            return shared.close();
        }
        batch.clear();
        shared.outbox.lock().writing = false;
        shared.drained.notify_waiters();
    }
}

async fn read(mut socket: OwnedReadHalf, shared: Arc<Shared>, asked: mpsc::Sender<Asked>) {
    let mut input = Vec::with_capacity(READ_BYTES);
    loop {
        input.reserve(READ_BYTES);
        match socket.read_buf(&mut input).await {
            Ok(0) => break,
            Err(error) => {
                tracing::debug!(address = %shared.address, %error, "reading failed");
                break;
            }
            Ok(_) => {}
        }
        match split(&input, |frame| take(&shared, frame, &asked)) {
            Ok(used) => drop(input.drain(..used)),
            Err(what) => {
                tracing::warn!(address = %shared.address, what, "closing a connection that does not follow the protocol");
                break;
            }
        }
    }
    shared.close();
}

/// Gives every whole frame to `each`; how many bytes are used up.
fn split(
    input: &[u8],
    mut each: impl FnMut(&[u8]) -> std::result::Result<(), &'static str>,
) -> std::result::Result<usize, &'static str> {
    let mut used = 0;
    while let Some(word) = input[used..].first_chunk::<4>() {
        let len = u32::from_be_bytes(*word) as usize;
        if len > FRAME_BYTES_MAX {
            return Err("a frame is too large");
        }
        let Some(frame) = input[used + 4..].get(..len) else {
            break;
        };
        each(frame)?;
        used += 4 + len;
    }
    Ok(used)
}

fn take(
    shared: &Arc<Shared>,
    frame: &[u8],
    asked: &mpsc::Sender<Asked>,
) -> std::result::Result<(), &'static str> {
    let answer = Answer::from(frame.to_vec()).ok_or("a frame is not a command")?;
    let command = answer.command();
    if !command.is_response() {
        let question = Asked {
            frame: answer,
            shared: shared.clone(),
        };
        // A broker that asks faster than we look asks in vain; it will ask again.
        let _ = asked.try_send(question);
        return Ok(());
    }
    let opaque = command.opaque;
    let waiter = shared
        .waiting
        .lock()
        .as_mut()
        .and_then(|waiting| waiting.remove(&opaque));
    if let Some(waiter) = waiter {
        // The asker may have given up; that is its right.
        let _ = waiter.send(answer);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_split_wherever_the_stream_is_cut() {
        let mut stream = Vec::new();
        for body in [&b"one"[..], b"", b"three"] {
            write_request(&mut stream, Encoding::Json, 1, 1, false, &[], body);
        }
        for cut in 0..stream.len() {
            let mut bodies = 0;
            let used = split(&stream[..cut], |_| {
                bodies += 1;
                Ok(())
            });
            let used = used.expect("small frames");
            let rest = split(&stream[used..], |_| {
                bodies += 1;
                Ok(())
            });
            assert_eq!((rest, bodies), (Ok(stream.len() - used), 3));
        }
    }

    #[test]
    fn an_oversized_length_is_refused_before_its_bytes_arrive() {
        assert!(split(&[0x7F, 0, 0, 0], |_| Ok(())).is_err());
    }
}
