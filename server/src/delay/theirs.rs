//! Timers in the part of the log that RocketMQ had: when they are due, and which of them it has delivered.
//!
//! Its wheel and its timer log are not read. All it has parked lies in the same topic as ours, with the time at which it is
//! due; `config/timercheck` says how far it had read that topic, and which slot of its wheel it would have read next. What
//! it parks for longer than its wheel is wide it lays again before its time ("rolled"); see `rolled`.

use std::io;
use std::path::Path;

use engine::LogOffset;
use protocol::properties;
use protocol::record::View;
use reactor::fs;
use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoint;
use super::timed;

const CHECKPOINT_BYTES_MIN: usize = 32;
const CHECKPOINT_BYTES: usize = 56;
const CHECKPOINT: &str = "timercheck";

/// What RocketMQ's checkpoint said when the store came from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inherited {
    /// Everything in front of this slot of the wheel was delivered, ..
    pub delivered_ms: i64,
    /// .. of what lies in front of this offset of the queue.
    pub queue_offset: u64,
    /// It went on from what we had laid out for it.
    pub was_laid_out: bool,
}

/// The part of the log that RocketMQ had, and what is parked there.
#[derive(Clone, Copy, Debug)]
pub struct Theirs {
    until: LogOffset,
    /// None: it has delivered nothing that our own checkpoint does not know of.
    inherited: Option<Inherited>,
    precision_ms: i64,
}

impl Theirs {
    /// `until`: how far the log was RocketMQ's. `saved`: our own checkpoint, of before or after that. Blocks.
    pub fn read(
        config_dir: &Path,
        saved: Option<&Checkpoint>,
        until: LogOffset,
        precision_ms: i64,
    ) -> io::Result<Self> {
        let inherited = match saved {
            Some(saved) if saved.rocketmqs_until == until.0 => saved.inherited,
            _ => read(config_dir)?.map(|read| Inherited {
                was_laid_out: saved.is_some_and(|saved| saved.laid_out),
                ..read
            }),
        };
        Ok(Self {
            until,
            inherited,
            precision_ms,
        })
    }

    pub fn until(&self) -> LogOffset {
        self.until
    }

    pub fn inherited(&self) -> Option<Inherited> {
        self.inherited
    }

    /// When the message is due, if it is still parked.
    pub fn due_ms(&self, view: &View<'_>) -> Option<i64> {
        let out = std::str::from_utf8(view.property(properties::TIMER_OUT_MS)?).ok()?;
        let out_ms: i64 = out.parse().ok()?;
        if view.log_offset >= self.until.0 {
            return Some(out_ms);
        }
        let is_ours = self.is_ours(view, out_ms);
        // RocketMQ rounds down, and delivers when that slot of its wheel is over.
        let due_ms = match is_ours {
            true => out_ms,
            false => out_ms.saturating_add(self.precision_ms),
        };
        let Some(inherited) = self.inherited else {
            return Some(due_ms);
        };
        let was_rolled = view.property(timed::ROLL_TIMES).is_some();
        // What is rolled RocketMQ lays into the slot that the message itself names.
        let slot_ms = match is_ours && inherited.was_laid_out && !was_rolled {
            true => slot_ms(due_ms, self.precision_ms),
            false => out_ms.saturating_sub(out_ms.rem_euclid(self.precision_ms)),
        };
        let was_taken = view.queue_offset < inherited.queue_offset;
        let is_done = was_taken && slot_ms < inherited.delivered_ms;
        (!is_done).then_some(due_ms)
    }

    /// We have laid it: its time is the very millisecond.
    fn is_ours(&self, view: &View<'_>, out_ms: i64) -> bool {
        if out_ms.rem_euclid(self.precision_ms) != 0 || view.property(timed::LEVEL_BEFORE).is_some()
        {
            return true;
        }
        // RocketMQ would have taken one slot off such a time.
        let wished = view.property(properties::TIMER_DELIVER_MS);
        let wished = wished.and_then(|wished| std::str::from_utf8(wished).ok()?.parse().ok());
        let delays = [properties::TIMER_DELAY_SEC, properties::TIMER_DELAY_MS];
        wished == Some(out_ms) && delays.iter().all(|name| view.property(name).is_none())
    }
}

