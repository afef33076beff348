//! `cold`: a topic of many GB is read from its first message with nothing of it in the page cache, and held against the
//! lower of two limits measured in the same run: how fast the disk is read from end to end, and how fast a topic is
//! read that lies in memory. Every message is checked; the broker's count of stalls must not grow. How often
//! the machine itself paused stands beside it.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::contender::{Contender, Orbit};
use crate::disk::{self, Throughput};
use crate::error::{Error, Result};
use crate::fill::{self, Filled};
use crate::hiccup::Meter;
use crate::load::{self, Lane, Live, Plan};
use crate::page_cache;
use crate::process;
use crate::progress::bar;
use crate::report::{Figures, write_json};

#[derive(Args)]
pub struct Cold {
    #[command(flatten)]
    orbit: Orbit,
    /// GB of log that are read
    #[arg(long, default_value_t = 10.0)]
    gb: f64,
    /// MB of log that are read from memory, again and again
    #[arg(long, default_value_t = 200.0)]
    memory_mb: f64,
    /// Connections that pull
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    readers: u16,
    /// Fail below 80 % of the lower limit, and when a core was held up
    #[arg(long)]
    strict: bool,
    /// Write the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    messages: u64,
    expected: u64,
    cold_mib_per_second: f64,
    memory_mib_per_second: f64,
    disk_mib_per_second: f64,
    /// Of the lower of both.
    share: f64,
    cpu_us_per_message: f64,
    /// What the broker made the disks read for what was consumed; `None` if the kernel does not tell.
    disk_read_share: Option<f64>,
    /// Over 10 ms, while it was read cold.
    stalls: u64,
    /// How often the machine itself kept a thread waiting as long, to judge the stalls by.
    machine_pauses: u64,
}

const SHARE_MIN: f64 = 0.8;
/// Less than this was read from the disk: it was not cold.
const DISK_READ_SHARE_MIN: f64 = 0.9;
const MEMORY_READING: Duration = Duration::from_secs(5);
/// Enough to know the disk's rate; the whole log would take as long as consuming it.
const DISK_BYTES_MAX: u64 = 4 << 30;

pub fn run(command: Cold) -> Result<()> {
    let line = bar("cold");
    line.enable_steady_tick(Duration::from_millis(200));
    let folder = command.orbit.folder()?;
    let (bytes, memory_bytes) = (command.gb * 1e9, command.memory_mb * 1e6);
    disk::demand_room(folder.path(), (bytes + memory_bytes) as u64)?;
    line.set_message("filling what is read cold");
    let contender = command.orbit.recipe()?.start(&folder.path().join("cold"))?;
    let cold = fill::make_topic(contender.broker, "Cold")?;
    let filled = fill::with_messages(contender.broker, &cold, fill::messages_of(bytes as u64))?;

    line.set_message("reading the disk");
    let mut disk = Throughput::default();
    let contender = contender.restart(|store| {
        page_cache::forget(store)?;
        let files = page_cache::files_under(&store.join("commitlog"))
            .map_err(Error::io("listing the log's files"))?;
        disk = disk::read_sequentially(&files, DISK_BYTES_MAX.min(bytes as u64))?;
        // Reading past the cache leaves nothing in it, but file systems without such reads do.
        page_cache::forget(store)
    })?;

    line.set_message("reading from memory");
    let memory = fill::make_topic(contender.broker, "Memory")?;
    let in_memory = fill::with_messages(
        contender.broker,
        &memory,
        fill::messages_of(memory_bytes as u64),
    )?;
    let before = from_memory(&contender, &memory, in_memory, &command)?;

    line.set_message("reading cold");
    let pid = contender.broker_pid();
    let stalls_before = contender.stalls();
    let read_before = process::disk_read_bytes(pid);
    let meter = Meter::start()?;
    let figures = read_once(&contender, &cold, filled, &command)?;
    let machine_pauses = meter.stop().long_pauses;
    let read_after = process::disk_read_bytes(pid);
    let stalls = contender.stalls() - stalls_before;
    let after = from_memory(&contender, &memory, in_memory, &command)?;
    line.finish_and_clear();
    contender.stop()?;

    let consumed = figures.consumed.as_ref().expect("the plan reads");
    let mib = consumed.mib_per_second * figures.window_s;
    let memory_mib_per_second = (before + after) / 2.0;
    let disk_mib_per_second = disk.mib_per_second();
    let report = Report {
        messages: consumed.counts.messages,
        expected: filled.messages,
        cold_mib_per_second: consumed.mib_per_second,
        memory_mib_per_second,
        disk_mib_per_second,
        share: consumed.mib_per_second / memory_mib_per_second.min(disk_mib_per_second),
        cpu_us_per_message: figures
            .server
            .as_ref()
            .map_or(0.0, |server| server.cpu_us_per_message),
        disk_read_share: read_after
            .zip(read_before)
            .map(|(after, before)| (after - before) as f64 / f64::from(1 << 20) / mib),
        stalls,
        machine_pauses,
    };
    println!("{report}");
    write_json(command.json.as_deref(), &report)?;
    report.judge(command.strict)
}

