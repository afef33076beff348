//! One lane's request, laid out once, with holes that are filled for every message: its number, its unique key, its body's
//! stamp and, for a delayed one, when it is due.

use memchr::memmem;

use super::Settings;
use super::transaction::PREPARED;
use crate::load::Lane;
use crate::payload::{Filler, Stamp};
use crate::record;
use crate::wire::{self, Layout, OPAQUE_FIRST, request};

const UNIQUE_HOLE: &str = "0000000000000000";
/// A unique key is 32 hex digits: the first half names the run, the second is the hole.
const UNIQUE_PREFIX: &str = "0B1700000000BE9C";
/// Milliseconds since 1970 have thirteen digits until the year 2286.
const DUE_HOLE: &str = "9999999999999";

/// When a message is to be delivered, if not at once.
#[derive(Clone, Copy, Debug)]
pub enum Delay {
    /// So many milliseconds after its sending, which differ from message to message.
    Between { least_ms: u64, most_ms: u64 },
    /// All of them at this moment.
    At { wall_ms: u64 },
    /// Level 1: a second after it was stored.
    Level,
}

/// Neighbours are due far from each other.
const SCATTER: u64 = 7_919;
const LEVEL_NS: u64 = 1_000_000_000;

impl Delay {
    pub fn due_ns(self, intended_ns: u64, sequence: u64) -> u64 {
        match self {
            Delay::Between { least_ms, most_ms } => {
                let further_ms = sequence * SCATTER % (most_ms - least_ms + 1);
                (intended_ns / 1_000_000 + least_ms + further_ms) * 1_000_000
            }
            Delay::At { wall_ms } => wall_ms * 1_000_000,
            Delay::Level => intended_ns + LEVEL_NS,
        }
    }

    fn property(self) -> String {
        match self {
            Delay::Level => "DELAY\u{1}1\u{2}".into(),
            Delay::Between { .. } | Delay::At { .. } => {
                format!("TIMER_DELIVER_MS\u{1}{DUE_HOLE}\u{2}")
            }
        }
    }
}

/// One lane's request with the places that change.
pub struct Template {
    pub frame: Vec<u8>,
    layout: Layout,
    /// Where the changing half of the unique key lies; a batch has one per message.
    unique_at: Vec<usize>,
    /// Where each body begins.
    body_at: Vec<usize>,
    /// Where the time lies at which the message is due.
    due_at: Vec<usize>,
}

impl Template {
    pub fn new(lane: &Lane, filler: &Filler, settings: &Settings) -> Template {
        let queue = lane.queue.to_string();
        let batched = settings.batch > 1;
        let (code, body, outer) = if batched {
            let body = filler.unstamped();
            let properties: Vec<String> = (0..settings.batch)
                .map(|at| properties(settings, at))
                .collect();
            let messages = properties.iter().map(|of_one| (&body[..], of_one.as_str()));
            let outer = "WAIT\u{1}true\u{2}".to_owned();
            (request::SEND_BATCH_MESSAGE, record::batch(messages), outer)
        } else {
            let properties = properties(settings, 0);
            (request::SEND_MESSAGE_V2, filler.unstamped(), properties)
        };
        let flag = if settings.transactions.is_some() {
            PREPARED
        } else {
            "0"
        };
        let fields = [
            ("a", super::GROUP),
            ("b", lane.topic.as_str()),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", queue.as_str()),
            ("f", flag),
            ("g", "1700000000000"),
            ("h", "0"),
            ("i", outer.as_str()),
            ("j", "0"),
            ("k", "false"),
            ("m", if batched { "true" } else { "false" }),
        ];
        let mut frame = Vec::new();
        let encoding = settings.encoding;
        let layout = wire::write_request(&mut frame, encoding, code, OPAQUE_FIRST, &fields, &body);
        let after = |text: &str| {
            let found = memmem::find_iter(&frame, text.as_bytes());
            found.map(|at| at + text.len()).collect::<Vec<_>>()
        };
        let unique_at = after(UNIQUE_PREFIX);
        let due_at = match settings.delay {
            None | Some(Delay::Level) => Vec::new(),
            Some(_) => after(DUE_HOLE)
                .iter()
                .map(|end| end - DUE_HOLE.len())
                .collect(),
        };
        let body_at = match batched {
            false => vec![layout.body_at],
            true => record::batched_bodies(&frame[layout.body_at..])
                .map(|at| layout.body_at + at)
                .collect(),
        };
        assert_eq!(
            (unique_at.len(), body_at.len()),
            (settings.batch, settings.batch)
        );
        Template {
            frame,
            layout,
            unique_at,
            body_at,
            due_at,
        }
    }

    /// Fills the holes of a copy; further messages of a batch count on from the first.
    pub fn patch(&self, frame: &mut [u8], filler: &Filler, first: Stamp, opaque: i32) {
        wire::patch_opaque(frame, &self.layout, opaque);
        for (index, (&body_at, &unique_at)) in self.body_at.iter().zip(&self.unique_at).enumerate()
        {
            let stamp = Stamp {
                sequence: first.sequence + index as u64,
                ..first
            };
            filler.stamp(&mut frame[body_at..body_at + filler.body_bytes()], stamp);
            write_hex(&mut frame[unique_at..], unique(&stamp));
        }
        for &at in &self.due_at {
            write_digits(
                &mut frame[at..at + DUE_HOLE.len()],
                first.intended_ns / 1_000_000,
            );
        }
    }
}

