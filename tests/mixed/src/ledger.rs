//! The account of every message: who was promised what, what each group got, and whether it may get it twice. It knows
//! no clock and no client; senders and listeners tell it what happened and when.

mod bits;
mod events;
mod free;
mod ordered;

use std::collections::BTreeMap;

use crate::stamp::{Kind, Stamp, Stream};

use self::bits::Bits;
use self::events::{Cause, Delivered};
pub use self::events::{Events, Patience};
pub use self::free::Verdict;
use self::free::{Got, Sent};
pub use self::ordered::Verdict as OrderedVerdict;
use self::ordered::{Keys, Read};

/// Examples of what is wrong that are kept.
const EXAMPLES_MAX: usize = 20;

/// Who reads: two groups the free streams, two the ordered one; of each two one whose members come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Refuses a share of its messages the first time.
    Steady,
    Moving,
    OrderedSteady,
    OrderedMoving,
}

impl Group {
    pub const ALL: [Group; 4] = [
        Group::Steady,
        Group::Moving,
        Group::OrderedSteady,
        Group::OrderedMoving,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Group::Steady => "mixed-steady",
            Group::Moving => "mixed-moving",
            Group::OrderedSteady => "mixed-ordered-steady",
            Group::OrderedMoving => "mixed-ordered-moving",
        }
    }

    pub fn is_ordered(self) -> bool {
        matches!(self, Group::OrderedSteady | Group::OrderedMoving)
    }

    pub fn is_moving(self) -> bool {
        matches!(self, Group::Moving | Group::OrderedMoving)
    }
}

/// A call of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    pub stamp: Stamp,
    pub now_ms: i64,
    /// When the broker stored this copy.
    pub stored_ms: i64,
    /// It was refused before, by whomever.
    pub is_retry: bool,
}

/// What is not as it was promised, counted; all must be 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wrong {
    pub unexplained: u64,
    pub rolled_back: u64,
    pub early: u64,
    pub gaps: u64,
    pub damaged: u64,
}

/// Second deliveries that the protocol allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    pub after_kill: u64,
    pub after_members_changed: u64,
    pub sent_twice: u64,
}

pub struct Ledger {
    events: Events,
    free: [Sent; Stream::FREE.len()],
    keys: Keys,
    groups: BTreeMap<Group, Account>,
    wrong: Wrong,
    examples: Vec<String>,
}

/// What one group got.
#[derive(Default)]
struct Account {
    free: [Got; Stream::FREE.len()],
    ordered: Read,
    allowed: Allowed,
    deliveries: u64,
}

/// What a group has to show at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    pub deliveries: u64,
    /// Acknowledged and not delivered, yet.
    pub missing: u64,
    pub retried: u64,
    pub allowed: Allowed,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Acknowledged {
    pub plain: u64,
    pub delayed: u64,
    /// Committed ones.
    pub transactions: u64,
    pub rolled_back: u64,
    pub ordered: u64,
    /// Of all kinds: a send got no answer.
    pub doubtful: u64,
}

impl Ledger {
    pub fn new(keys: u16, patience: Patience) -> Ledger {
        Ledger {
            events: Events::new(patience),
            free: Default::default(),
            keys: Keys::new(keys),
            groups: Group::ALL
                .into_iter()
                .map(|group| (group, Account::default()))
                .collect(),
            wrong: Wrong::default(),
            examples: Vec::new(),
        }
    }

    pub fn events(&mut self) -> &mut Events {
        &mut self.events
    }

    /// The next number of a free stream.
    pub fn begin(&mut self, kind: Kind) -> u64 {
        self.free[place(kind.stream())].begin(kind.is_rolled_back())
    }

    /// Its sender was told that it is stored; a transaction's that its half is.
    pub fn acknowledged(&mut self, stamp: &Stamp) {
        match stamp.kind {
            Kind::Ordered => self.keys.acknowledged(stamp.key, stamp.number),
            kind => self.free[place(kind.stream())].acknowledged(stamp.number),
        }
    }

    /// Its sender does not know; told before it is sent again.
    pub fn doubtful(&mut self, stamp: &Stamp) {
        match stamp.kind {
            Kind::Ordered => self.keys.doubtful(stamp.key, stamp.number),
            kind => self.free[place(kind.stream())].doubtful(stamp.number),
        }
    }

    pub fn damaged(&mut self, what: String) {
        self.wrong.damaged += 1;
        self.example(what);
    }

