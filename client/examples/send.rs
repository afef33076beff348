//! Sends messages in every way there is.
//!
//! `cargo run -p orbitmq-client --example send -- 127.0.0.1:9876`

use std::time::Duration;

use orbitmq_client::{Compression, Message, Producer, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let name_server = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    let producer = Producer::builder("example-senders")
        .name_server(name_server)
        .compress_type(Compression::Zstd)
        .send_latency_fault_enable(true)
        // Every setting can be given by RocketMQ's name for it.
        .set("sendMsgTimeout", "5000")?
        .start()
        .await?;

    let receipt = producer
        .send(Message::new("Example", "one").tag("a").key("order-1"))
        .await?;
    println!("sent: {receipt:?}");

    let batch: Vec<Message> = (0..3)
        .map(|number| Message::new("Example", format!("batch {number}")))
        .collect();
    println!(
        "a batch: {} receipts",
        producer.send_batch(&batch).await?.len()
    );

    let mut under_way = Vec::new();
    for number in 0..100 {
        under_way.push(
            producer
                .submit(Message::new("Example", format!("many {number}")))
                .await?,
        );
    }
    for submitted in under_way {
        submitted.receipt().await?;
    }
    println!("100 at once");

    for step in ["placed", "paid", "sent"] {
        let message = Message::new("Example", step).sharding_key("order-1");
        let receipt = producer.send_keyed(message).await?;
        println!(
            "{step}: queue {} at {}",
            receipt.queue_id, receipt.queue_offset
        );
    }

    let later = producer
        .send(Message::new("Example", "in 5 s").delay(Duration::from_secs(5)))
        .await?;
    if let Some(handle) = later.recall_handle {
        match producer.recall("Example", &handle).await {
            Ok(id) => println!("taken back: {id}"),
            Err(error) => println!("not taken back: {error}"),
        }
    }
    producer
        .send_oneway(Message::new("Example", "nobody confirms this"))
        .await?;
    producer.shutdown().await;
    Ok(())
}
