//! Random numbers for jitter, ids and load spreading; not for secrets. xorshift64*, one state per core.

use std::cell::Cell;

pub(crate) struct Random(Cell<u64>);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        // The all-zero state is the generator's fixed point.
        Random(Cell::new(if seed == 0 {
            0x9E37_79B9_7F4A_7C15
        } else {
            seed
        }))
    }

    pub(crate) fn next(&self) -> u64 {
        let mut state = self.0.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0.set(state);
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

/// A seed from the operating system.
pub(crate) fn os_seed() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: the pointer and length describe a live local array.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == bytes.len() as isize {
        u64::from_ne_bytes(bytes)
    } else {
        // Only very old kernels, or before the pool is ready: the clock is enough for jitter.
        crate::time::monotonic().as_nanos() ^ u64::from(std::process::id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_zero_is_a_seed_too() {
        let (a, b) = (Random::new(7), Random::new(7));
        let first: Vec<u64> = (0..4).map(|_| a.next()).collect();
        let second: Vec<u64> = (0..4).map(|_| b.next()).collect();
        assert_eq!(first, second);
        let zero = Random::new(0);
        assert_ne!(zero.next(), zero.next());
    }
}
