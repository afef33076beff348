//! `recovery`: how long a broker that was killed under load takes from its start to the first message it accepts, by how
//! much is stored; and the same when memory is lost as well, as a power cut does: then it may take as long as the disk
//! takes for what has to be read again, and a second.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::broker_info::BrokerInfo;
use crate::commands::plan_at;
use crate::compare::table::median;
use crate::contender::{Contender, Orbit};
use crate::disk;
use crate::error::{Error, Result};
use crate::fill;
use crate::load::{Lane, Live, Plan};
use crate::options::{Sending, Window};
use crate::page_cache;
use crate::probe::Probe;
use crate::progress::{self, bar};
use crate::report::write_json;
use crate::wire::Encoding;

#[derive(Args)]
pub struct Recovery {
    #[command(flatten)]
    orbit: Orbit,
    /// GB of log at which it is killed, in rising order
    #[arg(long, value_delimiter = ',', default_values_t = [3.0, 30.0])]
    gb: Vec<f64>,
    /// Kills at each size
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    kills: u32,
    /// Kills with the loss of all memory at each size
    #[arg(long, default_value_t = 3)]
    power_cuts: u32,
    /// Seconds of full load before each kill
    #[arg(long, default_value_t = 2.0)]
    load: f64,
    /// Fail when a restart takes longer than it may
    #[arg(long)]
    strict: bool,
    /// Write the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Stage {
    gb: f64,
    kills: Vec<Restart>,
    power_cuts: Vec<Restart>,
}

#[derive(Clone, Copy, Serialize)]
struct Restart {
    /// From starting the process to the first accepted message.
    ready_ms: f64,
    /// Of the log, as the broker tells.
    reread_mib: Option<f64>,
    /// What the disk gives, measured right before the start; only where nothing of the log was in memory.
    disk_mib_per_second: Option<f64>,
}

const READY_LIMIT: Duration = Duration::from_secs(120);
const KILL_MS_MAX: f64 = 1_000.0;
/// A restart with more stored counts as no longer if it is so near to the one with less.
const SLACK_MS: f64 = 100.0;
const DISK_BYTES_MAX: u64 = 256 << 20;

pub fn run(command: Recovery) -> Result<()> {
    let line = bar("recovery");
    line.enable_steady_tick(Duration::from_millis(200));
    let folder = command.orbit.folder()?;
    let most_gb = command.gb.iter().copied().fold(0.0, f64::max);
    disk::demand_room(folder.path(), (most_gb * 1e9) as u64 + (8 << 30))?;
    let mut contender = command
        .orbit
        .recipe()?
        .start(&folder.path().join("recovery"))?;
    let lanes = fill::make_topic(contender.broker, "Recovery")?;
    let mut stages = Vec::new();
    for &gb in &command.gb {
        line.set_message(format!("filling up to {gb} GB"));
        let missing = (gb * 1e9) as u64;
        let missing = missing.saturating_sub(stored_bytes(&contender)?);
        fill::with_messages(contender.broker, &lanes, fill::messages_of(missing))?;
        let mut stage = Stage {
            gb,
            kills: Vec::new(),
            power_cuts: Vec::new(),
        };
        for _ in 0..command.kills {
            line.set_message(format!("{gb} GB: killing it under load"));
            let restart;
            (contender, restart) = kill_once(contender, &lanes, &command, false)?;
            stage.kills.push(restart);
        }
        for _ in 0..command.power_cuts {
            line.set_message(format!("{gb} GB: cutting its power under load"));
            let restart;
            (contender, restart) = kill_once(contender, &lanes, &command, true)?;
            stage.power_cuts.push(restart);
        }
        println!("{stage}");
        stages.push(stage);
    }
    contender.stop()?;
    line.finish_and_clear();
    write_json(command.json.as_deref(), &stages)?;
    match command.strict {
        true => judge(&stages),
        false => Ok(()),
    }
}

fn stored_bytes(contender: &Contender) -> Result<u64> {
    let told = BrokerInfo::of(contender.broker)?;
    let end = |key| told.number(key).unwrap_or(0.0) as u64;
    Ok(end("commitLogMaxOffset").saturating_sub(end("commitLogMinOffset")))
}

fn kill_once(
    mut contender: Contender,
    lanes: &[Lane],
    command: &Recovery,
    power_cut: bool,
) -> Result<(Contender, Restart)> {
    load_and_kill(&mut contender, lanes, Duration::from_secs_f64(command.load))?;
    let mut disk_mib_per_second = None;
    if power_cut {
        contender.lose_memory()?;
        let read = disk::read_sequentially(&log_files(&contender)?, DISK_BYTES_MAX)?;
        disk_mib_per_second = Some(read.mib_per_second());
    }
    let mut probe = Probe::new(contender.broker, &lanes[0], fill::BODY_BYTES);
    let began = Instant::now();
    let contender = contender.start_again()?;
    let accepted = probe.until_accepted(began + READY_LIMIT);
    let ready_ms = began.elapsed().as_secs_f64() * 1e3;
    if let Err(error) = accepted {
        let log = contender.log_tail();
        return Err(Error::Failed(format!("{error}; its log ends with:\n{log}")));
    }
    let restart = Restart {
        ready_ms,
        reread_mib: contender
            .reread_bytes()
            .map(|bytes| bytes / f64::from(1 << 20)),
        disk_mib_per_second,
    };
    Ok((contender, restart))
}