/// Of the message at this place of its batch: its place says which of the settings' it gets.
fn properties(settings: &Settings, at: usize) -> String {
    let mut text = format!("UNIQ_KEY\u{1}{UNIQUE_PREFIX}{UNIQUE_HOLE}\u{2}WAIT\u{1}true\u{2}");
    if !settings.properties.is_empty() {
        text.push_str(&settings.properties[at % settings.properties.len()]);
    }
    if let Some(delay) = settings.delay {
        text.push_str(&delay.property());
    }
    if settings.transactions.is_some() {
        text.push_str(&format!(
            "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}{}\u{2}",
            super::GROUP
        ));
    }
    text
}

/// What differs in the unique keys of one run.
fn unique(stamp: &Stamp) -> u64 {
    u64::from(stamp.producer) << 40 ^ u64::from(stamp.lane) << 32 ^ stamp.sequence
}

/// The whole unique key of a message.
pub fn unique_key(stamp: &Stamp) -> String {
    format!("{UNIQUE_PREFIX}{:016X}", unique(stamp))
}

fn write_hex(out: &mut [u8], mut value: u64) {
    for digit in out[..16].iter_mut().rev() {
        *digit = b"0123456789ABCDEF"[(value & 15) as usize];
        value >>= 4;
    }
}

fn write_digits(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
    assert_eq!(value, 0, "the number has as many digits as the hole");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Choice;
    use crate::payload;
    use crate::wire::Encoding;

    const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::Binary];

    fn template(change: impl FnOnce(&mut Settings)) -> (Template, Filler) {
        let filler = Filler::new(64);
        let mut settings = Settings {
            body_bytes: 64,
            ..Settings::one_at_a_time(Encoding::Json)
        };
        change(&mut settings);
        let lane = Lane {
            topic: "t".into(),
            queue: 3,
        };
        (Template::new(&lane, &filler, &settings), filler)
    }

    fn stamp(sequence: u64, intended_ns: u64) -> Stamp {
        Stamp {
            producer: 1,
            lane: 2,
            sequence,
            intended_ns,
        }
    }

    #[test]
    fn holes_are_found_for_single_and_batched_messages() {
        for encoding in ENCODINGS {
            for batch in [1, 3] {
                let (template, filler) = template(|settings| {
                    settings.encoding = encoding;
                    settings.batch = batch;
                    settings.properties =
                        vec!["TAGS\u{1}a\u{2}".into(), "TAGS\u{1}long\u{2}".into()];
                });
                assert!(
                    template
                        .unique_at
                        .iter()
                        .all(|&at| &template.frame[at..at + 16] == UNIQUE_HOLE.as_bytes())
                );
                let mut frame = template.frame.clone();
                template.patch(&mut frame, &filler, stamp(7, 4), OPAQUE_FIRST + 1);
                for (at, sequence) in template.body_at.iter().zip(7..) {
                    assert_eq!(
                        payload::open(&frame[*at..at + 64]),
                        Some(stamp(sequence, 4))
                    );
                }
                let key = unique_key(&stamp(7, 4));
                assert!(memmem::find(&frame, key.as_bytes()).is_some(), "{key}");
            }
        }
    }

    #[test]
    fn a_delayed_message_says_when_it_is_due_in_its_properties_and_in_its_stamp() {
        for encoding in ENCODINGS {
            let (template, filler) = template(|settings| {
                settings.encoding = encoding;
                settings.delay = Some(Delay::At { wall_ms: 1 });
            });
            let mut frame = template.frame.clone();
            template.patch(
                &mut frame,
                &filler,
                stamp(0, 1_700_000_000_123_000_000),
                OPAQUE_FIRST,
            );
            assert!(memmem::find(&frame, b"1700000000123").is_some());
            assert!(memmem::find(&frame, DUE_HOLE.as_bytes()).is_none());
        }
    }

    #[test]
    fn dues_lie_between_the_bounds_on_whole_milliseconds() {
        let delay = Delay::Between {
            least_ms: 1_000,
            most_ms: 3_000,
        };
        let dues: Vec<u64> = (0..2_001)
            .map(|sequence| delay.due_ns(5_999_999, sequence))
            .collect();
        assert_eq!(dues.iter().min(), Some(&1_005_000_000));
        assert_eq!(dues.iter().max(), Some(&3_005_000_000));
        assert!(dues.iter().all(|due| due % 1_000_000 == 0));
        assert_eq!(Delay::Level.due_ns(7, 0), 1_000_000_007);
    }

    #[test]
    fn a_half_message_carries_its_flag_and_its_group() {
        let (template, _) = template(|settings| settings.transactions = Some(Choice::ALL));
        for text in ["\"f\":\"4\"", "TRAN_MSG", "PGROUP"] {
            assert!(
                memmem::find(&template.frame, text.as_bytes()).is_some(),
                "{text}"
            );
        }
    }
}
