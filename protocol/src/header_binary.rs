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
use crate::fields::{Added, Fields, Span};

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
    let remark = scan.long_string()?;
    if !remark.is_empty() {
        command.remark = Some(remark.text(header));
    }
    let fields_len = i32::from_be_bytes(scan.array()?);
    if usize::try_from(fields_len) != Ok(header.len() - scan.at) {
        return Err(DecodeError::Binary(
            "fields that do not end with the header",
        ));
    }
    fields(&mut scan, &mut command.fields)
}

fn fields(scan: &mut Scan<'_>, fields: &mut Fields<'_>) -> Result<(), DecodeError> {
    while scan.at < scan.header.len() {
        let name = scan.short_string()?;
        let value = scan.long_string()?;
        if value.is_empty() {
            continue;
        }
        if fields.add(name, value) == Added::Full {
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
    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let found = self.header[self.at..].first_chunk::<N>();
        let found = found.ok_or(DecodeError::Truncated)?;
        self.at += N;
        Ok(*found)
    }

    /// A string with a two-byte length.
    #[inline]
    fn short_string(&mut self) -> Result<Span, DecodeError> {
        let len = i16::from_be_bytes(self.array()?);
        self.take(i32::from(len))
    }

    /// A string with a four-byte length.
    #[inline]
    fn long_string(&mut self) -> Result<Span, DecodeError> {
        let len = i32::from_be_bytes(self.array()?);
        self.take(len)
    }

    #[inline]
    fn take(&mut self, len: i32) -> Result<Span, DecodeError> {
        let len = usize::try_from(len).map_err(|_| DecodeError::Binary("a negative length"))?;
        if len > self.header.len() - self.at {
            return Err(DecodeError::Binary("a string longer than the header"));
        }
        let span = Span::new(self.at, self.at + len, false);
        self.at += len;
        Ok(span)
    }
}

#[cfg(test)]
mod tests;
