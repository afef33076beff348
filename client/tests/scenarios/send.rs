//! Producing.

use std::collections::{HashMap, HashSet};

use orbitmq_client::{Compression, Error, Message, Stored};

use crate::env::{Env, now_ms, send_many, text, until};
use crate::inbox::Inbox;

const MIB: usize = 1 << 20;
const NO_PERMISSION: i32 = 16;

pub async fn sync(env: Env) {
    let topic = env.topic(4).await;
    let producer = env.producer().await;
    let mut next: HashMap<(String, i32), i64> = HashMap::new();
    let mut ids = HashSet::new();
    for number in 0..20 {
        let sent = producer
            .send(Message::new(&topic, format!("m{number}")))
            .await;
        let receipt = sent.expect("stored");
        let queue = (receipt.broker_name, receipt.queue_id);
        let expected = next.entry(queue).or_default();
        assert_eq!(receipt.queue_offset, *expected);
        *expected += 1;
        assert_eq!(
            (receipt.message_id.len(), receipt.offset_id.len()),
            (32, 32)
        );
        assert_eq!(receipt.status, Stored::AsPromised);
        ids.insert(receipt.offset_id);
    }
    assert_eq!(ids.len(), 20);
    assert_eq!(
        next.len(),
        producer.queues(&topic).await.expect("a route").len()
    );
    assert_eq!(env.stored(&topic).await, 20);
}

pub async fn submitted(env: Env) {
    let topic = env.topic(4).await;
    let producer = env.producer().await;
    let mut under_way = Vec::new();
    for number in 0..50 {
        let message = Message::new(&topic, format!("m{number}"));
        under_way.push(producer.submit(message).await.expect("handed over"));
    }
    for submitted in under_way {
        submitted.receipt().await.expect("stored");
    }
    assert_eq!(env.stored(&topic).await, 50);
}

pub async fn oneway(env: Env) {
    let topic = env.topic(4).await;
    let producer = env.producer().await;
    for number in 0..50 {
        let message = Message::new(&topic, format!("m{number}"));
        producer.send_oneway(message).await.expect("handed over");
    }
    until("50 stored", 10, async || env.stored(&topic).await == 50).await;
}

pub async fn batch(env: Env) {
    let topic = env.topic(1).await;
    let producer = env.producer().await;
    producer
        .send(Message::new(&topic, "before"))
        .await
        .expect("stored");
    let batch: Vec<Message> = (0..30)
        .map(|number| {
            let tag = if number % 2 == 0 { "even" } else { "odd" };
            Message::new(&topic, format!("b{number}"))
                .tag(tag)
                .key(format!("key{number}"))
        })
        .collect();
    let receipts = producer.send_batch(&batch).await.expect("stored");
    assert_eq!((receipts.len(), receipts[0].queue_offset), (30, 1));
    let got = env.read_all(&topic).await;
    assert_eq!(got.len(), 31);
    for (number, message) in got[1..].iter().enumerate() {
        assert_eq!(text(message), format!("b{number}"));
        assert_eq!(message.queue_offset, number as i64 + 1);
        assert_eq!(message.keys().collect::<Vec<_>>(), [format!("key{number}")]);
        assert_eq!(message.id, receipts[number].message_id);
    }
}

pub async fn selected_queue(env: Env) {
    let topic = env.topic(4).await;
    let producer = env.producer().await;
    let queues = producer.queues(&topic).await.expect("a route");
    for number in 0..10 {
        let message = Message::new(&topic, format!("m{number}"));
        let sent = producer
            .send_selected(message, |_| 2)
            .await
            .expect("stored");
        assert_eq!(
            (sent.queue_id, sent.queue_offset),
            (queues[2].queue_id, number)
        );
    }
    let direct = producer
        .send_to(Message::new(&topic, "direct"), &queues[3])
        .await;
    assert_eq!(direct.expect("stored").queue_id, queues[3].queue_id);
    for number in 0..10 {
        let message = Message::new(&topic, format!("k{number}")).sharding_key("one");
        producer.send_keyed(message).await.expect("stored");
    }
    let bodies: Vec<String> = env.read(&queues[2]).await.iter().map(text).collect();
    assert_eq!(bodies[..3], ["m0", "m1", "m2"]);
    let mut with_keys = 0;
    for queue in &queues {
        let read = env.read(queue).await;
        with_keys += usize::from(read.iter().any(|message| text(message).starts_with('k')));
    }
    assert_eq!(with_keys, 1, "one key, one queue");
}

pub async fn keys_tags_properties(env: Env) {
    let topic = env.topic(1).await;
    let producer = env.producer().await;
    let message = Message::new(&topic, "Grüße, 世界")
        .tag("TagÄ")
        .key("k1 k2")
        .property("colour", "größe-红")
        .flag(77);
    let before = now_ms();
    let receipt = producer.send(message).await.expect("stored");
    let got = env.read_all(&topic).await.remove(0);
    assert_eq!(text(&got), "Grüße, 世界");
    assert_eq!(got.tag(), Some("TagÄ"));
    assert_eq!(got.keys().collect::<Vec<_>>(), ["k1", "k2"]);
    assert_eq!(got.property("colour"), Some("größe-红"));
    assert_eq!((got.flag, got.queue_id, got.reconsumed), (77, 0, 0));
    assert_eq!((got.id, got.topic), (receipt.message_id, topic));
    assert!((got.born_ms - before).abs() < 10_000 && (got.stored_ms - before).abs() < 10_000);
    assert!(got.born_host.ip().is_loopback() && got.stored_host.ip().is_loopback());
}