fn read_once(
    contender: &Contender,
    lanes: &[Lane],
    filled: Filled,
    command: &Cold,
) -> Result<Figures> {
    let readers = usize::from(command.readers);
    let plan = Plan {
        server_pid: Some(contender.broker_pid()),
        ..fill::reading(contender.broker, lanes, readers)
    };
    fill::checked(&load::run(plan, &Live::default())?, filled.refused)
}

/// MiB a second over as many passes as fit the time.
fn from_memory(
    contender: &Contender,
    lanes: &[Lane],
    filled: Filled,
    command: &Cold,
) -> Result<f64> {
    let (mut mib, mut seconds) = (0.0, 0.0);
    while seconds < MEMORY_READING.as_secs_f64() / 2.0 {
        let figures = read_once(contender, lanes, filled, command)?;
        let consumed = figures.consumed.as_ref().expect("the plan reads");
        mib += consumed.mib_per_second * figures.window_s;
        seconds += figures.window_s;
    }
    Ok(mib / seconds)
}

impl Report {
    fn judge(&self, strict: bool) -> Result<()> {
        let mut wrong = Vec::new();
        if self.messages < self.expected {
            wrong.push("messages are missing");
        }
        if strict && self.share < SHARE_MIN {
            wrong.push("less than 80 % of the lower limit");
        }
        if strict && self.stalls > 0 {
            wrong.push("a task held its core for more than 10 ms");
        }
        if strict
            && self
                .disk_read_share
                .is_some_and(|share| share < DISK_READ_SHARE_MIN)
        {
            wrong.push("it was not read from the disk");
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Error::Failed(wrong.join("; "))),
        }
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        writeln!(
            out,
            "cold       {:.0} MiB/s, {} of {} messages, all checked, {:.2} µs CPU a message",
            self.cold_mib_per_second, self.messages, self.expected, self.cpu_us_per_message
        )?;
        writeln!(
            out,
            "limits     {:.0} MiB/s the disk, {:.0} MiB/s from memory: {:.0} % of the lower (asked {:.0} %)",
            self.disk_mib_per_second,
            self.memory_mib_per_second,
            self.share * 100.0,
            SHARE_MIN * 100.0
        )?;
        write!(
            out,
            "broker     {} stalls over 10 ms ({} pauses of the machine), {} of what was consumed came from the disk",
            self.stalls,
            self.machine_pauses,
            self.disk_read_share
                .map_or("untold".into(), |share| format!("{:.0} %", share * 100.0)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(share: f64, stalls: u64) -> Report {
        Report {
            messages: 10,
            expected: 10,
            cold_mib_per_second: share * 100.0,
            memory_mib_per_second: 200.0,
            disk_mib_per_second: 100.0,
            share,
            cpu_us_per_message: 1.0,
            disk_read_share: Some(1.0),
            stalls,
            machine_pauses: 0,
        }
    }

    #[test]
    fn rate_and_stalls_are_asked_only_where_the_machine_is_ours() {
        assert!(report(0.85, 0).judge(true).is_ok());
        for slow in [report(0.7, 0), report(0.9, 1)] {
            assert!(slow.judge(true).is_err());
            assert!(slow.judge(false).is_ok());
        }
    }

    #[test]
    fn a_missing_message_is_wrong_on_any_machine() {
        let missing = Report {
            messages: 9,
            ..report(1.0, 0)
        };
        assert!(missing.judge(false).is_err());
    }
}
