//! The broker goes away and comes back; on a broker of its own.

use orbitmq_client::Message;

use crate::env::{Env, send_many, until};
use crate::inbox::Inbox;
use crate::process::Orbit;

pub async fn stopped(env: Env) {
    restart(env, false).await;
}

pub async fn killed(env: Env) {
    restart(env, true).await;
}

async fn restart(shared: Env, kill: bool) {
    if !shared.own_broker {
        println!("     a cluster that runs already is not restarted");
        return;
    }
    let mut orbit = Orbit::start(&[]).await.expect("there was one before");
    let env = Env::new(
        if kill { "killed" } else { "stopped" },
        &orbit.name_server,
        true,
    );
    let (topic, delayed_topic) = (env.topic(3).await, env.topic(1).await);
    let group = env.group();
    let producer = env
        .producer_builder()
        .retries(3)
        .start()
        .await
        .expect("started");

    let before = Inbox::default();
    let consumer = env.collector(&group, &topic, "*", &before).await;
    let first = send_many(&producer, &topic, None, "m", 20).await;
    before.expect(&first, 20).await;
    consumer.shutdown().await;
    let unread = send_many(&producer, &topic, None, "n", 10).await;
    let later = Message::new(&delayed_topic, "delayed").delay_level(3);
    producer.send(later).await.expect("stored");
    let living = Inbox::default();
    let living_group = env.group();
    let survivor = env.collector(&living_group, &topic, "*", &living).await;
    living.count(30, 20).await;
    let delayed = Inbox::default();
    let waiting = env
        .collector(&env.group(), &delayed_topic, "*", &delayed)
        .await;
    // What a kill may take is in memory no more.
    until("saved offsets", 30, async || {
        [(&group, 20), (&living_group, 30)]
            .iter()
            .all(|(group, count)| orbit.saved_offsets(&topic, group).iter().sum::<i64>() == *count)
    })
    .await;

    orbit.restart(kill).await;

    until("30 messages", 30, async || env.stored(&topic).await == 30).await;
    let after = Inbox::default();
    let again = env.collector(&group, &topic, "*", &after).await;
    after.expect(&unread, 30).await;
    let mut sent = Vec::new();
    for number in 0..10 {
        let body = format!("o{number}");
        until("sending to work again", 30, async || {
            producer
                .send(Message::new(&topic, body.clone()))
                .await
                .is_ok()
        })
        .await;
        sent.push(body);
    }
    let has_all = |inbox: &Inbox| {
        let bodies = inbox.bodies();
        sent.iter().all(|body| bodies.contains(body))
    };
    until("the new ones where it lived on", 60, async || {
        has_all(&living)
    })
    .await;
    until("the new ones at the other", 30, async || has_all(&after)).await;
    delayed.expect(&["delayed".to_owned()], 30).await;
    for consumer in [again, survivor, waiting] {
        consumer.shutdown().await;
    }
    producer.shutdown().await;
}
