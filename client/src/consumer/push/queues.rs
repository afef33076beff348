//! Which queues are ours: taking over, giving up, going elsewhere in them.

use std::sync::Arc;

use protocol::body::heartbeat::SubscriptionData;
use protocol::body::queue::MessageQueue;
use tokio::sync::mpsc;

use super::puller::Puller;
use super::{Reader, Shared, orderly};
use crate::consumer::process_queue::{Limits, ProcessQueue};
use crate::consumer::{locks, offsets};
use crate::error::Result;
use crate::routes::MASTER;

const MIB: usize = 1 << 20;

impl Shared {
    /// Shares every topic out anew. False if some queue of ours could not be taken over yet.
    pub(super) async fn rebalance(self: &Arc<Shared>) -> bool {
        let member = &self.member;
        if let Err(error) = member.find_routes().await {
            tracing::debug!(%error, "no routes");
        }
        // Only a member has a share.
        let session = &member.session;
        session
            .heartbeat_to_new(&member.heartbeat_data(), false)
            .await;
        let mut settled = true;
        for subscription in member.subscriptions() {
            match member.share(&subscription).await {
                Ok(queues) => settled &= self.take_over(&subscription, queues).await,
                Err(error) => {
                    tracing::debug!(topic = subscription.topic, %error, "shares stay as they are")
                }
            }
        }
        settled & self.regain_locks().await
    }

    /// Gives up what is no longer ours and starts on what has become ours.
    async fn take_over(
        self: &Arc<Shared>,
        subscription: &SubscriptionData,
        share: Vec<MessageQueue>,
    ) -> bool {
        let given_up: Vec<(MessageQueue, Reader)> = {
            let mut queues = self.queues.lock();
            let gone = |queue: &MessageQueue, _: &mut Reader| {
                queue.topic == subscription.topic && !share.contains(queue)
            };
            queues.extract_if(gone).collect()
        };
        for (queue, reader) in given_up {
            self.give_up(queue, reader).await;
        }
        let limits = self.limits(share.len());
        let new: Vec<MessageQueue> = {
            let queues = self.queues.lock();
            for (queue, reader) in queues.iter() {
                if queue.topic == subscription.topic {
                    reader.open.set_limits(limits);
                }
            }
            let leaving = self.leaving.lock();
            let is_new = |queue: &MessageQueue| !queues.contains_key(queue);
            share
                .into_iter()
                .filter(|queue| is_new(queue) && !leaving.contains(queue))
                .collect()
        };
        let wanted = new.len();
        let mut taken = 0;
        for queue in self.locked(new).await {
            match self.begin(&queue).await {
                Ok(offset) => {
                    self.start_reader(subscription, queue, offset, limits);
                    taken += 1;
                }
                Err(error) => tracing::debug!(?queue, %error, "not taken over yet"),
            }
        }
        taken == wanted
    }

    /// Whether a queue may be read only while the broker has locked it for us.
    pub(super) fn needs_locks(&self) -> bool {
        self.listener.is_orderly() && !self.member.is_broadcasting()
    }

    /// Those of `queues` that may be read.
    async fn locked(&self, mut queues: Vec<MessageQueue>) -> Vec<MessageQueue> {
        if self.needs_locks() {
            let said = locks::lock(&self.member, &queues).await;
            queues.retain(|queue| said.get(queue).is_some_and(|is_ours| *is_ours));
        }
        queues
    }

    /// False if some queue of ours is not locked for us.
    pub(super) async fn renew_locks(&self) -> bool {
        let (held, queues) = self.with_lock(true);
        let said = locks::lock(&self.member, &queues).await;
        for (queue, open) in queues.iter().zip(held) {
            let Some(is_ours) = said.get(queue) else {
                continue;
            };
            open.set_locked(*is_ours);
            if !is_ours {
                tracing::info!(?queue, "another member has the lock");
                self.offsets.take(Some(queue));
            }
        }
        self.regain_locks().await
    }

    /// Asks for queues of ours that are not locked for us: the broker forgot its locks when it was started again, and
    /// another member was there first, or it could not be asked for too long. False if some still are not.
    async fn regain_locks(&self) -> bool {
        if !self.needs_locks() {
            return true;
        }
        let (lost, queues) = self.with_lock(false);
        let said = locks::lock(&self.member, &queues).await;
        let mut regained = 0;
        for (queue, open) in queues.iter().zip(&lost) {
            if said.get(queue) != Some(&true) {
                continue;
            }
            // Who had it meanwhile has told how far it came.
            match self.committed(queue).await {
                Ok(offset) => {
                    open.pass_to(offset.unwrap_or(0));
                    open.set_locked(true);
                    regained += 1;
                }
                Err(error) => tracing::debug!(?queue, %error, "not read on yet"),
            }
        }
        regained == lost.len()
    }

    /// Queues of ours whose lock counts, or those whose does not.
    fn with_lock(&self, locked: bool) -> (Vec<Arc<ProcessQueue>>, Vec<MessageQueue>) {
        let queues = self.queues.lock();
        let such = queues
            .iter()
            .filter(|(_, reader)| reader.open.is_locked() == locked);
        such.map(|(queue, reader)| (reader.open.clone(), queue.clone()))
            .unzip()
    }

