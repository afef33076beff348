//! The push consumer against a broker in this process. Everything is awaited by events; the time limit only turns a
//! hang into a failure.

#[path = "fake/broker.rs"]
mod fake;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fake::Broker;
use orbitmq_client::{Consumed, Message, Producer, PushConsumer, PushConsumerBuilder, Received};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const LIMIT: Duration = Duration::from_secs(20);

async fn in_time<T>(waiting: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, waiting).await.expect("in time")
}

async fn producer(broker: &Broker) -> Producer {
    Producer::builder("p")
        .name_server(broker.address())
        .start()
        .await
        .expect("started")
}

fn consumer(broker: &Broker, group: &str) -> PushConsumerBuilder {
    PushConsumer::builder(group)
        .name_server(broker.address())
        .from_first()
        .rebalance_interval(Duration::from_millis(200))
        .commit_interval(Duration::from_millis(100))
}

/// A consumer that is content with everything and passes it on.
async fn collect(builder: PushConsumerBuilder) -> (PushConsumer, UnboundedReceiver<Received>) {
    let (sender, arrived) = unbounded_channel();
    let listener = move |message| {
        let sender = sender.clone();
        async move {
            let _ = sender.send(message);
            Consumed::Done
        }
    };
    (builder.start(listener).await.expect("started"), arrived)
}

async fn send(broker: &Broker, topic: &str, bodies: impl IntoIterator<Item = String>) {
    let producer = producer(broker).await;
    for body in bodies {
        producer
            .send(Message::new(topic, body))
            .await
            .expect("stored");
    }
}

async fn take(arrived: &mut UnboundedReceiver<Received>, count: usize) -> BTreeSet<String> {
    let mut bodies = BTreeSet::new();
    while bodies.len() < count {
        let message = in_time(arrived.recv()).await.expect("the consumer runs");
        bodies.insert(String::from_utf8(message.body).expect("text"));
    }
    bodies
}

fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("{number:04}")).collect()
}

