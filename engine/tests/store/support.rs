//! A small store to test with: what was sent and acknowledged, and whether it is all there.
//!
//! Every scenario is an async function of a directory; [`on_both`] runs it on a ring with a real directory, and
//! in a simulated world, each with every [`Flavour`] of store. The flavour is named in the directory's path, where
//! [`small`] finds it.

use engine::{
    Batch, Cold, Config, FlusherKind, Found, Item, OpenError, Progress, Queue, QueueOffset, Read,
    ReadLimits, Store, WindowDir, Writer,
};
use protocol::record::{Draft, View};
use protocol::text::Text;
use reactor::sim::{World, each_seed};
use reactor::{CoreConfig, Gather, LoopedMemory, fs};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::RefUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How a store gets its log to the disk, and when it acknowledges. What a store promises, each of them keeps.
#[derive(Clone, Copy, Debug)]
pub struct Flavour {
    name: &'static str,
    pub flusher: FlusherKind,
    pub sync_flush: bool,
    /// The memory that is laid into survives the process.
    pub memory_outlives_process: bool,
}

pub const FLAVOURS: &[Flavour] = &[
    Flavour {
        name: "mmap-async",
        flusher: FlusherKind::Mmap,
        sync_flush: false,
        memory_outlives_process: true,
    },
    Flavour {
        name: "mmap-sync",
        flusher: FlusherKind::Mmap,
        sync_flush: true,
        memory_outlives_process: true,
    },
    Flavour {
        name: "direct-async",
        flusher: FlusherKind::Direct,
        sync_flush: false,
        memory_outlives_process: true,
    },
    Flavour {
        name: "direct-sync",
        flusher: FlusherKind::Direct,
        sync_flush: true,
        memory_outlives_process: true,
    },
    // Senders are told after the write.
    Flavour {
        name: "direct-written",
        flusher: FlusherKind::Direct,
        sync_flush: false,
        memory_outlives_process: false,
    },
];

impl Flavour {
    /// The store's directory in a simulated world.
    pub fn root(self) -> PathBuf {
        Path::new("/").join(self.name).join("store")
    }

    fn named_in(root: &Path) -> Flavour {
        let named = root
            .iter()
            .find_map(|part| FLAVOURS.iter().find(|flavour| part == flavour.name));
        *named.unwrap_or(&FLAVOURS[0])
    }
}

/// Runs the scenario on a ring, then in a simulated world, with every flavour of store.
pub fn on_both<Fut>(scenario: impl Fn(PathBuf) -> Fut)
where
    Fut: Future<Output = ()> + 'static,
{
    for flavour in FLAVOURS {
        on_ring(|root| scenario(root.join(flavour.name)));
        on_sim(1, |_| scenario(flavour.root()));
    }
}

/// Runs a scenario of a simulated world with many seeds and every flavour of store.
pub fn each_flavour_and_seed(count: u64, run: impl Fn(Flavour, u64) + RefUnwindSafe) {
    for flavour in FLAVOURS {
        each_seed(count, |seed| run(*flavour, seed));
    }
}

/// Beside the stores of a scenario on the ring: where their windows are.
const WINDOWS: &str = "windows";

pub fn on_ring<Fut>(scenario: impl Fn(PathBuf) -> Fut)
where
    Fut: Future<Output = ()> + 'static,
{
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Shared memory that goes with the test, whatever it does with its stores.
    let windows = tempfile::tempdir_in("/dev/shm").expect("shared memory");
    std::os::unix::fs::symlink(windows.path(), dir.path().join(WINDOWS)).expect("a link");
    let root = dir.path().to_path_buf();
    let config = CoreConfig {
        stall_ms: 0,
        ..CoreConfig::default()
    };
    reactor::run(config, || scenario(root)).expect("io_uring is available");
}

/// What a power cut does to the memory of a store that is not open.
pub fn forget_window(root: &Path) {
    let id = fs::read(&root.join("orbit").join("id")).expect("every store has one");
    let id = String::from_utf8(id).expect("it is text");
    if let Some(window) = id.lines().nth(1) {
        LoopedMemory::remove(Path::new(window)).expect("it is ours");
    }
}

pub fn on_sim<Fut>(seed: u64, scenario: impl FnOnce(PathBuf) -> Fut)
where
    Fut: Future<Output = ()> + 'static,
{
    let mut world = World::new(seed);
    let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
    world.block_on(node, scenario(PathBuf::from("/store")));
}

