//! A connection to one name server: one request at a time, its answer or the reason there is none.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use protocol::frame::FRAME_BYTES_MAX;
use protocol::{Command, DecodeError, Encoding, Value, write_request};
use reactor::{Frames, Notify, Socket, Task};

/// Why a request was not done. The connection is given up with every one of them, and a new one registers everything.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the name server cannot be reached: {0}")]
    Connect(io::Error),
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the name server closed the connection")]
    Closed,
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("request {request} refused with code {code}: {remark}")]
    Refused {
        request: i32,
        code: i32,
        remark: String,
    },
    #[error("the answer cannot be read: {0}")]
    Answer(#[from] DecodeError),
}

pub(super) struct Link {
    socket: Rc<Socket>,
    inbox: Rc<Inbox>,
    opaque: Cell<i32>,
    timeout: Duration,
    reader: Task<()>,
}

/// Between the task that reads the socket and the one that waits for answers.
struct Inbox {
    answers: RefCell<VecDeque<Vec<u8>>>,
    closed: Cell<bool>,
    /// The registering task waits for this and for everything else that concerns it.
    wake: Rc<Notify>,
}

impl Link {
    /// Connects. `wake` is notified when an answer comes and when the connection ends.
    pub(super) async fn open(
        addr: &str,
        timeout: Duration,
        wake: Rc<Notify>,
    ) -> Result<Link, Failure> {
        let connecting = async { Socket::connect(resolve(addr).await?).await };
        let connected = reactor::timeout(timeout, connecting)
            .await
            .map_err(|_| Failure::Timeout(timeout))?;
        let socket = Rc::new(connected.map_err(Failure::Connect)?);
        let inbox = Rc::new(Inbox {
            answers: RefCell::default(),
            closed: Cell::new(false),
            wake,
        });
        let reader = reactor::spawn("registration-reader", read(socket.clone(), inbox.clone()));
        Ok(Link {
            socket,
            inbox,
            opaque: Cell::new(0),
            timeout,
            reader,
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.inbox.closed.get()
    }

    /// Sends a request and returns the frame of its answer, whatever its code.
    pub(super) async fn ask(
        &self,
        code: i32,
        fields: &[(&str, Value<'_>)],
        body: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        self.ask_within(self.timeout, code, fields, body).await
    }

    /// The same with a time of its own for the answer. After a `Timeout` the link can be used on: a late answer is dropped.
    pub(super) async fn ask_within(
        &self,
        timeout: Duration,
        code: i32,
        fields: &[(&str, Value<'_>)],
        body: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let opaque = self.opaque.get() + 1;
        self.opaque.set(opaque);
        let mut frame = Vec::with_capacity(body.len() + 512);
        write_request(
            &mut frame,
            Encoding::Json,
            code,
            opaque,
            false,
            fields,
            body,
        );
        let sent = reactor::timeout(self.timeout, self.socket.send(frame)).await;
        // Half a frame may be out: not a timeout after which the link could be used on.
        sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
            .0?;
        let answered = reactor::timeout(timeout, self.answer(opaque)).await;
        answered.unwrap_or(Err(Failure::Timeout(timeout)))
    }

    async fn answer(&self, opaque: i32) -> Result<Vec<u8>, Failure> {
        loop {
            while let Some(frame) = self.take_answer() {
                if Command::decode(&frame)?.opaque == opaque {
                    return Ok(frame);
                }
            }
            if self.is_closed() {
                return Err(Failure::Closed);
            }
            self.inbox.wake.notified().await;
        }
    }

    fn take_answer(&self) -> Option<Vec<u8>> {
        self.inbox.answers.borrow_mut().pop_front()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.socket.shutdown();
        self.reader.cancel();
    }
}

/// Name servers ask nothing over this connection: only answers are kept.
async fn read(socket: Rc<Socket>, inbox: Rc<Inbox>) {
    let mut frames = Frames::new(FRAME_BYTES_MAX);
    while let Ok(chunk) = socket.recv().await {
        let fed = frames.feed(&chunk, |frame| {
            if Command::decode(frame)?.is_response() {
                inbox.answers.borrow_mut().push_back(frame.to_vec());
            }
            Ok::<(), DecodeError>(())
        });
        if let Err(error) = fed {
            tracing::warn!(name_server = %socket.peer_addr(), "unreadable answer: {error}");
            break;
        }
        if chunk.is_empty() {
            break;
        }
        inbox.wake.notify();
    }
    inbox.closed.set(true);
    inbox.wake.notify();
}

/// An address as it stands, or the first one its name has. Asked anew for every connection: names move.
async fn resolve(addr: &str) -> io::Result<SocketAddr> {
    if let Ok(addr) = addr.parse() {
        return Ok(addr);
    }
    let name = addr.to_owned();
    // Looking up a name blocks, and has no place in a ring.
    let found = reactor::offload_remote("resolve-name-server", move || {
        let mut addrs: Vec<SocketAddr> = name.to_socket_addrs()?.collect();
        addrs.sort_by_key(SocketAddr::is_ipv6);
        Ok::<_, io::Error>(addrs.first().copied())
    });
    found
        .await?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{addr} has no address")))
}
