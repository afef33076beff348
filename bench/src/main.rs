//! `orbit-bench`: load, latency and comparison harness for anything that speaks RocketMQ's remoting protocol.
//! Every command is a module of its own; what they share is the generator (`load`) and the report.

mod acknowledged;
mod arrivals;
mod broker_info;
mod cold;
mod commands;
mod compare;
mod connection;
mod contender;
mod control;
mod disk;
mod disk_full;
mod fill;
mod flushers;
mod fuzz;
mod hiccup;
mod idle;
mod jitter;
mod kill;
mod ledger;
mod load;
mod member;
mod options;
mod page_cache;
mod payload;
mod probe;
mod progress;
mod raw;
mod record;
mod recovery;
mod report;
mod ring;
mod scale;
mod topics;
mod wire;

use std::process::ExitCode;

use bench::{child, error, process};
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
    /// What many groups, parked timers and connections cost
    Scale(scale::Scale),
    /// OrbitMQ and the real Apache RocketMQ side by side: medians and ratios
    Compare(compare::Compare),
    /// What the disk allows a log that makes every batch durable
    Raw(raw::Raw),
    /// How late a thread that only sleeps wakes on each CPU
    Hiccup(hiccup::Hiccup),
    /// Sends at a fixed rate beside a cold reader, held against what a hiccup meter sees
    Jitter(jitter::Jitter),
    /// Reading an old topic from the disk, against the disk and against reading from memory
    Cold(cold::Cold),
    /// OrbitMQ's two flushers side by side
    Flushers(flushers::Flushers),
    /// From a kill under load to the first accepted message, by how much is stored
    Recovery(recovery::Recovery),
    /// A disk that fills up under load and is freed again
    DiskFull(disk_full::DiskFull),
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
        Command::Scale(command) => scale::run(command),
        Command::Compare(command) => compare::run(command),
        Command::Raw(command) => raw::run(command),
        Command::Hiccup(command) => hiccup::run(command),
        Command::Jitter(command) => jitter::run(command),
        Command::Cold(command) => cold::run(command),
        Command::Flushers(command) => flushers::run(command),
        Command::Recovery(command) => recovery::run(command),
        Command::DiskFull(command) => disk_full::run(command),
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
