//! When delayed messages arrive, held against the time at which they are due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::load::consume::Observer;
use crate::payload::Clock;

/// Brokers count whole milliseconds.
const EARLY_NS_MAX: u64 = 1_000_000;

/// What a consumer notes of every message.
#[derive(Default)]
pub struct Arrivals {
    early: AtomicU64,
    earliest_by_ns: AtomicU64,
    last_ns: AtomicU64,
}

impl Arrivals {
    /// With what notes them on the generator's thread.
    pub fn observed() -> (Arc<Arrivals>, Observer) {
        let arrivals = Arc::new(Arrivals::default());
        let noted = Arc::clone(&arrivals);
        let clock = Clock::start();
        let observer: Observer =
            Box::new(move |_, _, stamp| noted.note(clock.now_ns(), stamp.intended_ns));
        (arrivals, observer)
    }

    pub fn last_ns(&self) -> u64 {
        self.last_ns.load(Ordering::Relaxed)
    }

    fn note(&self, now_ns: u64, due_ns: u64) {
        if now_ns + EARLY_NS_MAX < due_ns {
            self.early.fetch_add(1, Ordering::Relaxed);
            self.earliest_by_ns
                .fetch_max(due_ns - now_ns, Ordering::Relaxed);
        }
        self.last_ns.fetch_max(now_ns, Ordering::Relaxed);
    }

    pub fn judge(&self, broker: &str) -> Result<()> {
        match self.early.load(Ordering::Relaxed) {
            0 => Ok(()),
            early => Err(Error::Failed(format!(
                "{broker} delivered {early} messages before their time, one by {} ms",
                self.earliest_by_ns.load(Ordering::Relaxed) / 1_000_000
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_before_their_time_are_counted_but_for_a_broken_millisecond() {
        let arrivals = Arrivals::default();
        arrivals.note(5_000_000, 5_999_999);
        assert_eq!(arrivals.early.load(Ordering::Relaxed), 0);
        arrivals.note(5_000_000, 9_000_000);
        arrivals.note(4_000_000, 3_000_000);
        assert_eq!(arrivals.early.load(Ordering::Relaxed), 1);
        assert_eq!(arrivals.earliest_by_ns.load(Ordering::Relaxed), 4_000_000);
        assert_eq!(arrivals.last_ns.load(Ordering::Relaxed), 5_000_000);
    }
}
