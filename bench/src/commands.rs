//! `produce`, `consume` and `e2e`: one plan each, run and judged.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::load::{Choice, DRAIN_LIMIT, Lane, Plan, StopWhen, consume};
use crate::options::{Sending, Target, Topics, Window};
use crate::progress;
use crate::report::{Figures, write_json};
use crate::wire::Encoding;

#[derive(Args)]
pub struct Produce {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    topics: Topics,
    #[command(flatten)]
    sending: Sending,
    #[command(flatten)]
    window: Window,
}

#[derive(Args)]
pub struct Consume {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    topics: Topics,
    #[command(flatten)]
    reading: Reading,
    /// Where to begin
    #[arg(long, value_enum, default_value = "first")]
    from: From,
    /// Read on when the queues' ends are reached, until the time is up
    #[arg(long)]
    follow: bool,
    /// Messages that must be found at least
    #[arg(long)]
    expect: Option<u64>,
    /// Messages of one producer must come in the order sent (several in flight do not on every broker)
    #[arg(long)]
    check_order: bool,
    /// Seconds after which it ends in any case
    #[arg(long, short = 't', default_value_t = 3600.0)]
    duration: f64,
}

#[derive(Args)]
pub struct EndToEnd {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    topics: Topics,
    #[command(flatten)]
    sending: Sending,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    window: Window,
    /// As for consume
    #[arg(long)]
    check_order: bool,
}

#[derive(Args, Clone)]
pub struct Reading {
    /// Connections that pull; queues are spread over them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    readers: u16,
    /// Messages asked for in one pull
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pull: u32,
    #[arg(long, default_value = "orbit-bench")]
    group: String,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum From {
    First,
    Last,
}

pub const HOLD_MS: u64 = 15_000;

impl Reading {
    fn settings(&self, encoding: Encoding) -> consume::Settings {
        consume::Settings {
            connections: usize::from(self.readers),
            messages: self.pull,
            hold_ms: HOLD_MS,
            group: self.group.clone(),
            encoding,
            choice: Choice::ALL,
            subscription: consume::Subscription::Everything,
            commits: false,
        }
    }
}

pub fn produce(command: Produce) -> Result<()> {
    let broker = command.target.broker()?;
    command
        .topics
        .prepare(&command.target, &mut Control::connect(broker)?)?;
    let plan = Plan {
        produce: Some(command.sending.settings(command.target.encoding)),
        ..plan(
            &command.target,
            broker,
            command.topics.lanes(),
            &command.window,
        )
    };
    let figures = run("produce", plan, &command.target)?;
    match &figures.sent {
        Some(sent) if sent.refused == 0 && sent.messages > 0 => Ok(()),
        _ => Err(Error::Failed("not every send was accepted".into())),
    }
}

pub fn consume(command: Consume) -> Result<()> {
    let broker = command.target.broker()?;
    let mut control = Control::connect(broker)?;
    let lanes = command.topics.lanes();
    let starts = starts(&mut control, &lanes, command.from)?;
    let window = Window {
        duration: command.duration,
        warmup: 0.0,
    };
    let plan = Plan {
        consume: Some((command.reading.settings(command.target.encoding), starts)),
        joins_late: command.from == From::Last,
        stop_when: if command.follow {
            StopWhen::Time
        } else {
            StopWhen::Drained
        },
        ..plan(&command.target, broker, lanes, &window)
    };
    let figures = run("consume", plan, &command.target)?;
    judge(&figures, command.check_order)?;
    let found = figures
        .consumed
        .map_or(0, |consumed| consumed.counts.messages);
    match command.expect {
        Some(expected) if found < expected => Err(Error::Failed(format!(
            "{found} messages found, {expected} expected"
        ))),
        _ => Ok(()),
    }
}

pub fn end_to_end(command: EndToEnd) -> Result<()> {
    let broker = command.target.broker()?;
    let mut control = Control::connect(broker)?;
    command.topics.prepare(&command.target, &mut control)?;
    let lanes = command.topics.lanes();
    let starts = starts(&mut control, &lanes, From::Last)?;
    let encoding = command.target.encoding;
    let plan = Plan {
        produce: Some(command.sending.settings(encoding)),
        consume: Some((command.reading.settings(encoding), starts)),
        ..plan(&command.target, broker, lanes, &command.window)
    };
    let figures = run("e2e", plan, &command.target)?;
    judge(&figures, command.check_order)
}

/// A plan that does nothing yet.
pub fn plan_at(broker: SocketAddr, lanes: Vec<Lane>, window: &Window) -> Plan {
    Plan {
        broker,
        lanes,
        produce: None,
        consume: None,
        pop: None,
        warmup: Duration::from_secs_f64(window.warmup),
        duration: Duration::from_secs_f64(window.duration),
        drain: DRAIN_LIMIT,
        stop_when: StopWhen::Time,
        server_pid: None,
        cpu: None,
        recorder: None,
        observer: None,
        joins_late: false,
        may_disconnect: false,
    }
}

pub fn plan(target: &Target, broker: SocketAddr, lanes: Vec<Lane>, window: &Window) -> Plan {
    Plan {
        server_pid: target.pid,
        cpu: target.cpu,
        ..plan_at(broker, lanes, window)
    }
}

fn starts(control: &mut Control, lanes: &[Lane], from: From) -> Result<Vec<u64>> {
    let start = |lane: &Lane| match from {
        From::First => control.min_offset(&lane.topic, lane.queue),
        From::Last => control.max_offset(&lane.topic, lane.queue),
    };
    lanes.iter().map(start).collect()
}

fn run(title: &str, plan: Plan, target: &Target) -> Result<Figures> {
    let figures = Figures::of(&progress::run(title, plan)?);
    println!("{figures}");
    write_json(target.json.as_deref(), &figures)?;
    Ok(figures)
}

fn judge(figures: &Figures, check_order: bool) -> Result<()> {
    let Some(consumed) = &figures.consumed else {
        return Ok(());
    };
    if !consumed.counts.is_clean() || (check_order && consumed.counts.out_of_order > 0) {
        return Err(Error::Failed(
            "what was consumed is not what was sent".into(),
        ));
    }
    Ok(())
}
