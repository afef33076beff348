//! What a push consumer is to be like: RocketMQ's settings with RocketMQ's defaults.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use protocol::body::heartbeat::MessageModel;

use super::joining::{Joining, joining_settings};
use super::{Allocation, Consumed, Listener, Ordered, PushConsumer};
use crate::error::Result;
use crate::received::Received;
use crate::settings::{
    Settings, interval, millis, parse, positive, shared_settings, unknown, wrong,
};

/// Deliveries of a message before it becomes a dead letter, where nobody says otherwise.
pub(super) const RECONSUME_MAX_DEFAULT: i32 = 16;

pub(crate) struct Options {
    pub joining: Joining,
    pub concurrency: usize,
    pub listener_messages_max: usize,
    pub pull_interval: Duration,
    pub queue_mib_max: usize,
    pub queue_span_max: i64,
    pub topic_messages_max: Option<usize>,
    pub topic_mib_max: Option<usize>,
    /// Unset: 16, or as often as it takes if orderly.
    pub reconsume_max: Option<i32>,
    pub suspend: Duration,
    pub consume_limit: Duration,
    pub drain_limit: Duration,
}

/// What a consumer is to be like. Get one from [`PushConsumer::builder`].
pub struct PushConsumerBuilder {
    pub(super) options: Options,
    pub(super) settings: Settings,
}

impl PushConsumerBuilder {
    pub(super) fn new(group: String) -> PushConsumerBuilder {
        PushConsumerBuilder {
            options: Options {
                joining: Joining::new(group, 32),
                concurrency: 20,
                listener_messages_max: 1,
                pull_interval: Duration::ZERO,
                queue_mib_max: 100,
                queue_span_max: 2_000,
                topic_messages_max: None,
                topic_mib_max: None,
                reconsume_max: None,
                suspend: Duration::from_secs(1),
                consume_limit: Duration::from_secs(15 * 60),
                drain_limit: Duration::from_secs(10),
            },
            settings: Settings::default(),
        }
    }

    shared_settings!();
    joining_settings!();

    /// `consumeThreadMax`: how many calls of the listener are under way at once; 20 unless said otherwise, at least 1.
    pub fn concurrency(mut self, calls: usize) -> PushConsumerBuilder {
        self.options.concurrency = calls.max(1);
        self
    }

    /// `allocateMessageQueueStrategy`: the same for all members of a group.
    pub fn allocation(mut self, allocation: Allocation) -> PushConsumerBuilder {
        self.options.joining.allocation = allocation;
        self
    }

    /// `pullBatchSize`: messages of one pull; 32 unless said otherwise, 1 to 1,024.
    pub fn pull_messages(mut self, messages: u16) -> PushConsumerBuilder {
        self.options.joining.pull_messages = i32::from(messages.clamp(1, 1_024));
        self
    }

    /// `pullThresholdForQueue` and `pullThresholdSizeForQueue`: above so many messages or MiB of one queue that are not
    /// done, pulling it pauses; 1,000 and 100 unless said otherwise.
    pub fn queue_thresholds(mut self, messages: usize, mib: usize) -> PushConsumerBuilder {
        self.options.joining.queue_messages_max = messages.max(1);
        self.options.queue_mib_max = mib.max(1);
        self
    }

    /// `pullThresholdForTopic` and `pullThresholdSizeForTopic`: the same for all queues of a topic together, each having its part.
    pub fn topic_thresholds(mut self, messages: usize, mib: usize) -> PushConsumerBuilder {
        self.options.topic_messages_max = Some(messages.max(1));
        self.options.topic_mib_max = Some(mib.max(1));
        self
    }

    /// `maxReconsumeTimes`: a message that was delivered in vain more often than this becomes a dead letter; 16 unless
    /// said otherwise, for an orderly consumer never.
    pub fn max_reconsume_times(mut self, times: u16) -> PushConsumerBuilder {
        self.options.reconsume_max = Some(i32::from(times));
        self
    }

    /// `suspendCurrentQueueTimeMillis`: how long an orderly queue waits after [`Ordered::Suspend`]; 1 s unless said
    /// otherwise, 10 ms to 30 s.
    pub fn suspend_time(mut self, time: Duration) -> PushConsumerBuilder {
        self.options.suspend = time;
        self
    }

