//! Everything that ends a run, as one sentence for the terminal.

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{what}: the broker answered code {code}: {remark}")]
    Refused {
        what: String,
        code: i32,
        remark: String,
    },
    #[error("{0}")]
    Protocol(String),
    /// The run went through, but what it was to show is not so.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}

pub type Result<T> = std::result::Result<T, Error>;
