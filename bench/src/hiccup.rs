//! A hiccup meter: one thread for each CPU that does nothing but sleep a millisecond by an absolute deadline and write
//! down how late it woke. What it sees no program on these CPUs is spared; a broker is held against it. Also `hiccup`,
//! the meter alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bench::wakeups::{self, PERIOD_NS};
use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::load::new_histogram;
use crate::process;
use crate::report::{Latency, write_json};

#[derive(Args)]
pub struct Hiccup {
    /// Seconds
    #[arg(long, short = 't', default_value_t = 10.0)]
    duration: f64,
    /// Write the figures to this file
    #[arg(long)]
    json: Option<std::path::PathBuf>,
}

/// As long as a task of OrbitMQ may hold its core.
const LONG_PAUSE_NS: u64 = 10_000_000;

/// Running until it is asked for what it saw.
pub struct Meter {
    stop: Arc<AtomicBool>,
    /// How late each deadline was met, in nanoseconds.
    threads: Vec<JoinHandle<Vec<u64>>>,
}

impl Meter {
    /// On every CPU that this process may use.
    pub fn start() -> Result<Meter> {
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |cpu: usize| {
            let stop = stop.clone();
            thread::Builder::new()
                .name(format!("hiccup-{cpu}"))
                .spawn(move || watch(cpu, &stop))
        };
        let threads = process::usable_cpus()
            .into_iter()
            .map(spawn)
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(Error::io("starting the hiccup meter"))?;
        Ok(Meter { stop, threads })
    }

    /// What all CPUs together saw.
    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut seen = Vec::new();
        for thread in self.threads {
            match thread.join() {
                Ok(late) => seen.push(late),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Seen {
            latency: Latency::of(&all(&seen)),
            long_pauses: seen.iter().map(|late| long_pauses(late)).sum(),
        }
    }
}

#[derive(Serialize)]
pub struct Seen {
    #[serde(flatten)]
    pub latency: Latency,
    /// How often a CPU kept its thread waiting for longer than a task may hold a core.
    pub long_pauses: u64,
}

/// A pause is over when lateness rises again.
fn long_pauses(late: &[u64]) -> u64 {
    let before = std::iter::once(0).chain(late.iter().copied());
    let began = before
        .zip(late)
        .filter(|&(before, &late)| late > LONG_PAUSE_NS && late > before);
    began.count() as u64
}

/// Every deadline on every CPU.
fn all(seen: &[Vec<u64>]) -> Histogram<u64> {
    let mut all = new_histogram();
    for &late in seen.iter().flatten() {
        all.saturating_record(late);
    }
    all
}

fn watch(cpu: usize, stop: &AtomicBool) -> Vec<u64> {
    let mut seen = Vec::new();
    wakeups::watch(cpu, stop, |due_ns, now_ns| {
        record(&mut seen, due_ns, now_ns)
    });
    seen
}

/// Enters this wake-up and all that came due while the thread slept.
fn record(seen: &mut Vec<u64>, due_ns: u64, now_ns: u64) {
    let due = (due_ns..=now_ns).step_by(PERIOD_NS as usize);
    seen.extend(due.map(|due_ns| now_ns - due_ns));
}

pub fn run(command: Hiccup) -> Result<()> {
    let meter = Meter::start()?;
    thread::sleep(Duration::from_secs_f64(command.duration));
    let seen = meter.stop();
    println!(
        "hiccups    {}, {} pauses over 10 ms",
        seen.latency, seen.long_pauses
    );
    write_json(command.json.as_deref(), &seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_sleep_counts_for_every_deadline_it_missed() {
        let mut seen = Vec::new();
        record(&mut seen, PERIOD_NS, PERIOD_NS * 5 + 10_000);
        assert_eq!(seen.len(), 5);
        assert_eq!((seen[0], seen[4]), (4 * PERIOD_NS + 10_000, 10_000));
    }

    #[test]
    fn the_deadlines_of_all_cpus_count() {
        let seen = all(&[vec![1_000, 2_000_000], vec![3_000_000]]);
        assert_eq!(seen.len(), 3);
        assert!(seen.min() <= 1_000 && seen.max() >= 3_000_000);
    }

    #[test]
    fn a_long_pause_is_counted_once() {
        let ms =
            |late: &[u64]| long_pauses(&late.iter().map(|ms| ms * PERIOD_NS).collect::<Vec<_>>());
        assert_eq!(ms(&[0, 9, 8, 7]), 0);
        assert_eq!(ms(&[12, 11, 10, 9, 0, 13, 12, 20, 19]), 3);
    }

    #[test]
    fn it_sees_about_one_deadline_a_millisecond_on_each_cpu() {
        let meter = Meter::start().expect("threads can be started");
        let began = wakeups::now_ns();
        while wakeups::now_ns() - began < 100 * PERIOD_NS {
            std::hint::spin_loop();
        }
        let seen = meter.stop().latency;
        assert!(seen.count > 0 && seen.max_us >= seen.p50_us);
    }
}
