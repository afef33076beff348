//! How far each consumer group has come in each queue.
//!
//! Owned by the coordinator and saved every few seconds as `config/consumerOffset.json`. An offset changes only by what
//! clients commit and operators reset: the table never moves one back by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::body::offsets::{ConsumerOffsetTable, offset_key, split_offset_key};
use protocol::body::topic_config::DataVersion;

/// Queue id to offset, of one topic and group.
type QueueOffsets = BTreeMap<i32, i64>;
/// By `topic@group`. Cheap to clone, so that it can be written elsewhere while it changes here.
pub type OffsetTable = imbl::HashMap<Arc<str>, Arc<QueueOffsets>>;

#[derive(Debug, Default)]
pub struct Offsets {
    table: OffsetTable,
    version: DataVersion,
    changed: bool,
}

impl Offsets {
    pub fn restore(&mut self, saved: ConsumerOffsetTable) {
        self.table = saved
            .offset_table
            .into_iter()
            .map(|(key, queues)| (Arc::from(key), Arc::new(queues)))
            .collect();
        self.version = saved.data_version;
        self.changed = false;
    }

    pub fn get(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        self.table
            .get(offset_key(topic, group).as_str())?
            .get(&queue_id)
            .copied()
    }

    /// Takes a client's word for it, also when it goes back: a consumer may seek.
    pub fn commit(&mut self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        let key = offset_key(topic, group);
        let queues = match self.table.get_mut(key.as_str()) {
            Some(queues) => queues,
            None => self.table.entry(Arc::from(key)).or_default(),
        };
        let old = queues.get(&queue_id).copied();
        if old == Some(offset) {
            return;
        }
        if let Some(old) = old
            && offset < old
        {
            tracing::info!(
                group,
                topic,
                queue_id,
                old,
                offset,
                "consumer offset goes back"
            );
        }
        Arc::make_mut(queues).insert(queue_id, offset);
        self.changed = true;
    }

    /// `to` stands where `from` does in every queue of a topic, and nowhere else. How many queues that were.
    pub fn clone_group(&mut self, from: &str, to: &str, topic: &str) -> usize {
        let Some(queues) = self.table.get(offset_key(topic, from).as_str()).cloned() else {
            return 0;
        };
        let count = queues.len();
        self.table.insert(Arc::from(offset_key(topic, to)), queues);
        self.changed = true;
        count
    }

    pub fn topics_of_group(&self, group: &str) -> Vec<String> {
        let of_group = |key: &Arc<str>| match split_offset_key(key) {
            Some((topic, owner)) if owner == group => Some(topic.to_owned()),
            _ => None,
        };
        let mut topics: Vec<_> = self.table.keys().filter_map(of_group).collect();
        topics.sort_unstable();
        topics
    }

    pub fn groups_of_topic(&self, topic: &str) -> Vec<String> {
        let of_topic = |key: &Arc<str>| match split_offset_key(key) {
            Some((about, group)) if about == topic => Some(group.to_owned()),
            _ => None,
        };
        let mut groups: Vec<_> = self.table.keys().filter_map(of_topic).collect();
        groups.sort_unstable();
        groups
    }

    /// Every topic and group with its offsets.
    pub fn for_each(&self, mut look: impl FnMut(&str, &str, &Arc<QueueOffsets>)) {
        for (key, offsets) in &self.table {
            if let Some((topic, group)) = split_offset_key(key) {
                look(topic, group, offsets);
            }
        }
    }

    pub fn remove_topic(&mut self, topic: &str) {
        self.retain(|about, _| about != topic);
    }

    /// Of a topic whose queues begin there now: who was told to go on in front of that was so before.
    pub fn remove_in_front(&mut self, topic: &str, starts: &BTreeMap<u32, u64>) {
        let is_behind = |queue_id: i32, offset: i64| {
            let start = u32::try_from(queue_id).ok().and_then(|id| starts.get(&id));
            u64::try_from(offset).is_ok_and(|offset| start.is_none_or(|start| offset >= *start))
        };
        for group in self.groups_of_topic(topic) {
            if let Some(queues) = self.table.get_mut(offset_key(topic, &group).as_str()) {
                Arc::make_mut(queues).retain(|&queue_id, offset| is_behind(queue_id, *offset));
                self.changed = true;
            }
        }
        self.table.retain(|_, queues| !queues.is_empty());
    }

