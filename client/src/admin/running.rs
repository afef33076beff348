//! How a consumer is that is connected, as it says itself.

use std::collections::BTreeMap;

use protocol::Value;
use protocol::body::consumer::RunningInfo;
use protocol::body::queue::MessageQueue;
use protocol::code::request;
use serde::Serialize;

use super::Admin;
use crate::error::{Error, Result};

/// How a member of a group is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Running {
    pub client_id: String,
    pub settings: BTreeMap<String, String>,
    /// Expression by topic.
    pub subscriptions: BTreeMap<String, String>,
    pub queues: Vec<RunningQueue>,
    pub topics: Vec<RunningTopic>,
    /// What its threads or tasks are at, if that was asked for.
    pub stacks: Option<String>,
}

/// A queue that a member reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunningQueue {
    pub topic: String,
    pub broker: String,
    pub queue: i32,
    /// The first message that is not consumed.
    pub offset: i64,
    /// Messages that were pulled and are not consumed.
    pub cached: i64,
    pub locked: bool,
    pub last_pull_ms: i64,
    pub last_consume_ms: i64,
}

/// How fast a topic is consumed by a member.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RunningTopic {
    pub topic: String,
    pub pull_ms: f64,
    pub pull_tps: f64,
    pub consume_ms: f64,
    pub ok_tps: f64,
    pub failed_tps: f64,
}

impl Running {
    pub(super) fn reads(&self, queue: &MessageQueue) -> bool {
        self.queues.iter().any(|own| {
            own.topic == queue.topic
                && own.broker == queue.broker_name
                && own.queue == queue.queue_id
        })
    }
}

impl Admin {
    /// Asks a member of a group, through whichever broker it is connected to.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is connected to none, or does not answer.
    pub async fn running(&self, group: &str, client_id: &str, stacks: bool) -> Result<Running> {
        let fields = [
            ("consumerGroup", Value::Str(group)),
            ("clientId", Value::Str(client_id)),
            ("jstackEnable", Value::Bool(stacks)),
        ];
        let mut last = Error::NoRoute {
            topic: group.to_owned(),
        };
        for broker in self.masters(None).await? {
            let code = request::GET_CONSUMER_RUNNING_INFO;
            match self.demand(&broker.address, code, &fields, b"").await {
                Ok(answer) => {
                    let info = RunningInfo::from_json(answer.command().body);
                    let info = info.map_err(|error| Error::Broken {
                        address: broker.address.clone(),
                        what: error.to_string(),
                    })?;
                    return Ok(running(client_id, info));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn running(client_id: &str, info: RunningInfo) -> Running {
    let own = info.queues.into_iter().map(|(queue, info)| RunningQueue {
        topic: queue.topic,
        broker: queue.broker_name,
        queue: queue.queue_id,
        offset: info.commit_offset,
        cached: i64::from(info.cached_msg_count),
        locked: info.locked,
        last_pull_ms: info.last_pull_timestamp,
        last_consume_ms: info.last_consume_timestamp,
    });
    let popped = info
        .pop_queues
        .into_iter()
        .map(|(queue, info)| RunningQueue {
            topic: queue.topic,
            broker: queue.broker_name,
            queue: queue.queue_id,
            cached: i64::from(info.wait_ack_count),
            last_pull_ms: info.last_pop_timestamp,
            ..RunningQueue::default()
        });
    let topic = |(topic, rates): (String, protocol::body::consumer::ConsumeStatus)| RunningTopic {
        topic,
        pull_ms: rates.pull_ms,
        pull_tps: rates.pull_tps,
        consume_ms: rates.consume_ms,
        ok_tps: rates.ok_tps,
        failed_tps: rates.failed_tps,
    };
    let subscriptions = info.subscriptions.into_iter();
    Running {
        client_id: client_id.to_owned(),
        settings: info.properties,
        subscriptions: subscriptions
            .map(|one| {
                (
                    one.topic,
                    format!("{} {}", one.expression_type, one.sub_string),
                )
            })
            .collect(),
        queues: own.chain(popped).collect(),
        topics: info.statuses.into_iter().map(topic).collect(),
        stacks: info.jstack,
    }
}
