//! `faults`: each fault a disk can have, under load, in each way of flushing. What must hold: nothing is acknowledged that
//! is not as durable as promised, nothing acknowledged is lost, nothing wrong is served, reads go on, and the broker says
//! what is wrong in words a stock client understands.

mod cut;
mod damage;
mod errors;
mod full;
mod slow;

use std::fs;

use super::stage::Stage;
use super::{Mode, Setting};
use crate::ensure;
use crate::error::{Error, Result};
use crate::load::Outcome;

/// What it shows is said in a line; an error says what is wrong.
type Scenario = fn(&mut Stage, seed: u64) -> Result<String>;

struct Case {
    name: &'static str,
    /// Lines for broker.conf.
    settings: &'static [&'static str],
    run: Scenario,
    /// Left out of the short version.
    long: bool,
}

const CASES: &[Case] = &[
    case("sync-error", errors::sync_error),
    case("sync-error-that-loses", errors::losing_sync),
    case("write-error", errors::write_error),
    case("read-only", errors::read_only),
    case("short-write", errors::short_write),
    case("disk-full", full::full),
    long(case("allocation-refused", full::allocation_refused)),
    Case {
        settings: &["syncFlushTimeout=500"],
        ..case("slow-disk", slow::slow)
    },
    case("bad-block", damage::bad_block),
    case("flipped-bits", damage::flipped_bits),
    case("power-cut", cut::cuts),
];

const fn case(name: &'static str, run: Scenario) -> Case {
    Case {
        name,
        settings: &[],
        run,
        long: false,
    }
}

const fn long(case: Case) -> Case {
    Case { long: true, ..case }
}

/// `only`: scenarios whose name contains it.
pub fn run(setting: &Setting, only: &str, short: bool) -> Result<()> {
    let mut failed = 0;
    let mut count = 0;
    for mode in &setting.modes {
        let wanted = |case: &&Case| case.name.contains(only) && !(short && case.long);
        for case in CASES.iter().filter(wanted) {
            count += 1;
            match try_one(setting, *mode, case, count) {
                Ok(said) => println!("ok   {mode} {}: {said}", case.name),
                Err(error) => {
                    failed += 1;
                    println!("FAIL {mode} {}: {error}", case.name);
                }
            }
        }
    }
    ensure!(count > 0, "no scenario is called {only}");
    ensure!(failed == 0, "{failed} of {count} scenarios failed");
    println!("{count} scenarios: acknowledged and lost: 0, wrong bytes served: 0");
    Ok(())
}

fn try_one(setting: &Setting, mode: Mode, case: &Case, number: u32) -> Result<String> {
    // Paths of sockets are short.
    let work = setting.work.join(number.to_string());
    let mut stage = Stage::new(setting, mode, work.clone(), case.settings)?;
    let said = (case.run)(&mut stage, setting.seed).and_then(|said| {
        stage.check()?;
        Ok(said)
    });
    let said = said.map_err(|error| {
        let tail = stage.log_tail();
        Error::Wrong(format!("{error}\nthe broker's log ends:\n{tail}"))
    });
    drop(stage);
    // Space only.
    let _ = fs::remove_dir_all(work);
    said
}

mod code {
    pub const SYSTEM_ERROR: i32 = 1;
    pub const FLUSH_DISK_TIMEOUT: i32 = 10;
    pub const SERVICE_NOT_AVAILABLE: i32 = 14;
}

/// Every refusal is one that a stock client understands, and says why.
fn check_refusals(outcome: &Outcome) -> Result<String> {
    for (code, (_, remark)) in &outcome.refused {
        let known = [
            code::SYSTEM_ERROR,
            code::SERVICE_NOT_AVAILABLE,
            code::FLUSH_DISK_TIMEOUT,
        ];
        ensure!(known.contains(code), "refused with {code} {remark}");
        ensure!(
            *code == code::FLUSH_DISK_TIMEOUT || !remark.is_empty(),
            "refused with {code} and no word why"
        );
    }
    let words = outcome.refused.iter().map(|(code, (count, remark))| {
        let remark: String = remark.chars().take(100).collect();
        format!("{count} with {code} \"{remark}\"")
    });
    Ok(words.collect::<Vec<_>>().join(", "))
}
