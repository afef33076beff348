//! Single messages: found by id, key or place, consumed once more, traced.

use std::collections::BTreeMap;

use protocol::Value;
use protocol::body::consumer::ConsumeDirectlyResult;
use protocol::body::heartbeat::SubscriptionData;
use protocol::body::queue::MessageQueue;
use protocol::code::{request, response};
use protocol::record::parse_message_id;
use serde::{Deserialize, Serialize};

use super::{Admin, is_code};
use crate::consumer::{Pull, PullStatus, Pulled};
use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::received::Received;

/// The group in whose name messages are read.
const GROUP: &str = "TOOLS_CONSUMER";
/// Messages of one answer.
const PAGE_MESSAGES: i32 = 32;

/// A message, as it can be written as JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    pub topic: String,
    pub id: String,
    pub offset_id: String,
    pub broker: String,
    pub queue: i32,
    pub queue_offset: i64,
    pub tag: Option<String>,
    pub keys: Vec<String>,
    pub born_ms: i64,
    pub born_host: String,
    pub stored_ms: i64,
    pub stored_host: String,
    pub reconsumed: i32,
    pub flag: i32,
    pub stored_bytes: usize,
    pub properties: BTreeMap<String, String>,
    /// If it is text.
    pub body: Option<String>,
    /// If it is not.
    pub body_hex: Option<String>,
}

impl From<&Received> for Found {
    fn from(message: &Received) -> Found {
        let text = String::from_utf8(message.body.clone()).ok();
        let hex = || {
            message
                .body
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        };
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Found {
            topic: message.topic.clone(),
            id: message.id.clone(),
            offset_id: message.offset_id.clone(),
            broker: message.broker_name.clone(),
            queue: message.queue_id,
            queue_offset: message.queue_offset,
            tag: message.tag().map(str::to_owned),
            keys: message.keys().map(str::to_owned).collect(),
            born_ms: message.born_ms,
            born_host: message.born_host.to_string(),
            stored_ms: message.stored_ms,
            stored_host: message.stored_host.to_string(),
            reconsumed: message.reconsumed,
            flag: message.flag,
            stored_bytes: message.stored_bytes,
            properties: message.properties().map(pair).collect(),
            body_hex: text.is_none().then(hex),
            body: text,
        }
    }
}

/// One entry of a consume queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IndexEntry {
    #[serde(rename(deserialize = "physicOffset"))]
    pub log_offset: i64,
    #[serde(rename(deserialize = "physicSize"))]
    pub bytes: i32,
    #[serde(rename(deserialize = "tagsCode"))]
    pub tag_hash: i64,
}

impl Admin {
    /// The message whose place an offset id names.
    ///
    /// # Errors
    /// [`Error::Illegal`] if it names none, [`Error::Refused`] if the broker has nothing there.
    pub async fn message_by_offset_id(&self, id: &str) -> Result<Received> {
        let (host, log_offset) = parse_message_id(id)
            .ok_or_else(|| Error::Illegal(format!("{id} names no place in a log")))?;
        let fields = [("offset", Value::I64(log_offset as i64))];
        let address = host.to_string();
        let code = request::VIEW_MESSAGE_BY_ID;
        let answer = self.demand(&address, code, &fields, b"").await?;
        let found = self.received(&address, "", answer.command().body)?;
        found.into_iter().next().ok_or_else(|| Error::Broken {
            address,
            what: "an answer without a message".into(),
        })
    }

    /// The messages with a key, the newest first: up to `messages_max` of each broker, stored between two times.
    pub async fn messages_by_key(
        &self,
        topic: &str,
        key: &str,
        messages_max: i32,
        [begin_ms, end_ms]: [i64; 2],
    ) -> Result<Vec<Received>> {
        let fields = [
            ("topic", Value::Str(topic)),
            ("key", Value::Str(key)),
            ("maxNum", Value::I32(messages_max)),
            ("beginTimestamp", Value::I64(begin_ms)),
            ("endTimestamp", Value::I64(end_ms)),
        ];
        let has_key = |message: &Received| message.keys().any(|own| own == key);
        self.query(topic, &fields, has_key).await
    }

    /// The messages with a unique id: more than one if a producer sent it again.
    pub async fn messages_by_id(&self, topic: &str, id: &str) -> Result<Vec<Received>> {
        let fields = [
            ("topic", Value::Str(topic)),
            ("key", Value::Str(id)),
            ("maxNum", Value::I32(PAGE_MESSAGES)),
            ("beginTimestamp", Value::I64(0)),
            ("endTimestamp", Value::I64(i64::MAX)),
            ("_UNIQUE_KEY_QUERY", Value::Bool(true)),
        ];
        self.query(topic, &fields, |message| message.id == id).await
    }

