//! States judged by a command of the caller's: its exit code decides.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Case, replay};
use crate::ensure;
use crate::error::{Error, Result};
use crate::trace;

/// Prints every state that the command does not accept; an error if there is one.
pub fn run(path: &Path, states: usize, seed: u64, out: &Path, command: &[String]) -> Result<()> {
    let [program, arguments @ ..] = command else {
        return Err(Error::Wrong("no command to judge with".into()));
    };
    let events = trace::read(path)?;
    let (state, marks) = (out.join("state"), out.join("marks"));
    let mut failed = 0;
    fs::create_dir_all(out)?;
    replay(&events, states, seed, &state, |case: &Case| {
        fs::write(&marks, case.marks.join("\n") + "\n")?;
        let status = Command::new(program)
            .args(arguments)
            .env("FAULTDISK_STATE", &state)
            .env("FAULTDISK_MARKS", &marks)
            .status()
            .map_err(Error::io(format!("running {program}")))?;
        if !status.success() {
            failed += 1;
            println!(
                "FAIL state {} of seed {seed}, cut before event {}: {status}",
                case.number, case.event
            );
        }
        Ok::<(), Error>(())
    })?;
    ensure!(failed == 0, "{failed} of {states} states failed");
    println!("{states} states, none failed");
    Ok(())
}
