//! Push consumers: concurrent, orderly, filters, broadcasting, rebalance, request and reply.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use orbitmq_client::{
    ConsumeFrom, Consumed, Filter, Message, Ordered, Producer, PushConsumer, Received,
};

use crate::env::{Env, assigned, content, send_many, text, until};
use crate::inbox::Inbox;

pub async fn concurrently(env: Env) {
    let topic = env.topic(4).await;
    let inbox = Inbox::default();
    let consumer = env.collector(&env.group(), &topic, "*", &inbox).await;
    let sent = send_many(&env.producer().await, &topic, None, "m", 200).await;
    inbox.expect(&sent, 20).await;
    consumer.shutdown().await;
}

pub async fn latency(env: Env) {
    let topic = env.topic(1).await;
    let inbox = Inbox::default();
    let producer = env.producer().await;
    let consumer = env.collector(&env.group(), &topic, "*", &inbox).await;
    send_many(&producer, &topic, None, "warm up ", 1).await;
    inbox.count(1, 20).await;
    // Each finds the pull parked, or on its way.
    for number in 1..10 {
        let sent = std::time::Instant::now();
        send_many(&producer, &topic, None, "another ", 1).await;
        inbox.count(number + 1, 10).await;
        assert!(inbox.at(number) - sent < Duration::from_secs(1));
    }
    consumer.shutdown().await;
}

/// Of each queue, m0, m1, ... in this order.
fn in_order(inbox: &Inbox, queues: usize, each: usize) {
    let mut next: HashMap<i32, usize> = HashMap::new();
    for message in inbox.all() {
        let expected = next.entry(message.queue_id).or_default();
        assert_eq!(
            text(&message),
            format!("m{expected}"),
            "queue {}",
            message.queue_id
        );
        *expected += 1;
    }
    assert_eq!(next.len(), queues);
    assert!(next.values().all(|count| *count == each), "{next:?}");
}

async fn send_to_all(producer: &Producer, topic: &str, range: std::ops::Range<usize>) {
    let queues = producer.queues(topic).await.expect("a route");
    for number in range {
        for queue in &queues {
            let message = Message::new(topic, format!("m{number}"));
            producer.send_to(message, queue).await.expect("stored");
        }
    }
}

pub async fn orderly(env: Env) {
    let topic = env.topic(4).await;
    let inbox = Inbox::default();
    let refused = Arc::new(AtomicBool::new(false));
    let (arrived, once) = (inbox.clone(), refused.clone());
    let listener = move |message: Received| {
        let refuse = message.queue_id == 1 && text(&message) == "m3";
        let suspend = refuse && !once.swap(true, Ordering::SeqCst);
        if !suspend {
            arrived.add(message);
        }
        async move {
            match suspend {
                true => Ordered::SuspendFor(Duration::from_millis(500)),
                false => Ordered::Done,
            }
        }
    };
    let builder = env.pusher(&env.group()).subscribe(&topic, "*").from_first();
    let consumer = builder.start_orderly(listener).await.expect("started");
    send_to_all(&env.producer().await, &topic, 0..25).await;
    inbox.count(100, 30).await;
    assert!(refused.load(Ordering::SeqCst));
    in_order(&inbox, 4, 25);
    consumer.shutdown().await;
}

async fn orderly_consumer(env: &Env, group: &str, topic: &str, inbox: &Inbox) -> PushConsumer {
    let builder = env.pusher(group).subscribe(topic, "*").from_first();
    let started = builder.start_orderly(inbox.orderly()).await;
    started.expect("started")
}

pub async fn orderly_two(env: Env) {
    let (topic, group) = (env.topic(4).await, env.group());
    let inbox = Inbox::default();
    let producer = env.producer().await;
    let one = orderly_consumer(&env, &group, &topic, &inbox).await;
    until("4 queues", 20, async || assigned(&one, &topic) == 4).await;
    let two = orderly_consumer(&env, &group, &topic, &inbox).await;
    until("2 queues each", 30, async || {
        assigned(&one, &topic) == 2 && assigned(&two, &topic) == 2
    })
    .await;
    send_to_all(&producer, &topic, 0..10).await;
    inbox.count(40, 30).await;
    two.shutdown().await;
    until("4 queues again", 30, async || assigned(&one, &topic) == 4).await;
    send_to_all(&producer, &topic, 10..20).await;
    inbox.count(80, 30).await;
    in_order(&inbox, 4, 20);
    one.shutdown().await;
}

