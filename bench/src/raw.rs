//! `raw`: what the disk allows a log that makes every batch durable, with nothing in between. Writes commits with
//! O_DIRECT and O_DSYNC through a ring, by the rule of the partial last block (`tail`), and counts them. A broker's
//! SYNC_FLUSH is held against this, with the broker's own average batch and in the same run.

mod tail;

use std::collections::VecDeque;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use self::tail::{Piece, Tail};
use crate::disk::{self, Space, open_direct};
use crate::error::{Error, Result};
use crate::load::Latencies;
use crate::payload::Clock;
use crate::report::{Latency, write_json};
use crate::ring::{Aligned, BLOCK_BYTES, Ring};

#[derive(Args)]
pub struct Raw {
    /// A folder on the disk in question
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Size of the file that is written, in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(16..))]
    file_mib: u64,
    #[arg(long, value_enum, default_value = "written")]
    space: Space,
    /// Bytes of a message in the log
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=4 << 20))]
    message: u32,
    /// Messages in one commit
    #[arg(long, default_value_t = 64.0, value_parser = at_least_one)]
    per_commit: f64,
    /// Commits under way at once; all that are named are measured
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    pipeline: Vec<u8>,
    /// Seconds of each measured window
    #[arg(long, short = 't', default_value_t = 5.0)]
    duration: f64,
    /// Write the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One thing to measure.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub file_bytes: u64,
    pub space: Space,
    pub commit_bytes: usize,
    pub messages_per_commit: f64,
    pub duration: Duration,
}

#[derive(Clone, Debug, Serialize)]
pub struct Limit {
    pub space: Space,
    pub pipeline: u8,
    pub commit_bytes: usize,
    pub messages_per_commit: f64,
    pub commits_per_second: f64,
    pub messages_per_second: f64,
    pub mib_per_second: f64,
    pub latency: Latency,
}

const PIPELINE_MAX: u8 = 4;
const COMMIT_BYTES_MAX: usize = 16 << 20;
const FILE_NAME: &str = "orbit-bench-raw";
const WARMUP_COMMITS: u64 = 50;

fn at_least_one(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(count) if (1.0..=1e6).contains(&count) => Ok(count),
        _ => Err("a number from 1 to 1000000".into()),
    }
}

pub fn run(command: Raw) -> Result<()> {
    let file_bytes = command.file_mib << 20;
    disk::demand_room(&command.dir, file_bytes)?;
    let settings = Settings {
        file_bytes,
        space: command.space,
        commit_bytes: (f64::from(command.message) * command.per_commit).round() as usize,
        messages_per_commit: command.per_commit,
        duration: Duration::from_secs_f64(command.duration),
    };
    let limits = measure(&command.dir, &settings, &command.pipeline)?;
    for limit in &limits {
        println!("{limit}");
    }
    write_json(command.json.as_deref(), &limits)
}

/// The best that any of these many commits under way reach: the limit itself.
pub fn best_of(folder: &Path, settings: &Settings, pipelines: &[u8]) -> Result<Limit> {
    let limits = measure(folder, settings, pipelines)?;
    let by_rate = |a: &Limit, b: &Limit| a.commits_per_second.total_cmp(&b.commits_per_second);
    limits
        .into_iter()
        .max_by(by_rate)
        .ok_or_else(|| Error::Failed("no pipeline to measure".into()))
}

/// One after the other over one file; space that was never written is made anew for each.
pub fn measure(folder: &Path, settings: &Settings, pipelines: &[u8]) -> Result<Vec<Limit>> {
    let may_be = |pipeline: &u8| (1..=PIPELINE_MAX).contains(pipeline);
    if !pipelines.iter().all(may_be) || !(1..=COMMIT_BYTES_MAX).contains(&settings.commit_bytes) {
        return Err(Error::Failed(format!(
            "raw writes take 1 to {PIPELINE_MAX} commits under way of at most {} MiB",
            COMMIT_BYTES_MAX >> 20
        )));
    }
    let mut scratch = None;
    let mut limits = Vec::new();
    for &pipeline in pipelines {
        if scratch.is_none() || settings.space == Space::Unwritten {
            drop(scratch.take());
            let fresh = Scratch(folder.join(FILE_NAME));
            disk::prepare(&fresh.0, settings.file_bytes, settings.space)?;
            scratch = Some(fresh);
        }
        let path = &scratch.as_ref().expect("just made").0;
        limits.push(measure_one(path, settings, pipeline)?);
    }
    Ok(limits)
}

