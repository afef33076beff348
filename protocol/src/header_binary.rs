//! The ROCKETMQ form of a header: fixed numbers, then length-prefixed strings.
//!
//! ```text
//! | code i16 | language u8 | version i16 | opaque i32 | flag i32 |
//! | remark: len i32, bytes | fields: len i32, { name: len i16, bytes; value: len i32, bytes }* |
//! ```
//!
//! A field may come twice (a signing hook adds what the header already wrote): the last one
//! counts. An empty value is an absent one, as in RocketMQ.

use crate::command::{Command, DecodeError, Language};
use crate::fields::Added;
use crate::text::Text;

/// Everything before the remark.
pub(crate) const FIXED_BYTES: usize = 2 + 1 + 2 + 4 + 4;

/// Reads `header` into `command`.
pub(crate) fn read<'a>(header: &'a [u8], command: &mut Command<'a>) -> Result<(), DecodeError> {
    let mut scan = Scan { header, at: 0 };
    command.code = i32::from(i16::from_be_bytes(scan.array()?));
    let [language] = scan.array()?;
    command.language = Language(language);
    command.version = i32::from(i16::from_be_bytes(scan.array()?));
    command.opaque = i32::from_be_bytes(scan.array()?);
    command.flag = i32::from_be_bytes(scan.array()?);
    debug_assert_eq!(scan.at, FIXED_BYTES);
    let (at, len) = scan.long_string()?;
    if len > 0 {
        command.remark = Some(Text::plain(&header[at..at + len]));
    }
    let (at, len) = scan.long_string()?;
    if scan.at != header.len() {
        return Err(DecodeError::Binary("bytes behind the fields"));
    }
    fields(header, at, at + len, command)
}

fn fields<'a>(
    header: &'a [u8],
    start: usize,
    end: usize,
    command: &mut Command<'a>,
) -> Result<(), DecodeError> {
    let mut scan = Scan {
        header: &header[..end],
        at: start,
    };
    while scan.at < end {
        let name = scan.short_string()?;
        let value = scan.long_string()?;
        if value.1 == 0 {
            continue;
        }
        if command.fields.add(name, value, false) == Added::Full {
            return Err(DecodeError::TooManyFields);
        }
    }
    Ok(())
}

struct Scan<'a> {
    header: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let found = self.header[self.at..].first_chunk::<N>();
        self.at += N;
        found.copied().ok_or(DecodeError::Truncated)
    }

    /// Position and length of a string with a two-byte length.
    fn short_string(&mut self) -> Result<(usize, usize), DecodeError> {
        let len = i16::from_be_bytes(self.array()?);
        self.take(i32::from(len))
    }

    /// Position and length of a string with a four-byte length.
    fn long_string(&mut self) -> Result<(usize, usize), DecodeError> {
        let len = i32::from_be_bytes(self.array()?);
        self.take(len)
    }

    fn take(&mut self, len: i32) -> Result<(usize, usize), DecodeError> {
        let len = usize::try_from(len).map_err(|_| DecodeError::Binary("a negative length"))?;
        if len > self.header.len() - self.at {
            return Err(DecodeError::Binary("a string longer than the header"));
        }
        let place = (self.at, len);
        self.at += len;
        Ok(place)
    }
}

#[cfg(test)]
mod tests;
