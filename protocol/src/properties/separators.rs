//! Where the separators are, eight bytes at a time: properties are short and full of them, so a search that begins anew behind
//! each one spends its time on beginning.

use super::{NAME_VALUE_SEPARATOR, PAIR_SEPARATOR};

const LANES: usize = 8;
const LOW_BITS: u64 = lanes(0x7F);
const HIGH_BITS: u64 = lanes(0x80);
const NAME_VALUE: u64 = lanes(NAME_VALUE_SEPARATOR);
const PAIR: u64 = lanes(PAIR_SEPARATOR);

/// The places of both kinds of separators, in order.
pub(super) struct Separators<'a> {
    bytes: &'a [u8],
    /// Of the lanes that `found` is about.
    at: usize,
    /// The high bit of each lane with a separator that was not handed out yet.
    found: u64,
}

impl<'a> Separators<'a> {
    #[inline]
    pub(super) fn of(bytes: &'a [u8]) -> Separators<'a> {
        let found = separators(load(bytes));
        Separators {
            bytes,
            at: 0,
            found,
        }
    }
}

impl Iterator for Separators<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.found == 0 {
            let rest = self.bytes.get(self.at + LANES..)?;
            self.at += LANES;
            self.found = separators(load(rest));
        }
        let lane = self.found.trailing_zeros() as usize / 8;
        self.found &= self.found - 1;
        Some(self.at + lane)
    }
}

const fn lanes(byte: u8) -> u64 {
    u64::from_le_bytes([byte; LANES])
}

/// The first bytes, the first of them lowest; zeros, which separate nothing, where there are fewer.
#[inline]
fn load(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(first) => u64::from_le_bytes(*first),
        None => {
            let mut padded = [0; LANES];
            padded[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(padded)
        }
    }
}

#[inline]
fn separators(word: u64) -> u64 {
    zeros(word ^ NAME_VALUE) | zeros(word ^ PAIR)
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
            let expected: Vec<usize> = (0..bytes.len()).filter(|&at| is_separator(bytes[at])).collect();
            let found: Vec<usize> = Separators::of(&bytes).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
