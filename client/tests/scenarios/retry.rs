//! Messages that come again: retries, dead letters, delays.

use std::time::{Duration, Instant, SystemTime};

use orbitmq_client::{Consumed, Message, Ordered, PushConsumerBuilder};

use crate::env::{Env, assigned, text, until};
use crate::inbox::Inbox;

/// A consumer that gives every message back until it was delivered in vain `failures` times.
async fn failing(
    builder: PushConsumerBuilder,
    inbox: &Inbox,
    failures: i32,
    level: i32,
) -> orbitmq_client::PushConsumer {
    let inbox = inbox.clone();
    let listener = move |message: orbitmq_client::Received| {
        let again = message.reconsumed < failures;
        inbox.add(message);
        async move {
            match again {
                true => Consumed::LaterAt(level),
                false => Consumed::Done,
            }
        }
    };
    builder.from_first().start(listener).await.expect("started")
}

pub async fn retry(env: Env) {
    let (topic, group) = (env.topic(1).await, env.group());
    let inbox = Inbox::default();
    env.make_topic(&format!("%RETRY%{group}"), 1).await;
    let builder = env.pusher(&group).subscribe(&topic, "A");
    let consumer = failing(builder, &inbox, 2, 1).await;
    let message = Message::new(&topic, "retry me").tag("A").key("order-1");
    let receipt = env.producer().await.send(message).await.expect("stored");
    inbox.count(3, 30).await;
    inbox.stays_at(3, Duration::from_millis(1_500)).await;
    let all = inbox.all();
    for (number, message) in all.iter().enumerate() {
        assert_eq!(message.reconsumed, number as i32);
        assert_eq!(message.topic, topic);
        assert_eq!(message.keys().collect::<Vec<_>>(), ["order-1"]);
        assert_eq!(
            (message.tag(), &message.id),
            (Some("A"), &receipt.message_id)
        );
    }
    assert_eq!(env.stored(&format!("%RETRY%{group}")).await, 2);
    consumer.shutdown().await;
}

pub async fn default_delay(env: Env) {
    let (topic, group) = (env.topic(1).await, env.group());
    env.make_topic(&format!("%RETRY%{group}"), 1).await;
    let inbox = Inbox::default();
    let builder = env.pusher(&group).subscribe(&topic, "*");
    let consumer = failing(builder, &inbox, 1, 0).await;
    let sent = env
        .producer()
        .await
        .send(Message::new(&topic, "retry me"))
        .await;
    sent.expect("stored");
    inbox.count(2, 30).await;
    let waited = inbox.at(1) - inbox.at(0);
    assert!(
        waited > Duration::from_secs(9) && waited < Duration::from_secs(14),
        "{waited:?}"
    );
    consumer.shutdown().await;
}

pub async fn dead_letter(env: Env) {
    let (topic, group) = (env.topic(1).await, env.group());
    env.make_topic(&format!("%RETRY%{group}"), 1).await;
    let inbox = Inbox::default();
    let builder = env
        .pusher(&group)
        .subscribe(&topic, "*")
        .max_reconsume_times(1);
    let consumer = failing(builder, &inbox, 99, 1).await;
    let sent = env
        .producer()
        .await
        .send(Message::new(&topic, "never"))
        .await;
    sent.expect("stored");
    is_dead(&env, &group, &topic, "never").await;
    inbox.stays_at(2, Duration::from_millis(1_500)).await;
    consumer.shutdown().await;
}

async fn is_dead(env: &Env, group: &str, topic: &str, body: &str) {
    let dead = format!("%DLQ%{group}");
    until("a dead letter", 40, async || env.stored(&dead).await == 1).await;
    let address = env
        .admin
        .masters(None)
        .await
        .expect("brokers")
        .remove(0)
        .address;
    // A dead-letter topic is made so that consumers do not read it by chance.
    let readable = env.admin.set_topic_perm(&address, &dead, 6).await;
    readable.expect("readable");
    until("a readable route", 30, async || {
        let route = env.admin.route(&dead).await;
        route.is_ok_and(|route| route.queues.iter().all(|queues| queues.perm.contains('R')))
    })
    .await;
    let letters = env.read_all(&dead).await;
    assert_eq!(text(&letters[0]), body);
    assert_eq!(letters[0].property("RETRY_TOPIC"), Some(topic));
}

