//! What is measured: each case is one or a few runs of the generator against one broker, reduced to a few numbers.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::Serialize;

use super::features;
use crate::broker_info::BrokerInfo;
use crate::commands::plan_at;
use crate::contender::Contender;
use crate::error::{Error, Result};
use crate::fill;
use crate::load::{self, Lane, Live, Plan, StopWhen};
use crate::options::{Sending, Window};
use crate::process;
use crate::report::{Figures, Latency, SentFigures};
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
    /// One send in flight
    Sync1,
    /// 16 connections with 4 sends in flight each
    Sync64,
    /// 16 connections with 16 sends in flight each
    Sync256,
    /// 5,000 messages a second, each due 1 to 3 seconds after its sending; latencies are how late they come
    Delayed,
    /// The same with delay level 1
    DelayedLevel,
    /// Many messages that are due at one moment
    DelayedBurst,
    /// 16 connections with 8 transactions in flight each, one in 8 rolled back, and a consumer
    Transactions,
    /// Reading a quarter of a topic, chosen by tags
    TagFilter,
    /// Reading a quarter of a topic, chosen by an SQL92 expression
    SqlFilter,
    /// Reading locked queues in order, offsets committed with every pull
    Orderly,
    /// Popping a topic, every message acknowledged on its own
    Pop,
    /// Popping a topic, the messages of each pop acknowledged together
    PopBatch,
}

impl Case {
    pub const ASYNC: [Case; 6] = [
        Case::Send16x32,
        Case::Send16x1,
        Case::Open20k,
        Case::EndToEnd,
        Case::Consume,
        Case::Memory,
    ];
    pub const SYNC: [Case; 3] = [Case::Sync1, Case::Sync64, Case::Sync256];

    /// Connections and sends in flight on each, of cases that only send.
    fn sends(self) -> Option<(u16, u16)> {
        match self {
            Case::Send16x32 => Some((16, 32)),
            Case::Send16x1 => Some((16, 1)),
            Case::Sync1 => Some((1, 1)),
            Case::Sync64 => Some((16, 4)),
            Case::Sync256 => Some((16, 16)),
            _ => None,
        }
    }

    /// Messages that are in flight at once.
    pub fn in_flight(self) -> Option<u32> {
        self.sends()
            .map(|(connections, depth)| u32::from(connections) * u32::from(depth))
    }
}

/// How each case is measured.
#[derive(Clone, Copy)]
pub struct Measuring {
    /// Seconds.
    pub window_s: f64,
    /// Where the generator is pinned to.
    pub cpu: Option<usize>,
}

/// Figures by name.
pub type Measured = BTreeMap<&'static str, f64>;

pub const PER_SECOND: &str = "messages/s";
pub const CPU_US: &str = "CPU µs/message";
pub const P50_US: &str = "p50 µs";
pub const P99_US: &str = "p99 µs";
pub const P999_US: &str = "p99.9 µs";
pub const ANONYMOUS_MIB: &str = "anonymous MiB";
/// Log bytes and messages of a durable commit, on average; brokers that do not tell have none.
pub const COMMIT_BYTES: &str = "bytes/commit";
pub const COMMIT_MESSAGES: &str = "messages/commit";

const WARMUP_S: f64 = 1.0;
/// Messages that the consuming case reads, and how often: processes' CPU time is counted in steps of 10 ms.
const CONSUME_MESSAGES: u64 = 400_000;
const CONSUME_PASSES: u32 = 5;

pub fn run(
    contender: &Contender,
    case: Case,
    label: &str,
    measuring: Measuring,
) -> Result<Measured> {
    if let Some(measured) = features::run(contender, case, label, measuring) {
        return measured;
    }
    let topic = format!("{case:?}-{label}");
    match (case, case.sends()) {
        (Case::Memory, _) => memory(contender),
        (Case::Consume, _) => reading(contender, &topic, measuring),
        (Case::EndToEnd, _) => end_to_end(contender, &topic, measuring),
        (_, Some((connections, depth))) => {
            let sends = sends(connections, depth, None);
            match Case::SYNC.contains(&case) {
                true => committing(contender, &topic, sends, measuring),
                false => sending(contender, &topic, sends, measuring),
            }
        }
        (_, None) => sending(contender, &topic, sends(16, 64, Some(20_000.0)), measuring),
    }
}

/// Nothing but load, for the JVM to compile.
pub fn load(contender: &Contender, measuring: Measuring, seconds: f64) -> Result<()> {
    let lanes = fill::make_topic(contender.broker, "Warm-up")?;
    let window = Window {
        duration: seconds,
        warmup: 0.0,
    };
    let plan = Plan {
        produce: Some(sends(16, 32, None).settings(Encoding::Json)),
        ..plan(contender, lanes, &window, measuring)
    };
    load::run(plan, &Live::default()).map(drop)
}

pub fn sends(connections: u16, depth: u16, rate: Option<f64>) -> Sending {
    Sending {
        connections,
        depth,
        size: fill::BODY_BYTES,
        batch: 1,
        rate,
    }
}

pub fn plan(
    contender: &Contender,
    lanes: Vec<Lane>,
    window: &Window,
    measuring: Measuring,
) -> Plan {
    Plan {
        server_pid: Some(contender.broker_pid()),
        cpu: measuring.cpu,
        ..plan_at(contender.broker, lanes, window)
    }
}

pub fn window(measuring: Measuring) -> Window {
    Window {
        duration: measuring.window_s,
        warmup: WARMUP_S,
    }
}

