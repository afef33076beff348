//! Reading a record in place. Every length is checked against the whole before it is used.

use std::borrow::Cow;
use std::net::SocketAddr;

use super::*;
use crate::sysflag;

/// A record, borrowed. The body's checksum is only checked when asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// The record's own bytes, exactly.
    pub bytes: &'a [u8],
    pub magic: u32,
    pub body_crc: u32,
    pub queue_id: i32,
    pub flag: i32,
    pub queue_offset: u64,
    pub log_offset: u64,
    pub sys_flag: i32,
    pub born_ms: i64,
    pub born_host: SocketAddr,
    /// Where in the record the store time stands, for [`patch`].
    pub store_time_at: usize,
    pub store_ms: i64,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_transaction_offset: i64,
    pub body: &'a [u8],
    pub topic: &'a [u8],
    pub properties: &'a [u8],
}

impl<'a> View<'a> {
    /// Reads the record at the start of `bytes`; more may follow it.
    pub fn parse(bytes: &'a [u8]) -> Result<View<'a>, RecordError> {
        let header = len_at(bytes)?;
        if header.is_blank() {
            return Err(RecordError::Magic(MAGIC_BLANK));
        }
        let Some(record) = bytes.get(..header.total) else {
            return Err(RecordError::Length {
                total: header.total,
                present: bytes.len(),
            });
        };
        View::parse_whole(record, header.magic).ok_or(RecordError::Part("fixed part"))?
    }

    /// `None` when the fixed part does not fit.
    fn parse_whole(record: &'a [u8], magic: u32) -> Option<Result<View<'a>, RecordError>> {
        let sys_flag = i32_at(record, SYS_FLAG_AT)?;
        let born_v6 = sys_flag & sysflag::BORN_HOST_V6 != 0;
        let store_v6 = sys_flag & sysflag::STORE_HOST_V6 != 0;
        let store_time_at = BORN_HOST_AT + host_bytes(born_v6);
        let store_host_at = store_time_at + 8;
        let reconsume_at = store_host_at + host_bytes(store_v6);
        let body_len_at = reconsume_at + 4 + 8;
        let parts = match Parts::of(record, magic, body_len_at) {
            Ok(parts) => parts,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(View {
            bytes: record,
            magic,
            body_crc: u32_at(record, BODY_CRC_AT)?,
            queue_id: i32_at(record, QUEUE_ID_AT)?,
            flag: i32_at(record, FLAG_AT)?,
            queue_offset: u64_at(record, QUEUE_OFFSET_AT)?,
            log_offset: u64_at(record, LOG_OFFSET_AT)?,
            sys_flag,
            born_ms: u64_at(record, BORN_TIME_AT)? as i64,
            born_host: host_at(record, BORN_HOST_AT, born_v6)?,
            store_time_at,
            store_ms: u64_at(record, store_time_at)? as i64,
            store_host: host_at(record, store_host_at, store_v6)?,
            reconsume_times: i32_at(record, reconsume_at)?,
            prepared_transaction_offset: u64_at(record, reconsume_at + 4)? as i64,
            body: parts.body,
            topic: parts.topic,
            properties: parts.properties,
        }))
    }

    /// The properties of the record at the start of `bytes`, as [`View::parse`] finds them, for those who want nothing else;
    /// `None` where it is no record.
    #[inline]
    pub fn properties_of(bytes: &'a [u8]) -> Option<&'a [u8]> {
        let header = len_at(bytes).ok().filter(|header| !header.is_blank())?;
        let record = bytes.get(..header.total)?;
        let sys_flag = i32_at(record, SYS_FLAG_AT)?;
        let born_bytes = host_bytes(sys_flag & sysflag::BORN_HOST_V6 != 0);
        let store_bytes = host_bytes(sys_flag & sysflag::STORE_HOST_V6 != 0);
        let body_len_at = BORN_HOST_AT + born_bytes + 8 + store_bytes + 4 + 8;
        let parts = Parts::of(record, header.magic, body_len_at).ok()?;
        Some(parts.properties)
    }

    /// Compares the body with its checksum.
    pub fn check_body(&self) -> Result<(), RecordError> {
        let computed = body_crc(self.body);
        if computed != self.body_crc {
            return Err(RecordError::BodyCrc {
                stored: self.body_crc,
                computed,
            });
        }
        Ok(())
    }

    pub fn topic_str(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.topic)
    }

    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&'a [u8]> {
        crate::properties::get(self.properties, name)
    }

    /// Where in the record the reconsume times stand.
    pub fn reconsume_times_at(&self) -> usize {
        self.store_time_at + 8 + host_bytes(self.sys_flag & sysflag::STORE_HOST_V6 != 0)
    }

    /// The message's id by its place.
    pub fn message_id(&self) -> String {
        message_id(self.store_host, self.log_offset)
    }
}

/// What has a length of its own, behind the fixed part.
struct Parts<'a> {
    body: &'a [u8],
    topic: &'a [u8],
    properties: &'a [u8],
}

impl<'a> Parts<'a> {
    #[inline]
    fn of(record: &'a [u8], magic: u32, body_len_at: usize) -> Result<Parts<'a>, RecordError> {
        let body_len = u32_at(record, body_len_at).ok_or(RecordError::Part("body length"))?;
        let body_at = body_len_at + 4;
        let body = part(record, body_at, body_len as usize, "body")?;
        let topic_len_at = body_at + body.len();
        let (topic_len, topic_at) = if magic == MAGIC_V2 {
            let len = array_at(record, topic_len_at).map(u16::from_be_bytes);
            (len.map(usize::from), topic_len_at + 2)
        } else {
            (
                record.get(topic_len_at).map(|&len| usize::from(len)),
                topic_len_at + 1,
            )
        };
        let topic_len = topic_len.ok_or(RecordError::Part("topic length"))?;
        let topic = part(record, topic_at, topic_len, "topic")?;
        let properties_len_at = topic_at + topic_len;
        let properties_len = array_at(record, properties_len_at)
            .map(i16::from_be_bytes)
            .and_then(|len| usize::try_from(len).ok())
            .ok_or(RecordError::Part("properties length"))?;
        let properties_at = properties_len_at + 2;
        let properties = part(record, properties_at, properties_len, "properties")?;
        let parts = properties_at + properties_len;
        if parts != record.len() {
            let total = record.len();
            return Err(RecordError::Sum { parts, total });
        }
        Ok(Parts {
            body,
            topic,
            properties,
        })
    }
}

fn part<'a>(
    record: &'a [u8],
    at: usize,
    len: usize,
    what: &'static str,
) -> Result<&'a [u8], RecordError> {
    let end = at.checked_add(len).ok_or(RecordError::Part(what))?;
    record.get(at..end).ok_or(RecordError::Part(what))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    array_at(bytes, at).map(i32::from_be_bytes)
}
