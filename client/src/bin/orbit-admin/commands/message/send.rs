//! Sends one message.

use std::io::Read;

use orbitmq_client::{Message as Sent, Producer};
use serde_json::json;

use crate::cli::Message;
use crate::commands::{Done, Failure};
use crate::output::Output;

/// The group it is sent under, as mqadmin's tools do.
const GROUP: &str = "TOOLS_PRODUCER";

pub async fn run(name_servers: &str, command: Message, output: &Output) -> Done {
    let Message::Send {
        topic,
        body,
        file,
        tag,
        key,
        property,
        delay,
        queue,
    } = command
    else {
        unreachable!("only this is sent here");
    };
    let body = match (body, file) {
        (Some(body), None) => body.into_bytes(),
        (None, Some(path)) => std::fs::read(&path)
            .map_err(|error| Failure::Told(format!("{}: {error}", path.display())))?,
        (None, None) => standard_input()?,
        (Some(_), Some(_)) => {
            return Err(Failure::Told("either a body or --file".to_owned()));
        }
    };
    let mut message = Sent::new(&topic, body);
    if let Some(tag) = tag {
        message = message.tag(tag);
    }
    if let Some(key) = key {
        message = message.key(key);
    }
    for pair in property {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| Failure::Told(format!("{pair:?} is not name=value")))?;
        message = message.property(name, value);
    }
    if let Some(delay) = delay {
        message = message.delay(delay);
    }
    let producer = Producer::builder(GROUP)
        .name_server(name_servers)
        .start()
        .await?;
    let sent = match queue {
        None => producer.send(message).await,
        Some(queue) => {
            let place = |queues: &[orbitmq_client::MessageQueue]| {
                let found = queues.iter().position(|one| one.queue_id == queue);
                found.unwrap_or(usize::MAX)
            };
            producer.send_selected(message, place).await
        }
    };
    let receipt = sent?;
    producer.shutdown().await;
    let sentence = format!(
        "{} is at {} of queue {} on {}",
        receipt.message_id, receipt.queue_offset, receipt.queue_id, receipt.broker_name
    );
    let shown = json!({
        "topic": topic,
        "id": receipt.message_id,
        "offset_id": receipt.offset_id,
        "broker": receipt.broker_name,
        "queue": receipt.queue_id,
        "queue_offset": receipt.queue_offset,
        "recall_handle": receipt.recall_handle,
    });
    output.done(&shown, &sentence);
    Ok(())
}

fn standard_input() -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let read = std::io::stdin().read_to_end(&mut body);
    read.map_err(|error| Failure::Told(format!("the standard input: {error}")))?;
    Ok(body)
}
