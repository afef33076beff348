//! The brokers: who there is, and taking one out of sending without stopping it.

use protocol::Command;
use protocol::header::namesrv::BrokerName;

use super::{Answer, Context, Outcome};
use crate::routes::Walk;
use crate::server::SLICE;

pub(super) fn clusters(context: &Context) -> Answer {
    let mut body = Vec::new();
    context.shared.routes.borrow().append_clusters(&mut body);
    Answer::with_body(body)
}

pub(super) fn member_group(context: &Context, command: &Command<'_>) -> Outcome {
    let cluster = command.fields.required_string("clusterName")?;
    let broker_name = command.fields.required_string("brokerName")?;
    let mut body = Vec::new();
    context
        .shared
        .routes
        .borrow()
        .append_member_group(&mut body, &cluster, &broker_name);
    Ok(Answer::with_body(body))
}

pub(super) async fn wipe_write(context: &Context, command: &Command<'_>) -> Outcome {
    let changed = change_write(context, command, false).await?;
    Ok(Answer::with_field("wipeTopicCount", changed.to_string()))
}

pub(super) async fn add_write(context: &Context, command: &Command<'_>) -> Outcome {
    let changed = change_write(context, command, true).await?;
    Ok(Answer::with_field("addTopicCount", changed.to_string()))
}

async fn change_write(
    context: &Context,
    command: &Command<'_>,
    grant: bool,
) -> Result<usize, Answer> {
    let broker = BrokerName::from(command)?.broker_name;
    let mut walk = Walk::default();
    loop {
        context
            .shared
            .routes
            .borrow_mut()
            .change_write(&broker, grant, &mut walk, SLICE);
        if walk.is_done() {
            break;
        }
        reactor::yield_now().await;
    }
    tracing::info!(%broker, write = grant, topics = walk.count, peer = %context.peer, "write permission changed");
    Ok(walk.count)
}
