//! Polls: first as a member of a group, then through one queue by hand.
//!
//! `cargo run -p orbitmq-client --example lite_pull -- 127.0.0.1:9876`

use std::time::Duration;

use orbitmq_client::{LitePullConsumer, Message, Producer, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let name_server = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    let producer = Producer::builder("example-lite")
        .name_server(&name_server)
        .start()
        .await?;
    for number in 0..20 {
        producer
            .send(Message::new("ExampleLite", format!("message {number}")).tag("a"))
            .await?;
    }
    producer.shutdown().await;

    let member = LitePullConsumer::builder("example-lite-members")
        .name_server(&name_server)
        .subscribe("ExampleLite", "a || b")
        .from_first()
        .auto_commit(false)
        .start()
        .await?;
    let mut count = 0;
    while count < 20 {
        count += member.poll(Duration::from_secs(5)).await.len();
        // What was handed out is done now; without this it comes again after a restart.
        member.commit().await?;
    }
    println!("{count} messages as a member");
    member.shutdown().await;

    let reader = LitePullConsumer::builder("example-lite-reader")
        .name_server(name_server)
        .start()
        .await?;
    let queues = reader.queues("ExampleLite").await?;
    reader.assign(&queues[..1]).await?;
    reader.seek_to_begin(&queues[0]).await?;
    for message in reader.poll(Duration::from_secs(5)).await {
        println!(
            "{} {}",
            message.queue_offset,
            String::from_utf8_lossy(&message.body)
        );
    }
    reader.shutdown().await;
    Ok(())
}