    /// `consumeTimeout`: a message whose listener takes longer is given back to be delivered again, after 10 s; the
    /// call goes on, what it says does not count any more. 15 min unless said otherwise.
    pub fn consume_timeout(mut self, limit: Duration) -> PushConsumerBuilder {
        self.options.consume_limit = limit;
        self
    }

    /// How often queues are shared out anew even if nothing seems to have changed; 20 s unless said otherwise.
    pub fn rebalance_interval(mut self, interval: Duration) -> PushConsumerBuilder {
        self.options.joining.rebalance_interval = interval;
        self
    }

    /// `persistConsumerOffsetInterval`: how often the broker is told how far the group has got; 5 s unless said otherwise.
    pub fn commit_interval(mut self, interval: Duration) -> PushConsumerBuilder {
        self.options.joining.commit_interval = interval;
        self
    }

    /// `awaitTerminationMillisWhenShutdown`: how long a shutdown waits for calls of the listener that are under way; 10 s
    /// unless said otherwise (RocketMQ does not wait, and delivers again what was not done).
    pub fn drain_limit(mut self, limit: Duration) -> PushConsumerBuilder {
        self.options.drain_limit = limit;
        self
    }

    /// Sets what RocketMQ calls `name` to what a properties file would say: `set("pullBatchSize", "32")`. Times are in
    /// milliseconds but for `consumeTimeout` (minutes), sizes in MiB, `consumeTimestamp` is `yyyyMMddHHmmss` in UTC or
    /// milliseconds since 1970.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if a push consumer has no such setting, or it cannot have that value.
    pub fn set(mut self, name: &str, value: &str) -> Result<PushConsumerBuilder> {
        let options = &mut self.options;
        match name {
            "messageModel" => options.joining.model = model(name, value)?,
            "consumeThreadMax" => options.concurrency = positive(name, value)?,
            // There are no threads to keep: only the most that may be counts.
            "consumeThreadMin" => {
                options.concurrency = options.concurrency.max(positive(name, value)?)
            }
            "consumeMessageBatchMaxSize" => options.listener_messages_max = positive(name, value)?,
            "pullBatchSize" => {
                let messages = u16::try_from(positive(name, value)?);
                self = self.pull_messages(messages.map_err(|_| wrong(name, "too many"))?);
            }
            "pullInterval" => options.pull_interval = millis(name, value)?,
            "pullThresholdSizeForQueue" => options.queue_mib_max = positive(name, value)?,
            "pullThresholdForTopic" => options.topic_messages_max = or_none(name, value)?,
            "pullThresholdSizeForTopic" => options.topic_mib_max = or_none(name, value)?,
            "consumeConcurrentlyMaxSpan" => options.queue_span_max = positive(name, value)? as i64,
            "maxReconsumeTimes" => {
                options.reconsume_max = Some(parse(name, value)?).filter(|times| *times >= 0);
            }
            "suspendCurrentQueueTimeMillis" => options.suspend = millis(name, value)?,
            "consumeTimeout" => {
                let minutes = positive(name, value)? as u64;
                options.consume_limit = Duration::from_secs(60 * minutes);
            }
            "persistConsumerOffsetInterval" => {
                options.joining.commit_interval = interval(name, value)?;
            }
            "awaitTerminationMillisWhenShutdown" => options.drain_limit = millis(name, value)?,
            "allocateMessageQueueStrategy" => options.joining.allocation = allocation(name, value)?,
            "rocketmq.client.localOffsetStoreDir" => {
                options.joining.offsets_folder = Some(value.into());
            }
            _ if options.joining.set(name, value)? => {}
            _ if self.settings.set(name, value)? => {}
            _ => return Err(unknown(name)),
        }
        Ok(self)
    }

    /// Starts consuming; `listener` is called for every message, many at a time. A panic counts as [`Consumed::Later`].
    ///
    /// # Errors
    /// [`Error::Illegal`](crate::Error::Illegal) for names that cannot be or nothing subscribed to,
    /// [`Error::Refused`](crate::Error::Refused) for an SQL condition that the broker does not understand,
    /// [`Error::Connect`](crate::Error::Connect) and the like if no name server can be asked.
    pub async fn start<F, Fut>(mut self, listener: F) -> Result<PushConsumer>
    where
        F: Fn(Received) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Consumed> + Send + 'static,
    {
        self.options.listener_messages_max = 1;
        let listener = Listener::Concurrent(Arc::new(move |messages: Vec<Received>| {
            let one = messages.into_iter().next();
            Box::pin(listener(one.expect("a listener is called with a message")))
        }));
        PushConsumer::start(self, listener).await
    }

