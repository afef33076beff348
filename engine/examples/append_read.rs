//! What a message costs the store alone: appended by one core, then read back hot, cold, and after a restart.
//!
//! `cargo run --release -p engine --example append_read -- [directory] [messages] [body bytes] [queues]`

use engine::{Batch, Config, Queue, QueueOffset, Read, ReadLimits, Store};
use protocol::record::Draft;
use protocol::text::Text;
use reactor::{CoreConfig, Gather};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BATCH_MESSAGES: usize = 32;
/// A turn of the writer takes this many batches before it publishes.
const TURN_BATCHES: usize = 8;

struct Work {
    root: PathBuf,
    messages: usize,
    body_bytes: usize,
    queues: usize,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let root = arguments
        .next()
        .unwrap_or_else(|| "append_read_store".to_owned());
    let mut number = |default| {
        arguments
            .next()
            .map_or(default, |text| text.parse().expect("a number"))
    };
    let work = Work {
        root: root.into(),
        messages: number(2_000_000),
        body_bytes: number(1024),
        queues: number(8),
    };
    let config = CoreConfig {
        stall_ms: 0,
        ..CoreConfig::default()
    };
    reactor::run(config, || run(work)).expect("io_uring is available");
}

async fn run(work: Work) {
    let _ = std::fs::remove_dir_all(&work.root);
    let mut config = Config::for_root(&work.root);
    let clock = Clock::start();
    let (store, mut writer) = Store::open(config.clone(), |_| {})
        .await
        .expect("an empty store");
    clock.report("open an empty store", 1);
    let queues: Vec<Arc<Queue>> = (0..work.queues)
        .map(|n| store.queue(&format!("topic-{}", n / 4), n as u32 % 4))
        .collect();
    reactor::sleep(Duration::from_millis(200)).await;

    let body = vec![b'x'; work.body_bytes];
    // Every queue is met in turn.
    let mut batches: Vec<Batch> = (0..queues.len().div_ceil(BATCH_MESSAGES))
        .map(|number| filled(&queues, number * BATCH_MESSAGES, &body))
        .collect();
    let mut turn = (0..batches.len()).cycle();
    let clock = Clock::start();
    for _ in 0..work.messages / BATCH_MESSAGES / TURN_BATCHES {
        for _ in 0..TURN_BATCHES {
            let batch = turn.next().map(|number| &mut batches[number]);
            let batch = batch.expect("a cycle does not end");
            writer.append(batch).await;
            assert!(batch.items()[0].error.is_none());
        }
        writer.publish();
        reactor::yield_now().await;
    }
    clock.report("append", work.messages);
    drop(batches);
    println!("  resident: {}", resident());

    let clock = Clock::start();
    let read = read_back(&store, &queues).await;
    clock.report("read, 32 at a time", read);

    drop(writer);
    drop(queues);
    wait_for_the_last(store).await;
    let clock = Clock::start();
    let (store, writer) = Store::open(config.clone(), |_| {})
        .await
        .expect("the same store");
    clock.report("open it after a kill", 1);
    writer.close().await.expect("closing works");
    wait_for_the_last(store).await;

    config.hot_bytes = 0;
    let clock = Clock::start();
    let (store, writer) = Store::open(config, |_| {}).await.expect("the same store");
    clock.report("open it after a close", 1);
    let queues: Vec<Arc<Queue>> = (0..work.queues)
        .map(|n| store.queue(&format!("topic-{}", n / 4), n as u32 % 4))
        .collect();
    let clock = Clock::start();
    let read = read_back(&store, &queues).await;
    clock.report("read through the disk way", read);
    println!("  resident: {}", resident());
    writer.close().await.expect("closing works");
    let _ = std::fs::remove_dir_all(&work.root);
}

/// Another thread may hold the store for a moment longer.
async fn wait_for_the_last(store: Arc<Store>) {
    while Arc::strong_count(&store) > 1 {
        reactor::sleep(Duration::from_millis(1)).await;
    }
}

fn filled(queues: &[Arc<Queue>], first: usize, body: &[u8]) -> Batch {
    let host = SocketAddr::from((Ipv4Addr::LOCALHOST, 10911));
    let mut batch = Batch::new(0);
    for n in first..first + BATCH_MESSAGES {
        let queue = &queues[n % queues.len()];
        let draft = Draft {
            topic: queue.topic(),
            queue_id: queue.id() as i32,
            flag: 0,
            sys_flag: 0,
            born_ms: 1,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            properties: Text::plain(
                b"TAGS\x01a\x02UNIQ_KEY\x017F00000100002A139F3E0A1B2C3D0001\x02",
            ),
            body,
        };
        batch.push(queue, 97, n as u64, |out| draft.append_to(out));
    }
    batch
}

async fn read_back(store: &Arc<Store>, queues: &[Arc<Queue>]) -> usize {
    let limits = ReadLimits {
        disk_messages_max: 32,
        disk_bytes_max: 256 << 10,
        ..ReadLimits::default()
    };
    let mut gather = Gather::default();
    let mut messages = 0;
    for queue in queues {
        let mut offset = QueueOffset(0);
        loop {
            gather.clear();
            let read = match store.read(queue, offset, &limits, |_| true, &mut gather) {
                Read::Cold(cold) => store
                    .fetch(cold, |_| true, &mut gather)
                    .await
                    .expect("the disk reads"),
                other => other,
            };
            match read {
                Read::Found(found) => {
                    messages += found.messages as usize;
                    offset = found.next;
                }
                _ => break,
            }
        }
    }
    messages
}

struct Clock {
    wall: Instant,
    cpu: Duration,
}

impl Clock {
    fn start() -> Clock {
        Clock {
            wall: Instant::now(),
            cpu: process_cpu(),
        }
    }

    fn report(&self, what: &str, messages: usize) {
        let (wall, cpu) = (self.wall.elapsed(), process_cpu() - self.cpu);
        let each = cpu.as_nanos() as f64 / messages as f64;
        println!(
            "{what}: {messages} in {:.3} s, {:.0}/s, CPU {:.3} s, {each:.0} ns each",
            wall.as_secs_f64(),
            messages as f64 / wall.as_secs_f64(),
            cpu.as_secs_f64(),
        );
    }
}

/// CPU time of all threads.
fn process_cpu() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure is ours and of the right type.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(answer, 0, "the clock exists");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = ["RssAnon", "RssFile"];
    let lines = status
        .lines()
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", ")
}
