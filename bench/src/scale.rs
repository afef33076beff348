//! `scale`: what a broker costs that holds much: first with nothing, then with consumer groups, then with parked timers as
//! well, then with connections as well. After each step it is watched idle and then sent to. Nothing that was put there may
//! be missing afterwards.

mod connections;
mod groups;
mod timers;

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::commands::plan_at;
use crate::error::{Error, Result};
use crate::fill;
use crate::idle::{Idle, watch_idle};
use crate::load::{self, Live, Plan};
use crate::options::{Sending, Target, Window};
use crate::progress::bar;
use crate::report::{Figures, Latency, write_json};

#[derive(Args)]
pub struct Scale {
    #[command(flatten)]
    target: Target,
    /// Consumer groups with a committed offset each
    #[arg(long, default_value_t = 100_000)]
    groups: u32,
    /// Delayed messages that wait for their time
    #[arg(long, default_value_t = 1_000_000)]
    timers: u64,
    /// Connections, of which as many are opened as may be
    #[arg(long, default_value_t = 20_000)]
    connections: usize,
    /// Seconds the broker is watched idle after each step
    #[arg(long, default_value_t = 5.0)]
    idle: f64,
    /// Seconds it is sent to after each step
    #[arg(long, default_value_t = 3.0)]
    window: f64,
    /// Fail above this idle CPU, percent
    #[arg(long)]
    idle_cpu_max: Option<f64>,
    /// Fail above this anonymous memory
    #[arg(long)]
    anonymous_mib_max: Option<f64>,
    /// Fail if the 99th percentile of messages that become due beside the parked ones comes later
    #[arg(long)]
    late_ms_max: Option<f64>,
}

#[derive(Serialize)]
struct Step {
    what: String,
    /// Until all of it was there.
    seconds: f64,
    idle: Idle,
    per_second: f64,
    cpu_us_per_message: f64,
    /// Of messages that become due meanwhile, where timers are parked.
    lateness: Option<Latency>,
}

/// Time for queues to come to rest before the broker is watched.
const REST: Duration = Duration::from_secs(2);
const BODY_BYTES: usize = 128;

pub fn run(command: Scale) -> Result<()> {
    let broker = command.target.broker()?;
    let line = bar("scale");
    let mut steps = vec![step(&command, broker, "nothing".into(), Instant::now())?];
    line.suspend(|| println!("{}", steps[0]));
    let mut done = |step: Step| {
        line.suspend(|| println!("{step}"));
        steps.push(step);
    };

    line.set_message("groups");
    let started = Instant::now();
    let groups = groups::make(broker, command.groups)?;
    let what = format!("{} groups", command.groups);
    done(step(&command, broker, what, started)?);

    line.set_message("timers");
    let started = Instant::now();
    let timers = timers::park(broker, command.timers)?;
    let what = format!("{} timers", command.timers);
    let with_timers = step(&command, broker, what, started)?;
    done(Step {
        lateness: Some(timers::lateness(broker, command.window)?),
        ..with_timers
    });

    line.set_message("connections");
    let started = Instant::now();
    let mut connections = connections::open(broker, command.connections)?;
    let what = format!("{} connections", connections.len());
    done(step(&command, broker, what, started)?);

    line.set_message("looking whether all is there");
    connections::check(&mut connections)?;
    groups.check(broker)?;
    timers.check(broker)?;
    line.finish_and_clear();
    write_json(command.target.json.as_deref(), &steps)?;
    judge(&command, &steps)
}

fn step(command: &Scale, broker: SocketAddr, what: String, started: Instant) -> Result<Step> {
    let seconds = started.elapsed().as_secs_f64();
    std::thread::sleep(REST);
    let pid = command.target.pid;
    let gone = || Error::Failed("give --pid of a broker that runs".into());
    let idle = pid
        .and_then(|pid| watch_idle(pid, command.idle))
        .ok_or_else(gone)?;
    let window = Window {
        duration: command.window,
        warmup: 1.0,
    };
    let sending = Sending {
        connections: 16,
        depth: 32,
        size: BODY_BYTES,
        batch: 1,
        rate: None,
    };
    let plan = Plan {
        produce: Some(sending.settings(command.target.encoding)),
        server_pid: pid,
        cpu: command.target.cpu,
        ..plan_at(broker, fill::make_topic(broker, "scale-load")?, &window)
    };
    let figures = Figures::of(&load::run(plan, &Live::default())?);
    let sent = figures.sent.as_ref().expect("the plan sends");
    if sent.refused > 0 || sent.messages == 0 {
        return Err(Error::Failed(format!(
            "beside {what} sends were refused: {:?}",
            sent.refusals.0
        )));
    }
    Ok(Step {
        what,
        seconds,
        idle,
        per_second: sent.per_second,
        cpu_us_per_message: figures.server.ok_or_else(gone)?.cpu_us_per_message,
        lateness: None,
    })
}

fn judge(command: &Scale, steps: &[Step]) -> Result<()> {
    let mut wrong = Vec::new();
    let mut check = |what: &str, step: &Step, value: f64, limit: Option<f64>| {
        if let Some(limit) = limit.filter(|&limit| value > limit) {
            let with = &step.what;
            wrong.push(format!(
                "{what} with {with}: {value:.2}, at most {limit} is asked"
            ));
        }
    };
    for step in steps {
        let idle = &step.idle;
        check(
            "idle CPU, percent,",
            step,
            idle.cpu_percent,
            command.idle_cpu_max,
        );
        check(
            "anonymous MiB",
            step,
            idle.anonymous_mib,
            command.anonymous_mib_max,
        );
        if let Some(lateness) = &step.lateness {
            check(
                "p99 of lateness, ms,",
                step,
                lateness.p99_us / 1e3,
                command.late_ms_max,
            );
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Error::Failed(wrong.join("; "))),
    }
}

impl Display for Step {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        write!(
            out,
            "{:<20} in {:>5.1} s; idle {}; {:.0} messages/s at {:.2} µs CPU",
            self.what, self.seconds, self.idle, self.per_second, self.cpu_us_per_message
        )?;
        match &self.lateness {
            Some(lateness) => write!(out, "\n{:<20} {lateness}", "  late by"),
            None => Ok(()),
        }
    }
}
