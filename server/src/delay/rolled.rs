//! Timers that RocketMQ has laid again ("rolled"), because they wait for longer than its wheel is wide.
//!
//! The copy lies behind the message it replaces, with the same name and the same time, and counts how often that happened. So
//! where a copy is found the one before it is not delivered: only the copy is.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};

use protocol::properties;
use protocol::record::View;

use super::pending::Key;
use super::timed;

/// RocketMQ looks at a message a moment after it was stored, by a clock that goes in steps.
const SLACK_MS: i64 = 60_000;

/// Those that may have been rolled, while the log that RocketMQ had is read.
#[derive(Debug, Default)]
pub struct Rolled {
    hasher: RandomState,
    /// By hash of what a message and its copy have in common; equal ones in the order in which they lie.
    waiting: HashMap<u64, Vec<Key>>,
}

impl Rolled {
    /// One that is parked, to be delivered at `key`.
    pub fn add(&mut self, view: &View<'_>, key: Key, window_ms: i64) {
        if key.0.saturating_sub(view.store_ms) < window_ms.saturating_sub(SLACK_MS) {
            return;
        }
        let name = self.name(view, times(view));
        self.waiting.entry(name).or_default().push(key);
    }

    /// Which one this message has replaced.
    pub fn replaced_by(&mut self, view: &View<'_>) -> Option<Key> {
        let before = times(view).checked_sub(1)?;
        let name = self.name(view, before);
        let equals = self.waiting.get_mut(&name)?;
        let first = equals.remove(0);
        if equals.is_empty() {
            self.waiting.remove(&name);
        }
        Some(first)
    }

    pub fn clear(&mut self) {
        self.waiting = HashMap::new();
    }

    fn name(&self, view: &View<'_>, times: u32) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        times.hash(&mut hasher);
        view.born_ms.hash(&mut hasher);
        for name in [
            properties::REAL_TOPIC,
            properties::REAL_QID,
            properties::TIMER_OUT_MS,
            properties::UNIQ_KEY,
        ] {
            view.property(name).hash(&mut hasher);
        }
        view.body.hash(&mut hasher);
        hasher.finish()
    }
}

/// How often it was laid again.
fn times(view: &View<'_>) -> u32 {
    let times = view.property(timed::ROLL_TIMES);
    let times = times.and_then(|times| std::str::from_utf8(times).ok()?.parse().ok());
    times.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Text;
    use protocol::record::Draft;

    const WINDOW_MS: i64 = 2 * 86_400_000;
    const OUT_MS: i64 = 5 * 86_400_000;

    fn record(body: &[u8], times: u32) -> Vec<u8> {
        let host = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let again = match times {
            0 => String::new(),
            times => format!("TIMER_ROLL_TIMES\u{1}{times}\u{2}"),
        };
        let properties = format!("TIMER_OUT_MS\u{1}{OUT_MS}\u{2}REAL_TOPIC\u{1}t\u{2}{again}");
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
            body,
        };
        let mut bytes = Vec::new();
        draft.append_to(&mut bytes);
        bytes
    }

    #[test]
    fn a_copy_replaces_the_one_before_it_and_no_other() {
        let mut rolled = Rolled::default();
        let of = |body, times| record(body, times);
        let mut add = |bytes: &[u8], offset| {
            let view = View::parse(bytes).expect("a record");
            let replaced = rolled.replaced_by(&view);
            rolled.add(&view, (OUT_MS, offset), WINDOW_MS);
            replaced
        };
        assert_eq!(add(&of(b"a", 0), 1), None);
        assert_eq!(add(&of(b"a", 0), 2), None, "an equal one");
        assert_eq!(add(&of(b"b", 0), 3), None);
        assert_eq!(add(&of(b"a", 1), 4), Some((OUT_MS, 1)));
        assert_eq!(add(&of(b"a", 2), 5), Some((OUT_MS, 4)));
        assert_eq!(add(&of(b"a", 1), 6), Some((OUT_MS, 2)));
        assert_eq!(add(&of(b"c", 1), 7), None, "what it replaced has expired");
    }

    #[test]
    fn what_fits_into_the_wheel_is_not_remembered() {
        let mut rolled = Rolled::default();
        let bytes = record(b"a", 0);
        rolled.add(
            &View::parse(&bytes).expect("a record"),
            (WINDOW_MS / 2, 1),
            WINDOW_MS,
        );
        assert!(rolled.waiting.is_empty());
    }
}
