//! When something happened after which a message may come once more: the broker was killed, or the members of a group
//! changed. A second delivery at any other time has no excuse.

use super::Group;

/// A message that was stored longer before an event than this was done with and its offset saved: it does not come back.
/// The client tells its offsets every 5 s, the broker saves them every 5 s, a message that was given back takes 10 s.
const REACH_BACK_MS: i64 = 30_000;
/// More events than there are while any of them counts: two groups change, every few seconds.
const RECENT: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Killed,
    MembersChanged,
    /// Its producer had no answer, and sent it again.
    SentTwice,
    Unexplained,
}

/// How long after its end an event still counts.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until all members are back in the broker's lists and queues are shared out anew.
    pub kill_ms: i64,
    pub members_ms: i64,
    /// More for a message whose second way takes longer: by the retry topic, or by a question to its producer.
    pub retried_ms: i64,
    pub asked_ms: i64,
}

pub struct Events {
    all: Vec<Event>,
    patience: Patience,
}

/// To say when an event has ended.
#[derive(Clone, Copy)]
pub struct Begun(usize);

struct Event {
    /// Unset: it concerns all.
    group: Option<Group>,
    from_ms: i64,
    /// Unset: it goes on.
    to_ms: Option<i64>,
}

/// A delivery that may need an excuse.
#[derive(Clone, Copy, Debug)]
pub struct Delivered {
    pub group: Group,
    pub now_ms: i64,
    /// When the broker stored this copy.
    pub stored_ms: i64,
    pub is_retry: bool,
    pub is_transaction: bool,
}

impl Events {
    pub fn new(patience: Patience) -> Events {
        Events {
            all: Vec::new(),
            patience,
        }
    }

    pub fn begin(&mut self, group: Option<Group>, now_ms: i64) -> Begun {
        self.all.push(Event {
            group,
            from_ms: now_ms,
            to_ms: None,
        });
        Begun(self.all.len() - 1)
    }

    pub fn end(&mut self, begun: Begun, now_ms: i64) {
        self.all[begun.0].to_ms = Some(now_ms);
    }

    /// Whether any message may be held up by a kill.
    pub fn is_disturbed(&self, now_ms: i64) -> bool {
        let kill_ms = self.patience.kill_ms;
        let disturbs =
            |event: &Event| event.group.is_none() && event.covers(now_ms, kill_ms, now_ms);
        self.recent().any(disturbs)
    }

    /// The last first.
    fn recent(&self) -> impl Iterator<Item = &Event> {
        self.all.iter().rev().take(RECENT)
    }

    pub fn cause(&self, delivered: &Delivered) -> Cause {
        let mut extra_ms = 0;
        if delivered.is_retry {
            extra_ms += self.patience.retried_ms;
        }
        if delivered.is_transaction {
            extra_ms += self.patience.asked_ms;
        }
        let excuses = |event: &&Event| {
            let patience_ms = match event.group {
                None => self.patience.kill_ms + extra_ms,
                Some(_) => self.patience.members_ms,
            };
            event.group.is_none_or(|group| group == delivered.group)
                && event.covers(delivered.now_ms, patience_ms, delivered.stored_ms)
        };
        match self.recent().find(excuses) {
            Some(event) if event.group.is_none() => Cause::Killed,
            Some(_) => Cause::MembersChanged,
            None => Cause::Unexplained,
        }
    }
}

impl Event {
    fn covers(&self, now_ms: i64, patience_ms: i64, stored_ms: i64) -> bool {
        let until = self.to_ms.map_or(i64::MAX, |to_ms| to_ms + patience_ms);
        (self.from_ms..=until).contains(&now_ms) && stored_ms >= self.from_ms - REACH_BACK_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        kill_ms: 10_000,
        members_ms: 3_000,
        retried_ms: 12_000,
        asked_ms: 15_000,
    };

    fn at(group: Group, now_ms: i64) -> Delivered {
        Delivered {
            group,
            now_ms,
            stored_ms: now_ms,
            is_retry: false,
            is_transaction: false,
        }
    }

    #[test]
    fn a_kill_excuses_all_groups_until_its_patience_is_over() {
        let mut events = Events::new(PATIENCE);
        let kill = events.begin(None, 100_000);
        assert_eq!(events.cause(&at(Group::Steady, 99_999)), Cause::Unexplained);
        assert_eq!(events.cause(&at(Group::Steady, 500_000)), Cause::Killed);
        events.end(kill, 101_000);
        for group in Group::ALL {
            assert_eq!(events.cause(&at(group, 111_000)), Cause::Killed);
            assert_eq!(events.cause(&at(group, 111_001)), Cause::Unexplained);
        }
        assert!(events.is_disturbed(111_000) && !events.is_disturbed(111_001));
    }

    #[test]
    fn a_change_of_members_excuses_its_own_group_only() {
        let mut events = Events::new(PATIENCE);
        let change = events.begin(Some(Group::Moving), 100_000);
        events.end(change, 100_500);
        assert_eq!(
            events.cause(&at(Group::Moving, 103_000)),
            Cause::MembersChanged
        );
        assert_eq!(
            events.cause(&at(Group::Moving, 103_501)),
            Cause::Unexplained
        );
        assert_eq!(
            events.cause(&at(Group::Steady, 100_200)),
            Cause::Unexplained
        );
        assert!(!events.is_disturbed(100_200));
    }

    #[test]
    fn what_was_done_with_long_before_a_kill_has_no_excuse() {
        let mut events = Events::new(PATIENCE);
        events.begin(None, 100_000);
        let mut delivered = at(Group::Steady, 100_100);
        delivered.stored_ms = 70_000;
        assert_eq!(events.cause(&delivered), Cause::Killed);
        delivered.stored_ms = 69_999;
        assert_eq!(events.cause(&delivered), Cause::Unexplained);
    }

    #[test]
    fn a_retry_and_a_question_take_longer_after_a_kill() {
        let mut events = Events::new(PATIENCE);
        let kill = events.begin(None, 100_000);
        events.end(kill, 100_000);
        let mut delivered = at(Group::Steady, 120_000);
        delivered.stored_ms = 120_000;
        assert_eq!(events.cause(&delivered), Cause::Unexplained);
        delivered.is_retry = true;
        assert_eq!(events.cause(&delivered), Cause::Killed);
        delivered.is_retry = false;
        delivered.is_transaction = true;
        assert_eq!(events.cause(&delivered), Cause::Killed);
    }
}
