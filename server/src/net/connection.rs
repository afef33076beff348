//! One client's connection: bytes to frames to requests, with back-pressure in both directions.
//!
//! A peer that sends what is no frame or no command loses its connection, and nobody else notices.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use protocol::frame::FRAME_BYTES_MAX;
use reactor::{FeedError, Frames, Socket};

use crate::messages::ToCoordinator;
use crate::request::{self, Broken};
use crate::shard::{Connection, Shard};

/// Serves a connection that `ShardStats::connections` counts already.
pub fn start(shard: &Rc<Shard>, socket: Socket) {
    if shard.is_stopping() {
        shard.stats().connections.sub(1);
        return;
    }
    let connection = shard.connections.open(Rc::new(socket));
    tracing::debug!(peer = %connection.peer(), shard = shard.number(), "connected");
    reactor::spawn("connection", serve(Rc::clone(shard), connection));
}

/// Why a connection ended.
enum End {
    Peer,
    Stopping,
    Io(io::Error),
    FrameTooLarge(u64),
    Broken(Broken),
}

async fn serve(shard: Rc<Shard>, connection: Rc<Connection>) {
    let seat = Seat {
        shard: Rc::clone(&shard),
        connection: Rc::clone(&connection),
        left: Cell::new(false),
    };
    let end = read(&shard, &connection).await;
    log(&shard, &connection, &end);
    match end {
        // What it is owed goes out first: the stop of the shard closes it then.
        End::Stopping => connection.outbox().closed().await,
        _ => connection.outbox().close(),
    }
    seat.leave().await;
}

async fn read(shard: &Rc<Shard>, connection: &Rc<Connection>) -> End {
    let mut frames = Frames::new(FRAME_BYTES_MAX);
    loop {
        let chunk = match connection.socket().recv().await {
            Ok(chunk) if chunk.is_empty() => return End::Peer,
            Ok(chunk) => chunk,
            Err(error) => return End::Io(error),
        };
        if shard.is_stopping() {
            return End::Stopping;
        }
        connection.touch();
        shard.refresh();
        let fed = frames.feed(&chunk, |frame| request::handle(shard, connection, frame));
        // The kernel gets its buffer back before anything is waited for.
        drop(chunk);
        shard.connections.commit();
        match fed {
            Ok(()) => {}
            Err(FeedError::TooLarge { len }) => return End::FrameTooLarge(len as u64),
            Err(FeedError::Refused(broken)) => return End::Broken(broken),
        }
        connection
            .flush_to_coordinator(&shard.shared.requests)
            .await;
        shard.outgoing.room().await;
        connection.cold_reads.room().await;
        let queued_max = shard.connections.outbox_bytes_max();
        connection.outbox().below(queued_max).await;
        if connection.outbox().is_closed() {
            // The stop of the shard closes it once all answers are in it, and those are not to be dropped.
            return match shard.is_stopping() {
                true => End::Stopping,
                false => End::Peer,
            };
        }
    }
}

fn log(shard: &Shard, connection: &Connection, end: &End) {
    let peer = connection.peer();
    match end {
        End::Peer | End::Stopping => tracing::debug!(%peer, "disconnected"),
        End::Io(error) => tracing::debug!(%peer, %error, "disconnected"),
        End::FrameTooLarge(bytes) => {
            shard.stats().broken_connections.add(1);
            tracing::warn!(%peer, bytes, limit = FRAME_BYTES_MAX, "closing a connection: frame too large");
        }
        End::Broken(broken) => {
            shard.stats().broken_connections.add(1);
            tracing::warn!(%peer, %broken, "closing a connection: what it sent is no request");
        }
    }
}

/// A connection's place in its shard. Given up however the task ends, also by a panic.
struct Seat {
    shard: Rc<Shard>,
    connection: Rc<Connection>,
    left: Cell<bool>,
}

impl Seat {
    async fn leave(&self) {
        self.give_up();
        let conn = self.connection.id();
        let coordinator = &self.shard.shared.coordinator;
        // Without a coordinator there is nobody left to be told.
        let _ = coordinator.send(ToCoordinator::Closed { conn }).await;
    }

    fn give_up(&self) {
        if !self.left.replace(true) {
            self.shard.connections.close(self.connection.id());
            self.shard.stats().connections.sub(1);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.left.get() {
            return;
        }
        self.give_up();
        self.connection.outbox().close();
        let conn = self.connection.id();
        let closed = ToCoordinator::Closed { conn };
        if self.shard.shared.coordinator.try_send(closed).is_err() {
            tracing::debug!(?conn, "the coordinator was not told of a closed connection");
        }
    }
}
