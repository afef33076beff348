//! No space: a clear refusal, reads go on, and sends are accepted again by themselves once there is space.

use std::time::Instant;

use super::check_refusals;
use crate::ensure;
use crate::error::Result;
use crate::prove::stage::{PATIENCE, Stage, until};

const BEFORE: u64 = 1_000;

pub fn full(stage: &mut Stage, _seed: u64) -> Result<String> {
    refused_then_accepted(stage, "full 65536")
}

/// The disk says that there is space, and gives none.
pub fn allocation_refused(stage: &mut Stage, _seed: u64) -> Result<String> {
    refused_then_accepted(stage, "fail meta ENOSPC")
}

fn refused_then_accepted(stage: &mut Stage, fault: &str) -> Result<String> {
    stage.fill(BEFORE)?;
    let load = stage.load();
    stage.disk.ask(fault)?;
    let noticed = until(|| load.refused() > 0 || load.is_over());
    let alive = stage.is_alive();
    let outcome = stage.finish(load)?;
    ensure!(alive, "the broker died of it");
    ensure!(
        noticed && outcome.broken.is_empty(),
        "{} stored on a full disk, connections: {:?}",
        outcome.stored.len(),
        outcome.broken
    );
    let refusals = check_refusals(&outcome)?;
    let during = stage.read_back()?;
    stage.disk.ask("clear")?;
    // One may still fit into the segment that was begun: well is who takes many.
    let freed = Instant::now();
    while let Err(error) = stage.fill(BEFORE) {
        ensure!(freed.elapsed() < PATIENCE, "still refused: {error}");
    }
    let accepted = freed.elapsed();
    stage.kill()?;
    stage.start()?;
    let after = stage.read_back()?;
    Ok(format!(
        "{refusals}; {} served meanwhile; {BEFORE} more within {} ms of there being space; {} promised and served in the end",
        during.served,
        accepted.as_millis(),
        after.promised
    ))
}
