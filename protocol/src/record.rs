//! The stored message, byte for byte RocketMQ's: on disk, in a pull's answer, on the way to a
//! slave.
//!
//! ```text
//!   0 total u32        20 queue offset u64   40 born time i64
//!   4 magic u32        28 log offset u64     48 born host (ip 4|16, port u32)
//!   8 body crc u32     36 system flag i32     . store time i64
//!  12 queue id i32                            . store host (ip 4|16, port u32)
//!  16 flag i32                                . reconsume times i32, prepared offset i64
//!   . body len u32, body;  topic len u8|u16, topic;  properties len i16, properties
//! ```
//!
//! Bits of the system flag say which hosts are IPv6; the magic says how wide the topic's length
//! is. All numbers are big-endian. [`Draft`] writes a record that lacks only what the log's writer
//! knows, [`patch`] adds that, [`View`] reads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

mod draft;
mod view;
mod views;

pub use draft::{Draft, Placed};
pub use view::View;
pub use views::{Views, views};

/// A record whose topic length has one byte.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// A record whose topic length has two bytes (5.x).
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// The rest of a log file into which the next record does not fit.
pub const MAGIC_BLANK: u32 = 0xCBD4_3194;

const _: () = assert!(MAGIC_V1 as i32 == -626_843_481);
const _: () = assert!(MAGIC_V2 as i32 == -626_843_477);
const _: () = assert!(MAGIC_BLANK as i32 == -875_286_124);

pub const TOTAL_AT: usize = 0;
pub const MAGIC_AT: usize = 4;
pub const BODY_CRC_AT: usize = 8;
pub const QUEUE_ID_AT: usize = 12;
pub const FLAG_AT: usize = 16;
pub const QUEUE_OFFSET_AT: usize = 20;
pub const LOG_OFFSET_AT: usize = 28;
pub const SYS_FLAG_AT: usize = 36;
pub const BORN_TIME_AT: usize = 40;
pub const BORN_HOST_AT: usize = 48;

/// Total and magic: what a blank has, and enough to walk a log.
pub const HEADER_BYTES: usize = 8;
/// The smallest record there can be: IPv4 hosts, empty body, topic and properties.
pub const RECORD_BYTES_MIN: usize = BORN_HOST_AT + 8 + 8 + 8 + 4 + 8 + 4 + 1 + 2;

const HOST_V4_BYTES: usize = 8;
const HOST_V6_BYTES: usize = 20;
const _: () = assert!(RECORD_BYTES_MIN == 91);

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("{present} bytes are too few for a record")]
    Short { present: usize },
    #[error("magic {0:#010x} is no record's")]
    Magic(u32),
    #[error("total length {total} cannot be, or exceeds the {present} bytes present")]
    Length { total: usize, present: usize },
    #[error("the {0} does not fit into the record")]
    Part(&'static str),
    #[error("the parts add up to {parts} bytes, the record has {total}")]
    Sum { parts: usize, total: usize },
    #[error("body checksum {stored:#010x} stored, {computed:#010x} computed")]
    BodyCrc { stored: u32, computed: u32 },
}

/// The first two words of a record or a blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes from here to the next record.
    pub total: usize,
    pub magic: u32,
}

impl Header {
    pub fn is_blank(&self) -> bool {
        self.magic == MAGIC_BLANK
    }
}

/// Reads total and magic, and checks both; says nothing about what lies behind them.
pub fn len_at(bytes: &[u8]) -> Result<Header, RecordError> {
    let present = bytes.len();
    let (Some(total), Some(magic)) = (u32_at(bytes, TOTAL_AT), u32_at(bytes, MAGIC_AT)) else {
        return Err(RecordError::Short { present });
    };
    let total_min = match magic {
        MAGIC_V1 => RECORD_BYTES_MIN,
        MAGIC_V2 => RECORD_BYTES_MIN + 1,
        MAGIC_BLANK => HEADER_BYTES,
        other => return Err(RecordError::Magic(other)),
    };
    let total = total as usize;
    if total < total_min || total > i32::MAX as usize {
        return Err(RecordError::Length { total, present });
    }
    Ok(Header { total, magic })
}

