//! Queues of a topic, and their index.

use orbitmq_client::MessageQueue;
use orbitmq_client::admin::Admin;

use super::{Done, topic};
use crate::cli::Queue;
use crate::output::Output;

pub async fn run(admin: &Admin, command: Queue, output: &Output) -> Done {
    match command {
        Queue::List { topic } => topic::status(admin, &topic, output).await,
        Queue::Show {
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
            let entries = admin.index_entries(&queue, offset, max).await?;
            output.rows(&entries, &["#LOG OFFSET", "#BYTES", "#TAG HASH"], |entry| {
                vec![
                    entry.log_offset.to_string(),
                    entry.bytes.to_string(),
                    entry.tag_hash.to_string(),
                ]
            });
            Ok(())
        }
    }
}
