//! A disk whose syncs take seconds: SYNC_FLUSH says FLUSH_DISK_TIMEOUT in time, ASYNC_FLUSH does not care, and both are as
//! before when it has recovered.

use std::time::{Duration, Instant};

use super::code;
use crate::ensure;
use crate::error::Result;
use crate::load::STORED;
use crate::prove::stage::Stage;

/// A sync takes three seconds, six times the time-out of this scenario.
const FAULT: &str = "slow 3000000 fsync";
const TIME_OUT: Duration = Duration::from_millis(500);
/// Its time-out, and what an answer may take besides.
const ANSWER_LIMIT: Duration = Duration::from_millis(2_000);

pub fn slow(stage: &mut Stage, _seed: u64) -> Result<String> {
    stage.fill(500)?;
    stage.disk.ask(FAULT)?;
    // The first one may share a sync that began before.
    stage.send_one()?;
    let started = Instant::now();
    let sent = stage.send_one()?;
    let took = started.elapsed();
    let expected = match stage.mode.sync {
        true => code::FLUSH_DISK_TIMEOUT,
        false => STORED,
    };
    ensure!(
        sent.code == expected,
        "answered {} {} after {took:?}",
        sent.code,
        sent.remark
    );
    ensure!(took < ANSWER_LIMIT, "answered after {took:?}");
    ensure!(
        !stage.mode.sync || took >= TIME_OUT,
        "timed out after {took:?} already"
    );
    stage.disk.ask("clear")?;
    let accepted = stage.until_accepted()?;
    stage.fill(500)?;
    let counts = stage.read_back()?;
    Ok(format!(
        "answered {} after {} ms; well again after {} ms; {} promised and served",
        sent.code,
        took.as_millis(),
        accepted.as_millis(),
        counts.promised
    ))
}
