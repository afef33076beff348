//! How far the timers have been delivered, in a few words, though they do not lie in the order in which they are due.
//!
//! They are delivered in that order. So of all that lies in front of `next` in their queue everything is done up to one
//! point in time, but for the few that came when their time was over already, which are named. Saved as
//! `orbit/timers.json`, never ahead of the log: what was delivered before it was saved is not delivered again. Right after
//! RocketMQ had the store it also holds what RocketMQ's own checkpoint said, until all of the queue has been looked at.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use engine::LogOffset;
use reactor::fs;
use serde::{Deserialize, Serialize};

use super::pending::{Key, Timer};
use super::theirs::Inherited;

pub const TIMERS: &str = "timers.json";
/// More timers that came late are a moment's business: it is tried again soon.
pub const LATE_MAX: usize = 4_096;
/// More withdrawals are not named: then a start reads all timers before it delivers any.
pub const WITHDRAWALS_MAX: usize = 4_096;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// No timer that is still parked lies in front of this offset of the queue.
    pub first: u64,
    /// What follows is about the offsets below.
    pub next: u64,
    /// Everything that is due up to here (time, and then offset) is done, ..
    pub done_ms: i64,
    pub done_offset: u64,
    /// .. but for these offsets.
    #[serde(default)]
    pub late: BTreeSet<u64>,
    /// Those of them that are still parked and withdraw others. None: not known, or too many.
    #[serde(default)]
    pub withdrawals: Option<BTreeSet<u64>>,
    /// What lies behind is not among the offsets meant here: the queue may have begun anew under RocketMQ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_end: Option<u64>,
    /// How far the log was RocketMQ's when this was saved.
    #[serde(default)]
    pub rocketmqs_until: u64,
    /// A clean stop has laid out what is parked as RocketMQ does.
    #[serde(default)]
    pub laid_out: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherited: Option<Inherited>,
}

impl Checkpoint {
    pub fn done(&self) -> Key {
        (self.done_ms, self.done_offset)
    }

    pub fn is_done(&self, timer: &Timer) -> bool {
        let key = timer.key();
        let is_meant = self.log_end.is_none_or(|end| timer.place < LogOffset(end));
        is_meant && key.1 < self.next && key <= self.done() && !self.late.contains(&key.1)
    }

    /// A queue that a power cut has made shorter: what comes behind its end now is new.
    pub fn end_at(&mut self, max_offset: u64) {
        self.next = self.next.min(max_offset);
        self.first = self.first.min(self.next);
        if let Some(withdrawals) = &mut self.withdrawals {
            withdrawals.retain(|&offset| offset < self.next);
        }
    }
}

/// None if there is none: then nothing has been delivered. The one before counts if the last one was lost. Blocks.
pub fn read(path: &Path) -> io::Result<Option<Checkpoint>> {
    let before = path.with_extension("json.bak");
    let mut problem = None;
    for path in [path, &before] {
        if !fs::exists(path) {
            continue;
        }
        match serde_json::from_slice(&fs::read(path)?) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(error) => problem = problem.or(Some(error)),
        }
    }
    problem.map_or(Ok(None), |error| {
        let path = path.display();
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{path}: {error}; delete it and its .bak to have the timers of the last days delivered again"),
        ))
    })
}

/// Durable when it returns. Blocks.
pub fn write(path: &Path, checkpoint: &Checkpoint) -> io::Result<()> {
    fs::replace(path, &serde_json::to_vec(checkpoint)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_is_what_lies_in_front_and_was_due_and_is_not_named() {
        let mut checkpoint = Checkpoint {
            first: 2,
            next: 10,
            done_ms: 1_000,
            done_offset: 5,
            late: BTreeSet::from([3]),
            withdrawals: Some(BTreeSet::from([4, 6])),
            ..Checkpoint::default()
        };
        let timer = |(due_ms, offset)| Timer {
            due_ms,
            offset,
            place: LogOffset(offset * 100),
        };
        let done = |checkpoint: &Checkpoint| {
            [(999, 9), (1_000, 5), (1_000, 6), (500, 3), (500, 10)]
                .map(|key| checkpoint.is_done(&timer(key)))
        };
        assert_eq!(done(&checkpoint), [true, true, false, false, false]);
        // RocketMQ gave the offsets from 5 on to others.
        checkpoint.log_end = Some(500);
        assert_eq!(done(&checkpoint), [false; 5]);
        assert!(checkpoint.is_done(&timer((500, 4))));
        checkpoint.log_end = None;
        // The offsets 5 to 9 were lost, and are given to others.
        checkpoint.end_at(5);
        assert_eq!(done(&checkpoint), [false; 5]);
        assert!(checkpoint.is_done(&timer((500, 4))));
        assert_eq!(checkpoint.withdrawals, Some(BTreeSet::from([4])));
    }

    #[test]
    fn it_comes_back_as_it_was_and_nonsense_is_no_checkpoint() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(TIMERS);
        assert_eq!(read(&path).expect("no error"), None);
        let checkpoint = Checkpoint {
            next: 7,
            late: BTreeSet::from([1, 2]),
            log_end: Some(9),
            inherited: Some(Inherited::default()),
            ..Checkpoint::default()
        };
        write(&path, &checkpoint).expect("written");
        assert_eq!(read(&path).expect("readable"), Some(checkpoint.clone()));
        std::fs::write(&path, "{").expect("written");
        assert!(read(&path).is_err(), "there was none before");
        write(&path, &checkpoint).expect("written");
        write(&path, &checkpoint).expect("written");
        std::fs::remove_file(&path).expect("there");
        assert_eq!(read(&path).expect("the one before"), Some(checkpoint));
    }
}
