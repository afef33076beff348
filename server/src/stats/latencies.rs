//! How long sends were kept waiting: a histogram of bounded size, exact enough for the 99.9th percentile.

use std::collections::VecDeque;
use std::time::Duration;

/// Each power of two of microseconds is divided into so many steps: a percentile is off by an eighth at most.
const STEPS: usize = 8;
const STEPS_LOG2: u32 = STEPS.ilog2();
/// 2^27 µs are two minutes; whatever takes longer counts as that.
const POWERS: usize = 27;
/// The bounds of the distribution that tools print, in milliseconds, and what they call what lies below each.
const RANGES: [(u64, &str); 12] = [
    (1, "[<=0ms]"),
    (10, "[0~10ms]"),
    (50, "[10~50ms]"),
    (100, "[50~100ms]"),
    (200, "[100~200ms]"),
    (500, "[200~500ms]"),
    (1_000, "[500ms~1s]"),
    (2_000, "[1~2s]"),
    (3_000, "[2~3s]"),
    (4_000, "[3~4s]"),
    (5_000, "[4~5s]"),
    (10_000, "[5~10s]"),
];
const ABOVE: &str = "[10s~]";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latencies {
    steps: [u32; POWERS * STEPS],
    ranges: [u32; RANGES.len() + 1],
    slowest_us: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            steps: [0; POWERS * STEPS],
            ranges: [0; RANGES.len() + 1],
            slowest_us: 0,
        }
    }
}

impl Latencies {
    pub fn add(&mut self, us: u64) {
        self.steps[step_of(us)] += 1;
        let range = RANGES.iter().position(|(below_ms, _)| us < below_ms * 1000);
        self.ranges[range.unwrap_or(RANGES.len())] += 1;
        self.slowest_us = self.slowest_us.max(us);
    }

    fn merge(&mut self, other: &Latencies) {
        let pairs = self.steps.iter_mut().zip(&other.steps);
        pairs.for_each(|(sum, more)| *sum = sum.saturating_add(*more));
        let pairs = self.ranges.iter_mut().zip(&other.ranges);
        pairs.for_each(|(sum, more)| *sum = sum.saturating_add(*more));
        self.slowest_us = self.slowest_us.max(other.slowest_us);
    }

    /// So many of a thousand were not slower; 0 when there were none.
    fn per_mille(&self, share: u64) -> f64 {
        let count: u64 = self.steps.iter().map(|&count| u64::from(count)).sum();
        let wanted = (count * share).div_ceil(1000);
        let mut passed = 0;
        for (step, &count) in self.steps.iter().enumerate() {
            passed += u64::from(count);
            if passed >= wanted && passed > 0 {
                return (end_of(step).min(self.slowest_us)) as f64 / 1000.0;
            }
        }
        0.0
    }

    fn to_text(&self) -> String {
        let names = RANGES.iter().map(|(_, name)| *name).chain([ABOVE]);
        let parts = names.zip(&self.ranges);
        parts.fold(String::new(), |mut text, (name, count)| {
            text.push_str(&format!("{name}:{count} "));
            text
        })
    }
}

/// Steps of one below 8 µs, of an eighth of a power of two above.
fn step_of(us: u64) -> usize {
    let us = us.min((1 << POWERS) - 1);
    if us < STEPS as u64 {
        return us as usize;
    }
    let power = us.ilog2() - STEPS_LOG2;
    (power as usize * STEPS) + (us >> power) as usize
}

/// The largest time that is counted in a step.
fn end_of(step: usize) -> u64 {
    if step < 2 * STEPS {
        return step as u64;
    }
    let power = step / STEPS - 1;
    let first = (step % STEPS + STEPS) as u64;
    ((first + 1) << power) - 1
}

/// The last minute's, in slices of ten seconds. Lives beside the coordinator.
#[derive(Debug, Default)]
pub struct LastMinute {
    slices: VecDeque<(u32, Box<Latencies>)>,
    slowest_us: u64,
}

const SLICES: u32 = 6;
pub const SLICE: Duration = Duration::from_secs(10);

impl LastMinute {
    pub fn add(&mut self, slice: u32, latencies: Box<Latencies>) {
        self.slowest_us = self.slowest_us.max(latencies.slowest_us);
        match self.slices.back_mut() {
            Some((newest, sum)) if *newest == slice => sum.merge(&latencies),
            _ => self.slices.push_back((slice, latencies)),
        }
        while self.slices.len() > SLICES as usize + 1 {
            self.slices.pop_front();
        }
    }

    pub fn shown(&self, slice: u32) -> Shown {
        let mut sum = Latencies::default();
        let newer = |(at, _): &&(u32, _)| at + SLICES >= slice;
        for (_, latencies) in self.slices.iter().filter(newer) {
            sum.merge(latencies);
        }
        Shown {
            p99_ms: sum.per_mille(990),
            p999_ms: sum.per_mille(999),
            distribution: sum.to_text(),
            slowest_ms: self.slowest_us / 1000,
        }
    }
}

/// As `brokerStatus` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub distribution: String,
    /// Since the start.
    pub slowest_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_step_that_ends_behind_it_and_not_far() {
        let mut last = 0;
        for us in (0..100_000).chain([1 << 20, (1 << 27) - 1]) {
            let step = step_of(us);
            assert!(step >= last, "{us} goes back");
            last = step;
            assert!(step < POWERS * STEPS, "{us}");
            let end = end_of(step);
            assert!(end >= us && end <= us + us / 8, "{us} ends at {end}");
        }
        assert_eq!(step_of(u64::MAX), step_of((1 << 27) - 1));
    }

    #[test]
    fn percentiles_find_the_slow_ones() {
        let mut minute = LastMinute::default();
        let mut some = Latencies::default();
        (0..990).for_each(|_| some.add(100));
        (0..9).for_each(|_| some.add(20_000));
        some.add(3_000_000);
        minute.add(0, Box::new(some));
        let shown = minute.shown(1);
        assert!(shown.p99_ms < 0.12, "{shown:?}");
        assert!((20.0..23.0).contains(&shown.p999_ms), "{shown:?}");
        assert_eq!(shown.slowest_ms, 3000);
        assert!(
            shown
                .distribution
                .starts_with("[<=0ms]:990 [0~10ms]:0 [10~50ms]:9 ")
        );
        assert!(shown.distribution.contains("[3~4s]:1 "), "{shown:?}");
    }

    #[test]
    fn after_a_minute_only_the_slowest_is_remembered() {
        let mut minute = LastMinute::default();
        let mut some = Latencies::default();
        some.add(5_000);
        minute.add(0, Box::new(some));
        let later = minute.shown(SLICES + 1);
        assert_eq!((later.p99_ms, later.slowest_ms), (0.0, 5));
    }
}
