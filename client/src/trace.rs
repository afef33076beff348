//! Message trace: what happens to a message, told to a topic in the form that RocketMQ's own tools read.
//!
//! A bounded queue and one task behind it: tracing never makes a send or a listener wait. What does not fit is
//! dropped and counted; what cannot be sent is lost.

mod line;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use protocol::properties;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub(crate) use self::line::{Consumption, Decision, Line, Outcome, Send, region_of, wants_trace};
use crate::error::Result;
use crate::message::Message;
use crate::producer::Producer;
use crate::settings::Settings;

/// Events that wait to be sent.
const EVENTS_MAX: usize = 2048;
/// Bytes of one trace message.
const BODY_BYTES_MAX: usize = 128_000;
/// Events of one trace message, whatever `traceMsgBatchNum` says.
const BATCH_MAX: usize = 20;
/// The longest an event waits for others to go with.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);
/// How long a shutdown waits for what is queued.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// Whose events these are; part of the inner producer's group.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Produce,
    Consume,
}

/// Where events are handed in. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Trace {
    events: mpsc::Sender<Asked>,
    dropped: Arc<AtomicU64>,
    topic: String,
}

enum Asked {
    Event(Line),
    /// Send what there is, say so, and end.
    End(oneshot::Sender<()>),
}

impl Trace {
    /// A tracer if the settings want one.
    pub async fn start(settings: &Settings, group: &str, kind: Kind) -> Result<Option<Trace>> {
        if !settings.trace {
            return Ok(None);
        }
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let kind = match kind {
            Kind::Produce => "PRODUCE",
            Kind::Consume => "CONSUME",
        };
        let inner = format!("_INNER_TRACE_PRODUCER-{group}-{kind}-{number}");
        let settings = Settings {
            trace: false,
            // A name of its own: it is another client than the one it tells of.
            instance_name: String::new(),
            ..settings.clone()
        };
        let topic = settings.trace_topic.clone();
        let batch = settings.trace_batch.min(BATCH_MAX);
        let producer = Producer::inner(inner, settings).await?;
        let (events, queued) = mpsc::channel(EVENTS_MAX);
        tokio::spawn(send_all(queued, producer, topic.clone(), batch));
        Ok(Some(Trace {
            events,
            dropped: Arc::default(),
            topic,
        }))
    }

    /// Trace messages are not traced.
    pub fn is_trace_topic(&self, topic: &str) -> bool {
        topic.starts_with(&self.topic)
    }

    pub fn append(&self, line: Line) {
        if self.events.try_send(Asked::Event(line)).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::debug!(dropped, "a trace event does not fit into the queue");
        }
    }

    /// Sends what is queued; nothing is taken any more.
    pub async fn shutdown(&self) {
        let (sender, sent) = oneshot::channel();
        if self.events.send(Asked::End(sender)).await.is_ok()
            && tokio::time::timeout(SHUTDOWN_LIMIT, sent).await.is_err()
        {
            tracing::debug!("the last trace events were not sent in time");
        }
    }
}

async fn send_all(
    mut queued: mpsc::Receiver<Asked>,
    producer: Producer,
    topic: String,
    batch: usize,
) {
    let mut waiting: Vec<Line> = Vec::new();
    let mut deadline = Instant::now() + FLUSH_INTERVAL;
    loop {
        let asked = tokio::select! {
            asked = queued.recv() => asked,
            () = tokio::time::sleep_until(deadline), if !waiting.is_empty() => {
                send(&producer, &topic, &mut waiting).await;
                continue;
            }
        };
        match asked {
            Some(Asked::Event(line)) => {
                if waiting.is_empty() {
                    deadline = Instant::now() + FLUSH_INTERVAL;
                }
                waiting.push(line);
                if waiting.len() >= batch {
                    send(&producer, &topic, &mut waiting).await;
                }
            }
            Some(Asked::End(sent)) => {
                send(&producer, &topic, &mut waiting).await;
                producer.shutdown().await;
                // Who asked may have stopped waiting.
                let _ = sent.send(());
                return;
            }
            None => return producer.shutdown().await,
        }
    }
}

async fn send(producer: &Producer, topic: &str, waiting: &mut Vec<Line>) {
    let mut lines = std::mem::take(waiting).into_iter().peekable();
    while lines.peek().is_some() {
        let (mut body, mut keys) = (String::new(), BTreeSet::new());
        while let Some(line) =
            lines.next_if(|line| body.is_empty() || body.len() + line.text.len() <= BODY_BYTES_MAX)
        {
            body.push_str(&line.text);
            keys.extend(line.keys);
        }
        let keys: Vec<String> = keys.into_iter().collect();
        let message =
            Message::new(topic, body).key(keys.join(&properties::KEY_SEPARATOR.to_string()));
        if let Err(error) = producer.send(message).await {
            tracing::debug!(topic, %error, "trace events are lost");
        }
    }
}
