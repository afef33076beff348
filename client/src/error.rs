//! Why a call did not do what it was asked. One enum for the whole crate: callers match on what they can act upon.

use std::io;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: String, source: io::Error },
    /// The connection broke while an answer was awaited: what was asked may or may not have happened.
    #[error("the connection to {address} is closed")]
    Disconnected { address: String },
    /// No answer in time: what was asked may or may not have happened.
    #[error("{address} has not answered within {after:?}")]
    Timeout { address: String, after: Duration },
    /// A broker or name server said no; the code is one of RocketMQ's response codes.
    #[error("refused with code {code}: {remark}")]
    Refused { code: i32, remark: String },
    /// No name server knows a broker that takes (or has) this topic.
    #[error("topic {topic} has no route")]
    NoRoute { topic: String },
    #[error("no name server was given")]
    NoNameServer,
    /// The request was sent, and nobody replied in time.
    #[error("nobody has replied within {after:?}")]
    NoReply { after: Duration },
    /// A setting that does not exist, or a value it cannot take.
    #[error("setting {name}: {what}")]
    Setting { name: String, what: String },
    /// A message, name or call that cannot be right; nothing was sent.
    #[error("not allowed: {0}")]
    Illegal(String),
    /// An answer that does not follow the protocol.
    #[error("{address} gave a broken answer: {what}")]
    Broken { address: String, what: String },
    #[error("the client is shut down")]
    ShutDown,
}

pub type Result<T> = std::result::Result<T, Error>;
