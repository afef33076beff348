//! Which brokers to leave alone for a while (`sendLatencyFaultEnable`): the slower the last answer, the longer.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::Mutex;

/// From so many milliseconds on, a broker is left alone for so many.
const STEPS_MS: [(u64, u64); 5] = [
    (15_000, 30_000),
    (5_000, 10_000),
    (3_000, 6_000),
    (1_800, 5_000),
    (550, 2_000),
];
/// A failed send counts as one that took so long.
const FAILURE: Duration = Duration::from_secs(10);

pub(super) struct Latencies {
    on: bool,
    /// Until when a broker is left alone, by its name.
    until: Mutex<HashMap<String, Instant>>,
}

impl Latencies {
    pub fn new(on: bool) -> Latencies {
        Latencies {
            on,
            until: Mutex::default(),
        }
    }

    pub fn succeeded(&self, broker_name: &str, latency: Duration, now: Instant) {
        if self.on {
            self.note(broker_name, latency, now);
        }
    }

    pub fn failed(&self, broker_name: &str, now: Instant) {
        if self.on {
            self.note(broker_name, FAILURE, now);
        }
    }

    fn note(&self, broker_name: &str, latency: Duration, now: Instant) {
        let until = now + pause_after(latency);
        let mut all = self.until.lock();
        match all.get_mut(broker_name) {
            // A quick answer does not shorten a pause: it may have been under way before the trouble.
            Some(known) => *known = until.max(*known),
            None if until > now => drop(all.insert(broker_name.to_owned(), until)),
            None => {}
        }
    }

    pub fn is_usable(&self, broker_name: &str, now: Instant) -> bool {
        if !self.on {
            return true;
        }
        let all = self.until.lock();
        all.get(broker_name).is_none_or(|until| *until <= now)
    }
}

fn pause_after(latency: Duration) -> Duration {
    let latency_ms = latency.as_millis() as u64;
    let step = STEPS_MS.iter().find(|(from_ms, _)| latency_ms >= *from_ms);
    Duration::from_millis(step.map_or(0, |(_, pause_ms)| *pause_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_an_answer_the_longer_the_pause() {
        for (latency_ms, pause_ms) in [
            (0, 0),
            (549, 0),
            (550, 2_000),
            (1_800, 5_000),
            (4_999, 6_000),
            (10_000, 10_000),
            (60_000, 30_000),
        ] {
            let pause = pause_after(Duration::from_millis(latency_ms));
            assert_eq!(pause, Duration::from_millis(pause_ms), "{latency_ms}");
        }
    }

    #[test]
    fn a_broker_that_failed_is_left_alone_until_its_pause_is_over() {
        let (latencies, now) = (Latencies::new(true), Instant::now());
        latencies.failed("a", now);
        latencies.succeeded("a", Duration::from_millis(1), now);
        assert!(!latencies.is_usable("a", now + Duration::from_millis(9_999)));
        assert!(latencies.is_usable("a", now + Duration::from_millis(10_000)));
        assert!(latencies.is_usable("b", now));
    }

    #[test]
    fn switched_off_it_leaves_nobody_alone() {
        let (latencies, now) = (Latencies::new(false), Instant::now());
        latencies.failed("a", now);
        assert!(latencies.is_usable("a", now));
    }
}
