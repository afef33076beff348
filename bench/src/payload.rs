//! The body of every message: random filler that is the same for all, then a stamp that says who sent it, where, as
//! the how many-eth and when, then a CRC-32 over everything before. The consumer needs nothing else to notice a lost,
//! repeated, reordered or damaged message.
//!
//! ```text
//! | filler | producer u32 | lane u32 | sequence u64 | intended_ns u64 | crc u32 |   (big endian)
//! ```

use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub const STAMP_BYTES: usize = 28;
pub const BODY_BYTES_MIN: usize = STAMP_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// One connection of one run: the upper half is the run.
    pub producer: u32,
    /// Which queue of which topic, in the producer's own numbering.
    pub lane: u32,
    /// 0, 1, 2, ... for each producer and lane.
    pub sequence: u64,
    /// When it should have been sent (`Clock::now_ns`).
    pub intended_ns: u64,
}

/// The part of a body that never changes, with its CRC computed once.
pub struct Filler {
    bytes: Vec<u8>,
    crc: u32,
}

impl Filler {
    pub fn new(body_bytes: usize) -> Filler {
        assert!(body_bytes >= BODY_BYTES_MIN, "no room for the stamp");
        let mut bytes = vec![0; body_bytes - STAMP_BYTES];
        fastrand::Rng::with_seed(0x0B17).fill(&mut bytes);
        let crc = crc32fast::hash(&bytes);
        Filler { bytes, crc }
    }

    pub fn body_bytes(&self) -> usize {
        self.bytes.len() + STAMP_BYTES
    }

    /// A whole body with an empty stamp, to be laid into a frame.
    pub fn unstamped(&self) -> Vec<u8> {
        let mut body = self.bytes.clone();
        body.resize(self.body_bytes(), 0);
        body
    }

    /// Writes the stamp into a body that begins with this filler.
    pub fn stamp(&self, body: &mut [u8], stamp: Stamp) {
        let at = body.len() - STAMP_BYTES;
        debug_assert_eq!(at, self.bytes.len());
        let tail = &mut body[at..];
        tail[0..4].copy_from_slice(&stamp.producer.to_be_bytes());
        tail[4..8].copy_from_slice(&stamp.lane.to_be_bytes());
        tail[8..16].copy_from_slice(&stamp.sequence.to_be_bytes());
        tail[16..24].copy_from_slice(&stamp.intended_ns.to_be_bytes());
        let mut crc = crc32fast::Hasher::new_with_initial(self.crc);
        crc.update(&tail[..24]);
        tail[24..28].copy_from_slice(&crc.finalize().to_be_bytes());
    }
}

/// The stamp of a body that arrived whole; `None` if a single bit is wrong.
pub fn open(body: &[u8]) -> Option<Stamp> {
    let (rest, crc) = body.split_last_chunk::<4>()?;
    if crc32fast::hash(rest) != u32::from_be_bytes(*crc) {
        return None;
    }
    let stamp = rest.last_chunk::<24>()?;
    let u32_at =
        |at: usize| u32::from_be_bytes([stamp[at], stamp[at + 1], stamp[at + 2], stamp[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
    Some(Stamp {
        producer: u32_at(0),
        lane: u32_at(4),
        sequence: u64_at(8),
        intended_ns: u64_at(16),
    })
}

/// Nanoseconds since 1970 that never run backwards within a process and agree between processes of one machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Instant,
    base_ns: u64,
}

impl Clock {
    pub fn start() -> Clock {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("the clock is past 1970");
        Clock {
            base: Instant::now(),
            base_ns: since_epoch.as_nanos() as u64,
        }
    }

    pub fn now_ns(&self) -> u64 {
        self.base_ns + self.base.elapsed().as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        producer: 0xA0001,
        lane: 7,
        sequence: u64::MAX - 3,
        intended_ns: 1_700_000_000_000_000_000,
    };

    #[test]
    fn a_stamp_survives_and_every_flipped_bit_is_noticed() {
        let filler = Filler::new(100);
        let mut body = filler.unstamped();
        filler.stamp(&mut body, STAMP);
        assert_eq!(open(&body), Some(STAMP));
        for bit in 0..body.len() * 8 {
            body[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&body), None, "bit {bit}");
            body[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn the_smallest_body_is_all_stamp_and_a_shorter_one_is_refused() {
        let filler = Filler::new(BODY_BYTES_MIN);
        let mut body = filler.unstamped();
        filler.stamp(&mut body, STAMP);
        assert_eq!(open(&body), Some(STAMP));
        assert_eq!(open(&body[1..]), None);
        assert_eq!(open(&[]), None);
    }
}
