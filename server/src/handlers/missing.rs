//! What a request needs and the snapshot does not have: asked of the coordinator, then the request is taken up again.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;

use protocol::code::response;
use protocol::{Asked, Command, write_response};
use reactor::mailbox::oneshot;

use crate::messages::{CreateTopic, Refusal, ToCoordinator};
use crate::shard::{Connection, Shard};

/// A request may miss its topic, its group, and its dead-letter topic, one after the other.
const TRIES_MAX: usize = 4;

#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    Topic { topic: String, kind: CreateTopic },
    Group(String),
}

/// Why a handler did not finish a request.
#[derive(Debug, PartialEq, Eq)]
pub enum NotDone {
    Refused(Refusal),
    Missing(Missing),
}

impl NotDone {
    pub fn refused(code: i32, remark: impl Into<String>) -> Self {
        Self::Refused(Refusal {
            code,
            remark: remark.into(),
        })
    }
}

/// One attempt at a request: `Ok` if it was answered, will be, or needs no answer.
pub type Attempt = fn(&Rc<Shard>, &Rc<Connection>, &Command<'_>) -> Result<(), NotDone>;

/// Runs a handler; what it misses is made first, in a task of its own.
pub fn run(
    attempt: Attempt,
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    command: &Command<'_>,
    frame: &[u8],
) {
    match attempt(shard, connection, command) {
        Ok(()) => {}
        Err(NotDone::Refused(refusal)) => refuse(shard, connection, command, &refusal),
        Err(NotDone::Missing(missing)) => {
            let later = run_later(
                attempt,
                Rc::clone(shard),
                Rc::clone(connection),
                frame.to_vec(),
                missing,
            );
            reactor::spawn("request that misses something", later);
        }
    }
}

async fn run_later(
    attempt: Attempt,
    shard: Rc<Shard>,
    connection: Rc<Connection>,
    frame: Vec<u8>,
    mut missing: Missing,
) {
    let command = Command::decode(&frame).expect("the frame was decoded before");
    let mut made = None;
    for _ in 0..TRIES_MAX {
        made = missing.make(&shard, connection.peer()).await.err();
        if made.is_some() {
            break;
        }
        shard.refresh();
        match attempt(&shard, &connection, &command) {
            Ok(()) => return shard.connections.commit(),
            Err(NotDone::Refused(refusal)) => {
                made = Some(refusal);
                break;
            }
            Err(NotDone::Missing(next)) => missing = next,
        }
    }
    let refusal = made.unwrap_or_else(|| Refusal {
        code: response::SYSTEM_ERROR,
        remark: "topic or group vanished while it was being used".into(),
    });
    refuse(&shard, &connection, &command, &refusal);
    shard.connections.commit();
}

impl Missing {
    async fn make(&self, shard: &Shard, peer: SocketAddr) -> Result<(), Refusal> {
        let coordinator = &shard.shared.coordinator;
        let made = match self {
            Self::Topic { topic, kind } => {
                let (reply, answer) = oneshot();
                let request = ToCoordinator::CreateTopic {
                    topic: topic.clone(),
                    kind: kind.clone(),
                    peer,
                    reply,
                };
                match coordinator.send(request).await {
                    Ok(()) => answer.await.map(|made| made.map(drop)),
                    Err(_) => None,
                }
            }
            Self::Group(group) => {
                let (reply, answer) = oneshot();
                let request = ToCoordinator::EnsureGroup {
                    group: group.clone(),
                    reply,
                };
                match coordinator.send(request).await {
                    Ok(()) => answer.await.map(|made| made.map(drop)),
                    Err(_) => None,
                }
            }
        };
        made.unwrap_or_else(|| {
            Err(Refusal {
                code: response::SERVICE_NOT_AVAILABLE,
                remark: "the broker is stopping".into(),
            })
        })
    }
}

/// Queues the answer to a request that is not granted; one-way requests get none.
pub fn refuse(
    shard: &Shard,
    connection: &Rc<Connection>,
    command: &Command<'_>,
    refusal: &Refusal,
) {
    tracing::debug!(peer = %connection.peer(), request = command.code, code = refusal.code, remark = refusal.remark, "refused");
    if command.is_oneway() {
        return;
    }
    connection.outbox().with(|queued| {
        write_response(
            queued,
            Asked::from(command),
            refusal.code,
            Some(&refusal.remark),
            &[],
            &[],
        );
    });
    shard.connections.mark(connection);
}

/// The sentence RocketMQ's answers end with; scripts and people look for it.
pub fn with_faq(remark: impl Into<Cow<'static, str>>) -> String {
    let mut remark = remark.into().into_owned();
    remark
        .push_str("\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.");
    remark
}
