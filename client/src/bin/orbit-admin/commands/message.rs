//! Single messages: found, printed, sent.

mod send;
mod trace;

use orbitmq_client::admin::{Admin, Found};
use orbitmq_client::time::show_ms;
use orbitmq_client::{MessageQueue, PullStatus, Received};

use super::{Done, Failure};
use crate::cli::Message;
use crate::output::Output;
use crate::when;

/// Characters of a body that a table shows.
const BODY_CHARS: usize = 60;

pub async fn run(admin: &Admin, name_servers: &str, command: Message, output: &Output) -> Done {
    match command {
        Message::Get { id, topic } => get(admin, &id, topic.as_deref(), output).await,
        Message::ByKey {
            topic,
            key,
            max,
            since,
            until,
        } => {
            let span = span(since.as_deref(), until.as_deref())?;
            let found = admin.messages_by_key(&topic, &key, max, span).await?;
            list(&found, output);
            Ok(())
        }
        Message::ByOffset {
            topic,
            broker,
            queue,
            offset,
            max,
        } => {
            let queue = MessageQueue {
                broker_name: broker,
                queue_id: queue,
                topic,
            };
            let mut messages = admin.messages_at(&queue, offset, "*").await?.messages;
            messages.truncate(max);
            list(&messages, output);
            Ok(())
        }
        Message::Print {
            topic,
            queue,
            broker,
            tags,
            since,
            until,
            max,
        } => {
            let span = span(since.as_deref(), until.as_deref())?;
            let wanted = |one: &MessageQueue| {
                queue.is_none_or(|queue| queue == one.queue_id)
                    && broker
                        .as_ref()
                        .is_none_or(|broker| *broker == one.broker_name)
            };
            print(admin, &topic, wanted, &tags, span, max, output).await
        }
        command @ Message::Send { .. } => send::run(name_servers, command, output).await,
        Message::Consume { group, client, id } => {
            let message = admin.message_by_offset_id(&id).await?;
            let result = admin.consume_directly(&group, &client, &message).await?;
            output.value(&result);
            Ok(())
        }
        Message::Trace { id, trace_topic } => trace::run(admin, &id, &trace_topic, output).await,
    }
}

async fn get(admin: &Admin, id: &str, topic: Option<&str>, output: &Output) -> Done {
    let mut found = Vec::new();
    if let Some(topic) = topic {
        found = admin.messages_by_id(topic, id).await?;
    }
    if found.is_empty() {
        // Both kinds of id have 32 digits: one of a producer names a place that is none.
        match admin.message_by_offset_id(id).await {
            Ok(message) => found.push(message),
            Err(error) if topic.is_none() => {
                let hint = "an id of its producer needs --topic as well";
                return Err(Failure::Told(format!("{error}\n{hint}")));
            }
            Err(_) => {
                let topic = topic.unwrap_or_default();
                return Err(Failure::Told(format!("{topic} has no message {id}")));
            }
        }
    }
    let found: Vec<Found> = found.iter().map(Found::from).collect();
    if output.json {
        output.value(&found);
        return Ok(());
    }
    for message in &found {
        show(message, output);
    }
    Ok(())
}

fn show(message: &Found, output: &Output) {
    let place = format!(
        "{} {} at {}",
        message.broker, message.queue, message.queue_offset
    );
    let lines = [
        ("topic", message.topic.clone()),
        ("id", message.id.clone()),
        ("place", message.offset_id.clone()),
        ("queue", place.trim().to_owned()),
        ("tag", message.tag.clone().unwrap_or_default()),
        ("keys", message.keys.join(" ")),
        (
            "born",
            format!("{} UTC at {}", show_ms(message.born_ms), message.born_host),
        ),
        (
            "stored",
            format!(
                "{} UTC at {}",
                show_ms(message.stored_ms),
                message.stored_host
            ),
        ),
        ("delivered in vain", message.reconsumed.to_string()),
        ("bytes in the log", message.stored_bytes.to_string()),
    ];
    for (name, value) in lines {
        output.note(&format!("{name:<18}{value}"));
    }
    for (name, value) in &message.properties {
        output.note(&format!("  {name}={value}"));
    }
    output.note(
        message
            .body
            .as_deref()
            .or(message.body_hex.as_deref())
            .unwrap_or_default(),
    );
}

fn list(messages: &[Received], output: &Output) {
    let found: Vec<Found> = messages.iter().map(Found::from).collect();
    let heads = [
        "BROKER",
        "#QUEUE",
        "#OFFSET",
        "STORED (UTC)",
        "ID",
        "TAG",
        "KEYS",
        "BODY",
    ];
    output.rows(&found, &heads, |message| {
        let body = message.body.as_deref().unwrap_or("(not text)");
        // One line for each message, whatever is in it.
        let body = body
            .chars()
            .map(|letter| if letter.is_control() { ' ' } else { letter });
        vec![
            message.broker.clone(),
            message.queue.to_string(),
            message.queue_offset.to_string(),
            show_ms(message.stored_ms),
            message.id.clone(),
            message.tag.clone().unwrap_or_default(),
            message.keys.join(" "),
            body.take(BODY_CHARS).collect(),
        ]
    });
}

async fn print(
    admin: &Admin,
    topic: &str,
    wanted: impl Fn(&MessageQueue) -> bool,
    tags: &str,
    [since_ms, until_ms]: [i64; 2],
    max: usize,
    output: &Output,
) -> Done {
    let mut messages = Vec::new();
    for status in admin.topic_status(topic).await? {
        let queue = MessageQueue {
            broker_name: status.broker,
            queue_id: status.queue,
            topic: topic.to_owned(),
        };
        if !wanted(&queue) || messages.len() >= max {
            continue;
        }
        let mut offset = match since_ms {
            0 => status.min_offset,
            since_ms => admin.offset_at(&queue, since_ms).await?,
        };
        while offset < status.max_offset && messages.len() < max {
            let pulled = admin.messages_at(&queue, offset, tags).await?;
            if pulled.status == PullStatus::NoNewMessage || pulled.next_offset <= offset {
                break;
            }
            offset = pulled.next_offset;
            let later = pulled.messages.iter().any(|one| one.stored_ms >= until_ms);
            let within = |one: &Received| (since_ms..until_ms).contains(&one.stored_ms);
            messages.extend(pulled.messages.into_iter().filter(within));
            if later {
                break;
            }
        }
    }
    messages.truncate(max);
    list(&messages, output);
    Ok(())
}

/// From a time to a time, in milliseconds; all of it if nothing is said.
fn span(since: Option<&str>, until: Option<&str>) -> Result<[i64; 2], String> {
    let since_ms = since.map_or(Ok(0), when::parse)?;
    let until_ms = until.map_or(Ok(i64::MAX), when::parse)?;
    Ok([since_ms, until_ms])
}
