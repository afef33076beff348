//! What ends a run before its verdict: the machine fails us, or the client says what cannot be.

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Of the broker as a process, or of the machine.
    #[error(transparent)]
    Harness(#[from] bench::error::Error),
    #[error("{what}: {source}")]
    Client {
        what: &'static str,
        source: client::Error,
    },
    #[error("{0}")]
    Failed(String),
}

impl Error {
    pub fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        move |source| bench::error::Error::io(what)(source).into()
    }

    pub fn client(what: &'static str) -> impl FnOnce(client::Error) -> Error {
        move |source| Error::Client { what, source }
    }
}
