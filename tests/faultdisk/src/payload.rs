//! Bodies that prove themselves: whoever reads one can tell every wrong byte, and which message it is. Pure.

use std::fmt;

/// Who sent it and its place among the sender's messages; never used twice in a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(pub u64);

impl fmt::Debug for Number {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sequence = self.0 & ((1 << SENDER_SHIFT) - 1);
        write!(out, "message {sequence} of sender {}", self.sender())
    }
}

const SENDER_SHIFT: u32 = 40;
const HEAD_BYTES: usize = 12;

impl Number {
    pub fn new(sender: u32, sequence: u64) -> Number {
        assert!(sequence >> SENDER_SHIFT == 0, "nobody sends so many");
        Number(u64::from(sender) << SENDER_SHIFT | sequence)
    }

    pub fn sender(self) -> u64 {
        self.0 >> SENDER_SHIFT
    }
}

/// Sizes vary with the number, so that records lie across sectors and pages in every way.
pub fn body(number: Number, bytes_max: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number.0);
    let len = random.usize(HEAD_BYTES..=bytes_max.max(HEAD_BYTES));
    let mut body = Vec::with_capacity(len);
    body.extend_from_slice(&number.0.to_be_bytes());
    body.extend_from_slice(&(bytes_max as u32).to_be_bytes());
    body.resize(len, 0);
    random.fill(&mut body[HEAD_BYTES..]);
    body
}

/// The number of an unharmed body.
pub fn check(found: &[u8]) -> Option<Number> {
    let number = Number(u64::from_be_bytes(*found.first_chunk()?));
    let bytes_max = u32::from_be_bytes(*found.get(8..)?.first_chunk()?) as usize;
    (bytes_max < 1 << 24 && body(number, bytes_max) == found).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_known_again_and_any_wrong_byte_is_seen() {
        for sequence in 0..50 {
            let number = Number::new(3, sequence);
            let mut bytes = body(number, 300);
            assert_eq!(check(&bytes), Some(number));
            assert_eq!(number.sender(), 3);
            let at = sequence as usize * 7 % bytes.len();
            bytes[at] ^= 4;
            assert_eq!(check(&bytes), None);
        }
        assert_eq!(check(b"short"), None);
    }
}
