//! Selects by an SQL92 condition over properties, at the broker.
//!
//! `cargo run -p orbitmq-client --example sql_filter -- 127.0.0.1:9876`; the broker must have enablePropertyFilter=true.

use std::time::Duration;

use orbitmq_client::{Consumed, Filter, Message, Producer, PushConsumer, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let name_server = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    let producer = Producer::builder("example-prices")
        .name_server(&name_server)
        .start()
        .await?;
    for price in [3, 7, 12, 40] {
        let message = Message::new("ExamplePrices", format!("for {price}"))
            .property("price", price.to_string());
        producer.send(message).await?;
    }
    let consumer = PushConsumer::builder("example-middle-prices")
        .name_server(name_server)
        .subscribe("ExamplePrices", Filter::sql("price BETWEEN 5 AND 20"))
        .from_first()
        .start(|message| async move {
            println!("{}", String::from_utf8_lossy(&message.body));
            Consumed::Done
        })
        .await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    consumer.shutdown().await;
    producer.shutdown().await;
    Ok(())
}