fn measure_one(path: &Path, settings: &Settings, pipeline: u8) -> Result<Limit> {
    let file = open_direct(path, true).map_err(Error::io("opening the raw file"))?;
    let buffer = Aligned::random(settings.commit_bytes + 2 * BLOCK_BYTES);
    // Each commit under way has a shared block and the rest.
    let ring =
        Ring::new(2 * u32::from(pipeline), vec![buffer]).map_err(Error::io("setting up a ring"))?;
    Writer {
        file: &file,
        ring,
        pipeline,
        tail: Tail::new(settings.file_bytes),
        clock: Clock::start(),
        began_ns: VecDeque::new(),
        latencies: Latencies::default(),
        commits: 0,
    }
    .run(settings)
    .map_err(Error::io("writing raw commits"))
}

/// Removed when it goes.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

struct Writer<'a> {
    file: &'a std::fs::File,
    ring: Ring,
    pipeline: u8,
    tail: Tail,
    clock: Clock,
    /// When each commit under way was started.
    began_ns: VecDeque<u64>,
    latencies: Latencies,
    commits: u64,
}

impl Writer<'_> {
    fn run(mut self, settings: &Settings) -> std::io::Result<Limit> {
        // Space that was never written is written once and not again.
        let may_wrap = settings.space == Space::Written;
        while self.commits < WARMUP_COMMITS {
            self.turn(settings)?;
        }
        self.commits = 0;
        let began = Instant::now();
        self.latencies.open(self.clock.now_ns());
        while began.elapsed() < settings.duration
            && (may_wrap || !self.tail.would_wrap(settings.commit_bytes))
        {
            self.turn(settings)?;
        }
        let (commits, took) = (self.commits, began.elapsed());
        while self.tail.under_way() > 0 {
            self.take_one()?;
        }
        let commits_per_second = commits as f64 / took.as_secs_f64();
        Ok(Limit {
            space: settings.space,
            pipeline: self.pipeline,
            commit_bytes: settings.commit_bytes,
            messages_per_commit: settings.messages_per_commit,
            commits_per_second,
            messages_per_second: commits_per_second * settings.messages_per_commit,
            mib_per_second: commits_per_second * settings.commit_bytes as f64 / f64::from(1 << 20),
            latency: Latency::of(&self.latencies.histogram),
        })
    }

    /// Starts what may be under way and takes one answer.
    fn turn(&mut self, settings: &Settings) -> std::io::Result<()> {
        while self.tail.under_way() < usize::from(self.pipeline) {
            self.began_ns.push_back(self.clock.now_ns());
            if let Some(piece) = self.tail.start(settings.commit_bytes) {
                self.write(piece)?;
            }
        }
        self.take_one()
    }

    fn take_one(&mut self) -> std::io::Result<()> {
        let done = self.ring.next()?;
        let (next, complete) = self.tail.ended(done.token);
        if let Some(piece) = next {
            self.write(piece)?;
            self.ring.submit()?;
        }
        let now_ns = self.clock.now_ns();
        for began_ns in self.began_ns.drain(..complete) {
            self.latencies.record(began_ns, now_ns);
        }
        self.commits += complete as u64;
        Ok(())
    }

    fn write(&mut self, piece: Piece) -> std::io::Result<()> {
        self.ring
            .write(self.file, 0, piece.bytes, piece.at, piece.token)
    }
}

impl Display for Limit {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        write!(
            out,
            "raw O_DSYNC  {:?} space, {} under way, {} bytes a commit: {:.0} commits/s, {:.0} messages/s ({:.0} MiB/s), {}",
            self.space,
            self.pipeline,
            self.commit_bytes,
            self.commits_per_second,
            self.messages_per_second,
            self.mib_per_second,
            self.latency
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_a_real_file_is_measured_and_the_file_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = Settings {
            file_bytes: 16 << 20,
            space: Space::Written,
            commit_bytes: 5000,
            messages_per_commit: 5.0,
            duration: Duration::from_millis(50),
        };
        let can = open_direct(&folder.path().join(FILE_NAME), true).is_ok()
            && Ring::new(1, Vec::new()).is_ok();
        if !can {
            return; // O_DIRECT or io_uring is not to be had where this runs
        }
        let limit = best_of(folder.path(), &settings, &[1, 2]).expect("it can be written");
        let expected = limit.commits_per_second * 5.0;
        assert!(limit.latency.count > 0 && limit.messages_per_second == expected);
        assert!(!folder.path().join(FILE_NAME).exists());
    }

    #[test]
    fn more_commits_under_way_than_are_meant_are_refused() {
        let settings = Settings {
            file_bytes: 16 << 20,
            space: Space::Written,
            commit_bytes: 4096,
            messages_per_commit: 4.0,
            duration: Duration::ZERO,
        };
        assert!(measure(Path::new("."), &settings, &[1, 9]).is_err());
    }
}
