//! A queue of an orderly consumer: one message at a time, the next when the one before is done with, and none without
//! the broker's lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::body::queue::MessageQueue;
use protocol::{names, properties};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Shared;
use crate::caught::caught;
use crate::consumer::process_queue::ProcessQueue;
use crate::consumer::{Listener, Ordered};
use crate::error::Result;
use crate::message::Message;
use crate::message_id::now_ms;
use crate::received::Received;
use crate::trace::Outcome;

const SUSPEND_MIN: Duration = Duration::from_millis(10);
const SUSPEND_MAX: Duration = Duration::from_secs(30);
/// The level a message waits at that was delivered in vain once, and twice, ...: this and more.
const RETRY_LEVEL_FIRST: i32 = 3;

pub(super) struct Worker {
    pub shared: Arc<Shared>,
    pub open: Arc<ProcessQueue>,
    pub queue: MessageQueue,
}

impl Worker {
    /// Ends when the puller does, or the queue is given up.
    pub async fn run(self, mut messages: mpsc::UnboundedReceiver<Received>) {
        while let Some(message) = messages.recv().await {
            let offset = message.queue_offset;
            if !self.deliver(message).await {
                return;
            }
            let done = self.open.finish(offset);
            self.shared.reached(&self.queue, &self.open, done);
        }
    }

    /// Calls the listener until the message is done with; false if the queue was given up before.
    async fn deliver(&self, mut message: Received) -> bool {
        let shared = &self.shared;
        loop {
            if shared.needs_locks() && !self.open.wait_for_lock().await {
                return false;
            }
            if self.open.is_passed(message.queue_offset) {
                return true;
            }
            let pause = {
                let permit = shared.permits.acquire().await;
                let _permit = permit.expect("the semaphore is never closed");
                if shared.is_stopped() || self.open.is_given_up() {
                    return false;
                }
                match self.call(&message).await {
                    Ordered::Done => return true,
                    Ordered::Suspend => shared.options.suspend,
                    Ordered::SuspendFor(pause) => pause,
                }
            };
            if message.reconsumed >= shared.reconsume_max() && self.is_given_back(&message).await {
                return true;
            }
            message.reconsumed = message.reconsumed.saturating_add(1);
            tokio::select! {
                () = tokio::time::sleep(pause.clamp(SUSPEND_MIN, SUSPEND_MAX)) => {}
                () = self.open.given_up() => return false,
            }
        }
    }

    async fn call(&self, message: &Received) -> Ordered {
        let Listener::Orderly(listener) = &self.shared.listener else {
            unreachable!("only an orderly consumer has workers");
        };
        let shared = &self.shared;
        self.open.last_consume_ms.store(now_ms(), Ordering::Relaxed);
        let messages = std::slice::from_ref(message);
        let request = shared.trace_before(messages);
        let began = Instant::now();
        let verdict = caught(|| listener(message.clone())).await;
        let took = began.elapsed();
        let outcome = match verdict {
            Some(_) if took >= shared.options.consume_limit => Outcome::TimedOut,
            Some(Ordered::Done) => Outcome::Success,
            Some(_) => Outcome::Failed,
            None => Outcome::Panicked,
        };
        let well = verdict == Some(Ordered::Done);
        shared.stats.consumed(&self.queue.topic, 1, took, well);
        shared.trace_after(messages, &request, took, outcome);
        verdict.unwrap_or_else(|| {
            tracing::warn!(queue = ?self.queue, "the listener panicked; its queue is suspended");
            Ordered::Suspend
        })
    }

    async fn is_given_back(&self, message: &Received) -> bool {
        if self.shared.member.is_broadcasting() {
            return false;
        }
        match self.shared.send_to_retry_topic(message).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(id = message.id, %error, "not given back; its queue waits");
                false
            }
        }
    }
}

impl Shared {
    /// Sends a message to the group's retry topic, from where the broker makes a dead letter of it when its deliveries
    /// are used up.
    pub(super) async fn send_to_retry_topic(&self, message: &Received) -> Result<()> {
        let session = &self.member.session;
        let origin_id = message.property(properties::ORIGIN_MESSAGE_ID);
        let mut again = Message::new(names::retry_topic(&self.member.group), message.body.clone())
            .flag(message.flag);
        for (name, value) in message.properties() {
            again = again.property(name, value);
        }
        let again = again
            .without(properties::TRAN_MSG)
            .property(
                properties::ORIGIN_MESSAGE_ID,
                origin_id.unwrap_or(&message.id),
            )
            .property(
                properties::RETRY_TOPIC,
                session.settings.namespace.wrap(&message.topic),
            )
            .property(
                properties::RECONSUME_TIME,
                message.reconsumed.saturating_add(1).to_string(),
            )
            .property(
                properties::MAX_RECONSUME_TIMES,
                self.reconsume_max().to_string(),
            )
            .delay_level((RETRY_LEVEL_FIRST + message.reconsumed.min(32)) as u32);
        self.giver().await?.send(again).await?;
        Ok(())
    }
}
