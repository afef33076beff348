//! What is measured: each case is one or a few runs of the generator against one broker, reduced to a few numbers.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::Serialize;

use super::Compare;
use super::contender::Contender;
use crate::commands::{HOLD_MS, plan_at};
use crate::error::{Error, Result};
use crate::load::{self, Lane, Live, Outcome, Plan, StopWhen, consume};
use crate::options::{Sending, Window};
use crate::process;
use crate::report::{Figures, Latency};
use crate::wire::Encoding;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// 16 connections with 32 sends in flight each
    Send16x32,
    /// 16 connections with one send in flight each
    Send16x1,
    /// 20,000 sends a second, latency counted from the intended start
    Open20k,
    /// 1,000 messages a second from the send to a long-polling consumer
    EndToEnd,
    /// Reading what was just sent, from memory
    Consume,
    /// Anonymous memory of the broker after the cases before
    Memory,
}

impl Case {
    pub const ALL: [Case; 6] = [
        Case::Send16x32,
        Case::Send16x1,
        Case::Open20k,
        Case::EndToEnd,
        Case::Consume,
        Case::Memory,
    ];
}

/// Figures by name.
pub type Measured = BTreeMap<&'static str, f64>;

pub const PER_SECOND: &str = "messages/s";
pub const CPU_US: &str = "CPU µs/message";
pub const P50_US: &str = "p50 µs";
pub const P99_US: &str = "p99 µs";
pub const P999_US: &str = "p99.9 µs";
pub const ANONYMOUS_MIB: &str = "anonymous MiB";

const QUEUES: u32 = 8;
const BODY_BYTES: usize = 1024;
const WARMUP_S: f64 = 1.0;
/// Messages that the consuming case reads, and how often: processes' CPU time is counted in steps of 10 ms.
const CONSUME_MESSAGES: u64 = 400_000;
const CONSUME_PASSES: u32 = 5;

pub fn run(contender: &Contender, case: Case, label: &str, command: &Compare) -> Result<Measured> {
    let topic = format!("{case:?}-{label}");
    match case {
        Case::Memory => memory(contender),
        Case::Consume => reading(contender, &topic, command),
        Case::Send16x32 => sending(contender, &topic, sends(16, 32, None), command),
        Case::Send16x1 => sending(contender, &topic, sends(16, 1, None), command),
        Case::Open20k => sending(contender, &topic, sends(16, 64, Some(20_000.0)), command),
        Case::EndToEnd => end_to_end(contender, &topic, command),
    }
}

/// Nothing but load, for the JVM to compile.
pub fn load(contender: &Contender, command: &Compare, seconds: f64) -> Result<()> {
    let lanes = make_topic(contender, "Warm-up")?;
    let window = Window {
        duration: seconds,
        warmup: 0.0,
    };
    let plan = Plan {
        produce: Some(sends(16, 32, None).settings(Encoding::Json)),
        ..plan(contender, lanes, &window, command)
    };
    load::run(plan, &Live::default()).map(drop)
}

fn sends(connections: u16, depth: u16, rate: Option<f64>) -> Sending {
    Sending {
        connections,
        depth,
        size: BODY_BYTES,
        batch: 1,
        rate,
    }
}

fn make_topic(contender: &Contender, topic: &str) -> Result<Vec<Lane>> {
    contender.control()?.create_topic(topic, QUEUES)?;
    let lane = |queue| Lane {
        topic: topic.to_owned(),
        queue,
    };
    Ok((0..QUEUES).map(lane).collect())
}

fn plan(contender: &Contender, lanes: Vec<Lane>, window: &Window, command: &Compare) -> Plan {
    Plan {
        server_pid: Some(contender.broker_pid()),
        cpu: command.cpu,
        ..plan_at(contender.broker, lanes, window)
    }
}

fn window(command: &Compare) -> Window {
    Window {
        duration: command.window,
        warmup: WARMUP_S,
    }
}

fn sending(
    contender: &Contender,
    topic: &str,
    sending: Sending,
    command: &Compare,
) -> Result<Measured> {
    let lanes = make_topic(contender, topic)?;
    let plan = Plan {
        produce: Some(sending.settings(Encoding::Json)),
        ..plan(contender, lanes, &window(command), command)
    };
    let figures = Figures::of(&load::run(plan, &Live::default())?);
    let sent = figures.sent.as_ref().expect("the plan sends");
    let mut measured = Measured::from([(PER_SECOND, sent.per_second), (CPU_US, cpu_us(&figures)?)]);
    add_latency(&mut measured, &sent.latency);
    Ok(measured)
}