    async fn give_up(self: &Arc<Shared>, queue: MessageQueue, reader: Reader) {
        tracing::debug!(?queue, "given up");
        reader.pulling.abort();
        let Some(working) = reader.working else {
            self.offsets.reach(&queue, reader.open.done(), || false);
            reader.open.give_up();
            self.commit(Some(&queue)).await;
            return;
        };
        // Another member may read it only after our last call of the listener is over.
        reader.open.give_up();
        self.leaving.lock().insert(queue.clone());
        let (shared, open) = (self.clone(), reader.open);
        tokio::spawn(async move {
            // It ends by itself; a panic of it was noted where it happened.
            let _ = working.await;
            shared.offsets.reach(&queue, open.done(), || false);
            shared.commit(Some(&queue)).await;
            shared.member.session.connections.flush().await;
            locks::unlock(&shared.member, std::slice::from_ref(&queue)).await;
            shared.leaving.lock().remove(&queue);
            shared.rebalance.notify_one();
        });
    }

    /// Goes on elsewhere in a queue of ours: an operator has reset the group, or what was asked for is gone. What is
    /// with the listener does not count any more.
    pub(crate) async fn go_to(self: &Arc<Shared>, queue: &MessageQueue, offset: i64) {
        let Some(reader) = self.queues.lock().remove(queue) else {
            return;
        };
        reader.pulling.abort();
        reader.open.give_up();
        self.offsets.set(queue, offset);
        self.commit(Some(queue)).await;
        if let Some(working) = reader.working {
            // A call of the listener may take its time: meanwhile nobody takes the queue over.
            self.leaving.lock().insert(queue.clone());
            let (shared, queue) = (self.clone(), queue.clone());
            tokio::spawn(async move {
                let _ = working.await;
                shared.leaving.lock().remove(&queue);
                shared.rebalance.notify_one();
            });
            return;
        }
        let subscriptions = self.member.subscriptions();
        let of_topic = subscriptions.iter().find(|one| one.topic == queue.topic);
        if let Some(subscription) = of_topic
            && !self.is_stopped()
        {
            let limits = self.limits(self.queues_of(&queue.topic) + 1);
            self.start_reader(subscription, queue.clone(), offset, limits);
        }
    }

    fn queues_of(&self, topic: &str) -> usize {
        let queues = self.queues.lock();
        queues.keys().filter(|queue| queue.topic == topic).count()
    }

    /// When the queues of a topic pause, `count` of them being ours.
    fn limits(&self, count: usize) -> Limits {
        let options = &self.options;
        let part = |all: usize| (all / count.max(1)).max(1);
        let mib = options.topic_mib_max.map_or(options.queue_mib_max, part);
        Limits {
            messages: options
                .topic_messages_max
                .map_or(options.joining.queue_messages_max, part),
            bytes: mib * MIB,
            span: match self.listener.is_orderly() {
                true => i64::MAX,
                false => options.queue_span_max,
            },
        }
    }

    fn start_reader(
        self: &Arc<Shared>,
        subscription: &SubscriptionData,
        queue: MessageQueue,
        offset: i64,
        limits: Limits,
    ) {
        tracing::debug!(?queue, offset, "taken over");
        let open = Arc::new(ProcessQueue::starting_at(offset, limits));
        let mut working = None;
        let mut in_order = None;
        if self.listener.is_orderly() {
            if self.needs_locks() {
                open.set_locked(true);
            }
            let (sender, receiver) = mpsc::unbounded_channel();
            in_order = Some(sender);
            let worker = orderly::Worker {
                shared: self.clone(),
                open: open.clone(),
                queue: queue.clone(),
            };
            working = Some(tokio::spawn(worker.run(receiver)));
        }
        let puller = Puller {
            shared: self.clone(),
            open: open.clone(),
            queue: queue.clone(),
            subscription: subscription.clone(),
            replica: MASTER,
            offset,
            in_order,
            paused: self.paused.subscribe(),
        };
        let reader = Reader {
            open,
            pulling: tokio::spawn(puller.run()),
            working,
        };
        self.queues.lock().insert(queue, reader);
    }

    /// Where to begin in a queue that was just taken over.
    async fn begin(&self, queue: &MessageQueue) -> Result<i64> {
        if let Some(offset) = self.committed(queue).await? {
            return Ok(offset);
        }
        let connection = self.member.session.connect(queue, MASTER).await?;
        let limit = self.member.session.settings.call_limit;
        offsets::start(&connection, self.options.joining.from, queue, limit).await
    }

    /// How far the group has come in a queue, as it has told.
    async fn committed(&self, queue: &MessageQueue) -> Result<Option<i64>> {
        if let Some(local) = &self.local {
            return Ok(local.get(queue));
        }
        let connection = self.member.session.connect(queue, MASTER).await?;
        let limit = self.member.session.settings.call_limit;
        offsets::committed(&connection, &self.member.group, queue, limit).await
    }
}
