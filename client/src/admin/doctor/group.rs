//! Why a group lags, or its queues are shared badly.

use std::collections::{BTreeMap, BTreeSet};

use protocol::body::queue::MessageQueue;
use protocol::names;

use super::Finding;
use crate::admin::{Admin, Broker, Member, Progress, QueueProgress, Running};
use crate::error::Error;
use crate::message_id::now_ms;

/// Messages that a group may be behind without a word about it.
const LAG_QUIET: i64 = 1_000;
/// A listener that was not called for so long while messages wait for it.
const STUCK_MS: i64 = 60_000;
/// One queue that has more than this part of the lag, in percent, has a cause of its own.
const HOT_PERCENT: i64 = 80;

impl Admin {
    pub(super) async fn look_at_group(&self, group: &str, brokers: &[Broker]) -> Vec<Finding> {
        let mut found = self.look_at_settings(group, brokers).await;
        let progress = match self.progress(group, None).await {
            Ok(progress) => progress,
            Err(Error::Refused { remark, .. }) => {
                found.push(Finding::warning(
                    format!("no broker knows how far group {group} is: {remark}"),
                    "It has never told an offset: has it ever run, is the name spelled right?",
                ));
                return found;
            }
            Err(error) => {
                found.push(Finding::bad(format!("group {group}: {error}"), ""));
                return found;
            }
        };
        let members = self.members(group).await.unwrap_or_default();
        found.extend(look_at_lag(group, &progress, &members));
        let mut running = Vec::new();
        for member in &members {
            match self.running(group, &member.client_id, false).await {
                Ok(info) => running.push(info),
                Err(error) => found.push(Finding::warning(
                    format!("{} does not say how it is: {error}", member.client_id),
                    "It may be stuck, or a client that cannot be asked.",
                )),
            }
        }
        found.extend(look_at_subscriptions(&running));
        found.extend(look_at_listeners(&running));
        if running.len() == members.len() && !is_broadcasting(&running) {
            found.extend(look_at_shares(group, &progress, &running));
        }
        if found.is_empty() {
            let (members, lag) = (members.len(), progress.lag);
            found.push(Finding::good(format!(
                "group {group} has {members} members and is {lag} messages behind"
            )));
        }
        found
    }

    async fn look_at_settings(&self, group: &str, brokers: &[Broker]) -> Vec<Finding> {
        let mut found = Vec::new();
        for broker in brokers.iter().filter(|broker| broker.is_master()) {
            let all = self
                .group_settings(&broker.address)
                .await
                .unwrap_or_default();
            let name = &broker.name;
            match all.iter().find(|one| one.group_name == group) {
                Some(settings) if !settings.consume_enable => found.push(Finding::bad(
                    format!("group {group} may not consume on {name} (consumeEnable=false)"),
                    format!("orbit-admin group create {group} --consume true"),
                )),
                Some(_) => {}
                None => found.push(Finding::warning(
                    format!("{name} does not know group {group}"),
                    "It makes groups when their first member comes, unless autoCreateSubscriptionGroup=false.",
                )),
            }
        }
        found
    }
}

fn look_at_lag(group: &str, progress: &Progress, members: &[Member]) -> Vec<Finding> {
    let mut found = Vec::new();
    for queue in &progress.queues {
        if queue.consumer_offset > queue.broker_offset {
            found.push(Finding::bad(
                format!("group {group} stands behind the end of {}", place(queue)),
                "The topic was made anew, or the broker lost messages: orbit-admin offset reset --to latest or earliest.",
            ));
        }
    }
    if members.is_empty() {
        found.push(Finding::warning(
            format!(
                "group {group} has no members, and is {} messages behind",
                progress.lag
            ),
            "No consumer of it is connected: is it running, with this group and this name server?",
        ));
        return found;
    }
    if progress.lag < LAG_QUIET {
        return found;
    }
    let worst = progress.queues.iter().max_by_key(|queue| queue.lag);
    match worst {
        Some(worst) if progress.queues.len() > 1 && worst.lag * 100 > progress.lag * HOT_PERCENT => {
            found.push(Finding::bad(
                format!("nearly all of the lag ({} of {}) is in {}", worst.lag, progress.lag, place(worst)),
                "One queue that does not move: a message that its listener never ends (an orderly one holds up its queue), \
                 or one key that most messages have. orbit-admin group running shows who reads it.",
            ));
        }
        _ => found.push(Finding::warning(
            format!(
                "group {group} is {} messages behind and consumes {:.0} a second",
                progress.lag, progress.tps
            ),
            "The listeners are slower than the senders: look at the consume time in orbit-admin group running; more \
             members help up to the number of queues, and more threads (consumeThreadMax) in each.",
        )),
    }
    found
}

fn place(queue: &QueueProgress) -> String {
    format!(
        "queue {} of {} on {}",
        queue.queue, queue.topic, queue.broker
    )
}

fn is_broadcasting(running: &[Running]) -> bool {
    let model = |one: &Running| {
        one.settings.get("messageModel").map(String::as_str) == Some("BROADCASTING")
    };
    running.iter().any(model)
}

fn look_at_subscriptions(running: &[Running]) -> Vec<Finding> {
    let distinct: BTreeSet<_> = running.iter().map(|one| &one.subscriptions).collect();
    if distinct.len() < 2 {
        return Vec::new();
    }
    let ids: Vec<&str> = running.iter().map(|one| one.client_id.as_str()).collect();
    vec![Finding::bad(
        format!("members subscribe to different things: {}", ids.join(", ")),
        "Queues are shared out among all members: those of a topic that a member does not read are read by nobody, and \
         messages it does not want are lost to the others. All members of a group must subscribe alike.",
    )]
}

