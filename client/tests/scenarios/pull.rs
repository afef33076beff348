//! Pulling: one pull at a time, and the lite pull consumer.

use std::time::{Duration, Instant};

use orbitmq_client::{LitePullConsumer, Message, PullStatus, Received};

use crate::env::{Env, now_ms, send_many, text, until};

pub async fn statuses(env: Env) {
    let topic = env.topic(2).await;
    let producer = env.producer().await;
    let queue = producer.queues(&topic).await.expect("a route").remove(1);
    for number in 0..40 {
        let message = Message::new(&topic, format!("m{number}"));
        producer.send_to(message, &queue).await.expect("stored");
    }
    let puller = env.puller(&env.group()).await;
    let found = puller.pull(&queue, "*", 0, 32).await.expect("pulled");
    assert_eq!(
        (found.status, found.messages.len()),
        (PullStatus::Found, 32)
    );
    assert_eq!(
        (found.next_offset, found.min_offset, found.max_offset),
        (32, 0, 40)
    );
    let rest = puller.pull(&queue, "*", 32, 32).await.expect("pulled");
    assert_eq!((rest.messages.len(), rest.next_offset), (8, 40));
    let none = puller.pull(&queue, "*", 40, 32).await.expect("pulled");
    assert_eq!(
        (none.status, none.next_offset),
        (PullStatus::NoNewMessage, 40)
    );
    let illegal = puller.pull(&queue, "*", 1_000, 32).await.expect("pulled");
    assert_eq!(illegal.status, PullStatus::OffsetIllegal);
    assert_eq!(puller.min_offset(&queue).await.expect("known"), 0);
    assert_eq!(puller.max_offset(&queue).await.expect("known"), 40);
    puller.shutdown().await;
}

pub async fn long_polling(env: Env) {
    let topic = env.topic(1).await;
    let producer = env.producer().await;
    let queue = producer.queues(&topic).await.expect("a route").remove(0);
    let puller = env.puller(&env.group()).await;
    let mut held = tokio::spawn(async move { puller.pull_or_wait(&queue, "*", 0, 32).await });
    let answered = tokio::time::timeout(Duration::from_millis(700), &mut held).await;
    assert!(
        answered.is_err(),
        "a pull that finds nothing waits at the broker"
    );
    let sent = Instant::now();
    producer
        .send(Message::new(&topic, "arrives"))
        .await
        .expect("stored");
    let pulled = held.await.expect("no panic").expect("pulled");
    assert_eq!(text(&pulled.messages[0]), "arrives");
    assert!(
        sent.elapsed() < Duration::from_millis(1_500),
        "it is answered at once"
    );
}

pub async fn tag_filter(env: Env) {
    let topic = env.topic(1).await;
    let producer = env.producer().await;
    for number in 0..10 {
        let tag = if number % 2 == 0 { "A" } else { "B" };
        let message = Message::new(&topic, format!("m{number}")).tag(tag);
        producer.send(message).await.expect("stored");
    }
    let queue = producer.queues(&topic).await.expect("a route").remove(0);
    let puller = env.puller(&env.group()).await;
    let pulled = puller.pull(&queue, "A", 0, 32).await.expect("pulled");
    let bodies: Vec<String> = pulled.messages.iter().map(text).collect();
    assert_eq!(bodies, ["m0", "m2", "m4", "m6", "m8"]);
    assert_eq!(pulled.next_offset, 10);
    let none = puller.pull(&queue, "C", 0, 32).await.expect("pulled");
    assert_eq!(
        (none.status, none.next_offset),
        (PullStatus::NoMatchedMessage, 10)
    );
}

pub async fn offset_store(env: Env) {
    let (topic, group) = (env.topic(1).await, env.group());
    let producer = env.producer().await;
    send_many(&producer, &topic, None, "m", 10).await;
    let queue = producer.queues(&topic).await.expect("a route").remove(0);
    let puller = env.puller(&group).await;
    puller.pull(&queue, "*", 0, 32).await.expect("pulled");
    puller.commit(&queue, 7).await.expect("noted");
    let other = env.puller(&group).await;
    assert_eq!(other.committed(&queue).await.expect("known"), Some(7));
    let stranger = env.puller(&env.group()).await;
    let begun = stranger.committed(&queue).await.expect("known");
    assert!(begun.unwrap_or(0) <= 0);
}