pub async fn tag_filter(env: Env) {
    let topic = env.topic(2).await;
    let inbox = Inbox::default();
    let consumer = env.collector(&env.group(), &topic, "A || B", &inbox).await;
    let producer = env.producer().await;
    let mut wanted = Vec::new();
    for number in 0..10 {
        for (tag, expected) in [
            (Some("A"), true),
            (Some("B"), true),
            (Some("C"), false),
            (None, false),
        ] {
            let prefix = format!("{}{number}-", tag.unwrap_or("none"));
            let sent = send_many(&producer, &topic, tag, &prefix, 1).await;
            if expected {
                wanted.extend(sent);
            }
        }
    }
    inbox.expect(&wanted, 20).await;
    consumer.shutdown().await;
}

pub async fn sql_filter(env: Env) {
    let topic = env.topic(2).await;
    let cases: [(&str, &[&str]); 5] = [
        ("price > 5", &["ten-eu", "twenty-us"]),
        ("price BETWEEN 1 AND 10 AND region = 'eu'", &["ten-eu"]),
        ("region IS NULL", &["three-none"]),
        (
            "region IN ('us', 'cn') OR price <= 3",
            &["twenty-us", "three-none", "free-cn"],
        ),
        ("NOT (region = 'eu') AND price IS NOT NULL", &["twenty-us"]),
    ];
    let mut started = Vec::new();
    for (condition, _) in cases {
        let inbox = Inbox::default();
        let builder = env
            .pusher(&env.group())
            .subscribe(&topic, Filter::sql(condition));
        let consumer = builder.from_first().start(inbox.listener()).await;
        started.push((consumer.expect("started"), inbox));
    }
    let producer = env.producer().await;
    for (body, price, region) in [
        ("ten-eu", Some("10"), Some("eu")),
        ("twenty-us", Some("20"), Some("us")),
        ("three-none", Some("3"), None),
        ("free-cn", None, Some("cn")),
    ] {
        let mut message = Message::new(&topic, body).tag("T");
        for (name, value) in [("price", price), ("region", region)] {
            if let Some(value) = value {
                message = message.property(name, value);
            }
        }
        producer.send(message).await.expect("stored");
    }
    for ((consumer, inbox), (condition, expected)) in started.iter().zip(cases) {
        println!("     {condition}");
        let expected: Vec<String> = expected.iter().map(|body| (*body).to_owned()).collect();
        inbox.expect(&expected, 20).await;
        consumer.shutdown().await;
    }
}

pub async fn sql_wrong(env: Env) {
    let topic = env.topic(1).await;
    for condition in ["price >", "price > > 3", "a = 'x' AND", "price * 2 > 3"] {
        let builder = env
            .pusher(&env.group())
            .subscribe(&topic, Filter::sql(condition));
        let started = builder.start(content).await;
        assert!(started.is_err(), "the broker let this pass: {condition}");
    }
}

pub async fn broadcasting(env: Env) {
    let (topic, group) = (env.topic(2).await, env.group());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let inboxes = [Inbox::default(), Inbox::default()];
    let mut consumers = Vec::new();
    for inbox in &inboxes {
        let builder = env.pusher(&group).subscribe(&topic, "*").broadcasting();
        let builder = builder
            .instance_name(env.fresh("I"))
            .offsets_folder(folder.path());
        let consumer = builder.start(inbox.listener()).await.expect("started");
        until("2 queues", 20, async || assigned(&consumer, &topic) == 2).await;
        consumers.push(consumer);
    }
    let sent = send_many(&env.producer().await, &topic, None, "m", 20).await;
    for inbox in &inboxes {
        inbox.expect(&sent, 20).await;
    }
    for consumer in consumers {
        consumer.shutdown().await;
    }
}

pub async fn two_groups(env: Env) {
    let topic = env.topic(2).await;
    let (one, two) = (Inbox::default(), Inbox::default());
    let first = env.collector(&env.group(), &topic, "*", &one).await;
    let second = env.collector(&env.group(), &topic, "*", &two).await;
    let sent = send_many(&env.producer().await, &topic, None, "m", 20).await;
    one.expect(&sent, 20).await;
    two.expect(&sent, 20).await;
    first.shutdown().await;
    second.shutdown().await;
}

