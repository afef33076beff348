//! What POP says about messages in texts: the handle by which one is acknowledged, and where the messages of an answer
//! come from.
//!
//! ```text
//! handle              start popTime invisibleTime reviveQueue retry broker queue offset
//! startOffsetInfo     retry queue start;...
//! msgOffsetInfo       retry queue offset,offset,...;...
//! orderCountInfo      retry qo<queue>%<offset> count;...;retry queue count;...
//! ```
//!
//! `retry` is 0 for the topic itself, 1 and 2 for the two names its retry topic may have.

use std::fmt::Write;

use crate::names::RETRY_PREFIX;

/// In place of a revive queue: popped in order.
pub const ORDERED: i32 = 999;

const RETRY_V1: char = '_';
const RETRY_V2: char = '+';

/// Which of a group's three topics a message lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    Topic,
    RetryV1,
    RetryV2,
}

impl Origin {
    /// Of a topic as it is stored.
    pub fn of(topic: &str) -> Self {
        match topic.strip_prefix(RETRY_PREFIX) {
            None => Self::Topic,
            Some(rest) if rest.contains(RETRY_V2) => Self::RetryV2,
            Some(_) => Self::RetryV1,
        }
    }

    pub fn mark(self) -> char {
        match self {
            Self::Topic => '0',
            Self::RetryV1 => '1',
            Self::RetryV2 => '2',
        }
    }

    pub fn from_mark(mark: &str) -> Option<Self> {
        match mark {
            "0" => Some(Self::Topic),
            "1" => Some(Self::RetryV1),
            "2" => Some(Self::RetryV2),
            _ => None,
        }
    }

    /// The name under which messages of this origin are stored.
    pub fn topic(self, topic: &str, group: &str) -> String {
        match self {
            Self::Topic => topic.to_owned(),
            Self::RetryV1 => format!("{RETRY_PREFIX}{group}{RETRY_V1}{topic}"),
            Self::RetryV2 => format!("{RETRY_PREFIX}{group}{RETRY_V2}{topic}"),
        }
    }
}

/// What identifies one delivery of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    pub pop_ms: i64,
    pub invisible_ms: i64,
    pub is_ordered: bool,
}

impl Handle {
    /// None if the text is no handle.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        words.next()?;
        let pop_ms = words.next()?.parse().ok()?;
        let invisible_ms = words.next()?.parse().ok()?;
        let revive_queue: i32 = words.next()?.parse().ok()?;
        Some(Self {
            pop_ms,
            invisible_ms,
            is_ordered: revive_queue == ORDERED,
        })
    }
}

/// The texts of an answer, one part for each queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Infos {
    pub start_offsets: String,
    pub message_offsets: String,
    pub order_counts: String,
}

impl Infos {
    /// Messages of one queue; each queue once in an answer. `times` says how often each was delivered before.
    pub fn add(&mut self, origin: Origin, queue_id: u32, offsets: &[u64], times: &[u32]) {
        assert_eq!(offsets.len(), times.len(), "a count for each message");
        let mark = origin.mark();
        let Some(&start) = offsets.iter().min() else {
            return;
        };
        part(
            &mut self.start_offsets,
            format_args!("{mark} {queue_id} {start}"),
        );
        part(
            &mut self.message_offsets,
            format_args!("{mark} {queue_id} "),
        );
        for (index, offset) in offsets.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            put(&mut self.message_offsets, format_args!("{comma}{offset}"));
        }
        let again = offsets.iter().zip(times).filter(|(_, times)| **times > 0);
        for (offset, times) in again {
            part(
                &mut self.order_counts,
                format_args!("{mark} qo{queue_id}%{offset} {times}"),
            );
        }
        let least = times.iter().min().expect("as many as offsets");
        part(
            &mut self.order_counts,
            format_args!("{mark} {queue_id} {least}"),
        );
    }
}

fn part(text: &mut String, words: std::fmt::Arguments<'_>) {
    if !text.is_empty() {
        text.push(';');
    }
    put(text, words);
}

fn put(text: &mut String, words: std::fmt::Arguments<'_>) {
    text.write_fmt(words).expect("strings take everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_as_clients_send_it_back() {
        let handle = Handle::parse("12 1700000000000 60000 3 0 broker-a 2 17").expect("one");
        assert_eq!(handle.pop_ms, 1_700_000_000_000);
        assert_eq!(handle.invisible_ms, 60_000);
        assert!(!handle.is_ordered);
        assert!(Handle::parse("1 2 3 999 0 b 0 1").expect("one").is_ordered);
        for broken in ["", "1", "1 2 3", "1 x 3 4", "1 2 3 four"] {
            assert_eq!(Handle::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn the_texts_of_an_answer_name_each_queue_once() {
        let mut infos = Infos::default();
        infos.add(Origin::Topic, 2, &[10, 12, 13], &[0, 0, 0]);
        infos.add(Origin::RetryV1, 0, &[7], &[3]);
        assert_eq!(infos.start_offsets, "0 2 10;1 0 7");
        assert_eq!(infos.message_offsets, "0 2 10,12,13;1 0 7");
        assert_eq!(infos.order_counts, "0 2 0;1 qo0%7 3;1 0 3");
    }

    #[test]
    fn a_retry_topic_is_known_by_its_name() {
        for origin in [Origin::Topic, Origin::RetryV1, Origin::RetryV2] {
            let topic = origin.topic("t", "g");
            assert_eq!(Origin::of(&topic), origin, "{topic}");
            assert_eq!(Origin::from_mark(&origin.mark().to_string()), Some(origin));
        }
        assert_eq!(Origin::RetryV1.topic("t", "g"), "%RETRY%g_t");
        assert_eq!(Origin::RetryV2.topic("t", "g"), "%RETRY%g+t");
    }
}
