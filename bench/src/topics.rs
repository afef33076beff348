//! `topics`: what many topics cost. Creates them, asks for every route, watches the broker idle, and (parked.rs)
//! lets thousands of long polls wait and wakes each with a message.

mod parked;

use std::cell::Cell;
use std::fmt::{self, Display, Formatter};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::control::{Control, topic_fields};
use crate::error::{Error, Result};
use crate::idle::{Idle, watch_idle};
use crate::load::Latencies;
use crate::options::Target;
use crate::progress::bar;
use crate::report::{Latency, write_json};
use crate::wire::{self, request, response};

#[derive(Args)]
pub struct Topics {
    #[command(flatten)]
    target: Target,
    /// How many topics
    #[arg(long, short = 'n', default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    #[arg(long, short = 'q', default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    queues: u32,
    /// What the topics' names begin with
    #[arg(long, default_value = "orbit-bench-many")]
    topic: String,
    /// Creations in flight
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    depth: u16,
    /// The topics are there already
    #[arg(long)]
    no_create: bool,
    /// Seconds of rest before the broker is watched idle
    #[arg(long, default_value_t = 3.0)]
    settle: f64,
    /// Seconds the broker is watched idle
    #[arg(long, default_value_t = 10.0)]
    idle: f64,
    /// Long polls to be parked, one for each queue
    #[arg(long, default_value_t = 0)]
    parked: u32,
    /// Connections that hold the parked long polls
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,
    /// Fail above this idle CPU, percent
    #[arg(long)]
    idle_cpu_max: Option<f64>,
    /// Fail above this anonymous memory
    #[arg(long)]
    anonymous_mib_max: Option<f64>,
    /// Fail if the 99th percentile of wake-ups takes longer
    #[arg(long)]
    wake_ms_max: Option<f64>,
    /// How long the broker is asked to hold them, seconds
    #[arg(long, default_value_t = 600)]
    hold: u64,
}

#[derive(Default, Serialize)]
struct Report {
    topics: u32,
    queues: u32,
    creation: Option<Creation>,
    route_queries: Option<Latency>,
    idle: Option<Idle>,
    parked: Option<parked::Parked>,
}

#[derive(Serialize)]
struct Creation {
    seconds: f64,
    per_second: f64,
    latency: Latency,
    /// From the last creation until the name server routed every topic.
    routed_after_s: Option<f64>,
}

const ROUTED_LIMIT: Duration = Duration::from_secs(120);
const ROUTED_POLL: Duration = Duration::from_millis(100);

pub fn run(command: Topics) -> Result<()> {
    let names: Vec<String> = (0..command.count)
        .map(|index| format!("{}-{index}", command.topic))
        .collect();
    let broker = command.target.broker()?;
    let mut control = Control::connect(broker)?;
    let line = bar("topics");
    let mut report = Report {
        topics: command.count,
        queues: command.queues,
        ..Report::default()
    };
    if !command.no_create {
        line.set_message("creating");
        report.creation = Some(create(&command, &mut control, &names)?);
    }
    if let Some(mut namesrv) = command.target.namesrv_control()? {
        line.set_message("waiting for the routes");
        let started = Instant::now();
        wait_until_routed(&mut namesrv, &names)?;
        if let Some(creation) = report.creation.as_mut() {
            creation.routed_after_s = Some(started.elapsed().as_secs_f64());
        }
        report.route_queries = Some(query_routes(&mut namesrv, &names)?);
    }
    line.set_message("resting");
    thread::sleep(Duration::from_secs_f64(command.settle));
    report.idle = command
        .target
        .pid
        .and_then(|pid| watch_idle(pid, command.idle));
    if command.parked > 0 {
        line.set_message("parked long polls");
        report.parked = Some(parked::run(&command, broker, &mut control, &names)?);
    }
    line.finish_and_clear();
    println!("{report}");
    write_json(command.target.json.as_deref(), &report)?;
    report.judge(&command)
}

