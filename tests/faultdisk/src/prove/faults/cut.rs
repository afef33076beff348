//! Power cuts under load, one after the other on the same store.

use crate::ensure;
use crate::error::Result;
use crate::prove::stage::{Stage, until};

const CUTS: u64 = 5;
const BETWEEN: u64 = 1_000;

pub fn cuts(stage: &mut Stage, seed: u64) -> Result<String> {
    let mut acknowledged = 0;
    for number in 0..CUTS {
        let firm = stage.fill_firmly(BETWEEN)?;
        let load = stage.load();
        let running = until(|| load.stored() >= BETWEEN || load.is_over());
        ensure!(running && !load.is_over(), "no load on a well disk");
        stage.cut_power(seed + number)?;
        let outcome = stage.finish(load)?;
        acknowledged += outcome.stored.len();
        stage.keep_only_in_async(&firm);
        stage.start()?;
        stage.until_accepted()?;
        stage.read_back()?;
    }
    let counts = stage.read_back()?;
    Ok(format!(
        "{CUTS} cuts, {acknowledged} acknowledged, {} promised, {} served",
        counts.promised, counts.served
    ))
}
