//! Where the separators are, eight bytes at a time: properties are short and full of them, so a search that begins anew behind
//! each one spends its time on beginning.

use super::{NAME_VALUE_SEPARATOR, PAIR_SEPARATOR};

const LANES: usize = 8;
const LOW_BITS: u64 = lanes(0x7F);
const HIGH_BITS: u64 = lanes(0x80);
const NAME_VALUE: u64 = lanes(NAME_VALUE_SEPARATOR);
const PAIR: u64 = lanes(PAIR_SEPARATOR);

/// The places of both kinds of separators, in order, and whether a pair ends there.
pub(super) struct Separators<'a> {
    bytes: &'a [u8],
    /// Of the lanes that `found` is about.
    at: usize,
    /// The high bit of each lane with a separator that was not handed out yet.
    found: u64,
    /// The high bit of each lane that ends a pair.
    pairs: u64,
}

impl<'a> Separators<'a> {
    #[inline]
    pub(super) fn of(bytes: &'a [u8]) -> Separators<'a> {
        let mut separators = Separators {
            bytes,
            at: 0,
            found: 0,
            pairs: 0,
        };
        separators.look();
        separators
    }

    #[inline]
    fn look(&mut self) {
        let word = load(self.bytes, self.at);
        self.pairs = zeros(word ^ PAIR);
        self.found = zeros(word ^ NAME_VALUE) | self.pairs;
    }
}

impl Iterator for Separators<'_> {
    type Item = (usize, bool);

    #[inline]
    fn next(&mut self) -> Option<(usize, bool)> {
        while self.found == 0 {
            if self.at + LANES >= self.bytes.len() {
                return None;
            }
            self.at += LANES;
            self.look();
        }
        let first = self.found & self.found.wrapping_neg();
        self.found ^= first;
        let lane = first.trailing_zeros() as usize / 8;
        Some((self.at + lane, self.pairs & first != 0))
    }
}

const fn lanes(byte: u8) -> u64 {
    u64::from_le_bytes([byte; LANES])
}

/// The bytes from `at` on, the first of them lowest; zeros, which separate nothing, where there are fewer.
#[inline]
fn load(bytes: &[u8], at: usize) -> u64 {
    let rest = &bytes[at..];
    if let Some(first) = rest.first_chunk() {
        return u64::from_le_bytes(*first);
    }
    match bytes.last_chunk() {
        // A few single bytes put together would be waited for.
        Some(last) if !rest.is_empty() => u64::from_le_bytes(*last) >> (8 * (LANES - rest.len())),
        _ => rest
            .iter()
            .rev()
            .fold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}

/// The high bits of the lanes that are zero. No carry leaves its lane.
#[inline]
fn zeros(word: u64) -> u64 {
    !(((word & LOW_BITS) + LOW_BITS) | word) & HIGH_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_separator_is_found_and_nothing_else(
            bytes in prop::collection::vec(prop_oneof![0u8..4, 0x80u8..0x84, any::<u8>()], 0..70),
        ) {
            let is_separator = |byte: u8| byte == NAME_VALUE_SEPARATOR || byte == PAIR_SEPARATOR;
            let places = (0..bytes.len()).filter(|&at| is_separator(bytes[at]));
            let expected: Vec<(usize, bool)> = places.map(|at| (at, bytes[at] == PAIR_SEPARATOR)).collect();
            let found: Vec<(usize, bool)> = Separators::of(&bytes).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
