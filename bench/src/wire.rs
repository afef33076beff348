//! Just enough of the remoting protocol to drive a broker: requests laid out once with holes that are patched for
//! every message, and answers of which only code, opaque and single fields are read. Deliberately not built on the
//! `protocol` crate: the harness judges brokers, so it must not share a mistake with one of them. It never blocks
//! and owns no socket.

use std::sync::LazyLock;

use memchr::memmem;

pub mod request {
    pub const PULL_MESSAGE: i32 = 11;
    pub const QUERY_CONSUMER_OFFSET: i32 = 14;
    pub const UPDATE_CONSUMER_OFFSET: i32 = 15;
    pub const UPDATE_AND_CREATE_TOPIC: i32 = 17;
    pub const GET_BROKER_RUNTIME_INFO: i32 = 28;
    pub const GET_MAX_OFFSET: i32 = 30;
    pub const GET_MIN_OFFSET: i32 = 31;
    pub const HEART_BEAT: i32 = 34;
    pub const END_TRANSACTION: i32 = 37;
    pub const LOCK_BATCH_MQ: i32 = 41;
    pub const GET_ROUTEINFO_BY_TOPIC: i32 = 105;
    pub const GET_BROKER_CLUSTER_INFO: i32 = 106;
    pub const UPDATE_AND_CREATE_SUBSCRIPTIONGROUP: i32 = 200;
    pub const SEND_MESSAGE_V2: i32 = 310;
    pub const SEND_BATCH_MESSAGE: i32 = 320;
    pub const POP_MESSAGE: i32 = 200_050;
    pub const ACK_MESSAGE: i32 = 200_051;
    pub const BATCH_ACK_MESSAGE: i32 = 200_151;
}

pub mod response {
    pub const SUCCESS: i32 = 0;
    pub const FLUSH_DISK_TIMEOUT: i32 = 10;
    pub const SLAVE_NOT_AVAILABLE: i32 = 11;
    pub const FLUSH_SLAVE_TIMEOUT: i32 = 12;
    pub const SERVICE_NOT_AVAILABLE: i32 = 14;
    pub const PULL_NOT_FOUND: i32 = 19;
    pub const PULL_RETRY_IMMEDIATELY: i32 = 20;
    pub const PULL_OFFSET_MOVED: i32 = 21;
    pub const QUERY_NOT_FOUND: i32 = 22;
    pub const POLLING_FULL: i32 = 209;
    pub const POLLING_TIMEOUT: i32 = 210;

    /// The message is stored, whatever its replication or flush promise.
    pub fn is_stored(code: i32) -> bool {
        matches!(
            code,
            SUCCESS | FLUSH_DISK_TIMEOUT | SLAVE_NOT_AVAILABLE | FLUSH_SLAVE_TIMEOUT
        )
    }
}

/// Opaques are always ten digits, so that patching one never moves a byte.
pub const OPAQUE_FIRST: i32 = 1_000_000_000;
/// V5_3_3 in RocketMQ's enumeration of versions: new enough for every answer in its strict form.
const VERSION: i16 = 479;
const LANGUAGE_RUST: u8 = 12;
/// A broker never sends a frame larger than this; anything above is a broken stream.
pub const FRAME_BYTES_MAX: usize = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    Json,
    Binary,
}

/// Where the opaque and the body of a frame lie, counted from the frame's first byte.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub encoding: Encoding,
    pub opaque_at: usize,
    pub body_at: usize,
}

/// Appends one whole request to `out`; field values must not need JSON escapes beyond control characters.
pub fn write_request(
    out: &mut Vec<u8>,
    encoding: Encoding,
    code: i32,
    opaque: i32,
    fields: &[(&str, &str)],
    body: &[u8],
) -> Layout {
    assert!(opaque >= OPAQUE_FIRST, "an opaque has ten digits");
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    let opaque_at = match encoding {
        Encoding::Json => write_json(out, code, opaque, fields),
        Encoding::Binary => write_binary(out, code, opaque, fields),
    };
    let header_len = out.len() - start - 8;
    assert!(
        header_len < 1 << 24,
        "a header has at most 24 bits of length"
    );
    out.extend_from_slice(body);
    let total = u32::try_from(out.len() - start - 4).expect("frames are far below 4 GiB");
    out[start..start + 4].copy_from_slice(&total.to_be_bytes());
    out[start + 4..start + 8].copy_from_slice(&(header_len as u32).to_be_bytes());
    out[start + 4] = match encoding {
        Encoding::Json => 0,
        Encoding::Binary => 1,
    };
    Layout {
        encoding,
        opaque_at: opaque_at - start,
        body_at: 8 + header_len,
    }
}

