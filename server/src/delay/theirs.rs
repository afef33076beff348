//! Timers that RocketMQ 5 has laid: which of them it has delivered, as its own checkpoint says.
//!
//! Its wheel and its timer log are not read. All it has parked lies in the same topic as ours, with the time at which it is
//! due; `config/timercheck` says how far it had read that topic, and up to what time it had delivered. What it parks for
//! longer than its wheel is wide it lays again before its time ("rolled"): then the earlier one of the two is done.

use std::io;
use std::path::Path;

use engine::LogOffset;
use protocol::properties;
use protocol::record::View;
use reactor::fs;

/// As long as it has always been by default (`timerRollWindowSlot`), in milliseconds.
const ROLL_WINDOW_MS: i64 = 2 * 86_400_000;
const CHECKPOINT_BYTES_MIN: usize = 32;
const CHECKPOINT_BYTES: usize = 56;
const CHECKPOINT: &str = "timercheck";

/// What RocketMQ's checkpoint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Checkpoint {
    delivered_ms: i64,
    queue_offset: u64,
}

/// The part of the log that RocketMQ had, and what is parked there.
#[derive(Clone, Copy, Debug)]
pub struct Theirs {
    until: LogOffset,
    /// None: it has no timers, so what is there is ours.
    checkpoint: Option<Checkpoint>,
    precision_ms: i64,
}

impl Theirs {
    /// `until`: how far the log was RocketMQ's. Blocks.
    pub fn read(config_dir: &Path, until: LogOffset, precision_ms: i64) -> io::Result<Self> {
        let path = config_dir.join(CHECKPOINT);
        let checkpoint = match fs::exists(&path) {
            true => parse(&fs::read(&path)?),
            false => None,
        };
        Ok(Self {
            until,
            checkpoint,
            precision_ms,
        })
    }

    /// When the message is due, if it is still parked.
    pub fn due_ms(&self, view: &View<'_>) -> Option<i64> {
        let out = std::str::from_utf8(view.property(properties::TIMER_OUT_MS)?).ok()?;
        let out_ms: i64 = out.parse().ok()?;
        if view.log_offset >= self.until.0 {
            return Some(out_ms);
        }
        let Some(checkpoint) = self.checkpoint else {
            return Some(out_ms);
        };
        // It rounds down, and delivers when that slot of its wheel is over.
        let due_ms = out_ms.saturating_add(self.precision_ms);
        let was_taken = view.queue_offset < checkpoint.queue_offset;
        let over_ms = rolled_ms(view.store_ms, out_ms).unwrap_or(out_ms);
        let is_done = was_taken && over_ms <= checkpoint.delivered_ms;
        (!is_done).then_some(due_ms)
    }
}

/// Says the same of our timers, for a RocketMQ that gets the store: it begins to read where the first one lies that is still
/// parked, because its wheel is empty. What was delivered behind that comes again there. Blocks.
pub fn hand_back(config_dir: &Path, first: u64, done_ms: i64) -> io::Result<()> {
    let mut bytes = [0; CHECKPOINT_BYTES];
    let mut put = |number: usize, word: i64| {
        bytes[8 * number..8 * number + 8].copy_from_slice(&word.to_be_bytes());
    };
    let first = i64::try_from(first).expect("queue offsets have 63 bits");
    put(0, done_ms);
    put(2, first);
    put(3, first);
    fs::replace(&config_dir.join(CHECKPOINT), &bytes)
}

/// When a message is laid again because it waits for longer than the wheel is wide.
fn rolled_ms(store_ms: i64, out_ms: i64) -> Option<i64> {
    let beyond_ms = out_ms.checked_sub(store_ms)?.checked_sub(ROLL_WINDOW_MS)?;
    if beyond_ms < 0 {
        return None;
    }
    let wait_ms = match beyond_ms < ROLL_WINDOW_MS / 3 {
        true => ROLL_WINDOW_MS / 2,
        false => ROLL_WINDOW_MS,
    };
    Some(store_ms.saturating_add(wait_ms))
}

