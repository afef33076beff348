//! What a pull must meet before anything is read: rights, group, topic, queue, subscription.

use std::rc::Rc;
use std::sync::Arc;

use protocol::body::subscription_group::SubscriptionGroupConfig;
use protocol::code::response;
use protocol::header::pull::PullHeader;
use protocol::sysflag::pull as flags;
use protocol::{Asked, Command, names, permission};

use super::{Pull, Wanted};
use crate::config::Settings;
use crate::filter::Filter;
use crate::groups::may_not_read;
use crate::handlers::missing::{Missing, NotDone, with_faq};
use crate::messages::TopicSubscription;
use crate::shard::topics::Topic;
use crate::shard::{Connection, Shard, Views};

/// Clients without a slave to go to are told to stay with the master.
const MASTER: i64 = 0;

pub fn check(
    shard: &Rc<Shard>,
    connection: &Connection,
    command: &Command<'_>,
    header: &PullHeader<'_>,
) -> Result<Pull, NotDone> {
    let views = shard.views.borrow();
    let settings = views.settings.value();
    if !permission::is_readable(settings.broker_permission) {
        let ip = settings.advertised_ip;
        return Err(forbidden(format!(
            "the broker[{ip}] pulling message is forbidden"
        )));
    }
    let (group, group_config) = find_group(&views, header)?;
    let topic = find_topic(shard, &views, header)?;
    let queue_id = check_queue(&topic, header, connection)?;
    let wanted = find_filter(&views, &group, group_config, &topic, header)?;
    let queue = Arc::clone(&topic.queue(&shard.shared.store, queue_id));
    let topic_sys_flag = topic.config().topic_sys_flag;
    Ok(Pull {
        conn: connection.id(),
        asked: Asked::from(command),
        group,
        topic,
        queue,
        offset: header.queue_offset,
        looked_until: u64::try_from(header.queue_offset).unwrap_or(0),
        messages_max: u32::try_from(header.messages_max).unwrap_or(0).max(1),
        wanted,
        topic_sys_flag,
        group_sys_flag: group_config.group_sys_flag,
        suggested_broker: MASTER,
        looked_at: reactor::turn_time(),
        from_disk: false,
        rights_as_of: views.groups.version(),
    })
}

fn forbidden(remark: String) -> NotDone {
    NotDone::refused(response::NO_PERMISSION, remark)
}

fn find_group<'v>(
    views: &'v Views,
    header: &PullHeader<'_>,
) -> Result<(Arc<str>, &'v SubscriptionGroupConfig), NotDone> {
    let name = header.consumer_group.as_str();
    let Some((group, config)) = views.groups.value().get_key_value(&*name) else {
        if names::validate_group(&name).is_err() {
            return Err(group_does_not_exist(&name));
        }
        return Err(NotDone::Missing(Missing::Group(name.into_owned())));
    };
    check_enabled(config, &name)?;
    Ok((Arc::clone(group), config))
}

/// As with RocketMQ this is asked of those who read by the group's subscriptions.
fn check_reading(views: &Views, group: &str, topic: &str) -> Result<(), NotDone> {
    if !may_not_read(views.forbidden.value(), group, topic) {
        return Ok(());
    }
    Err(forbidden(format!(
        "the consumer group[{group}] is forbidden for topic[{topic}]"
    )))
}

/// A parked pull is taken up again: what was taken from its group meanwhile it does not get.
pub fn check_again(shard: &Shard, pull: &mut Pull) -> Result<(), NotDone> {
    let views = shard.views.borrow();
    let version = views.groups.version();
    if pull.rights_as_of == version {
        return Ok(());
    }
    pull.rights_as_of = version;
    if let Some(config) = views.groups.value().get(&pull.group) {
        check_enabled(config, &pull.group)?;
    }
    match pull.wanted {
        Wanted::Subscription(_) => check_reading(&views, &pull.group, pull.topic.name()),
        Wanted::Own(_) => Ok(()),
    }
}

fn check_enabled(config: &SubscriptionGroupConfig, name: &str) -> Result<(), NotDone> {
    match config.consume_enable {
        true => Ok(()),
        false => Err(forbidden(format!(
            "subscription group no permission, {name}"
        ))),
    }
}

