//! `disk-full`: a store on a small disk of its own is filled until the broker refuses, is read meanwhile, gets room again
//! and must accept within seconds; first by the limits of the configuration, then by a disk that has no byte left. In the
//! end the store is verified offline, opened once more, and every acknowledged message must lie where it was
//! acknowledged.

use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::fs::{FallocateFlags, fallocate};
use serde::Serialize;

use crate::acknowledged::{self, Acknowledged, lock};
use crate::commands::plan_at;
use crate::contender::{Contender, Orbit};
use crate::disk;
use crate::error::{Error, Result};
use crate::fill;
use crate::load::{self, Lane, Live, Plan, Refusals, produce};
use crate::options::{Sending, Window};
use crate::probe::Probe;
use crate::report::write_json;
use crate::wire::{Encoding, response};

#[derive(Args)]
pub struct DiskFull {
    #[command(flatten)]
    orbit: Orbit,
    /// The disk may be this large at most: it is going to be full
    #[arg(long, default_value_t = 4.0)]
    disk_gb_max: f64,
    /// Percent of the disk that is taken by something else until room is needed
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u8).range(5..=60))]
    ballast: u8,
    /// Seconds after which sends must be accepted once there is room
    #[arg(long, default_value_t = 10.0)]
    accepts_within: f64,
    /// Write the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    /// By the limits of the configuration.
    by_limit: Full,
    /// By a disk without a free byte.
    by_disk: Full,
    acknowledged: u64,
    lost: u64,
    changed: u64,
    given_twice: u64,
    damaged: u64,
}

#[derive(Serialize)]
struct Full {
    /// From the beginning of the load to the first moment that nothing was accepted.
    refused_after_s: f64,
    used_percent: f64,
    refusals: Refusals,
    /// Messages that were read while everything was refused.
    read_meanwhile: u64,
    accepted_after_s: f64,
}

/// How long the load may go on before it must have been refused.
const REFUSED_LIMIT: Duration = Duration::from_secs(120);
/// One step of the load, after which is looked whether anything was accepted.
const STEP: Duration = Duration::from_millis(300);
const ACCEPTED_LIMIT: Duration = Duration::from_secs(60);
const BALLAST_NAME: &str = "ballast";

struct Run<'a> {
    command: &'a DiskFull,
    folder: &'a Path,
    lanes: Vec<Lane>,
    acknowledged: Arc<Mutex<Acknowledged>>,
}

pub fn run(command: DiskFull) -> Result<()> {
    let folder = command.orbit.folder()?;
    let size = total_bytes(folder.path())?;
    if size as f64 > command.disk_gb_max * 1e9 {
        return Err(Error::Failed(format!(
            "{} lies on a disk of {:.0} GB, which this would fill: give a small one, or --disk-gb-max",
            folder.path().display(),
            size as f64 / 1e9
        )));
    }
    let ballast = Ballast::taking(folder.path(), size / 100 * u64::from(command.ballast))?;
    let contender = command.orbit.recipe()?.start(&folder.path().join("full"))?;
    let lanes = fill::make_topic(contender.broker, "Full")?;
    let run = Run {
        command: &command,
        folder: folder.path(),
        acknowledged: Arc::new(Mutex::new(Acknowledged::new(lanes.len()))),
        lanes,
    };
    let with_log = |error| {
        let log = contender.log_tail();
        Error::Failed(format!("{error}; its log ends with:\n{log}"))
    };
    let by_limit = run.fill_and_free(&contender, ballast).map_err(with_log)?;
    println!("by limit   {by_limit}");
    let ballast = Ballast::taking(folder.path(), disk::free_bytes(folder.path())?)?;
    let by_disk = run.fill_and_free(&contender, ballast).map_err(with_log)?;
    println!("by disk    {by_disk}");

    let broker = command.orbit.broker()?;
    let contender = contender.restart(|store| verify(&broker, store))?;
    println!("verified   offline, every record and every index");
    let (verdict, counts) =
        acknowledged::read_back(contender.broker, &run.lanes, &run.acknowledged)?;
    contender.stop()?;
    let report = Report {
        by_limit,
        by_disk,
        acknowledged: lock(&run.acknowledged).count(),
        lost: verdict.lost,
        changed: verdict.changed,
        given_twice: verdict.given_twice,
        damaged: counts.damaged,
    };
    println!(
        "messages   {} acknowledged: {} lost, {} changed, {} offsets given twice, {} damaged",
        report.acknowledged, report.lost, report.changed, report.given_twice, report.damaged
    );
    write_json(command.json.as_deref(), &report)?;
    match report.lost + report.changed + report.given_twice + report.damaged {
        0 => Ok(()),
        _ => Err(Error::Failed(
            "acknowledged messages are not where they were".into(),
        )),
    }
}

