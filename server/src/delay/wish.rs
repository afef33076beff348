//! When a sender wants its message delivered: the properties `TIMER_DELAY_SEC`, `TIMER_DELAY_MS` and `TIMER_DELIVER_MS`, of
//! which the first one counts.

use protocol::properties;

/// Kinds of wishes, the one that counts first.
const KINDS: [&str; 3] = [
    properties::TIMER_DELAY_SEC,
    properties::TIMER_DELAY_MS,
    properties::TIMER_DELIVER_MS,
];

/// What a message's properties ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The first kind that was named; none: nothing is wished.
    kind: Option<usize>,
    /// None: what was named is no number.
    number: Option<i64>,
    /// It was timed before: what is wished was granted then.
    was_timed: bool,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// Its time has come already.
    Now,
    At(i64),
    /// Too far away, or no time.
    Not,
}

impl Wish {
    /// Looks at one property; says whether it is one of those that wish.
    pub fn take(&mut self, name: &[u8], value: &[u8]) -> bool {
        if name == properties::TIMER_OUT_MS.as_bytes() {
            self.was_timed = true;
            return true;
        }
        let kind = KINDS.iter().position(|known| name == known.as_bytes());
        if let Some(kind) = kind
            && self.kind.is_none_or(|before| kind <= before)
        {
            self.kind = Some(kind);
            let text = std::str::from_utf8(value).ok();
            self.number = text.and_then(|text| text.parse().ok());
        }
        kind.is_some()
    }

    pub fn of(stored: &[u8]) -> Self {
        let mut wish = Self::default();
        for (name, value) in properties::iter(stored) {
            wish.take(name, value);
        }
        wish
    }

    pub fn is_any(&self) -> bool {
        self.kind.is_some() && !self.was_timed
    }

    pub fn grant(&self, now_ms: i64, delay_max_ms: i64) -> Granted {
        let (Some(kind), false) = (self.kind, self.was_timed) else {
            return Granted::Now;
        };
        let Some(number) = self.number else {
            return Granted::Not;
        };
        let due_ms = match kind {
            0 => now_ms.saturating_add(number.saturating_mul(1_000)),
            1 => now_ms.saturating_add(number),
            _ => number,
        };
        match due_ms.saturating_sub(now_ms) {
            ..=0 => Granted::Now,
            wait_ms if wait_ms > delay_max_ms => Granted::Not,
            _ => Granted::At(due_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_000_000;
    const DAY_MS: i64 = 86_400_000;

    fn granted(sent: &str) -> Granted {
        Wish::of(sent.as_bytes()).grant(NOW_MS, DAY_MS)
    }

    #[test]
    fn seconds_count_before_milliseconds_and_those_before_a_time() {
        let all = "TIMER_DELIVER_MS\u{1}1000300\u{2}TIMER_DELAY_MS\u{1}200\u{2}TIMER_DELAY_SEC\u{1}1\u{2}";
        assert_eq!(granted(all), Granted::At(NOW_MS + 1_000));
        let two = "TIMER_DELAY_MS\u{1}200\u{2}TIMER_DELIVER_MS\u{1}1000300\u{2}";
        assert_eq!(granted(two), Granted::At(NOW_MS + 200));
        assert_eq!(
            granted("TIMER_DELIVER_MS\u{1}1000300\u{2}"),
            Granted::At(1_000_300)
        );
    }

    #[test]
    fn the_past_is_now_and_what_is_too_far_or_no_number_is_not_granted() {
        for now in [
            "TIMER_DELAY_MS\u{1}0\u{2}",
            "TIMER_DELIVER_MS\u{1}-5\u{2}",
            "TAGS\u{1}a\u{2}",
        ] {
            assert_eq!(granted(now), Granted::Now, "{now}");
        }
        assert_eq!(
            granted("TIMER_DELAY_SEC\u{1}86400\u{2}"),
            Granted::At(NOW_MS + DAY_MS)
        );
        for not in [
            "TIMER_DELAY_SEC\u{1}86401\u{2}",
            "TIMER_DELAY_SEC\u{1}9223372036854775807\u{2}",
            "TIMER_DELAY_MS\u{1}soon\u{2}",
        ] {
            assert_eq!(granted(not), Granted::Not, "{not}");
        }
    }

    #[test]
    fn a_message_that_was_timed_is_not_timed_again() {
        let sent = "TIMER_DELAY_MS\u{1}200\u{2}TIMER_OUT_MS\u{1}5\u{2}";
        assert!(!Wish::of(sent.as_bytes()).is_any());
        assert_eq!(granted(sent), Granted::Now);
    }
}
