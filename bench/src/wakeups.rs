//! A thread that does nothing but sleep a millisecond by an absolute deadline. How late it wakes, no program on its CPU
//! is spared.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::thread::{ClockId, clock_nanosleep_absolute};
use rustix::time::{Timespec, clock_gettime};

use crate::process;

pub const PERIOD_NS: u64 = 1_000_000;

/// Sleeps on one CPU until it is told to stop, and hands over the deadline and the time of each wake-up.
pub fn watch(cpu: usize, stop: &AtomicBool, mut woken: impl FnMut(u64, u64)) {
    // Without these it still measures, only less sharply.
    let _ = process::pin(cpu);
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let mut due_ns = now_ns() + PERIOD_NS;
    while !stop.load(Ordering::Relaxed) {
        let due = Timespec {
            tv_sec: (due_ns / 1_000_000_000) as i64,
            tv_nsec: (due_ns % 1_000_000_000) as _,
        };
        if clock_nanosleep_absolute(ClockId::Monotonic, &due).is_err() {
            continue; // woken by a signal: the deadline still stands
        }
        let now_ns = now_ns();
        woken(due_ns, now_ns);
        due_ns = next(due_ns, now_ns);
    }
}

/// The first deadline that is not past.
fn next(due_ns: u64, now_ns: u64) -> u64 {
    let late_ns = now_ns.saturating_sub(due_ns);
    due_ns + (late_ns / PERIOD_NS + 1) * PERIOD_NS
}

pub fn now_ns() -> u64 {
    let time = clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_that_were_slept_through_are_left_out() {
        let due = 7 * PERIOD_NS;
        assert_eq!(next(due, due), due + PERIOD_NS);
        assert_eq!(next(due, due + 4 * PERIOD_NS + 10_000), due + 5 * PERIOD_NS);
        assert_eq!(next(due, due + PERIOD_NS), due + 2 * PERIOD_NS);
    }
}
