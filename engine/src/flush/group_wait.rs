//! How long a commit waits for those who were just answered.
//!
//! A sender that waits for the disk sends again once it is answered. If the next commit begins at once it takes only
//! those who came during the last one, the others miss it, and each half waits for the other's commit: two commits
//! from answer to answer. So a commit begins when as many records lie there as were on their way when the last one
//! ended, at the latest as long after it as a commit takes. Somebody who is alone never waits: nobody else is due.
//!
//! Waiting that was in vain is given up: after each such time twice as many commits begin at once before it is tried
//! again. Senders that do not depend on answers are so left alone but for one commit in `UNTRIED_MAX`.

use reactor::{Instant, Notify, timeout};
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// On a faster disk there is nothing to gain: a timer and two switches between tasks cost as much.
const COMMIT_TIME_MIN: Duration = Duration::from_micros(40);
/// No wait is longer, however slow the disk.
const WAIT_MAX: Duration = Duration::from_millis(10);
/// With so much there is nothing to gain either: of the time of such a commit the disk's answer is the smaller part, and while it
/// waits the core, which has enough to do, would not be done with the next.
const ENOUGH_BYTES: u64 = 128 << 10;
/// One in so many of those who were answered may stay away.
const ABSENT_FRACTION: u64 = 8;
/// At most so many commits begin at once before waiting is tried again.
const UNTRIED_MAX: u32 = 64;
/// The weight of one more commit in the average of their times is 1 in so many.
const AVERAGED_OVER: u32 = 8;

/// The writer's core only.
#[derive(Default)]
pub(super) struct GroupWait {
    estimate: RefCell<Estimate>,
    /// Somebody waits with a timer.
    is_awaited: Cell<bool>,
    /// The one with the timer need not wait any longer.
    over: Notify,
}

impl GroupWait {
    /// So many records more are to be committed, up to `end` of the log. Whether somebody has to be woken for them.
    pub fn laid(&self, records: u64, end: u64) -> bool {
        let mut estimate = self.estimate.borrow_mut();
        estimate.pending += records;
        estimate.end = end;
        if !self.is_awaited.get() {
            return true;
        }
        if estimate.is_complete() {
            self.over.notify();
        }
        false
    }

    /// A commit begins; it covers what was laid.
    pub fn began(&self) {
        self.estimate.borrow_mut().began(reactor::now());
        self.hurry();
    }

    /// It has ended, and no other is in flight.
    pub fn landed(&self) {
        self.estimate.borrow_mut().landed(reactor::now());
    }

    /// Somebody wants the next commit now.
    pub fn hurry(&self) {
        self.estimate.borrow_mut().goal = None;
        if self.is_awaited.get() {
            self.over.notify();
        }
    }

    /// Resumes when the next commit may begin. `false`, at once: somebody else waits for that already.
    pub async fn wait(&self) -> bool {
        if self.is_awaited.get() {
            return false;
        }
        loop {
            let now = reactor::now();
            let Some(until) = self.estimate.borrow_mut().wait_until(now) else {
                return true;
            };
            self.is_awaited.set(true);
            // Either way it is looked at again.
            let _ = timeout(until.saturating_since(now), self.over.notified()).await;
            self.is_awaited.set(false);
        }
    }
}

/// The figures behind it. No clock of its own.
#[derive(Default)]
struct Estimate {
    /// Records that no commit has begun to cover.
    pending: u64,
    /// The log from where no commit covers it, and its end.
    begun: u64,
    end: u64,
    /// Records of the commit in flight.
    in_flight: u64,
    began_at: Option<Instant>,
    /// Average; zero before the first.
    commit_time: Duration,
    goal: Option<Goal>,
    /// After the last wait in vain so many commits began at once; zero after one that was not.
    untried: u32,
    /// So many more will.
    still_untried: u32,
}

#[derive(Clone, Copy)]
struct Goal {
    records: u64,
    until: Instant,
}

impl Estimate {
    fn began(&mut self, now: Instant) {
        self.in_flight += std::mem::take(&mut self.pending);
        self.begun = self.end;
        self.began_at.get_or_insert(now);
    }

    fn landed(&mut self, now: Instant) {
        let Some(began_at) = self.began_at.take() else {
            return;
        };
        let took = now.saturating_since(began_at);
        self.commit_time = match self.commit_time {
            Duration::ZERO => took,
            average => average - average / AVERAGED_OVER + took / AVERAGED_OVER,
        };
        let answered = std::mem::take(&mut self.in_flight);
        self.goal = None;
        if self.commit_time < COMMIT_TIME_MIN {
            return;
        }
        if self.still_untried > 0 {
            self.still_untried -= 1;
            return;
        }
        self.goal = Some(Goal {
            records: self.pending + answered - answered / ABSENT_FRACTION,
            until: now + self.commit_time.min(WAIT_MAX),
        });
    }

    fn is_complete(&self) -> bool {
        let is_enough =
            |goal: Goal| self.pending >= goal.records || self.end - self.begun >= ENOUGH_BYTES;
        self.goal.is_none_or(is_enough)
    }

