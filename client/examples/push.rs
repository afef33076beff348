//! Consumes what the example `send` sends, until Ctrl-C or for the seconds given.
//!
//! `cargo run -p orbitmq-client --example push -- 127.0.0.1:9876 10`

use std::time::Duration;

use orbitmq_client::{Consumed, PushConsumer, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let name_server = words.next().unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    let seconds = words
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(10);
    let consumer = PushConsumer::builder("example-consumers")
        .name_server(name_server)
        .subscribe("Example", "*")
        .from_first()
        .concurrency(8)
        .start(|message| async move {
            let text = String::from_utf8_lossy(&message.body).into_owned();
            println!("{} {}: {text}", message.queue_id, message.queue_offset);
            // Consumed::Later has it delivered again, after 10 s at first.
            Consumed::Done
        })
        .await?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    // Ends calls that are under way, and hands the queues to the other members.
    consumer.shutdown().await;
    Ok(())
}