fn group_does_not_exist(name: &str) -> NotDone {
    let remark = with_faq(format!("subscription group [{name}] does not exist, "));
    NotDone::refused(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark)
}

fn find_topic(shard: &Shard, views: &Views, header: &PullHeader<'_>) -> Result<Rc<Topic>, NotDone> {
    let name = header.topic.as_str();
    let Some(topic) = shard.topics.get(&name, &views.topics) else {
        let remark = with_faq(format!("topic[{name}] not exist, apply first please! "));
        return Err(NotDone::refused(response::TOPIC_NOT_EXIST, remark));
    };
    if !permission::is_readable(topic.config().perm) {
        return Err(forbidden(format!(
            "the topic[{name}] pulling message is forbidden"
        )));
    }
    Ok(topic)
}

fn check_queue(
    topic: &Topic,
    header: &PullHeader<'_>,
    connection: &Connection,
) -> Result<u32, NotDone> {
    let queues = topic.config().read_queue_nums;
    match u32::try_from(header.queue_id) {
        Ok(queue_id) if header.queue_id < queues => Ok(queue_id),
        _ => {
            let remark = format!(
                "queueId[{}] is illegal, topic:[{}] topicConfig.readQueueNums:[{queues}] consumer:[{}]",
                header.queue_id,
                topic.name(),
                connection.peer()
            );
            Err(NotDone::refused(response::INVALID_PARAMETER, remark))
        }
    }
}

/// The filter that came along, or else what the group said in its heartbeat.
fn find_filter(
    views: &Views,
    group: &str,
    config: &SubscriptionGroupConfig,
    topic: &Topic,
    header: &PullHeader<'_>,
) -> Result<Wanted, NotDone> {
    let settings = views.settings.value();
    if header.sys_flag & flags::SUBSCRIPTION == 0 {
        let found = find_subscription(views, group, config, topic, header)?;
        if found.filter == Filter::Broken {
            let remark =
                "The broker's consumer filter data is not exist!Your expression may be wrong!";
            return Err(NotDone::refused(response::FILTER_DATA_NOT_EXIST, remark));
        }
        check_kind(settings, &found.filter, &found.expression_type)?;
        return Ok(Wanted::Subscription(found));
    }
    let kind = header.expression_type.map(|text| text.as_str());
    let kind = kind.as_deref().unwrap_or_default();
    let expression = header.subscription.map(|text| text.as_str());
    let filter = Filter::compile(kind, expression.as_deref().unwrap_or_default());
    let filter = filter.map_err(|why| {
        tracing::warn!(group, topic = %topic.name(), why, "a pull with a filter that means nothing");
        let remark = "parse the consumer's subscription failed";
        NotDone::refused(response::SUBSCRIPTION_PARSE_FAILED, remark)
    })?;
    check_kind(settings, &filter, kind)?;
    Ok(Wanted::Own(filter))
}

fn check_kind(settings: &Settings, filter: &Filter, kind: &str) -> Result<(), NotDone> {
    if filter.is_by_tags() || settings.enable_property_filter {
        return Ok(());
    }
    let remark = format!("The broker does not support consumer to filter message by {kind}");
    Err(NotDone::refused(response::SYSTEM_ERROR, remark))
}

fn find_subscription(
    views: &Views,
    group: &str,
    config: &SubscriptionGroupConfig,
    topic: &Topic,
    header: &PullHeader<'_>,
) -> Result<Arc<TopicSubscription>, NotDone> {
    let does_not_exist = |what: &str| {
        let remark = with_faq(format!("the consumer's {what} not exist"));
        NotDone::refused(response::SUBSCRIPTION_NOT_EXIST, remark)
    };
    let Some(subscriptions) = views.subscriptions.value().get(group) else {
        return Err(does_not_exist("group info"));
    };
    if subscriptions.broadcasting && !config.consume_broadcast_enable {
        return Err(forbidden(format!(
            "the consumer group[{group}] can not consume by broadcast way"
        )));
    }
    check_reading(views, group, topic.name())?;
    let Some(subscription) = subscriptions.topics.get(topic.name()) else {
        return Err(does_not_exist("subscription"));
    };
    if subscription.version < header.sub_version {
        return Err(NotDone::refused(
            response::SUBSCRIPTION_NOT_LATEST,
            "the consumer's subscription not latest",
        ));
    }
    Ok(Arc::clone(subscription))
}
