//! What a scenario needs: fresh topics and groups, clients, waiting.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use orbitmq_client::admin::{Admin, NewTopic};
use orbitmq_client::{
    Consumed, LitePullConsumer, LitePullConsumerBuilder, Message, MessageQueue, Producer,
    ProducerBuilder, PullConsumer, PushConsumer, PushConsumerBuilder, Received,
};

use crate::inbox::Inbox;

pub struct Env {
    pub name_server: String,
    pub admin: Admin,
    /// The broker was started for these scenarios.
    pub own_broker: bool,
    name: String,
    serial: AtomicUsize,
}

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_millis() as i64
}

/// Waits until `met` says so.
pub async fn until<F, Fut>(what: &str, seconds: u64, mut met: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let waiting = async {
        while !met().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(seconds), waiting).await;
    assert!(waited.is_ok(), "not within {seconds} s: {what}");
}

/// Waits for what should not happen; fails as soon as it does.
pub async fn never<F, Fut>(what: &str, within: Duration, mut met: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let waiting = async {
        while !met().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(within, waiting).await;
    assert!(waited.is_err(), "{what}");
}

pub fn text(message: &Received) -> String {
    String::from_utf8_lossy(&message.body).into_owned()
}

impl Env {
    pub fn new(name: &str, name_server: &str, own_broker: bool) -> Env {
        Env {
            admin: Admin::new(name_server).expect("an address"),
            name_server: name_server.to_owned(),
            own_broker,
            name: name.replace('-', "_"),
            serial: AtomicUsize::new(0),
        }
    }

    pub fn fresh(&self, kind: &str) -> String {
        let number = self.serial.fetch_add(1, Ordering::Relaxed);
        let run = now_ms() % 100_000_000;
        format!("{kind}_{}_{run}_{number}", self.name)
    }

    pub fn group(&self) -> String {
        self.fresh("G")
    }

    pub async fn topic(&self, queues: i32) -> String {
        let topic = self.fresh("T");
        self.make_topic(&topic, queues).await;
        topic
    }

    pub async fn make_topic(&self, topic: &str, queues: i32) {
        for broker in self.admin.masters(None).await.expect("brokers") {
            let wanted = NewTopic::new(topic).queues(queues);
            let made = self.admin.create_topic(&broker.address, &wanted).await;
            made.expect("made");
        }
        until("a route", 30, async || {
            self.admin.route(topic).await.is_ok()
        })
        .await;
    }

    pub fn producer_builder(&self) -> ProducerBuilder {
        Producer::builder(self.fresh("P")).name_server(&self.name_server)
    }

    pub async fn producer(&self) -> Producer {
        self.producer_builder().start().await.expect("started")
    }

    /// Heartbeats every 2 s: a broker that was told of two subscriptions at once wants to be told again.
    pub fn pusher(&self, group: &str) -> PushConsumerBuilder {
        PushConsumer::builder(group)
            .name_server(&self.name_server)
            .upkeep_interval(Duration::from_secs(2))
    }

    pub async fn collector(
        &self,
        group: &str,
        topic: &str,
        tags: &str,
        inbox: &Inbox,
    ) -> PushConsumer {
        let builder = self.pusher(group).subscribe(topic, tags).from_first();
        let started = builder.start(inbox.listener()).await;
        started.expect("started")
    }

    pub async fn puller(&self, group: &str) -> PullConsumer {
        let builder = PullConsumer::builder(group).name_server(&self.name_server);
        builder.start().await.expect("started")
    }

    pub fn lite(&self, group: &str) -> LitePullConsumerBuilder {
        LitePullConsumer::builder(group)
            .name_server(&self.name_server)
            .from_first()
    }

    /// A time that is after everything in the topic, and before everything that is sent from now on.
    pub async fn time_between(&self, topic: &str) -> i64 {
        let stored = self.read_all(topic).await;
        let last = stored.iter().map(|message| message.stored_ms).max();
        let between = last.expect("something is there") + 1;
        until("the next millisecond", 5, async || now_ms() > between).await;
        between
    }

    /// Messages in all queues of a topic.
    pub async fn stored(&self, topic: &str) -> i64 {
        let queues = self.admin.topic_status(topic).await.unwrap_or_default();
        queues.iter().map(|queue| queue.messages).sum()
    }

    pub async fn read(&self, queue: &MessageQueue) -> Vec<Received> {
        let puller = self.puller(&self.group()).await;
        let mut next = puller.min_offset(queue).await.expect("known");
        let mut all = Vec::new();
        while next < puller.max_offset(queue).await.expect("known") {
            let pulled = puller.pull(queue, "*", next, 32).await.expect("pulled");
            assert!(pulled.next_offset > next, "pulling moves on from {next}");
            all.extend(pulled.messages);
            next = pulled.next_offset;
        }
        puller.shutdown().await;
        all
    }

    pub async fn read_all(&self, topic: &str) -> Vec<Received> {
        let puller = self.puller(&self.group()).await;
        let mut all = Vec::new();
        for queue in puller.queues(topic).await.expect("a route") {
            all.extend(self.read(&queue).await);
        }
        puller.shutdown().await;
        all
    }
}

pub async fn send_many(
    producer: &Producer,
    topic: &str,
    tag: Option<&str>,
    prefix: &str,
    count: usize,
) -> Vec<String> {
    let mut bodies = Vec::new();
    for number in 0..count {
        let body = format!("{prefix}{number}");
        let message = Message::new(topic, body.clone());
        let message = match tag {
            Some(tag) => message.tag(tag),
            None => message,
        };
        producer.send(message).await.expect("stored");
        bodies.push(body);
    }
    bodies
}

/// How many queues of a topic a consumer has.
pub fn assigned(consumer: &PushConsumer, topic: &str) -> usize {
    let queues = consumer.queues();
    queues.iter().filter(|(own, _, _)| own == topic).count()
}

/// A listener that is content with everything.
pub async fn content(_: Received) -> Consumed {
    Consumed::Done
}