fn look_at_listeners(running: &[Running]) -> Vec<Finding> {
    let now = now_ms();
    let mut found = Vec::new();
    for one in running {
        for queue in &one.queues {
            let silent_ms = now - queue.last_consume_ms;
            if queue.cached > 0 && queue.last_consume_ms > 0 && silent_ms > STUCK_MS {
                found.push(Finding::bad(
                    format!(
                        "{} has {} messages of queue {} of {} and has called its listener with none for {} s",
                        one.client_id,
                        queue.cached,
                        queue.queue,
                        queue.topic,
                        silent_ms / 1_000
                    ),
                    "Its listeners do not return: orbit-admin group running --stacks shows what they are at.",
                ));
            }
        }
    }
    found
}

/// Who reads how many queues: all of them by somebody, and nobody many more than another.
fn look_at_shares(group: &str, progress: &Progress, running: &[Running]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut topics: BTreeMap<&str, Vec<MessageQueue>> = BTreeMap::new();
    for queue in &progress.queues {
        let named = MessageQueue {
            broker_name: queue.broker.clone(),
            queue_id: queue.queue,
            topic: queue.topic.clone(),
        };
        topics.entry(queue.topic.as_str()).or_default().push(named);
    }
    topics.retain(|topic, _| !names::is_retry_topic(topic));
    for (topic, queues) in topics {
        for queue in &queues {
            let readers = running.iter().filter(|one| one.reads(queue)).count();
            let which = format!(
                "queue {} of {topic} on {}",
                queue.queue_id, queue.broker_name
            );
            match readers {
                1 => {}
                0 if running.is_empty() => {}
                0 => found.push(Finding::bad(
                    format!("nobody in {group} reads {which}"),
                    "It is being shared out anew (up to 20 s), or members disagree on who is in the group or what it reads.",
                )),
                count => found.push(Finding::bad(
                    format!("{count} members of {group} read {which}"),
                    "Every message there is consumed more than once: members have one client id, or see different members.",
                )),
            }
        }
        let counts = running
            .iter()
            .map(|one| queues.iter().filter(|queue| one.reads(queue)).count());
        let counts: Vec<usize> = counts.collect();
        let idle = counts.iter().filter(|count| **count == 0).count();
        if running.len() > queues.len() {
            found.push(Finding::warning(
                format!(
                    "{idle} of {} members have no queue of {topic}",
                    running.len()
                ),
                format!(
                    "It has {} queues: more members than queues do not help.",
                    queues.len()
                ),
            ));
        } else if let (Some(least), Some(most)) = (counts.iter().min(), counts.iter().max())
            && most - least > 1
        {
            found.push(Finding::warning(
                format!("shares of {topic} are uneven: {least} queues for one member, {most} for another"),
                "Members share queues out by different ways (allocateMessageQueueStrategy), or it is being done anew.",
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Severity;
    use crate::admin::running::RunningQueue;

    fn progress(lags: &[i64]) -> Progress {
        let queue = |(queue, lag): (usize, &i64)| QueueProgress {
            topic: "t".into(),
            broker: "b".into(),
            queue: queue as i32,
            broker_offset: 10_000,
            consumer_offset: 10_000 - lag,
            lag: *lag,
            ..QueueProgress::default()
        };
        Progress {
            tps: 5.0,
            lag: lags.iter().sum(),
            queues: lags.iter().enumerate().map(queue).collect(),
        }
    }

    fn member(name: &str, queues: &[i32]) -> Running {
        let queue = |queue: &i32| RunningQueue {
            topic: "t".into(),
            broker: "b".into(),
            queue: *queue,
            ..RunningQueue::default()
        };
        Running {
            client_id: name.into(),
            queues: queues.iter().map(queue).collect(),
            ..Running::default()
        }
    }

    fn says(found: &[Finding], text: &str) -> bool {
        found.iter().any(|one| one.what.contains(text))
    }

    #[test]
    fn lag_is_put_down_to_one_queue_or_to_slow_listeners() {
        let members = [Member {
            client_id: "c".into(),
            address: String::new(),
            language: String::new(),
            version: 0,
        }];
        assert!(look_at_lag("g", &progress(&[10, 10]), &members).is_empty());
        assert!(says(
            &look_at_lag("g", &progress(&[9_000, 10]), &members),
            "nearly all of the lag"
        ));
        assert!(says(
            &look_at_lag("g", &progress(&[5_000, 5_000]), &members),
            "10000 messages behind"
        ));
        assert!(says(&look_at_lag("g", &progress(&[1]), &[]), "no members"));
        assert!(says(
            &look_at_lag("g", &progress(&[-5]), &members),
            "stands behind the end"
        ));
    }

    #[test]
    fn queues_that_nobody_or_two_read_are_named() {
        let shares = |running: &[Running]| look_at_shares("g", &progress(&[0, 0, 0, 0]), running);
        assert!(shares(&[member("a", &[0, 1]), member("b", &[2, 3])]).is_empty());
        assert!(says(
            &shares(&[member("a", &[0, 1]), member("b", &[2])]),
            "nobody in g reads queue 3"
        ));
        assert!(says(
            &shares(&[member("a", &[0, 1, 2]), member("b", &[2, 3])]),
            "2 members of g read queue 2"
        ));
        assert!(says(
            &shares(&[member("a", &[0, 1, 2]), member("b", &[3])]),
            "uneven"
        ));
        let many: Vec<Running> = (0..5).map(|queue| member("m", &[queue])).collect();
        assert!(says(&shares(&many), "1 of 5 members have no queue"));
    }

    #[test]
    fn members_that_want_different_things_are_the_worst() {
        let mut other = member("b", &[]);
        other.subscriptions.insert("t".into(), "TAG a".into());
        let found = look_at_subscriptions(&[member("a", &[]), other]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].severity, Severity::Bad);
    }
}
