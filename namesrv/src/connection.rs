//! One connection: bytes to frames to commands, answers back, in the order they were asked.
//!
//! What needs no waiting is answered straight from the receive buffer. The rest is copied out and done one by one before more
//! is read, so a peer's requests take effect in their order and a busy connection is slowed down by TCP.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use protocol::frame::FRAME_BYTES_MAX;
use protocol::{Command, DecodeError};
use reactor::{FeedError, Frames, Instant, Outbox, Socket};

use crate::handlers::{self, Context};
use crate::server::{Connection, Shared};

/// Nothing more is read from a peer that has this much unread.
const UNSENT_BYTES_MAX: usize = 4 << 20;

/// How long a peer that has closed its sending side may take to read the rest.
const LINGER: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("closed by the peer")]
    Closed,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("a frame of {0} bytes, more than {FRAME_BYTES_MAX}")]
    FrameTooLarge(usize),
    #[error("not a RocketMQ request: {0}")]
    Decode(#[from] DecodeError),
}

pub(crate) async fn serve(shared: Rc<Shared>, socket: Rc<Socket>, peer: SocketAddr) {
    let outbox = Outbox::new(socket.clone());
    let heard_at = Rc::new(Cell::new(reactor::turn_time()));
    let connection = Connection {
        socket: socket.clone(),
        outbox: outbox.clone(),
        heard_at: heard_at.clone(),
    };
    let id = shared.enter(connection);
    let context = Context {
        shared: shared.clone(),
        outbox,
        connection: id,
        peer,
        registered: Cell::new(false),
    };

    let Err(end) = talk(&context, &socket, &heard_at).await;
    match end {
        End::Closed | End::Io(_) => tracing::debug!(%peer, reason = %end, "connection closed"),
        End::FrameTooLarge(_) | End::Decode(_) => {
            tracing::warn!(%peer, reason = %end, "connection closed")
        }
    }
    if context.registered.get() {
        shared.forget_brokers_of(id);
    }
    // A peer that only closed its sending side still gets what it asked for.
    if matches!(end, End::Closed) {
        context.outbox.close_after_flush();
        // Whether it took the rest or not, it is closed then.
        let _ = reactor::timeout(LINGER, context.outbox.closed()).await;
    }
    context.outbox.close();
    shared.leave(id);
}

async fn talk(
    context: &Context,
    socket: &Socket,
    heard_at: &Cell<Instant>,
) -> Result<Infallible, End> {
    let mut frames = Frames::new(FRAME_BYTES_MAX);
    let mut waiting: Vec<Vec<u8>> = Vec::new();
    loop {
        let chunk = socket.recv().await?;
        if chunk.is_empty() {
            return Err(End::Closed);
        }
        heard_at.set(reactor::turn_time());
        let fed = frames.feed(&chunk, |frame| {
            let command = Command::decode(frame)?;
            // Once one request waits, those behind it wait, too.
            let is_owed_much = context.outbox.queued_bytes() >= UNSENT_BYTES_MAX;
            if !waiting.is_empty() || is_owed_much || !handlers::at_once(context, &command) {
                waiting.push(frame.to_vec());
            }
            Ok(())
        });
        fed.map_err(|error| match error {
            FeedError::TooLarge { len } => End::FrameTooLarge(len),
            FeedError::Refused(error) => End::Decode(error),
        })?;
        drop(chunk);
        context.outbox.commit();
        for frame in waiting.drain(..) {
            // A few bytes may ask for megabytes, many times in one chunk.
            context.outbox.below(UNSENT_BYTES_MAX).await;
            handlers::later(context, frame).await?;
            context.outbox.commit();
        }
        context.outbox.below(UNSENT_BYTES_MAX).await;
    }
}