pub async fn rebalance(env: Env) {
    let (topic, group) = (env.topic(4).await, env.group());
    let producer = env.producer().await;
    let (in_one, in_two) = (Inbox::default(), Inbox::default());
    let one = env.collector(&group, &topic, "*", &in_one).await;
    until("4 queues", 20, async || assigned(&one, &topic) == 4).await;
    let two = env.collector(&group, &topic, "*", &in_two).await;
    // The timer is 20 s: the broker must tell the group.
    until("2 queues each", 12, async || {
        assigned(&one, &topic) == 2 && assigned(&two, &topic) == 2
    })
    .await;
    let mut sent = send_many(&producer, &topic, None, "m", 40).await;
    until("40 messages", 20, async || {
        in_one.len() + in_two.len() >= 40
    })
    .await;
    assert!(in_one.len() > 0 && in_two.len() > 0);
    two.shutdown().await;
    until("4 queues again", 12, async || assigned(&one, &topic) == 4).await;
    sent.extend(send_many(&producer, &topic, None, "n", 40).await);
    until("80 messages", 20, async || {
        in_one.len() + in_two.len() >= 80
    })
    .await;
    let mut got = in_one.bodies();
    got.extend(in_two.bodies());
    got.sort();
    sent.sort();
    assert_eq!(got, sent, "each once");
    one.shutdown().await;
}

pub async fn consumer_restart(env: Env) {
    let (topic, group) = (env.topic(4).await, env.group());
    let producer = env.producer().await;
    let (before, after) = (Inbox::default(), Inbox::default());
    let first = env.collector(&group, &topic, "*", &before).await;
    let sent = send_many(&producer, &topic, None, "m", 20).await;
    before.expect(&sent, 20).await;
    first.shutdown().await;
    let meanwhile = send_many(&producer, &topic, None, "n", 20).await;
    let second = env.collector(&group, &topic, "*", &after).await;
    after.expect(&meanwhile, 20).await;
    second.shutdown().await;
}

pub async fn from_where(env: Env) {
    let topic = env.topic(1).await;
    let producer = env.producer().await;
    let mut all = send_many(&producer, &topic, None, "old", 10).await;
    let now = env.time_between(&topic).await;
    all.extend(send_many(&producer, &topic, None, "young", 10).await);
    // A queue that still holds everything: the broker answers with its start for a group it does not know, whatever the
    // consumer would like.
    for from in [
        ConsumeFrom::Last,
        ConsumeFrom::Timestamp(now),
        ConsumeFrom::First,
    ] {
        let inbox = Inbox::default();
        let builder = env
            .pusher(&env.group())
            .subscribe(&topic, "*")
            .consume_from(from);
        let consumer = builder.start(inbox.listener()).await.expect("started");
        inbox.expect(&all, 20).await;
        consumer.shutdown().await;
    }
}

pub async fn batches(env: Env) {
    let topic = env.topic(1).await;
    let sent = send_many(&env.producer().await, &topic, None, "m", 50).await;
    let inbox = Inbox::default();
    let largest = Arc::new(AtomicUsize::new(0));
    let (arrived, most) = (inbox.clone(), largest.clone());
    let listener = move |messages: Vec<Received>| {
        most.fetch_max(messages.len(), Ordering::SeqCst);
        messages
            .into_iter()
            .for_each(|message| arrived.add(message));
        async { Consumed::Done }
    };
    let builder = env.pusher(&env.group()).subscribe(&topic, "*").from_first();
    let consumer = builder.start_batches(16, listener).await.expect("started");
    inbox.expect(&sent, 20).await;
    assert_eq!(largest.load(Ordering::SeqCst), 16);
    consumer.shutdown().await;
}

pub async fn request_reply(env: Env) {
    let topic = env.topic(2).await;
    let replier = env.producer().await;
    let listener = move |question: Received| {
        let replier = replier.clone();
        async move {
            let answer = format!("re: {}", text(&question));
            let reply = Message::reply(&question, answer).expect("it is a request");
            match replier.send(reply).await {
                Ok(_) => Consumed::Done,
                Err(_) => Consumed::Later,
            }
        }
    };
    let builder = env.pusher(&env.group()).subscribe(&topic, "*").from_first();
    let consumer = builder.start(listener).await.expect("started");
    until("2 queues", 20, async || assigned(&consumer, &topic) == 2).await;
    let asker = env.producer().await;
    for number in 0..5 {
        let question = Message::new(&topic, format!("question {number}"));
        let reply = asker.request(question, Duration::from_secs(10)).await;
        assert_eq!(
            text(&reply.expect("a reply")),
            format!("re: question {number}")
        );
    }
    consumer.shutdown().await;
}
