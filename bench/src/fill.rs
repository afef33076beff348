//! Topics that are filled to be read later, and reading them from the first message to the last. Shared by all that
//! measures reading; nothing here is timed for its own sake.

use std::net::SocketAddr;

use crate::commands::{HOLD_MS, plan_at};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::ledger::Counts;
use crate::load::{self, Choice, Lane, Live, Outcome, Plan, StopWhen, consume, produce};
use crate::options::{Sending, Window};
use crate::report::Figures;
use crate::wire::Encoding;

pub const QUEUES: u32 = 8;
pub const BODY_BYTES: usize = 1024;
/// About what a message of that body takes in the log, with its topic and properties.
pub const RECORD_BYTES: u64 = 1_200;
/// Messages asked for at once.
pub const PULL_MESSAGES: u32 = 32;
/// Messages in one request.
const BATCH: u16 = 32;
/// How long filling or reading a topic may take at most.
const LIMIT_S: f64 = 3_600.0;

pub fn make_topic(broker: SocketAddr, topic: &str) -> Result<Vec<Lane>> {
    Control::connect(broker)?.create_topic(topic, QUEUES)?;
    let lane = |queue| Lane {
        topic: topic.to_owned(),
        queue,
    };
    Ok((0..QUEUES).map(lane).collect())
}

/// How many messages make so many bytes of log.
pub fn messages_of(log_bytes: u64) -> u64 {
    log_bytes.div_ceil(RECORD_BYTES).max(1)
}

/// What a topic was filled with.
#[derive(Clone, Copy, Debug)]
pub struct Filled {
    /// Messages that must be found again.
    pub messages: u64,
    /// Messages that the broker refused: where they were to lie there is nothing.
    pub refused: u64,
}

/// Sends until at least so many messages are acknowledged, in batches. A broker may refuse now and then because it is
/// busy; one that refuses more than it takes ends the run.
pub fn with_messages(broker: SocketAddr, lanes: &[Lane], messages: u64) -> Result<Filled> {
    with_properties(broker, lanes, messages, Vec::new())
}

/// The same with further properties, for the first, second, ... message of each batch and then again from the first.
pub fn with_properties(
    broker: SocketAddr,
    lanes: &[Lane],
    messages: u64,
    properties: Vec<String>,
) -> Result<Filled> {
    let kinds = properties.len().max(1);
    assert_eq!(
        usize::from(BATCH) % kinds,
        0,
        "every batch begins with the first of them"
    );
    let batches = Sending {
        connections: 16,
        depth: 1,
        size: BODY_BYTES,
        batch: BATCH,
        rate: None,
    };
    let plan = Plan {
        produce: Some(produce::Settings {
            properties,
            ..batches.settings(Encoding::Json)
        }),
        stop_when: StopWhen::Acknowledged(messages),
        ..plan_at(broker, lanes.to_vec(), &until_done())
    };
    let outcome = load::run(plan, &Live::default())?;
    let sent = outcome.sent.expect("the plan sends");
    let filled = Filled {
        messages: sent.messages_total,
        refused: sent.refused.total() * u64::from(BATCH),
    };
    match sent.refused.0.into_iter().next() {
        Some((code, (count, remark))) if filled.refused > filled.messages => Err(Error::Failed(
            format!("{count} sends were refused with code {code} while filling: {remark}"),
        )),
        _ => Ok(filled),
    }
}

/// A plan that reads the lanes from their first message to their ends.
pub fn reading(broker: SocketAddr, lanes: &[Lane], connections: usize) -> Plan {
    Plan {
        consume: Some((reader(connections), vec![0; lanes.len()])),
        stop_when: StopWhen::Drained,
        ..plan_at(broker, lanes.to_vec(), &until_done())
    }
}

pub fn reader(connections: usize) -> consume::Settings {
    consume::Settings {
        connections,
        messages: PULL_MESSAGES,
        hold_ms: HOLD_MS,
        group: "orbit-bench".into(),
        encoding: Encoding::Json,
        choice: Choice::ALL,
        subscription: consume::Subscription::Everything,
        commits: false,
    }
}

fn until_done() -> Window {
    Window {
        duration: LIMIT_S,
        warmup: 0.0,
    }
}

/// The figures, if what was consumed is what was sent; gaps are as many as were refused at most.
pub fn checked(outcome: &Outcome, refused: u64) -> Result<Figures> {
    let figures = Figures::of(outcome);
    match &figures.consumed {
        Some(consumed) if !is_clean(&consumed.counts, refused) => Err(Error::Failed(format!(
            "what was consumed is not what was sent ({refused} refused): {:?}",
            consumed.counts
        ))),
        Some(consumed) if consumed.refused > 0 => Err(Error::Failed(format!(
            "pulls were refused: {:?}",
            consumed.refusals.0
        ))),
        _ => Ok(figures),
    }
}

fn is_clean(counts: &Counts, refused: u64) -> bool {
    let but_for_gaps = Counts { lost: 0, ..*counts };
    but_for_gaps.is_clean() && counts.lost <= refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_bytes_become_messages_and_never_none() {
        assert_eq!((messages_of(0), messages_of(2_401)), (1, 3));
    }

    #[test]
    fn what_was_refused_may_be_missing_and_nothing_else() {
        let gaps = |lost, damaged| Counts {
            lost,
            damaged,
            ..Counts::default()
        };
        assert!(is_clean(&gaps(0, 0), 0) && is_clean(&gaps(32, 0), 32));
        assert!(!is_clean(&gaps(33, 0), 32) && !is_clean(&gaps(0, 1), 32));
    }
}
