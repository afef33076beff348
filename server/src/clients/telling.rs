//! When the members of a group are told that it has changed.
//!
//! A change is told to all members at once, and each of them asks who is there. If every one of many changes were, a thousand
//! clients that join together would cause a million messages. So after its notices a group is left alone for as long as these
//! may take; what changes meanwhile is told once, at the end of that pause.

use std::time::Duration;

use reactor::Instant;

/// How long the notice to one member, what it asks then and its answer may take.
const TIME_PER_NOTICE: Duration = Duration::from_micros(100);

/// Of one group.
#[derive(Debug, Default)]
pub struct Pause {
    until: Option<Instant>,
    is_owed: bool,
}

/// What is to be done about a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    Now,
    /// It is looked again then.
    At(Instant),
    /// An earlier change of the same pause sees to it.
    Later,
}

impl Pause {
    pub fn changed(&mut self, members: usize, now: Instant) -> Telling {
        match self.until {
            Some(_) if self.is_owed => Telling::Later,
            Some(until) if now < until => {
                self.is_owed = true;
                Telling::At(until)
            }
            _ => self.tell(members, now),
        }
    }

    /// To be called at the time of `Telling::At`. None: it was done already.
    pub fn over(&mut self, members: usize, now: Instant) -> Option<Telling> {
        if !self.is_owed {
            return None;
        }
        match self.until {
            Some(until) if now < until => Some(Telling::At(until)),
            _ => Some(self.tell(members, now)),
        }
    }

    fn tell(&mut self, members: usize, now: Instant) -> Telling {
        let members = u32::try_from(members).unwrap_or(u32::MAX);
        self.until = Some(now + TIME_PER_NOTICE * members);
        self.is_owed = false;
        Telling::Now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One joins after the other; says how many notices that takes until all is quiet, and checks that everybody hears of
    /// the last one.
    fn notices_of_joins(joins: usize, between: Duration) -> usize {
        let mut pause = Pause::default();
        let (mut now, mut notices, mut again) = (reactor::now(), 0, None);
        let mut told_at = now;
        for members in 1..=joins {
            now = now + between;
            if let Some(at) = again.filter(|&at| at <= now) {
                // Before this one joins.
                assert_eq!(pause.over(members - 1, at), Some(Telling::Now));
                (notices, again) = (notices + members - 1, None);
            }
            match pause.changed(members, now) {
                Telling::Now => (notices, told_at) = (notices + members, now),
                Telling::At(at) => again = Some(at),
                Telling::Later => assert!(again.is_some(), "somebody has promised it"),
            }
        }
        if let Some(at) = again {
            assert_eq!(pause.over(joins, at), Some(Telling::Now));
            (notices, told_at) = (notices + joins, at);
        }
        assert!(told_at >= now, "all have heard of the last one");
        assert_eq!(pause.over(joins, told_at + Duration::from_secs(60)), None);
        notices
    }

    #[test]
    fn a_change_after_a_quiet_time_is_told_at_once() {
        let joins = 50;
        let notices = notices_of_joins(joins, Duration::from_secs(1));
        assert_eq!(notices, joins * (joins + 1) / 2, "each to all members");
    }

    #[test]
    fn a_burst_of_joins_costs_notices_by_its_length_and_not_by_the_square_of_the_joins() {
        let between = Duration::from_micros(10);
        for joins in [1_000, 10_000, 100_000] {
            let notices = notices_of_joins(joins, between);
            // One for each `TIME_PER_NOTICE`, and those to all members at the end of the last two pauses.
            let most = joins * 10 / 100 + 2 * joins;
            assert!(notices <= most, "{notices} for {joins} joins");
        }
    }

    #[test]
    fn who_looks_too_early_is_told_when() {
        let (mut pause, now) = (Pause::default(), reactor::now());
        assert_eq!(pause.changed(10, now), Telling::Now);
        let until = now + TIME_PER_NOTICE * 10;
        assert_eq!(pause.over(10, now), None, "nothing is owed");
        assert_eq!(pause.changed(10, now), Telling::At(until));
        assert_eq!(pause.changed(10, now), Telling::Later);
        assert_eq!(pause.over(10, now), Some(Telling::At(until)));
        assert_eq!(pause.over(10, until), Some(Telling::Now));
    }
}
