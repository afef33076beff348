//! What a push consumer is to be like: RocketMQ's settings with RocketMQ's defaults.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::body::heartbeat::{ConsumeFromWhere, MessageModel};

use super::{Allocation, Consumed, Listener, Ordered, PushConsumer};
use crate::error::Result;
use crate::filter::Filter;
use crate::message_id::now_ms;
use crate::received::Received;
use crate::settings::{
    Settings, interval, millis, parse, positive, shared_settings, unknown, wrong,
};

/// How far back `CONSUME_FROM_TIMESTAMP` goes without a `consumeTimestamp`.
const TIMESTAMP_DEFAULT_MS: i64 = 30 * 60 * 1000;
/// Deliveries of a message before it becomes a dead letter, where nobody says otherwise.
pub(super) const RECONSUME_MAX_DEFAULT: i32 = 16;

/// Where a group begins that has no offset in a queue yet. Retried messages are never skipped. A broker may answer
/// for a new group by itself: at the start of a queue that still holds everything it ever had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsumeFrom {
    /// `CONSUME_FROM_FIRST_OFFSET`: with the oldest message.
    First,
    /// `CONSUME_FROM_LAST_OFFSET`: with what comes from now on.
    #[default]
    Last,
    /// `CONSUME_FROM_TIMESTAMP`: with the first message stored at or after a time, in milliseconds since 1970.
    Timestamp(i64),
}

impl ConsumeFrom {
    pub(crate) fn on_the_wire(self) -> ConsumeFromWhere {
        match self {
            ConsumeFrom::First => ConsumeFromWhere::FirstOffset,
            ConsumeFrom::Last => ConsumeFromWhere::LastOffset,
            ConsumeFrom::Timestamp(_) => ConsumeFromWhere::Timestamp,
        }
    }
}

