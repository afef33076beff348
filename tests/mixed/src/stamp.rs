//! What each message says of itself: what kind it is, its number, when it is due. A reader needs nothing else to judge it.

/// The first bytes of every body; anything else in our topics is damage.
const MAGIC: [u8; 4] = *b"MIX1";
const STAMP_BYTES: usize = 24;
/// A small message as many applications send them; the rest of it is filler.
const BODY_BYTES: usize = 100;
const FILLER: u8 = b'.';

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    Plain,
    /// Due at a time, to the millisecond.
    Timed,
    /// Due after one of the broker's delay levels.
    Level,
    Commit,
    Rollback,
    /// Decided when the broker asks.
    CommitLater,
    RollbackLater,
    Ordered,
}

/// A topic of its own, whose messages are numbered on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    Plain,
    Delayed,
    Transactions,
    Ordered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub kind: Kind,
    /// Of an ordered message: what it is ordered by.
    pub key: u16,
    /// Within its stream; of an ordered message within its key.
    pub number: u64,
    /// Not to be delivered before; 0: at once.
    pub due_ms: i64,
}

const KINDS: [Kind; 8] = [
    Kind::Plain,
    Kind::Timed,
    Kind::Level,
    Kind::Commit,
    Kind::Rollback,
    Kind::CommitLater,
    Kind::RollbackLater,
    Kind::Ordered,
];

impl Kind {
    pub fn stream(self) -> Stream {
        match self {
            Kind::Plain => Stream::Plain,
            Kind::Timed | Kind::Level => Stream::Delayed,
            Kind::Commit | Kind::Rollback | Kind::CommitLater | Kind::RollbackLater => {
                Stream::Transactions
            }
            Kind::Ordered => Stream::Ordered,
        }
    }

    pub fn is_rolled_back(self) -> bool {
        matches!(self, Kind::Rollback | Kind::RollbackLater)
    }
}

impl Stream {
    /// Those whose messages come in any order.
    pub const FREE: [Stream; 3] = [Stream::Plain, Stream::Delayed, Stream::Transactions];

    pub fn topic(self) -> &'static str {
        match self {
            Stream::Plain => "MixedPlain",
            Stream::Delayed => "MixedDelayed",
            Stream::Transactions => "MixedTransactions",
            Stream::Ordered => "MixedOrdered",
        }
    }
}

impl Stamp {
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(BODY_BYTES);
        body.extend(MAGIC);
        body.extend([self.kind as u8, 0]);
        body.extend(self.key.to_le_bytes());
        body.extend(self.number.to_le_bytes());
        body.extend(self.due_ms.to_le_bytes());
        debug_assert_eq!(body.len(), STAMP_BYTES);
        body.resize(BODY_BYTES, FILLER);
        body
    }

    /// `None` for anything that is not exactly what was sent.
    pub fn parse(body: &[u8]) -> Option<Stamp> {
        let (stamp, filler) = body.split_at_checked(STAMP_BYTES)?;
        let sent = body.len() == BODY_BYTES
            && stamp.starts_with(&MAGIC)
            && stamp[5] == 0
            && filler.iter().all(|byte| *byte == FILLER);
        if !sent {
            return None;
        }
        Some(Stamp {
            kind: *KINDS.get(usize::from(stamp[4]))?,
            key: u16::from_le_bytes(stamp[6..8].try_into().ok()?),
            number: u64::from_le_bytes(stamp[8..16].try_into().ok()?),
            due_ms: i64::from_le_bytes(stamp[16..24].try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_what_was_written_into_it() {
        for (place, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
            let stamp = Stamp {
                kind,
                key: 7,
                number: 1 << 40,
                due_ms: 1_700_000_000_123,
            };
            assert_eq!(Stamp::parse(&stamp.body()), Some(stamp));
        }
    }

    #[test]
    fn a_changed_or_short_body_says_nothing() {
        let stamp = Stamp {
            kind: Kind::Plain,
            key: 0,
            number: 1,
            due_ms: 0,
        };
        let body = stamp.body();
        assert_eq!(Stamp::parse(&body[..99]), None);
        for place in [0, 4, 5, 50, 99] {
            let mut changed = body.clone();
            changed[place] ^= 0x80;
            assert_eq!(Stamp::parse(&changed), None, "byte {place}");
        }
    }
}
