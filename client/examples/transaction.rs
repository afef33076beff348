//! Messages that are delivered if a local transaction succeeds.
//!
//! `cargo run -p orbitmq-client --example transaction -- 127.0.0.1:9876`

use orbitmq_client::{Message, Outcome, Result, TransactionProducer};

#[tokio::main]
async fn main() -> Result<()> {
    let name_server = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    let producer = TransactionProducer::builder("example-bookings")
        .name_server(name_server)
        .start(|half| async move {
            // The broker asks what became of a booking: look it up where it would be.
            println!("asked about {}", String::from_utf8_lossy(&half.body));
            Outcome::Commit
        })
        .await?;
    for number in 0..4 {
        let message = Message::new("ExampleBooked", format!("booking {number}"));
        let book = |_half| async move {
            // Here the booking would be written to a database.
            if number % 2 == 0 {
                Outcome::Commit
            } else {
                Outcome::Rollback
            }
        };
        let sent = producer.send(message, book).await?;
        println!("booking {number}: {:?}", sent.outcome);
    }
    producer.shutdown().await;
    Ok(())
}
