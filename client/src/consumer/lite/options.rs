//! What a lite pull consumer is to be like: RocketMQ's settings with RocketMQ's defaults.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use protocol::body::heartbeat::{ConsumeType, MessageModel};
use protocol::names;
use tokio::sync::Notify;

use super::{LitePullConsumer, Shared, membership};
use crate::consumer::local_offsets::LocalOffsets;
use crate::consumer::member::Member;
use crate::consumer::options::{from, timestamp};
use crate::consumer::{Allocation, ConsumeFrom};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::lock::Mutex;
use crate::message_id::now_ms;
use crate::session::Session;
use crate::settings::{Settings, interval, millis, parse, positive, shared_settings, unknown};

const MIB: usize = 1 << 20;

pub(super) struct Options {
    pub group: String,
    pub subscriptions: Vec<(String, Filter)>,
    pub model: MessageModel,
    pub from: ConsumeFrom,
    pub allocation: Allocation,
    pub auto_commit: bool,
    pub commit_interval: Duration,
    pub rebalance_interval: Duration,
    pub poll_messages: usize,
    pub pull_messages: i32,
    pub pull_pause: Duration,
    pub hold: Duration,
    pub held_limit: Duration,
    pub queue_messages_max: usize,
    pub queue_bytes_max: usize,
    pub all_messages_max: usize,
    pub offsets_folder: Option<PathBuf>,
}

/// What a consumer is to be like. Get one from [`LitePullConsumer::builder`].
pub struct LitePullConsumerBuilder {
    options: Options,
    settings: Settings,
}

impl LitePullConsumerBuilder {
    pub(super) fn new(group: String) -> LitePullConsumerBuilder {
        LitePullConsumerBuilder {
            options: Options {
                group,
                subscriptions: Vec::new(),
                model: MessageModel::Clustering,
                from: ConsumeFrom::Last,
                allocation: Allocation::Averagely,
                auto_commit: true,
                commit_interval: Duration::from_secs(5),
                rebalance_interval: Duration::from_secs(20),
                poll_messages: 10,
                pull_messages: 10,
                pull_pause: Duration::from_secs(1),
                hold: Duration::from_secs(20),
                held_limit: Duration::from_secs(30),
                queue_messages_max: 1_000,
                queue_bytes_max: 100 * MIB,
                all_messages_max: 10_000,
                offsets_folder: None,
            },
            settings: Settings::default(),
        }
    }

    shared_settings!();

    /// A topic and what is wanted of it; its queues are shared out in the group. Without any, queues are assigned:
    /// [`LitePullConsumer::assign`].
    pub fn subscribe(
        mut self,
        topic: impl Into<String>,
        filter: impl Into<Filter>,
    ) -> LitePullConsumerBuilder {
        let topic = topic.into();
        self.options
            .subscriptions
            .retain(|(known, _)| *known != topic);
        self.options.subscriptions.push((topic, filter.into()));
        self
    }

    /// `messageModel`: every member gets every message, and keeps how far it is in a file of this machine.
    pub fn broadcasting(mut self) -> LitePullConsumerBuilder {
        self.options.model = MessageModel::Broadcasting;
        self
    }

    /// `consumeFromWhere`: where a group begins that has no offset yet; with what comes from now on unless said otherwise.
    pub fn consume_from(mut self, from: ConsumeFrom) -> LitePullConsumerBuilder {
        self.options.from = from;
        self
    }

    /// Begin at the first message where the group has no offset yet.
    pub fn from_first(self) -> LitePullConsumerBuilder {
        self.consume_from(ConsumeFrom::First)
    }

    /// `autoCommit`: brokers are told by themselves how far the application is; on unless said otherwise.
    pub fn auto_commit(mut self, on: bool) -> LitePullConsumerBuilder {
        self.options.auto_commit = on;
        self
    }

    /// `pullBatchSize`: messages of one pull and at most of one poll; 10 unless said otherwise, 1 to 1,024.
    pub fn pull_messages(mut self, messages: u16) -> LitePullConsumerBuilder {
        let messages = messages.clamp(1, 1_024);
        self.options.pull_messages = i32::from(messages);
        self.options.poll_messages = usize::from(messages);
        self
    }

    /// Where broadcasting offsets are kept; `~/.rocketmq_offsets` unless said otherwise.
    pub fn offsets_folder(mut self, folder: impl Into<PathBuf>) -> LitePullConsumerBuilder {
        self.options.offsets_folder = Some(folder.into());
        self
    }