fn create(command: &Topics, control: &mut Control, names: &[String]) -> Result<Creation> {
    let queues = command.queues.to_string();
    let started = Instant::now();
    let asked_at: Vec<Cell<Instant>> = vec![Cell::new(started); names.len()];
    let mut latencies = empty_histogram();
    control.pipeline(
        names.len(),
        usize::from(command.depth),
        |index, opaque, out| {
            asked_at[index].set(Instant::now());
            let fields = topic_fields(&names[index], &queues);
            let code = request::UPDATE_AND_CREATE_TOPIC;
            wire::write_request(out, command.target.encoding, code, opaque, &fields, b"");
        },
        |index, reply| match reply.code {
            response::SUCCESS => {
                latencies.saturating_record(asked_at[index].get().elapsed().as_nanos() as u64);
                Ok(())
            }
            code => Err(Error::Refused {
                what: "creating a topic".into(),
                code,
                remark: reply.remark(),
            }),
        },
    )?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(Creation {
        seconds,
        per_second: names.len() as f64 / seconds,
        latency: Latency::of(&latencies),
        routed_after_s: None,
    })
}

fn empty_histogram() -> Histogram<u64> {
    Latencies::default().histogram
}

fn wait_until_routed(namesrv: &mut Control, names: &[String]) -> Result<()> {
    let deadline = Instant::now() + ROUTED_LIMIT;
    for name in names {
        while namesrv.route(name)?.is_none() {
            if Instant::now() > deadline {
                return Err(Error::Failed(format!(
                    "{name} has no route after {ROUTED_LIMIT:?}"
                )));
            }
            thread::sleep(ROUTED_POLL);
        }
    }
    Ok(())
}

fn query_routes(namesrv: &mut Control, names: &[String]) -> Result<Latency> {
    let mut latencies = empty_histogram();
    for name in names {
        let asked = Instant::now();
        namesrv.route(name)?;
        latencies.saturating_record(asked.elapsed().as_nanos() as u64);
    }
    Ok(Latency::of(&latencies))
}

impl Report {
    fn judge(&self, limits: &Topics) -> Result<()> {
        let mut wrong = Vec::new();
        let mut check = |what: &str, value: Option<f64>, limit: Option<f64>| {
            if let Some(limit) = limit {
                match value {
                    Some(value) if value <= limit => {}
                    Some(value) => {
                        wrong.push(format!("{what}: {value:.2}, at most {limit} is asked"))
                    }
                    None => wrong.push(format!("{what}: not measured")),
                }
            }
        };
        let parked = self.parked.as_ref();
        let idle = [
            self.idle.as_ref(),
            parked.and_then(|parked| parked.idle.as_ref()),
        ];
        // The worse of the two counts, where there are two.
        let worst =
            |figure: fn(&Idle) -> f64| idle.into_iter().flatten().map(figure).reduce(f64::max);
        check(
            "idle CPU, percent",
            worst(|idle| idle.cpu_percent),
            limits.idle_cpu_max,
        );
        check(
            "anonymous MiB",
            worst(|idle| idle.anonymous_mib),
            limits.anonymous_mib_max,
        );
        check(
            "p99 of wake-ups, ms",
            parked.map(|parked| parked.wake_ups.p99_us / 1e3),
            limits.wake_ms_max,
        );
        if parked.is_some_and(|parked| parked.never_woken + parked.answered_early > 0) {
            wrong.push("long polls that were not woken by their message".into());
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Error::Failed(wrong.join("; "))),
        }
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        write!(out, "topics     {} of {} queues", self.topics, self.queues)?;
        if let Some(creation) = &self.creation {
            write!(
                out,
                "\ncreated    {:.0}/s in {:.1} s; {}",
                creation.per_second, creation.seconds, creation.latency
            )?;
            if let Some(seconds) = creation.routed_after_s {
                write!(out, "\nrouted     all, {seconds:.2} s later")?;
            }
        }
        if let Some(queries) = &self.route_queries {
            write!(out, "\nroute      {queries}")?;
        }
        if let Some(idle) = &self.idle {
            write!(out, "\nidle       {idle}")?;
        }
        if let Some(parked) = &self.parked {
            write!(out, "\n{parked}")?;
        }
        Ok(())
    }
}
