//! Receiving: what a consumer is asked for and told, and [`PushConsumer`], which pulls in the background and calls a
//! listener for every message.

mod offsets;
mod process_queue;
mod push;
mod rebalance;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use protocol::body::heartbeat::{ConsumeFromWhere, MessageModel, SubscriptionData};
use protocol::names;

use crate::error::{Error, Result};
use crate::message::Received;
use crate::message_id::now_ms;
use crate::session::{Session, Settings};

pub use self::push::PushConsumer;

/// What a listener made of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumed {
    Done,
    /// Deliver it again, later: the broker keeps it in the group's retry topic.
    Later,
}

type Listener =
    Arc<dyn Fn(Received) -> Pin<Box<dyn Future<Output = Consumed> + Send>> + Send + Sync>;

pub(crate) struct Options {
    pub group: String,
    pub subscriptions: Vec<SubscriptionData>,
    pub model: MessageModel,
    pub from: ConsumeFromWhere,
    pub concurrency: usize,
    pub pull_messages: i32,
    pub rebalance_interval: Duration,
    pub commit_interval: Duration,
    pub max_deliveries: i32,
}

/// What a consumer is to be like. Get one from [`PushConsumer::builder`].
pub struct PushConsumerBuilder {
    options: Options,
    settings: Settings,
}

impl PushConsumerBuilder {
    pub(crate) fn new(group: String) -> PushConsumerBuilder {
        PushConsumerBuilder {
            options: Options {
                group,
                subscriptions: Vec::new(),
                model: MessageModel::Clustering,
                from: ConsumeFromWhere::LastOffset,
                concurrency: 20,
                pull_messages: 32,
                rebalance_interval: Duration::from_secs(20),
                commit_interval: Duration::from_secs(5),
                max_deliveries: 16,
            },
            settings: Settings::default(),
        }
    }

    /// `host:port`, several separated by `;`. Without it, `NAMESRV_ADDR` of the environment counts.
    pub fn name_server(mut self, addresses: impl Into<String>) -> PushConsumerBuilder {
        self.settings.name_servers = addresses.into();
        self
    }

    /// A topic and the tags wanted: `*` for all, or tags separated by `||`. All members of a group must subscribe
    /// to the same.
    pub fn subscribe(
        mut self,
        topic: impl AsRef<str>,
        tags: impl AsRef<str>,
    ) -> PushConsumerBuilder {
        let subscription = SubscriptionData::by_tags(topic.as_ref(), tags.as_ref(), now_ms());
        self.options
            .subscriptions
            .retain(|known| known.topic != subscription.topic);
        self.options.subscriptions.push(subscription);
        self
    }

    /// Every member gets every message, from the moment it starts; nothing is delivered again, and where it has got
    /// to is forgotten when it ends. Otherwise the members of a group share the messages.
    pub fn broadcasting(mut self) -> PushConsumerBuilder {
        self.options.model = MessageModel::Broadcasting;
        self
    }

    /// Begin at the first message where the group has no offset yet; otherwise with what comes from now on.
    pub fn from_first(mut self) -> PushConsumerBuilder {
        self.options.from = ConsumeFromWhere::FirstOffset;
        self
    }

    /// How many messages the listener is given at once; 20 at first.
    pub fn concurrency(mut self, messages: usize) -> PushConsumerBuilder {
        self.options.concurrency = messages.max(1);
        self
    }

    /// How often queues are shared out anew even if nothing seems to have changed; 20 s at first.
    pub fn rebalance_interval(mut self, interval: Duration) -> PushConsumerBuilder {
        self.options.rebalance_interval = interval;
        self
    }

    /// How often the broker is told how far the group has got; 5 s at first.
    pub fn commit_interval(mut self, interval: Duration) -> PushConsumerBuilder {
        self.options.commit_interval = interval;
        self
    }

    /// How often routes are asked for again and brokers told that we live; 30 s at first.
    pub fn upkeep_interval(mut self, interval: Duration) -> PushConsumerBuilder {
        self.settings.route_interval = interval;
        self.settings.heartbeat_interval = interval;
        self
    }

    /// Starts consuming; `listener` is called for every message, many at a time.
    pub async fn start<F, Fut>(mut self, listener: F) -> Result<PushConsumer>
    where
        F: Fn(Received) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Consumed> + Send + 'static,
    {
        let illegal = |error: names::NameError| Error::Illegal(error.to_string());
        names::validate_group(&self.options.group).map_err(illegal)?;
        for subscription in &self.options.subscriptions {
            names::validate_topic(&subscription.topic).map_err(illegal)?;
        }
        if self.options.subscriptions.is_empty() {
            return Err(Error::Illegal("nothing is subscribed to".into()));
        }
        if self.options.model == MessageModel::Clustering {
            let retries = names::retry_topic(&self.options.group);
            let subscription = SubscriptionData::by_tags(&retries, "*", now_ms());
            self.options.subscriptions.push(subscription);
        }
        let (session, asked) = Session::new(self.settings)?;
        let listener: Listener = Arc::new(move |message| Box::pin(listener(message)));
        PushConsumer::start(session, asked, self.options, listener).await
    }
}
