//! The producer against a broker in this process that can be told to fail.

#[path = "fake/broker.rs"]
mod fake;

use std::time::Duration;

use fake::Broker;
use orbitmq_client::{Error, Message, Producer, Stored};
use protocol::code::{request, response};

async fn start(broker: &Broker) -> Producer {
    let builder = Producer::builder("test-producers").name_server(broker.address());
    builder.start().await.expect("started")
}

#[tokio::test]
async fn a_message_is_stored_where_its_receipt_says() {
    let broker = Broker::start().await;
    broker.make_topic("t", 4);
    let producer = start(&broker).await;
    let receipt = producer
        .send(Message::new("t", "hello").tag("a"))
        .await
        .expect("stored");
    assert_eq!(
        (receipt.queue_offset, receipt.status),
        (0, Stored::AsPromised)
    );
    assert_eq!(
        (receipt.message_id.len(), receipt.offset_id.len()),
        (32, 32)
    );
    assert_eq!(broker.bodies("t")[receipt.queue_id as usize], [b"hello"]);
}

#[tokio::test]
async fn messages_take_turns_through_the_queues() {
    let broker = Broker::start().await;
    broker.make_topic("t", 4);
    let producer = start(&broker).await;
    for number in 0..8 {
        producer
            .send(Message::new("t", format!("{number}")))
            .await
            .expect("stored");
    }
    assert!(broker.bodies("t").iter().all(|queue| queue.len() == 2));
}

#[tokio::test]
async fn the_first_message_makes_its_topic() {
    let broker = Broker::start().await;
    let producer = start(&broker).await;
    producer
        .send(Message::new("new", "first"))
        .await
        .expect("stored");
    assert_eq!(broker.bodies("new").iter().flatten().count(), 1);
}

#[tokio::test]
async fn a_refusal_that_may_pass_is_tried_again_and_one_that_will_not_is_told() {
    let broker = Broker::start().await;
    broker.make_topic("t", 1);
    let producer = start(&broker).await;
    broker
        .state()
        .refusals
        .extend([response::SYSTEM_BUSY, response::SERVICE_NOT_AVAILABLE]);
    producer
        .send(Message::new("t", "third time lucky"))
        .await
        .expect("stored");

    broker.state().refusals.extend([response::MESSAGE_ILLEGAL]);
    let refused = producer.send(Message::new("t", "never")).await;
    assert!(matches!(
        refused,
        Err(Error::Refused {
            code: response::MESSAGE_ILLEGAL,
            ..
        })
    ));

    broker.state().refusals.extend([response::SYSTEM_BUSY; 3]);
    let busy = producer.send(Message::new("t", "too often")).await;
    assert!(matches!(
        busy,
        Err(Error::Refused {
            code: response::SYSTEM_BUSY,
            ..
        })
    ));
    assert_eq!(broker.bodies("t")[0].len(), 1);
}

#[tokio::test]
async fn a_broken_connection_is_opened_again_by_the_next_attempt() {
    let broker = Broker::start().await;
    broker.make_topic("t", 1);
    let producer = start(&broker).await;
    producer
        .send(Message::new("t", "one"))
        .await
        .expect("stored");
    broker.state().break_next_send = true;
    producer
        .send(Message::new("t", "two"))
        .await
        .expect("stored by the second attempt");
    assert_eq!(broker.bodies("t")[0], [b"one", b"two"]);
}

#[tokio::test]
async fn without_retries_a_broken_connection_is_told() {
    let broker = Broker::start().await;
    broker.make_topic("t", 1);
    let builder = Producer::builder("g")
        .name_server(broker.address())
        .retries(0);
    let producer = builder.start().await.expect("started");
    broker.state().break_next_send = true;
    let broken = producer.send(Message::new("t", "lost")).await;
    assert!(
        matches!(broken, Err(Error::Disconnected { .. })),
        "{broken:?}"
    );
}

#[tokio::test]
async fn a_batch_lies_in_one_queue_one_behind_the_other() {
    let broker = Broker::start().await;
    broker.make_topic("t", 4);
    let producer = start(&broker).await;
    let batch = ["a", "b", "c"].map(|body| Message::new("t", body));
    let receipts = producer.send_batch(&batch).await.expect("stored");
    let places: Vec<i64> = receipts
        .iter()
        .map(|receipt| receipt.queue_offset)
        .collect();
    assert_eq!(places, [0, 1, 2]);
    assert!(receipts.iter().all(|receipt| receipt.offset_id.len() == 32));
    assert_eq!(
        broker.bodies("t")[receipts[0].queue_id as usize],
        [b"a", b"b", b"c"]
    );

    let mixed = [Message::new("t", "a"), Message::new("u", "b")];
    assert!(matches!(
        producer.send_batch(&mixed).await,
        Err(Error::Illegal(_))
    ));
    assert!(matches!(
        producer.send_batch(&[]).await,
        Err(Error::Illegal(_))
    ));
}

#[tokio::test]
async fn submitted_messages_keep_their_order() {
    let broker = Broker::start().await;
    broker.make_topic("t", 1);
    let producer = start(&broker).await;
    let mut submitted = Vec::new();
    for number in 0..200u8 {
        submitted.push(
            producer
                .submit(Message::new("t", [number]))
                .await
                .expect("handed over"),
        );
    }
    for one in submitted {
        one.receipt().await.expect("stored");
    }
    let expected: Vec<Vec<u8>> = (0..200).map(|number| vec![number]).collect();
    assert_eq!(broker.bodies("t")[0], expected);
}

#[tokio::test]
async fn shutdown_sends_what_is_left_says_goodbye_and_refuses_the_rest() {
    let broker = Broker::start().await;
    broker.make_topic("t", 1);
    let producer = start(&broker).await;
    for _ in 0..50 {
        producer
            .send_oneway(Message::new("t", "one way"))
            .await
            .expect("handed over");
    }
    producer.shutdown().await;
    // The goodbye came behind everything else on the same connection.
    assert_eq!(
        broker.state().asked.last(),
        Some(&request::UNREGISTER_CLIENT)
    );
    assert_eq!(broker.bodies("t")[0].len(), 50);
    let late = producer.send(Message::new("t", "late")).await;
    assert!(matches!(late, Err(Error::ShutDown)));
}

#[tokio::test]
async fn without_a_name_server_sends_fail_and_say_so() {
    let builder = Producer::builder("g")
        .name_server("127.0.0.1:1")
        .send_timeout(Duration::from_millis(500));
    let producer = builder.start().await.expect("nothing is asked yet");
    let failed = producer.send(Message::new("t", "body")).await;
    assert!(matches!(failed, Err(Error::Connect { .. })), "{failed:?}");
}

#[tokio::test]
async fn large_bodies_travel_compressed_when_asked() {
    let broker = Broker::start().await;
    broker.make_topic("t", 1);
    let builder = Producer::builder("g")
        .name_server(broker.address())
        .compress(true);
    let producer = builder.start().await.expect("started");
    producer
        .send(Message::new("t", vec![b'x'; 100_000]))
        .await
        .expect("stored");
    assert!(broker.bodies("t")[0][0].len() < 1_000);
}