fn write_json(out: &mut Vec<u8>, code: i32, opaque: i32, fields: &[(&str, &str)]) -> usize {
    out.extend_from_slice(format!("{{\"code\":{code},\"extFields\":{{").as_bytes());
    for (i, (name, value)) in fields.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, name).expect("writing to memory does not fail");
        out.push(b':');
        serde_json::to_writer(&mut *out, value).expect("writing to memory does not fail");
    }
    out.extend_from_slice(b"},\"flag\":0,\"language\":\"RUST\",\"opaque\":");
    let opaque_at = out.len();
    out.extend_from_slice(
        format!("{opaque},\"serializeTypeCurrentRPC\":\"JSON\",\"version\":{VERSION}}}").as_bytes(),
    );
    opaque_at
}

fn write_binary(out: &mut Vec<u8>, code: i32, opaque: i32, fields: &[(&str, &str)]) -> usize {
    out.extend_from_slice(&(code as i16).to_be_bytes());
    out.push(LANGUAGE_RUST);
    out.extend_from_slice(&VERSION.to_be_bytes());
    let opaque_at = out.len();
    out.extend_from_slice(&opaque.to_be_bytes());
    out.extend_from_slice(&0i32.to_be_bytes()); // flag: a request that wants its answer
    out.extend_from_slice(&0i32.to_be_bytes()); // no remark
    let fields_at = out.len();
    out.extend_from_slice(&[0; 4]);
    for (name, value) in fields {
        out.extend_from_slice(&(name.len() as u16).to_be_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&(value.len() as u32).to_be_bytes());
        out.extend_from_slice(value.as_bytes());
    }
    let len = (out.len() - fields_at - 4) as u32;
    out[fields_at..fields_at + 4].copy_from_slice(&len.to_be_bytes());
    opaque_at
}

/// Gives a frame its number.
pub fn patch_opaque(frame: &mut [u8], layout: &Layout, opaque: i32) {
    debug_assert!(opaque >= OPAQUE_FIRST);
    match layout.encoding {
        Encoding::Binary => {
            frame[layout.opaque_at..layout.opaque_at + 4].copy_from_slice(&opaque.to_be_bytes());
        }
        Encoding::Json => {
            let mut rest = opaque as u32;
            for digit in frame[layout.opaque_at..layout.opaque_at + 10]
                .iter_mut()
                .rev()
            {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
    }
}

/// An answer, of which nothing has been copied.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    pub code: i32,
    pub opaque: i32,
    encoding: Encoding,
    header: &'a [u8],
    pub body: &'a [u8],
}

static OPAQUE_KEY: LazyLock<memmem::Finder> = LazyLock::new(|| memmem::Finder::new(b"\"opaque\":"));
static CODE_KEY: LazyLock<memmem::Finder> = LazyLock::new(|| memmem::Finder::new(b"\"code\":"));

impl<'a> Reply<'a> {
    /// `frame` begins after the length word. `None`: not a frame of this protocol.
    pub fn parse(frame: &'a [u8]) -> Option<Reply<'a>> {
        let word = frame.first_chunk::<4>()?;
        let header_len = u32::from_be_bytes([0, word[1], word[2], word[3]]) as usize;
        let header = frame.get(4..4 + header_len)?;
        let body = &frame[4 + header_len..];
        let (encoding, code, opaque) = match word[0] {
            0 => (
                Encoding::Json,
                number_after(header, &CODE_KEY)?,
                number_after(header, &OPAQUE_KEY)?,
            ),
            1 => (
                Encoding::Binary,
                i16::from_be_bytes(*header.first_chunk()?) as i32,
                i32::from_be_bytes(*header.get(5..)?.first_chunk()?),
            ),
            _ => return None,
        };
        Some(Reply {
            code,
            opaque,
            encoding,
            header,
            body,
        })
    }

    /// A field that holds a number; `None` if it is absent or holds something else.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// A field without characters that JSON escapes.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.field(name)?).ok()
    }

    fn field(&self, name: &str) -> Option<&'a [u8]> {
        match self.encoding {
            Encoding::Json => {
                let key = format!("\"{name}\":\"");
                let at = memmem::find(self.header, key.as_bytes())? + key.len();
                let len = memchr::memchr(b'"', &self.header[at..])?;
                Some(&self.header[at..at + len])
            }
            Encoding::Binary => {
                let remark_len =
                    u32::from_be_bytes(*self.header.get(13..)?.first_chunk()?) as usize;
                let mut rest = self.header.get(17 + remark_len + 4..)?;
                while !rest.is_empty() {
                    let (key, after) = split_counted(rest, 2)?;
                    let (value, after) = split_counted(after, 4)?;
                    if key == name.as_bytes() {
                        return Some(value);
                    }
                    rest = after;
                }
                None
            }
        }
    }

    /// What the broker says about a refusal.
    pub fn remark(&self) -> String {
        match self.encoding {
            Encoding::Json => serde_json::from_slice::<serde_json::Value>(self.header)
                .ok()
                .and_then(|header| header["remark"].as_str().map(str::to_owned))
                .unwrap_or_default(),
            Encoding::Binary => self
                .header
                .get(13..)
                .and_then(|rest| split_counted(rest, 4))
                .map(|(remark, _)| String::from_utf8_lossy(remark).into_owned())
                .unwrap_or_default(),
        }
    }
}

