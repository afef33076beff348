//! Offsets that an operator has set while the group was consuming, until its consumers have followed.
//!
//! Owned by the coordinator, who publishes `snapshot`. A pull from anywhere else is sent to the new offset; until a pull comes
//! from there, what consumers commit is passed over: they commit what they had before. One that never follows is left alone
//! after a while.

use std::sync::Arc;

/// How long consumers that were told may go on committing what they had. Clients take ten seconds to begin anew.
const FOLLOW_MS: u64 = 30_000;

/// One queue of one group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub group: Arc<str>,
    pub topic: Arc<str>,
    pub queue_id: i32,
}

/// Where each of them is to go on. Empty in all but a few moments of a broker's life.
pub type Offsets = imbl::HashMap<Place, i64>;

#[derive(Debug, Default)]
pub struct Resets {
    offsets: Offsets,
    /// When a consumer was first told, by the clock that never jumps.
    told_ms: hashbrown::HashMap<Place, u64>,
}

impl Resets {
    pub fn snapshot(&self) -> Offsets {
        self.offsets.clone()
    }

    pub fn set(&mut self, place: Place, offset: i64) {
        self.told_ms.remove(&place);
        self.offsets.insert(place, offset);
    }

    pub fn is_pending(&self, group: &str, topic: &str, queue_id: i32) -> bool {
        // Most of the time nobody pays for the names.
        !self.offsets.is_empty()
            && self.offsets.contains_key(&Place {
                group: Arc::from(group),
                topic: Arc::from(topic),
                queue_id,
            })
    }

    /// A consumer was sent there.
    pub fn told(&mut self, place: Place, now_ms: u64) {
        if self.offsets.contains_key(&place) {
            self.told_ms.entry(place).or_insert(now_ms);
        }
    }

    /// A consumer has come to the offset. True if that ends the reset.
    pub fn followed(&mut self, place: &Place, offset: i64) -> bool {
        // It may have been set again meanwhile.
        if self.offsets.get(place) != Some(&offset) {
            return false;
        }
        self.told_ms.remove(place);
        self.offsets.remove(place);
        true
    }

    /// Gives those up that were told long ago. True if there were any.
    pub fn expire(&mut self, now_ms: u64) -> bool {
        let before = self.offsets.len();
        let offsets = &mut self.offsets;
        self.told_ms.retain(|place, told_ms| {
            let waits = now_ms.saturating_sub(*told_ms) <= FOLLOW_MS;
            if !waits {
                tracing::info!(?place, "consumers did not go to the offset that was set");
                offsets.remove(place);
            }
            waits
        });
        offsets.len() != before
    }

    /// The group has no members any more: who comes next asks for its offset and finds the one that was set.
    pub fn forget_group(&mut self, group: &str) -> bool {
        let before = self.offsets.len();
        self.offsets.retain(|place, _| *place.group != *group);
        self.told_ms.retain(|place, _| *place.group != *group);
        self.offsets.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(queue_id: i32) -> Place {
        Place {
            group: Arc::from("g"),
            topic: Arc::from("t"),
            queue_id,
        }
    }

    #[test]
    fn a_reset_waits_until_a_consumer_comes_to_the_offset() {
        let mut resets = Resets::default();
        resets.set(place(0), 5);
        assert!(resets.is_pending("g", "t", 0));
        assert!(!resets.is_pending("g", "t", 1));
        assert!(!resets.followed(&place(0), 6));
        assert!(resets.followed(&place(0), 5));
        assert!(!resets.is_pending("g", "t", 0));
        assert!(!resets.followed(&place(0), 5));
    }

    #[test]
    fn who_was_told_and_does_not_follow_is_left_alone_in_the_end() {
        let mut resets = Resets::default();
        resets.set(place(0), 5);
        assert!(!resets.expire(u64::MAX), "nobody was told yet");
        resets.told(place(0), 100);
        resets.told(place(0), 200);
        assert!(!resets.expire(100 + FOLLOW_MS));
        assert!(resets.expire(101 + FOLLOW_MS));
        assert!(resets.snapshot().is_empty());
    }

    #[test]
    fn a_newer_reset_starts_over() {
        let mut resets = Resets::default();
        resets.set(place(0), 5);
        resets.told(place(0), 100);
        resets.set(place(0), 7);
        assert!(!resets.expire(u64::MAX));
        assert!(!resets.followed(&place(0), 5), "that was the one before");
        resets.set(place(1), 1);
        assert!(resets.forget_group("g"));
        assert!(!resets.forget_group("g"));
    }
}
