//! The task that pulls one queue for as long as it is ours.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::body::heartbeat::SubscriptionData;
use protocol::body::queue::MessageQueue;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Shared;
use crate::consumer::process_queue::ProcessQueue;
use crate::consumer::pull::{Found, Pull};
use crate::error::Result;
use crate::message_id::now_ms;
use crate::received::Received;
use crate::routes::MASTER;

/// How long the broker holds a pull that finds nothing, and how long we wait for its answer.
const HOLD: Duration = Duration::from_secs(15);
const PULL_LIMIT: Duration = Duration::from_secs(30);

pub(super) struct Puller {
    pub shared: Arc<Shared>,
    pub open: Arc<ProcessQueue>,
    pub queue: MessageQueue,
    pub subscription: SubscriptionData,
    /// The replica that the broker last told us to ask.
    pub replica: i64,
    pub offset: i64,
    /// To the task that calls the listener, of an orderly queue.
    pub in_order: Option<mpsc::UnboundedSender<Received>>,
    pub paused: watch::Receiver<bool>,
}

impl Puller {
    pub async fn run(mut self) {
        loop {
            self.open.wait_for_room().await;
            // The sender lives as long as the consumer.
            let _ = self.paused.wait_for(|paused| !paused).await;
            // A pull tells how far we are: without the lock, that is another member's to tell.
            if self.shared.needs_locks() && !self.open.wait_for_lock().await {
                return;
            }
            self.offset = self.offset.max(self.open.done());
            match self.pull().await {
                Ok(None) => {}
                Ok(Some(offset)) => {
                    let (shared, queue) = (self.shared.clone(), self.queue.clone());
                    // It ends this task, and starts another.
                    tokio::spawn(async move { shared.go_to(&queue, offset).await });
                    return;
                }
                Err(error) => {
                    tracing::debug!(queue = ?self.queue, %error, "pulling again");
                    self.replica = MASTER;
                    tokio::time::sleep(self.shared.options.joining.pull_pause).await;
                    continue;
                }
            }
            let interval = self.shared.options.pull_interval;
            if !interval.is_zero() {
                tokio::time::sleep(interval).await;
            }
        }
    }

    /// One pull. The answer is where to go on if that is further back.
    async fn pull(&mut self) -> Result<Option<i64>> {
        let shared = &self.shared;
        let session = &shared.member.session;
        let connection = session.connect(&self.queue, self.replica).await?;
        let done = self.open.done();
        let told = !shared.member.is_broadcasting() && self.replica == MASTER && done > 0;
        let pull = Pull {
            group: &shared.member.group,
            queue: &self.queue,
            subscription: &self.subscription,
            offset: self.offset,
            messages_max: shared.options.joining.pull_messages,
            commit: told.then_some(done),
            hold: Some(HOLD),
            lite: false,
            limit: PULL_LIMIT,
        };
        self.open.last_pull_ms.store(now_ms(), Ordering::Relaxed);
        let began = Instant::now();
        let page = pull.ask(&connection).await?;
        let messages = pull.unpack(&page, &session.settings.namespace)?;
        if page.found == Found::Messages {
            let topic = &self.queue.topic;
            shared.stats.pulled(topic, messages.len(), began.elapsed());
        }
        let next = page.told.next_offset;
        if page.found == Found::Elsewhere && next < self.offset {
            return Ok(Some(next));
        }
        self.offset = next;
        self.replica = page.told.suggested_broker;
        self.hand_over(messages);
        self.open.skip_to(self.offset);
        shared.reached(&self.queue, &self.open, self.open.done());
        Ok(None)
    }

    fn hand_over(&self, messages: Vec<Received>) {
        for message in &messages {
            self.open.add(message.queue_offset, message.body.len());
        }
        if let Some(in_order) = &self.in_order {
            for message in messages {
                // A worker that is gone has been given up, and so have we.
                let _ = in_order.send(message);
            }
            return;
        }
        let mut rest = messages.into_iter().peekable();
        while rest.peek().is_some() {
            let chunk: Vec<Received> = rest
                .by_ref()
                .take(self.shared.options.listener_messages_max)
                .collect();
            let (shared, open) = (self.shared.clone(), self.open.clone());
            let queue = self.queue.clone();
            tokio::spawn(async move { shared.consume(&open, &queue, chunk).await });
        }
    }
}
