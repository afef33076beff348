//! Messages of a concurrent consumer: a call of the listener, and what becomes of messages that it does not take.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::Value;
use protocol::body::queue::MessageQueue;
use protocol::code::request;
use tokio::time::Instant;

use super::Shared;
use crate::caught::caught;
use crate::consumer::process_queue::ProcessQueue;
use crate::consumer::{Consumed, Listener};
use crate::error::Result;
use crate::message_id::now_ms;
use crate::received::Received;
use crate::routes::MASTER;
use crate::trace::{Consumption, Outcome};

/// A message that could not be given back is tried again here.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// The delay level of a message whose listener took too long: 10 s.
const TIMED_OUT_LEVEL: i32 = 3;

impl Shared {
    /// Delivers messages of one queue until each is done with or given back, unless the queue is given up before.
    pub(super) async fn consume(
        self: &Arc<Shared>,
        open: &ProcessQueue,
        queue: &MessageQueue,
        mut messages: Vec<Received>,
    ) {
        loop {
            let permit = self.permits.acquire().await;
            let permit = permit.expect("the semaphore is never closed");
            if self.is_stopped() || open.is_given_up() {
                return;
            }
            open.last_consume_ms.store(now_ms(), Ordering::Relaxed);
            messages = self.call(open, queue, messages).await;
            if messages.is_empty() {
                return;
            }
            drop(permit);
            tokio::time::sleep(RETRY_PAUSE).await;
            messages.iter_mut().for_each(|one| one.reconsumed += 1);
        }
    }

    /// One call of the listener. What is returned could not be given back.
    async fn call(
        &self,
        open: &ProcessQueue,
        queue: &MessageQueue,
        messages: Vec<Received>,
    ) -> Vec<Received> {
        let Listener::Concurrent(listener) = &self.listener else {
            unreachable!("an orderly consumer has tasks of its own");
        };
        let began = Instant::now();
        let request = self.trace_before(&messages);
        let given = messages.clone();
        let mut calling = caught(|| listener(given));
        let limit = self.options.consume_limit;
        let (verdict, outcome) = match tokio::time::timeout(limit, &mut calling).await {
            Ok(Some(Consumed::Done)) => (Consumed::Done, Outcome::Success),
            Ok(Some(later)) => (later, Outcome::Failed),
            Ok(None) => {
                tracing::warn!(?queue, "the listener panicked; delivered again later");
                (Consumed::Later, Outcome::Panicked)
            }
            Err(_) => (Consumed::LaterAt(TIMED_OUT_LEVEL), Outcome::TimedOut),
        };
        let well = outcome == Outcome::Success;
        let topic = &queue.topic;
        self.stats
            .consumed(topic, messages.len(), began.elapsed(), well);
        self.trace_after(&messages, &request, began.elapsed(), outcome);
        let left = self.settle(open, queue, messages, verdict).await;
        if outcome == Outcome::TimedOut {
            // It keeps its place among the calls under way; what it says does not count any more.
            calling.await;
        }
        left
    }

    async fn settle(
        &self,
        open: &ProcessQueue,
        queue: &MessageQueue,
        messages: Vec<Received>,
        verdict: Consumed,
    ) -> Vec<Received> {
        let level = match verdict {
            Consumed::Done => None,
            Consumed::Later => Some(0),
            Consumed::LaterAt(level) => Some(level),
        };
        let mut left = Vec::new();
        for message in messages {
            if let Some(level) = level
                && !self.pass_back(&message, level).await
            {
                left.push(message);
                continue;
            }
            let done = open.finish(message.queue_offset);
            self.reached(queue, open, done);
        }
        left
    }

    /// False if nobody could take it.
    async fn pass_back(&self, message: &Received, level: i32) -> bool {
        if self.member.is_broadcasting() {
            // There is nobody to give it back to.
            tracing::warn!(id = message.id, "dropped: broadcasting delivers only once");
            return true;
        }
        let Err(error) = self.give_back(message, level).await else {
            return true;
        };
        tracing::debug!(id = message.id, %error, "not given back; sent to the retry topic instead");
        match self.send_to_retry_topic(message).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(id = message.id, %error, "not sent either; trying again here");
                false
            }
        }
    }

    /// The broker puts the message into the group's retry topic, later each time.
    async fn give_back(&self, message: &Received, level: i32) -> Result<()> {
        let queue = MessageQueue {
            broker_name: message.broker_name.clone(),
            queue_id: message.queue_id,
            topic: message.queue_topic.clone(),
        };
        let session = &self.member.session;
        let origin = session.settings.namespace.wrap(&message.topic);
        let fields = [
            ("offset", Value::I64(message.log_offset)),
            ("group", Value::Str(&self.member.group)),
            ("delayLevel", Value::I32(level)),
            ("originMsgId", Value::Str(&message.id)),
            ("originTopic", Value::Str(&origin)),
            ("unitMode", Value::Bool(session.settings.unit_mode)),
            ("maxReconsumeTimes", Value::I32(self.reconsume_max())),
            ("bname", Value::Str(&message.broker_name)),
        ];
        let connection = session.connect(&queue, MASTER).await?;
        let limit = session.settings.call_limit;
        connection
            .demand(request::CONSUMER_SEND_MSG_BACK, &fields, b"", limit)
            .await?;
        Ok(())
    }

    /// The id that joins the two trace lines of a delivery; empty without a trace.
    pub(super) fn trace_before(&self, messages: &[Received]) -> String {
        let Some(trace) = &self.trace else {
            return String::new();
        };
        let request = self.member.session.ids.next();
        for message in messages.iter().filter(|message| is_traced(message)) {
            let consumption = self.consumption(message, &request);
            trace.append(consumption.before(now_ms()));
        }
        request
    }

    pub(super) fn trace_after(
        &self,
        messages: &[Received],
        request: &str,
        took: Duration,
        outcome: Outcome,
    ) {
        let Some(trace) = &self.trace else {
            return;
        };
        let cost_ms = took.as_millis() as i64 / messages.len().max(1) as i64;
        for message in messages.iter().filter(|message| is_traced(message)) {
            let consumption = self.consumption(message, request);
            trace.append(consumption.after(now_ms(), cost_ms, outcome));
        }
    }

    fn consumption<'a>(&'a self, message: &'a Received, request: &'a str) -> Consumption<'a> {
        Consumption {
            message,
            group: self
                .member
                .session
                .settings
                .namespace
                .unwrap(&self.member.group),
            request,
        }
    }
}

fn is_traced(message: &Received) -> bool {
    crate::trace::wants_trace(message.property(protocol::properties::TRACE_ON))
}