    /// Until when the next commit waits; `None`: it begins as soon as there is something.
    fn wait_until(&mut self, now: Instant) -> Option<Instant> {
        let goal = self.goal?;
        if self.is_complete() {
            self.untried = 0;
        } else if now < goal.until {
            // With nothing there nobody waits.
            return (self.pending > 0).then_some(goal.until);
        } else if self.pending > 0 {
            self.untried = (self.untried * 2).clamp(1, UNTRIED_MAX);
            self.still_untried = self.untried;
        }
        self.goal = None;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COMMIT: Duration = Duration::from_micros(200);

    fn at(micros: u64) -> Instant {
        Instant::default() + Duration::from_micros(micros)
    }

    /// One commit of `answered` records from 1,000 us on, with `pending` more laid meanwhile.
    fn after_a_commit(answered: u64, pending: u64) -> Estimate {
        let mut estimate = Estimate {
            pending: answered,
            ..Estimate::default()
        };
        estimate.began(at(1_000));
        estimate.pending += pending;
        estimate.landed(at(1_200));
        estimate
    }

    #[test]
    fn who_is_alone_never_waits() {
        let mut estimate = after_a_commit(1, 0);
        assert_eq!(estimate.wait_until(at(1_201)), None, "nothing is there");
        estimate.pending += 1;
        assert_eq!(estimate.wait_until(at(1_230)), None);
        assert_eq!(estimate.untried, 0);
    }

    #[test]
    fn the_commit_waits_for_those_who_were_answered_and_no_longer() {
        let mut estimate = after_a_commit(8, 24);
        assert_eq!(estimate.wait_until(at(1_210)), Some(at(1_400)));
        estimate.pending += 6;
        assert_eq!(estimate.wait_until(at(1_250)), Some(at(1_400)), "30 of 31");
        estimate.pending += 1;
        assert!(estimate.is_complete());
        assert_eq!(estimate.wait_until(at(1_250)), None);
    }

    #[test]
    fn waiting_in_vain_is_given_up_for_longer_each_time() {
        let mut estimate = after_a_commit(8, 8);
        let (mut now, mut waits) = (1_200, Vec::new());
        for commit in 0..1_000u64 {
            if estimate.wait_until(at(now)).is_some() {
                waits.push(commit);
                now += 200;
                assert_eq!(estimate.wait_until(at(now)), None, "it takes no longer");
            }
            estimate.began(at(now));
            now += 200;
            estimate.pending += 8;
            estimate.landed(at(now));
        }
        let gaps: Vec<u64> = waits.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps[..7], [2, 3, 5, 9, 17, 33, 65]);
        assert!(gaps[7..].iter().all(|gap| *gap == 65));
        // They are back.
        while estimate.goal.is_none() {
            estimate.began(at(now));
            estimate.pending += 8;
            estimate.landed(at(now + 200));
        }
        estimate.pending += 8;
        assert_eq!(estimate.wait_until(at(now + 210)), None);
        assert_eq!((estimate.untried, estimate.still_untried), (0, 0));
    }

    #[test]
    fn on_a_fast_disk_and_on_a_hanging_one_nobody_waits_long() {
        let mut estimate = Estimate::default();
        for (took, longest) in [(30, 0), (8_000_000, 10_000)] {
            estimate.pending = 10;
            estimate.began(at(0));
            estimate.pending += 1;
            estimate.landed(at(took));
            let until = estimate.wait_until(at(took));
            let waits = until.map_or(Duration::ZERO, |until| until.saturating_since(at(took)));
            assert_eq!(waits, Duration::from_micros(longest));
        }
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_a_commit_and_none_begins_without_records(
            steps in proptest::collection::vec((0u64..20, 1u64..2_000, any::<bool>()), 1..200),
        ) {
            let mut estimate = Estimate::default();
            let (mut now, mut longest) = (0, Duration::ZERO);
            for (records, micros, is_commit) in steps {
                estimate.pending += records;
                if let Some(until) = estimate.wait_until(at(now)) {
                    prop_assert!(estimate.pending > 0);
                    prop_assert!(until.saturating_since(at(now)) <= longest.min(WAIT_MAX));
                    now += micros;
                    let again = estimate.wait_until(at(now));
                    prop_assert!(again.is_none_or(|again| again == until && at(now) < until));
                }
                if is_commit {
                    estimate.began(at(now));
                    now += micros;
                    longest = longest.max(Duration::from_micros(micros));
                    estimate.landed(at(now));
                    prop_assert_eq!(estimate.in_flight, 0);
                }
            }
        }
    }

    #[test]
    fn the_average_follows_the_disk() {
        let mut estimate = after_a_commit(1, 0);
        assert_eq!(estimate.commit_time, COMMIT);
        for _ in 0..100 {
            estimate.began(at(0));
            estimate.landed(at(1_000));
        }
        let average = estimate.commit_time.as_micros();
        assert!((950..=1_000).contains(&average), "{average} us");
    }
}