fn end_to_end(contender: &Contender, topic: &str, command: &Compare) -> Result<Measured> {
    let lanes = make_topic(contender, topic)?;
    let starts = vec![0; lanes.len()];
    let plan = Plan {
        produce: Some(sends(4, 16, Some(1_000.0)).settings(Encoding::Json)),
        consume: Some((reader(1), starts)),
        ..plan(contender, lanes, &window(command), command)
    };
    let figures = checked(&load::run(plan, &Live::default())?)?;
    let consumed = figures.consumed.as_ref().expect("the plan reads");
    let mut measured = Measured::from([(CPU_US, cpu_us(&figures)?)]);
    add_latency(&mut measured, &consumed.latency);
    Ok(measured)
}

fn reading(contender: &Contender, topic: &str, command: &Compare) -> Result<Measured> {
    let lanes = make_topic(contender, topic)?;
    let ends = fill(contender, &lanes, command)?;
    let (mut messages, mut seconds, mut cpu) = (0.0, 0.0, 0.0);
    for _ in 0..CONSUME_PASSES {
        let until_drained = Window {
            duration: 120.0,
            warmup: 0.0,
        };
        let plan = Plan {
            consume: Some((reader(1), vec![0; lanes.len()])),
            stop_when: StopWhen::Drained,
            ..plan(contender, lanes.clone(), &until_drained, command)
        };
        let figures = checked(&load::run(plan, &Live::default())?)?;
        let consumed = figures.consumed.as_ref().expect("the plan reads");
        if consumed.counts.messages < ends {
            let found = consumed.counts.messages;
            return Err(Error::Failed(format!(
                "{} gave {found} messages of {ends}",
                contender.name
            )));
        }
        messages += consumed.messages as f64;
        seconds += figures.window_s;
        cpu += cpu_us(&figures)? * consumed.messages as f64;
    }
    Ok(Measured::from([
        (PER_SECOND, messages / seconds),
        (CPU_US, cpu / messages),
    ]))
}

/// Sends the messages that are to be read, in batches; the number that must be found again.
fn fill(contender: &Contender, lanes: &[Lane], command: &Compare) -> Result<u64> {
    let batches = Sending {
        batch: 32,
        ..sends(16, 1, None)
    };
    let window = Window {
        duration: 60.0,
        warmup: 0.0,
    };
    let plan = Plan {
        produce: Some(batches.settings(Encoding::Json)),
        stop_when: StopWhen::Acknowledged(CONSUME_MESSAGES),
        ..plan(contender, lanes.to_vec(), &window, command)
    };
    let outcome = load::run(plan, &Live::default())?;
    Ok(outcome.sent.expect("the plan sends").messages_total)
}

fn memory(contender: &Contender) -> Result<Measured> {
    let memory = process::memory(contender.broker_pid());
    let memory = memory.ok_or_else(|| Error::Failed(format!("{} is gone", contender.name)))?;
    Ok(Measured::from([(
        ANONYMOUS_MIB,
        memory.anonymous_kib as f64 / 1024.0,
    )]))
}

fn reader(connections: usize) -> consume::Settings {
    consume::Settings {
        connections,
        messages: 32,
        hold_ms: HOLD_MS,
        group: "orbit-bench".into(),
        encoding: Encoding::Json,
    }
}

fn checked(outcome: &Outcome) -> Result<Figures> {
    let figures = Figures::of(outcome);
    match &figures.consumed {
        Some(consumed) if !consumed.counts.is_clean() => Err(Error::Failed(format!(
            "what was consumed is not what was sent: {:?}",
            consumed.counts
        ))),
        _ => Ok(figures),
    }
}

fn cpu_us(figures: &Figures) -> Result<f64> {
    let server = figures.server.as_ref();
    server
        .map(|server| server.cpu_us_per_message)
        .ok_or_else(|| Error::Failed("the broker's process is gone".into()))
}

fn add_latency(measured: &mut Measured, latency: &Latency) {
    measured.insert(P50_US, latency.p50_us);
    measured.insert(P99_US, latency.p99_us);
    measured.insert(P999_US, latency.p999_us);
}
