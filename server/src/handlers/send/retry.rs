//! Messages a consumer sends back to its retry topic: after too many times they go to the dead-letter topic instead.

use std::rc::Rc;

use protocol::code::response;
use protocol::names::{self, RETRY_PREFIX};
use protocol::permission;

use super::Sending;
use crate::handlers::missing::{Missing, NotDone};
use crate::messages::CreateTopic;
use crate::shard::topics::Topic;

const DEAD_LETTER_QUEUES: u32 = 1;

/// The topic where this retry ends, if it ends.
pub fn dead_letter_topic(send: &Sending<'_>) -> Result<Option<Rc<Topic>>, NotDone> {
    let name = send.topic.name();
    let group = name.strip_prefix(RETRY_PREFIX).unwrap_or(name);
    let Some(config) = send.views.groups.value().get(group) else {
        names::validate_group(group)
            .map_err(|error| NotDone::refused(response::INVALID_PARAMETER, error.to_string()))?;
        return Err(NotDone::Missing(Missing::Group(group.to_owned())));
    };
    let times_max = send
        .header
        .max_reconsume_times
        .unwrap_or(config.retry_max_times);
    // An ordered consumer sends back only what it has given up.
    let ordered = send.views.ordered_groups.value().contains(group);
    if send.header.reconsume_times <= times_max && !ordered {
        return Ok(None);
    }
    let topic = names::dlq_topic(group);
    match send.shard.topics.get(&topic, &send.views.topics) {
        Some(found) => Ok(Some(found)),
        None => Err(NotDone::Missing(Missing::Topic {
            topic,
            kind: CreateTopic::ForGroup {
                queues: DEAD_LETTER_QUEUES,
                permission: permission::READ_WRITE,
                unit_mode: false,
            },
        })),
    }
}
