//! `orbit-admin`: the daily work of an operator, of OrbitMQ and RocketMQ alike.
//!
//! ```text
//! words of the command line ─ mqadmin.rs (its names, put into ours) ─ cli.rs (what there is to say)
//!   ─ commands/*.rs (what is asked of a cluster, by family) ─ output.rs (a table, or JSON)
//! ```
//!
//! One thread; connections are opened when something is asked; nothing else is started. It ends with 0 when what was asked
//! is done, 1 when it is not, 2 when it was not understood.

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod mqadmin;
mod output;
mod when;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;
use crate::output::Output;

fn main() -> ExitCode {
    let words = mqadmin::translate(std::env::args().collect());
    let cli = Cli::parse_from(words);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("nothing can be run here: {error}")),
    };
    let output = Output { json: cli.json };
    match runtime.block_on(commands::run(cli, &output)) {
        Ok(code) => code,
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(what: &str) -> ExitCode {
    eprintln!("orbit-admin: {what}");
    ExitCode::FAILURE
}