impl Run<'_> {
    fn fill_and_free(&self, contender: &Contender, ballast: Ballast) -> Result<Full> {
        let began = Instant::now();
        let refusals = self.load_until_refused(contender)?;
        let refused_after_s = began.elapsed().as_secs_f64();
        for (code, (_, remark)) in &refusals.0 {
            if *code != response::SERVICE_NOT_AVAILABLE || !remark.contains("disk") {
                return Err(Error::Failed(format!(
                    "a full disk was told as code {code}: {remark}"
                )));
            }
        }
        let total = total_bytes(self.folder)? as f64;
        let used_percent = 100.0 * (1.0 - disk::free_bytes(self.folder)? as f64 / total);
        let (verdict, counts) =
            acknowledged::read_back(contender.broker, &self.lanes, &self.acknowledged)?;
        if verdict.lost + verdict.changed + counts.damaged > 0 {
            return Err(Error::Failed(format!(
                "read while the disk was full: {verdict:?}, {} damaged",
                counts.damaged
            )));
        }
        let mut probe = Probe::new(contender.broker, &self.lanes[0], fill::BODY_BYTES);
        if probe.send().is_ok() {
            return Err(Error::Failed("a full disk accepted a message".into()));
        }
        drop(ballast);
        let freed = Instant::now();
        let ack = probe.until_accepted(freed + ACCEPTED_LIMIT)?;
        let accepted_after_s = freed.elapsed().as_secs_f64();
        lock(&self.acknowledged).acknowledge(ack);
        if accepted_after_s > self.command.accepts_within {
            return Err(Error::Failed(format!(
                "accepted only {accepted_after_s:.1} s after there was room"
            )));
        }
        Ok(Full {
            refused_after_s,
            used_percent,
            refusals,
            read_meanwhile: counts.messages,
            accepted_after_s,
        })
    }

    /// Loads until a whole step has passed without a message accepted.
    fn load_until_refused(&self, contender: &Contender) -> Result<Refusals> {
        let deadline = Instant::now() + REFUSED_LIMIT;
        loop {
            let record = self.acknowledged.clone();
            let window = Window {
                duration: STEP.as_secs_f64(),
                warmup: 0.0,
            };
            // Refusals come at once; a rate keeps them from being millions.
            let sending = Sending {
                connections: 4,
                depth: 64,
                size: fill::BODY_BYTES,
                batch: 1,
                rate: Some(50_000.0),
            };
            let plan = Plan {
                produce: Some(sending.settings(Encoding::Json)),
                recorder: Some(Box::new(move |ack: produce::Ack| {
                    lock(&record).acknowledge(ack)
                })),
                ..plan_at(contender.broker, self.lanes.clone(), &window)
            };
            let sent = load::run(plan, &Live::default())?
                .sent
                .expect("the plan sends");
            if sent.messages_total == 0 && sent.refused.total() > 0 {
                return Ok(sent.refused);
            }
            if Instant::now() > deadline {
                return Err(Error::Failed(format!(
                    "not refused after {REFUSED_LIMIT:?} of load"
                )));
            }
            thread::yield_now();
        }
    }
}

fn total_bytes(folder: &Path) -> Result<u64> {
    let failed = || Error::io(format!("asking for the size of {}", folder.display()));
    let disk = rustix::fs::statvfs(folder).map_err(|error| failed()(error.into()))?;
    Ok(disk.f_blocks * disk.f_frsize)
}

/// Room that something else takes until it is dropped.
struct Ballast(PathBuf);

impl Ballast {
    fn taking(folder: &Path, bytes: u64) -> Result<Ballast> {
        let ballast = Ballast(folder.join(BALLAST_NAME));
        let file = File::create(&ballast.0).map_err(Error::io("making the ballast"))?;
        // The last blocks may go to the file system itself.
        let mut left = bytes;
        let mut at = 0;
        while left >= 4096 {
            match fallocate(&file, FallocateFlags::empty(), at, left) {
                Ok(()) => {
                    at += left;
                    left = disk::free_bytes(folder)?.min(bytes - at);
                }
                Err(rustix::io::Errno::NOSPC) => left /= 2,
                Err(error) => return Err(Error::io("making the ballast")(error.into())),
            }
        }
        Ok(ballast)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn verify(broker: &Path, store: &Path) -> Result<()> {
    let checked = Command::new(broker)
        .arg("check")
        .arg("--store")
        .arg(store)
        .output()
        .map_err(Error::io("verifying the store"))?;
    match checked.status.success() {
        true => Ok(()),
        false => Err(Error::Failed(format!(
            "the store does not verify:\n{}{}",
            String::from_utf8_lossy(&checked.stdout),
            String::from_utf8_lossy(&checked.stderr)
        ))),
    }
}

impl Display for Full {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        write!(
            out,
            "refused after {:.1} s at {:.1} % used; {} messages read meanwhile; accepted {:.2} s after there was room",
            self.refused_after_s, self.used_percent, self.read_meanwhile, self.accepted_after_s
        )?;
        for (code, (_, remark)) in &self.refusals.0 {
            write!(out, "\n           code {code}: {remark}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballast_takes_room_and_gives_it_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(BALLAST_NAME);
        let ballast = Ballast::taking(folder.path(), 1 << 20).expect("room for a MiB");
        assert_eq!(
            std::fs::metadata(&path).expect("it is there").len(),
            1 << 20
        );
        drop(ballast);
        assert!(!path.exists());
    }
}
