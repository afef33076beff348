//! What a lite pull consumer is to be like: RocketMQ's settings with RocketMQ's defaults.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use protocol::body::heartbeat::{ConsumeType, MessageModel};
use protocol::names;
use tokio::sync::Notify;

use super::{LitePullConsumer, Shared, membership};
use crate::consumer::joining::{Joining, joining_settings};
use crate::consumer::local_offsets::LocalOffsets;
use crate::consumer::member::Member;
use crate::error::{Error, Result};
use crate::lock::Mutex;
use crate::message_id::now_ms;
use crate::session::Session;
use crate::settings::{Settings, interval, millis, parse, positive, shared_settings, unknown};

const MIB: usize = 1 << 20;

pub(super) struct Options {
    pub joining: Joining,
    pub auto_commit: bool,
    pub poll_messages: usize,
    pub hold: Duration,
    pub held_limit: Duration,
    pub queue_bytes_max: usize,
    pub all_messages_max: usize,
}

/// What a consumer is to be like. Get one from [`LitePullConsumer::builder`]. The queues of what it subscribes to are shared
/// out in the group; without any, the application assigns queues: [`LitePullConsumer::assign`].
pub struct LitePullConsumerBuilder {
    options: Options,
    settings: Settings,
}

impl LitePullConsumerBuilder {
    pub(super) fn new(group: String) -> LitePullConsumerBuilder {
        LitePullConsumerBuilder {
            options: Options {
                joining: Joining::new(group, 10),
                auto_commit: true,
                poll_messages: 10,
                hold: Duration::from_secs(20),
                held_limit: Duration::from_secs(30),
                queue_bytes_max: 100 * MIB,
                all_messages_max: 10_000,
            },
            settings: Settings::default(),
        }
    }

    shared_settings!();
    joining_settings!();

    /// `autoCommit`: brokers are told by themselves how far the application is; on unless said otherwise.
    pub fn auto_commit(mut self, on: bool) -> LitePullConsumerBuilder {
        self.options.auto_commit = on;
        self
    }

    /// `pullBatchSize`: messages of one pull and at most of one poll; 10 unless said otherwise, 1 to 1,024.
    pub fn pull_messages(mut self, messages: u16) -> LitePullConsumerBuilder {
        let messages = messages.clamp(1, 1_024);
        self.options.joining.pull_messages = i32::from(messages);
        self.options.poll_messages = usize::from(messages);
        self
    }

    /// Sets what RocketMQ calls `name`; times are in milliseconds, sizes in MiB.
    ///
    /// # Errors
    /// [`Error::Setting`] if a lite pull consumer has no such setting, or it cannot have that value.
    pub fn set(mut self, name: &str, value: &str) -> Result<LitePullConsumerBuilder> {
        let options = &mut self.options;
        match name {
            "autoCommit" => options.auto_commit = parse(name, value)?,
            "autoCommitIntervalMillis" => {
                options.joining.commit_interval = interval(name, value)?;
            }
            "topicMetadataCheckIntervalMillis" => {
                options.joining.rebalance_interval = interval(name, value)?;
            }
            "pullBatchSize" => {
                let messages = positive(name, value)?.min(1_024);
                self = self.pull_messages(messages as u16);
            }
            "brokerSuspendMaxTimeMillis" => options.hold = millis(name, value)?,
            "consumerTimeoutMillisWhenSuspend" => options.held_limit = millis(name, value)?,
            "pullThresholdSizeForQueue" => options.queue_bytes_max = positive(name, value)? * MIB,
            "pullThresholdForAll" => options.all_messages_max = positive(name, value)?,
            _ if options.joining.set(name, value)? => {}
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
        names::validate_group(&self.options.joining.group).map_err(illegal)?;
        for (topic, _) in &self.options.joining.subscriptions {
            names::validate_topic(topic).map_err(illegal)?;
        }
        let broadcasting = self.options.joining.model == MessageModel::Broadcasting;
        if broadcasting && self.settings.instance_name.is_empty() {
            self.settings.instance_name = "DEFAULT".to_owned();
        }
        let namespace = self.settings.namespace.clone();
        self.options.joining.group = namespace.wrap(&self.options.joining.group);
        let own = self.options.joining.subscriptions.iter();
        let subscriptions: Vec<_> = own
            .map(|(topic, filter)| filter.subscription(&namespace.wrap(topic), now_ms()))
            .collect();
        let (session, asked) = Session::start(self.settings).await?;
        let local = match broadcasting {
            true => Some(open_local(&self.options, &session)?),
            false => None,
        };
        let shared = Arc::new(Shared {
            member: Member {
                session,
                group: self.options.joining.group.clone(),
                model: self.options.joining.model,
                kind: ConsumeType::Actively,
                from: self.options.joining.from.on_the_wire(),
                allocation: self.options.joining.allocation,
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
    let folder = options.joining.offsets_folder.as_deref();
    LocalOffsets::open(folder, &session.client_id, &options.joining.group)
        .map_err(|error| Error::Illegal(format!("offsets of this machine: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rocketmqs_names_and_defaults_are_known() {
        let builder = LitePullConsumerBuilder::new("g".into());
        assert_eq!(
            (
                builder.options.joining.pull_messages,
                builder.options.auto_commit
            ),
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
        assert_eq!(
            (options.joining.pull_messages, options.poll_messages),
            (32, 32)
        );
        assert!(!options.auto_commit && options.all_messages_max == 500);
        assert!(
            LitePullConsumerBuilder::new("g".into())
                .set("pollBatchSize", "1")
                .is_err()
        );
    }
}
