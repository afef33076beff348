//! `orbit-faultdisk`: flags only. Everything else is the library.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use faultdisk::control::Control;
use faultdisk::mount::{self, Options};

/// A disk that loses what was not synced, fails, fills up and slows down.
#[derive(Parser)]
#[command(name = "orbit-faultdisk", version)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Mount it, and serve it until it is unmounted
    Mount {
        directory: PathBuf,
        /// Where the content lies: plain files between mounts
        #[arg(long)]
        backing: PathBuf,
        /// Socket for commands
        #[arg(long)]
        control: Option<PathBuf>,
        /// Write a trace of everything that is done
        #[arg(long)]
        record: Option<PathBuf>,
        /// How many bytes fit
        #[arg(long)]
        capacity: Option<u64>,
        #[arg(long, hide = true)]
        die_with_parent: bool,
    },
    /// Send a command to a mounted disk
    #[command(after_help = faultdisk::faults::HELP)]
    Ctl {
        socket: PathBuf,
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// Tell whether anything can be mounted here
    Available,
}

fn main() -> ExitCode {
    match run(Flags::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("orbit-faultdisk: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), String> {
    match command {
        Command::Mount {
            directory,
            backing,
            control,
            record,
            capacity,
            die_with_parent,
        } => {
            let options = Options {
                directory,
                backing,
                control,
                record,
                capacity_bytes: capacity,
                die_with_parent,
            };
            mount::mount(&options).map_err(|error| error.to_string())
        }
        Command::Ctl { socket, command } => {
            let line = command.join(" ");
            let mut control = Control::connect(&socket)
                .map_err(|error| format!("{}: {error}", socket.display()))?;
            if line.starts_with("mark ") {
                return control
                    .mark(&format!("{line}\n"))
                    .map_err(|error| error.to_string());
            }
            let answer = control.ask(&line).map_err(|error| error.to_string())?;
            println!("{answer}");
            Ok(())
        }
        Command::Available => mount::available(),
    }
}
