//! Syncs and writes that fail: from the first one that is noticed nothing is acknowledged, until a restart has checked the
//! log. An error is never retried into a success.

use std::thread;
use std::time::{Duration, Instant};

use super::check_refusals;
use crate::ensure;
use crate::error::Result;
use crate::load::{Load, STORED};
use crate::prove::Flusher;
use crate::prove::stage::{LOG, Stage, until};

const BEFORE: u64 = 1_000;
/// How long senders go on after the first refusal, to see that nothing is acknowledged any more.
const AFTER: Duration = Duration::from_millis(300);
/// Answers that had been given when the first refusal was.
const UNDER_WAY: Duration = Duration::from_millis(50);

pub fn sync_error(stage: &mut Stage, _seed: u64) -> Result<String> {
    // Nothing is lost by it: it is the promise that fails.
    fail_and_restart(stage, &format!("fail fsync EIO {LOG}"), Loses::Nothing)
}

pub fn write_error(stage: &mut Stage, _seed: u64) -> Result<String> {
    fail_and_restart(stage, &format!("fail write EIO {LOG}"), Loses::Unsynced)
}

pub fn read_only(stage: &mut Stage, _seed: u64) -> Result<String> {
    fail_and_restart(stage, "fail any EROFS", Loses::Unsynced)
}

#[derive(PartialEq, Eq)]
enum Loses {
    Nothing,
    /// What was written to the page cache and cannot go to the disk.
    Unsynced,
}

fn fail_and_restart(stage: &mut Stage, fault: &str, loses: Loses) -> Result<String> {
    let firm = stage.fill_firmly(BEFORE)?;
    let refused = fail(stage, fault)?;
    // In SYNC_FLUSH nothing is shown that is not durable, so the book must be there, no less.
    stage.read_back()?;
    stage.disk.ask("clear")?;
    // A well disk changes nothing for a store that has seen an error.
    let sent = stage.send_one()?;
    ensure!(
        sent.code != STORED,
        "accepted after an error, without a restart"
    );
    stage.kill()?;
    if loses == Loses::Unsynced {
        stage.keep_only_in_async(&firm);
    }
    stage.start()?;
    let accepted = stage.until_accepted()?;
    let counts = stage.read_back()?;
    Ok(format!(
        "{refused}; restarted: {} promised and served, accepts after {} ms",
        counts.promised,
        accepted.as_millis()
    ))
}

/// A failed sync after which the disk has the old bytes and the page cache the new ones.
pub fn losing_sync(stage: &mut Stage, seed: u64) -> Result<String> {
    let firm = stage.fill_firmly(BEFORE)?;
    let refused = fail(stage, &format!("lose EIO {LOG}"))?;
    stage.disk.ask("clear")?;
    stage.kill()?;
    stage.keep_only_in_async(&firm);
    stage.start()?;
    let shown = stage.read_back()?;
    stage.until_accepted()?;
    // What a restart shows in a SYNC_FLUSH store is durable, whatever the page cache said.
    let said = stage.cut_power(seed)?;
    stage.keep_only_in_async(&firm);
    stage.start()?;
    let after = stage.read_back()?;
    ensure!(
        !stage.mode.sync || after.served >= shown.served,
        "{} messages were shown, {} are left after a power cut",
        shown.served,
        after.served
    );
    Ok(format!(
        "{refused}; {} shown after the restart, {} after a cut ({said})",
        shown.served, after.served
    ))
}

/// Load; then the fault; then not one acknowledgement more.
fn fail(stage: &mut Stage, fault: &str) -> Result<String> {
    let load = stage.load();
    let running = until(|| load.stored() >= BEFORE || load.is_over());
    ensure!(running && !load.is_over(), "no load on a well disk");
    stage.disk.ask(fault)?;
    let struck = Instant::now();
    let noticed = until(|| load.refused() > 0 || load.is_over());
    let noticed_ms = struck.elapsed().as_millis();
    ensure!(stage.is_alive(), "the broker died of it");
    if !noticed || load.is_over() {
        let outcome = stage.finish(load)?;
        ensure!(
            false,
            "no refusal: {} were acknowledged, connections: {:?}",
            outcome.stored.len(),
            outcome.broken
        );
        return Ok(String::new());
    }
    let more = acknowledged_afterwards(&load);
    let outcome = stage.finish(load)?;
    ensure!(
        more == 0,
        "{more} messages were acknowledged after the first refusal"
    );
    ensure!(
        outcome.broken.is_empty(),
        "connections broke: {:?}",
        outcome.broken
    );
    let refusals = check_refusals(&outcome)?;
    Ok(format!("noticed after {noticed_ms} ms, {refusals}"))
}

fn acknowledged_afterwards(load: &Load) -> u64 {
    thread::sleep(UNDER_WAY);
    let before = load.stored();
    thread::sleep(AFTER);
    load.stored() - before
}

/// Half a write is no error: the rest is written by another. The log of the direct flusher is left out: of a short direct
/// write FUSE's kernel side makes an EIO.
pub fn short_write(stage: &mut Stage, _seed: u64) -> Result<String> {
    let paths = match stage.mode.flusher {
        Flusher::Mmap => "*",
        Flusher::Direct => "*/orbit/*",
    };
    stage.disk.ask(&format!("short-write {paths} 50"))?;
    stage.fill(3 * BEFORE)?;
    let struck = stage.disk.count("struck")?;
    stage.read_back()?;
    stage.kill()?;
    stage.start()?;
    stage.until_accepted()?;
    let counts = stage.read_back()?;
    Ok(format!(
        "{struck} writes cut short, {} promised and served",
        counts.promised
    ))
}
