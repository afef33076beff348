//! What others see of the timers: how many are parked, how far behind they are, how fast they come and go.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// More timers than this are not taken: they are kept in memory, three words each.
pub const TIMERS_MAX: u64 = 4 << 20;
/// Rates are those of the last whole stretch of this length.
const STRETCH_MS: i64 = 10_000;

/// Written by the timers' task, read by any core.
#[derive(Debug, Default)]
pub struct Gauges {
    parked: AtomicU64,
    /// Messages of the timers' queue that have not been looked at.
    unread: AtomicU64,
    first_due_ms: AtomicI64,
    taken: Rate,
    delivered: Rate,
}

/// Counts, and what that was a second in the last stretch.
#[derive(Debug, Default)]
struct Rate {
    count: AtomicU64,
    /// Of the count and the time in which the stretch began.
    begin: AtomicU64,
    begin_ms: AtomicI64,
    last_per_second: AtomicU64,
}

impl Rate {
    fn add(&self, more: u64, now_ms: i64) {
        let count = self.count.load(Ordering::Relaxed) + more;
        self.count.store(count, Ordering::Relaxed);
        let begin_ms = self.begin_ms.load(Ordering::Relaxed);
        let took_ms = now_ms.saturating_sub(begin_ms);
        if took_ms >= STRETCH_MS {
            let counted = count - self.begin.load(Ordering::Relaxed);
            let per_second = match begin_ms {
                0 => 0.0,
                _ => counted as f64 * 1_000.0 / took_ms as f64,
            };
            self.last_per_second
                .store(per_second.to_bits(), Ordering::Relaxed);
            self.begin.store(count, Ordering::Relaxed);
            self.begin_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// Nothing for two stretches: the last one says nothing any more.
    fn per_second(&self, now_ms: i64) -> f64 {
        let begin_ms = self.begin_ms.load(Ordering::Relaxed);
        match now_ms.saturating_sub(begin_ms) >= 2 * STRETCH_MS {
            true => 0.0,
            false => f64::from_bits(self.last_per_second.load(Ordering::Relaxed)),
        }
    }
}

impl Gauges {
    pub(super) fn taken(&self, more: u64, now_ms: i64) {
        self.taken.add(more, now_ms);
    }

    pub(super) fn delivered(&self, more: u64, now_ms: i64) {
        self.delivered.add(more, now_ms);
    }

    pub(super) fn parked(&self, timers: usize, unread: u64, first_due_ms: Option<i64>) {
        self.parked.store(timers as u64, Ordering::Relaxed);
        self.unread.store(unread, Ordering::Relaxed);
        let first_due_ms = first_due_ms.unwrap_or(i64::MAX);
        self.first_due_ms.store(first_due_ms, Ordering::Relaxed);
    }

    pub fn is_full(&self) -> bool {
        self.timers() >= TIMERS_MAX
    }

    pub fn timers(&self) -> u64 {
        self.parked.load(Ordering::Relaxed) + self.unread.load(Ordering::Relaxed)
    }

    pub fn unread(&self) -> u64 {
        self.unread.load(Ordering::Relaxed)
    }

    /// Whole seconds by which the first one is late.
    pub fn behind_seconds(&self, now_ms: i64) -> i64 {
        let first = self.first_due_ms.load(Ordering::Relaxed);
        now_ms.saturating_sub(first).max(0) / 1_000
    }

    /// Taken and delivered.
    pub fn per_second(&self, now_ms: i64) -> (f64, f64) {
        (
            self.taken.per_second(now_ms),
            self.delivered.per_second(now_ms),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_stretch_and_ends_with_the_flow() {
        let rate = Rate::default();
        let begin_ms = 1_000_000;
        rate.add(5, begin_ms);
        for second in 1..=10 {
            rate.add(100, begin_ms + second * 1_000);
        }
        assert_eq!(rate.per_second(begin_ms + 11_000), 100.0);
        assert_eq!(rate.per_second(begin_ms + 40_000), 0.0);
    }

    #[test]
    fn the_first_timer_says_how_late_they_are() {
        let gauges = Gauges::default();
        gauges.parked(2, 3, Some(5_000));
        assert_eq!((gauges.timers(), gauges.unread()), (5, 3));
        assert_eq!(gauges.behind_seconds(4_000), 0);
        assert_eq!(gauges.behind_seconds(7_999), 2);
        gauges.parked(0, 0, None);
        assert_eq!(gauges.behind_seconds(7_999), 0);
    }
}