pub async fn auto_create(env: Env) {
    let topic = env.fresh("AUTO");
    let producer = env.producer().await;
    producer
        .send(Message::new(&topic, "first"))
        .await
        .expect("stored");
    until("a route", 40, async || {
        let route = env.admin.route(&topic).await;
        route.is_ok_and(|route| route.queues.iter().any(|queues| queues.write_queues == 4))
    })
    .await;
    assert_eq!(env.stored(&topic).await, 1);
}

pub async fn compressed(env: Env) {
    let topic = env.topic(1).await;
    let body = "compress me please. ".repeat(5_000);
    let sent = env
        .producer()
        .await
        .send(Message::new(&topic, body.clone()))
        .await;
    sent.expect("stored");
    let got = env.read_all(&topic).await.remove(0);
    assert_eq!(text(&got), body);
    assert!(
        got.stored_bytes < body.len() / 10,
        "stored in {} bytes",
        got.stored_bytes
    );
}

pub async fn compressed_otherwise(env: Env) {
    let topic = env.topic(1).await;
    let body = "compress me please. ".repeat(5_000);
    for kind in [Compression::Lz4, Compression::Zstd, Compression::Zlib] {
        let producer = env.producer_builder().compress_type(kind).start().await;
        let producer = producer.expect("started");
        producer
            .send(Message::new(&topic, body.clone()))
            .await
            .expect("stored");
    }
    let got = env.read_all(&topic).await;
    assert_eq!(got.len(), 3);
    for message in &got {
        assert!(text(message) == body && message.stored_bytes < body.len() / 10);
    }
}

/// Bytes that cannot be compressed.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 7u64;
    let step = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}

pub async fn large(env: Env) {
    let topic = env.topic(1).await;
    let body = noise(4 * MIB - 4_096);
    let builder = env
        .producer_builder()
        .send_timeout(std::time::Duration::from_secs(10));
    let producer = builder.start().await.expect("started");
    producer
        .send(Message::new(&topic, body.clone()))
        .await
        .expect("stored");
    assert!(env.read_all(&topic).await[0].body == body);
}

pub async fn too_large(env: Env) {
    let topic = env.topic(1).await;
    let producer = env.producer().await;
    let refused = producer
        .send(Message::new(&topic, noise(4 * MIB + 1)))
        .await;
    assert!(matches!(refused, Err(Error::Illegal(_))), "{refused:?}");
    let builder = env.producer_builder().body_bytes_max(16 * MIB).retries(0);
    let careless = builder.compress(false).start().await.expect("started");
    let refused = careless.send(Message::new(&topic, noise(5 * MIB))).await;
    assert!(
        matches!(refused, Err(Error::Refused { code: 13, .. })),
        "{refused:?}"
    );
    assert_eq!(env.stored(&topic).await, 0);
    let after = careless
        .send(Message::new(&topic, "the connection still works"))
        .await;
    after.expect("stored");
}

pub async fn too_many_properties(env: Env) {
    let topic = env.topic(1).await;
    let message = Message::new(&topic, "x").property("big", "v".repeat(40_000));
    let refused = env.producer().await.send(message).await;
    assert!(matches!(refused, Err(Error::Illegal(_))), "{refused:?}");
}

pub async fn permissions(env: Env) {
    let topic = env.topic(1).await;
    let first = env.producer().await;
    first.send(Message::new(&topic, "x")).await.expect("stored");
    let queue = first.queues(&topic).await.expect("a route").remove(0);
    let masters = env.admin.masters(None).await.expect("brokers");
    for broker in &masters {
        let changed = env.admin.set_topic_perm(&broker.address, &topic, 4).await;
        changed.expect("read only");
    }
    until("a refusal to send", 15, async || {
        let producer = env
            .producer_builder()
            .retries(0)
            .start()
            .await
            .expect("started");
        producer.send(Message::new(&topic, "y")).await.is_err()
    })
    .await;
    for broker in &masters {
        let changed = env.admin.set_topic_perm(&broker.address, &topic, 2).await;
        changed.expect("write only");
    }
    let puller = env.puller(&env.group()).await;
    let refused = puller.pull(&queue, "*", 0, 32).await;
    let code = match refused {
        Err(Error::Refused { code, .. }) => code,
        other => panic!("a write-only topic was read: {other:?}"),
    };
    assert_eq!(code, NO_PERMISSION);
}

pub async fn namespace(env: Env) {
    let tenant = env.fresh("NS");
    let topic = env.fresh("T");
    env.make_topic(&format!("{tenant}%{topic}"), 2).await;
    let builder = env.producer_builder().namespace(&tenant);
    let producer = builder.start().await.expect("started");
    let inbox = Inbox::default();
    let group = env.group();
    let builder = env.pusher(&group).namespace(&tenant).subscribe(&topic, "*");
    let consumer = builder
        .from_first()
        .start(inbox.listener())
        .await
        .expect("started");
    let sent = send_many(&producer, &topic, None, "m", 10).await;
    inbox.expect(&sent, 20).await;
    assert!(inbox.all().iter().all(|message| message.topic == topic));
    assert_eq!(env.stored(&format!("{tenant}%{topic}")).await, 10);
    consumer.shutdown().await;
}