pub async fn search_offset(env: Env) {
    let topic = env.topic(1).await;
    let producer = env.producer().await;
    let start = now_ms();
    send_many(&producer, &topic, None, "m", 10).await;
    let middle = env.time_between(&topic).await;
    send_many(&producer, &topic, None, "n", 10).await;
    let queue = producer.queues(&topic).await.expect("a route").remove(0);
    let puller = env.puller(&env.group()).await;
    let at = async |time_ms| puller.search_offset(&queue, time_ms).await.expect("known");
    assert_eq!(at(start - 60_000).await, 0);
    assert!([9, 10].contains(&at(middle).await));
    assert!(at(now_ms() + 60_000).await >= 19);
    let earliest = puller.earliest_ms(&queue).await.expect("known");
    assert!(earliest >= start - 5_000 && earliest <= middle);
}

async fn poll(consumer: &LitePullConsumer, count: usize, seconds: u64) -> Vec<Received> {
    let mut got = Vec::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    while got.len() < count && Instant::now() < end {
        got.extend(consumer.poll(Duration::from_millis(500)).await);
    }
    got
}

fn sorted(messages: &[Received]) -> Vec<String> {
    let mut bodies: Vec<String> = messages.iter().map(text).collect();
    bodies.sort();
    bodies
}

pub async fn lite_subscribe(env: Env) {
    let (topic, group) = (env.topic(2).await, env.group());
    let producer = env.producer().await;
    let mut sent = send_many(&producer, &topic, Some("A"), "m", 20).await;
    send_many(&producer, &topic, Some("B"), "other", 5).await;
    let first = env
        .lite(&group)
        .subscribe(&topic, "A")
        .start()
        .await
        .expect("started");
    sent.sort();
    assert_eq!(sorted(&poll(&first, 20, 20).await), sent);
    first.commit().await.expect("noted");
    for queue in first.queues(&topic).await.expect("a route") {
        let committed = first.committed(&queue).await.expect("known");
        assert!(
            committed.is_some_and(|offset| offset > 0),
            "{queue:?}: {committed:?}"
        );
    }
    first.shutdown().await;
    let more = send_many(&producer, &topic, Some("A"), "n", 4).await;
    let second = env
        .lite(&group)
        .subscribe(&topic, "A")
        .start()
        .await
        .expect("started");
    assert_eq!(sorted(&poll(&second, 4, 20).await), more);
    second.shutdown().await;
}

pub async fn lite_assign(env: Env) {
    let topic = env.topic(1).await;
    let producer = env.producer().await;
    send_many(&producer, &topic, None, "m", 10).await;
    let middle = env.time_between(&topic).await;
    send_many(&producer, &topic, None, "n", 10).await;
    let consumer = env.lite(&env.group()).start().await.expect("started");
    let queues = consumer.queues(&topic).await.expect("a route");
    consumer.assign(&queues).await.expect("assigned");
    assert_eq!(consumer.assignment(), queues);
    let queue = &queues[0];
    let next = async || text(&poll(&consumer, 1, 10).await[0]);
    consumer.seek(queue, 5).await.expect("within");
    assert_eq!(next().await, "m5");
    consumer.seek_to_begin(queue).await.expect("within");
    assert_eq!(next().await, "m0");
    let offset = consumer
        .offset_for_timestamp(queue, middle)
        .await
        .expect("known");
    consumer.seek(queue, offset).await.expect("within");
    assert!(["m9", "n0"].contains(&next().await.as_str()));
    consumer.seek_to_end(queue).await.expect("within");
    assert!(poll(&consumer, 1, 2).await.is_empty());
    producer
        .send(Message::new(&topic, "new"))
        .await
        .expect("stored");
    assert_eq!(next().await, "new");
    assert!(
        consumer.seek(queue, 1_000).await.is_err(),
        "outside the queue"
    );
    consumer.shutdown().await;
}

pub async fn lite_pause(env: Env) {
    let topic = env.topic(2).await;
    let producer = env.producer().await;
    let consumer = env
        .lite(&env.group())
        .subscribe(&topic, "*")
        .start()
        .await
        .expect("started");
    until("2 queues", 20, async || consumer.assignment().len() == 2).await;
    let queues = consumer.queues(&topic).await.expect("a route");
    consumer.pause(&queues[..1]);
    for queue in &queues {
        let message = Message::new(&topic, format!("q{}", queue.queue_id));
        producer.send_to(message, queue).await.expect("stored");
    }
    let got = poll(&consumer, 2, 2).await;
    assert_eq!(got.len(), 1, "of the queue that is not paused");
    assert_eq!(got[0].queue_id, queues[1].queue_id);
    consumer.resume(&queues[..1]);
    assert_eq!(poll(&consumer, 1, 10).await[0].queue_id, queues[0].queue_id);
    consumer.shutdown().await;
}