pub async fn orderly_dead_letter(env: Env) {
    let (topic, group) = (env.topic(1).await, env.group());
    env.make_topic(&format!("%RETRY%{group}"), 1).await;
    let builder = env
        .pusher(&group)
        .subscribe(&topic, "*")
        .from_first()
        .max_reconsume_times(1)
        .suspend_time(Duration::from_millis(100));
    let inbox = Inbox::default();
    let arrived = inbox.clone();
    let listener = move |message: orbitmq_client::Received| {
        let good = text(&message) == "behind";
        arrived.add(message);
        async move {
            if good {
                Ordered::Done
            } else {
                Ordered::Suspend
            }
        }
    };
    let consumer = builder.start_orderly(listener).await.expect("started");
    let producer = env.producer().await;
    producer
        .send(Message::new(&topic, "never"))
        .await
        .expect("stored");
    producer
        .send(Message::new(&topic, "behind"))
        .await
        .expect("stored");
    until("the one behind", 30, async || {
        inbox.bodies().contains(&"behind".to_owned())
    })
    .await;
    let before: Vec<String> = inbox.bodies();
    assert_eq!(
        before[..2],
        ["never", "never"],
        "it is tried twice before the queue goes on"
    );
    is_dead(&env, &group, &topic, "never").await;
    consumer.shutdown().await;
}

pub async fn consume_timeout(env: Env) {
    let (topic, group) = (env.topic(1).await, env.group());
    env.make_topic(&format!("%RETRY%{group}"), 1).await;
    let inbox = Inbox::default();
    let arrived = inbox.clone();
    let listener = move |message: orbitmq_client::Received| {
        let first = message.reconsumed == 0;
        arrived.add(message);
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            Consumed::Done
        }
    };
    let builder = env.pusher(&group).subscribe(&topic, "*").from_first();
    let builder = builder
        .consume_timeout(Duration::from_millis(500))
        .drain_limit(Duration::ZERO);
    let consumer = builder.start(listener).await.expect("started");
    let sent = env
        .producer()
        .await
        .send(Message::new(&topic, "slow"))
        .await;
    sent.expect("stored");
    inbox.count(2, 30).await;
    assert_eq!(inbox.all()[1].reconsumed, 1);
    consumer.shutdown().await;
}

/// Bodies are numbers of `expected`: how long after its sending each is to come.
async fn come_in_time(inbox: &Inbox, sent: &[Instant], expected: &[Duration]) {
    inbox.count(expected.len(), 30).await;
    for (number, message) in inbox.all().iter().enumerate() {
        let which: usize = text(message).parse().expect("a number");
        let took = inbox.at(number) - sent[which];
        let least = expected[which].saturating_sub(Duration::from_millis(200));
        let most = expected[which] + Duration::from_millis(2_500);
        assert!(
            took >= least && took < most,
            "{:?}: {took:?}",
            expected[which]
        );
    }
}

pub async fn delay_levels(env: Env) {
    let topic = env.topic(2).await;
    let inbox = Inbox::default();
    let consumer = env.collector(&env.group(), &topic, "*", &inbox).await;
    until("2 queues", 20, async || assigned(&consumer, &topic) == 2).await;
    let producer = env.producer().await;
    let mut sent = Vec::new();
    for number in 0..3u32 {
        sent.push(Instant::now());
        let message = Message::new(&topic, number.to_string()).delay_level(number + 1);
        producer.send(message).await.expect("stored");
    }
    come_in_time(&inbox, &sent, &[1, 5, 10].map(Duration::from_secs)).await;
    assert_eq!(env.stored(&topic).await, 3);
    consumer.shutdown().await;
}

pub async fn any_time(env: Env) {
    let topic = env.topic(2).await;
    let inbox = Inbox::default();
    let consumer = env.collector(&env.group(), &topic, "*", &inbox).await;
    until("2 queues", 20, async || assigned(&consumer, &topic) == 2).await;
    let producer = env.producer().await;
    let times = [Duration::from_millis(3_000), Duration::from_millis(7_000)];
    let mut sent = vec![Instant::now()];
    let relative = Message::new(&topic, "0").delay(times[0]);
    producer.send(relative).await.expect("stored");
    sent.push(Instant::now());
    let absolute = Message::new(&topic, "1").deliver_at(SystemTime::now() + times[1]);
    producer.send(absolute).await.expect("stored");
    come_in_time(&inbox, &sent, &times).await;
    consumer.shutdown().await;
}

pub async fn recall(env: Env) {
    let topic = env.topic(1).await;
    let inbox = Inbox::default();
    let consumer = env.collector(&env.group(), &topic, "*", &inbox).await;
    let producer = env.producer().await;
    let delay = Duration::from_secs(4);
    let keep = producer
        .send(Message::new(&topic, "keep").delay(delay))
        .await;
    keep.expect("stored");
    let taken = producer
        .send(Message::new(&topic, "take back").delay(delay))
        .await;
    let receipt = taken.expect("stored");
    let handle = receipt.recall_handle.expect("a handle");
    let id = producer.recall(&topic, &handle).await.expect("taken back");
    assert_eq!(id, receipt.message_id);
    inbox.count(1, 20).await;
    inbox.stays_at(1, Duration::from_millis(1_500)).await;
    assert_eq!(inbox.bodies(), ["keep"]);
    consumer.shutdown().await;
}
