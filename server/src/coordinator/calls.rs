//! Requests of ours to clients whose answers somebody waits for: running info, a message to be consumed at once, a reply to be
//! taken.
//!
//! Lives on the coordinator's core. An answer counts only from the connection that was asked; who vanishes answers nothing,
//! and who is slow has answered nothing once the asker's patience has ended.

use std::cell::RefCell;
use std::time::Duration;

use hashbrown::HashMap;
use protocol::{Command, Encoding, Value, write_request};
use reactor::mailbox::{Reply, oneshot};

use super::Coordinator;
use crate::messages::ConnId;

/// Questions that wait at one time. Each holds a few hundred bytes.
const WAITING_MAX: usize = 65_536;

#[derive(Default)]
pub struct Calls {
    /// By the number that the answer carries back.
    waiting: RefCell<HashMap<i32, Waiting>>,
}

struct Waiting {
    conn: ConnId,
    reply: Reply<ClientAnswer>,
}

/// What a client said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAnswer {
    pub code: i32,
    pub remark: Option<String>,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    #[error("it did not answer in time")]
    Late,
    #[error("its connection was closed")]
    Gone,
    #[error("too many questions to clients wait already")]
    TooMany,
}

impl Calls {
    /// Hands an answer to whoever asked. False: nobody asked this connection.
    pub fn answered(&self, conn: ConnId, command: &Command<'_>) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let asked = waiting.get(&command.opaque);
        if asked.is_none_or(|asked| asked.conn != conn) {
            return false;
        }
        let asked = waiting.remove(&command.opaque).expect("it was there");
        asked.reply.send(ClientAnswer {
            code: command.code,
            remark: command.remark_str().map(|remark| remark.into_owned()),
            body: command.body.to_vec(),
        });
        true
    }

    /// The connection is closed: nothing comes from it any more.
    pub fn gone(&self, conn: ConnId) {
        let mut waiting = self.waiting.borrow_mut();
        // Dropping a reply tells the asker.
        waiting.retain(|_, asked| asked.conn != conn);
    }
}

impl Coordinator {
    /// Asks a client and waits for what it says.
    pub async fn ask_client(
        &self,
        conn: ConnId,
        code: i32,
        fields: &[(&str, Value<'_>)],
        body: &[u8],
        patience: Duration,
    ) -> Result<ClientAnswer, NoAnswer> {
        let opaque = self.outgoing.next_opaque();
        let (reply, answer) = oneshot();
        {
            let mut waiting = self.calls.waiting.borrow_mut();
            if waiting.len() >= WAITING_MAX || waiting.contains_key(&opaque) {
                return Err(NoAnswer::TooMany);
            }
            waiting.insert(opaque, Waiting { conn, reply });
        }
        let mut frame = Vec::with_capacity(256 + body.len());
        let encoding = Encoding::Json;
        write_request(&mut frame, encoding, code, opaque, false, fields, body);
        self.outgoing.tell(conn, frame);
        self.outgoing.send_all().await;
        match reactor::timeout(patience, answer).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(NoAnswer::Gone),
            Err(_) => {
                self.calls.waiting.borrow_mut().remove(&opaque);
                Err(NoAnswer::Late)
            }
        }
    }

    /// Tells a client something that it does not answer. `outgoing.send_all` sends it off.
    pub fn tell_client(&self, conn: ConnId, code: i32, fields: &[(&str, Value<'_>)], body: &[u8]) {
        let opaque = self.outgoing.next_opaque();
        let mut frame = Vec::with_capacity(256 + body.len());
        write_request(&mut frame, Encoding::Json, code, opaque, true, fields, body);
        self.outgoing.tell(conn, frame);
    }
}
