//! How far the queues of half messages and marks are done, kept where RocketMQ keeps it: as the offsets of a consumer group.
//!
//! They never say more than a power cut leaves of the log: what counts as decided has its mark on the disk by then.

use engine::{LogOffset, Store};
use protocol::names::{TRANS_GROUP, TRANS_HALF_TOPIC, TRANS_OP_HALF_TOPIC};

use super::half::QUEUE_ID;
use crate::coordinator::Coordinator;

/// Of the queue of half messages, and of the one of marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    pub halves: u64,
    pub marks: u64,
}

#[derive(Debug, Default)]
pub struct Kept {
    kept: Option<Places>,
    /// To be kept once the log is flushed up to here.
    waiting: Option<(LogOffset, Places)>,
}

impl Kept {
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// What is true now. Says what may be kept.
    fn note(&mut self, now: Places, written: LogOffset, flushed: LogOffset) -> Option<Places> {
        if self.waiting.is_none() && self.kept != Some(now) {
            self.waiting = Some((written, now));
        }
        let (_, places) = self.waiting.take_if(|(needs, _)| *needs <= flushed)?;
        self.kept = Some(places);
        Some(places)
    }

    pub fn keep(&mut self, now: Places, store: &Store, coordinator: &Coordinator) {
        let Some(places) = self.note(now, store.written(), store.flushed()) else {
            return;
        };
        let offsets = &mut coordinator.tables().offsets;
        let queues = [
            (TRANS_HALF_TOPIC, places.halves),
            (TRANS_OP_HALF_TOPIC, places.marks),
        ];
        for (topic, offset) in queues {
            let offset = i64::try_from(offset).expect("queue offsets have 63 bits");
            offsets.commit(TRANS_GROUP, topic, QUEUE_ID as i32, offset);
        }
    }
}

/// As the last run kept them; none for a store that never had them.
pub fn load(coordinator: &Coordinator, topic: &str) -> Option<u64> {
    let tables = coordinator.tables();
    let offset = tables.offsets.get(TRANS_GROUP, topic, QUEUE_ID as i32)?;
    u64::try_from(offset).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(halves: u64) -> Places {
        Places { halves, marks: 1 }
    }

    #[test]
    fn nothing_is_kept_that_the_disk_does_not_have() {
        let mut kept = Kept::default();
        assert_eq!(kept.note(places(1), LogOffset(100), LogOffset(99)), None);
        assert!(kept.is_waiting());
        assert_eq!(
            kept.note(places(5), LogOffset(500), LogOffset(100)),
            Some(places(1)),
            "the newer ones need more of the log"
        );
        assert_eq!(kept.note(places(5), LogOffset(500), LogOffset(100)), None);
        let now = kept.note(places(5), LogOffset(600), LogOffset(500));
        assert_eq!(now, Some(places(5)));
        assert_eq!(kept.note(places(5), LogOffset(600), LogOffset(600)), None);
        assert!(!kept.is_waiting(), "there is nothing new");
    }
}
