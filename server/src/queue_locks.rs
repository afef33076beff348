//! Which client of a group holds which queue, so that ordered consumers never share one.
//!
//! Owned by the coordinator. A hold lasts a minute after it was last confirmed; clients confirm every 20 seconds. Holds are
//! in memory only: after a restart clients simply lock again.

use std::sync::Arc;

use hashbrown::HashMap;
use protocol::body::queue::MessageQueue;

/// A hold that was not confirmed for so long may be taken over.
pub const HOLD_MS: u64 = 60_000;

#[derive(Debug, Default)]
pub struct QueueLocks {
    groups: HashMap<Arc<str>, HashMap<MessageQueue, Hold>>,
}

#[derive(Debug)]
struct Hold {
    client_id: String,
    confirmed_ms: u64,
}

impl Hold {
    fn is_live(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.confirmed_ms) <= HOLD_MS
    }
}

impl QueueLocks {
    /// Takes or confirms what it can, and says which of the queues this client now holds.
    pub fn lock(
        &mut self,
        group: &str,
        client_id: &str,
        queues: &[MessageQueue],
        now_ms: u64,
    ) -> Vec<MessageQueue> {
        let holds = match self.groups.get_mut(group) {
            Some(holds) => holds,
            None => self.groups.entry(Arc::from(group)).or_default(),
        };
        let mut held = Vec::with_capacity(queues.len());
        for queue in queues {
            match holds.get_mut(queue) {
                Some(hold) if hold.client_id == client_id => hold.confirmed_ms = now_ms,
                Some(hold) if hold.is_live(now_ms) => {
                    tracing::debug!(
                        group,
                        ?queue,
                        holder = hold.client_id,
                        client_id,
                        "queue lock refused: held by another client"
                    );
                    continue;
                }
                _ => {
                    let hold = Hold {
                        client_id: client_id.to_owned(),
                        confirmed_ms: now_ms,
                    };
                    holds.insert(queue.clone(), hold);
                }
            }
            held.push(queue.clone());
        }
        held
    }

    /// Gives up what this client holds of these; what others hold stays theirs.
    pub fn unlock(&mut self, group: &str, client_id: &str, queues: &[MessageQueue]) {
        let Some(holds) = self.groups.get_mut(group) else {
            return;
        };
        for queue in queues {
            if holds
                .get(queue)
                .is_some_and(|hold| hold.client_id == client_id)
            {
                holds.remove(queue);
            }
        }
        if holds.is_empty() {
            self.groups.remove(group);
        }
    }

    /// Forgets holds that have run out.
    pub fn expire(&mut self, now_ms: u64) {
        self.groups.retain(|_, holds| {
            holds.retain(|_, hold| hold.is_live(now_ms));
            !holds.is_empty()
        });
    }

    /// Groups with a live hold.
    pub fn ordered_groups(&self, now_ms: u64) -> imbl::HashSet<Arc<str>> {
        let live = |holds: &HashMap<MessageQueue, Hold>| holds.values().any(|h| h.is_live(now_ms));
        let groups = self.groups.iter().filter(|(_, holds)| live(holds));
        groups.map(|(group, _)| Arc::clone(group)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(id: i32) -> MessageQueue {
        MessageQueue {
            topic: "t".to_owned(),
            broker_name: "b".to_owned(),
            queue_id: id,
        }
    }

    #[test]
    fn a_queue_has_one_holder_until_it_lets_go() {
        let mut locks = QueueLocks::default();
        assert_eq!(
            locks.lock("g", "a", &[queue(0), queue(1)], 0),
            [queue(0), queue(1)]
        );
        assert_eq!(
            locks.lock("g", "b", &[queue(1), queue(2)], 1),
            [queue(2)],
            "1 is a's"
        );
        locks.unlock("g", "b", &[queue(1)]);
        assert!(
            locks.lock("g", "b", &[queue(1)], 2).is_empty(),
            "only the holder unlocks"
        );
        locks.unlock("g", "a", &[queue(1)]);
        assert_eq!(locks.lock("g", "b", &[queue(1)], 3), [queue(1)]);
    }

    #[test]
    fn groups_do_not_compete() {
        let mut locks = QueueLocks::default();
        assert_eq!(locks.lock("g", "a", &[queue(0)], 0).len(), 1);
        assert_eq!(locks.lock("h", "b", &[queue(0)], 0).len(), 1);
    }

    #[test]
    fn a_hold_runs_out_a_minute_after_its_last_confirmation() {
        let mut locks = QueueLocks::default();
        locks.lock("g", "a", &[queue(0)], 0);
        locks.lock("g", "a", &[queue(0)], 20_000);
        assert!(
            locks
                .lock("g", "b", &[queue(0)], 20_000 + HOLD_MS)
                .is_empty()
        );
        assert_eq!(locks.lock("g", "b", &[queue(0)], 20_001 + HOLD_MS).len(), 1);
    }

    #[test]
    fn groups_with_live_holds_are_ordered_ones() {
        let mut locks = QueueLocks::default();
        locks.lock("g", "a", &[queue(0)], 0);
        assert!(locks.ordered_groups(HOLD_MS).contains("g"));
        assert!(locks.ordered_groups(HOLD_MS + 1).is_empty());
        locks.expire(HOLD_MS + 1);
        assert!(locks.groups.is_empty());
    }
}