pub(crate) struct Options {
    pub group: String,
    pub subscriptions: Vec<(String, Filter)>,
    pub model: MessageModel,
    pub from: ConsumeFrom,
    pub allocation: Allocation,
    pub concurrency: usize,
    pub listener_messages_max: usize,
    pub pull_messages: i32,
    pub pull_interval: Duration,
    pub pull_pause: Duration,
    pub queue_messages_max: usize,
    pub queue_mib_max: usize,
    pub queue_span_max: i64,
    pub topic_messages_max: Option<usize>,
    pub topic_mib_max: Option<usize>,
    /// Unset: 16, or as often as it takes if orderly.
    pub reconsume_max: Option<i32>,
    pub suspend: Duration,
    pub consume_limit: Duration,
    pub rebalance_interval: Duration,
    pub commit_interval: Duration,
    pub drain_limit: Duration,
    pub offsets_folder: Option<PathBuf>,
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
                group,
                subscriptions: Vec::new(),
                model: MessageModel::Clustering,
                from: ConsumeFrom::Last,
                allocation: Allocation::Averagely,
                concurrency: 20,
                listener_messages_max: 1,
                pull_messages: 32,
                pull_interval: Duration::ZERO,
                pull_pause: Duration::from_secs(1),
                queue_messages_max: 1_000,
                queue_mib_max: 100,
                queue_span_max: 2_000,
                topic_messages_max: None,
                topic_mib_max: None,
                reconsume_max: None,
                suspend: Duration::from_secs(1),
                consume_limit: Duration::from_secs(15 * 60),
                rebalance_interval: Duration::from_secs(20),
                commit_interval: Duration::from_secs(5),
                drain_limit: Duration::from_secs(10),
                offsets_folder: None,
            },
            settings: Settings::default(),
        }
    }

    shared_settings!();

    /// A topic and what is wanted of it: a string is an expression over tags, `*` for all; see [`Filter`]. All members
    /// of a group must subscribe to the same.
    pub fn subscribe(
        mut self,
        topic: impl Into<String>,
        filter: impl Into<Filter>,
    ) -> PushConsumerBuilder {
        let topic = topic.into();
        self.options
            .subscriptions
            .retain(|(known, _)| *known != topic);
        self.options.subscriptions.push((topic, filter.into()));
        self
    }

    /// `messageModel`: every member gets every message; nothing is delivered again. How far a member has got is
    /// kept in a file, under its `instanceName`: `DEFAULT` unless said otherwise. Without this, the members of a group
    /// share the messages.
    pub fn broadcasting(mut self) -> PushConsumerBuilder {
        self.options.model = MessageModel::Broadcasting;
        self
    }

    /// `consumeFromWhere`: where a group begins that has no offset yet; with what comes from now on unless said otherwise.
    pub fn consume_from(mut self, from: ConsumeFrom) -> PushConsumerBuilder {
        self.options.from = from;
        self
    }

    /// Begin at the first message where the group has no offset yet.
    pub fn from_first(self) -> PushConsumerBuilder {
        self.consume_from(ConsumeFrom::First)
    }

    /// `consumeThreadMax`: how many calls of the listener are under way at once; 20 unless said otherwise, at least 1.
    pub fn concurrency(mut self, calls: usize) -> PushConsumerBuilder {
        self.options.concurrency = calls.max(1);
        self
    }

    /// `allocateMessageQueueStrategy`: the same for all members of a group.
    pub fn allocation(mut self, allocation: Allocation) -> PushConsumerBuilder {
        self.options.allocation = allocation;
        self
    }

    /// `pullBatchSize`: messages of one pull; 32 unless said otherwise, 1 to 1,024.
    pub fn pull_messages(mut self, messages: u16) -> PushConsumerBuilder {
        self.options.pull_messages = i32::from(messages.clamp(1, 1_024));
        self
    }

    /// `pullThresholdForQueue` and `pullThresholdSizeForQueue`: above so many messages or MiB of one queue that are not
    /// done, pulling it pauses; 1,000 and 100 unless said otherwise.
    pub fn queue_thresholds(mut self, messages: usize, mib: usize) -> PushConsumerBuilder {
        self.options.queue_messages_max = messages.max(1);
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
        self.options.rebalance_interval = interval;
        self
    }

    /// `persistConsumerOffsetInterval`: how often the broker is told how far the group has got; 5 s unless said otherwise.
    pub fn commit_interval(mut self, interval: Duration) -> PushConsumerBuilder {
        self.options.commit_interval = interval;
        self
    }

    /// `awaitTerminationMillisWhenShutdown`: how long a shutdown waits for calls of the listener that are under way; 10 s
    /// unless said otherwise (RocketMQ does not wait, and delivers again what was not done).
    pub fn drain_limit(mut self, limit: Duration) -> PushConsumerBuilder {
        self.options.drain_limit = limit;
        self
    }

    /// `rocketmq.client.localOffsetStoreDir`: where a broadcasting consumer keeps its offsets; `~/.rocketmq_offsets`
    /// unless said otherwise.
    pub fn offsets_folder(mut self, folder: impl Into<PathBuf>) -> PushConsumerBuilder {
        self.options.offsets_folder = Some(folder.into());
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
            "consumerGroup" => options.group = value.to_owned(),
            "messageModel" => options.model = model(name, value)?,
            "consumeFromWhere" => options.from = from(name, value)?,
            "consumeTimestamp" => options.from = ConsumeFrom::Timestamp(timestamp(name, value)?),
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
            "pullTimeDelayMillsWhenException" => options.pull_pause = millis(name, value)?,
            "pullThresholdForQueue" => options.queue_messages_max = positive(name, value)?,
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
            "persistConsumerOffsetInterval" => options.commit_interval = interval(name, value)?,
            "awaitTerminationMillisWhenShutdown" => options.drain_limit = millis(name, value)?,
            "allocateMessageQueueStrategy" => options.allocation = allocation(name, value)?,
            "rocketmq.client.localOffsetStoreDir" => options.offsets_folder = Some(value.into()),
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

pub(super) fn from(name: &str, value: &str) -> Result<ConsumeFrom> {
    match value {
        "CONSUME_FROM_FIRST_OFFSET" => Ok(ConsumeFrom::First),
        "CONSUME_FROM_LAST_OFFSET" => Ok(ConsumeFrom::Last),
        "CONSUME_FROM_TIMESTAMP" => Ok(ConsumeFrom::Timestamp(now_ms() - TIMESTAMP_DEFAULT_MS)),
        _ => Err(wrong(
            name,
            "CONSUME_FROM_FIRST_OFFSET, CONSUME_FROM_LAST_OFFSET or CONSUME_FROM_TIMESTAMP",
        )),
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

pub(super) fn timestamp(name: &str, value: &str) -> Result<i64> {
    crate::time::parse_ms(value).ok_or_else(|| wrong(name, "yyyyMMddHHmmss or milliseconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rocketmqs_names_and_defaults_are_known() {
        let builder = PushConsumerBuilder::new("g".into());
        let defaults = &builder.options;
        assert_eq!((defaults.concurrency, defaults.pull_messages), (20, 32));
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
            (options.queue_messages_max, options.topic_messages_max),
            (50, None)
        );
        assert_eq!(options.consume_limit, Duration::from_secs(60));
        assert_eq!(options.reconsume_max, None);
        assert_eq!(options.from, ConsumeFrom::Timestamp(1_709_208_000_000));
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
