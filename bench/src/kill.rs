//! `kill`: the broker dies by SIGKILL at random moments under full load, is started again, and in the end every
//! queue is read: each acknowledged message must lie at the very offset that was acknowledged, offsets must be
//! unbroken and each producer's messages in order.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::acknowledged::{self, Acknowledged, lock};
use crate::child::Child;
use crate::commands::plan;
use crate::control::{Control, resolve};
use crate::error::{Error, Result};
use crate::ledger::Counts;
use crate::load::{Lane, Live, Plan, produce};
use crate::options::{Sending, Target, Topics, Window};
use crate::probe::Probe;
use crate::progress::{self, bar};
use crate::report::write_json;

#[derive(Args)]
pub struct Kill {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    topics: Topics,
    #[command(flatten)]
    sending: Sending,
    /// How to start the broker, in the foreground
    #[arg(long)]
    broker_cmd: String,
    /// Where its output goes
    #[arg(long, default_value = "orbit-bench-broker.log")]
    broker_log: PathBuf,
    #[arg(long, default_value_t = 30)]
    rounds: u32,
    /// Seconds of load before a kill: at least, at most
    #[arg(long, num_args = 2, default_values_t = [0.3, 2.0])]
    load: Vec<f64>,
    /// A restarted broker must accept a message within this many milliseconds
    #[arg(long, default_value_t = 1_000)]
    ready_ms: u64,
    /// Which moments; printed, so that a run can be repeated
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Serialize)]
struct Report {
    seed: u64,
    rounds: Vec<Round>,
    acknowledged: u64,
    acknowledged_and_lost: u64,
    acknowledged_and_changed: u64,
    /// Offsets that were acknowledged twice, for different messages.
    given_twice: u64,
    counts: Counts,
    stop_exit_code: Option<i32>,
}

#[derive(Serialize)]
struct Round {
    load_ms: u64,
    acknowledged: u64,
    /// From starting the process to the first accepted message.
    ready_ms: f64,
}

/// How long the first start and the final stop may take.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);

pub fn run(command: Kill) -> Result<()> {
    let broker = match &command.target.broker {
        Some(address) => resolve(address)?,
        None => {
            return Err(Error::Failed(
                "give --broker: it is restarted at that address".into(),
            ));
        }
    };
    let seed = command.seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let lanes = command.topics.lanes();
    let acknowledged = Arc::new(Mutex::new(Acknowledged::new(lanes.len())));
    let mut probe = Probe::new(broker, &lanes[0], command.sending.size);
    let line = bar("kill");

    let mut child = Child::start(&command.broker_cmd, &command.broker_log)?;
    wait_for_first_start(broker, &command, &mut child)?;
    let mut rounds = Vec::new();
    for number in 0..command.rounds {
        line.set_message(format!("round {} of {}", number + 1, command.rounds));
        line.tick();
        let load = Duration::from_secs_f64(
            command.load[0] + random.f64() * (command.load[1] - command.load[0]),
        );
        let before = lock(&acknowledged).count();
        child = load_and_kill(&command, broker, &lanes, &acknowledged, child, load)?;
        let started = Instant::now();
        child = child.start_again()?;
        let ack = probe.until_accepted(started + START_LIMIT)?;
        lock(&acknowledged).acknowledge(ack);
        rounds.push(Round {
            load_ms: load.as_millis() as u64,
            ready_ms: started.elapsed().as_secs_f64() * 1e3,
            acknowledged: lock(&acknowledged).count() - before,
        });
    }
    line.set_message("reading everything back");
    line.tick();
    let (verdict, counts) = acknowledged::read_back(broker, &lanes, &acknowledged)?;
    let stop_exit_code = child.stop(STOP_LIMIT)?;
    line.finish_and_clear();
    let report = Report {
        seed,
        acknowledged: lock(&acknowledged).count(),
        acknowledged_and_lost: verdict.lost,
        acknowledged_and_changed: verdict.changed,
        given_twice: verdict.given_twice,
        rounds,
        counts,
        stop_exit_code,
    };
    println!("{report}");
    write_json(command.target.json.as_deref(), &report)?;
    report.judge(Duration::from_millis(command.ready_ms))
}

fn wait_for_first_start(broker: SocketAddr, command: &Kill, child: &mut Child) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let prepared = Control::connect(broker)
            .and_then(|mut control| command.topics.prepare(&command.target, &mut control));
        match prepared {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline || !child.is_alive() => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Full load for a while, then SIGKILL; the generator ends with its last connection.
fn load_and_kill(
    command: &Kill,
    broker: SocketAddr,
    lanes: &[Lane],
    acknowledged: &Arc<Mutex<Acknowledged>>,
    mut child: Child,
    load: Duration,
) -> Result<Child> {
    let record = acknowledged.clone();
    let window = Window {
        duration: (load + START_LIMIT).as_secs_f64(),
        warmup: 0.0,
    };
    let plan = Plan {
        produce: Some(command.sending.settings(command.target.encoding)),
        may_disconnect: true,
        recorder: Some(Box::new(move |ack: produce::Ack| {
            lock(&record).acknowledge(ack)
        })),
        ..plan(&command.target, broker, lanes.to_vec(), &window)
    };
    let generator = progress::start(plan, Arc::new(Live::default()))?;
    thread::sleep(load);
    child.kill()?;
    let outcome = progress::join(generator)?;
    match outcome.sent {
        Some(sent) if sent.refused.total() > 0 => {
            let (code, (count, remark)) =
                sent.refused.0.into_iter().next().expect("there are some");
            Err(Error::Failed(format!(
                "{count} sends were refused with code {code}: {remark}"
            )))
        }
        _ => Ok(child),
    }
}

impl Report {
    fn slowest_ms(&self) -> f64 {
        self.rounds
            .iter()
            .map(|round| round.ready_ms)
            .fold(0.0, f64::max)
    }

    fn judge(&self, ready_limit: Duration) -> Result<()> {
        let mut wrong = Vec::new();
        if self.acknowledged_and_lost + self.acknowledged_and_changed + self.given_twice > 0 {
            wrong.push("acknowledged messages are not where they were acknowledged");
        }
        if self.counts.damaged > 0 {
            wrong.push("offsets are broken or records damaged");
        }
        if self.counts.out_of_order + self.counts.duplicates > 0 {
            wrong.push("a producer's messages are not in the order sent");
        }
        if self.slowest_ms() > ready_limit.as_secs_f64() * 1e3 {
            wrong.push("a restart took too long");
        }
        if self.stop_exit_code != Some(0) {
            wrong.push("the broker did not stop with exit code 0");
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Error::Failed(wrong.join("; "))),
        }
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        let mean = self.rounds.iter().map(|round| round.ready_ms).sum::<f64>()
            / self.rounds.len().max(1) as f64;
        writeln!(
            out,
            "killed     {} times, seed {}",
            self.rounds.len(),
            self.seed
        )?;
        writeln!(
            out,
            "restarts   {mean:.0} ms to the first accepted message, slowest {:.0} ms",
            self.slowest_ms()
        )?;
        writeln!(
            out,
            "messages   {} acknowledged: {} lost, {} changed, {} offsets given twice",
            self.acknowledged,
            self.acknowledged_and_lost,
            self.acknowledged_and_changed,
            self.given_twice
        )?;
        write!(
            out,
            "read back  {}: {} out of order, {} duplicates, {} damaged or out of place",
            self.counts.messages,
            self.counts.out_of_order,
            self.counts.duplicates,
            self.counts.damaged
        )
    }
}
