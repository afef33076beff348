//! One remoting command, borrowed from its frame: a request, or the answer to one.
//!
//! Decoding reads the header once, in whichever of the two encodings it came, and leaves every
//! value in place. The typed headers in [`crate::header`] are views on the result.

use crate::fields::Fields;
use crate::text::Text;
use crate::{frame, header_binary, header_json};

/// Bit of `flag` that marks an answer.
pub const FLAG_RESPONSE: i32 = 1;
/// Bit of `flag` that marks a request nobody answers.
pub const FLAG_ONEWAY: i32 = 1 << 1;

/// How the header of a frame is written. An answer uses the encoding of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    #[default]
    Json = 0,
    Binary = 1,
}

/// The language a peer is written in, by its number on the wire. Numbers without a name are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Language(pub u8);

impl Language {
    pub const JAVA: Language = Language(0);
    pub const OTHER: Language = Language(7);
    pub const GO: Language = Language(9);
    pub const RUST: Language = Language(12);

    const NAMES: [&'static str; 14] = [
        "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO",
        "PHP", "OMS", "RUST", "NODE_JS",
    ];

    /// The name RocketMQ prints; unknown numbers are `OTHER`.
    pub fn name(self) -> &'static str {
        let known = Self::NAMES.get(usize::from(self.0));
        known.copied().unwrap_or("OTHER")
    }

    pub(crate) fn from_name(name: &[u8]) -> Language {
        let known = Self::NAMES
            .iter()
            .position(|known| known.as_bytes() == name);
        known.map_or(Language::OTHER, |number| Language(number as u8))
    }
}

/// Why a frame is not a command. The connection it came from is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the frame ends within its header")]
    Truncated,
    #[error("unknown header encoding {0}")]
    UnknownEncoding(u8),
    #[error("the header should have {announced} bytes, the frame has {present}")]
    HeaderLength { announced: usize, present: usize },
    #[error("broken JSON header at byte {at}: {what}")]
    Json { at: usize, what: &'static str },
    #[error("broken binary header: {0}")]
    Binary(&'static str),
    #[error("too many fields in one header")]
    TooManyFields,
}

/// A decoded command. `Clone` copies positions, not bytes.
#[derive(Clone, Debug)]
pub struct Command<'a> {
    /// What is asked, or how it was answered.
    pub code: i32,
    pub language: Language,
    /// The sender's release, see [`crate::version`].
    pub version: i32,
    /// Chosen by the asker, repeated in the answer.
    pub opaque: i32,
    pub flag: i32,
    pub encoding: Encoding,
    pub remark: Option<Text<'a>>,
    pub fields: Fields<'a>,
    pub body: &'a [u8],
}

impl<'a> Command<'a> {
    /// Decodes a frame that starts at its header-length word (without the total length).
    pub fn decode(frame: &'a [u8]) -> Result<Command<'a>, DecodeError> {
        let parts = frame::split(frame)?;
        let mut command = Command {
            code: 0,
            language: Language::JAVA,
            version: 0,
            opaque: 0,
            flag: 0,
            encoding: parts.encoding,
            remark: None,
            fields: Fields::new(parts.header),
            body: parts.body,
        };
        match parts.encoding {
            Encoding::Json => header_json::read(parts.header, &mut command)?,
            Encoding::Binary => header_binary::read(parts.header, &mut command)?,
        }
        Ok(command)
    }

    pub fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    pub fn is_oneway(&self) -> bool {
        self.flag & FLAG_ONEWAY != 0
    }

    /// The remark as a string, for errors and logs.
    pub fn remark_str(&self) -> Option<std::borrow::Cow<'a, str>> {
        self.remark.map(|remark| remark.as_str())
    }
}

/// What an answer needs to know of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub opaque: i32,
    pub encoding: Encoding,
}

impl From<&Command<'_>> for Asked {
    fn from(command: &Command<'_>) -> Asked {
        Asked {
            opaque: command.opaque,
            encoding: command.encoding,
        }
    }
}

#[cfg(test)]
mod tests;
