//! One send: a request that needs only a queue, its attempts, and its answer.

use std::time::Duration;

use protocol::body::queue::MessageQueue;
use protocol::code::{request, response};
use protocol::header::send::SendAnswer;
use protocol::{Value, properties, sysflag};
use tokio::time::Instant;

use super::retry::Attempts;
use super::{Producer, Receipt, Stored, deadline};
use crate::compression::pack;
use crate::connection::{Answer, Pending, refusal};
use crate::error::{Error, Result};
use crate::message::{Message, REPLY};
use crate::message_id::now_ms;
use crate::trace;

/// Which queue a message goes to.
#[derive(Clone, Debug)]
pub(super) enum Target {
    InTurn,
    Queue(MessageQueue),
}

/// A request that needs only a queue; it can be sent again as it is.
pub(super) struct Prepared {
    /// As the brokers know it.
    pub topic: String,
    pub code: i32,
    pub properties: Vec<u8>,
    /// One for each message.
    pub ids: Vec<String>,
    pub flag: i32,
    pub sys_flag: i32,
    pub body: Vec<u8>,
    /// Of a message that is given back to the retry topic.
    pub reconsumed: i32,
    pub reconsume_max: Option<i32>,
    pub about: About,
}

/// What a trace tells of a message besides.
#[derive(Default)]
pub(super) struct About {
    pub body_bytes: usize,
    pub delayed: bool,
}

/// A request that was handed to a connection.
pub(super) struct UnderWay {
    pending: Pending,
    queue: MessageQueue,
    address: String,
    began: Instant,
    began_ms: i64,
}

impl Producer {
    pub(super) fn prepare(&self, message: &Message) -> Result<Prepared> {
        self.check_running()?;
        let options = &self.shared.options;
        message.check(options.body_bytes_max)?;
        let session = &self.shared.session;
        let id = session.ids.next();
        let (packed, flags) = match options.packing {
            Some(packing) => pack(message.body(), packing),
            None => (None, 0),
        };
        let half = message.get(properties::TRAN_MSG) == Some("true");
        let transaction = match half {
            true => sysflag::TRANSACTION_PREPARED,
            false => sysflag::TRANSACTION_NONE,
        };
        let reply = message.get(properties::MSG_TYPE) == Some(REPLY);
        let number = |name| message.get(name).and_then(|text| text.parse().ok());
        Ok(Prepared {
            topic: session.settings.namespace.wrap(message.topic()),
            code: match reply {
                true => request::SEND_REPLY_MESSAGE_V2,
                false => request::SEND_MESSAGE_V2,
            },
            reconsumed: number(properties::RECONSUME_TIME).unwrap_or(0),
            reconsume_max: number(properties::MAX_RECONSUME_TIMES),
            properties: self.properties_of(message, &id)?,
            ids: vec![id],
            flag: message.flag,
            sys_flag: sysflag::with_transaction(flags, transaction),
            body: packed.unwrap_or_else(|| message.body.clone()),
            about: About {
                body_bytes: message.body.len(),
                delayed: message.is_delayed(),
            },
        })
    }

    /// The properties as they travel; a namespace is told as well.
    pub(super) fn properties_of(&self, message: &Message, id: &str) -> Result<Vec<u8>> {
        let namespace = &self.shared.session.settings.namespace.0;
        match namespace.is_empty() {
            true => message.encode_properties(id),
            false => message
                .clone()
                .property(properties::INSTANCE_ID, namespace)
                .encode_properties(id),
        }
    }

    pub(super) async fn send_prepared(
        &self,
        prepared: &Prepared,
        target: &Target,
    ) -> Result<Vec<Receipt>> {
        let attempts = match target {
            Target::InTurn => self.shared.options.attempts,
            Target::Queue(_) => 1,
        };
        self.send_within(prepared, target, Attempts::new(attempts))
            .await
    }

