//! What can go wrong in a proof: the machine fails us, or the broker breaks a promise.

use std::io;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// A promise was broken, or something happened that a proof cannot go on after.
    #[error("{0}")]
    Wrong(String),
}

impl Error {
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Error {
        Error::io("the disk under the proof")(source)
    }
}

/// Leaves with a broken promise unless it is kept.
#[macro_export]
macro_rules! ensure {
    ($kept:expr, $($said:tt)+) => {
        if !$kept {
            return Err($crate::error::Error::Wrong(format!($($said)+)));
        }
    };
}
