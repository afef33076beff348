//! Walks the stored messages of a pull's answer. Reads what the checks need and nothing more.

/// A message as stored, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub queue_id: u32,
    pub queue_offset: u64,
    pub log_offset: u64,
    pub body_crc: u32,
    pub body: &'a [u8],
}

/// The bytes are not a record; the rest of the answer cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

const MAGIC: [u32; 2] = [-626_843_481i32 as u32, -626_843_477i32 as u32];
const BODY_CRC_AT: usize = 8;
const QUEUE_ID_AT: usize = 12;
const QUEUE_OFFSET_AT: usize = 20;
const LOG_OFFSET_AT: usize = 28;
const SYS_FLAG_AT: usize = 36;
const BORN_HOST_AT: usize = 48;
const BORN_HOST_V6: u32 = 1 << 4;
const STORE_HOST_V6: u32 = 1 << 5;

pub fn records(answer: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Broken>> {
    let mut rest = answer;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match split(rest) {
            Some((record, after)) => {
                rest = after;
                Some(Ok(record))
            }
            None => {
                rest = &[];
                Some(Err(Broken))
            }
        }
    })
}

fn split(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let total = u32_at(bytes, 0)? as usize;
    let record = bytes.get(..total)?;
    if !MAGIC.contains(&u32_at(record, 4)?) {
        return None;
    }
    let flags = u32_at(record, SYS_FLAG_AT)?;
    let host_bytes = |v6: u32| if flags & v6 == 0 { 8 } else { 20 };
    let store_time_at = BORN_HOST_AT + host_bytes(BORN_HOST_V6);
    let body_len_at = store_time_at + 8 + host_bytes(STORE_HOST_V6) + 4 + 8;
    let body_len = u32_at(record, body_len_at)? as usize;
    let body = record.get(body_len_at + 4..)?.get(..body_len)?;
    let found = Record {
        queue_id: u32_at(record, QUEUE_ID_AT)?,
        queue_offset: u64_at(record, QUEUE_OFFSET_AT)?,
        log_offset: u64_at(record, LOG_OFFSET_AT)?,
        body_crc: u32_at(record, BODY_CRC_AT)?,
        body,
    };
    Some((found, &bytes[total..]))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Where the body of a batch's inner message begins: size, magic, crc, flag and body length come before.
const INNER_BODY_AT: usize = 20;

/// The body of a batch: messages that share a topic, one after the other, each with its properties.
pub fn batch<'a>(messages: impl IntoIterator<Item = (&'a [u8], &'a str)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (body, properties) in messages {
        let size = INNER_BODY_AT + body.len() + 2 + properties.len();
        out.extend_from_slice(&(size as u32).to_be_bytes());
        out.extend_from_slice(&[0; 12]); // magic, crc and flag are not read
        out.extend_from_slice(&(body.len() as u32).to_be_bytes());
        out.extend_from_slice(body);
        out.extend_from_slice(&(properties.len() as u16).to_be_bytes());
        out.extend_from_slice(properties.as_bytes());
    }
    out
}

/// Where the bodies lie within a batch that was made here.
pub fn batched_bodies(batch: &[u8]) -> impl Iterator<Item = usize> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let body_at = at + INNER_BODY_AT;
        at += u32_at(batch, at)? as usize;
        Some(body_at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(flags: u32, hosts: usize, body: &[u8]) -> Vec<u8> {
        let total = 48 + hosts + 8 + 4 + 8 + 4 + body.len() + 1 + 5 + 2;
        let mut record = vec![0; 48];
        record[0..4].copy_from_slice(&(total as u32).to_be_bytes());
        record[4..8].copy_from_slice(&MAGIC[0].to_be_bytes());
        record[15] = 3;
        record[27] = 9;
        record[36..40].copy_from_slice(&flags.to_be_bytes());
        record.extend(vec![0; hosts + 8 + 4 + 8]);
        record.extend_from_slice(&(body.len() as u32).to_be_bytes());
        record.extend_from_slice(body);
        record.extend_from_slice(b"\x05topic\0\0");
        assert_eq!(record.len(), total);
        record
    }

    #[test]
    fn both_address_families_are_walked() {
        let mut answer = stored(0, 16, b"one");
        answer.extend(stored(BORN_HOST_V6 | STORE_HOST_V6, 40, b"two"));
        let bodies: Vec<_> = records(&answer)
            .map(|record| record.expect("whole").body)
            .collect();
        assert_eq!(bodies, [b"one", b"two"]);
        let first = records(&answer)
            .next()
            .expect("two records")
            .expect("whole");
        assert_eq!((first.queue_id, first.queue_offset), (3, 9));
    }

    #[test]
    fn a_cut_record_ends_the_walk_as_broken() {
        let answer = stored(0, 16, b"one");
        for len in 1..answer.len() {
            assert_eq!(
                records(&answer[..len]).next(),
                Some(Err(Broken)),
                "{len} bytes"
            );
        }
    }
}
