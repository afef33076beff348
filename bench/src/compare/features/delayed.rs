//! Delayed messages: sent at a steady rate with a time or a level, and many of them due at one moment. Latencies are how
//! late they arrive; one that arrives before its time fails the run.

use std::sync::Arc;
use std::time::Duration;

use crate::arrivals::Arrivals;
use crate::compare::cases::{self, CPU_US, Measured, Measuring, PER_SECOND};
use crate::contender::Contender;
use crate::error::{Error, Result};
use crate::fill;
use crate::load::produce::Delay;
use crate::load::{self, Live, Outcome, Plan, StopWhen, produce};
use crate::options::{Sending, Window};
use crate::payload::Clock;
use crate::process;
use crate::report::Figures;
use crate::wire::Encoding;

const PER_SECOND_SENT: f64 = 5_000.0;
/// Messages that are due at one moment, for each second of the window, and how long before it the first is sent.
const BURST_PER_SECOND: f64 = 25_000.0;
const BURST_AHEAD_MS: u64 = 8_000;
/// How long what is due may take to arrive.
const DRAIN: Duration = Duration::from_secs(30);

/// Due one to three seconds after their sending.
pub fn timed(contender: &Contender, topic: &str, measuring: Measuring) -> Result<Measured> {
    let delay = Delay::Between {
        least_ms: 1_000,
        most_ms: 3_000,
    };
    steady(contender, topic, delay, 4.0, measuring)
}

pub fn level(contender: &Contender, topic: &str, measuring: Measuring) -> Result<Measured> {
    steady(contender, topic, Delay::Level, 2.0, measuring)
}

/// The warm-up is long enough that as many are delivered as sent.
fn steady(
    contender: &Contender,
    topic: &str,
    delay: Delay,
    warmup_s: f64,
    measuring: Measuring,
) -> Result<Measured> {
    let window = Window {
        duration: measuring.window_s,
        warmup: warmup_s,
    };
    let sending = cases::sends(4, 64, Some(PER_SECOND_SENT));
    let plan = plan(contender, topic, delay, sending, &window, measuring)?;
    let (_, figures) = run(contender, plan)?;
    let consumed = figures.consumed.as_ref().expect("the plan reads");
    let mut measured = Measured::from([
        (PER_SECOND, consumed.per_second),
        (CPU_US, cases::cpu_us(&figures)?),
    ]);
    cases::add_latency(&mut measured, &consumed.latency);
    Ok(measured)
}

/// All due at once: how fast they are delivered, and what each has cost from its sending on.
pub fn burst(contender: &Contender, topic: &str, measuring: Measuring) -> Result<Measured> {
    let wall_ms = Clock::start().now_ns() / 1_000_000 + BURST_AHEAD_MS;
    let messages = (BURST_PER_SECOND * measuring.window_s) as u64;
    let window = Window {
        duration: BURST_AHEAD_MS as f64 / 1e3,
        warmup: 0.0,
    };
    let sending = cases::sends(16, 8, None);
    let delay = Delay::At { wall_ms };
    let plan = Plan {
        stop_when: StopWhen::Acknowledged(messages),
        ..plan(contender, topic, delay, sending, &window, measuring)?
    };
    let cpu = || process::cpu_time_us(contender.broker_pid()).ok_or_else(|| gone(contender));
    let before_us = cpu()?;
    let (arrivals, figures) = run(contender, plan)?;
    let cost_us = (cpu()? - before_us) as f64;
    let sent = cases::accepted(contender, &figures)?.messages_total;
    if sent < messages {
        return Err(Error::Failed(format!(
            "{} took {sent} delayed messages of {messages} in {BURST_AHEAD_MS} ms",
            contender.name
        )));
    }
    let due_ns = wall_ms * 1_000_000;
    let seconds = arrivals.last_ns().saturating_sub(due_ns) as f64 / 1e9;
    Ok(Measured::from([
        (PER_SECOND, sent as f64 / seconds),
        (CPU_US, cost_us / sent as f64),
    ]))
}

fn plan(
    contender: &Contender,
    topic: &str,
    delay: Delay,
    sending: Sending,
    window: &Window,
    measuring: Measuring,
) -> Result<Plan> {
    let lanes = fill::make_topic(contender.broker, topic)?;
    let produce = produce::Settings {
        delay: Some(delay),
        ..sending.settings(Encoding::Json)
    };
    let starts = vec![0; lanes.len()];
    Ok(Plan {
        produce: Some(produce),
        consume: Some((fill::reader(1), starts)),
        drain: DRAIN,
        ..cases::plan(contender, lanes, window, measuring)
    })
}

fn run(contender: &Contender, plan: Plan) -> Result<(Arc<Arrivals>, Figures)> {
    let (arrivals, observer) = Arrivals::observed();
    let plan = Plan {
        observer: Some(observer),
        ..plan
    };
    let outcome: Outcome = load::run(plan, &Live::default())?;
    arrivals.judge(contender.name)?;
    let figures = fill::checked(&outcome, 0)?;
    cases::accepted(contender, &figures)?;
    Ok((arrivals, figures))
}

fn gone(contender: &Contender) -> Error {
    Error::Failed(format!("{} is gone", contender.name))
}
