//! The client against the real broker, orbit-broker, as a process of its own. The binary is the one that lies beside this test; where
//! only this crate was built there is none, and there is nothing to test.

#[path = "process/orbit.rs"]
mod process;

use std::collections::BTreeSet;
use std::time::Duration;

use orbitmq_client::{Consumed, Message, Producer, PushConsumer, Received};
use process::Orbit;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const LIMIT: Duration = Duration::from_secs(30);

async fn consumer(
    orbit: &Orbit,
    topic: &str,
    tags: &str,
) -> (PushConsumer, UnboundedReceiver<Received>) {
    let (sender, arrived) = unbounded_channel();
    let builder = PushConsumer::builder("consumers").name_server(orbit.name_server.as_str());
    let listener = move |message| {
        let sender = sender.clone();
        async move {
            let _ = sender.send(message);
            Consumed::Done
        }
    };
    let started = builder
        .subscribe(topic, tags)
        .from_first()
        .start(listener)
        .await;
    (started.expect("started"), arrived)
}

async fn take(arrived: &mut UnboundedReceiver<Received>, count: usize) -> BTreeSet<Vec<u8>> {
    let mut bodies = BTreeSet::new();
    while bodies.len() < count {
        let message = tokio::time::timeout(LIMIT, arrived.recv())
            .await
            .expect("in time");
        bodies.insert(message.expect("the consumer runs").body);
    }
    bodies
}

fn numbered(range: std::ops::Range<u32>) -> BTreeSet<Vec<u8>> {
    range
        .map(|number| format!("message {number}").into_bytes())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_is_sent_is_received_and_a_restarted_consumer_goes_on() {
    let Some(orbit) = Orbit::start(&[]).await else {
        return;
    };
    let builder = Producer::builder("producers").name_server(orbit.name_server.as_str());
    let producer = builder.start().await.expect("started");
    for body in numbered(0..200) {
        producer
            .send(Message::new("orders", body).tag("a").key("k"))
            .await
            .expect("stored");
    }
    let batch: Vec<Message> = numbered(200..250)
        .into_iter()
        .map(|body| Message::new("orders", body).tag("a"))
        .collect();
    let receipts = producer.send_batch(&batch).await.expect("stored");
    assert_eq!(receipts.len(), 50);
    producer
        .send(Message::new("orders", "unwanted").tag("b"))
        .await
        .expect("stored");
    for body in numbered(250..300) {
        producer
            .send_oneway(Message::new("orders", body).tag("a"))
            .await
            .expect("handed over");
    }

    let (first, mut arrived) = consumer(&orbit, "orders", "a").await;
    assert_eq!(take(&mut arrived, 300).await, numbered(0..300));
    first.shutdown().await;

    let (second, mut arrived) = consumer(&orbit, "orders", "a").await;
    for body in numbered(300..350) {
        producer
            .send(Message::new("orders", body).tag("a"))
            .await
            .expect("stored");
    }
    assert_eq!(take(&mut arrived, 50).await, numbered(300..350));
    second.shutdown().await;
    producer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_joins_gets_its_share_from_the_brokers_notice() {
    let Some(orbit) = Orbit::start(&[]).await else {
        return;
    };
    let builder = Producer::builder("producers").name_server(orbit.name_server.as_str());
    let producer = builder.start().await.expect("started");
    producer
        .send(Message::new("shared", "makes the topic"))
        .await
        .expect("stored");
    let (one, _first) = consumer(&orbit, "shared", "*").await;
    let (two, _second) = consumer(&orbit, "shared", "*").await;
    let ours = |consumer: &PushConsumer| {
        consumer
            .queues()
            .iter()
            .filter(|(topic, _, _)| topic == "shared")
            .count()
    };
    let shared = async {
        while (ours(&one), ours(&two)) != (2, 2) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // Well below the 20 s of the timer.
    tokio::time::timeout(Duration::from_secs(10), shared)
        .await
        .expect("queues are shared");
    two.shutdown().await;
    let taken_over = async {
        while ours(&one) != 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), taken_over)
        .await
        .expect("queues are taken over");
}
