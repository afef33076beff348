//! The topic that the consuming cases of a round read, filled when the first of them asks for it. Its messages carry a tag
//! and two properties, so that filters find a quarter of them.

use std::thread;
use std::time::{Duration, Instant};

use crate::compare::cases::Measuring;
use crate::contender::Contender;
use crate::control::Control;
use crate::error::Result;
use crate::fill;
use crate::load::{Choice, Lane};
use crate::member::Wanted;

pub struct Stock {
    pub topic: String,
    pub lanes: Vec<Lane>,
    pub messages: u64,
}

/// Of each row of eight messages the first two.
pub const FILTERED: Choice = Choice::new(2, KINDS as u64);
pub const BY_TAG: Wanted = Wanted::Tags(&["kind-0", "kind-1"]);
pub const BY_SQL: Wanted = Wanted::Sql("number BETWEEN 0 AND 1 AND region IN ('north', 'south')");

const KINDS: usize = 8;
const MESSAGES_PER_SECOND: f64 = 50_000.0;
const INDEX_LIMIT: Duration = Duration::from_secs(20);
const INDEX_POLL: Duration = Duration::from_millis(20);

/// As much as is read in a window, more or less.
pub fn stocked(contender: &Contender, label: &str, measuring: Measuring) -> Result<Stock> {
    let topic = format!("Stock-{label}");
    let lanes = fill::make_topic(contender.broker, &topic)?;
    let stored = || -> Result<u64> {
        let mut control = Control::connect(contender.broker)?;
        let end = |lane: &Lane| control.max_offset(&lane.topic, lane.queue);
        lanes.iter().map(end).sum()
    };
    if stored()? == 0 {
        let messages = (MESSAGES_PER_SECOND * measuring.window_s) as u64;
        let filled = fill::with_properties(contender.broker, &lanes, messages, kinds())?;
        // RocketMQ indexes behind its answers.
        let deadline = Instant::now() + INDEX_LIMIT;
        while stored()? < filled.messages && Instant::now() < deadline {
            thread::sleep(INDEX_POLL);
        }
    }
    Ok(Stock {
        messages: stored()?,
        topic,
        lanes,
    })
}

fn kinds() -> Vec<String> {
    let region = |kind| ["north", "south", "west"][kind % 3];
    let properties = |kind| {
        format!(
            "TAGS\u{1}kind-{kind}\u{2}number\u{1}{kind}\u{2}region\u{1}{}\u{2}",
            region(kind)
        )
    };
    (0..KINDS).map(properties).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_choose_what_is_counted_on() {
        let Wanted::Tags(tags) = BY_TAG else {
            panic!("by tag");
        };
        for (kind, properties) in kinds().iter().enumerate() {
            let is_tagged = tags
                .iter()
                .any(|tag| properties.contains(&format!("\u{1}{tag}\u{2}")));
            assert_eq!(
                is_tagged,
                FILTERED.rank(kind as u64).is_some(),
                "{properties}"
            );
            let is_by_sql =
                kind <= 1 && (properties.contains("north") || properties.contains("south"));
            assert_eq!(is_by_sql, is_tagged, "{properties}");
        }
    }
}
