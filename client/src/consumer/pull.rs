//! One pull: the request, its answer, and which of the messages in it are wanted.

use std::time::Duration;

use protocol::body::heartbeat::SubscriptionData;
use protocol::body::queue::MessageQueue;
use protocol::code::{request, response};
use protocol::header::pull::PullAnswer;
use protocol::record::View;
use protocol::{Value, sysflag};

use crate::connection::{Answer, Connection, refusal};
use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::received::Received;

pub(crate) struct Pull<'a> {
    pub group: &'a str,
    pub queue: &'a MessageQueue,
    pub subscription: &'a SubscriptionData,
    pub offset: i64,
    pub messages_max: i32,
    /// How far the group has got, if the broker is to be told on the way.
    pub commit: Option<i64>,
    /// How long the broker may hold a pull that finds nothing.
    pub hold: Option<Duration>,
    pub lite: bool,
    /// For the answer; longer than the hold.
    pub limit: Duration,
}

/// What a pull found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Messages,
    /// Nothing new in time.
    Nothing,
    /// There was something, none of it wanted.
    NothingWanted,
    /// The offset asked for is none: reading goes on at the next offset.
    Elsewhere,
}

/// An answer whose fields are known to be there.
pub(crate) struct Page {
    pub found: Found,
    pub told: PullAnswer,
    answer: Answer,
}

impl Pull<'_> {
    pub async fn ask(&self, connection: &Connection) -> Result<Page> {
        let mut flags = sysflag::pull::SUBSCRIPTION;
        if self.commit.is_some() {
            flags |= sysflag::pull::COMMIT_OFFSET;
        }
        if self.hold.is_some() {
            flags |= sysflag::pull::SUSPEND;
        }
        if self.lite {
            flags |= sysflag::pull::LITE_PULL;
        }
        let hold_ms = self.hold.map_or(0, |hold| hold.as_millis() as i64);
        let fields = [
            ("consumerGroup", Value::Str(self.group)),
            ("topic", Value::Str(&self.queue.topic)),
            ("queueId", Value::I32(self.queue.queue_id)),
            ("queueOffset", Value::I64(self.offset)),
            ("maxMsgNums", Value::I32(self.messages_max)),
            ("sysFlag", Value::I32(flags)),
            ("commitOffset", Value::I64(self.commit.unwrap_or(0))),
            ("suspendTimeoutMillis", Value::I64(hold_ms)),
            ("subscription", Value::Str(&self.subscription.sub_string)),
            ("subVersion", Value::I64(self.subscription.sub_version)),
            (
                "expressionType",
                Value::Str(&self.subscription.expression_type),
            ),
            ("bname", Value::Str(&self.queue.broker_name)),
        ];
        let code = request::PULL_MESSAGE;
        let answer = connection.call(code, &fields, b"", self.limit).await?;
        let command = answer.command();
        let found = match command.code {
            response::SUCCESS => Found::Messages,
            response::PULL_NOT_FOUND => Found::Nothing,
            response::PULL_RETRY_IMMEDIATELY => Found::NothingWanted,
            response::PULL_OFFSET_MOVED => Found::Elsewhere,
            _ => return Err(refusal(&command)),
        };
        let told = PullAnswer::from(&command).map_err(|error| self.broken(error.to_string()))?;
        Ok(Page {
            found,
            told,
            answer,
        })
    }

    /// The messages that are wanted; the broker compares tags by their hash only. One that cannot be unpacked is
    /// passed over.
    pub fn unpack(&self, page: &Page, namespace: &Namespace) -> Result<Vec<Received>> {
        let command = page.answer.command();
        let mut records = command.body;
        let mut messages = Vec::new();
        if page.found != Found::Messages {
            return Ok(messages);
        }
        while !records.is_empty() {
            let record = View::parse(records).map_err(|error| self.broken(error.to_string()))?;
            records = &records[record.bytes.len()..];
            match Received::from_record(&record, &self.queue.broker_name, namespace) {
                Ok(message) if self.is_wanted(&message) => messages.push(message),
                Ok(_) => {}
                Err(what) => {
                    tracing::error!(queue = ?self.queue, offset = record.queue_offset, what, "skipped")
                }
            }
        }
        Ok(messages)
    }

    fn is_wanted(&self, message: &Received) -> bool {
        let tags = &self.subscription.tags_set;
        tags.is_empty()
            || message
                .tag()
                .is_some_and(|tag| tags.iter().any(|wanted| wanted == tag))
    }

    fn broken(&self, what: String) -> Error {
        Error::Broken {
            address: self.queue.broker_name.clone(),
            what,
        }
    }
}
