//! Queries, traces, resets, and what an operator asks a consumer.

use orbitmq_client::admin::Target;
use orbitmq_client::{Error, Message};

use crate::env::{Env, content, now_ms, send_many, text, until};
use crate::inbox::Inbox;

pub async fn by_id(env: Env) {
    let topic = env.topic(2).await;
    let sent = env
        .producer()
        .await
        .send(Message::new(&topic, "find me"))
        .await;
    let receipt = sent.expect("stored");
    let found = env.admin.message_by_offset_id(&receipt.offset_id).await;
    let found = found.expect("found");
    assert_eq!(
        (text(&found).as_str(), found.queue_offset),
        ("find me", receipt.queue_offset)
    );
    until("the entry of its id", 10, async || {
        let found = env.admin.messages_by_id(&topic, &receipt.message_id).await;
        found.is_ok_and(|found| found.len() == 1 && text(&found[0]) == "find me")
    })
    .await;
    let beyond = format!("{}0000000FFFFFFFFF", &receipt.offset_id[..16]);
    let refused = env.admin.message_by_offset_id(&beyond).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
}

pub async fn by_key(env: Env) {
    let topic = env.topic(4).await;
    let key = env.fresh("key");
    let producer = env.producer().await;
    let begin = now_ms();
    for number in 0..12 {
        let keys = match number % 3 {
            0 => format!("{key} other{number}"),
            _ => format!("other{number}"),
        };
        let message = Message::new(&topic, format!("m{number}")).key(keys);
        producer.send(message).await.expect("stored");
    }
    let span = [begin - 1_000, begin + 60_000];
    let find = async |key: &str, max| {
        let found = env.admin.messages_by_key(&topic, key, max, span).await;
        let mut bodies: Vec<String> = found.expect("asked").iter().map(text).collect();
        bodies.sort();
        bodies
    };
    until("4 messages by key", 10, async || {
        find(&key, 32).await.len() == 4
    })
    .await;
    assert_eq!(find(&key, 32).await, ["m0", "m3", "m6", "m9"]);
    assert_eq!(find(&key, 2).await.len(), 2);
    assert_eq!(find("other5", 32).await, ["m5"]);
    assert!(find("no-such-key", 32).await.is_empty());
}

pub async fn trace(env: Env) {
    let (topic, group) = (env.topic(1).await, env.group());
    let builder = env.producer_builder().enable_trace(true);
    let producer = builder.start().await.expect("started");
    let inbox = Inbox::default();
    let builder = env
        .pusher(&group)
        .subscribe(&topic, "*")
        .from_first()
        .enable_trace(true);
    let consumer = builder.start(inbox.listener()).await.expect("started");
    let begin = now_ms();
    let receipt = producer
        .send(Message::new(&topic, "traced"))
        .await
        .expect("stored");
    inbox.count(1, 20).await;
    producer.shutdown().await;
    consumer.shutdown().await;
    let lines = async || {
        let span = [begin - 5_000, begin + 120_000];
        let id = &receipt.message_id;
        let found = env
            .admin
            .messages_by_key("RMQ_SYS_TRACE_TOPIC", id, 32, span)
            .await;
        let found = found.unwrap_or_default();
        found.iter().map(text).collect::<String>()
    };
    until("traces of both", 30, async || {
        let lines = lines().await;
        ["Pub\u{1}", "SubBefore\u{1}", "SubAfter\u{1}"]
            .iter()
            .all(|kind| lines.contains(kind))
    })
    .await;
    assert!(lines().await.contains(&topic));
}

pub async fn reset_offset(env: Env) {
    let (topic, group) = (env.topic(2).await, env.group());
    let producer = env.producer().await;
    let inbox = Inbox::default();
    let consumer = env.collector(&group, &topic, "*", &inbox).await;
    send_many(&producer, &topic, None, "old", 10).await;
    let middle = env.time_between(&topic).await;
    let young = send_many(&producer, &topic, None, "young", 10).await;
    inbox.count(20, 20).await;
    consumer.commit().await;
    inbox.clear();
    let reset = env
        .admin
        .reset_offsets(&group, &topic, Target::Time(middle), None)
        .await;
    let moved = reset.expect("reset");
    assert_eq!(moved.len(), 2);
    assert!(
        moved.iter().all(|queue| [4, 5].contains(&queue.to)),
        "{moved:?}"
    );
    until("the young ones once more", 45, async || {
        let bodies = inbox.bodies();
        young.iter().all(|body| bodies.contains(body))
    })
    .await;
    assert!(inbox.len() <= 12, "not the old ones: {:?}", inbox.bodies());
    consumer.shutdown().await;
}

pub async fn running_info(env: Env) {
    let (topic, group) = (env.topic(2).await, env.group());
    let inbox = Inbox::default();
    let consumer = env.collector(&group, &topic, "*", &inbox).await;
    send_many(&env.producer().await, &topic, None, "m", 10).await;
    inbox.count(10, 20).await;
    until("its queues", 20, async || {
        let running = env.admin.running(&group, consumer.client_id(), true).await;
        running.is_ok_and(|running| {
            let own = running.queues.iter().filter(|queue| queue.topic == topic);
            own.clone().count() == 2
                && running.stacks.is_some()
                && running.settings["PROP_CONSUMEORDERLY"] == "false"
        })
    })
    .await;
    let members = env.admin.members(&group).await.expect("known");
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].client_id, consumer.client_id());
    consumer.shutdown().await;
}

pub async fn consume_directly(env: Env) {
    let (topic, group) = (env.topic(1).await, env.group());
    let inbox = Inbox::default();
    let consumer = env.collector(&group, &topic, "*", &inbox).await;
    let sent = env
        .producer()
        .await
        .send(Message::new(&topic, "again"))
        .await;
    let receipt = sent.expect("stored");
    inbox.count(1, 20).await;
    let found = env
        .admin
        .message_by_offset_id(&receipt.offset_id)
        .await
        .expect("found");
    let result = env
        .admin
        .consume_directly(&group, consumer.client_id(), &found)
        .await;
    let result = serde_json::to_value(result.expect("consumed")).expect("JSON");
    assert_eq!(result["consumeResult"], "CR_SUCCESS");
    assert_eq!(inbox.bodies(), ["again", "again"]);
    consumer.shutdown().await;
}

pub async fn delete_topic(env: Env) {
    let topic = env.topic(2).await;
    let producer = env.producer().await;
    producer
        .send(Message::new(&topic, "x"))
        .await
        .expect("stored");
    let deleted = env.admin.delete_topic(&topic, None).await;
    deleted.expect("deleted");
    let route = env.admin.route(&topic).await;
    assert!(matches!(route, Err(Error::NoRoute { .. })), "{route:?}");
    let builder = env.pusher(&env.group()).subscribe(&topic, "*");
    let started = builder.start(content).await;
    started
        .expect("a consumer waits for its topic")
        .shutdown()
        .await;
}
