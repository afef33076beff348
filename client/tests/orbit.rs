//! The client against the real broker, orbit-broker, as a process of its own. The binary is the one that lies beside this test; where
//! only this crate was built there is none, and there is nothing to test.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use orbitmq_client::{Consumed, Message, Producer, PushConsumer, Received};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const LIMIT: Duration = Duration::from_secs(30);

struct Orbit {
    process: Child,
    name_server: String,
    _folder: tempfile::TempDir,
}

impl Drop for Orbit {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn binary() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let path = own.parent()?.parent()?.join("orbit-broker");
    path.exists().then_some(path)
}

/// Ports that were free a moment ago; the broker also wants two below and one above its own.
fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0")
            .expect("loopback")
            .local_addr()
            .expect("bound")
            .port();
        let all = port
            .checked_sub(2)
            .map(|first| first..=port.saturating_add(1));
        let free = all.is_some_and(|mut ports| {
            ports.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        });
        if free {
            return port;
        }
    }
}

async fn start() -> Option<Orbit> {
    let Some(binary) = binary() else {
        eprintln!("skipped: there is no orbit-broker beside this test");
        return None;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (port, namesrv_port) = (free_port(), free_port());
    let conf = folder.path().join("broker.conf");
    let text = format!(
        "brokerName=test\nbrokerIP1=127.0.0.1\nbindAddress=127.0.0.1\nlistenPort={port}\nnamesrvListenPort={namesrv_port}\n\
         mappedFileSizeCommitLog=67108864\nstorePathRootDir={}\n",
        folder.path().join("store").display()
    );
    std::fs::write(&conf, text).expect("written");
    let process = Command::new(binary)
        .arg("-c")
        .arg(&conf)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let orbit = Orbit {
        process: process.expect("started"),
        name_server: format!("127.0.0.1:{namesrv_port}"),
        _folder: folder,
    };
    let listening = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, listening)
        .await
        .expect("the broker listens");
    Some(orbit)
}

async fn consumer(
    orbit: &Orbit,
    topic: &str,
    tags: &str,
) -> (PushConsumer, UnboundedReceiver<Received>) {
    let (sender, arrived) = unbounded_channel();
    let builder = PushConsumer::builder("consumers").name_server(orbit.name_server.as_str());
    let listener = move |message| {
        let sender = sender.clone();
        async move {
            let _ = sender.send(message);
            Consumed::Done
        }
    };
    let started = builder
        .subscribe(topic, tags)
        .from_first()
        .start(listener)
        .await;
    (started.expect("started"), arrived)
}

async fn take(arrived: &mut UnboundedReceiver<Received>, count: usize) -> BTreeSet<Vec<u8>> {
    let mut bodies = BTreeSet::new();
    while bodies.len() < count {
        let message = tokio::time::timeout(LIMIT, arrived.recv())
            .await
            .expect("in time");
        bodies.insert(message.expect("the consumer runs").body);
    }
    bodies
}

fn numbered(range: std::ops::Range<u32>) -> BTreeSet<Vec<u8>> {
    range
        .map(|number| format!("message {number}").into_bytes())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_is_sent_is_received_and_a_restarted_consumer_goes_on() {
    let Some(orbit) = start().await else {
        return;
    };
    let builder = Producer::builder("producers").name_server(orbit.name_server.as_str());
    let producer = builder.start().await.expect("started");
    for body in numbered(0..200) {
        producer
            .send(Message::new("orders", body).tag("a").key("k"))
            .await
            .expect("stored");
    }
    let batch: Vec<Message> = numbered(200..250)
        .into_iter()
        .map(|body| Message::new("orders", body).tag("a"))
        .collect();
    let receipts = producer.send_batch(&batch).await.expect("stored");
    assert_eq!(receipts.len(), 50);
    producer
        .send(Message::new("orders", "unwanted").tag("b"))
        .await
        .expect("stored");
    for body in numbered(250..300) {
        producer
            .send_oneway(Message::new("orders", body).tag("a"))
            .await
            .expect("handed over");
    }

    let (first, mut arrived) = consumer(&orbit, "orders", "a").await;
    assert_eq!(take(&mut arrived, 300).await, numbered(0..300));
    first.shutdown().await;

    let (second, mut arrived) = consumer(&orbit, "orders", "a").await;
    for body in numbered(300..350) {
        producer
            .send(Message::new("orders", body).tag("a"))
            .await
            .expect("stored");
    }
    assert_eq!(take(&mut arrived, 50).await, numbered(300..350));
    second.shutdown().await;
    producer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_joins_gets_its_share_from_the_brokers_notice() {
    let Some(orbit) = start().await else {
        return;
    };
    let builder = Producer::builder("producers").name_server(orbit.name_server.as_str());
    let producer = builder.start().await.expect("started");
    producer
        .send(Message::new("shared", "makes the topic"))
        .await
        .expect("stored");
    let (one, _first) = consumer(&orbit, "shared", "*").await;
    let (two, _second) = consumer(&orbit, "shared", "*").await;
    let ours = |consumer: &PushConsumer| {
        consumer
            .queues()
            .iter()
            .filter(|(topic, _, _)| topic == "shared")
            .count()
    };
    let shared = async {
        while (ours(&one), ours(&two)) != (2, 2) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // Well below the 20 s of the timer.
    tokio::time::timeout(Duration::from_secs(10), shared)
        .await
        .expect("queues are shared");
    two.shutdown().await;
    let taken_over = async {
        while ours(&one) != 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), taken_over)
        .await
        .expect("queues are taken over");
}