fn sending(
    contender: &Contender,
    topic: &str,
    sending: Sending,
    measuring: Measuring,
) -> Result<Measured> {
    let lanes = fill::make_topic(contender.broker, topic)?;
    let plan = Plan {
        produce: Some(sending.settings(Encoding::Json)),
        ..plan(contender, lanes, &window(measuring), measuring)
    };
    let figures = Figures::of(&load::run(plan, &Live::default())?);
    let sent = figures.sent.as_ref().expect("the plan sends");
    if sent.messages == 0 {
        return Err(not_taken(contender.name, sent));
    }
    let mut measured = Measured::from([(PER_SECOND, sent.per_second), (CPU_US, cpu_us(&figures)?)]);
    add_latency(&mut measured, &sent.latency);
    Ok(measured)
}

/// The same, and how many bytes and messages the broker made durable at once.
fn committing(
    contender: &Contender,
    topic: &str,
    in_flight: Sending,
    measuring: Measuring,
) -> Result<Measured> {
    let before = BrokerInfo::of(contender.broker)?;
    let mut measured = sending(contender, topic, in_flight, measuring)?;
    let after = BrokerInfo::of(contender.broker)?;
    let grown = |key| after.grown_since(&before, key).filter(|&count| count > 0.0);
    if let (Some(flushes), Some(bytes), Some(messages)) = (
        grown(BrokerInfo::FLUSHES),
        grown(BrokerInfo::FLUSHED_BYTES),
        grown(BrokerInfo::PUT_MESSAGES),
    ) {
        measured.insert(COMMIT_BYTES, bytes / flushes);
        measured.insert(COMMIT_MESSAGES, messages / flushes);
    }
    Ok(measured)
}

fn end_to_end(contender: &Contender, topic: &str, measuring: Measuring) -> Result<Measured> {
    let lanes = fill::make_topic(contender.broker, topic)?;
    let starts = vec![0; lanes.len()];
    let plan = Plan {
        produce: Some(sends(4, 16, Some(1_000.0)).settings(Encoding::Json)),
        consume: Some((fill::reader(1), starts)),
        ..plan(contender, lanes, &window(measuring), measuring)
    };
    let figures = fill::checked(&load::run(plan, &Live::default())?, 0)?;
    let consumed = figures.consumed.as_ref().expect("the plan reads");
    let mut measured = Measured::from([(CPU_US, cpu_us(&figures)?)]);
    add_latency(&mut measured, &consumed.latency);
    Ok(measured)
}

fn reading(contender: &Contender, topic: &str, measuring: Measuring) -> Result<Measured> {
    let lanes = fill::make_topic(contender.broker, topic)?;
    let filled = fill::with_messages(contender.broker, &lanes, CONSUME_MESSAGES)?;
    let (mut messages, mut seconds, mut cpu) = (0.0, 0.0, 0.0);
    for _ in 0..CONSUME_PASSES {
        let until_drained = Window {
            duration: 120.0,
            warmup: 0.0,
        };
        let plan = Plan {
            consume: Some((fill::reader(1), vec![0; lanes.len()])),
            stop_when: StopWhen::Drained,
            ..plan(contender, lanes.clone(), &until_drained, measuring)
        };
        let figures = fill::checked(&load::run(plan, &Live::default())?, filled.refused)?;
        let consumed = figures.consumed.as_ref().expect("the plan reads");
        if consumed.counts.messages < filled.messages {
            let found = consumed.counts.messages;
            return Err(Error::Failed(format!(
                "{} gave {found} messages of {}",
                contender.name, filled.messages
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

/// One send in so many may be refused: brokers may do so when they are busy.
const REFUSED_ONE_IN: u64 = 100;

/// What was sent, if a broker took it.
pub fn accepted<'a>(contender: &Contender, figures: &'a Figures) -> Result<&'a SentFigures> {
    let sent = figures.sent.as_ref().expect("the plan sends");
    match sent.messages_total > sent.refused * REFUSED_ONE_IN {
        true => Ok(sent),
        false => Err(not_taken(contender.name, sent)),
    }
}

fn not_taken(by: &str, sent: &SentFigures) -> Error {
    Error::Failed(match sent.refusals.0.iter().next() {
        None => format!("{by} took nothing"),
        Some((code, (count, remark))) => {
            format!("{by} refused {count} with code {code}: {remark}")
        }
    })
}

fn memory(contender: &Contender) -> Result<Measured> {
    let memory = process::memory(contender.broker_pid());
    let memory = memory.ok_or_else(|| Error::Failed(format!("{} is gone", contender.name)))?;
    Ok(Measured::from([(
        ANONYMOUS_MIB,
        memory.anonymous_kib as f64 / 1024.0,
    )]))
}

pub fn cpu_us(figures: &Figures) -> Result<f64> {
    let server = figures.server.as_ref();
    server
        .map(|server| server.cpu_us_per_message)
        .ok_or_else(|| Error::Failed("the broker's process is gone".into()))
}

pub fn add_latency(measured: &mut Measured, latency: &Latency) {
    measured.insert(P50_US, latency.p50_us);
    measured.insert(P99_US, latency.p99_us);
    measured.insert(P999_US, latency.p999_us);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Refusals;

    #[test]
    fn who_took_nothing_is_named_with_its_reason() {
        let histogram = hdrhistogram::Histogram::new(3).unwrap();
        let mut sent = SentFigures {
            messages: 0,
            messages_total: 7,
            per_second: 0.0,
            refused: 0,
            refusals: Refusals::default(),
            behind: 0,
            latency: Latency::of(&histogram),
        };
        assert_eq!(not_taken("it", &sent).to_string(), "it took nothing");
        sent.refusals.add(14, "the disk is full");
        sent.refusals.add(14, "another");
        let expected = "it refused 2 with code 14: the disk is full";
        assert_eq!(not_taken("it", &sent).to_string(), expected);
    }
}
