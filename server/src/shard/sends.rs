//! Sends that wait for the writer: what is needed to answer them, found by the token that travels with each record.

use protocol::Asked;
use reactor::Instant;

use crate::messages::ConnId;
use crate::shard::slab::{Key, Slab};

/// Token of a record nobody waits for: a one-way send. No key makes it, slots end long before.
pub const NO_ANSWER: u64 = u64::MAX;

/// The unique key of stock clients has 32 characters; longer ones cost an allocation.
const INLINE_KEY_BYTES_MAX: usize = 48;

/// Lives on one core.
pub type PendingSends = Slab<PendingSend>;

#[derive(Debug)]
pub struct PendingSend {
    pub conn: ConnId,
    pub asked: Asked,
    /// The turn it was taken in.
    pub taken: Instant,
    pub queue_id: i32,
    /// Goes back as the transaction id.
    pub unique_key: UniqueKey,
    /// Names a delayed message to whoever sent it.
    pub recall_handle: Option<Box<str>>,
    /// More than one record: a batch, answered when the last of them is back.
    pub batch: Option<Box<BatchProgress>>,
}

#[derive(Debug, Default)]
pub struct BatchProgress {
    pub records_left: u32,
    pub first_queue_offset: Option<u64>,
    /// The records' message ids, joined by commas.
    pub message_ids: String,
    pub error: Option<engine::AppendError>,
}

#[derive(Debug)]
pub enum UniqueKey {
    Inline {
        len: u8,
        bytes: [u8; INLINE_KEY_BYTES_MAX],
    },
    Long(Box<[u8]>),
}

impl UniqueKey {
    pub fn new(key: &[u8]) -> Self {
        if key.len() > INLINE_KEY_BYTES_MAX {
            return Self::Long(key.into());
        }
        let mut bytes = [0; INLINE_KEY_BYTES_MAX];
        bytes[..key.len()].copy_from_slice(key);
        Self::Inline {
            len: key.len() as u8,
            bytes,
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
        }
    }
}

/// Puts a send on the list; the token finds it again.
pub fn wait_for(sends: &mut PendingSends, send: PendingSend) -> u64 {
    let token = sends.insert(send).token();
    assert_ne!(token, NO_ANSWER, "that token means something else");
    token
}

pub fn key_of(token: u64) -> Option<Key> {
    (token != NO_ANSWER).then(|| Key::from_token(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_keys_of_any_length_come_back() {
        for len in [0, 32, INLINE_KEY_BYTES_MAX, INLINE_KEY_BYTES_MAX + 1] {
            let key = vec![b'k'; len];
            assert_eq!(UniqueKey::new(&key).as_bytes(), key);
        }
    }
}