fn parse(bytes: &[u8]) -> Option<Checkpoint> {
    if bytes.len() < CHECKPOINT_BYTES_MIN {
        return None;
    }
    let word = |number: usize| {
        let word = bytes[8 * number..8 * number + 8].try_into();
        i64::from_be_bytes(word.expect("eight bytes"))
    };
    // A file that was made and never written.
    let checkpoint = Checkpoint {
        delivered_ms: word(0),
        queue_offset: u64::try_from(word(2)).ok()?,
    };
    (checkpoint.delivered_ms > 0).then_some(checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Text;
    use protocol::record::{Draft, patch};

    const DAY_MS: i64 = 86_400_000;
    /// Of a record whose sender has an IPv4 address.
    const STORE_TIME_AT: usize = 56;

    fn due(
        theirs: &Theirs,
        offset: u64,
        log_offset: u64,
        store_ms: i64,
        out_ms: i64,
    ) -> Option<i64> {
        let host = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let properties = format!("TIMER_OUT_MS\u{1}{out_ms}\u{2}");
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
        patch(&mut bytes, offset, log_offset, STORE_TIME_AT, store_ms);
        theirs.due_ms(&View::parse(&bytes).expect("a record"))
    }

    fn theirs(checkpoint: Option<Checkpoint>) -> Theirs {
        Theirs {
            until: LogOffset(10_000),
            checkpoint,
            precision_ms: 1_000,
        }
    }

    #[test]
    fn what_we_laid_is_due_at_its_time_and_what_they_delivered_is_done() {
        let checkpoint = Checkpoint {
            delivered_ms: 50_000,
            queue_offset: 5,
        };
        let theirs = theirs(Some(checkpoint));
        assert_eq!(due(&theirs, 4, 10_000, 1_000, 40_000), Some(40_000), "ours");
        assert_eq!(due(&theirs, 4, 9_999, 1_000, 50_000), None);
        assert_eq!(due(&theirs, 4, 9_999, 1_000, 51_000), Some(52_000));
        assert_eq!(
            due(&theirs, 5, 9_999, 1_000, 40_000),
            Some(41_000),
            "not read yet"
        );
    }

    #[test]
    fn what_was_rolled_is_done_once_it_was_laid_again() {
        let of = |delivered_ms| {
            theirs(Some(Checkpoint {
                delivered_ms,
                queue_offset: 5,
            }))
        };
        // Two and a half days: rolled after one.
        let out_ms = DAY_MS * 5 / 2;
        assert_eq!(due(&of(DAY_MS - 1), 1, 1, 0, out_ms), Some(out_ms + 1_000));
        assert_eq!(due(&of(DAY_MS), 1, 1, 0, out_ms), None);
        // Nearly three: after two.
        let out_ms = DAY_MS * 3 - 1;
        assert!(due(&of(DAY_MS), 1, 1, 0, out_ms).is_some());
        assert_eq!(due(&of(2 * DAY_MS), 1, 1, 0, out_ms), None);
    }

    #[test]
    fn without_their_checkpoint_everything_is_ours() {
        assert_eq!(due(&theirs(None), 1, 1, 0, 7), Some(7));
    }

    #[test]
    fn what_is_handed_back_says_where_to_begin() {
        let dir = tempfile::tempdir().expect("a folder");
        hand_back(dir.path(), 7, 9).expect("written");
        let theirs = Theirs::read(dir.path(), LogOffset(0), 1_000).expect("readable");
        let expected = Checkpoint {
            delivered_ms: 9,
            queue_offset: 7,
        };
        assert_eq!(theirs.checkpoint, Some(expected));
    }

    #[test]
    fn their_checkpoint_is_four_words_and_more() {
        let mut bytes = vec![0; 56];
        bytes[..8].copy_from_slice(&9i64.to_be_bytes());
        bytes[16..24].copy_from_slice(&7i64.to_be_bytes());
        let expected = Checkpoint {
            delivered_ms: 9,
            queue_offset: 7,
        };
        assert_eq!(parse(&bytes), Some(expected));
        assert_eq!(parse(&[0; 4_096]), None);
        assert_eq!(parse(&bytes[..31]), None);
    }
}
