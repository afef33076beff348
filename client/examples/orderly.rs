//! Consumes in order: the steps of one order one after the other, whoever reads them.
//!
//! `cargo run -p orbitmq-client --example orderly -- 127.0.0.1:9876 10`

use std::time::Duration;

use orbitmq_client::{Message, Ordered, Producer, PushConsumer, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let name_server = words.next().unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    let seconds = words
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(10);
    let producer = Producer::builder("example-steps")
        .name_server(&name_server)
        .start()
        .await?;
    for step in ["placed", "paid", "sent"] {
        for order in ["order-1", "order-2"] {
            let message = Message::new("ExampleSteps", step)
                .key(order)
                .sharding_key(order);
            producer.send_keyed(message).await?;
        }
    }
    let consumer = PushConsumer::builder("example-orderly")
        .name_server(name_server)
        .subscribe("ExampleSteps", "*")
        .from_first()
        .start_orderly(|message| async move {
            let order = message.keys().next().unwrap_or_default().to_owned();
            println!("{order}: {}", String::from_utf8_lossy(&message.body));
            // Ordered::Suspend would hold up this queue for a second, and come again with the same message.
            Ordered::Done
        })
        .await?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    consumer.shutdown().await;
    producer.shutdown().await;
    Ok(())
}
