//! Where the application reads, and what it does not want to be handed for a while.

use std::sync::atomic::Ordering;

use protocol::body::consumer::RunningInfo;
use protocol::body::queue::MessageQueue;
use protocol::code::{request, response};

use super::{LitePullConsumer, Shared};
use crate::connection::Asked;
use crate::consumer::{offsets, rebalance};
use crate::error::{Error, Result};
use crate::routes::MASTER;

impl LitePullConsumer {
    /// The queues of a topic that can be read, in the same order for every client.
    ///
    /// # Errors
    /// [`Error::NoRoute`] if there is no such topic.
    pub async fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>> {
        let session = &self.shared.member.session;
        let wrapped = session.settings.namespace.wrap(topic);
        let route = session.route(&wrapped).await?;
        let shown = |queue: MessageQueue| MessageQueue {
            topic: topic.to_owned(),
            ..queue
        };
        Ok(rebalance::readable(&route).into_iter().map(shown).collect())
    }

    /// The queues that are read at the moment.
    pub fn assignment(&self) -> Vec<MessageQueue> {
        let namespace = &self.shared.member.session.settings.namespace;
        let queues = self.shared.queues.lock();
        let shown = |queue: &MessageQueue| MessageQueue {
            topic: namespace.unwrap(&queue.topic).into_owned(),
            ..queue.clone()
        };
        let mut all: Vec<_> = queues.keys().map(shown).collect();
        all.sort();
        all
    }

    /// Reads these queues and no others, each from where the group is. Nobody shares them out: two consumers may read
    /// the same.
    ///
    /// # Errors
    /// [`Error::Illegal`] if topics are subscribed to, [`Error::NoRoute`] and the like if a queue's start cannot be found out.
    pub async fn assign(&self, queues: &[MessageQueue]) -> Result<()> {
        let shared = &self.shared;
        if !shared.options.joining.subscriptions.is_empty() {
            return Err(Error::Illegal(
                "topics are subscribed to: their queues are shared out".into(),
            ));
        }
        shared.assigned.store(true, Ordering::SeqCst);
        let wanted: Vec<MessageQueue> = queues.iter().map(|queue| shared.wrapped(queue)).collect();
        {
            let mut known = shared.queues.lock();
            for (_, reader) in known.extract_if(|queue, _| !wanted.contains(queue)) {
                shared.forget(&reader);
            }
        }
        for queue in wanted {
            if shared.queues.lock().contains_key(&queue) {
                continue;
            }
            let offset = shared.begin(&queue).await?;
            shared.start_reader(&queue, offset);
        }
        Ok(())
    }

    /// Goes on at `offset` of a queue that is read; what was pulled of it and not handed out is thrown away.
    ///
    /// # Errors
    /// [`Error::Illegal`] if the queue is not read, or the offset is outside it.
    pub async fn seek(&self, queue: &MessageQueue, offset: i64) -> Result<()> {
        let (min, max) = (
            self.edge(queue, false).await?,
            self.edge(queue, true).await?,
        );
        if !(min..=max).contains(&offset) {
            return Err(Error::Illegal(format!(
                "offset {offset} is not within {min} to {max}"
            )));
        }
        let queue = self.shared.wrapped(queue);
        if !self.shared.queues.lock().contains_key(&queue) {
            return Err(Error::Illegal(format!("{queue:?} is not read here")));
        }
        self.shared.start_reader(&queue, offset);
        Ok(())
    }

    /// Goes on at the first message of a queue.
    ///
    /// # Errors
    /// Those of [`LitePullConsumer::seek`].
    pub async fn seek_to_begin(&self, queue: &MessageQueue) -> Result<()> {
        let offset = self.edge(queue, false).await?;
        self.seek(queue, offset).await
    }

    /// Goes on with what comes from now on.
    ///
    /// # Errors
    /// Those of [`LitePullConsumer::seek`].
    pub async fn seek_to_end(&self, queue: &MessageQueue) -> Result<()> {
        let offset = self.edge(queue, true).await?;
        self.seek(queue, offset).await
    }

    /// The first message stored at or after a time in milliseconds since 1970 (brokers before 5.0: the last before it).
    ///
    /// # Errors
    /// [`Error::NoRoute`], [`Error::Refused`] and the like.
    pub async fn offset_for_timestamp(&self, queue: &MessageQueue, time_ms: i64) -> Result<i64> {
        let queue = self.shared.wrapped(queue);
        let session = &self.shared.member.session;
        let connection = session.connect(&queue, MASTER).await?;
        offsets::at_time(&connection, &queue, time_ms, session.settings.call_limit).await
    }

    async fn edge(&self, queue: &MessageQueue, end: bool) -> Result<i64> {
        let queue = self.shared.wrapped(queue);
        let session = &self.shared.member.session;
        let connection = session.connect(&queue, MASTER).await?;
        offsets::edge(&connection, &queue, end, session.settings.call_limit).await
    }

    /// Hands out nothing of these queues until [`LitePullConsumer::resume`].
    pub fn pause(&self, queues: &[MessageQueue]) {
        let wrapped = queues.iter().map(|queue| self.shared.wrapped(queue));
        self.shared.paused.lock().extend(wrapped);
    }

    pub fn resume(&self, queues: &[MessageQueue]) {
        let mut paused = self.shared.paused.lock();
        for queue in queues {
            paused.remove(&self.shared.wrapped(queue));
        }
        drop(paused);
        self.shared.arrived.notify_one();
    }
}

/// What brokers ask of a lite pull consumer.
pub(super) fn answer(shared: &Shared, asked: &Asked) {
    match asked.command().code {
        request::NOTIFY_CONSUMER_IDS_CHANGED => shared.rebalance.notify_one(),
        request::GET_CONSUMER_RUNNING_INFO => {
            asked.answer(response::SUCCESS, None, &running(shared).to_json());
        }
        code => {
            let address = asked.address();
            tracing::debug!(address, code, "a request that is not answered");
        }
    }
}

fn running(shared: &Shared) -> RunningInfo {
    use protocol::body::consumer::{ProcessQueueInfo, property};

    let queues = shared.queues.lock();
    let info = |(queue, reader): (&MessageQueue, &super::Reader)| {
        let cursor = &reader.cursor;
        let info = ProcessQueueInfo {
            cached_msg_count: cursor.waiting.load(Ordering::SeqCst) as i32,
            commit_offset: cursor.places.lock().done,
            ..ProcessQueueInfo::default()
        };
        (queue.clone(), info)
    };
    let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    RunningInfo {
        queues: queues.iter().map(info).collect(),
        properties: [
            text(property::TYPE, "CONSUME_ACTIVELY"),
            text(
                property::NAME_SERVERS,
                &shared.member.session.settings.name_servers,
            ),
            text(property::VERSION, "V5_4_0"),
            text("consumerGroup", &shared.member.group),
        ]
        .into(),
        subscriptions: shared.member.subscriptions(),
        ..RunningInfo::default()
    }
}
