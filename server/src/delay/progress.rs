//! How far each delay level has been delivered, saved as `config/delayOffset.json`; and the timers, saved beside it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use engine::Store;
use protocol::body::offsets::DelayOffsetTable;
use protocol::body::topic_config::DataVersion;
use protocol::names::SCHEDULE_TOPIC;

use super::checkpoint::Checkpoint;
use super::timer::Timers;

/// What is saved at one moment.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    pub levels: DelayOffsetTable,
    /// None: what was saved before still holds.
    pub timers: Option<Checkpoint>,
}

/// Lives on the coordinator's core.
#[derive(Default)]
pub struct Progress {
    /// By level, from 1.
    offsets: RefCell<BTreeMap<i32, i64>>,
    version: Cell<DataVersion>,
    changed: Cell<bool>,
    /// While they run; they know of this, so they are not kept by it.
    timers: RefCell<Weak<Timers>>,
}

impl Progress {
    pub fn restore(saved: DelayOffsetTable) -> Self {
        Self {
            offsets: RefCell::new(saved.offset_table),
            version: Cell::new(saved.data_version),
            changed: Cell::new(false),
            timers: RefCell::default(),
        }
    }

    pub(super) fn include(&self, timers: &Rc<Timers>) {
        *self.timers.borrow_mut() = Rc::downgrade(timers);
    }

    /// None once they are gone.
    pub fn timers(&self) -> Option<Rc<Timers>> {
        self.timers.borrow().upgrade()
    }

    pub fn get(&self, level: i32) -> u64 {
        let offset = self.offsets.borrow().get(&level).copied();
        offset
            .and_then(|offset| u64::try_from(offset).ok())
            .unwrap_or(0)
    }

    pub fn set(&self, level: i32, offset: u64) {
        let offset = i64::try_from(offset).expect("queue offsets have 63 bits");
        self.offsets.borrow_mut().insert(level, offset);
        self.changed.set(true);
    }

    pub fn table(&self) -> DelayOffsetTable {
        DelayOffsetTable {
            data_version: self.version.get(),
            offset_table: self.offsets.borrow().clone(),
        }
    }

    /// What is to be saved, if it changed since this was last asked.
    pub fn take_changed(&self, now_ms: i64) -> Option<Saved> {
        if !self.changed.replace(false) {
            return None;
        }
        self.version.set(self.version.get().next(now_ms));
        let timers = self.timers();
        let saved = Saved {
            levels: self.table(),
            timers: timers.as_ref().and_then(|timers| timers.checkpoint()),
        };
        if timers.is_some() && saved.timers.is_none() {
            self.mark_changed(); // To be asked again.
        }
        Some(saved)
    }

    pub fn mark_changed(&self) {
        self.changed.set(true);
    }

    /// Level, delivered up to, end of its queue.
    pub fn levels(&self, store: &Store) -> Vec<(i32, i64, u64)> {
        let end = |level: i32| {
            let queue_id = u32::try_from(level - 1).ok()?;
            Some(store.find_queue(SCHEDULE_TOPIC, queue_id)?.max_offset())
        };
        let offsets = self.offsets.borrow();
        let levels = offsets.iter();
        levels
            .filter(|&(&level, _)| level > 0)
            .map(|(&level, &delivered)| (level, delivered, end(level).unwrap_or(0)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_starts_at_zero_and_is_saved_after_it_moved() {
        let progress = Progress::default();
        assert_eq!(progress.get(3), 0);
        assert!(progress.take_changed(1).is_none());
        progress.set(3, 17);
        let saved = progress.take_changed(2).expect("moved");
        assert!(progress.take_changed(3).is_none());
        let again = Progress::restore(saved.levels);
        assert_eq!((again.get(3), again.get(4)), (17, 0));
    }
}
