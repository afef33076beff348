//! Lists of topics, and deleting one.

use protocol::Command;
use protocol::code::{request, response};
use protocol::header::namesrv::{Cluster, NameserverTopic};

use super::{Answer, Context, Outcome};
use crate::json::{append_string, separate};
use crate::routes::{TopicFilter, Walk};
use crate::server::SLICE;

pub(super) async fn all(context: &Context) -> Outcome {
    let allowed = context.shared.live.borrow().enable_all_topic_list;
    list(context, allowed, TopicFilter::All).await
}

pub(super) async fn of_cluster(context: &Context, command: &Command<'_>) -> Outcome {
    let allowed = context.shared.live.borrow().enable_topic_list;
    let cluster = Cluster::from(command)?.cluster.into_owned();
    list(context, allowed, TopicFilter::Cluster(cluster)).await
}

pub(super) async fn of_units(context: &Context, code: i32) -> Outcome {
    let allowed = context.shared.live.borrow().enable_topic_list;
    let filter = match code {
        request::GET_UNIT_TOPIC_LIST => TopicFilter::Unit,
        request::GET_HAS_UNIT_SUB_TOPIC_LIST => TopicFilter::UnitSubscribed,
        _ => TopicFilter::UnitSubscribedOnly,
    };
    list(context, allowed, filter).await
}

async fn list(context: &Context, allowed: bool, filter: TopicFilter) -> Outcome {
    if !allowed {
        return Err(Answer::refusal(response::SYSTEM_ERROR, "disable"));
    }
    let mut body = b"{\"topicList\":[".to_vec();
    let mut walk = Walk::default();
    let mut named = 0;
    loop {
        context
            .shared
            .routes
            .borrow()
            .list(&filter, &mut walk, SLICE, |topic| {
                separate(&mut body, named);
                append_string(&mut body, topic);
                named += 1;
            });
        if walk.is_done() {
            break;
        }
        reactor::yield_now().await;
    }
    body.extend_from_slice(b"]}");
    Ok(Answer::with_body(body))
}

pub(super) fn system(context: &Context) -> Answer {
    let mut body = Vec::new();
    context
        .shared
        .routes
        .borrow()
        .append_system_topics(&mut body);
    Answer::with_body(body)
}

pub(super) fn delete(context: &Context, command: &Command<'_>) -> Outcome {
    let header = NameserverTopic::from(command)?;
    let cluster = header
        .cluster_name
        .as_deref()
        .filter(|cluster| !cluster.is_empty());
    context
        .shared
        .routes
        .borrow_mut()
        .delete_topic(&header.topic, cluster);
    tracing::info!(topic = %header.topic, ?cluster, peer = %context.peer, "topic deleted");
    Ok(Answer::done())
}
