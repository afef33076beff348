//! Static topics by request: what `mqadmin updateStaticTopic` and `remappingStaticTopic` send.

use std::rc::Rc;

use protocol::Command;
use protocol::body::Body;
use protocol::body::static_topic::MappingDetail;
use protocol::code::response;
use protocol::header::topic::CreateTopic;

use super::topics;
use crate::coordinator::Coordinator;
use crate::coordinator::journal::Entry;
use crate::handlers::{Answer, Caller, Handled, Reply, refuse};
use crate::static_topics;

/// 513
pub fn create(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let header = CreateTopic::from(command)?;
    let detail = MappingDetail::from_json(command.body)?;
    let config = topics::wanted(coordinator, &header)?;
    if detail.topic != config.topic_name {
        return Err(refuse(
            response::INVALID_PARAMETER,
            format!("the mapping is for topic {}", detail.topic),
        ));
    }
    let now = coordinator.static_topics.get(&detail.topic);
    let broker_name = coordinator.settings().broker_name.clone();
    let force = header.force == Some(true);
    static_topics::check(&detail, now.as_ref(), &broker_name, force)
        .map_err(|problem| refuse(response::SYSTEM_ERROR, problem))?;
    tracing::info!(
        topic = config.topic_name,
        queues = detail.hosted_queues.len(),
        epoch = detail.epoch,
        peer = %caller.peer,
        "static topic made or changed by request"
    );
    let now_ms = reactor::wall_ms();
    let config = coordinator.tables().topics.put(config, now_ms);
    coordinator.static_topics.put(detail, now_ms);
    let coordinator = Rc::clone(coordinator);
    Ok(Reply::later(async move {
        let entry = Entry::Topic((*config).clone());
        coordinator.topics_changed(vec![config]);
        let kept = coordinator.kept(&entry).await;
        let saved = coordinator.static_topics.save().await;
        match (kept, saved) {
            (Ok(()), Ok(())) => Answer::ok(),
            (Err(refusal), _) => refusal.into(),
            (_, Err(error)) => Answer::code(
                response::SYSTEM_ERROR,
                format!("the mapping is in effect but could not be saved: {error}"),
            ),
        }
    }))
}

/// The topic is deleted.
pub(super) fn forget(coordinator: &Coordinator, topic: &str) {
    if !coordinator.static_topics.remove(topic, reactor::wall_ms()) {
        return;
    }
    let saved = coordinator.static_topics.save();
    reactor::spawn("save static topics", async move {
        if let Err(error) = saved.await {
            tracing::error!(%error, "mappings of static topics cannot be saved");
        }
    });
}
