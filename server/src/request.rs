//! The table of contents: which code is handled where.
//!
//! Sends and pulls are handled on the shard that read them. Everything else belongs to the coordinator, which owns the
//! tables; so do a client's answers to requests of ours.

use std::rc::Rc;

use protocol::code::request;
use protocol::{Command, DecodeError};

use crate::handlers::{pull, send};
use crate::messages::ToCoordinator;
use crate::shard::{Connection, Shard};

/// What came is no command: the connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(#[from] DecodeError);

/// Handles one frame (without its length prefix). Answers are queued, not sent.
pub fn handle(shard: &Rc<Shard>, connection: &Rc<Connection>, frame: &[u8]) -> Result<(), Broken> {
    let command = Command::decode(frame)?;
    if command.is_response() {
        forward(shard, connection, frame, false);
        return Ok(());
    }
    match command.code {
        request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => {
            send::handle(shard, connection, &command, frame);
        }
        request::PULL_MESSAGE | request::LITE_PULL_MESSAGE => {
            pull::handle(shard, connection, &command, frame);
        }
        _ => forward(shard, connection, frame, !command.is_oneway()),
    }
    Ok(())
}

fn forward(shard: &Shard, connection: &Connection, frame: &[u8], wants_answer: bool) {
    let inbox = &shard.shared.requests;
    // Offsets that came before this request must be known before it.
    if let Some(commits) = shard.offset_commits.take() {
        connection.to_coordinator(inbox, commits, false);
    }
    let request = ToCoordinator::Request {
        conn: connection.id(),
        peer: connection.peer(),
        frame: frame.to_vec(),
    };
    connection.to_coordinator(inbox, request, wants_answer);
}
