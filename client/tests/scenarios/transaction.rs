//! Half messages: committed, rolled back, asked about later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orbitmq_client::{Message, Outcome, Received, Stored, TransactionProducer};

use crate::env::{Env, never, text, until};
use crate::inbox::Inbox;

/// How often each body was asked about.
type Asked = Arc<Mutex<HashMap<String, u32>>>;

async fn producer(env: &Env, asked: &Asked) -> TransactionProducer {
    let asked = asked.clone();
    let check = move |half: Received| {
        let body = text(&half);
        let times = {
            let mut asked = asked.lock().expect("not poisoned");
            let times = asked.entry(body.clone()).or_default();
            *times += 1;
            *times
        };
        async move {
            match body.as_str() {
                body if body.contains("rollback") => Outcome::Rollback,
                body if body.contains("second") && times < 2 => Outcome::Unknown,
                _ => Outcome::Commit,
            }
        }
    };
    let builder = TransactionProducer::builder(env.fresh("TP")).name_server(&env.name_server);
    builder.start(check).await.expect("started")
}

fn local(body: &str) -> Outcome {
    match body {
        body if body.starts_with("commit") => Outcome::Commit,
        body if body.starts_with("rollback") => Outcome::Rollback,
        _ => Outcome::Unknown,
    }
}

pub async fn commit_rollback(env: Env) {
    let topic = env.topic(2).await;
    let (inbox, asked) = (Inbox::default(), Asked::default());
    let consumer = env.collector(&env.group(), &topic, "*", &inbox).await;
    let producer = producer(&env, &asked).await;
    for body in ["commit-1", "rollback-1", "commit-2", "rollback-2"] {
        let message = Message::new(&topic, body).key(format!("key-{body}"));
        let sent = producer.send(message, |_| async { local(body) }).await;
        let sent = sent.expect("stored");
        assert_eq!(
            (sent.half.status, sent.outcome),
            (Stored::AsPromised, local(body))
        );
    }
    inbox
        .expect(&["commit-1", "commit-2"].map(str::to_owned), 20)
        .await;
    // A check-back would come in this time.
    never(
        "more messages, or questions",
        Duration::from_secs(7),
        async || inbox.len() > 2 || !asked.lock().expect("not poisoned").is_empty(),
    )
    .await;
    for message in inbox.all() {
        assert_eq!(message.topic, topic);
        let keys: Vec<&str> = message.keys().collect();
        assert_eq!(keys, [format!("key-{}", text(&message))]);
    }
    assert_eq!(env.stored(&topic).await, 2);
    consumer.shutdown().await;
    producer.shutdown().await;
}

pub async fn check_back(env: Env) {
    let topic = env.topic(2).await;
    let (inbox, asked) = (Inbox::default(), Asked::default());
    let consumer = env.collector(&env.group(), &topic, "*", &inbox).await;
    let producer = producer(&env, &asked).await;
    for body in ["later", "later-second", "later-rollback"] {
        let sent = producer
            .send(Message::new(&topic, body), |_| async { local(body) })
            .await;
        assert_eq!(sent.expect("stored").outcome, Outcome::Unknown);
    }
    inbox.stays_at(0, Duration::from_millis(500)).await;
    until("all asked about", 75, async || {
        asked.lock().expect("not poisoned").len() == 3
    })
    .await;
    inbox
        .expect(&["later", "later-second"].map(str::to_owned), 75)
        .await;
    assert!(asked.lock().expect("not poisoned")["later-second"] >= 2);
    consumer.shutdown().await;
    producer.shutdown().await;
}
