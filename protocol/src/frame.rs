//! A frame: what travels between two peers.
//!
//! ```text
//! | total: u32 | word: u32 | header .. | body .. |
//!               top byte of `word`: header encoding; low 24 bits: header bytes
//!               `total` counts everything behind itself
//! ```
//!
//! Splitting the byte stream into frames is the reactor's; here a frame starts at its word.

use crate::command::{DecodeError, Encoding};

/// The largest `total` either side accepts (Netty's limit in RocketMQ).
pub const FRAME_BYTES_MAX: usize = 16_777_216;

/// The header length has 24 bits.
pub const HEADER_BYTES_MAX: usize = 0xFF_FFFF;

const _: () = assert!(FRAME_BYTES_MAX == 1 << 24 && HEADER_BYTES_MAX == (1 << 24) - 1);

/// One frame cut into its parts. Nothing in `header` has been looked at yet.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    pub encoding: Encoding,
    pub header: &'a [u8],
    pub body: &'a [u8],
}

/// Cuts a frame that starts at its header-length word.
pub fn split(frame: &[u8]) -> Result<Parts<'_>, DecodeError> {
    let Some((word, rest)) = frame.split_first_chunk::<4>() else {
        return Err(DecodeError::Truncated);
    };
    let word = u32::from_be_bytes(*word);
    let encoding = match word >> 24 {
        0 => Encoding::Json,
        1 => Encoding::Binary,
        other => return Err(DecodeError::UnknownEncoding(other as u8)),
    };
    let header_bytes = (word & HEADER_BYTES_MAX as u32) as usize;
    if header_bytes > rest.len() {
        return Err(DecodeError::HeaderLength {
            announced: header_bytes,
            present: rest.len(),
        });
    }
    let (header, body) = rest.split_at(header_bytes);
    Ok(Parts {
        encoding,
        header,
        body,
    })
}

/// Reserves the two leading words of a frame; [`close`] fills them in.
pub(crate) fn open(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    start
}

/// Fills in the words of the frame opened at `start`: everything behind them is header, and
/// `body_len` bytes of body follow (written by the caller, now or by a gather write).
pub(crate) fn close(out: &mut [u8], start: usize, encoding: Encoding, body_len: usize) {
    let header_bytes = out.len() - start - 8;
    assert!(
        header_bytes <= HEADER_BYTES_MAX && 4 + header_bytes + body_len <= u32::MAX as usize,
        "a frame we build ourselves fits its length words"
    );
    let total = (4 + header_bytes + body_len) as u32;
    let word = (encoding as u32) << 24 | header_bytes as u32;
    out[start..start + 4].copy_from_slice(&total.to_be_bytes());
    out[start + 4..start + 8].copy_from_slice(&word.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_longer_than_the_frame_is_refused() {
        let error = split(&[0, 0, 0, 9, b'{']).unwrap_err();
        assert!(matches!(
            error,
            DecodeError::HeaderLength {
                announced: 9,
                present: 1
            }
        ));
        assert!(matches!(split(&[0, 0, 0]), Err(DecodeError::Truncated)));
    }

    #[test]
    fn an_unknown_header_encoding_is_refused() {
        let error = split(&[2, 0, 0, 0]).unwrap_err();
        assert!(matches!(error, DecodeError::UnknownEncoding(2)));
    }

    #[test]
    fn open_and_close_announce_exactly_what_was_written() {
        let mut out = b"before".to_vec();
        let start = open(&mut out);
        out.extend_from_slice(b"head");
        close(&mut out, start, Encoding::Binary, 3);
        out.extend_from_slice(b"bod");
        assert_eq!(out[start..start + 4], 11u32.to_be_bytes());
        let parts = split(&out[start + 4..]).unwrap();
        assert_eq!(
            (parts.header, parts.body),
            (b"head".as_slice(), b"bod".as_slice())
        );
    }
}
