//! `flushers`: OrbitMQ with `flusher=mmap` and with `flusher=direct` side by side, in both durabilities, and the jitter of
//! each beside a cold reader: the table that decides which is the default.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::compare::cases::{Case, Measuring};
use crate::compare::rounds::Rounds;
use crate::compare::table::{Markdown, Table};
use crate::contender::{Contender, Orbit, Recipe};
use crate::error::Result;
use crate::jitter::Load;
use crate::jitter::run::Jittered;
use crate::jitter::table::Table as JitterTable;
use crate::page_cache;
use crate::progress::bar;
use crate::report::write_json;

#[derive(Args)]
pub struct Flushers {
    #[command(flatten)]
    orbit: Orbit,
    #[command(flatten)]
    jitter: Load,
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each measured window
    #[arg(long, default_value_t = 4.0)]
    window: f64,
    /// Only these cases
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Case>,
    /// Write the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    asynchronous: Table,
    synchronous: Table,
    jitter: Vec<Jittered>,
}

const MMAP: &str = "mmap";
const DIRECT: &str = "direct";
const ASYNC_CASES: [Case; 5] = [
    Case::Send16x32,
    Case::Send16x1,
    Case::Open20k,
    Case::Consume,
    Case::Memory,
];

pub fn run(command: Flushers) -> Result<()> {
    let asynchronous = side_by_side(&command, "flushDiskType=ASYNC_FLUSH", &ASYNC_CASES)?;
    println!("ASYNC_FLUSH\n\n{}", Markdown(&asynchronous));
    let synchronous = side_by_side(&command, "flushDiskType=SYNC_FLUSH", &Case::SYNC)?;
    println!("SYNC_FLUSH\n\n{}", Markdown(&synchronous));
    let [mmap, direct] = recipes(&command)?;
    let jitter = command.jitter.on(&[mmap, direct], &command.orbit)?;
    println!("Beside a cold reader\n\n{}", JitterTable(&jitter));
    let report = Report {
        asynchronous,
        synchronous,
        jitter,
    };
    write_json(command.json.as_deref(), &report)?;
    // Which is faster is for people to weigh; neither may refuse or lose anything.
    report.jitter.iter().try_for_each(|it| it.judge(false))
}

fn recipes(command: &Flushers) -> Result<[Recipe; 2]> {
    let recipe = command.orbit.recipe()?;
    Ok([
        recipe.clone().named(MMAP).with("flusher=mmap"),
        recipe.beside(DIRECT).with("flusher=direct"),
    ])
}

fn side_by_side(command: &Flushers, flush: &str, cases: &[Case]) -> Result<Table> {
    let cases: Vec<Case> = cases
        .iter()
        .copied()
        .filter(|case| command.only.is_empty() || command.only.contains(case))
        .collect();
    let line = bar("flushers");
    line.enable_steady_tick(Duration::from_millis(200));
    let folder = command.orbit.folder()?;
    let [mmap, direct] = recipes(command)?.map(|recipe| {
        let home = folder.path().join(recipe.name);
        recipe.with(flush).start(&home)
    });
    let contenders = [mmap?, direct?];
    contenders.iter().try_for_each(Contender::pause)?;
    line.set_message("filling the page cache");
    page_cache::fill(&folder.path().join("filler"), command.jitter.fill_cache, 0)?;
    let rounds = Rounds {
        contenders: &contenders,
        cases: &cases,
        count: command.rounds,
        measuring: Measuring {
            window_s: command.window,
            cpu: None,
        },
    };
    let samples = rounds.run(&line, |_| Ok(()))?;
    line.finish_and_clear();
    for contender in contenders {
        contender.stop()?;
    }
    Ok(Table::of(&samples, &cases, [MMAP, DIRECT]))
}
