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
