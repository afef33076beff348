//! What a consumer does when a queue is another's for a while, without waiting for the timers that would lead there.

#[path = "../../../tests/fake/broker.rs"]
mod fake;

use std::future::Future;
use std::time::Duration;

use protocol::code::request;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use self::fake::Broker;
use super::*;
use crate::consumer::Ordered;
use crate::message::Message;

const LIMIT: Duration = Duration::from_secs(20);
const GROUP: &str = "g";
const TOPIC: &str = "t";

async fn in_time<T>(waiting: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, waiting).await.expect("in time")
}

/// Nothing is done by timers: only what a test asks for, and what is asked for again because it was not granted.
async fn orderly(broker: &Broker) -> (PushConsumer, UnboundedReceiver<i64>) {
    let (sender, arrived) = unbounded_channel();
    let listener = move |message: crate::Received| {
        let _ = sender.send(message.queue_offset);
        async { Ordered::Done }
    };
    let builder = PushConsumer::builder(GROUP)
        .name_server(broker.address())
        .rebalance_interval(LIMIT * 100)
        .commit_interval(LIMIT * 100)
        .from_first()
        .subscribe(TOPIC, "*");
    let consumer = builder.start_orderly(listener).await.expect("started");
    (consumer, arrived)
}

async fn send(broker: &Broker, count: usize) {
    let builder = Producer::builder("p").name_server(broker.address());
    let producer = builder.start().await.expect("started");
    for _ in 0..count {
        let message = Message::new(TOPIC, "one");
        producer.send(message).await.expect("stored");
    }
}

async fn expect(arrived: &mut UnboundedReceiver<i64>, offsets: impl IntoIterator<Item = i64>) {
    for offset in offsets {
        assert_eq!(in_time(arrived.recv()).await, Some(offset));
    }
}

fn queue() -> MessageQueue {
    MessageQueue {
        broker_name: "fake".to_owned(),
        queue_id: 0,
        topic: TOPIC.to_owned(),
    }
}

/// What another member may do to the queue behind our back.
fn lock_for(broker: &Broker, client_id: &str) {
    let key = (GROUP.to_owned(), queue());
    broker.state().locks.insert(key, client_id.to_owned());
}

fn commit(broker: &Broker, offset: i64) {
    let key = (GROUP.to_owned(), TOPIC.to_owned(), 0);
    broker.state().offsets.insert(key, offset);
}

fn asked(broker: &Broker, code: i32) -> usize {
    let state = broker.state();
    state.asked.iter().filter(|asked| **asked == code).count()
}

#[tokio::test]
async fn a_queue_locked_by_another_is_asked_for_again_soon_and_read_on_from_where_it_was_left() {
    let broker = Broker::start().await;
    broker.make_topic(TOPIC, 1);
    send(&broker, 3).await;
    let (consumer, mut arrived) = orderly(&broker).await;
    expect(&mut arrived, 0..3).await;

    lock_for(&broker, "another");
    assert!(!consumer.shared.renew_locks().await);
    send(&broker, 3).await;
    let before = asked(&broker, request::LOCK_BATCH_MQ);
    consumer.shared.rebalance.notify_one();
    in_time(async {
        while asked(&broker, request::LOCK_BATCH_MQ) < before + 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(arrived.try_recv().is_err(), "it is another's");

    commit(&broker, 5);
    lock_for(&broker, consumer.client_id());
    expect(&mut arrived, [5]).await;
    consumer.shutdown().await;
    let key = (GROUP.to_owned(), TOPIC.to_owned(), 0);
    assert_eq!(broker.state().offsets.get(&key), Some(&6));
}

#[tokio::test]
async fn a_broker_that_does_not_answer_takes_no_lock_away() {
    let broker = Broker::start().await;
    broker.make_topic(TOPIC, 1);
    send(&broker, 1).await;
    let (consumer, mut arrived) = orderly(&broker).await;
    expect(&mut arrived, [0]).await;
    broker.state().refuse_locks = true;
    assert!(consumer.shared.renew_locks().await);
    send(&broker, 1).await;
    expect(&mut arrived, [1]).await;
    consumer.shutdown().await;
}

#[tokio::test]
async fn what_a_member_did_before_it_lost_the_lock_is_not_told_until_it_is_back() {
    let broker = Broker::start().await;
    broker.make_topic(TOPIC, 1);
    send(&broker, 2).await;
    let (consumer, mut arrived) = orderly(&broker).await;
    expect(&mut arrived, 0..2).await;
    lock_for(&broker, "another");
    consumer.shared.renew_locks().await;
    let open = consumer.shared.queues.lock()[&queue()].open.clone();
    consumer.shared.reached(&queue(), &open, 2);
    assert!(consumer.shared.offsets.take(None).is_empty());
    open.set_locked(true);
    consumer.shared.reached(&queue(), &open, 2);
    assert_eq!(consumer.shared.offsets.take(None), [(queue(), 2)]);
}

#[tokio::test]
async fn an_offset_that_could_not_be_told_is_forgotten_with_its_queue() {
    let broker = Broker::start().await;
    broker.make_topic(TOPIC, 1);
    let (consumer, mut arrived) = orderly(&broker).await;
    send(&broker, 1).await;
    expect(&mut arrived, [0]).await;
    let shared = &consumer.shared;
    // No broker has this name.
    let nowhere = MessageQueue {
        broker_name: "nowhere".to_owned(),
        ..queue()
    };
    shared.offsets.reach(&nowhere, 7, || false);
    shared.commit(Some(&nowhere)).await;
    assert!(shared.offsets.take(Some(&nowhere)).is_empty());

    let reader = shared.queues.lock().remove(&queue()).expect("it is read");
    shared.queues.lock().insert(nowhere.clone(), reader);
    shared.offsets.reach(&nowhere, 7, || false);
    shared.commit(Some(&nowhere)).await;
    let kept = shared.offsets.take(Some(&nowhere));
    assert_eq!(kept, [(nowhere.clone(), 7)]);
}
