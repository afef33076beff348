//! What ends a run before its verdict: the machine fails us, or the client says what cannot be.

use std::io;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{what}: {source}")]
    Client {
        what: &'static str,
        source: client::Error,
    },
    #[error("{0}")]
    Failed(String),
}

impl Error {
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    pub fn client(what: &'static str) -> impl FnOnce(client::Error) -> Error {
        move |source| Error::Client { what, source }
    }
}
