//! Two contenders measured in interleaved rounds, case by case. Whoever is not measured is stopped by SIGSTOP, since an
//! idle JVM costs CPU time too, and dirty pages are written out between windows, so that nobody pays for the other's.

use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;

use super::cases::{self, Case, Measured, Measuring};
use crate::contender::Contender;
use crate::error::Result;

/// One case on one broker in one round.
#[derive(Serialize)]
pub struct Sample {
    pub round: u32,
    pub broker: &'static str,
    pub case: Case,
    pub measured: Measured,
}

pub struct Rounds<'a> {
    /// Both paused.
    pub contenders: &'a [Contender; 2],
    pub cases: &'a [Case],
    pub count: u32,
    pub measuring: Measuring,
}

/// Time for queues and caches to come to rest between two windows.
const REST: Duration = Duration::from_millis(500);

impl Rounds<'_> {
    /// `beside` is called after every measurement, with both paused.
    pub fn run(
        &self,
        line: &ProgressBar,
        mut beside: impl FnMut(&Sample) -> Result<()>,
    ) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for round in 0..self.count {
            for &case in self.cases {
                // Each goes first as often as the other.
                for turn in 0..2 {
                    let contender = &self.contenders[((round + turn) % 2) as usize];
                    line.set_message(format!(
                        "round {} of {}: {case:?} on {}",
                        round + 1,
                        self.count,
                        contender.name
                    ));
                    let sample = Sample {
                        round,
                        broker: contender.name,
                        case,
                        measured: self.measure(contender, case, round)?,
                    };
                    beside(&sample)?;
                    samples.push(sample);
                }
            }
        }
        Ok(samples)
    }

    fn measure(&self, contender: &Contender, case: Case, round: u32) -> Result<Measured> {
        contender.resume()?;
        // Nobody pays for what the other has left in the page cache.
        rustix::fs::sync();
        thread::sleep(REST);
        let measured = cases::run(contender, case, &format!("round-{round}"), self.measuring)?;
        contender.pause()?;
        Ok(measured)
    }
}

/// What each further case gets of the warm-up, of what loading gets.
const SHARE_OF_OTHERS: f64 = 0.125;

/// Load for a paused JVM to compile under; what time is left goes to the other cases.
pub fn warm_up(
    contender: &Contender,
    seconds: f64,
    others: &[Case],
    measuring: Measuring,
) -> Result<()> {
    contender.resume()?;
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    let share = 1.0 / (1.0 + others.len() as f64 * SHARE_OF_OTHERS);
    cases::load(contender, measuring, seconds * share)?;
    for &case in others {
        if Instant::now() < deadline {
            cases::run(contender, case, "warm-up", measuring)?;
        }
    }
    contender.pause()
}