    /// After `error`, with the attempts that a submitted message has left.
    pub(super) async fn send_again(&self, prepared: &Prepared, error: Error) -> Result<Receipt> {
        let mut attempts = Attempts::new(self.shared.options.attempts_submitted);
        if !attempts.another(&error) {
            return Err(error);
        }
        self.refresh_route(&prepared.topic).await;
        super::one(
            self.send_within(prepared, &Target::InTurn, attempts)
                .await?,
        )
    }

    async fn send_within(
        &self,
        prepared: &Prepared,
        target: &Target,
        mut attempts: Attempts,
    ) -> Result<Vec<Receipt>> {
        let end = deadline(self.shared.options.send_limit);
        loop {
            match self.attempt(prepared, target, &mut attempts, end).await {
                Ok(receipts) if self.is_good(&receipts) || !attempts.again() => {
                    return Ok(receipts);
                }
                Ok(_) => {}
                Err(error) if attempts.another(&error) && Instant::now() < end => {
                    tracing::debug!(topic = prepared.topic, %error, "sending again");
                    self.refresh_route(&prepared.topic).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn is_good(&self, receipts: &[Receipt]) -> bool {
        let promised = |receipt: &Receipt| receipt.status == Stored::AsPromised;
        !self.shared.options.retry_not_stored_ok || receipts.iter().all(promised)
    }

    async fn attempt(
        &self,
        prepared: &Prepared,
        target: &Target,
        attempts: &mut Attempts,
        end: Instant,
    ) -> Result<Vec<Receipt>> {
        let under_way = self.begin(prepared, target, attempts.avoid()).await?;
        attempts.tried(&under_way.queue.broker_name);
        let left = end.saturating_duration_since(Instant::now());
        let limit = self.shared.options.attempt_limit.unwrap_or(left).min(left);
        self.finish(prepared, under_way, limit).await
    }

    pub(super) async fn begin(
        &self,
        prepared: &Prepared,
        target: &Target,
        avoid: Option<&str>,
    ) -> Result<UnderWay> {
        let (connection, queue) = self.choose(target, &prepared.topic, avoid).await?;
        let (began, began_ms) = (Instant::now(), now_ms());
        let fields = self.fields(prepared, &queue, began_ms);
        let pending = connection
            .submit(prepared.code, &fields, &prepared.body)
            .await?;
        Ok(UnderWay {
            pending,
            address: connection.address().to_owned(),
            began,
            began_ms,
            queue,
        })
    }

    pub(super) async fn finish(
        &self,
        prepared: &Prepared,
        under_way: UnderWay,
        limit: Duration,
    ) -> Result<Vec<Receipt>> {
        let UnderWay {
            pending,
            queue,
            address,
            began,
            began_ms,
        } = under_way;
        let answered = pending.answer(limit).await;
        let latencies = &self.shared.latencies;
        match &answered {
            Ok(_) => latencies.succeeded(&queue.broker_name, began.elapsed(), Instant::now()),
            Err(_) => latencies.failed(&queue.broker_name, Instant::now()),
        }
        let answer = answered?;
        let receipts = prepared.receipts(&answer, &queue)?;
        if let Some(trace) = &self.shared.trace
            && !trace.is_trace_topic(&prepared.topic)
        {
            let cost_ms = began.elapsed().as_millis() as i64;
            self.tell_trace(
                trace, prepared, &answer, &receipts, &address, began_ms, cost_ms,
            );
        }
        Ok(receipts)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one place calls it with all that is known"
    )]
    fn tell_trace(
        &self,
        trace: &trace::Trace,
        prepared: &Prepared,
        answer: &Answer,
        receipts: &[Receipt],
        broker: &str,
        began_ms: i64,
        cost_ms: i64,
    ) {
        let command = answer.command();
        let told = |name: &str| command.fields.string(name);
        if !trace::wants_trace(told(properties::TRACE_ON).as_deref()) {
            return;
        }
        let namespace = &self.shared.session.settings.namespace;
        let region = told(properties::MSG_REGION);
        // A batch is told of as one message with many ids.
        let join = |part: fn(&Receipt) -> &str| {
            let parts: Vec<&str> = receipts.iter().map(part).collect();
            parts.join(",")
        };
        let (id, offset_id) = (join(|one| &one.message_id), join(|one| &one.offset_id));
        let line = trace::Send {
            time_ms: began_ms,
            region: trace::region_of(region.as_deref()),
            group: &namespace.unwrap(&self.shared.options.group),
            topic: &namespace.unwrap(&prepared.topic),
            id: &id,
            tag: properties::get_str(&prepared.properties, properties::TAGS),
            keys: properties::get_str(&prepared.properties, properties::KEYS),
            broker,
            body_bytes: prepared.about.body_bytes,
            cost_ms,
            half: sysflag::transaction(prepared.sys_flag) == sysflag::TRANSACTION_PREPARED,
            delayed: prepared.about.delayed,
            offset_id: &offset_id,
            success: receipts.iter().all(|one| one.status == Stored::AsPromised),
        };
        trace.append(line.line());
    }

    /// Hands a message over that nobody confirms.
    pub(super) async fn tell(&self, prepared: &Prepared) -> Result<()> {
        let (connection, queue) = self.choose(&Target::InTurn, &prepared.topic, None).await?;
        let fields = self.fields(prepared, &queue, now_ms());
        connection
            .tell(prepared.code, &fields, &prepared.body)
            .await
    }

    fn fields<'a>(
        &'a self,
        prepared: &'a Prepared,
        queue: &'a MessageQueue,
        born_ms: i64,
    ) -> Vec<(&'static str, Value<'a>)> {
        let options = &self.shared.options;
        let mut fields = vec![
            ("a", Value::Str(&options.group)),
            ("b", Value::Str(&prepared.topic)),
            ("c", Value::Str(&options.create_topic_key)),
            ("d", Value::I32(options.new_topic_queues)),
            ("e", Value::I32(queue.queue_id)),
            ("f", Value::I32(prepared.sys_flag)),
            ("g", Value::I64(born_ms)),
            ("h", Value::I32(prepared.flag)),
            ("i", Value::Bytes(&prepared.properties)),
            ("j", Value::I32(prepared.reconsumed)),
            ("k", Value::Bool(self.shared.session.settings.unit_mode)),
            (
                "m",
                Value::Bool(prepared.code == request::SEND_BATCH_MESSAGE),
            ),
            ("n", Value::Str(&queue.broker_name)),
        ];
        if let Some(max) = prepared.reconsume_max {
            fields.push(("l", Value::I32(max)));
        }
        fields
    }
}

impl Prepared {
    fn receipts(&self, answer: &Answer, queue: &MessageQueue) -> Result<Vec<Receipt>> {
        let command = answer.command();
        let status = match command.code {
            response::SUCCESS => Stored::AsPromised,
            response::FLUSH_DISK_TIMEOUT => Stored::FlushTimedOut,
            response::FLUSH_SLAVE_TIMEOUT => Stored::ReplicationTimedOut,
            response::SLAVE_NOT_AVAILABLE => Stored::NoReplica,
            _ => return Err(refusal(&command)),
        };
        let stored = SendAnswer::from(&command).map_err(|error| Error::Broken {
            address: queue.broker_name.clone(),
            what: error.to_string(),
        })?;
        let mut offset_ids = stored.message_id.split(',');
        let recall_handle = stored.recall_handle.as_deref().map(str::to_owned);
        let receipt = |(number, id): (usize, &String)| Receipt {
            message_id: id.clone(),
            offset_id: offset_ids.next().unwrap_or_default().to_owned(),
            broker_name: queue.broker_name.clone(),
            queue_id: stored.queue_id,
            queue_offset: stored.queue_offset + number as i64,
            status,
            recall_handle: recall_handle.clone(),
        };
        Ok(self.ids.iter().enumerate().map(receipt).collect())
    }
}
