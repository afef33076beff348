//! Who waits for the log to be released, in the order of the log. Each one leaves exactly once.

use std::collections::VecDeque;

use engine::LogOffset;
use reactor::Instant;

/// First in, first out, but for those whose time is up.
#[derive(Debug)]
pub struct Waiting<T> {
    entries: VecDeque<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    /// The log has to be released up to here.
    end: LogOffset,
    deadline: Option<Instant>,
    who: T,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
        }
    }
}

impl<T> Waiting<T> {
    pub fn push(&mut self, who: T, end: LogOffset, deadline: Option<Instant>) {
        let last = self.entries.back();
        assert!(
            last.is_none_or(|last| last.end <= end),
            "they come in the order of the log"
        );
        self.entries.push_back(Entry { end, deadline, who });
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The oldest, if the log is released up to its end.
    pub fn take_released(&mut self, released: LogOffset) -> Option<T> {
        let entry = self.entries.pop_front_if(|entry| entry.end <= released)?;
        Some(entry.who)
    }

    /// The oldest, whatever it waits for.
    pub fn take_any(&mut self) -> Option<T> {
        Some(self.entries.pop_front()?.who)
    }

    /// The oldest whose deadline has come.
    pub fn take_late(&mut self, now: Instant) -> Option<T> {
        let is_late = |entry: &Entry<T>| entry.deadline.is_some_and(|deadline| deadline <= now);
        let at = self.entries.iter().position(is_late)?;
        Some(self.entries.remove(at)?.who)
    }

    /// Deadlines come in no order: the limit may be changed while the broker runs.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.entries.iter().filter_map(|entry| entry.deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A batch of so many bytes that waits so long, if not for ever.
        Append {
            bytes: u64,
            patience_ms: Option<u64>,
        },
        /// So much of what is waited for becomes durable, in percent.
        Release(u64),
        Wait {
            ms: u64,
        },
        Poison,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (1u64..500, proptest::option::of(1u64..100))
                .prop_map(|(bytes, patience_ms)| Step::Append { bytes, patience_ms }),
            3 => (0u64..=100).prop_map(Step::Release),
            2 => (1u64..60).prop_map(|ms| Step::Wait { ms }),
            1 => Just(Step::Poison),
        ]
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Left {
        Released,
        Late,
        Poisoned,
    }

    proptest! {
        #[test]
        fn each_leaves_once_and_for_the_right_reason(steps in proptest::collection::vec(step(), 1..200)) {
            let mut waiting = Waiting::default();
            // End, deadline, and how it left.
            let mut sent: Vec<(u64, Option<u64>, Option<Left>)> = Vec::new();
            let (mut end, mut released, mut now) = (0u64, 0u64, 0u64);
            for step in steps {
                let left = match step {
                    Step::Append { bytes, patience_ms } => {
                        end += bytes;
                        let deadline = patience_ms.map(|ms| now + ms);
                        waiting.push(sent.len(), LogOffset(end), deadline.map(at));
                        sent.push((end, deadline, None));
                        continue;
                    }
                    Step::Release(percent) => {
                        released += (end - released) * percent / 100;
                        Left::Released
                    }
                    Step::Wait { ms } => {
                        now += ms;
                        Left::Late
                    }
                    Step::Poison => Left::Poisoned,
                };
                let mut last = None;
                while let Some(who) = match left {
                    Left::Released => waiting.take_released(LogOffset(released)),
                    Left::Late => waiting.take_late(at(now)),
                    Left::Poisoned => waiting.take_any(),
                } {
                    prop_assert_eq!(sent[who].2.replace(left), None, "answered twice");
                    prop_assert!(last < Some(who), "out of order");
                    last = Some(who);
                }
                for (number, &(end, deadline, how)) in sent.iter().enumerate() {
                    match how {
                        None => prop_assert!(left != Left::Poisoned, "{} was forgotten", number),
                        Some(Left::Released) => prop_assert!(end <= released),
                        Some(Left::Late) => prop_assert!(deadline.is_some_and(|ms| ms <= now)),
                        Some(Left::Poisoned) => {}
                    }
                    if how.is_none() {
                        prop_assert!(left != Left::Released || end > released, "{} should go", number);
                        prop_assert!(left != Left::Late || deadline.is_none_or(|ms| ms > now));
                    }
                }
                let soonest = sent.iter().filter(|sent| sent.2.is_none()).filter_map(|sent| sent.1).min();
                prop_assert_eq!(waiting.next_deadline(), soonest.map(at));
                let left_over = sent.iter().filter(|sent| sent.2.is_none()).count();
                prop_assert_eq!((waiting.len(), waiting.is_empty()), (left_over, left_over == 0));
            }
        }
    }
}
