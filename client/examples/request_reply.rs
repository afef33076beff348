//! Asks, and answers: one program with both sides.
//!
//! `cargo run -p orbitmq-client --example request_reply -- 127.0.0.1:9876`

use std::time::Duration;

use orbitmq_client::{Consumed, Message, Producer, PushConsumer, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let name_server = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    let producer = Producer::builder("example-askers")
        .name_server(&name_server)
        .start()
        .await?;
    // Makes the topic, if nobody has.
    producer
        .send(Message::new("ExampleQuestions", "hello"))
        .await?;
    let answering = producer.clone();
    let consumer = PushConsumer::builder("example-answerers")
        .name_server(name_server)
        .subscribe("ExampleQuestions", "*")
        .from_first()
        .start(move |question| {
            let answering = answering.clone();
            async move {
                let text = String::from_utf8_lossy(&question.body).to_uppercase();
                // What is no request has no reply.
                if let Ok(reply) = Message::reply(&question, text)
                    && answering.send(reply).await.is_err()
                {
                    return Consumed::Later;
                }
                Consumed::Done
            }
        })
        .await?;
    for question in ["who are you", "what is it"] {
        let asked = producer
            .request(
                Message::new("ExampleQuestions", question),
                Duration::from_secs(20),
            )
            .await?;
        println!("{question}? {}", String::from_utf8_lossy(&asked.body));
    }
    consumer.shutdown().await;
    producer.shutdown().await;
    Ok(())
}
