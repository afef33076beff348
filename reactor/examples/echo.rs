//! Measures the reactor: a server that answers frames, and a closed-loop generator, on a core each.
//!
//! `cargo run --release -p reactor --example echo -- <connections> <depth> <frame bytes> <seconds>`
//!
//! Prints messages a second and the CPU time that each side spent per message.

use std::cell::Cell;
use std::env;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::{
    CoreConfig, FeedError, Frames, Listener, Outbox, Socket, launch, mailbox, now, run, sleep,
    spawn, usable_cpus,
};

const FRAME_BYTES_MAX: usize = 1 << 20;
const ANSWER_BYTES: usize = 64;

fn main() {
    let mut numbers = env::args().skip(1).map(|text| text.parse::<usize>());
    let mut next = |default| match numbers.next() {
        None => default,
        Some(Ok(number)) => number,
        Some(Err(error)) => panic!("a number is expected: {error}"),
    };
    let (connections, depth, bytes, seconds) = (next(16), next(1), next(1024), next(3));
    let cpus = usable_cpus();
    let core = move |name: &str, cpu: usize| CoreConfig {
        name: name.to_owned(),
        cpu: cpus.get(cpu).copied(),
        ..CoreConfig::default()
    };
    let report = run(core("load", 1), || async move {
        let (addresses, mut server) = mailbox::channel(1);
        let (ask_cpu, asked) = mailbox::channel::<()>(1);
        let (cpu_times, mut server_cpu) = mailbox::channel(2);
        let serving = launch(core("server", 0), move || {
            serve(addresses, asked, cpu_times)
        });
        let serving = serving.expect("a second core starts");
        let address = server.recv().await.expect("the server listens");
        let answered = Rc::new(Cell::new(0u64));
        for _ in 0..connections {
            spawn("client", load(address, depth, bytes, answered.clone()));
        }
        sleep(Duration::from_millis(500)).await;
        let (began, count, cpu) = (now(), answered.get(), thread_cpu());
        ask_cpu.send(()).await.ok();
        let server_before = server_cpu.recv().await.unwrap_or_default();
        sleep(Duration::from_secs(seconds as u64)).await;
        let messages = answered.get() - count;
        let elapsed = began.elapsed();
        let load_cpu = thread_cpu() - cpu;
        ask_cpu.send(()).await.ok();
        let server_after = server_cpu.recv().await.unwrap_or_default();
        drop(serving);
        format!(
            "{connections} connections x {depth} deep, {bytes} bytes: {:.0} messages/s, CPU per message: server {:.2} us, load {:.2} us",
            messages as f64 / elapsed.as_secs_f64(),
            (server_after - server_before).as_secs_f64() * 1e6 / messages as f64,
            load_cpu.as_secs_f64() * 1e6 / messages as f64,
        )
    });
    match report {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("{error}"),
    }
}

async fn serve(
    addresses: mailbox::Sender<SocketAddr>,
    mut asked: mailbox::Receiver<()>,
    cpu_times: mailbox::Sender<Duration>,
) {
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    addresses.send(listener.local_addr()).await.ok();
    spawn("accept", async move {
        while let Ok((socket, _)) = listener.accept().await {
            spawn("answer", answer(Rc::new(socket)));
        }
    });
    while asked.recv().await.is_some() {
        cpu_times.send(thread_cpu()).await.ok();
    }
}

/// Answers every frame with a short one.
async fn answer(socket: Rc<Socket>) {
    let outbox = Outbox::new(socket.clone());
    let mut frames = Frames::new(FRAME_BYTES_MAX);
    while let Ok(chunk) = socket.recv().await {
        if chunk.is_empty() {
            break;
        }
        let fed: Result<(), FeedError<()>> = frames.feed(&chunk, |frame| {
            outbox.with(|out| {
                out.extend_from_slice(&(ANSWER_BYTES as u32).to_be_bytes());
                let copied = frame.len().min(ANSWER_BYTES);
                out.extend_from_slice(&frame[..copied]);
                out.resize(out.len() + ANSWER_BYTES - copied, 0);
            });
            Ok(())
        });
        if fed.is_err() {
            break;
        }
        outbox.commit();
    }
    outbox.close();
}

/// Keeps `depth` frames under way.
async fn load(address: SocketAddr, depth: usize, bytes: usize, answered: Rc<Cell<u64>>) {
    let socket = Rc::new(Socket::connect(address).await.expect("the server accepts"));
    let outbox = Outbox::new(socket.clone());
    let mut frame = (bytes as u32).to_be_bytes().to_vec();
    frame.resize(frame.len() + bytes, 7);
    let ask = |count: usize| {
        outbox.with(|out| (0..count).for_each(|_| out.extend_from_slice(&frame)));
        outbox.commit();
    };
    ask(depth);
    let mut frames = Frames::new(FRAME_BYTES_MAX);
    while let Ok(chunk) = socket.recv().await {
        let mut arrived = 0;
        let fed: Result<(), FeedError<()>> = frames.feed(&chunk, |_| {
            arrived += 1;
            Ok(())
        });
        if chunk.is_empty() || fed.is_err() {
            break;
        }
        answered.set(answered.get() + arrived as u64);
        ask(arrived);
    }
}

/// CPU time of this thread so far.
fn thread_cpu() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
