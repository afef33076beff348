//! What brokers ask of a push consumer, mostly for an operator: the members have changed (40), go elsewhere (220), how
//! far are you (221), how are you (307), consume this (309).

use std::sync::Arc;

use protocol::body::consumer::{
    ConsumeDirectlyResult, ConsumeResult, ConsumerStatus, ResetOffsets,
};
use protocol::code::{request, response};
use protocol::names;
use protocol::record::View;
use tokio::time::Instant;

use super::push::Shared;
use super::{Consumed, Listener, Ordered, running};
use crate::caught::caught;
use crate::connection::Asked;
use crate::received::Received;

impl Shared {
    pub(super) async fn answer(self: &Arc<Shared>, asked: Asked) {
        match asked.command().code {
            request::NOTIFY_CONSUMER_IDS_CHANGED => self.rebalance.notify_one(),
            request::RESET_CONSUMER_CLIENT_OFFSET => self.reset(&asked).await,
            request::GET_CONSUMER_STATUS_FROM_CLIENT => self.tell_status(&asked),
            request::GET_CONSUMER_RUNNING_INFO => self.tell_running(&asked),
            request::CONSUME_MESSAGE_DIRECTLY => {
                let shared = self.clone();
                tokio::spawn(async move { shared.consume_directly(&asked).await });
            }
            code => {
                let address = asked.address();
                tracing::debug!(address, code, "a request that is not answered");
            }
        }
    }

    /// An operator has moved the group: what is pulled and not done does not count any more.
    async fn reset(self: &Arc<Shared>, asked: &Asked) {
        let command = asked.command();
        if !self.is_for_us(asked, "group") {
            return;
        }
        match ResetOffsets::from_json(command.body) {
            Ok(reset) => {
                for (queue, offset) in reset.offsets {
                    tracing::info!(?queue, offset, "going elsewhere, as an operator says");
                    self.go_to(&queue, offset).await;
                }
                asked.answer(response::SUCCESS, None, b"");
            }
            Err(error) => {
                asked.answer(response::SYSTEM_ERROR, Some(&error.to_string()), b"");
            }
        }
    }

    fn tell_status(&self, asked: &Asked) {
        let topic = asked.command().fields.string("topic").unwrap_or_default();
        let queues = self.queues.lock();
        let of_topic = queues.iter().filter(|(queue, _)| queue.topic == *topic);
        let status = ConsumerStatus {
            queues: of_topic
                .map(|(queue, reader)| (queue.clone(), reader.open.done()))
                .collect(),
            ..ConsumerStatus::default()
        };
        asked.answer(response::SUCCESS, None, &status.to_json());
    }

    fn tell_running(&self, asked: &Asked) {
        if !self.is_for_us(asked, "consumerGroup") {
            return;
        }
        let stacks = asked.command().fields.bool("jstackEnable");
        let stacks = stacks.ok().flatten().unwrap_or(false);
        let body = running::info(self, stacks).to_json();
        asked.answer(response::SUCCESS, None, &body);
    }

    /// Calls the listener now with a message that an operator chose; it moves no offset.
    async fn consume_directly(&self, asked: &Asked) {
        if !self.is_for_us(asked, "consumerGroup") {
            return;
        }
        let command = asked.command();
        let broker = command.fields.string("brokerName").unwrap_or_default();
        let namespace = &self.member.session.settings.namespace;
        let read = View::parse(command.body)
            .map_err(|error| error.to_string())
            .and_then(|record| Received::from_record(&record, &broker, namespace));
        let message = match read {
            Ok(message) => message,
            Err(what) => return asked.answer(response::SYSTEM_ERROR, Some(&what), b""),
        };
        let began = Instant::now();
        let verdict = match &self.listener {
            Listener::Concurrent(listener) => caught(|| listener(vec![message]))
                .await
                .map(|verdict| verdict == Consumed::Done),
            Listener::Orderly(listener) => caught(|| listener(message))
                .await
                .map(|verdict| verdict == Ordered::Done),
        };
        let result = ConsumeDirectlyResult {
            consume_result: match verdict {
                Some(true) => ConsumeResult::Success,
                Some(false) => ConsumeResult::Later,
                None => ConsumeResult::ThrowException,
            },
            order: self.listener.is_orderly(),
            remark: verdict
                .is_none()
                .then(|| "the listener panicked".to_owned()),
            spent_time_mills: began.elapsed().as_millis() as i64,
            ..ConsumeDirectlyResult::default()
        };
        let body = serde_json::to_vec(&result).expect("string keys");
        asked.answer(response::SUCCESS, None, &body);
    }

    /// Questions name the group they are for; a client has one.
    fn is_for_us(&self, asked: &Asked, field: &str) -> bool {
        let group = asked.command().fields.string(field).unwrap_or_default();
        let ours = *group == self.member.group || *group == names::retry_topic(&self.member.group);
        if !ours {
            let remark = format!("The Consumer Group <{group}> not exist in this consumer");
            asked.answer(response::SYSTEM_ERROR, Some(&remark), b"");
        }
        ours
    }
}