    /// Indexes go by hashes: what only hashes alike is left out.
    async fn query(
        &self,
        topic: &str,
        fields: &[(&str, Value<'_>)],
        is_meant: impl Fn(&Received) -> bool,
    ) -> Result<Vec<Received>> {
        let mut all = Vec::new();
        for (name, address) in self.brokers_of(topic).await? {
            let code = request::QUERY_MESSAGE;
            match self.demand(&address, code, fields, b"").await {
                Ok(answer) => {
                    let found = self.received(&address, &name, answer.command().body)?;
                    all.extend(found.into_iter().filter(&is_meant));
                }
                Err(error) if is_code(&error, response::QUERY_NOT_FOUND) => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by_key(|message| std::cmp::Reverse(message.stored_ms));
        Ok(all)
    }

    /// Up to 32 messages of a queue from an offset on, those of some tags only if `tags` is not `*`.
    pub async fn messages_at(
        &self,
        queue: &MessageQueue,
        offset: i64,
        tags: &str,
    ) -> Result<Pulled> {
        let brokers = self.brokers_of(&queue.topic).await?;
        let address = brokers
            .into_iter()
            .find(|(name, _)| *name == queue.broker_name);
        let (_, address) = address.ok_or_else(|| Error::NoRoute {
            topic: format!("{} on {}", queue.topic, queue.broker_name),
        })?;
        let connection = self.connect(&address).await?;
        let pull = Pull {
            group: GROUP,
            queue,
            subscription: &SubscriptionData::by_tags(&queue.topic, tags, 0),
            offset,
            messages_max: PAGE_MESSAGES,
            commit: None,
            hold: None,
            lite: false,
            limit: self.limit,
        };
        let page = pull.ask(&connection).await?;
        let messages = pull.unpack(&page, &Namespace::default())?;
        Ok(Pulled {
            status: PullStatus::of(page.found, messages.is_empty()),
            messages,
            next_offset: page.told.next_offset,
            min_offset: page.told.min_offset,
            max_offset: page.told.max_offset,
        })
    }

    /// The first message stored at or after a time, on a broker's queue.
    pub async fn offset_at(&self, queue: &MessageQueue, time_ms: i64) -> Result<i64> {
        let brokers = self.brokers_of(&queue.topic).await?;
        let address = brokers
            .into_iter()
            .find(|(name, _)| *name == queue.broker_name);
        let (_, address) = address.ok_or_else(|| Error::NoRoute {
            topic: queue.topic.clone(),
        })?;
        let fields = [
            ("topic", Value::Str(&queue.topic)),
            ("queueId", Value::I32(queue.queue_id)),
            ("timestamp", Value::I64(time_ms)),
        ];
        let code = request::SEARCH_OFFSET_BY_TIMESTAMP;
        let answer = self.demand(&address, code, &fields, b"").await?;
        answer.i64("offset", &address)
    }

    /// Makes a member of a group consume a message now; no offset moves.
    ///
    /// # Errors
    /// [`Error::Refused`] if that member is not connected.
    pub async fn consume_directly(
        &self,
        group: &str,
        client_id: &str,
        message: &Received,
    ) -> Result<ConsumeDirectlyResult> {
        let (host, _) = parse_message_id(&message.offset_id)
            .ok_or_else(|| Error::Illegal("the message lies nowhere".into()))?;
        let address = host.to_string();
        let fields = [
            ("consumerGroup", Value::Str(group)),
            ("clientId", Value::Str(client_id)),
            ("msgId", Value::Str(&message.offset_id)),
            ("topic", Value::Str(&message.topic)),
            ("brokerName", Value::Str(&message.broker_name)),
        ];
        let code = request::CONSUME_MESSAGE_DIRECTLY;
        self.json(&address, code, &fields).await
    }

    /// Has the broker ask about a half message again, after its checks were used up.
    pub async fn resume_check(&self, topic: &str, offset_id: &str) -> Result<()> {
        let (host, _) = parse_message_id(offset_id)
            .ok_or_else(|| Error::Illegal(format!("{offset_id} names no place in a log")))?;
        let fields = [
            ("topic", Value::Str(topic)),
            ("msgId", Value::Str(offset_id)),
        ];
        let code = request::RESUME_CHECK_HALF_MESSAGE;
        self.demand(&host.to_string(), code, &fields, b"").await?;
        Ok(())
    }

    /// Entries of a consume queue, as they lie in its index.
    pub async fn index_entries(
        &self,
        queue: &MessageQueue,
        offset: i64,
        count: i32,
    ) -> Result<Vec<IndexEntry>> {
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase", default)]
        struct Page {
            queue_data: Option<Vec<IndexEntry>>,
        }
        let brokers = self.brokers_of(&queue.topic).await?;
        let address = brokers
            .into_iter()
            .find(|(name, _)| *name == queue.broker_name);
        let (_, address) = address.ok_or_else(|| Error::NoRoute {
            topic: queue.topic.clone(),
        })?;
        let fields = [
            ("topic", Value::Str(&queue.topic)),
            ("queueId", Value::I32(queue.queue_id)),
            ("index", Value::I64(offset)),
            ("count", Value::I32(count)),
        ];
        let code = request::QUERY_CONSUME_QUEUE;
        let page: Page = self.json(&address, code, &fields).await?;
        Ok(page.queue_data.unwrap_or_default())
    }

    fn received(&self, address: &str, name: &str, body: &[u8]) -> Result<Vec<Received>> {
        Received::all_from(body, name, &Namespace::default()).map_err(|what| Error::Broken {
            address: address.to_owned(),
            what,
        })
    }
}
