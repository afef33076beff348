//! `compare`: OrbitMQ and the real Apache RocketMQ side by side on this machine, driven by the same generator; with
//! `--sync` both with SYNC_FLUSH, and beside them what the disk allows; with `--features` delayed messages, transactions,
//! filters and the ways to consume. Ratios of medians are what holds on a noisy machine.

pub mod cases;
mod features;
mod limit;
pub mod rounds;
pub mod table;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use self::cases::{Case, Measuring};
use self::limit::Share;
use self::rounds::{Rounds, Sample};
use self::table::Table;
use crate::contender::{Contender, ORBIT, Orbit, ROCKETMQ, Recipe, RocketMq};
use crate::error::{Error, Result};
use crate::page_cache;
use crate::progress::bar;
use crate::report::write_json;

#[derive(Args)]
pub struct Compare {
    #[command(flatten)]
    orbit: Orbit,
    #[command(flatten)]
    rocketmq: RocketMq,
    /// Both with SYNC_FLUSH, and what the disk allows measured beside them
    #[arg(long)]
    sync: bool,
    /// Delayed delivery, transactions, filters, consuming in order and in POP mode
    #[arg(long, conflicts_with = "sync")]
    features: bool,
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
    sync: bool,
    table: &'a Table,
    limits: &'a [Share],
    samples: &'a [Sample],
}

pub fn run(command: Compare) -> Result<()> {
    let folder = command.orbit.folder()?;
    let line = bar("compare");
    line.enable_steady_tick(Duration::from_millis(200));
    line.set_message("starting both");
    let setting = match (command.sync, command.features) {
        (true, _) => "flushDiskType=SYNC_FLUSH",
        (_, true) => features::SETTING,
        (_, false) => "flushDiskType=ASYNC_FLUSH",
    };
    let start = |recipe: Recipe| {
        let home = folder.path().join(recipe.name);
        recipe.with(setting).start(&home)
    };
    let rocketmq = command.rocketmq.recipe()?;
    let rocketmq = start(match command.features {
        true => rocketmq.with(features::PATIENCE),
        false => rocketmq,
    })?;
    let contenders = [start(command.orbit.recipe()?)?, rocketmq];
    let measuring = Measuring {
        window_s: command.window,
        cpu: command.cpu,
    };

    contenders.iter().try_for_each(Contender::pause)?;
    line.set_message("filling the page cache");
    page_cache::fill(&folder.path().join("filler"), command.fill_cache, 0)?;
    line.set_message(format!("warming up the JVM for {} s", command.jvm_warmup));
    let cases = command.cases();
    let others: &[Case] = match (command.sync, command.features) {
        (true, _) => &[],
        (_, true) => &cases,
        (_, false) => &[Case::Consume, Case::EndToEnd],
    };
    rounds::warm_up(&contenders[1], command.jvm_warmup, others, measuring)?;

    let mut limits = limit::Limits::under(folder.path(), measuring.window_s);
    let rounds = Rounds {
        contenders: &contenders,
        cases: &cases,
        count: command.rounds,
        measuring,
    };
    let samples = rounds.run(&line, |sample| match command.sync {
        true => limits.measure_beside(sample),
        false => Ok(()),
    })?;
    line.finish_and_clear();
    for contender in contenders {
        contender.stop()?;
    }
    let table = Table::of(&samples, &cases, [ORBIT, ROCKETMQ]);
    let shares = limits.shares(&samples);
    print!("{table}");
    for share in &shares {
        println!("{share}");
    }
    let report = Report {
        rounds: command.rounds,
        window_s: command.window,
        heap: &command.rocketmq.heap,
        sync: command.sync,
        table: &table,
        limits: &shares,
        samples: &samples,
    };
    write_json(command.json.as_deref(), &report)?;
    let untold = usize::from(command.sync && shares.is_empty());
    if untold > 0 {
        println!(
            "OrbitMQ does not tell how much it makes durable at once: no limit to hold it against"
        );
    }
    let missed = untold + table.missed() + shares.iter().filter(|share| !share.is_met()).count();
    match missed {
        0 => Ok(()),
        missed if command.strict => Err(Error::Failed(format!(
            "{missed} figures are not what is asked"
        ))),
        _ => Ok(()),
    }
}

impl Compare {
    fn cases(&self) -> Vec<Case> {
        match (self.only.is_empty(), self.sync, self.features) {
            (false, ..) => self.only.clone(),
            (_, true, _) => Case::SYNC.to_vec(),
            (_, _, true) => features::CASES.to_vec(),
            _ => Case::ASYNC.to_vec(),
        }
    }
}
