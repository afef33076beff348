//! `orbit-bench`: load, latency and comparison harness for anything that speaks RocketMQ's remoting protocol.
//! Every command is a module of its own; what they share is the generator (`load`) and the report.

mod child;
mod commands;
mod compare;
mod connection;
mod control;
mod disk;
mod error;
mod fuzz;
mod kill;
mod ledger;
mod load;
mod options;
mod payload;
mod process;
mod progress;
mod raw;
mod record;
mod report;
mod ring;
mod topics;
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Load, latency and correctness of a RocketMQ-compatible broker
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send as fast as answers come, or at a fixed rate
    Produce(commands::Produce),
    /// Read topics to their end and check every message
    Consume(commands::Consume),
    /// Send and long-poll at once: the time from send to arrival, every message checked
    E2e(commands::EndToEnd),
    /// What many topics and many parked long polls cost
    Topics(topics::Topics),
    /// OrbitMQ and the real Apache RocketMQ side by side: medians and ratios
    Compare(compare::Compare),
    /// What the disk allows a log that makes every batch durable
    Raw(raw::Raw),
    /// Broken frames against a living broker and name server
    Fuzz(fuzz::Fuzz),
    /// Kill the broker under load again and again; nothing acknowledged may be lost
    Kill(kill::Kill),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Produce(command) => commands::produce(command),
        Command::Consume(command) => commands::consume(command),
        Command::E2e(command) => commands::end_to_end(command),
        Command::Topics(command) => topics::run(command),
        Command::Compare(command) => compare::run(command),
        Command::Raw(command) => raw::run(command),
        Command::Fuzz(command) => fuzz::run(command),
        Command::Kill(command) => kill::run(command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orbit-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
