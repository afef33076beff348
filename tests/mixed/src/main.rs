//! `orbit-mixed`: everything at once (sends, delays, transactions, retries, ordered keys, members that come and go) against a
//! broker that is killed again and again. A ledger knows every message: none may be lost, come early, or come twice
//! without a reason.
//!
//! ```text
//! load ──► broker (killed, started) ──► members
//!   └──────────────► ledger ◄──────────────┘        watch: memory, log, hiccups of the machine
//! ```

mod broker;
mod clock;
mod error;
mod ledger;
mod load;
mod lock;
mod members;
mod report;
mod run;
mod stamp;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::run::Plan;

/// Mixed load against a broker that is killed again and again, and an account of every message
#[derive(Parser)]
#[command(name = "orbit-mixed", version)]
struct Flags {
    /// How to start the broker, in the foreground
    #[arg(long)]
    broker_cmd: String,
    /// Where its output goes
    #[arg(long)]
    broker_log: PathBuf,
    /// The name server's address: host:port
    #[arg(long)]
    namesrv: String,
    /// Messages a second, of all kinds together
    #[arg(long, default_value_t = 1_200.0)]
    rate: f64,
    /// Seconds of load
    #[arg(long, default_value_t = 3_600)]
    seconds: u64,
    /// Seconds between kills, on average
    #[arg(long, default_value_t = 180)]
    kill_every: u64,
    /// Seconds after which a guest joins a group or leaves it
    #[arg(long, default_value_t = 10)]
    members_every: u64,
    /// Seconds after which members look at their shares unasked
    #[arg(long, default_value_t = 5)]
    rebalance: u64,
    /// Seconds that the last messages may take to come
    #[arg(long, default_value_t = 120)]
    drain: u64,
    /// Fail as well for what a busy machine may do: stalls, memory that grows
    #[arg(long)]
    strict: bool,
    /// When it is killed; printed, so that a run can be repeated
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let flags = Flags::parse();
    let plan = Plan {
        broker_command: flags.broker_cmd,
        broker_log: flags.broker_log,
        name_server: flags.namesrv,
        rate: flags.rate,
        duration: Duration::from_secs(flags.seconds),
        kill_every: Duration::from_secs(flags.kill_every),
        members_every: Duration::from_secs(flags.members_every),
        rebalance: Duration::from_secs(flags.rebalance),
        drain_limit: Duration::from_secs(flags.drain),
        seed: flags.seed.unwrap_or_else(|| fastrand::u64(..1 << 32)),
    };
    println!("seed {}", plan.seed);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run::run(plan)),
        Err(problem) => Err(error::Error::io("starting threads")(problem)),
    };
    match ended {
        Ok(report) => {
            println!("{report}");
            let wrong = report.judge(flags.strict);
            if wrong.is_empty() {
                return ExitCode::SUCCESS;
            }
            eprintln!("orbit-mixed: {}", wrong.join("; "));
            ExitCode::FAILURE
        }
        Err(problem) => {
            eprintln!("orbit-mixed: {problem}");
            ExitCode::FAILURE
        }
    }
}