    /// `may_refuse`: the listener would like to refuse it, if this is the first time.
    pub fn delivered(&mut self, group: Group, delivery: &Delivery, may_refuse: bool) -> Verdict {
        let Delivery { stamp, .. } = delivery;
        let sent = &self.free[place(stamp.kind.stream())];
        let (is_forbidden, is_doubtful) = (
            sent.is_forbidden(stamp.number),
            sent.is_doubtful(stamp.number),
        );
        let account = self.groups.get_mut(&group).expect("all groups are in it");
        account.deliveries += 1;
        let got = &mut account.free[place(stamp.kind.stream())];
        let verdict = got.deliver(stamp.number, delivery.is_retry, may_refuse);
        if verdict == Verdict::Duplicate {
            self.duplicate(group, delivery, is_doubtful);
        }
        if is_forbidden {
            self.wrong.rolled_back += 1;
            self.example(format!(
                "rolled back and delivered to {}: {delivery:?}",
                group.name()
            ));
        }
        if delivery.now_ms < stamp.due_ms {
            self.wrong.early += 1;
            let early_ms = stamp.due_ms - delivery.now_ms;
            self.example(format!(
                "{early_ms} ms early at {}: {delivery:?}",
                group.name()
            ));
        }
        verdict
    }

    pub fn delivered_in_order(&mut self, group: Group, delivery: &Delivery) -> OrderedVerdict {
        let Delivery { stamp, .. } = delivery;
        let account = self.groups.get_mut(&group).expect("all groups are in it");
        account.deliveries += 1;
        let verdict = account.ordered.deliver(stamp.key, stamp.number);
        match verdict {
            OrderedVerdict::Next => {}
            OrderedVerdict::Duplicate => {
                let is_doubtful = self.keys.is_doubtful(stamp.key, stamp.number);
                self.duplicate(group, delivery, is_doubtful);
            }
            OrderedVerdict::Gap { expected } => {
                self.wrong.gaps += 1;
                self.example(format!(
                    "number {expected} was to come next at {}: {delivery:?}",
                    group.name()
                ));
            }
        }
        verdict
    }

    fn duplicate(&mut self, group: Group, delivery: &Delivery, is_doubtful: bool) {
        let delivered = Delivered {
            group,
            now_ms: delivery.now_ms,
            stored_ms: delivery.stored_ms,
            is_retry: delivery.is_retry,
            is_transaction: delivery.stamp.kind.stream() == Stream::Transactions,
        };
        let cause = match is_doubtful {
            true => Cause::SentTwice,
            false => self.events.cause(&delivered),
        };
        let account = self.groups.get_mut(&group).expect("all groups are in it");
        match cause {
            Cause::Killed => account.allowed.after_kill += 1,
            Cause::MembersChanged => account.allowed.after_members_changed += 1,
            Cause::SentTwice => account.allowed.sent_twice += 1,
            Cause::Unexplained => {
                self.wrong.unexplained += 1;
                self.example(format!("twice at {}: {delivery:?}", group.name()));
            }
        }
    }

    fn example(&mut self, what: String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what);
        }
    }

    pub fn wrong(&self) -> &Wrong {
        &self.wrong
    }

    pub fn examples(&self) -> &[String] {
        &self.examples
    }

    pub fn sent(&self) -> Acknowledged {
        let [plain, delayed, transactions] = &self.free;
        let doubtful = self.free.iter().map(Sent::doubtful_count).sum::<u64>();
        Acknowledged {
            plain: plain.promised_count(),
            delayed: delayed.promised_count(),
            transactions: transactions.promised_count(),
            rolled_back: transactions.forbidden_count(),
            ordered: self.keys.acknowledged_count(),
            doubtful: doubtful + self.keys.doubtful_count(),
        }
    }

    pub fn summary(&self, group: Group) -> Summary {
        let account = &self.groups[&group];
        let missing = match group.is_ordered() {
            true => account
                .ordered
                .missing(&self.keys)
                .map(|(_, count)| count)
                .sum(),
            false => self.missing_free(account).count() as u64,
        };
        Summary {
            deliveries: account.deliveries,
            missing,
            retried: account.free.iter().map(Got::retried_count).sum(),
            allowed: account.allowed,
        }
    }

    /// Some of what a group misses, in words.
    pub fn missing(&self, group: Group) -> Vec<String> {
        let account = &self.groups[&group];
        match group.is_ordered() {
            true => {
                let missing = account.ordered.missing(&self.keys);
                let told = missing.map(|(key, count)| format!("{count} of key {key}"));
                told.take(EXAMPLES_MAX).collect()
            }
            false => {
                let missing = self.missing_free(account);
                let told = missing.map(|(stream, number)| format!("{stream:?} {number}"));
                told.take(EXAMPLES_MAX).collect()
            }
        }
    }

    fn missing_free<'a>(&'a self, account: &'a Account) -> impl Iterator<Item = (Stream, u64)> {
        let streams = Stream::FREE.into_iter().zip(&self.free).zip(&account.free);
        streams.flat_map(|((stream, sent), got)| got.missing(sent).map(move |one| (stream, one)))
    }
}

fn place(stream: Stream) -> usize {
    match stream {
        Stream::Plain => 0,
        Stream::Delayed => 1,
        Stream::Transactions => 2,
        Stream::Ordered => unreachable!("ordered messages are counted by key"),
    }
}

#[cfg(test)]
mod tests;
