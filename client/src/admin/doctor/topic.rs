//! Why a topic has no route, or not the one it should have.

use super::Finding;
use crate::admin::{Admin, Broker, Route};
use crate::error::Error;

impl Admin {
    pub(super) async fn look_at_topic(&self, topic: &str, brokers: &[Broker]) -> Vec<Finding> {
        match self.route(topic).await {
            Ok(route) => look_at_route(&route),
            Err(Error::NoRoute { .. }) => vec![self.why_no_route(topic, brokers).await],
            Err(error) => vec![Finding::bad(
                format!("the route of {topic} cannot be had: {error}"),
                "The name server answers something else than a route.",
            )],
        }
    }

    /// The classic: 'No route info of this topic'.
    async fn why_no_route(&self, topic: &str, brokers: &[Broker]) -> Finding {
        let what = format!("topic {topic} has no route");
        let mut has_it = Vec::new();
        let mut makes_topics = Vec::new();
        for broker in brokers.iter().filter(|broker| broker.is_master()) {
            if let Ok(Some(_)) = self.topic_on(&broker.address, topic).await {
                has_it.push(broker.name.as_str());
            }
            if self.makes_topics(&broker.address).await {
                makes_topics.push(broker.name.as_str());
            }
        }
        if !has_it.is_empty() {
            let names = has_it.join(", ");
            return Finding::bad(
                what,
                format!(
                    "{names} has it, and has not told this name server: it registers every 30 s, and only with the name \
                     servers in its namesrvAddr."
                ),
            );
        }
        if let Some(near) = self.nearest_topic(topic).await {
            return Finding::bad(
                what,
                format!("There is none of this name; there is {near}. A matter of spelling?"),
            );
        }
        if makes_topics.is_empty() {
            return Finding::bad(
                what,
                format!(
                    "No broker has it, and none makes topics by itself (autoCreateTopicEnable=false): orbit-admin topic \
                     create {topic}"
                ),
            );
        }
        let names = makes_topics.join(", ");
        Finding::warning(
            what,
            format!(
                "Nobody has sent to it yet. {names} will make it when the first message comes; consumers find it within \
                 30 s then. Or now: orbit-admin topic create {topic}"
            ),
        )
    }

    async fn makes_topics(&self, address: &str) -> bool {
        let settings = self.broker_settings(address).await.unwrap_or_default();
        let auto = settings
            .iter()
            .find(|one| one.name == "autoCreateTopicEnable");
        auto.is_some_and(|one| one.value == "true")
    }

    async fn nearest_topic(&self, topic: &str) -> Option<String> {
        let topics = self.topics().await.ok()?;
        topics.into_iter().find(|known| is_near(known, topic))
    }
}

fn look_at_route(route: &Route) -> Vec<Finding> {
    let mut found = Vec::new();
    let topic = &route.topic;
    for queues in &route.queues {
        let broker = &queues.broker;
        if !queues.perm.contains('W') {
            found.push(Finding::warning(
                format!("{topic} takes no messages on {broker} ({})", queues.perm),
                format!(
                    "Senders get 'No route info' if it is so on every broker. Was the broker taken out of service, or \
                     the permission changed? orbit-admin topic perm {topic} 6, or broker writable {broker} true"
                ),
            ));
        }
        if !queues.perm.contains('R') {
            found.push(Finding::warning(
                format!("{topic} cannot be read on {broker} ({})", queues.perm),
                format!("Consumers see none of its messages: orbit-admin topic perm {topic} 6"),
            ));
        }
        let (read, write) = (queues.read_queues, queues.write_queues);
        if write > read {
            found.push(Finding::bad(
                format!("{topic} has {write} queues to write and {read} to read on {broker}"),
                "What is sent to the others is never read: make as many to read.",
            ));
        }
    }
    for broker in &route.brokers {
        if !broker.addresses.contains_key(&0) {
            found.push(Finding::bad(
                format!("{topic} has no master on {}", broker.name),
                "Nothing can be sent to that broker, only read.",
            ));
        }
    }
    let counts: Vec<i32> = route
        .queues
        .iter()
        .map(|queues| queues.write_queues)
        .collect();
    if let (Some(least), Some(most)) = (counts.iter().min(), counts.iter().max())
        && least != most
    {
        found.push(Finding::warning(
            format!("{topic} has {least} queues on one broker and {most} on another"),
            "Senders go from queue to queue: the brokers get messages in that proportion.",
        ));
    }
    if found.is_empty() {
        let queues: i32 = counts.iter().sum();
        let brokers = route.brokers.len();
        found.push(Finding::good(format!(
            "topic {topic} has {queues} queues on {brokers} brokers"
        )));
    }
    found
}

/// Whether one is the other with other letter cases, or with one letter more, less or changed.
fn is_near(known: &str, wanted: &str) -> bool {
    if known.eq_ignore_ascii_case(wanted) {
        return true;
    }
    let (a, b) = (known.as_bytes(), wanted.as_bytes());
    let start = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let rest = a.len().min(b.len()) - start;
    let ends = a.iter().rev().zip(b.iter().rev());
    let end = ends.take_while(|(a, b)| a == b).count().min(rest);
    let left = |text: &[u8]| text.len() - start - end;
    // One letter of a short name is too much of it.
    wanted.len() > 3 && left(a) <= 1 && left(b) <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_near_and_another_word_is_not() {
        for near in ["orders", "Order", "Orderss", "Orsers", "xOrders"] {
            assert!(is_near(near, "Orders"), "{near}");
        }
        for far in ["Orrddrs", "Payments", ""] {
            assert!(!is_near(far, "Orders"), "{far}");
        }
        assert!(!is_near("ab", "ac"));
    }
}