async fn until(mut met: impl FnMut() -> bool) {
    in_time(async {
        while !met() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn everything_sent_before_and_after_the_start_arrives_once() {
    let broker = Broker::start().await;
    broker.make_topic("t", 4);
    send(&broker, "t", numbered(0..50)).await;
    let (consumer, mut arrived) = collect(consumer(&broker, "g").subscribe("t", "*")).await;
    assert_eq!(
        take(&mut arrived, 50).await,
        numbered(0..50).into_iter().collect()
    );
    send(&broker, "t", numbered(50..100)).await;
    assert_eq!(
        take(&mut arrived, 50).await,
        numbered(50..100).into_iter().collect()
    );
    consumer.shutdown().await;
    assert!(arrived.try_recv().is_err(), "nothing came twice");
}

#[tokio::test]
async fn a_message_arrives_with_all_that_was_given_to_it() {
    let broker = Broker::start().await;
    broker.make_topic("t", 1);
    let sent = Message::new("t", vec![b'z'; 10_000])
        .tag("a")
        .key("k1 k2")
        .property("p", "v")
        .flag(7);
    let builder = Producer::builder("p")
        .name_server(broker.address())
        .compress(true);
    let receipt = builder
        .start()
        .await
        .expect("started")
        .send(sent)
        .await
        .expect("stored");
    let (_consumer, mut arrived) = collect(consumer(&broker, "g").subscribe("t", "*")).await;
    let message = in_time(arrived.recv()).await.expect("the consumer runs");
    assert_eq!(message.body, vec![b'z'; 10_000]);
    assert_eq!(
        (message.id, message.offset_id),
        (receipt.message_id, receipt.offset_id)
    );
    assert_eq!(
        (message.topic.as_str(), message.flag, message.queue_offset),
        ("t", 7, 0)
    );
}

#[tokio::test]
async fn only_the_tags_wanted_are_delivered() {
    let broker = Broker::start().await;
    broker.make_topic("t", 2);
    let producer = producer(&broker).await;
    for (number, tag) in ["a", "b", "c", "a"].into_iter().enumerate() {
        let message = Message::new("t", format!("{tag}{number}")).tag(tag);
        producer.send(message).await.expect("stored");
    }
    let (_consumer, mut arrived) = collect(consumer(&broker, "g").subscribe("t", "a || c")).await;
    let expected = ["a0", "a3", "c2"].map(str::to_owned);
    assert_eq!(take(&mut arrived, 3).await, expected.into_iter().collect());
}

#[tokio::test]
async fn a_restarted_consumer_goes_on_where_the_one_before_ended() {
    let broker = Broker::start().await;
    broker.make_topic("t", 2);
    send(&broker, "t", numbered(0..20)).await;
    let (first, mut arrived) = collect(consumer(&broker, "g").subscribe("t", "*")).await;
    take(&mut arrived, 20).await;
    first.shutdown().await;
    send(&broker, "t", numbered(20..30)).await;
    let (_second, mut arrived) = collect(consumer(&broker, "g").subscribe("t", "*")).await;
    assert_eq!(
        take(&mut arrived, 10).await,
        numbered(20..30).into_iter().collect()
    );
}

#[tokio::test]
async fn progress_is_committed_while_running() {
    let broker = Broker::start().await;
    broker.make_topic("t", 1);
    send(&broker, "t", numbered(0..10)).await;
    let (_consumer, mut arrived) = collect(consumer(&broker, "g").subscribe("t", "*")).await;
    take(&mut arrived, 10).await;
    let key = ("g".to_owned(), "t".to_owned(), 0);
    until(|| broker.state().offsets.get(&key) == Some(&10)).await;
}

#[tokio::test]
async fn members_share_the_queues_and_take_over_when_one_leaves() {
    let broker = Broker::start().await;
    broker.make_topic("t", 8);
    let quiet = |builder: PushConsumerBuilder| {
        builder
            .rebalance_interval(Duration::from_secs(3600))
            .subscribe("t", "*")
    };
    let (one, mut first) = collect(quiet(consumer(&broker, "g"))).await;
    let ours = |consumer: &PushConsumer| {
        consumer
            .queues()
            .iter()
            .filter(|(topic, _, _)| topic == "t")
            .count()
    };
    until(|| ours(&one) == 8).await;
    let (two, mut second) = collect(quiet(consumer(&broker, "g"))).await;
    // The broker's notice is enough: nobody waits for the timer.
    until(|| (ours(&one), ours(&two)) == (4, 4)).await;
    send(&broker, "t", numbered(0..16)).await;
    let mut all = take(&mut first, 8).await;
    all.extend(take(&mut second, 8).await);
    assert_eq!(all, numbered(0..16).into_iter().collect());
    two.shutdown().await;
    until(|| ours(&one) == 8).await;
    send(&broker, "t", numbered(16..32)).await;
    assert_eq!(
        take(&mut first, 16).await,
        numbered(16..32).into_iter().collect()
    );
}

#[tokio::test]
async fn broadcasting_gives_everything_to_everyone() {
    let broker = Broker::start().await;
    broker.make_topic("t", 4);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let member = |name: &str| {
        consumer(&broker, "g")
            .subscribe("t", "*")
            .broadcasting()
            .instance_name(name)
            .offsets_folder(folder.path())
    };
    let (_one, mut first) = collect(member("one")).await;
    let (_two, mut second) = collect(member("two")).await;
    send(&broker, "t", numbered(0..12)).await;
    assert_eq!(take(&mut first, 12).await, take(&mut second, 12).await);
    assert!(
        broker.state().offsets.is_empty(),
        "the broker keeps no offsets of a broadcasting group"
    );
}

#[tokio::test]
async fn what_is_wanted_later_comes_again_under_its_own_topic() {
    let broker = Broker::start().await;
    broker.make_topic("t", 1);
    send(&broker, "t", numbered(0..1)).await;
    let (sender, mut deliveries) = unbounded_channel();
    let listener = move |message: Received| {
        let sender = sender.clone();
        async move {
            let again = message.reconsumed == 0;
            let _ = sender.send((message.topic, message.reconsumed));
            if again {
                Consumed::Later
            } else {
                Consumed::Done
            }
        }
    };
    let started = consumer(&broker, "g")
        .subscribe("t", "*")
        .start(listener)
        .await;
    let _consumer = started.expect("started");
    assert_eq!(in_time(deliveries.recv()).await, Some(("t".to_owned(), 0)));
    assert_eq!(in_time(deliveries.recv()).await, Some(("t".to_owned(), 1)));
}

#[tokio::test]
async fn shutdown_waits_for_the_listener_and_commits_what_it_did() {
    let broker = Broker::start().await;
    broker.make_topic("t", 1);
    send(&broker, "t", numbered(0..1)).await;
    let (started, mut begun) = unbounded_channel();
    let goes_on = Arc::new(Notify::new());
    let may_go_on = Arc::clone(&goes_on);
    let listener = move |_| {
        let (started, may_go_on) = (started.clone(), Arc::clone(&may_go_on));
        async move {
            let _ = started.send(());
            may_go_on.notified().await;
            Consumed::Done
        }
    };
    let builder = consumer(&broker, "g")
        .commit_interval(LIMIT * 10)
        .subscribe("t", "*");
    let consumer = builder.start(listener).await.expect("started");
    in_time(begun.recv()).await.expect("called");
    let mut shutdown = pin!(consumer.shutdown());
    let early = tokio::time::timeout(Duration::from_millis(100), &mut shutdown).await;
    assert!(early.is_err(), "the listener works");
    goes_on.notify_one();
    in_time(shutdown).await;
    let key = ("g".to_owned(), "t".to_owned(), 0);
    assert_eq!(broker.state().offsets.get(&key), Some(&1));
}

#[tokio::test]
async fn a_listener_that_panics_gives_its_message_back_and_the_others_go_on() {
    let broker = Broker::start().await;
    broker.make_topic("t", 1);
    send(&broker, "t", numbered(0..3)).await;
    let (sender, mut deliveries) = unbounded_channel();
    let listener = move |message: Received| {
        let sender = sender.clone();
        let text = String::from_utf8(message.body).expect("text");
        assert!(
            text != "0001" || message.reconsumed > 0,
            "a panic of the application's own"
        );
        async move {
            let _ = sender.send(text);
            Consumed::Done
        }
    };
    let builder = consumer(&broker, "g").subscribe("t", "*");
    let consumer = builder.start(listener).await.expect("started");
    let mut all = BTreeSet::new();
    while all.len() < 3 {
        all.insert(in_time(deliveries.recv()).await.expect("the consumer runs"));
    }
    assert_eq!(all, numbered(0..3).into_iter().collect());
    consumer.shutdown().await;
    let key = ("g".to_owned(), "t".to_owned(), 0);
    assert_eq!(broker.state().offsets.get(&key), Some(&3));
}

#[tokio::test]
async fn a_paused_consumer_pulls_nothing_until_it_is_resumed() {
    let broker = Broker::start().await;
    broker.make_topic("t", 1);
    let builder = consumer(&broker, "g").subscribe("t", "*");
    let (consumer, mut arrived) = collect(builder).await;
    consumer.pause();
    // A pull that is parked at the broker brings the first, or none is; what comes behind it stays there.
    send(&broker, "t", numbered(0..1)).await;
    let one = tokio::time::timeout(Duration::from_secs(1), arrived.recv()).await;
    let came = one.map_or(0, |_| 1);
    send(&broker, "t", numbered(1..2)).await;
    let nothing = tokio::time::timeout(Duration::from_millis(300), arrived.recv()).await;
    assert!(nothing.is_err(), "it is paused");
    consumer.resume();
    take(&mut arrived, 2 - came).await;
    consumer.shutdown().await;
}

#[tokio::test]
async fn thresholds_hold_back_what_the_listener_cannot_take_yet() {
    let broker = Broker::start().await;
    broker.make_topic("t", 1);
    send(&broker, "t", numbered(0..50)).await;
    let (started, mut begun) = unbounded_channel();
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let open = gate.clone();
    let listener = move |_| {
        let (started, open) = (started.clone(), open.clone());
        async move {
            let _ = started.send(());
            let _ = open.acquire().await;
            Consumed::Done
        }
    };
    let builder = consumer(&broker, "g")
        .subscribe("t", "*")
        .concurrency(100)
        .pull_messages(5)
        .queue_thresholds(10, 1);
    let consumer = builder.start(listener).await.expect("started");
    for _ in 0..10 {
        in_time(begun.recv()).await.expect("called");
    }
    let more = tokio::time::timeout(Duration::from_millis(200), begun.recv()).await;
    assert!(more.is_err(), "ten are open, no more are pulled");
    gate.add_permits(1_000);
    for _ in 10..50 {
        in_time(begun.recv()).await.expect("called");
    }
    consumer.shutdown().await;
}
