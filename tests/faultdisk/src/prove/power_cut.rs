//! `power-cut`: records a run of a real broker for each way of flushing, cuts the power at many moments of it, and lets a
//! real broker recover each state.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::judge::judge;
use super::record::record;
use super::{Mode, Setting};
use crate::error::{Error, Result};
use crate::promises::Promises;
use crate::read_back::Counts;
use crate::replay::{Case, replay, write_out};
use crate::trace::{self, Event};

/// Looking at a whole store takes longer than recovering it.
const CHECK_EVERY: usize = 8;

pub struct Plan {
    /// Over all modes.
    pub states: usize,
    /// In each recorded run.
    pub messages: u64,
    /// Where states are written; memory is fastest.
    pub states_in: PathBuf,
    /// A run that was recorded before, instead of a new one.
    pub trace: Option<PathBuf>,
    /// A state that fails is kept here.
    pub keep: PathBuf,
}

pub fn run(setting: &Setting, plan: &Plan) -> Result<()> {
    let mut failed = 0;
    let count = plan.states / setting.modes.len();
    for mode in &setting.modes {
        let work = setting.work.join(mode.directory());
        fs::create_dir_all(&work)?;
        let path = match &plan.trace {
            Some(path) => path.clone(),
            None => work.join("trace"),
        };
        if plan.trace.is_none() {
            let acknowledged = record(setting, *mode, &work, &path, plan.messages)?;
            let sizes = sizes(&trace::read(&path)?);
            println!("{mode}: {acknowledged} messages acknowledged in {sizes}");
        }
        failed += cut(setting, plan, *mode, &path, &work, count)?;
    }
    match failed {
        0 => Ok(()),
        _ => Err(Error::Wrong(format!("{failed} states broke a promise"))),
    }
}

fn sizes(events: &[Event]) -> String {
    let mut written = 0;
    let (mut writes, mut syncs, mut names) = (0, 0, 0);
    for event in events {
        match event {
            Event::Write { bytes, .. } => {
                writes += 1;
                written += bytes.len();
            }
            Event::Sync { .. } | Event::SyncRange { .. } | Event::SyncDirectory { .. } => {
                syncs += 1;
            }
            Event::Names(_) => names += 1,
            _ => {}
        }
    }
    format!(
        "{writes} writes of {:.1} MB, {syncs} syncs, {names} changes of names",
        written as f64 / 1e6
    )
}

/// Returns how many states broke a promise.
fn cut(
    setting: &Setting,
    plan: &Plan,
    mode: Mode,
    trace: &Path,
    work: &Path,
    count: usize,
) -> Result<u64> {
    let events = trace::read(trace)?;
    let started = Instant::now();
    let state = plan.states_in.join("state");
    let mut failed = 0;
    let mut marked = Promises::default();
    let mut marks = 0;
    let mut total = Counts::default();
    let mut unsynced = 0;
    replay(&events, count, setting.seed, &state, |case: &Case| {
        for text in &case.marks[marks..] {
            marked.add_mark(text);
        }
        marks = case.marks.len();
        let mut promises = Promises::of_log(&case.image.durable());
        if mode.sync {
            promises.extend(&marked);
        }
        unsynced += case.image.unsynced();
        let store = state.join("store");
        let check = case.number.is_multiple_of(CHECK_EVERY);
        let broker_work = work.join("judge");
        fs::create_dir_all(&broker_work)?;
        let _ = fs::remove_file(broker_work.join("broker.log"));
        match judge(setting, mode, &store, &broker_work, &promises, check) {
            Ok(counts) => {
                total.served += counts.served;
                total.promised += counts.promised;
                total.topics_gone += counts.topics_gone;
            }
            Err(error) => {
                failed += 1;
                println!(
                    "FAIL {mode}: state {} of seed {}, cut before event {}: {error}",
                    case.number, setting.seed, case.event
                );
                keep(plan, mode, case, trace)?;
            }
        }
        Ok::<(), Error>(())
    })?;
    println!(
        "{mode}: {count} states in {:.0} s, {:.0} unsynced sectors and names in each; {} messages promised, {} served, \
         {} topics made again; {failed} states failed",
        started.elapsed().as_secs_f64(),
        unsynced as f64 / count.max(1) as f64,
        total.promised,
        total.served,
        total.topics_gone,
    );
    Ok(failed)
}

/// What the broker was given, and the trace it was made of.
fn keep(plan: &Plan, mode: Mode, case: &Case, trace: &Path) -> Result<()> {
    let name = mode.directory();
    let to = plan.keep.join(format!("{name}-{}", case.number));
    fs::create_dir_all(&plan.keep)?;
    write_out(case.state, &to)?;
    let kept = plan.keep.join(format!("{name}.trace"));
    if kept != trace {
        fs::copy(trace, &kept)?;
    }
    println!(
        "the state is kept in {}, the trace in {}",
        to.display(),
        kept.display()
    );
    Ok(())
}
