//! Consumer offsets that came along with pulls, on their way to the coordinator: one message for a whole turn.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hashbrown::HashMap;
use reactor::Notify;
use reactor::mailbox::Sender;

use crate::messages::{OffsetCommit, ToCoordinator};

/// More than this waiting for the coordinator are thinned out: only the last commit of a queue counts.
const WAITING_COMMITS_MAX: usize = 16_384;

/// Lives on one core.
pub struct OffsetCommits {
    coordinator: Sender<ToCoordinator>,
    waiting: RefCell<Vec<OffsetCommit>>,
    announced: Cell<bool>,
    ready: Notify,
}

impl OffsetCommits {
    pub fn new(coordinator: Sender<ToCoordinator>) -> Self {
        Self {
            coordinator,
            waiting: RefCell::default(),
            announced: Cell::new(false),
            ready: Notify::new(),
        }
    }

    pub fn add(&self, commit: OffsetCommit) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.push(commit);
        if waiting.len() >= WAITING_COMMITS_MAX {
            keep_last(&mut waiting);
        }
        if !self.announced.replace(true) {
            self.ready.notify();
        }
    }

    /// What must reach the coordinator before a request that came after it.
    pub fn take(&self) -> Option<ToCoordinator> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            return None;
        }
        Some(ToCoordinator::CommitOffsets(std::mem::take(&mut waiting)))
    }

    pub async fn run(self: Rc<Self>) {
        loop {
            self.ready.notified().await;
            self.announced.set(false);
            if let Some(commits) = self.take()
                && self.coordinator.send(commits).await.is_err()
            {
                return;
            }
        }
    }
}

fn keep_last(commits: &mut Vec<OffsetCommit>) {
    let mut last = HashMap::with_capacity(commits.len() / 2);
    for (number, commit) in commits.iter().enumerate() {
        let queue = (commit.group.clone(), commit.topic.clone(), commit.queue_id);
        last.insert(queue, number);
    }
    let mut number = 0;
    commits.retain(|commit| {
        let queue = (commit.group.clone(), commit.topic.clone(), commit.queue_id);
        let keep = last.get(&queue) == Some(&number);
        number += 1;
        keep
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(queue_id: i32, offset: i64) -> OffsetCommit {
        OffsetCommit {
            group: "group".into(),
            topic: "topic".into(),
            queue_id,
            offset,
            peer: ([127, 0, 0, 1], 1).into(),
        }
    }

    #[test]
    fn thinning_out_keeps_the_last_commit_of_every_queue() {
        let mut commits = vec![commit(0, 1), commit(1, 5), commit(0, 2), commit(0, 3)];
        keep_last(&mut commits);
        assert_eq!(commits, [commit(1, 5), commit(0, 3)]);
    }
}