    /// Starts consuming; `listener` is called with up to `messages_max` messages of a queue at a time
    /// (`consumeMessageBatchMaxSize`), as many as are there. What it says counts for all of them.
    ///
    /// # Errors
    /// Those of [`PushConsumerBuilder::start`].
    pub async fn start_batches<F, Fut>(
        mut self,
        messages_max: usize,
        listener: F,
    ) -> Result<PushConsumer>
    where
        F: Fn(Vec<Received>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Consumed> + Send + 'static,
    {
        self.options.listener_messages_max = messages_max.max(1);
        let listener = Listener::Concurrent(Arc::new(move |messages| Box::pin(listener(messages))));
        PushConsumer::start(self, listener).await
    }

    /// Starts consuming in order: of each queue one message at a time, the next when the one before is done, and no
    /// other member of the group reads that queue meanwhile. A panic counts as [`Ordered::Suspend`].
    ///
    /// # Errors
    /// Those of [`PushConsumerBuilder::start`].
    pub async fn start_orderly<F, Fut>(self, listener: F) -> Result<PushConsumer>
    where
        F: Fn(Received) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Ordered> + Send + 'static,
    {
        let listener = Listener::Orderly(Arc::new(move |message| Box::pin(listener(message))));
        PushConsumer::start(self, listener).await
    }
}

fn model(name: &str, value: &str) -> Result<MessageModel> {
    match value {
        "CLUSTERING" => Ok(MessageModel::Clustering),
        "BROADCASTING" => Ok(MessageModel::Broadcasting),
        _ => Err(wrong(name, "CLUSTERING or BROADCASTING")),
    }
}

fn allocation(name: &str, value: &str) -> Result<Allocation> {
    match value {
        "AVG" => Ok(Allocation::Averagely),
        "AVG_BY_CIRCLE" => Ok(Allocation::AveragelyByCircle),
        _ => Err(wrong(name, "AVG or AVG_BY_CIRCLE")),
    }
}

/// A threshold that -1 switches off.
fn or_none(name: &str, value: &str) -> Result<Option<usize>> {
    match value.trim() {
        "-1" => Ok(None),
        _ => positive(name, value).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::ConsumeFrom;

    #[test]
    fn rocketmqs_names_and_defaults_are_known() {
        let builder = PushConsumerBuilder::new("g".into());
        let defaults = &builder.options;
        assert_eq!(
            (defaults.concurrency, defaults.joining.pull_messages),
            (20, 32)
        );
        assert_eq!(defaults.consume_limit, Duration::from_secs(900));
        let all = [
            ("pullThresholdForQueue", "50"),
            ("pullThresholdForTopic", "-1"),
            ("consumeTimeout", "1"),
            ("maxReconsumeTimes", "-1"),
            ("messageModel", "BROADCASTING"),
            ("consumeTimestamp", "20240229120000"),
            ("instanceName", "one"),
        ];
        let set = all
            .into_iter()
            .try_fold(builder, |builder, (name, value)| builder.set(name, value));
        let options = set.expect("known").options;
        assert_eq!(
            (
                options.joining.queue_messages_max,
                options.topic_messages_max
            ),
            (50, None)
        );
        assert_eq!(options.consume_limit, Duration::from_secs(60));
        assert_eq!(options.reconsume_max, None);
        assert_eq!(
            options.joining.from,
            ConsumeFrom::Timestamp(1_709_208_000_000)
        );
    }

    #[test]
    fn an_unknown_name_or_an_impossible_value_is_refused() {
        let set = |name, value| PushConsumerBuilder::new("g".into()).set(name, value).err();
        for (name, value) in [
            ("pullBatchsize", "1"),
            ("pullBatchSize", "0"),
            ("messageModel", "MULTICAST"),
            ("consumeTimestamp", "yesterday"),
        ] {
            assert!(set(name, value).is_some(), "{name}");
        }
    }
}