/// Segments of 64 KiB, parts of 16, a window of two segments: everything happens often.
pub fn small(root: &Path) -> Config {
    let flavour = Flavour::named_in(root);
    let mut config = Config::for_root(root);
    config.flusher = flavour.flusher;
    config.sync_flush = flavour.sync_flush;
    config.segment_bytes = 64 << 10;
    config.part_bytes = 16 << 10;
    config.touch_ahead_bytes = 32 << 10;
    config.window.bytes = 128 << 10;
    let windows = root.parent().map(|dir| dir.join(WINDOWS));
    config.window.dir = match windows.filter(|windows| windows.exists()) {
        _ if !flavour.memory_outlives_process => WindowDir::None,
        Some(windows) => WindowDir::At(windows),
        None => WindowDir::Auto,
    };
    config
}

/// A store with its writer, and what it has acknowledged.
pub struct Broker {
    pub store: Arc<Store>,
    pub writer: Writer,
    pub sent: Sent,
}

/// What was acknowledged: for every queue the bodies in order.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    pub queues: BTreeMap<(String, u32), Vec<Message>>,
    pub count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub body: Vec<u8>,
    pub tag_hash: i32,
    pub log_offset: u64,
    pub store_ms: i64,
    pub bytes: u32,
}

/// What a batch is made of: topic, queue, body length, tag.
pub type Spec = (&'static str, u32, usize, Option<&'static str>);

impl Broker {
    pub async fn open(config: Config) -> Broker {
        Broker::reopen(config, Sent::default()).await
    }

    pub async fn reopen(config: Config, sent: Sent) -> Broker {
        let opened = open_when_free(config, |_| {}).await;
        let (store, writer) = opened.unwrap_or_else(|error| panic!("{error}"));
        Broker {
            store,
            writer,
            sent,
        }
    }

    /// Appends one batch and publishes it; from then on it is acknowledged.
    pub async fn send(&mut self, specs: &[Spec]) {
        let (mut batch, bodies) = self.batch(specs);
        self.writer.append(&mut batch).await;
        self.publish().await;
        for ((spec, body), item) in specs.iter().zip(bodies).zip(batch.items()) {
            assert_eq!(item.error, None);
            self.acknowledge(spec, body, item);
        }
    }

    /// Publishes what was appended, and waits until it is released: then senders are told and readers see it.
    pub async fn publish(&mut self) {
        self.writer.publish();
        while self.store.written() < self.writer.appended() {
            self.writer.release().moved().await;
            assert!(!self.store.is_poisoned(), "the disk of this test works");
            self.writer.publish();
        }
    }

    /// The batch, and the bodies in it. Every body is different.
    pub fn batch(&mut self, specs: &[Spec]) -> (Batch, Vec<Vec<u8>>) {
        let mut batch = Batch::new(0);
        let mut bodies = Vec::new();
        for (topic, queue_id, body_bytes, tag) in specs {
            self.sent.count += 1;
            let mut body = format!("{:016x}", self.sent.count).into_bytes();
            body.resize(*body_bytes.max(&16), b'a' + (self.sent.count % 26) as u8);
            let properties = tag.map_or(String::new(), |tag| format!("TAGS\u{1}{tag}\u{2}"));
            let queue = self.store.queue(topic, *queue_id);
            batch.push(&queue, hash(*tag), self.sent.count, |out| {
                draft(topic, *queue_id, &properties, &body).append_to(out)
            });
            bodies.push(body);
        }
        (batch, bodies)
    }

    pub fn acknowledge(&mut self, spec: &Spec, body: Vec<u8>, item: &Item) {
        let key = (spec.0.to_owned(), spec.1);
        let messages = self.sent.queues.entry(key).or_default();
        assert_eq!(
            item.queue_offset,
            messages.len() as u64,
            "offsets have no gap"
        );
        messages.push(Message {
            body,
            tag_hash: hash(spec.3),
            log_offset: item.log_offset,
            store_ms: item.store_ms,
            bytes: item.record_bytes(),
        });
    }

    /// Closes in order; what was sent is handed on to the next life.
    pub async fn close(self) -> Sent {
        self.writer.close().await.expect("closing works");
        self.sent
    }

    /// Ends as with a power cut that comes when everything is durable.
    pub async fn lose_power(self) -> Sent {
        while self.store.flushed() < self.store.written() {
            reactor::sleep(Duration::from_millis(1)).await;
        }
        let root = self.store.config().root.clone();
        let sent = self.kill();
        forget_window(&root);
        sent
    }

    /// Drops everything as a killed process does.
    pub fn kill(self) -> Sent {
        self.sent
    }

