//! `orbit-faultdisk`: flags only. Everything else is the library.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use faultdisk::control::Control;
use faultdisk::mount::{self, Options};
use faultdisk::prove::{self, Flusher, Mode, Setting, faults, power_cut};
use faultdisk::replay::judged_by;
use faultdisk::trace;

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
        of_a_proof: bool,
    },
    /// Send a command to a mounted disk
    #[command(after_help = faultdisk::faults::HELP)]
    Ctl {
        socket: PathBuf,
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// Build states that a power cut may leave of a recorded run, and have each judged by a command
    Replay {
        trace: PathBuf,
        #[arg(long, default_value_t = 100)]
        states: usize,
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Where each state is built
        #[arg(long)]
        out: PathBuf,
        /// It gets the directory in FAULTDISK_STATE and a file with the marks before the cut in FAULTDISK_MARKS
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Print a trace, a line for each event
    Trace { file: PathBuf },
    /// Tell whether anything can be mounted here
    Available,
    /// Run a real broker on a disk with every fault it knows
    Faults {
        #[command(flatten)]
        proof: Proof,
        /// Only scenarios whose name contains this
        #[arg(long, default_value = "")]
        only: String,
        #[arg(long)]
        short: bool,
    },
    /// Cut the power at many moments of a recorded run, and let a real broker recover each state
    PowerCut {
        #[command(flatten)]
        proof: Proof,
        /// How many states, over all modes
        #[arg(long, default_value_t = 2_000)]
        states: usize,
        /// Messages in each recorded run
        #[arg(long, default_value_t = 1_500)]
        messages: u64,
        /// Use a trace that was kept, with the mode it was recorded in
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Where states that fail are kept
        #[arg(long, default_value = "power-cut-failures")]
        keep: PathBuf,
    },
}

#[derive(Args)]
struct Proof {
    /// The broker's binary
    #[arg(long)]
    broker: PathBuf,
    /// The broker's port; the next one is its name server's
    #[arg(long, default_value_t = 23_941)]
    port: u16,
    /// Printed, so that a run can be repeated
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Flusher::Mmap, Flusher::Direct])]
    flushers: Vec<Flusher>,
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Flush::Async, Flush::Sync])]
    flush: Vec<Flush>,
    /// More lines for broker.conf, such as key=value
    settings: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Flush {
    Async,
    Sync,
}

impl Proof {
    fn setting(self, work: &Path) -> Setting {
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
        println!("seed {seed}");
        let flush = &self.flush;
        let modes = self.flushers.iter().flat_map(|flusher| {
            flush.iter().map(|flush| Mode {
                flusher: *flusher,
                sync: *flush == Flush::Sync,
            })
        });
        Setting {
            modes: modes.collect(),
            broker: self.broker,
            work: work.to_path_buf(),
            port: self.port,
            seed,
            settings: self.settings,
        }
    }
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
            of_a_proof,
        } => {
            let options = Options {
                directory,
                backing,
                control,
                record,
                capacity_bytes: capacity,
                of_a_proof,
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
        Command::Replay {
            trace,
            states,
            seed,
            out,
            command,
        } => {
            judged_by::run(&trace, states, seed, &out, &command).map_err(|error| error.to_string())
        }
        Command::Trace { file } => {
            let events = trace::read(&file).map_err(|error| error.to_string())?;
            for (number, event) in events.iter().enumerate() {
                println!("{number} {event}");
            }
            Ok(())
        }
        Command::Available => mount::available(),
        Command::Faults { proof, only, short } => {
            let work = tempfile::tempdir().map_err(|error| error.to_string())?;
            let proven = faults::run(&proof.setting(work.path()), &only, short);
            proven.map_err(|error| error.to_string())
        }
        Command::PowerCut {
            proof,
            states,
            messages,
            trace,
            keep,
        } => {
            let work = tempfile::tempdir().map_err(|error| error.to_string())?;
            let states_in = prove::memory().map_err(|error| error.to_string())?;
            let plan = power_cut::Plan {
                states,
                messages,
                trace,
                states_in: states_in.path().to_path_buf(),
                keep,
            };
            let proven = power_cut::run(&proof.setting(work.path()), &plan);
            proven.map_err(|error| error.to_string())
        }
    }
}
