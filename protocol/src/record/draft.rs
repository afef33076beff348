//! Writing a record: everything but its place in queue and log and its store time.

use std::net::{IpAddr, SocketAddr};

use super::*;
use crate::sysflag;
use crate::text::Text;

/// A message about to be stored. Sizes must have been checked by the caller (`fits`): they are asserted.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    pub topic: &'a str,
    pub queue_id: i32,
    pub flag: i32,
    /// The host bits are set here as the hosts need them.
    pub sys_flag: i32,
    pub born_ms: i64,
    pub born_host: SocketAddr,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_transaction_offset: i64,
    pub properties: Text<'a>,
    pub body: &'a [u8],
}

/// What [`Draft::append_to`] appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub len: usize,
    /// Where in the record the store time stands, for [`patch`].
    pub store_time_at: usize,
}

impl Draft<'_> {
    /// Whether a record can say how long its topic and its properties are.
    pub fn fits(&self) -> bool {
        let properties = self.properties.unescaped_len();
        self.topic.len() <= i16::MAX as usize && properties <= crate::names::PROPERTIES_BYTES_MAX
    }

    /// How many bytes [`Draft::append_to`] will append.
    pub fn encoded_len(&self) -> usize {
        let born_v6 = is_v6(self.born_host);
        let store_v6 = is_v6(self.store_host);
        BORN_HOST_AT
            + host_bytes(born_v6)
            + 8
            + host_bytes(store_v6)
            + 4
            + 8
            + (4 + self.body.len())
            + (topic_len_bytes(self.topic) + self.topic.len())
            + (2 + self.properties.unescaped_len())
    }

    /// Appends the record; queue offset, log offset and store time are zero.
    pub fn append_to(&self, out: &mut Vec<u8>) -> Placed {
        let start = out.len();
        assert!(self.topic.len() <= i16::MAX as usize, "topics are short");
        let long_topic = topic_len_bytes(self.topic) == 2;
        let (born_v6, store_v6) = (is_v6(self.born_host), is_v6(self.store_host));
        let store_time_at = BORN_HOST_AT + host_bytes(born_v6);

        let mut head = [0u8; BORN_HOST_AT];
        let magic = if long_topic { MAGIC_V2 } else { MAGIC_V1 };
        put(&mut head, MAGIC_AT, &magic.to_be_bytes());
        put(&mut head, BODY_CRC_AT, &body_crc(self.body).to_be_bytes());
        put(&mut head, QUEUE_ID_AT, &self.queue_id.to_be_bytes());
        put(&mut head, FLAG_AT, &self.flag.to_be_bytes());
        let sys_flag = self.sys_flag_for(born_v6, store_v6);
        put(&mut head, SYS_FLAG_AT, &sys_flag.to_be_bytes());
        put(&mut head, BORN_TIME_AT, &self.born_ms.to_be_bytes());
        out.extend_from_slice(&head);

        append_host(out, self.born_host);
        debug_assert_eq!(out.len() - start, store_time_at);
        out.extend_from_slice(&[0; 8]);
        append_host(out, self.store_host);
        out.extend_from_slice(&self.reconsume_times.to_be_bytes());
        out.extend_from_slice(&self.prepared_transaction_offset.to_be_bytes());

        out.extend_from_slice(&(self.body.len() as u32).to_be_bytes());
        out.extend_from_slice(self.body);
        if long_topic {
            out.extend_from_slice(&(self.topic.len() as u16).to_be_bytes());
        } else {
            out.push(self.topic.len() as u8);
        }
        out.extend_from_slice(self.topic.as_bytes());
        self.append_properties(out);

        let len = out.len() - start;
        assert!(len <= i32::MAX as usize, "bodies are bounded");
        put(out, start + TOTAL_AT, &(len as u32).to_be_bytes());
        Placed { len, store_time_at }
    }

    fn append_properties(&self, out: &mut Vec<u8>) {
        let length_at = out.len();
        out.extend_from_slice(&[0; 2]);
        let length = self.properties.append_to(out);
        assert!(
            length <= crate::names::PROPERTIES_BYTES_MAX,
            "properties are checked before a draft is made of them"
        );
        put(out, length_at, &(length as u16).to_be_bytes());
    }

    fn sys_flag_for(&self, born_v6: bool, store_v6: bool) -> i32 {
        let mut sys_flag = self.sys_flag & !(sysflag::BORN_HOST_V6 | sysflag::STORE_HOST_V6);
        if born_v6 {
            sys_flag |= sysflag::BORN_HOST_V6;
        }
        if store_v6 {
            sys_flag |= sysflag::STORE_HOST_V6;
        }
        sys_flag
    }
}

/// Topics up to 127 bytes keep the layout every version reads.
fn topic_len_bytes(topic: &str) -> usize {
    if topic.len() <= i8::MAX as usize {
        1
    } else {
        2
    }
}

/// IPv4 in IPv6 clothes counts as IPv4.
fn is_v6(host: SocketAddr) -> bool {
    host.ip().to_canonical().is_ipv6()
}

fn append_host(out: &mut Vec<u8>, host: SocketAddr) {
    match host.ip().to_canonical() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&u32::from(host.port()).to_be_bytes());
}
