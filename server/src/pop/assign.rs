//! Sharing queues among the members of a group, as RocketMQ's clients and brokers do it.

use protocol::body::queue::MessageQueue;

/// A queue id that stands for all queues of a broker.
const ALL_QUEUES: i32 = -1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Neighbouring queues to one member.
    Average,
    /// One queue each, round and round.
    Circle,
}

impl Rule {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "AVG" => Some(Self::Average),
            "AVG_BY_CIRCLE" => Some(Self::Circle),
            _ => None,
        }
    }

    /// This client's part. Both lists are in order.
    pub fn share(
        self,
        client: &str,
        queues: &[MessageQueue],
        members: &[String],
    ) -> Vec<MessageQueue> {
        let Some(index) = members.iter().position(|member| member == client) else {
            return Vec::new();
        };
        let (queue_count, member_count) = (queues.len(), members.len());
        match self {
            Self::Average => {
                let (each, more) = (queue_count / member_count, queue_count % member_count);
                let start = index * each + index.min(more);
                let len = each + usize::from(index < more);
                queues[start..start + len].to_vec()
            }
            Self::Circle => {
                let mine = queues.iter().skip(index).step_by(member_count);
                mine.cloned().collect()
            }
        }
    }
}

/// The queues a client pops: its own and those of `shared` members behind it, so that none waits for a member that is stuck.
/// 0 or less: every member pops all queues.
pub fn for_pop(
    strategy: Rule,
    client: &str,
    queues: &[MessageQueue],
    members: &[String],
    shared: i32,
) -> Vec<MessageQueue> {
    let shared = usize::try_from(shared).unwrap_or(0);
    if shared == 0 || shared + 1 >= members.len() {
        let mut brokers: Vec<MessageQueue> = queues
            .iter()
            .map(|queue| MessageQueue {
                queue_id: ALL_QUEUES,
                ..queue.clone()
            })
            .collect();
        brokers.dedup();
        return brokers;
    }
    let Some(index) = members.iter().position(|member| member == client) else {
        return Vec::new();
    };
    if members.len() > queues.len() {
        let queue = queues.get(index % queues.len().max(1));
        return queue.into_iter().cloned().collect();
    }
    let neighbours = (index..=index + shared).map(|at| &members[at % members.len()]);
    neighbours
        .flat_map(|member| strategy.share(member, queues, members))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn queues(count: i32) -> Vec<MessageQueue> {
        let queue = |queue_id| MessageQueue {
            broker_name: "b".to_owned(),
            queue_id,
            topic: "t".to_owned(),
        };
        (0..count).map(queue).collect()
    }

    fn members(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("c{number:03}")).collect()
    }

    fn ids(queues: &[MessageQueue]) -> Vec<i32> {
        queues.iter().map(|queue| queue.queue_id).collect()
    }

    #[test]
    fn neighbours_or_round_and_round() {
        let (queues, members) = (queues(8), members(3));
        let share = |strategy: Rule, client| ids(&strategy.share(client, &queues, &members));
        assert_eq!(share(Rule::Average, "c000"), [0, 1, 2]);
        assert_eq!(share(Rule::Average, "c002"), [6, 7]);
        assert_eq!(share(Rule::Circle, "c001"), [1, 4, 7]);
        assert!(share(Rule::Circle, "unknown").is_empty());
    }

    #[test]
    fn with_few_members_everybody_pops_everything() {
        for (count, shared) in [(1, 8), (3, 0), (3, -1), (3, 2)] {
            let all = for_pop(Rule::Average, "c000", &queues(4), &members(count), shared);
            assert_eq!(ids(&all), [ALL_QUEUES], "{count} {shared}");
        }
    }

    #[test]
    fn with_many_members_each_pops_its_own_and_its_neighbours() {
        let share = |client| {
            let own = for_pop(Rule::Average, client, &queues(8), &members(4), 1);
            ids(&own)
        };
        assert_eq!(share("c000"), [0, 1, 2, 3]);
        assert_eq!(share("c003"), [6, 7, 0, 1]);
        let crowded = for_pop(Rule::Average, "c005", &queues(4), &members(9), 1);
        assert_eq!(ids(&crowded), [1]);
    }

    proptest! {
        #[test]
        fn each_queue_has_one_owner(queue_count in 0..40i32, member_count in 1..20usize) {
            let (queues, members) = (queues(queue_count), members(member_count));
            for strategy in [Rule::Average, Rule::Circle] {
                let shares = members.iter();
                let mut owned: Vec<i32> = shares
                    .flat_map(|member| ids(&strategy.share(member, &queues, &members)))
                    .collect();
                owned.sort_unstable();
                prop_assert_eq!(owned, ids(&queues));
            }
        }

        #[test]
        fn every_queue_is_popped_by_somebody(
            queue_count in 1..40i32, member_count in 1..20usize, shared in -1..20i32,
        ) {
            let (queues, members) = (queues(queue_count), members(member_count));
            let mut popped: Vec<i32> = members
                .iter()
                .flat_map(|member| ids(&for_pop(Rule::Circle, member, &queues, &members, shared)))
                .collect();
            popped.sort_unstable();
            popped.dedup();
            prop_assert!(popped == [ALL_QUEUES] || popped == ids(&queues));
        }
    }
}
