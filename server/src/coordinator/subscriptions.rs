//! What pulls need to know of a live group, from what its heartbeats said.

use std::sync::Arc;

use crate::clients::ConsumerGroup;
use crate::filter::Filter;
use crate::messages::{GroupSubscriptions, TopicSubscription};

pub fn of_group(group: &ConsumerGroup) -> GroupSubscriptions {
    let topics = group.subscriptions.values().map(|subscription| {
        let said = TopicSubscription {
            expression: subscription.sub_string.clone(),
            expression_type: subscription.expression_type.clone(),
            version: subscription.sub_version,
            filter: Filter::of_subscription(subscription),
        };
        (Arc::from(subscription.topic.as_str()), Arc::new(said))
    });
    GroupSubscriptions {
        broadcasting: group.is_broadcasting(),
        topics: topics.collect(),
    }
}
