//! The topics and what each broker group gives to them. Ordered by name, so that a walk can stop anywhere and go on later,
//! and so that every run of a simulation sees the same order.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use protocol::permission;

use super::{GroupNo, Refused, TOPICS_MAX};

const UNIT: i32 = 1;
const UNIT_SUBSCRIBED: i32 = 1 << 1;

/// One group's queues of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    pub read: i32,
    pub write: i32,
    pub permission: i32,
    pub sys_flag: i32,
}

impl Queues {
    pub fn without_write(self) -> Queues {
        Queues {
            permission: self.permission & !permission::WRITE,
            ..self
        }
    }
}

/// What a broker registers of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    pub queues: Queues,
}

/// Which topics a list is to name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicFilter {
    All,
    Cluster(String),
    Unit,
    UnitSubscribed,
    UnitSubscribedOnly,
}

/// The last topic a walk has looked at.
pub(super) type Cursor = Arc<str>;

#[derive(Debug, Default)]
pub(super) struct Topics {
    /// Of each topic its groups in the order they came. Groups that are gone may still be in here until swept.
    table: BTreeMap<Arc<str>, Vec<(GroupNo, Queues)>>,
    sweep: Option<Sweep>,
}

#[derive(Debug, Default)]
struct Sweep {
    cursor: Option<Cursor>,
    /// Another group went while this sweep was under way: once more from the start.
    again: bool,
}

impl Topics {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn get(&self, topic: &str) -> Option<&[(GroupNo, Queues)]> {
        self.table.get(topic).map(Vec::as_slice)
    }

    /// Sets a group's queues of a topic; with `replace` false only if it has none.
    pub(super) fn put(
        &mut self,
        topic: &str,
        group: GroupNo,
        queues: Queues,
        replace: bool,
    ) -> Result<(), Refused> {
        if let Some(entries) = self.table.get_mut(topic) {
            match entries.iter_mut().find(|(held, _)| *held == group) {
                None => entries.push((group, queues)),
                Some(held) if replace && held.1 != queues => {
                    tracing::debug!(topic, before = ?held.1, after = ?queues, "topic changed");
                    held.1 = queues;
                }
                Some(_) => {}
            }
            return Ok(());
        }
        if self.table.len() >= TOPICS_MAX {
            return Err(Refused::TooManyTopics);
        }
        self.table.insert(Arc::from(topic), vec![(group, queues)]);
        Ok(())
    }

    pub(super) fn remove(&mut self, topic: &str) {
        self.table.remove(topic);
    }

    pub(super) fn remove_of(&mut self, topic: &str, groups: &BTreeSet<GroupNo>) {
        if let Some(entries) = self.table.get_mut(topic) {
            entries.retain(|(group, _)| !groups.contains(group));
            if entries.is_empty() {
                self.table.remove(topic);
            }
        }
    }

    pub(super) fn start_sweep(&mut self) {
        match &mut self.sweep {
            None => self.sweep = Some(Sweep::default()),
            Some(sweep) => sweep.again = true,
        }
    }

    pub(super) fn sweep_wanted(&self) -> bool {
        self.sweep.is_some()
    }

    pub(super) fn sweep(&mut self, limit: usize, known: impl Fn(GroupNo) -> bool) -> bool {
        let Some(mut sweep) = self.sweep.take() else {
            return false;
        };
        let mut emptied = Vec::new();
        let mut last = None;
        let mut seen = 0;
        for (topic, entries) in self
            .table
            .range_mut::<str, _>(after(&sweep.cursor))
            .take(limit)
        {
            entries.retain(|(group, _)| known(*group));
            if entries.is_empty() {
                emptied.push(topic.clone());
            }
            last = Some(topic.clone());
            seen += 1;
        }
        for topic in emptied {
            self.table.remove(&topic);
        }
        if seen == limit {
            sweep.cursor = last;
            self.sweep = Some(sweep);
        } else if sweep.again {
            self.sweep = Some(Sweep::default());
        }
        self.sweep.is_some()
    }

    /// Returns where to go on, and how many topics of the group there were.
    pub(super) fn change_write(
        &mut self,
        group: GroupNo,
        grant: bool,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> (Option<Cursor>, usize) {
        let mut page = Page::new(limit);
        let mut changed = 0;
        for (topic, entries) in self.table.range_mut::<str, _>(after(&cursor)).take(limit) {
            page.saw(topic);
            if let Some((_, queues)) = entries.iter_mut().find(|(held, _)| *held == group) {
                queues.permission = match grant {
                    true => permission::READ | permission::WRITE,
                    false => queues.without_write().permission,
                };
                changed += 1;
            }
        }
        (page.next(), changed)
    }

    /// Returns where to go on, and how many topics were named.
    pub(super) fn list(
        &self,
        filter: &TopicFilter,
        members: &BTreeSet<GroupNo>,
        known: impl Fn(GroupNo) -> bool,
        cursor: Option<Cursor>,
        limit: usize,
        mut each: impl FnMut(&str),
    ) -> (Option<Cursor>, usize) {
        let mut page = Page::new(limit);
        let mut named = 0;
        for (topic, entries) in self.table.range::<str, _>(after(&cursor)).take(limit) {
            page.saw(topic);
            let mut entries = entries.iter().filter(|(group, _)| known(*group));
            let passes = match filter {
                TopicFilter::All => entries.next().is_some(),
                TopicFilter::Cluster(_) => entries.any(|(group, _)| members.contains(group)),
                TopicFilter::Unit => has_flag(entries.next(), UNIT),
                TopicFilter::UnitSubscribed => has_flag(entries.next(), UNIT_SUBSCRIBED),
                TopicFilter::UnitSubscribedOnly => {
                    let first = entries.next();
                    has_flag(first, UNIT_SUBSCRIBED) && !has_flag(first, UNIT)
                }
            };
            if passes {
                each(topic);
                named += 1;
            }
        }
        (page.next(), named)
    }
}

fn has_flag(entry: Option<&(GroupNo, Queues)>, flag: i32) -> bool {
    entry.is_some_and(|(_, queues)| queues.sys_flag & flag != 0)
}

fn after(cursor: &Option<Cursor>) -> (Bound<&str>, Bound<&str>) {
    let start = cursor.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    (start, Bound::Unbounded)
}

/// Counts what a walk has looked at; a full page means that there may be more.
struct Page {
    left: usize,
    last: Option<Cursor>,
}

impl Page {
    fn new(limit: usize) -> Page {
        assert!(limit > 0, "a walk must get ahead");
        Page {
            left: limit,
            last: None,
        }
    }

    fn saw(&mut self, topic: &Cursor) {
        self.left -= 1;
        if self.left == 0 {
            self.last = Some(topic.clone());
        }
    }

    fn next(self) -> Option<Cursor> {
        self.last
    }
}
