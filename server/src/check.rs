//! `orbit-broker check`: verifies a store that no broker has open, and says what it finds, one line each.
//!
//! The log and what is derived from it are the engine's to judge; the tables under `config/` are looked at here. Exit
//! code 0: nothing is wrong; 1: problems were found and not all repaired; 2: the store cannot be looked at.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use engine::Progress;
use engine::check::{self, CannotCheck, Report, Request};
use reactor::CoreConfig;

mod print;
mod tables;

const CLEAN: u8 = 0;
const PROBLEMS: u8 = 1;
const CANNOT_CHECK: u8 = 2;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    pub store: PathBuf,
    /// Empty: `commitlog` in the store.
    pub log_dirs: Vec<PathBuf>,
    pub repair: bool,
    pub json: bool,
}

/// Checks, prints, and says how it went.
pub fn run(options: Options) -> ExitCode {
    let core = CoreConfig {
        stall_ms: 0, // nobody waits for this core
        ..CoreConfig::default()
    };
    let json = options.json;
    let checked = match reactor::run(core, move || look(options)) {
        Ok(checked) => checked.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match checked {
        Ok(report) => {
            let text = if json {
                print::json(&report)
            } else {
                print::text(&report)
            };
            print!("{text}");
            ExitCode::from(if report.is_clean() { CLEAN } else { PROBLEMS })
        }
        Err(problem) => {
            eprintln!("orbit-broker check: {problem}");
            ExitCode::from(CANNOT_CHECK)
        }
    }
}

async fn look(options: Options) -> Result<Report, CannotCheck> {
    let request = Request {
        root: options.store,
        log_dirs: options.log_dirs,
        repair: options.repair,
    };
    let mut told = 0;
    let progress = move |progress: Progress| {
        let percent = progress.read_bytes * 100 / progress.total_bytes.max(1);
        if percent != told {
            told = percent;
            let mib = progress.read_bytes >> 20;
            // Nobody may be looking.
            let _ = writeln!(std::io::stderr(), "checked {mib} MiB, {percent} %");
        }
    };
    let mut report = check::check(&request, progress).await?;
    tables::look(&request.root, &mut report);
    Ok(report)
}
