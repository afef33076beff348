//! Real sockets over loopback.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{self, Duration};

use reactor::{
    Buffer, CoreConfig, File, Frames, Gather, Lent, Listener, OpenOptions, Outbox, Slice, Socket,
    Source, launch, mailbox, run, sleep, spawn, timeout, yield_now,
};

const LIMIT: Duration = Duration::from_secs(20);

/// A core that sleeps when it has nothing to do, however many CPUs there are.
fn on_sleepy_core<T: 'static, Fut: Future<Output = T> + 'static>(main: impl FnOnce() -> Fut) -> T {
    let config = CoreConfig {
        spin_us: 0,
        ..CoreConfig::default()
    };
    on_core_with(config, main)
}

fn on_core<T: 'static, Fut: Future<Output = T> + 'static>(main: impl FnOnce() -> Fut) -> T {
    on_core_with(CoreConfig::default(), main)
}

fn on_core_with<T: 'static, Fut: Future<Output = T> + 'static>(
    config: CoreConfig,
    main: impl FnOnce() -> Fut,
) -> T {
    let main = main();
    run(config, || async move {
        timeout(LIMIT, main).await.expect("the test ends in time")
    })
    .expect("io_uring is there")
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Two ends of one connection.
async fn pair() -> (Socket, Socket) {
    let listener = Listener::bind(any_port()).unwrap();
    let address = listener.local_addr();
    let connecting = spawn("connect", Socket::connect(address));
    let (accepted, peer) = listener.accept().await.unwrap();
    let connected = connecting.await.unwrap().unwrap();
    assert_eq!(peer, connected.local_addr());
    assert_eq!(accepted.local_addr(), connected.peer_addr());
    (accepted, connected)
}

async fn echo(socket: Socket) {
    loop {
        let chunk = socket.recv().await.unwrap();
        if chunk.is_empty() {
            return;
        }
        let (sent, _) = socket.send(chunk.to_vec()).await;
        sent.unwrap();
    }
}

async fn echo_from_an_outbox(socket: Socket) {
    let socket = Rc::new(socket);
    let outbox = Outbox::new(socket.clone());
    loop {
        let chunk = socket.recv().await.unwrap();
        if chunk.is_empty() {
            return;
        }
        say(&outbox, &chunk);
    }
}

async fn receive_exactly(socket: &Socket, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let chunk = socket.recv().await.unwrap();
        assert!(!chunk.is_empty(), "closed after {} of {len}", bytes.len());
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(bytes.len(), len);
    bytes
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[test]
fn small_messages_echo_in_order() {
    on_core(|| async {
        let (server, client) = pair().await;
        spawn("echo", echo(server));
        for round in 0..500u32 {
            let (sent, _) = client.send(round.to_be_bytes().to_vec()).await;
            sent.unwrap();
            assert_eq!(receive_exactly(&client, 4).await, round.to_be_bytes());
        }
    });
}

#[test]
fn a_message_much_larger_than_all_buffers_echoes_unchanged() {
    on_core(|| async {
        let (server, client) = pair().await;
        spawn("echo", echo(server));
        let client = Rc::new(client);
        let sender = client.clone();
        let message = pattern(16 << 20);
        let expected = message.clone();
        let sending = spawn("send", async move { sender.send(message).await.0 });
        let received = receive_exactly(&client, expected.len()).await;
        assert!(received == expected);
        sending.await.unwrap().unwrap();
    });
}

#[test]
fn many_connections_share_few_buffers() {
    let config = CoreConfig {
        buffer_count: 4,
        buffer_bytes: 4096,
        ..CoreConfig::default()
    };
    on_core_with(config, || async {
        let listener = Listener::bind(any_port()).unwrap();
        let address = listener.local_addr();
        spawn("server", async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                spawn("echo", echo(socket));
            }
        });
        let clients: Vec<_> = (0..100u32)
            .map(|client| {
                spawn("client", async move {
                    let socket = Socket::connect(address).await.unwrap();
                    for round in 0..20 {
                        let message = pattern(1000 + (client as usize * 37 + round * 501) % 9000);
                        let (sent, message) = socket.send(message).await;
                        sent.unwrap();
                        let received = receive_exactly(&socket, message.len()).await;
                        assert!(received == message);
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.expect("no client failed");
        }
    });
}

#[test]
fn connections_nobody_reads_do_not_starve_the_others() {
    let config = CoreConfig {
        buffer_count: 4,
        buffer_bytes: 4096,
        ..CoreConfig::default()
    };
    on_core_with(config, || async {
        let mut unread = Vec::new();
        for _ in 0..8 {
            let (server, client) = pair().await;
            // Received once, so that the receive stays armed, and never again.
            client.send(vec![1]).await.0.unwrap();
            assert_eq!(receive_exactly(&server, 1).await, [1]);
            let client = Rc::new(client);
            let sender = client.clone();
            spawn(
                "floods",
                async move { sender.send(vec![2; 1 << 20]).await.0 },
            );
            unread.push((server, client));
        }
        let (server, client) = pair().await;
        spawn("echo", echo(server));
        for _ in 0..50 {
            client.send(pattern(3000)).await.0.unwrap();
            assert_eq!(receive_exactly(&client, 3000).await, pattern(3000));
        }
        // And what was not read is still there, whole.
        let (server, _client) = unread.pop().unwrap();
        assert_eq!(receive_exactly(&server, 1 << 20).await, vec![2; 1 << 20]);
    });
}

#[test]
fn chunks_held_by_tasks_do_not_starve_the_others() {
    let config = CoreConfig {
        buffer_count: 4,
        buffer_bytes: 4096,
        ..CoreConfig::default()
    };
    on_core_with(config, || async {
        let mut held = Vec::new();
        for _ in 0..12 {
            let (server, client) = pair().await;
            client.send(b"held".to_vec()).await.0.unwrap();
            held.push((server.recv().await.unwrap(), server, client));
        }
        assert!(held.iter().all(|(chunk, ..)| **chunk == *b"held"));
    });
}

#[test]
fn a_half_closed_peer_still_gets_its_answer() {
    on_core(|| async {
        let listener = Listener::bind(any_port()).unwrap();
        let address = listener.local_addr();
        let peer = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"question").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            answer
        });
        let (socket, _) = listener.accept().await.unwrap();
        assert_eq!(receive_exactly(&socket, 8).await, b"question");
        assert!(socket.recv().await.unwrap().is_empty());
        assert!(
            socket.recv().await.unwrap().is_empty(),
            "closed stays closed"
        );
        socket.send(b"answer".to_vec()).await.0.unwrap();
        drop(socket);
        while !peer.is_finished() {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(peer.join().unwrap(), b"answer");
    });
}

#[test]
fn shutdown_ends_a_pending_receive_on_both_sides() {
    on_core(|| async {
        let (server, client) = pair().await;
        let server = Rc::new(server);
        let receiver = server.clone();
        let pending = spawn("recv", async move { receiver.recv().await.unwrap().len() });
        yield_now().await;
        server.shutdown();
        assert_eq!(pending.await, Some(0));
        assert!(client.recv().await.unwrap().is_empty());
        assert!(server.send(vec![1; 10]).await.0.is_err());
    });
}

#[test]
fn a_cancelled_receive_loses_nothing() {
    on_core(|| async {
        let (server, client) = pair().await;
        for round in 0..100u8 {
            let cancelled = timeout(Duration::from_micros(50), server.recv()).await;
            assert!(cancelled.is_err());
            client.send(vec![round]).await.0.unwrap();
            assert_eq!(receive_exactly(&server, 1).await, [round]);
        }
    });
}

#[test]
fn a_cancelled_send_keeps_its_memory_until_the_kernel_is_done() {
    on_core(|| async {
        for _ in 0..20 {
            let (server, client) = pair().await;
            // Nobody reads: the send cannot complete.
            let stuck = timeout(Duration::from_millis(2), client.send(vec![0xAB; 32 << 20])).await;
            assert!(stuck.is_err());
            // Whatever memory a wrongly early free would give back is used again here.
            let reused = vec![0xCD; 32 << 20];
            drop(client);
            loop {
                match server.recv().await {
                    Ok(chunk) if chunk.is_empty() => break,
                    Ok(chunk) => assert!(chunk.iter().all(|&byte| byte == 0xAB)),
                    Err(_) => break,
                }
            }
            drop(reused);
        }
    });
}

#[test]
fn a_core_may_end_with_everything_in_flight() {
    for _ in 0..5 {
        let leftovers = on_core(|| async {
            let (server, client) = pair().await;
            let listener = Listener::bind(any_port()).unwrap();
            spawn("accept", async move { listener.accept().await.map(drop) });
            let server = Rc::new(server);
            let receiver = server.clone();
            spawn("recv", async move { receiver.recv().await.map(drop) });
            spawn("send", async move { client.send(vec![1; 8 << 20]).await.0 });
            sleep(Duration::from_millis(2)).await;
            let (answering, asking) = pair().await;
            let outbox = Outbox::new(Rc::new(answering));
            say(&outbox, b"an answer");
            yield_now().await;
            (server, outbox, asking)
        });
        drop(leftovers); // outlives its core
    }
}

#[test]
fn a_reset_is_an_error_and_then_the_end() {
    on_core(|| async {
        let (server, client) = pair().await;
        client.send(vec![1; 100]).await.0.unwrap();
        // Closing with unread bytes resets.
        server.send(vec![2; 100]).await.0.unwrap();
        sleep(Duration::from_millis(5)).await;
        drop(client);
        receive_exactly(&server, 100).await;
        let end = server.recv().await;
        assert!(end.is_err() || end.unwrap().is_empty());
        assert!(server.recv().await.unwrap().is_empty());
    });
}

#[test]
fn connecting_to_nobody_is_an_error() {
    on_core(|| async {
        let listener = Listener::bind(any_port()).unwrap();
        let address = listener.local_addr();
        listener.close();
        assert!(listener.accept().await.is_err());
        drop(listener);
        let refused = Socket::connect(address).await.err().unwrap();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn closing_a_listener_ends_a_pending_accept() {
    on_core(|| async {
        let listener = Rc::new(Listener::bind(any_port()).unwrap());
        let accepting = listener.clone();
        let pending = spawn("accept", async move { accepting.accept().await.is_err() });
        yield_now().await;
        listener.close();
        assert_eq!(pending.await, Some(true));
    });
}

#[test]
fn a_port_that_its_last_owner_is_just_leaving_is_waited_for() {
    let leaving = std::net::TcpListener::bind(any_port()).expect("a free port");
    let address = leaving.local_addr().expect("it is bound");
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let owner = std::thread::spawn(move || {
        // The core that wants the port has started; it goes on trying whether we let go sooner or later.
        told.recv().expect("the core starts");
        drop(leaving);
    });
    on_core(move || async move {
        tell.send(()).expect("the owner waits");
        let listener = reactor::Listener::bind(address).expect("the port becomes free");
        assert_eq!(listener.local_addr(), address);
    });
    owner.join().expect("the owner ends");
}

#[test]
fn ipv6_works_where_the_machine_has_it() {
    on_core(|| async {
        let Ok(listener) = Listener::bind("[::1]:0".parse().unwrap()) else {
            return; // no IPv6 here
        };
        let address = listener.local_addr();
        let connecting = spawn("connect", Socket::connect(address));
        let (server, peer) = listener.accept().await.unwrap();
        assert!(peer.is_ipv6());
        let client = connecting.await.unwrap().unwrap();
        client.send(b"six".to_vec()).await.0.unwrap();
        assert_eq!(receive_exactly(&server, 3).await, b"six");
    });
}

#[test]
fn a_connection_moves_to_another_core() {
    on_core(|| async {
        let (sockets, mut moved) = mailbox::channel(4);
        let config = CoreConfig {
            name: "other".to_owned(),
            ..CoreConfig::default()
        };
        let other = launch(config, move || async move {
            while let Some(socket) = moved.recv().await {
                let socket: reactor::DetachedSocket = socket;
                echo(socket.attach()).await;
            }
        })
        .unwrap();
        for _ in 0..3 {
            let (server, client) = pair().await;
            sockets.send(server.detach()).await.ok().unwrap();
            client.send(b"over there".to_vec()).await.0.unwrap();
            assert_eq!(receive_exactly(&client, 10).await, b"over there");
        }
        drop(sockets);
        other.finished().await.unwrap();
    });
}

#[test]
fn a_gather_of_more_slices_than_one_call_takes_arrives_in_order() {
    on_core(|| async {
        let directory = tempfile::tempdir().unwrap();
        let options = OpenOptions {
            read: true,
            write: true,
            create: true,
            ..OpenOptions::default()
        };
        let file = File::open(&directory.path().join("log"), options).unwrap();
        let content = pattern(4 << 20);
        file.write_all_at_blocking(&content, 0).unwrap();
        let mapping = Arc::new(file.map(content.len()).unwrap());
        let mut gather = Gather {
            head: b"head of the answer".to_vec(),
            sources: vec![Source::Mapping(mapping)],
            ..Gather::default()
        };
        let mut expected = gather.head.clone();
        for slice in 0..3000usize {
            let (offset, len) = ((slice * 7919) % (content.len() - 5000), slice % 4500);
            gather.slices.push(Slice {
                source: 0,
                offset: offset as u64,
                len: len as u32,
            });
            expected.extend_from_slice(&content[offset..offset + len]);
        }
        let (server, client) = pair().await;
        let sending = spawn("gather", async move {
            let (sent, gathers) = server.send_gathers(vec![gather]).await;
            sent.unwrap();
            (gathers[0].is_empty(), server)
        });
        let received = receive_exactly(&client, expected.len()).await;
        assert!(received == expected);
        assert!(sending.await.unwrap().0, "ready for the next answer");
    });
}

/// Bytes whose other owner sees that they came back.
struct Loan(Arc<Vec<u8>>);

impl Lent for Loan {
    fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        &self.0[offset as usize..][..len]
    }
}

#[test]
fn what_is_lent_comes_back_whatever_the_peer_does() {
    on_core(|| async {
        let (server, client) = pair().await;
        let outbox = Outbox::new(Rc::new(server));
        let lender = Arc::new(pattern(3 * 40_000));
        let mut expected = Vec::new();
        let mut commits = 0;
        // Until far more is queued than the kernel takes for a peer that reads nothing.
        while outbox.queued_bytes() < 16 << 20 {
            commits += 1;
            for number in 0..1 + commits % 12 {
                let mut gather = outbox.recycle_gather();
                gather.head.extend_from_slice(&[number as u8; 21]);
                gather
                    .sources
                    .push(Source::Lent(Box::new(Loan(lender.clone()))));
                expected.extend_from_slice(&gather.head);
                for part in [2, 0, 1] {
                    let (offset, len) = (part * 40_000, 39_000 + number);
                    gather.slices.push(Slice {
                        source: 0,
                        offset: offset as u64,
                        len: len as u32,
                    });
                    expected.extend_from_slice(&lender[offset..offset + len]);
                }
                outbox.push_gather(gather);
            }
            outbox.commit();
            while Arc::strong_count(&lender) > 1 {
                yield_now().await;
            }
        }
        assert!(receive_exactly(&client, expected.len()).await == expected);
        // The next ones find room again.
        let mut gather = outbox.recycle_gather();
        gather
            .sources
            .push(Source::Lent(Box::new(Loan(lender.clone()))));
        gather.slices.push(Slice {
            source: 0,
            offset: 5,
            len: 20_000,
        });
        outbox.push_gather(gather);
        outbox.commit();
        assert!(receive_exactly(&client, 20_000).await == lender[5..20_005]);
        assert_eq!((Arc::strong_count(&lender), outbox.queued_bytes()), (1, 0));
    });
}

#[test]
fn an_outbox_sends_in_order_and_holds_its_user_back() {
    on_core(|| async {
        let (server, client) = pair().await;
        let outbox = Outbox::new(Rc::new(server));
        let writer = outbox.clone();
        let total = 40 << 20;
        let writing = spawn("writer", async move {
            let content = pattern(1 << 16);
            let mut queued_max = 0;
            for _ in 0..total / content.len() {
                writer.with(|bytes| bytes.extend_from_slice(&content[..1000]));
                let mut gather = writer.recycle_gather();
                gather.head.extend_from_slice(&content[1000..]);
                writer.push_gather(gather);
                writer.commit();
                queued_max = queued_max.max(writer.queued_bytes());
                writer.below(1 << 20).await;
            }
            writer.close_after_flush();
            writer.with(|bytes| bytes.push(0xFF)); // too late: not sent
            queued_max
        });
        // A slow reader at first: nothing is taken until the writer is held back.
        while outbox.queued_bytes() < 1 << 20 {
            yield_now().await;
        }
        let received = receive_exactly(&client, total).await;
        let content = pattern(1 << 16);
        assert!(received.chunks(content.len()).all(|part| part == content));
        let queued_max = writing.await.unwrap();
        assert!(queued_max <= (1 << 20) + (1 << 16), "queued {queued_max}");
        outbox.closed().await;
        assert!(client.recv().await.unwrap().is_empty());
        assert_eq!(outbox.queued_bytes(), 0);
    });
}

#[test]
fn an_outbox_whose_peer_is_gone_closes_and_frees_who_waits() {
    on_core(|| async {
        let (server, client) = pair().await;
        let queued_in_all = Rc::new(Cell::new(7));
        let outbox = Outbox::counted(Rc::new(server), queued_in_all.clone());
        outbox.with(|bytes| bytes.resize(64 << 20, 1));
        outbox.commit();
        assert_eq!(queued_in_all.get(), (64 << 20) + 7);
        let waiting = outbox.clone();
        let waiter = spawn("below", async move { waiting.below(1).await });
        sleep(Duration::from_millis(5)).await;
        drop(client);
        waiter.await.unwrap();
        assert!(outbox.is_closed());
        assert_eq!(outbox.queued_bytes(), 0);
        assert_eq!(queued_in_all.get(), 7, "what others have queued");
        outbox.closed().await;
    });
}

#[test]
fn dropping_an_outbox_flushes_and_closes() {
    for is_begun in [false, true] {
        on_sleepy_core(|| async move {
            let (socket, outbox, peer) = outbox_to_a_thread(|mut stream| {
                stream.write_all(b"hello").unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                all
            })
            .await;
            receive_exactly(&socket, 5).await;
            outbox.with(|bytes| bytes.extend_from_slice(b"last words"));
            if is_begun {
                outbox.commit();
                yield_now().await;
            }
            drop(outbox);
            assert!(socket.recv().await.unwrap().is_empty());
            assert_eq!(peer.join().unwrap(), b"last words");
        });
    }
}

/// An outbox, and the other end in the hands of a thread: what that does wakes the core only by its bytes.
async fn outbox_to_a_thread<T: Send + 'static>(
    peer: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (Rc<Socket>, Outbox, thread::JoinHandle<T>) {
    let listener = Listener::bind(any_port()).unwrap();
    let address = listener.local_addr();
    let peer = thread::spawn(move || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        peer(stream)
    });
    let socket = Rc::new(listener.accept().await.unwrap().0);
    (socket.clone(), Outbox::new(socket), peer)
}

/// Lets the core ask the kernel so often.
async fn turns(count: u32) {
    for _ in 0..count {
        sleep(Duration::ZERO).await;
    }
}

fn say(outbox: &Outbox, what: &[u8]) {
    outbox.with(|bytes| bytes.extend_from_slice(what));
    outbox.commit();
}

#[test]
fn what_is_committed_behind_a_short_answer_leaves_though_nothing_else_happens() {
    on_sleepy_core(|| async {
        let (socket, outbox, peer) = outbox_to_a_thread(|mut stream| {
            stream.write_all(b"hello").unwrap();
            let mut all = [0; 6];
            stream.read_exact(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        })
        .await;
        receive_exactly(&socket, 5).await;
        say(&outbox, b"one");
        yield_now().await; // it is being sent
        say(&outbox, b"two");
        assert_eq!(receive_exactly(&socket, 6).await, b"onetwo");
        assert_eq!(outbox.queued_bytes(), 0, "known before the next comes in");
        peer.join().unwrap();
    });
}

#[test]
fn who_waits_for_a_short_answer_hears_of_its_end_though_nothing_else_happens() {
    on_sleepy_core(|| async {
        let (_socket, outbox, peer) = outbox_to_a_thread(|mut stream| {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all
        })
        .await;
        let begun = time::Instant::now();
        say(&outbox, b"one");
        outbox.below(1).await;
        say(&outbox, b"two");
        yield_now().await;
        outbox.below(1).await;
        say(&outbox, b"three");
        yield_now().await;
        say(&outbox, b"four");
        outbox.close_after_flush();
        outbox.closed().await;
        assert!(begun.elapsed() < LIMIT / 2);
        assert_eq!(peer.join().unwrap(), b"onetwothreefour");
    });
}

#[test]
fn short_answers_that_the_peer_does_not_take_wait_in_order() {
    on_sleepy_core(|| async {
        let (server, client) = pair().await;
        let outbox = Outbox::new(Rc::new(server));
        let mut expected = Vec::new();
        // One a turn, until the kernel takes no more, in the middle of one.
        let mut answers = 0;
        while outbox.queued_bytes() == 0 {
            let answer = pattern(7919 - expected.len() % 1000);
            say(&outbox, &answer);
            expected.extend_from_slice(&answer);
            answers += 1;
            turns(2).await;
        }
        assert!(answers > 2, "the first ones are sent at once");
        say(&outbox, b"and one behind it");
        expected.extend_from_slice(b"and one behind it");
        assert!(receive_exactly(&client, expected.len()).await == expected);
        outbox.below(1).await;
    });
}

#[test]
fn a_short_answer_for_which_there_is_no_room_at_all_waits() {
    on_sleepy_core(|| async {
        let (server, client) = pair().await;
        let server = Rc::new(server);
        let filling = timeout(Duration::from_millis(20), server.send(vec![7; 32 << 20])).await;
        assert!(filling.is_err(), "the peer reads nothing");
        let outbox = Outbox::new(server);
        say(&outbox, b"an answer");
        turns(2).await;
        assert_eq!(outbox.queued_bytes(), 9);
        drop(outbox);
        let mut last = Vec::new();
        loop {
            let chunk = client.recv().await.unwrap();
            if chunk.is_empty() {
                break;
            }
            last.extend_from_slice(&chunk);
            last.drain(..last.len().saturating_sub(10));
        }
        assert_eq!(last, b"\x07an answer");
    });
}

#[test]
fn a_short_answer_to_nobody_closes_its_outbox() {
    on_sleepy_core(|| async {
        let (_socket, outbox, peer) = outbox_to_a_thread(drop).await;
        peer.join().unwrap();
        while !outbox.is_closed() {
            say(&outbox, b"is anybody there?");
            turns(2).await;
        }
        assert_eq!(outbox.queued_bytes(), 0);
    });
}

#[test]
fn a_tiny_ring_serves_many_connections() {
    let config = CoreConfig {
        ring_entries: 4,
        buffer_count: 2,
        ..CoreConfig::default()
    };
    on_core_with(config, || async {
        let mut pairs = Vec::new();
        for _ in 0..100 {
            pairs.push(pair().await);
        }
        let tasks: Vec<_> = pairs
            .into_iter()
            .enumerate()
            .map(|(number, (server, client))| {
                if number % 2 == 0 {
                    spawn("echo", echo(server));
                } else {
                    spawn("echo", echo_from_an_outbox(server));
                }
                spawn("client", async move {
                    for _ in 0..20 {
                        client.send(pattern(5000)).await.0.unwrap();
                        assert_eq!(receive_exactly(&client, 5000).await, pattern(5000));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("every client is served");
        }
    });
}

#[test]
fn frames_come_whole_over_a_socket() {
    on_core(|| async {
        let (server, client) = pair().await;
        let frames: Vec<Vec<u8>> = (0..300).map(|n| pattern(n * 211 % 70_000)).collect();
        let mut stream = Vec::new();
        for frame in &frames {
            stream.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            stream.extend_from_slice(frame);
        }
        spawn("send", async move {
            client.send(stream).await.0.unwrap();
        });
        let mut splitter = Frames::new(1 << 20);
        let mut seen = Vec::new();
        loop {
            let chunk = server.recv().await.unwrap();
            if chunk.is_empty() {
                break;
            }
            let fed: Result<(), reactor::FeedError<()>> = splitter.feed(&chunk, |frame| {
                seen.push(frame.to_vec());
                Ok(())
            });
            fed.unwrap();
        }
        assert!(seen == frames);
        assert!(splitter.is_at_boundary());
    });
}

#[test]
fn completions_taken_while_the_submission_queue_was_full_are_not_slept_on() {
    const SOON: Duration = Duration::from_secs(2);
    let config = CoreConfig {
        ring_entries: 8,
        spin_us: 0,
        ..CoreConfig::default()
    };
    on_core_with(config, || async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cached");
        std::fs::write(&path, [7; 4096]).unwrap();
        let options = OpenOptions {
            read: true,
            ..OpenOptions::default()
        };
        let file = Rc::new(File::open(&path, options).unwrap());
        let mut idle = Vec::new();
        for _ in 0..20 {
            idle.push(pair().await);
        }
        // The reads are done as soon as they are submitted, by the first receive that finds the queue full. Nothing
        // else happens after that: the receives wait for bytes that never come.
        let reads: Vec<_> = (0..8)
            .map(|_| {
                let file = file.clone();
                spawn("read", async move {
                    file.read_at(Buffer::with_capacity(4096), 0, 4096).await.0
                })
            })
            .collect();
        let (_silent, receiving): (Vec<_>, Vec<_>) = idle.into_iter().unzip();
        for socket in receiving {
            spawn("receive", async move { drop(socket.recv().await) });
        }
        spawn("late wake-up", sleep(2 * SOON));
        let began = reactor::now();
        for read in reads {
            assert_eq!(read.await.unwrap().unwrap(), 4096);
        }
        assert!(began.elapsed() < SOON, "the core slept on them");
    });
}
