//! `compare`: OrbitMQ and the real Apache RocketMQ side by side on this machine, driven by the same generator. Rounds
//! are interleaved, case by case; whoever is not measured is stopped by SIGSTOP, since an idle JVM costs CPU time
//! too, and dirty pages are written out between windows, so that nobody pays for the other's. Ratios of medians are
//! what holds on a noisy machine.

mod cases;
mod contender;
mod page_cache;
mod table;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use self::cases::{Case, Measured};
use self::contender::Contender;
use self::table::Table;
use crate::error::{Error, Result};
use crate::progress::bar;
use crate::report::write_json;

#[derive(Args)]
pub struct Compare {
    /// OrbitMQ's broker; its name server lies beside it [default: beside this program]
    #[arg(long)]
    orbit_broker: Option<PathBuf>,
    /// Folder with RocketMQ's jars, as scripts/fetch-rocketmq leaves it
    #[arg(long, default_value = "target/rocketmq-5.4.0/lib")]
    rocketmq_lib: PathBuf,
    /// Heap of RocketMQ's broker
    #[arg(long, default_value = "4g")]
    heap: String,
    /// Where both keep their stores; removed afterwards [default: the temporary folder]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Further lines for OrbitMQ's broker.conf, such as shards=2
    #[arg(long)]
    orbit_set: Vec<String>,
    /// Further lines for RocketMQ's broker.conf
    #[arg(long)]
    rocketmq_set: Vec<String>,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each measured window
    #[arg(long, default_value_t = 4.0)]
    window: f64,
    /// Seconds of load for the JVM before the first round
    #[arg(long, default_value_t = 25.0)]
    jvm_warmup: f64,
    /// Percent of the available memory that the page cache is filled to before anything is measured
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u8).range(0..=95))]
    fill_cache: u8,
    /// Only these cases
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Case>,
    /// Pin the generator to this CPU
    #[arg(long)]
    cpu: Option<usize>,
    /// Fail when a figure that is asked for is not reached
    #[arg(long)]
    strict: bool,
    /// Write all figures of all rounds to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report<'a> {
    rounds: u32,
    window_s: f64,
    heap: &'a str,
    table: &'a Table,
    samples: &'a [Sample],
}

/// One case on one broker in one round.
#[derive(Serialize)]
struct Sample {
    round: u32,
    broker: &'static str,
    case: Case,
    measured: Measured,
}

const ORBIT: &str = "orbitmq";
const ROCKETMQ: &str = "rocketmq";
/// Time for queues and caches to come to rest between two windows.
const REST: Duration = Duration::from_millis(500);

pub fn run(command: Compare) -> Result<()> {
    let folder = match &command.dir {
        Some(dir) => tempfile::Builder::new()
            .prefix("orbit-bench-")
            .tempdir_in(dir),
        None => tempfile::Builder::new().prefix("orbit-bench-").tempdir(),
    }
    .map_err(Error::io("making a folder for the stores"))?;
    let line = bar("compare");
    line.enable_steady_tick(Duration::from_millis(200));
    line.set_message("starting both");
    let rocketmq = contender::start_rocketmq(&command, &folder.path().join(ROCKETMQ))?;
    let orbit = contender::start_orbit(&command, &folder.path().join(ORBIT))?;
    let contenders = [orbit, rocketmq];
    let cases: Vec<Case> = match command.only.is_empty() {
        true => Case::ALL.to_vec(),
        false => command.only.clone(),
    };

    for contender in &contenders {
        contender.pause()?;
    }
    line.set_message("filling the page cache");
    page_cache::fill(&folder.path().join("filler"), command.fill_cache)?;
    line.set_message(format!("warming up the JVM for {} s", command.jvm_warmup));
    warm_up(&contenders[1], &command)?;

    let mut samples = Vec::new();
    for round in 0..command.rounds {
        for &case in &cases {
            // Each goes first as often as the other.
            for turn in 0..2 {
                let contender = &contenders[((round + turn) % 2) as usize];
                line.set_message(format!(
                    "round {} of {}: {case:?} on {}",
                    round + 1,
                    command.rounds,
                    contender.name
                ));
                samples.push(Sample {
                    round,
                    broker: contender.name,
                    case,
                    measured: measure(contender, case, round, &command)?,
                });
            }
        }
    }
    line.finish_and_clear();
    for contender in contenders {
        contender.stop()?;
    }
    let table = Table::of(&samples, &cases);
    println!("{table}");
    let report = Report {
        rounds: command.rounds,
        window_s: command.window,
        heap: &command.heap,
        table: &table,
        samples: &samples,
    };
    write_json(command.json.as_deref(), &report)?;
    match table.missed() {
        0 => Ok(()),
        missed if command.strict => Err(Error::Failed(format!(
            "{missed} figures are not what is asked"
        ))),
        _ => Ok(()),
    }
}

fn warm_up(rocketmq: &Contender, command: &Compare) -> Result<()> {
    rocketmq.resume()?;
    let deadline = Instant::now() + Duration::from_secs_f64(command.jvm_warmup);
    cases::load(rocketmq, command, command.jvm_warmup * 0.8)?;
    // The rest of the time on the other ways through the broker.
    for case in [Case::Consume, Case::EndToEnd] {
        if Instant::now() < deadline {
            cases::run(rocketmq, case, "warm-up", command)?;
        }
    }
    rocketmq.pause()
}

fn measure(contender: &Contender, case: Case, round: u32, command: &Compare) -> Result<Measured> {
    contender.resume()?;
    // Nobody pays for what the other has left in the page cache.
    rustix::fs::sync();
    thread::sleep(REST);
    let measured = cases::run(contender, case, &format!("round-{round}"), command)?;
    contender.pause()?;
    Ok(measured)
}