/// Full load, SIGKILL, and nothing acknowledged but what the generator saw acknowledged.
fn load_and_kill(contender: &mut Contender, lanes: &[Lane], load: Duration) -> Result<()> {
    let sending = Sending {
        connections: 16,
        depth: 32,
        size: fill::BODY_BYTES,
        batch: 1,
        rate: None,
    };
    let window = Window {
        duration: (load + READY_LIMIT).as_secs_f64(),
        warmup: 0.0,
    };
    let plan = Plan {
        produce: Some(sending.settings(Encoding::Json)),
        may_disconnect: true,
        ..plan_at(contender.broker, lanes.to_vec(), &window)
    };
    let generator = progress::start(plan, Arc::new(Live::default()))?;
    thread::sleep(load);
    contender.kill()?;
    progress::join(generator).map(drop)
}

/// Oldest first: the newest is mostly room that was never written, which no disk has to be asked for.
fn log_files(contender: &Contender) -> Result<Vec<PathBuf>> {
    let files = page_cache::files_under(&contender.store().join("commitlog"));
    files.map_err(Error::io("listing the log's files"))
}

impl Restart {
    /// How long it may take after a power cut; `None` if the broker does not tell what it read again.
    fn allowed_ms(&self) -> Option<f64> {
        let seconds = self.reread_mib? / self.disk_mib_per_second?;
        Some(seconds * 1e3 + 1_000.0)
    }
}

fn ready_ms(restarts: &[Restart]) -> Option<f64> {
    median(restarts.iter().map(|restart| restart.ready_ms).collect())
}

fn slowest_ms(restarts: &[Restart]) -> f64 {
    restarts
        .iter()
        .map(|restart| restart.ready_ms)
        .fold(0.0, f64::max)
}

fn judge(stages: &[Stage]) -> Result<()> {
    let mut wrong = Vec::new();
    for stage in stages {
        if slowest_ms(&stage.kills) > KILL_MS_MAX {
            wrong.push(format!("more than 1 s after a kill with {} GB", stage.gb));
        }
        for cut in &stage.power_cuts {
            match cut.allowed_ms() {
                Some(allowed) if cut.ready_ms <= allowed => {}
                Some(allowed) => wrong.push(format!(
                    "{:.0} ms after a power cut with {} GB, {allowed:.0} ms allowed",
                    cut.ready_ms, stage.gb
                )),
                None => wrong.push("the broker does not tell what it read again".into()),
            }
        }
    }
    let by_size = stages.first().zip(stages.last());
    if let Some((Some(least), Some(most))) =
        by_size.map(|(first, last)| (ready_ms(&first.kills), ready_ms(&last.kills)))
        && most > least + SLACK_MS
    {
        wrong.push(format!(
            "{most:.0} ms with most stored, {least:.0} ms with least"
        ));
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Error::Failed(wrong.join("; "))),
    }
}

impl Display for Stage {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        let median_of = |restarts| ready_ms(restarts).unwrap_or(0.0);
        write!(
            out,
            "{:>5} GB   {} kills: {:.0} ms to the first accepted message, slowest {:.0} ms",
            self.gb,
            self.kills.len(),
            median_of(&self.kills),
            slowest_ms(&self.kills)
        )?;
        for cut in &self.power_cuts {
            let untold = || "untold".to_owned();
            write!(
                out,
                "\n           power cut: {:.0} ms, allowed {} ms ({} MiB read again, disk {} MiB/s)",
                cut.ready_ms,
                cut.allowed_ms()
                    .map_or_else(untold, |ms| format!("{ms:.0}")),
                cut.reread_mib
                    .map_or_else(untold, |mib| format!("{mib:.0}")),
                cut.disk_mib_per_second
                    .map_or_else(untold, |rate| format!("{rate:.0}")),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(gb: f64, kill_ms: f64, cut_ms: f64) -> Stage {
        let restart = |ready_ms| Restart {
            ready_ms,
            reread_mib: Some(100.0),
            disk_mib_per_second: Some(1_000.0),
        };
        Stage {
            gb,
            kills: vec![restart(kill_ms)],
            power_cuts: vec![restart(cut_ms)],
        }
    }

    #[test]
    fn a_power_cut_may_cost_the_reading_and_a_second() {
        assert_eq!(
            stage(3.0, 1.0, 1.0).power_cuts[0].allowed_ms(),
            Some(1_100.0)
        );
        assert!(judge(&[stage(3.0, 900.0, 1_090.0)]).is_ok());
        assert!(judge(&[stage(3.0, 900.0, 1_110.0)]).is_err());
    }

    #[test]
    fn more_stored_must_not_take_longer_and_a_kill_no_more_than_a_second() {
        assert!(judge(&[stage(3.0, 300.0, 0.0), stage(30.0, 390.0, 0.0)]).is_ok());
        assert!(judge(&[stage(3.0, 300.0, 0.0), stage(30.0, 410.0, 0.0)]).is_err());
        assert!(judge(&[stage(3.0, 1_001.0, 0.0)]).is_err());
    }
}
