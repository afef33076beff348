//! The task that pulls one queue ahead of the application, as far as the thresholds let it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::body::heartbeat::SubscriptionData;

use super::{Batch, Cursor, Shared};
use crate::consumer::pull::{Found, Pull};
use crate::error::Result;
use crate::received::Received;
use crate::routes::MASTER;

pub(super) struct Puller {
    pub shared: Arc<Shared>,
    pub cursor: Arc<Cursor>,
    pub subscription: SubscriptionData,
    /// The replica that the broker last told us to ask.
    pub replica: i64,
    pub offset: i64,
}

impl Puller {
    /// Ends with the task: the reader aborts it.
    pub async fn run(mut self) {
        loop {
            self.wait_for_room().await;
            if let Err(error) = self.pull().await {
                tracing::debug!(queue = ?self.cursor.queue, %error, "pulling again");
                self.replica = MASTER;
                tokio::time::sleep(self.shared.options.joining.pull_pause).await;
            }
        }
    }

    /// Of this queue, and of all together.
    async fn wait_for_room(&self) {
        let options = &self.shared.options;
        loop {
            let handed_out = self.shared.handed_out.notified();
            let waiting = self.cursor.waiting.load(Ordering::SeqCst);
            let bytes = self.cursor.waiting_bytes.load(Ordering::SeqCst);
            if waiting >= options.joining.queue_messages_max || bytes >= options.queue_bytes_max {
                self.cursor.less.notified().await;
                continue;
            }
            if self.shared.waiting.load(Ordering::SeqCst) < options.all_messages_max {
                return;
            }
            handed_out.await;
        }
    }

    async fn pull(&mut self) -> Result<()> {
        let member = &self.shared.member;
        let session = &member.session;
        let queue = &self.cursor.queue;
        let connection = session.connect(queue, self.replica).await?;
        let options = &self.shared.options;
        let pull = Pull {
            group: &member.group,
            queue,
            subscription: &self.subscription,
            offset: self.offset,
            messages_max: options.joining.pull_messages,
            commit: None,
            hold: Some(options.hold),
            lite: true,
            limit: options.held_limit,
        };
        let page = pull.ask(&connection).await?;
        let messages = pull.unpack(&page, &session.settings.namespace)?;
        let next_offset = page.told.next_offset;
        if page.found == Found::Elsewhere {
            tracing::info!(
                ?queue,
                self.offset,
                next_offset,
                "that offset is none; going on elsewhere"
            );
        }
        self.offset = next_offset;
        self.replica = page.told.suggested_broker;
        self.hand_over(messages, next_offset);
        Ok(())
    }

    fn hand_over(&self, messages: Vec<Received>, next_offset: i64) {
        if messages.is_empty() {
            // What is not wanted is done with, once everything before it was handed out.
            if self.cursor.waiting.load(Ordering::SeqCst) == 0 {
                let mut places = self.cursor.places.lock();
                if places.done == places.position {
                    places.done = next_offset;
                }
                places.position = next_offset;
            }
            return;
        }
        let bytes: usize = messages.iter().map(|message| message.body.len()).sum();
        let count = messages.len();
        let mut ready = self.shared.ready.lock();
        // Under the lock, with the counts: a reader that is forgotten takes its counts back.
        if self.cursor.gone.load(Ordering::SeqCst) {
            return;
        }
        self.cursor.waiting.fetch_add(count, Ordering::SeqCst);
        self.cursor.waiting_bytes.fetch_add(bytes, Ordering::SeqCst);
        self.shared.waiting.fetch_add(count, Ordering::SeqCst);
        ready.push_back(Batch {
            cursor: self.cursor.clone(),
            messages: messages.into(),
            next_offset,
        });
        drop(ready);
        self.shared.arrived.notify_one();
    }
}