    pub fn remove_group(&mut self, group: &str) {
        self.retain(|_, owner| owner != group);
    }

    fn retain(&mut self, keep: impl Fn(&str, &str) -> bool) {
        let before = self.table.len();
        self.table
            .retain(|key, _| split_offset_key(key).is_none_or(|(topic, group)| keep(topic, group)));
        self.changed |= self.table.len() != before;
    }

    /// The table to be saved, if it changed since this was last asked.
    pub fn take_changed(&mut self, now_ms: i64) -> Option<(OffsetTable, DataVersion)> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        self.version = self.version.next(now_ms);
        Some(self.snapshot())
    }

    /// Saving failed: the next turn tries again.
    pub fn mark_changed(&mut self) {
        self.changed = true;
    }

    pub fn snapshot(&self) -> (OffsetTable, DataVersion) {
        (self.table.clone(), self.version)
    }
}

/// The form in which the table is saved and answered.
pub fn to_wrapper(table: &OffsetTable, version: DataVersion) -> ConsumerOffsetTable {
    ConsumerOffsetTable {
        data_version: version,
        offset_table: table
            .iter()
            .map(|(key, queues)| (key.to_string(), (**queues).clone()))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_kept_per_group_topic_and_queue() {
        let mut offsets = Offsets::default();
        offsets.commit("g", "t", 0, 5);
        offsets.commit("g", "t", 1, 6);
        offsets.commit("h", "t", 0, 7);
        assert_eq!(offsets.get("g", "t", 0), Some(5));
        assert_eq!(offsets.get("g", "t", 1), Some(6));
        assert_eq!(offsets.get("h", "t", 0), Some(7));
        assert_eq!(offsets.get("h", "t", 1), None);
        assert_eq!(offsets.groups_of_topic("t"), ["g", "h"]);
        assert_eq!(offsets.topics_of_group("h"), ["t"]);
    }

    #[test]
    fn a_cloned_group_stands_where_the_other_does() {
        let mut offsets = Offsets::default();
        offsets.commit("g", "t", 0, 5);
        offsets.commit("g", "t", 1, 6);
        offsets.commit("h", "t", 2, 7);
        assert_eq!(offsets.clone_group("g", "h", "t"), 2);
        offsets.commit("g", "t", 0, 9);
        assert_eq!(offsets.get("h", "t", 0), Some(5));
        assert_eq!(offsets.get("h", "t", 1), Some(6));
        assert_eq!(offsets.get("h", "t", 2), None);
        assert_eq!(offsets.clone_group("g", "h", "u"), 0);
    }

    #[test]
    fn a_client_may_go_back() {
        let mut offsets = Offsets::default();
        offsets.commit("g", "t", 0, 5);
        offsets.commit("g", "t", 0, 2);
        assert_eq!(offsets.get("g", "t", 0), Some(2));
    }

    #[test]
    fn only_changes_are_saved_and_a_save_in_progress_sees_no_later_commit() {
        let mut offsets = Offsets::default();
        assert!(offsets.take_changed(1).is_none());
        offsets.commit("g", "t", 0, 5);
        let (table, version) = offsets.take_changed(1).expect("changed");
        offsets.commit("g", "t", 0, 5);
        assert!(
            offsets.take_changed(2).is_none(),
            "the same again is no change"
        );
        offsets.commit("g", "t", 0, 6);
        let wrapper = to_wrapper(&table, version);
        assert_eq!(wrapper.offset_table["t@g"][&0], 5);
        assert!(offsets.take_changed(3).is_some());
    }

    #[test]
    fn what_was_saved_is_restored() {
        let mut offsets = Offsets::default();
        offsets.commit("g", "%RETRY%g", 0, 9);
        let (table, version) = offsets.take_changed(1).expect("changed");
        let mut again = Offsets::default();
        again.restore(to_wrapper(&table, version));
        assert_eq!(again.get("g", "%RETRY%g", 0), Some(9));
        assert!(again.take_changed(2).is_none());
    }

    #[test]
    fn a_deleted_topic_or_group_leaves_nothing() {
        let mut offsets = Offsets::default();
        for (group, topic) in [("g", "t"), ("g", "u"), ("h", "t")] {
            offsets.commit(group, topic, 0, 1);
        }
        offsets.remove_topic("t");
        assert_eq!(offsets.topics_of_group("g"), ["u"]);
        offsets.remove_group("g");
        assert!(offsets.snapshot().0.is_empty());
    }
}
