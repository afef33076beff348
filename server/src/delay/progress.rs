//! How far each delay level has been delivered; saved as `config/delayOffset.json`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use engine::Store;
use protocol::body::offsets::DelayOffsetTable;
use protocol::body::topic_config::DataVersion;
use protocol::names::SCHEDULE_TOPIC;

use super::timer;

/// Lives on the coordinator's core.
#[derive(Debug, Default)]
pub struct Progress {
    /// By level, from 1; under 0 the messages with a due time of their own.
    offsets: RefCell<BTreeMap<i32, i64>>,
    version: Cell<DataVersion>,
    changed: Cell<bool>,
}

impl Progress {
    pub fn restore(saved: DelayOffsetTable) -> Self {
        Self {
            offsets: RefCell::new(saved.offset_table),
            version: Cell::new(saved.data_version),
            changed: Cell::new(false),
        }
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

    /// The table to be saved, if it changed since this was last asked.
    pub fn take_changed(&self, now_ms: i64) -> Option<DelayOffsetTable> {
        if !self.changed.replace(false) {
            return None;
        }
        self.version.set(self.version.get().next(now_ms));
        Some(self.table())
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
            .filter(|&(&level, _)| level > timer::LEVEL)
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
        let table = progress.take_changed(2).expect("moved");
        assert!(progress.take_changed(3).is_none());
        let again = Progress::restore(table);
        assert_eq!((again.get(3), again.get(4)), (17, 0));
    }
}
