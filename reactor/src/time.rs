//! Time as tasks see it: a monotonic instant and the wall clock, both real or simulated.
//! The reads that hot paths use (`turn_time`, `wall_ms`) are cached once per turn of the core's loop.

use std::ops::{Add, Sub};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::core;

/// Nanoseconds since the process, or the simulated world, began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(u64);

impl Instant {
    pub(crate) const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from this instant until now; zero if it lies in the future.
    pub fn elapsed(self) -> Duration {
        now().saturating_since(self)
    }

    /// Time from `earlier` to this instant; zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(saturating_nanos(duration)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_sub(saturating_nanos(duration)))
    }
}

fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The precise time. Costs a clock read; see [`turn_time`] for hot paths.
pub fn now() -> Instant {
    match core::sim() {
        Some(sim) => sim.now(),
        None => monotonic(),
    }
}

/// The time at which the current turn of this core's loop began.
pub fn turn_time() -> Instant {
    core::with_current(|current| current.map(|core| core.turn_time())).unwrap_or_else(monotonic)
}

/// Milliseconds since the Unix epoch, read once per turn of this core's loop.
pub fn wall_ms() -> i64 {
    core::with_current(|current| current.map(|core| core.wall_ms())).unwrap_or_else(wall_clock_ms)
}

/// The hour of the day, 0 to 23, at a time in milliseconds since the Unix epoch: the machine's local time. A simulated
/// machine stands in Greenwich.
pub fn local_hour(ms: i64) -> u8 {
    let seconds = ms.div_euclid(1000);
    let greenwich = (seconds.div_euclid(3600)).rem_euclid(24) as u8;
    if core::sim().is_some() {
        return greenwich;
    }
    // SAFETY: an all-zero tm is a valid value of plain integers and a null pointer.
    let mut broken_down: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are good for the call.
    let answer = unsafe { libc::localtime_r(&seconds, &mut broken_down) };
    if answer.is_null() {
        return greenwich; // A year that is none.
    }
    u8::try_from(broken_down.tm_hour).unwrap_or(greenwich)
}

pub(crate) fn monotonic() -> Instant {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    Instant(saturating_nanos(
        START.get_or_init(std::time::Instant::now).elapsed(),
    ))
}

pub(crate) fn wall_clock_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_follow_each_other_and_are_hours() {
        let noon = 1_700_000_000_000;
        let hours = [0, 1, 2].map(|hour| local_hour(noon + hour * 3_600_000));
        assert!(hours.iter().all(|&hour| hour < 24));
        assert_eq!((hours[0] + 1) % 24, hours[1]);
        assert_eq!((hours[1] + 1) % 24, hours[2]);
    }

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        let early = Instant::from_nanos(5);
        assert_eq!(early - Duration::from_secs(1), Instant::from_nanos(0));
        assert_eq!(
            (early + Duration::from_nanos(7)).saturating_since(early),
            Duration::from_nanos(7)
        );
        assert_eq!(
            early.saturating_since(early + Duration::from_secs(1)),
            Duration::ZERO
        );
        assert_eq!((early + Duration::MAX).as_nanos(), u64::MAX);
    }
}
