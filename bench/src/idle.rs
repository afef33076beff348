//! What a broker costs that nobody asks anything.

use std::fmt::{self, Display, Formatter};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::process;

#[derive(Serialize)]
pub struct Idle {
    pub cpu_percent: f64,
    pub anonymous_mib: f64,
    pub resident_mib: f64,
}

/// CPU and memory over some seconds; `None` if there is no such process.
pub fn watch_idle(pid: u32, seconds: f64) -> Option<Idle> {
    let before = process::cpu_time_us(pid)?;
    let started = Instant::now();
    thread::sleep(Duration::from_secs_f64(seconds));
    let spent_us = process::cpu_time_us(pid)? - before;
    let memory = process::memory(pid)?;
    Some(Idle {
        cpu_percent: spent_us as f64 / 1e4 / started.elapsed().as_secs_f64(),
        anonymous_mib: memory.anonymous_kib as f64 / 1024.0,
        resident_mib: memory.resident_kib as f64 / 1024.0,
    })
}

impl Display for Idle {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        write!(
            out,
            "{:.2} % CPU, {:.0} MiB anonymous, {:.0} MiB resident",
            self.cpu_percent, self.anonymous_mib, self.resident_mib
        )
    }
}
