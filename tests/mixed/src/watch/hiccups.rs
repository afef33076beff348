//! What the machine does by itself: a thread for each CPU that only sleeps, a millisecond each time, and notes how late it
//! woke. A stall of the broker at a moment when these saw one as well is the machine's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bench::process::usable_cpus;
use bench::wakeups;

use crate::clock::now_ms;
use crate::error::{Error, Result};

pub struct Hiccups {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

/// The longest of each second, in milliseconds, of all CPUs.
struct Seen {
    from_ms: i64,
    seconds: Vec<AtomicU32>,
    stop: AtomicBool,
}

impl Hiccups {
    /// Watches for at most so long.
    pub fn watch(limit: Duration) -> Result<Hiccups> {
        let mut hiccups = Hiccups {
            seen: Arc::new(Seen::new(now_ms(), limit)),
            threads: Vec::new(),
        };
        for cpu in usable_cpus() {
            let seen = hiccups.seen.clone();
            let thread = thread::Builder::new()
                .name(format!("hiccups-{cpu}"))
                .spawn(move || watch(cpu, &seen))
                .map_err(Error::io("starting a hiccup meter"))?;
            hiccups.threads.push(thread);
        }
        Ok(hiccups)
    }

    /// The longest in the seconds that a span of time touches.
    pub fn longest_ms(&self, from_ms: i64, to_ms: i64) -> u32 {
        self.seen.longest_ms(from_ms, to_ms)
    }

    /// How many seconds had one this long.
    pub fn seconds_with(&self, at_least_ms: u32) -> usize {
        let long = |second: &&AtomicU32| second.load(Ordering::Relaxed) >= at_least_ms;
        self.seen.seconds.iter().filter(long).count()
    }
}

impl Drop for Hiccups {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Nothing in it panics, and nobody could do anything about it here.
            let _ = thread.join();
        }
    }
}

impl Seen {
    fn new(from_ms: i64, limit: Duration) -> Seen {
        Seen {
            from_ms,
            seconds: (0..=limit.as_secs()).map(|_| AtomicU32::new(0)).collect(),
            stop: AtomicBool::new(false),
        }
    }

    fn place(&self, at_ms: i64) -> usize {
        (at_ms - self.from_ms).max(0) as usize / 1_000
    }

    /// A sleep that began at `from_ms` and ended at `to_ms`.
    fn note(&self, from_ms: i64, to_ms: i64, late_ms: u32) {
        for place in self.place(from_ms)..=self.place(to_ms) {
            if let Some(second) = self.seconds.get(place) {
                second.fetch_max(late_ms, Ordering::Relaxed);
            }
        }
    }

    fn longest_ms(&self, from_ms: i64, to_ms: i64) -> u32 {
        let places = self.place(from_ms)..=self.place(to_ms);
        let seconds = places.filter_map(|place| self.seconds.get(place));
        let longest = seconds.map(|second| second.load(Ordering::Relaxed)).max();
        longest.unwrap_or(0)
    }
}

fn watch(cpu: usize, seen: &Seen) {
    wakeups::watch(cpu, &seen.stop, |due_ns, now_ns| {
        let late_ms = (now_ns.saturating_sub(due_ns) / 1_000_000) as u32;
        if late_ms > 0 {
            let to_ms = now_ms();
            seen.note(to_ms - i64::from(late_ms), to_ms, late_ms);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hiccup_counts_in_every_second_that_it_touches() {
        let seen = Seen::new(10_000, Duration::from_secs(10));
        seen.note(11_990, 12_020, 30);
        seen.note(12_500, 12_505, 5);
        assert_eq!(seen.longest_ms(11_000, 11_999), 30);
        assert_eq!(seen.longest_ms(12_900, 12_950), 30);
        assert_eq!(seen.longest_ms(13_000, 15_000), 0);
        assert_eq!(seen.longest_ms(0, 100_000), 30);
        seen.note(1_000_000, 1_000_010, 10);
    }
}
