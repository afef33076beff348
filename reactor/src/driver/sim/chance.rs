//! Where every decision of a simulated world comes from, and the running hash of what was decided and what happened.

use std::time::Duration;

/// Probabilities are given in parts per million.
const MILLION: u64 = 1_000_000;

/// SplitMix64: every seed, also 0, is a good one.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// 0 .. bound. The slight bias of the remainder does not matter here.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "nothing is below zero");
        (self.next() % bound as u64) as usize
    }

    pub(super) fn flip(&mut self) -> bool {
        self.next() & 1 == 1
    }

    pub(super) fn happens(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.next() % MILLION < u64::from(ppm)
    }

    pub(super) fn between(&mut self, (min, max): (Duration, Duration)) -> Duration {
        let spread = max.saturating_sub(min).as_nanos() as u64;
        min + Duration::from_nanos(self.next() % (spread + 1))
    }
}

/// A hash over everything folded in, in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Trace {
    #[inline]
    pub(super) fn fold(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    pub(super) fn fold_all<const N: usize>(&mut self, values: [u64; N]) {
        values.into_iter().for_each(|value| self.fold(value));
    }

    pub(super) fn fold_bytes(&mut self, bytes: &[u8]) {
        self.fold(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.fold(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.fold(u64::from(*byte));
        }
    }

    pub(super) fn value(&self) -> u64 {
        self.0
    }
}
