//! Queues of an orderly consumer: its own only while a broker says so. A lock holds for 60 s at the broker and counts
//! for 30 s here, and is renewed every 20 s.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::body::lock::{LockBatchAnswer, LockBatchRequest};
use protocol::body::queue::MessageQueue;
use protocol::code::request;

use super::member::Member;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::routes::MASTER;

/// How long a lock counts from the moment it was asked for.
pub(super) const LOCK_LIFE: Duration = Duration::from_secs(30);
pub(super) const RENEW_INTERVAL: Duration = Duration::from_secs(20);

/// Asks for queues: which are ours, and which another member holds. Nothing is said of those whose broker does not answer:
/// it gives no lock, and takes none away.
pub(super) async fn lock(member: &Member, queues: &[MessageQueue]) -> HashMap<MessageQueue, bool> {
    let mut said = HashMap::new();
    for (broker_name, queues) in by_broker(queues) {
        match ask(member, &queues).await {
            Ok(locked) => said.extend(queues.into_iter().map(|queue| {
                let is_ours = locked.contains(&queue);
                (queue, is_ours)
            })),
            Err(error) => tracing::debug!(broker_name, %error, "no word about locks"),
        }
    }
    said
}

async fn ask(member: &Member, queues: &[MessageQueue]) -> Result<Vec<MessageQueue>> {
    let connection = connect(member, queues).await?;
    let body = body(member, queues);
    let limit = member.session.settings.call_limit;
    let answer = connection
        .demand(request::LOCK_BATCH_MQ, &[], &body, limit)
        .await?;
    let answer: LockBatchAnswer = answer.json(connection.address())?;
    Ok(answer.lock_ok_mq_set)
}

/// Lets another member have a queue at once. If that fails, the lock runs out.
pub(super) async fn unlock(member: &Member, queues: &[MessageQueue]) {
    for (broker_name, queues) in by_broker(queues) {
        let told: Result<()> = async {
            let connection = connect(member, &queues).await?;
            let limit = member.session.settings.call_limit;
            connection
                .demand(request::UNLOCK_BATCH_MQ, &[], &body(member, &queues), limit)
                .await?;
            Ok(())
        }
        .await;
        if let Err(error) = told {
            tracing::debug!(broker_name, %error, "not unlocked");
        }
    }
}

async fn connect(member: &Member, queues: &[MessageQueue]) -> Result<Arc<Connection>> {
    let first = queues.first().ok_or(Error::ShutDown)?;
    member.session.connect(first, MASTER).await
}

fn body(member: &Member, queues: &[MessageQueue]) -> Vec<u8> {
    let body = LockBatchRequest {
        client_id: member.session.client_id.clone(),
        consumer_group: member.group.clone(),
        mq_set: queues.to_vec(),
        only_this_broker: false,
    };
    serde_json::to_vec(&body).expect("string keys")
}

fn by_broker(queues: &[MessageQueue]) -> HashMap<String, Vec<MessageQueue>> {
    let mut groups: HashMap<String, Vec<MessageQueue>> = HashMap::new();
    for queue in queues {
        let group = groups.entry(queue.broker_name.clone()).or_default();
        group.push(queue.clone());
    }
    groups
}