    /// Sets what RocketMQ calls `name`; times are in milliseconds, sizes in MiB.
    ///
    /// # Errors
    /// [`Error::Setting`] if a lite pull consumer has no such setting, or it cannot have that value.
    pub fn set(mut self, name: &str, value: &str) -> Result<LitePullConsumerBuilder> {
        let options = &mut self.options;
        match name {
            "consumerGroup" => options.group = value.to_owned(),
            "consumeFromWhere" => options.from = from(name, value)?,
            "consumeTimestamp" => options.from = ConsumeFrom::Timestamp(timestamp(name, value)?),
            "autoCommit" => options.auto_commit = parse(name, value)?,
            "autoCommitIntervalMillis" => options.commit_interval = interval(name, value)?,
            "topicMetadataCheckIntervalMillis" => {
                options.rebalance_interval = interval(name, value)?;
            }
            "pullBatchSize" => {
                let messages = positive(name, value)?.min(1_024);
                self = self.pull_messages(messages as u16);
            }
            "pullTimeDelayMillsWhenException" => options.pull_pause = millis(name, value)?,
            "brokerSuspendMaxTimeMillis" => options.hold = millis(name, value)?,
            "consumerTimeoutMillisWhenSuspend" => options.held_limit = millis(name, value)?,
            "pullThresholdForQueue" => options.queue_messages_max = positive(name, value)?,
            "pullThresholdSizeForQueue" => options.queue_bytes_max = positive(name, value)? * MIB,
            "pullThresholdForAll" => options.all_messages_max = positive(name, value)?,
            _ if self.settings.set(name, value)? => {}
            _ => return Err(unknown(name)),
        }
        Ok(self)
    }

    /// Starts pulling what is subscribed to.
    ///
    /// # Errors
    /// [`Error::NoNameServer`], [`Error::Illegal`] for names that cannot be, [`Error::Refused`] for an SQL condition that
    /// the broker does not understand.
    pub async fn start(mut self) -> Result<LitePullConsumer> {
        let illegal = |error: names::NameError| Error::Illegal(error.to_string());
        names::validate_group(&self.options.group).map_err(illegal)?;
        for (topic, _) in &self.options.subscriptions {
            names::validate_topic(topic).map_err(illegal)?;
        }
        let broadcasting = self.options.model == MessageModel::Broadcasting;
        if broadcasting && self.settings.instance_name.is_empty() {
            self.settings.instance_name = "DEFAULT".to_owned();
        }
        let namespace = self.settings.namespace.clone();
        self.options.group = namespace.wrap(&self.options.group);
        let own = self.options.subscriptions.iter();
        let subscriptions: Vec<_> = own
            .map(|(topic, filter)| filter.subscription(&namespace.wrap(topic), now_ms()))
            .collect();
        let (session, asked) = Session::new(self.settings)?;
        let local = match broadcasting {
            true => Some(open_local(&self.options, &session)?),
            false => None,
        };
        let shared = Arc::new(Shared {
            member: Member {
                session,
                group: self.options.group.clone(),
                model: self.options.model,
                kind: ConsumeType::Actively,
                from: self.options.from.on_the_wire(),
                allocation: self.options.allocation,
                subscriptions: Mutex::new(subscriptions),
            },
            options: self.options,
            local,
            queues: Mutex::default(),
            assigned: AtomicBool::new(false),
            ready: Mutex::new(VecDeque::new()),
            arrived: Notify::new(),
            waiting: AtomicUsize::new(0),
            handed_out: Notify::new(),
            paused: Mutex::new(HashSet::new()),
            rebalance: Notify::new(),
            stopped: AtomicBool::new(false),
        });
        shared.member.find_routes().await?;
        shared.member.check_filters().await?;
        Ok(LitePullConsumer {
            membership: tokio::spawn(membership(shared.clone(), asked)),
            shared,
        })
    }
}

fn open_local(options: &Options, session: &Session) -> Result<LocalOffsets> {
    let folder = options.offsets_folder.as_deref();
    LocalOffsets::open(folder, &session.client_id, &options.group)
        .map_err(|error| Error::Illegal(format!("offsets of this machine: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rocketmqs_names_and_defaults_are_known() {
        let builder = LitePullConsumerBuilder::new("g".into());
        assert_eq!(
            (builder.options.pull_messages, builder.options.auto_commit),
            (10, true)
        );
        let all = [
            ("pullBatchSize", "32"),
            ("autoCommit", "false"),
            ("pullThresholdForAll", "500"),
            ("namespace", "tenant"),
        ];
        let set = all
            .into_iter()
            .try_fold(builder, |builder, (name, value)| builder.set(name, value));
        let options = set.expect("known").options;
        assert_eq!((options.pull_messages, options.poll_messages), (32, 32));
        assert!(!options.auto_commit && options.all_messages_max == 500);
        assert!(
            LitePullConsumerBuilder::new("g".into())
                .set("pollBatchSize", "1")
                .is_err()
        );
    }
}