/// The slot of RocketMQ's wheel that is over when this time has come.
pub fn slot_ms(due_ms: i64, precision_ms: i64) -> i64 {
    let last_ms = due_ms.saturating_sub(1);
    last_ms.saturating_sub(last_ms.rem_euclid(precision_ms))
}

/// For a RocketMQ that has the store next: it begins to read the queue at `queue_offset`, and its wheel at `slot_ms`.
/// Durable when it returns. Blocks.
pub fn write(config_dir: &Path, slot_ms: i64, queue_offset: u64) -> io::Result<()> {
    let mut bytes = [0; CHECKPOINT_BYTES];
    let mut put = |number: usize, word: i64| {
        bytes[8 * number..8 * number + 8].copy_from_slice(&word.to_be_bytes());
    };
    let queue_offset = i64::try_from(queue_offset).expect("queue offsets have 63 bits");
    put(0, slot_ms);
    put(2, queue_offset);
    put(3, queue_offset);
    fs::replace(&config_dir.join(CHECKPOINT), &bytes)
}

/// None: it has no timers. Blocks.
fn read(config_dir: &Path) -> io::Result<Option<Inherited>> {
    let path = config_dir.join(CHECKPOINT);
    match fs::exists(&path) {
        true => Ok(parse(&fs::read(&path)?)),
        false => Ok(None),
    }
}

