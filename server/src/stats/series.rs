//! Sums over the last minute, hour and day, of one thing that is counted.
//!
//! Kept as a list of buckets that grow coarser with age: ten seconds for a minute, ten minutes for an hour, an hour for a
//! day. What happens seldom has few of them, what never stops has some forty. The figures are exact, not averages of averages.

use std::collections::VecDeque;

/// The finest buckets, in seconds.
pub const TICK_S: u64 = 10;
/// Ticks of a bucket, by age.
const FINE: u32 = 1;
const MIDDLE: u32 = 60;
const COARSE: u32 = 360;

/// What is looked back at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    Minute,
    Hour,
    Day,
}

impl Window {
    /// The first tick that counts. On the grid of its buckets, so that none is cut in two.
    fn start(self, now: u32) -> u32 {
        let (back, grid) = match self {
            Self::Minute => (6, FINE),
            Self::Hour => (360, MIDDLE),
            Self::Day => (8_640, COARSE),
        };
        now.saturating_sub(back) / grid * grid
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub count: u64,
    pub bytes: u64,
    /// How often it was added to.
    pub times: u64,
    /// What it took altogether, and how many times that was measured.
    pub took_us: u64,
    pub measured: u64,
}

impl Sums {
    pub fn add(&mut self, more: &Sums) {
        self.count += more.count;
        self.bytes += more.bytes;
        self.times += more.times;
        self.took_us += more.took_us;
        self.measured += more.measured;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    tick: u32,
    ticks: u32,
    sums: Sums,
}

/// Owned by the coordinator.
#[derive(Debug)]
pub struct Series {
    /// Second of the clock at which it began to be counted.
    since_s: u64,
    /// Oldest first.
    buckets: VecDeque<Bucket>,
}

/// A window's sums, and how long it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Looked {
    pub sums: Sums,
    pub seconds: f64,
}

/// The tick of a second.
pub fn tick_of(now_s: u64) -> u32 {
    u32::try_from(now_s / TICK_S).unwrap_or(u32::MAX)
}

impl Series {
    pub fn new(now_s: u64) -> Self {
        Self {
            since_s: now_s,
            buckets: VecDeque::new(),
        }
    }

    pub fn add(&mut self, now_s: u64, more: &Sums) {
        let tick = tick_of(now_s);
        if let Some(newest) = self.buckets.back_mut()
            && newest.ticks == FINE
            && newest.tick >= tick
        {
            newest.sums.add(more);
            return;
        }
        self.grow_coarser(tick);
        self.buckets.push_back(Bucket {
            tick,
            ticks: FINE,
            sums: *more,
        });
    }

    /// Merges what has grown older than its bucket is fine, and forgets what is older than a day.
    fn grow_coarser(&mut self, now: u32) {
        let starts = [Window::Minute, Window::Hour, Window::Day].map(|window| window.start(now));
        let old = std::mem::take(&mut self.buckets);
        for bucket in old {
            if bucket.tick < starts[2] {
                continue;
            }
            let ticks = if bucket.tick < starts[1] {
                COARSE
            } else if bucket.tick < starts[0] {
                MIDDLE
            } else {
                FINE
            };
            let ticks = ticks.max(bucket.ticks);
            let tick = bucket.tick / ticks * ticks;
            match self.buckets.back_mut() {
                Some(last) if last.tick == tick && last.ticks == ticks => {
                    last.sums.add(&bucket.sums);
                }
                _ => self.buckets.push_back(Bucket {
                    tick,
                    ticks,
                    sums: bucket.sums,
                }),
            }
        }
    }

    pub fn look(&self, now_s: u64, window: Window) -> Looked {
        let start = window.start(tick_of(now_s));
        let mut sums = Sums::default();
        let within = self.buckets.iter().filter(|bucket| bucket.tick >= start);
        within.for_each(|bucket| sums.add(&bucket.sums));
        let from_s = (u64::from(start) * TICK_S).max(self.since_s);
        let seconds = now_s.saturating_sub(from_s).max(1) as f64;
        Looked { sums, seconds }
    }

    /// Nothing of it would be shown any more.
    pub fn is_over(&self, now_s: u64) -> bool {
        let start = Window::Day.start(tick_of(now_s));
        self.buckets.back().is_none_or(|last| last.tick < start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one() -> Sums {
        Sums {
            count: 1,
            ..Sums::default()
        }
    }

    #[test]
    fn rates_are_counted_over_what_the_window_covers() {
        let mut series = Series::new(0);
        for second in 0..600 {
            series.add(second, &one());
        }
        let minute = series.look(600, Window::Minute);
        assert_eq!((minute.sums.count, minute.seconds), (60, 60.0));
        let hour = series.look(600, Window::Hour);
        assert_eq!((hour.sums.count, hour.seconds), (600, 600.0));
    }

    #[test]
    fn what_began_just_now_is_averaged_over_its_age() {
        let mut series = Series::new(1_000);
        series.add(1_000, &one());
        series.add(1_004, &one());
        let minute = series.look(1_005, Window::Minute);
        assert_eq!((minute.sums.count, minute.seconds), (2, 5.0));
    }

    #[test]
    fn what_never_stops_takes_few_buckets() {
        let mut series = Series::new(0);
        for second in (0..200_000).step_by(3) {
            series.add(second, &one());
            assert!(series.buckets.len() <= 48, "{}", series.buckets.len());
        }
    }

    #[test]
    fn after_a_day_it_is_over() {
        let mut series = Series::new(0);
        series.add(5, &one());
        assert!(!series.is_over(86_400));
        assert!(series.is_over(86_400 + 3_600 + 1));
        assert!(Series::new(0).is_over(0));
    }

    proptest! {
        #[test]
        fn a_window_has_everything_since_its_start_and_nothing_before(
            steps in proptest::collection::vec(0u64..2_000, 1..300),
            later in 0u64..4_000,
        ) {
            let mut series = Series::new(0);
            let mut added = Vec::new();
            let mut now = 0;
            for step in steps {
                now += step;
                series.add(now, &one());
                added.push(now);
            }
            now += later;
            for window in [Window::Minute, Window::Hour, Window::Day] {
                let start_s = u64::from(window.start(tick_of(now))) * TICK_S;
                let expected = added.iter().filter(|&&at| at >= start_s).count() as u64;
                prop_assert_eq!(series.look(now, window).sums.count, expected);
            }
        }
    }
}
