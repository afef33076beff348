//! The marks in the op queue: "these half messages need no more attention". One message names as many as were decided
//! together, in RocketMQ's form: their queue offsets, each followed by a comma, under the tag `d`.

use std::collections::VecDeque;

use protocol::Text;
use protocol::names::TRANS_OP_HALF_TOPIC;
use protocol::properties::{self, tag_hash};
use protocol::record::{Draft, View};

use super::half::{Born, QUEUE_ID};

/// "Decided": the only tag there is.
const TAG: &str = "d";
const SEPARATOR: char = ',';

/// What is stored for a set of offsets.
#[derive(Debug, Default)]
pub struct Mark {
    body: String,
    properties: Vec<u8>,
}

impl Mark {
    pub fn add(&mut self, offset: u64) {
        use std::fmt::Write;
        write!(self.body, "{offset}{SEPARATOR}").expect("a string takes everything");
    }

    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    pub fn bytes_len(&self) -> usize {
        self.body.len()
    }

    pub fn tag_hash() -> i32 {
        tag_hash(TAG)
    }

    /// The record, but for its place.
    pub fn draft(&mut self, unique_key: &str, born: Born) -> Draft<'_> {
        self.properties.clear();
        let key = unique_key.as_bytes();
        properties::append(&mut self.properties, 0, properties::UNIQ_KEY, key);
        properties::append(&mut self.properties, 0, properties::WAIT, b"false");
        properties::append(&mut self.properties, 0, properties::TAGS, TAG.as_bytes());
        Draft {
            topic: TRANS_OP_HALF_TOPIC,
            queue_id: QUEUE_ID as i32,
            flag: 0,
            sys_flag: 0,
            born_ms: born.ms,
            born_host: born.host,
            store_host: born.host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            properties: Text::plain(&self.properties),
            body: self.body.as_bytes(),
        }
    }
}

/// The offsets that a stored mark names. 4.9 writes one without a comma; what is no number is nobody's.
pub fn offsets<'a>(view: &View<'a>) -> impl Iterator<Item = u64> + use<'a> {
    let is_mark = view.property(properties::TAGS) == Some(TAG.as_bytes());
    let body = match is_mark {
        true => std::str::from_utf8(view.body).unwrap_or_default(),
        false => "",
    };
    let numbers = body.split(SEPARATOR);
    numbers.filter_map(|number| number.trim().parse().ok())
}

/// How far marks are needed: one is, for as long as a half message that it names may be looked at again.
#[derive(Debug, Default)]
pub struct Needed {
    /// Offset of each mark, and the largest one it names. In order.
    marks: VecDeque<(u64, u64)>,
    next: u64,
}

impl Needed {
    pub fn starting_at(next: u64) -> Self {
        Self {
            marks: VecDeque::new(),
            next,
        }
    }

    pub fn next(&self) -> u64 {
        self.next
    }

    /// The queue has nothing below `next` that has not been seen.
    pub fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// The next mark of the queue.
    pub fn add(&mut self, offset: u64, largest: u64) {
        assert!(offset >= self.next, "the queue is read in order");
        self.next = offset + 1;
        self.marks.push_back((offset, largest));
    }

    /// The first mark that is needed while half messages from `done_to` on may be looked at.
    pub fn done_to(&mut self, done_to: u64) -> u64 {
        let is_done = |mark: &mut (u64, u64)| mark.1 < done_to;
        while self.marks.pop_front_if(is_done).is_some() {}
        self.marks.front().map_or(self.next, |mark| mark.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(body: &str, tags: &[u8]) -> Vec<u8> {
        let host = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let mut properties = Vec::new();
        properties::append(&mut properties, 0, properties::TAGS, tags);
        let draft = Draft {
            topic: TRANS_OP_HALF_TOPIC,
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_ms: 1,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            properties: Text::plain(&properties),
            body: body.as_bytes(),
        };
        let mut bytes = Vec::new();
        draft.append_to(&mut bytes);
        bytes
    }

    fn read(body: &str, tags: &[u8]) -> Vec<u64> {
        let bytes = stored(body, tags);
        let view = View::parse(&bytes).expect("a record");
        offsets(&view).collect()
    }

    #[test]
    fn a_mark_names_what_was_put_into_it() {
        let mut mark = Mark::default();
        for offset in [0, 7, u64::MAX >> 1] {
            mark.add(offset);
        }
        let host = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let draft = mark.draft("KEY", Born { ms: 5, host });
        assert_eq!(draft.body, b"0,7,9223372036854775807,");
        let mut bytes = Vec::new();
        draft.append_to(&mut bytes);
        let view = View::parse(&bytes).expect("a record");
        assert_eq!(offsets(&view).collect::<Vec<_>>(), [0, 7, u64::MAX >> 1]);
        assert_eq!(view.property(properties::UNIQ_KEY), Some(&b"KEY"[..]));
    }

    #[test]
    fn marks_of_every_version_are_read_and_others_say_nothing() {
        assert_eq!(read("17", b"d"), [17]);
        assert_eq!(read("17,18,", b"d"), [17, 18]);
        assert_eq!(read("x,-1,,3", b"d"), [3]);
        assert!(read("17", b"other").is_empty());
    }

    #[test]
    fn a_mark_is_needed_until_all_it_names_are_done() {
        let mut needed = Needed::starting_at(3);
        assert_eq!(needed.done_to(100), 3);
        needed.add(3, 10);
        needed.add(4, 5);
        needed.add(5, 20);
        assert_eq!(needed.done_to(10), 3, "the first one names 10");
        assert_eq!(needed.done_to(11), 5, "in order, and both are done");
        assert_eq!(needed.done_to(21), 6);
    }
}