fn parse(bytes: &[u8]) -> Option<Inherited> {
    if bytes.len() < CHECKPOINT_BYTES_MIN {
        return None;
    }
    let word = |number: usize| {
        let word = bytes[8 * number..8 * number + 8].try_into();
        i64::from_be_bytes(word.expect("eight bytes"))
    };
    // A file that was made and never written.
    let inherited = Inherited {
        delivered_ms: word(0),
        queue_offset: u64::try_from(word(2)).ok()?,
        was_laid_out: false,
    };
    (inherited.delivered_ms > 0).then_some(inherited)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Text;
    use protocol::record::{Draft, patch};

    /// Of a record whose sender has an IPv4 address.
    const STORE_TIME_AT: usize = 56;

    fn due(
        theirs: &Theirs,
        offset: u64,
        log_offset: u64,
        properties: &[(&str, i64)],
    ) -> Option<i64> {
        let host = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let properties: String = properties
            .iter()
            .map(|(name, value)| format!("{name}\u{1}{value}\u{2}"))
            .collect();
        let draft = Draft {
            topic: protocol::names::TIMER_TOPIC,
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_ms: 1,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            properties: Text::plain(properties.as_bytes()),
            body: b"body",
        };
        let mut bytes = Vec::new();
        draft.append_to(&mut bytes);
        patch(&mut bytes, offset, log_offset, STORE_TIME_AT, 1_000);
        theirs.due_ms(&View::parse(&bytes).expect("a record"))
    }

    fn theirs(inherited: Option<Inherited>) -> Theirs {
        Theirs {
            until: LogOffset(10_000),
            inherited,
            precision_ms: 1_000,
        }
    }

    fn delivered(was_laid_out: bool) -> Theirs {
        theirs(Some(Inherited {
            delivered_ms: 50_000,
            queue_offset: 5,
            was_laid_out,
        }))
    }

    #[test]
    fn what_they_delivered_is_done_and_the_slot_they_had_not_read_is_not() {
        let theirs = delivered(false);
        let out = |out_ms| [(properties::TIMER_OUT_MS, out_ms)];
        assert_eq!(due(&theirs, 4, 10_000, &out(40_000)), Some(40_000), "ours");
        assert_eq!(due(&theirs, 4, 9_999, &out(49_000)), None);
        assert_eq!(due(&theirs, 4, 9_999, &out(50_000)), Some(51_000));
        assert_eq!(
            due(&theirs, 5, 9_999, &out(40_000)),
            Some(41_000),
            "not read yet"
        );
        // Of whatever length: what waits for long was not delivered because it was laid long ago.
        let far_ms = 5 * 86_400_000;
        assert_eq!(due(&theirs, 1, 1, &out(far_ms)), Some(far_ms + 1_000));
    }

    #[test]
    fn what_we_laid_before_is_due_at_its_millisecond() {
        let out = |out_ms| vec![(properties::TIMER_OUT_MS, out_ms)];
        let wished = |out_ms| {
            vec![
                (properties::TIMER_OUT_MS, out_ms),
                (properties::TIMER_DELIVER_MS, out_ms),
            ]
        };
        for theirs in [delivered(false), delivered(true)] {
            assert_eq!(due(&theirs, 4, 9_999, &out(49_999)), None);
            assert_eq!(due(&theirs, 4, 9_999, &out(50_001)), Some(50_001));
            assert_eq!(due(&theirs, 4, 9_999, &wished(51_000)), Some(51_000));
        }
        // As we lay it out this is in the slot before, as RocketMQ takes it from the queue it is in its own.
        assert_eq!(due(&delivered(true), 4, 9_999, &wished(50_000)), None);
        assert_eq!(
            due(&delivered(false), 4, 9_999, &wished(50_000)),
            Some(50_000)
        );
        let mut rolled = wished(50_000);
        rolled.push((timed::ROLL_TIMES, 1));
        assert_eq!(due(&delivered(true), 4, 9_999, &rolled), Some(50_000));
        // A delay of that many seconds is something else.
        let mut delayed = wished(50_000);
        delayed.push((properties::TIMER_DELAY_SEC, 9));
        assert_eq!(due(&delivered(false), 4, 9_999, &delayed), Some(51_000));
    }

    #[test]
    fn without_their_checkpoint_nothing_is_delivered() {
        let out = [(properties::TIMER_OUT_MS, 7)];
        assert_eq!(due(&theirs(None), 1, 1, &out), Some(7));
    }

    #[test]
    fn a_slot_is_over_when_its_messages_are_due() {
        assert_eq!(slot_ms(12_345, 1_000), 12_000);
        assert_eq!(slot_ms(13_000, 1_000), 12_000);
        assert_eq!(slot_ms(12_001, 1_000), 12_000);
        assert_eq!(slot_ms(12_000, 1_000), 11_000);
    }

    #[test]
    fn their_checkpoint_counts_until_ours_is_newer() {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path(), 9_000, 7).expect("written");
        let read = |saved: Option<&Checkpoint>| {
            Theirs::read(dir.path(), saved, LogOffset(100), 1_000)
                .expect("readable")
                .inherited
        };
        let expected = Inherited {
            delivered_ms: 9_000,
            queue_offset: 7,
            was_laid_out: false,
        };
        assert_eq!(read(None), Some(expected));
        let mut saved = Checkpoint {
            laid_out: true,
            rocketmqs_until: 50,
            ..Checkpoint::default()
        };
        let laid_out = Inherited {
            was_laid_out: true,
            ..expected
        };
        assert_eq!(read(Some(&saved)), Some(laid_out));
        saved.rocketmqs_until = 100;
        assert_eq!(read(Some(&saved)), None);
        saved.inherited = Some(expected);
        assert_eq!(read(Some(&saved)), Some(expected));
    }

    #[test]
    fn their_checkpoint_is_four_words_and_more() {
        let mut bytes = vec![0; 56];
        bytes[..8].copy_from_slice(&9i64.to_be_bytes());
        bytes[16..24].copy_from_slice(&7i64.to_be_bytes());
        let expected = Inherited {
            delivered_ms: 9,
            queue_offset: 7,
            was_laid_out: false,
        };
        assert_eq!(parse(&bytes), Some(expected));
        assert_eq!(parse(&[0; 4_096]), None);
        assert_eq!(parse(&bytes[..31]), None);
    }
}
