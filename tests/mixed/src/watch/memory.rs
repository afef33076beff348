//! The broker's own memory, once a second: it has to stay where it was.

use bench::process;

/// What the last quarter of a run may have above the second: the first is when everything is made.
const GROWTH_PERCENT_MAX: u64 = 10;
const GROWTH_KIB_MAX: u64 = 16 << 10;

#[derive(Default)]
pub struct Memory {
    samples_kib: Vec<u64>,
}

/// Medians of two quarters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    pub second_kib: u64,
    pub last_kib: u64,
    pub max_kib: u64,
}

impl Memory {
    /// Nothing is entered while there is no such process.
    pub fn sample(&mut self, pid: u32) {
        if let Some(memory) = process::memory(pid) {
            self.samples_kib.push(memory.anonymous_kib);
        }
    }

    pub fn last_kib(&self) -> u64 {
        self.samples_kib.last().copied().unwrap_or(0)
    }

    /// Unset while there are too few samples to tell.
    pub fn growth(&self) -> Option<Growth> {
        let quarter = self.samples_kib.len() / 4;
        if quarter == 0 {
            return None;
        }
        let last = self.samples_kib.len() - quarter;
        Some(Growth {
            second_kib: median(&self.samples_kib[quarter..2 * quarter]),
            last_kib: median(&self.samples_kib[last..]),
            max_kib: self.samples_kib.iter().copied().max().unwrap_or(0),
        })
    }
}

impl Growth {
    pub fn is_flat(&self) -> bool {
        let allowed = self.second_kib * GROWTH_PERCENT_MAX / 100 + GROWTH_KIB_MAX;
        self.last_kib <= self.second_kib + allowed
    }
}

fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(samples_kib: Vec<u64>) -> Growth {
        Memory { samples_kib }.growth().expect("enough samples")
    }

    #[test]
    fn the_second_and_the_last_quarter_are_compared_by_their_medians() {
        let mut samples = vec![1; 10];
        samples.extend([100_000; 10]);
        samples.extend([900_000; 10]);
        samples.extend([126_384; 9]);
        samples.push(1_000_000);
        let seen = growth(samples.clone());
        assert_eq!((seen.second_kib, seen.last_kib), (100_000, 126_384));
        assert!(seen.is_flat());
        samples[30..].fill(126_385);
        assert!(!growth(samples).is_flat());
    }

    #[test]
    fn our_own_memory_is_seen_and_nobody_elses() {
        let mut memory = Memory::default();
        memory.sample(u32::MAX);
        assert_eq!((memory.last_kib(), memory.growth()), (0, None));
        memory.sample(std::process::id());
        assert!(memory.last_kib() > 0);
    }
}
