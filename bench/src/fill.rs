//! Topics that are filled to be read later, and reading them from the first message to the last. Shared by all that
//! measures reading; nothing here is timed for its own sake.

use std::net::SocketAddr;

use crate::commands::{HOLD_MS, plan_at};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::load::{self, Lane, Live, Outcome, Plan, StopWhen, consume};
use crate::options::{Sending, Window};
use crate::report::Figures;
use crate::wire::Encoding;

pub const QUEUES: u32 = 8;
pub const BODY_BYTES: usize = 1024;
/// About what a message of that body takes in the log, with its topic and properties.
pub const RECORD_BYTES: u64 = 1_200;
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

/// Sends at least so many messages, in batches; the number that must be found again.
pub fn with_messages(broker: SocketAddr, lanes: &[Lane], messages: u64) -> Result<u64> {
    let batches = Sending {
        connections: 16,
        depth: 1,
        size: BODY_BYTES,
        batch: 32,
        rate: None,
    };
    let plan = Plan {
        produce: Some(batches.settings(Encoding::Json)),
        stop_when: StopWhen::Acknowledged(messages),
        ..plan_at(broker, lanes.to_vec(), &until_done())
    };
    let sent = load::run(plan, &Live::default())?
        .sent
        .expect("the plan sends");
    if let Some((code, (count, remark))) = sent.refused.0.into_iter().next() {
        return Err(Error::Failed(format!(
            "{count} sends were refused with code {code} while filling: {remark}"
        )));
    }
    Ok(sent.messages_total)
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
        messages: 32,
        hold_ms: HOLD_MS,
        group: "orbit-bench".into(),
        encoding: Encoding::Json,
    }
}

fn until_done() -> Window {
    Window {
        duration: LIMIT_S,
        warmup: 0.0,
    }
}

/// The figures, if what was consumed is what was sent.
pub fn checked(outcome: &Outcome) -> Result<Figures> {
    let figures = Figures::of(outcome);
    match &figures.consumed {
        Some(consumed) if !consumed.counts.is_clean() => Err(Error::Failed(format!(
            "what was consumed is not what was sent: {:?}",
            consumed.counts
        ))),
        Some(consumed) if consumed.refused > 0 => Err(Error::Failed(format!(
            "pulls were refused: {:?}",
            consumed.refusals.0
        ))),
        _ => Ok(figures),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_bytes_become_messages_and_never_none() {
        assert_eq!((messages_of(0), messages_of(2_401)), (1, 3));
    }
}
