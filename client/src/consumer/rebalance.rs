//! Who reads which queue: every member of a group sorts queues and members alike and takes its own share, so that
//! no member needs to ask another.

use std::sync::Arc;

use protocol::Value;
use protocol::body::lists::ConsumerList;
use protocol::body::queue::MessageQueue;
use protocol::code::request;

use crate::error::{Error, Result};
use crate::routes::{MASTER, Route};
use crate::session::Session;

/// How a topic's queues are shared out (`allocateMessageQueueStrategy`). All members of a group must have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allocation {
    /// Neighbouring queues to each member.
    #[default]
    Averagely,
    /// Queues in turn: the first to the first member, the second to the second.
    AveragelyByCircle,
}

impl Allocation {
    pub(crate) fn share(
        self,
        queues: &[MessageQueue],
        members: &[String],
        me: &str,
    ) -> Vec<MessageQueue> {
        match self {
            Allocation::Averagely => average(queues, members, me),
            Allocation::AveragelyByCircle => circle(queues, members, me),
        }
    }
}

fn circle(queues: &[MessageQueue], members: &[String], me: &str) -> Vec<MessageQueue> {
    let Some(index) = members.iter().position(|member| member == me) else {
        return Vec::new();
    };
    let own = queues.iter().skip(index).step_by(members.len());
    own.cloned().collect()
}

/// `me`'s share: neighbouring queues, as many as anybody's or one more. Both lists must be sorted. Nothing if `me` is not (yet)
/// a member.
fn average(queues: &[MessageQueue], members: &[String], me: &str) -> Vec<MessageQueue> {
    let Some(index) = members.iter().position(|member| member == me) else {
        return Vec::new();
    };
    let (least, more) = (queues.len() / members.len(), queues.len() % members.len());
    // The first `more` members have one queue more than the others.
    let first = index * least + index.min(more);
    let count = least + usize::from(index < more);
    queues[first..first + count].to_vec()
}

/// The queues of a topic that can be read, in the order all members agree on.
pub(super) fn readable(route: &Route) -> Vec<MessageQueue> {
    let mut queues = route.readable.clone();
    // As RocketMQ orders them; all queues here are of one topic.
    queues.sort_by(|a, b| (&a.broker_name, a.queue_id).cmp(&(&b.broker_name, b.queue_id)));
    queues
}

/// The ids of the group's members as one of the topic's brokers knows them, sorted.
pub(super) async fn members(
    session: &Arc<Session>,
    route: &Route,
    group: &str,
) -> Result<Vec<String>> {
    let fields = [("consumerGroup", Value::Str(group))];
    let mut last = Error::NoRoute {
        topic: group.to_owned(),
    };
    for broker_name in route.brokers.keys() {
        let Some(address) = route.replica(broker_name, MASTER) else {
            continue;
        };
        match ask(session, address, &fields).await {
            Ok(mut members) => {
                members.sort();
                return Ok(members);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn ask(
    session: &Session,
    address: &str,
    fields: &[(&str, Value<'_>)],
) -> Result<Vec<String>> {
    let connection = session.connections.get(address).await?;
    let limit = session.settings.call_limit;
    let answer = connection
        .demand(request::GET_CONSUMER_LIST_BY_GROUP, fields, b"", limit)
        .await?;
    let list: ConsumerList = answer.json(address)?;
    Ok(list.consumer_id_list)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn queues(count: i32) -> Vec<MessageQueue> {
        let queue = |queue_id| MessageQueue {
            broker_name: "b".into(),
            queue_id,
            topic: "t".into(),
        };
        (0..count).map(queue).collect()
    }

    fn ids(queues: &[MessageQueue]) -> Vec<i32> {
        queues.iter().map(|queue| queue.queue_id).collect()
    }

    #[test]
    fn shares_are_neighbours_and_the_first_members_take_the_rest() {
        let members: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        let share = |me: &str| ids(&average(&queues(8), &members, me));
        assert_eq!(
            (share("a"), share("b"), share("c")),
            (vec![0, 1, 2], vec![3, 4, 5], vec![6, 7])
        );
        assert!(share("stranger").is_empty());
    }

    proptest! {
        #[test]
        fn every_queue_has_one_reader_and_shares_differ_by_one_at_most(count in 0..200i32, people in 1..40usize, circle: bool) {
            let allocation = if circle { Allocation::AveragelyByCircle } else { Allocation::Averagely };
            let members: Vec<String> = (0..people).map(|number| format!("m{number:02}")).collect();
            let shares: Vec<_> = members.iter().map(|me| allocation.share(&queues(count), &members, me)).collect();
            let mut all: Vec<i32> = shares.iter().flat_map(|share| ids(share)).collect();
            all.sort();
            prop_assert_eq!(all, (0..count).collect::<Vec<_>>());
            let lens = shares.iter().map(Vec::len);
            prop_assert!(lens.clone().max().unwrap_or(0) - lens.min().unwrap_or(0) <= 1);
        }
    }
}
