//! What a broker has promised: which message lies at which offset of which queue. Pure.

use std::collections::BTreeMap;
use std::fmt;

use protocol::record::{self, View};

use crate::payload::{self, Number};
use crate::replay::State;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Queue {
    pub topic: String,
    pub number: u32,
}

impl fmt::Debug for Queue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "queue {} of {}", self.number, self.topic)
    }
}

/// By queue, then by offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promises(pub BTreeMap<Queue, BTreeMap<u64, Number>>);

const ACKNOWLEDGED: &str = "ack";

/// What a mark says when a message was acknowledged.
pub fn mark(topic: &str, queue: u32, offset: u64, number: Number) -> String {
    format!(
        "mark {ACKNOWLEDGED} {topic} {queue} {offset} {}\n",
        number.0
    )
}

impl Promises {
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whatever was promised for the same place before.
    pub fn add(&mut self, queue: Queue, offset: u64, number: Number) -> Option<Number> {
        self.0.entry(queue).or_default().insert(offset, number)
    }

    pub fn extend(&mut self, others: &Promises) {
        for (queue, messages) in &others.0 {
            let own = self.0.entry(queue.clone()).or_default();
            own.extend(messages.iter().map(|(offset, number)| (*offset, *number)));
        }
    }

    /// Takes in a mark of a trace; other marks are passed over.
    pub fn add_mark(&mut self, text: &str) {
        let words: Vec<&str> = text.split(' ').collect();
        let [ACKNOWLEDGED, topic, queue, offset, number] = words[..] else {
            return;
        };
        if let (Ok(queue), Ok(offset), Ok(number)) = (queue.parse(), offset.parse(), number.parse())
        {
            let topic = topic.to_owned();
            let queue = Queue {
                topic,
                number: queue,
            };
            self.add(queue, offset, Number(number));
        }
    }

    /// The messages of a store's commit log, from its first byte to the first that is no record. With the durable state
    /// of a disk it is what no power cut may take.
    pub fn of_log(state: &State) -> Promises {
        let mut promises = Promises::default();
        let mut end = None;
        for (path, bytes) in &state.files {
            let Some(base) = segment_base(path) else {
                continue;
            };
            if end.is_some_and(|end| end != base) {
                break;
            }
            match promises.add_segment(base, bytes) {
                true => end = Some(base + bytes.len() as u64),
                false => break,
            }
        }
        promises
    }

    /// Whether the log goes on behind the segment.
    fn add_segment(&mut self, base: u64, bytes: &[u8]) -> bool {
        let mut at = 0;
        while let Ok(header) = record::len_at(&bytes[at..]) {
            if header.is_blank() {
                return true;
            }
            let Ok(view) = View::parse(&bytes[at..]) else {
                return false;
            };
            if view.log_offset != base + at as u64 || view.check_body().is_err() {
                return false;
            }
            if let Some(number) = payload::check(view.body) {
                let queue = Queue {
                    topic: view.topic_str().into_owned(),
                    number: view.queue_id as u32,
                };
                self.add(queue, view.queue_offset, number);
            }
            at += view.bytes.len();
        }
        false
    }
}

/// `some/commitlog/00000000000001048576`
fn segment_base(path: &str) -> Option<u64> {
    let (directory, name) = path.rsplit_once('/')?;
    let is_log = directory == "commitlog" || directory.ends_with("/commitlog");
    (is_log && name.len() == 20).then(|| name.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_taken_in_as_it_was_written() {
        let mut promises = Promises::default();
        let line = mark("topic", 3, 17, Number::new(1, 5));
        let text = line.trim_end().strip_prefix("mark ");
        promises.add_mark(text.expect("a control line"));
        promises.add_mark("cut 5");
        let queue = Queue {
            topic: "topic".into(),
            number: 3,
        };
        let expected = BTreeMap::from([(17, Number::new(1, 5))]);
        assert_eq!(promises.0, BTreeMap::from([(queue, expected)]));
    }

    #[test]
    fn only_files_named_as_segments_are_log() {
        assert_eq!(
            segment_base("store/commitlog/00000000000001048576"),
            Some(1 << 20)
        );
        assert_eq!(segment_base("commitlog/00000000000000000000"), Some(0));
        assert_eq!(segment_base("store/orbit/00000000000000000000"), None);
        assert_eq!(segment_base("store/commitlog/x"), None);
    }
}