fn number_after(header: &[u8], key: &memmem::Finder) -> Option<i32> {
    let at = key.find(header)? + key.needle().len();
    let digits = &header[at..];
    let negative = digits.first() == Some(&b'-');
    let mut value = 0i64;
    for &byte in digits[usize::from(negative)..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .take(10)
    {
        value = value * 10 + i64::from(byte - b'0');
    }
    i32::try_from(if negative { -value } else { value }).ok()
}

fn split_counted(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let len = bytes
        .get(..width)?
        .iter()
        .fold(0usize, |len, &byte| len << 8 | usize::from(byte));
    Some((bytes.get(width..width + len)?, &bytes[width + len..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patched_opaque_is_read_back_in_both_encodings() {
        for encoding in [Encoding::Json, Encoding::Binary] {
            let mut frame = Vec::new();
            let fields = [("b", "topic"), ("i", "UNIQ_KEY\u{1}00\u{2}")];
            let layout = write_request(&mut frame, encoding, 310, OPAQUE_FIRST, &fields, b"body");
            patch_opaque(&mut frame, &layout, OPAQUE_FIRST + 4711);
            assert_eq!(
                u32::from_be_bytes(*frame.first_chunk().expect("four bytes")) as usize,
                frame.len() - 4
            );
            let reply = Reply::parse(&frame[4..]).expect("our own frame");
            assert_eq!((reply.code, reply.opaque), (310, OPAQUE_FIRST + 4711));
            assert_eq!(reply.body, b"body");
            assert_eq!(&frame[layout.body_at..], b"body");
            assert_eq!(reply.field("b"), Some(&b"topic"[..]));
            assert_eq!(reply.field("zz"), None);
        }
    }

    #[test]
    fn code_and_numbers_of_a_brokers_answer_are_found() {
        let header = br#"{"code":19,"extFields":{"nextBeginOffset":"42","maxOffset":"x"},"flag":1,"opaque":1000000007,"remark":"say \"opaque\": 3"}"#;
        let mut frame = (header.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(header);
        let reply = Reply::parse(&frame).expect("a frame");
        assert_eq!((reply.code, reply.opaque), (19, 1_000_000_007));
        assert_eq!(reply.number("nextBeginOffset"), Some(42));
        assert_eq!(reply.number("maxOffset"), None);
        assert_eq!(reply.remark(), "say \"opaque\": 3");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            if let Some(reply) = Reply::parse(&bytes) {
                let _ = (reply.number("queueOffset"), reply.remark());
            }
        }
    }
}