/// Gives a finished [`Draft`] its place: where it is in its queue and in the log, and when it was
/// stored. `store_time_at` is what the draft's [`Placed`] says.
pub fn patch(
    record: &mut [u8],
    queue_offset: u64,
    log_offset: u64,
    store_time_at: usize,
    store_ms: i64,
) {
    debug_assert!(
        store_time_at == BORN_HOST_AT + HOST_V4_BYTES
            || store_time_at == BORN_HOST_AT + HOST_V6_BYTES
    );
    put(record, QUEUE_OFFSET_AT, &queue_offset.to_be_bytes());
    put(record, LOG_OFFSET_AT, &log_offset.to_be_bytes());
    put(record, store_time_at, &store_ms.to_be_bytes());
}

/// Appends a blank of `len` bytes, the filler at the end of a log file.
pub fn blank(out: &mut Vec<u8>, len: usize) {
    assert!(
        (HEADER_BYTES..=i32::MAX as usize).contains(&len),
        "a blank has room for its own header"
    );
    let start = out.len();
    out.resize(start + len, 0);
    put(out, start + TOTAL_AT, &(len as u32).to_be_bytes());
    put(out, start + MAGIC_AT, &MAGIC_BLANK.to_be_bytes());
}

/// The checksum RocketMQ keeps of a body: CRC-32 without its top bit.
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7FFF_FFFF
}

/// The id of a message by its place (`offsetMsgId`): store host, port and log offset in hex.
pub fn message_id(store_host: SocketAddr, log_offset: u64) -> String {
    let mut id = String::with_capacity(MESSAGE_ID_V6_CHARS);
    append_message_id(&mut id, store_host, log_offset);
    id
}

/// [`message_id`] into a buffer that is there already.
pub fn append_message_id(out: &mut String, store_host: SocketAddr, log_offset: u64) {
    match store_host.ip().to_canonical() {
        IpAddr::V4(ip) => append_hex(out, &ip.octets()),
        IpAddr::V6(ip) => append_hex(out, &ip.octets()),
    }
    append_hex(out, &u32::from(store_host.port()).to_be_bytes());
    append_hex(out, &log_offset.to_be_bytes());
}

const MESSAGE_ID_V4_CHARS: usize = 2 * (4 + 4 + 8);
const MESSAGE_ID_V6_CHARS: usize = 2 * (16 + 4 + 8);

/// The store host and log offset of a message id; `None` if it is none.
pub fn parse_message_id(id: &str) -> Option<(SocketAddr, u64)> {
    let mut bytes = [0u8; MESSAGE_ID_V6_CHARS / 2];
    let ip_bytes = match id.len() {
        MESSAGE_ID_V4_CHARS => 4,
        MESSAGE_ID_V6_CHARS => 16,
        _ => return None,
    };
    for (byte, digits) in bytes.iter_mut().zip(id.as_bytes().chunks_exact(2)) {
        let high = char::from(digits[0]).to_digit(16)?;
        let low = char::from(digits[1]).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    let host = host_at(&bytes, 0, ip_bytes == 16)?;
    let log_offset = u64_at(&bytes, ip_bytes + 4)?;
    Some((host, log_offset))
}

fn append_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn host_bytes(v6: bool) -> usize {
    if v6 { HOST_V6_BYTES } else { HOST_V4_BYTES }
}

fn host_at(bytes: &[u8], at: usize, v6: bool) -> Option<SocketAddr> {
    let ip = if v6 {
        IpAddr::V6(Ipv6Addr::from(array_at::<16>(bytes, at)?))
    } else {
        IpAddr::V4(Ipv4Addr::from(array_at::<4>(bytes, at)?))
    };
    let port = u32_at(bytes, at + host_bytes(v6) - 4)?;
    // Java writes an int here; only its low half is ever a port.
    Some(SocketAddr::new(ip, port as u16))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_be_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests;
