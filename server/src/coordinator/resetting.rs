//! What resets of offsets mean for those who read and commit meanwhile.

use super::Coordinator;
use crate::coordinator::now_ms;
use crate::messages::{OffsetCommit, ToShard};
use crate::resets::Place;

impl Coordinator {
    /// To be called after every change of the resets.
    pub fn resets_changed(&self) {
        let snapshot = self.tables().resets.snapshot();
        self.shared.resets.publish(snapshot);
    }

    /// Parked pulls of these queues are told. `outgoing.send_all` sends that off.
    pub fn tell_pulls(&self, topic: &str, queues: impl Iterator<Item = i32>) {
        let queues = queues.filter_map(|id| u32::try_from(id).ok());
        let found = queues.filter_map(|id| self.shared.store.find_queue(topic, id));
        for queue in found {
            for shard in 0..self.shared.shards.len() {
                let shard = u16::try_from(shard).expect("shards are few");
                self.outgoing.push(shard, ToShard::Reset(queue.no()));
            }
        }
    }

    pub(super) fn reset_told(&self, place: Place) {
        self.tables().resets.told(place, now_ms());
    }

    pub(super) fn reset_followed(&self, place: &Place, offset: i64) {
        let ended = self.tables().resets.followed(place, offset);
        if ended {
            tracing::info!(?place, offset, "consumers go on at the offset that was set");
            self.resets_changed();
        }
    }

    pub(super) fn expire_resets(&self) {
        let expired = self.tables().resets.expire(now_ms());
        if expired {
            self.resets_changed();
        }
    }

    /// Offsets that came along with pulls.
    pub(super) fn commit_offsets(&self, commits: &[OffsetCommit]) {
        let mut tables = self.tables();
        for commit in commits {
            let (group, topic, queue_id) = (&commit.group, &commit.topic, commit.queue_id);
            if tables.topics.get(topic).is_none() {
                tracing::debug!(%topic, peer = %commit.peer, "offset of an unknown topic dropped");
                continue;
            }
            // It is where the consumer was before.
            if !tables.resets.is_pending(group, topic, queue_id) {
                tables.offsets.commit(group, topic, queue_id, commit.offset);
            }
        }
    }
}