    /// Reads every queue from its start and compares it with what was sent.
    pub async fn check(&self) {
        for ((topic, id), sent) in &self.sent.queues {
            let queue = self
                .store
                .find_queue(topic, *id)
                .expect("the queue is known");
            assert_eq!(queue.max_offset(), sent.len() as u64, "end of {topic}/{id}");
            let read = read_all(&self.store, &queue, 0).await;
            assert_eq!(read.len(), sent.len(), "messages of {topic}/{id}");
            for (offset, (read, sent)) in read.iter().zip(sent).enumerate() {
                assert_eq!(read, sent, "{topic}/{id} at {offset}");
            }
        }
    }
}

/// Another life of this process may still be on its way out.
pub async fn open_when_free(
    config: Config,
    mut progress: impl FnMut(Progress),
) -> Result<(Arc<Store>, Writer), OpenError> {
    loop {
        match Store::open(config.clone(), &mut progress).await {
            Err(OpenError::InUse { .. }) => reactor::yield_now().await,
            opened => return opened,
        }
    }
}

pub fn hash(tag: Option<&str>) -> i32 {
    tag.map_or(0, protocol::properties::tag_hash)
}

pub fn draft<'a>(topic: &'a str, queue_id: u32, properties: &'a str, body: &'a [u8]) -> Draft<'a> {
    let host = SocketAddr::from((Ipv4Addr::LOCALHOST, 10911));
    Draft {
        topic,
        queue_id: queue_id as i32,
        flag: 0,
        sys_flag: 0,
        born_ms: 1,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        properties: Text::plain(properties.as_bytes()),
        body,
    }
}

/// All messages from `offset` to the queue's end, checked to be that queue's in order.
pub async fn read_all(store: &Arc<Store>, queue: &Queue, offset: u64) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut offset = QueueOffset(offset);
    loop {
        let mut gather = Gather::default();
        let limits = ReadLimits::default();
        let mut to_send = Gather::default();
        let lent = store.read_to_send(queue, offset, &limits, |_| true, &mut to_send);
        to_send.keep();
        match read(store, queue, offset, &limits, |_| true, &mut gather).await {
            Read::Found(found) => {
                if let Read::Found(lent) = lent {
                    // The queue may have grown since.
                    assert!(bytes_of(&gather).starts_with(&bytes_of(&to_send)));
                    assert_eq!(parse(&to_send).len() as u32, lent.messages);
                }
                let read = parse(&gather);
                assert_eq!(read.len() as u32, found.messages);
                assert_eq!(gather.len() as u64, found.bytes);
                assert_eq!(found.next.0, offset.0 + u64::from(found.messages));
                for (at, (queue_offset, message)) in (offset.0..).zip(read) {
                    assert_eq!(queue_offset, at);
                    messages.push(message);
                }
                offset = found.next;
            }
            Read::Empty => return messages,
            other => panic!("{other:?} at {offset:?}"),
        }
    }
}

/// A read, hot or cold.
pub async fn read(
    store: &Arc<Store>,
    queue: &Queue,
    offset: QueueOffset,
    limits: &ReadLimits,
    mut accept: impl FnMut(i32) -> bool,
    gather: &mut Gather,
) -> Read {
    match store.read(queue, offset, limits, &mut accept, gather) {
        Read::Cold(cold) => fetch(store, cold, accept, gather).await,
        other => other,
    }
}

pub async fn fetch(
    store: &Arc<Store>,
    cold: Cold,
    accept: impl FnMut(i32) -> bool,
    gather: &mut Gather,
) -> Read {
    store
        .fetch(cold, accept, gather)
        .await
        .expect("the disk reads")
}

pub fn found(read: Read) -> Found {
    match read {
        Read::Found(found) => found,
        other => panic!("{other:?}"),
    }
}

/// The records in a gather with their queue offsets.
pub fn parse(gather: &Gather) -> Vec<(u64, Message)> {
    let bytes = bytes_of(gather);
    let mut rest = bytes.as_slice();
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let view = View::parse(rest).expect("a gather holds whole records");
        view.check_body().expect("the body is what was sent");
        let tag = protocol::properties::get_str(view.properties, "TAGS");
        messages.push((
            view.queue_offset,
            Message {
                body: view.body.to_vec(),
                tag_hash: hash(tag),
                log_offset: view.log_offset,
                store_ms: view.store_ms,
                bytes: view.bytes.len() as u32,
            },
        ));
        rest = &rest[view.bytes.len()..];
    }
    messages
}

fn bytes_of(gather: &Gather) -> Vec<u8> {
    let mut bytes = Vec::new();
    gather.copy_slices_to(&mut bytes);
    bytes
}
