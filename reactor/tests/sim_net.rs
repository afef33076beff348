//! The simulated network: streams stay whole and in order, and failures look like those of TCP.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{
    cell::{Cell, RefCell},
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use reactor::{
    Listener, Notify, Socket, mailbox,
    sim::{Faults, NodeId, World, each_seed, twice},
    sleep, spawn,
};

const SERVER_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CLIENT_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9000);
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(SERVER_IP), 9000);

fn two_nodes(faults: Faults, seed: u64) -> (World, NodeId, NodeId) {
    let mut world = World::with(faults, seed);
    let server = world.node("server", SERVER_IP);
    let client = world.node("client", CLIENT_IP);
    (world, server, client)
}

fn start_echo(world: &mut World, node: NodeId) {
    world.start(node, "echo", || async {
        let listener = Listener::bind(ANY).unwrap();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            drop(spawn("echo", async move {
                while let Ok(chunk) = socket.recv().await {
                    if chunk.is_empty() || socket.send(chunk.to_vec()).await.0.is_err() {
                        break;
                    }
                }
            }));
        }
    });
}

fn numbered(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// Sends in one task and receives in another until everything came back. Returns how many chunks it took.
async fn echo_through(to: SocketAddr, bytes: Vec<u8>) -> io::Result<usize> {
    let socket = Rc::new(Socket::connect(to).await?);
    let sending = socket.clone();
    let sent = bytes.clone();
    let sender = spawn("sender", async move { sending.send(sent).await.0 });
    let mut received = Vec::new();
    let mut chunks = 0;
    while received.len() < bytes.len() {
        let chunk = socket.recv().await?;
        assert!(!chunk.is_empty(), "the server does not close first");
        received.extend_from_slice(&chunk);
        chunks += 1;
    }
    assert!(received == bytes, "bytes come back unchanged and in order");
    sender.await.expect("not cancelled")?;
    Ok(chunks)
}

/// Waits a moment for the server to listen.
async fn echo(to: SocketAddr, bytes: Vec<u8>) -> io::Result<usize> {
    sleep(Duration::from_millis(10)).await;
    echo_through(to, bytes).await
}

#[test]
fn an_echo_is_whole_under_every_seed_and_repeats_exactly() {
    each_seed(100, |seed| {
        twice(seed, |seed| {
            let (mut world, server, client) = two_nodes(Faults::default(), seed);
            start_echo(&mut world, server);
            let chunks = world.block_on(client, echo(SERVER, numbered(20_000)));
            assert!(chunks.unwrap() > 0);
            world.trace_hash()
        });
    });
}

#[test]
fn chunks_are_cut_differently_by_different_seeds() {
    let chunks = |seed| {
        let (mut world, server, client) = two_nodes(Faults::default(), seed);
        start_echo(&mut world, server);
        world
            .block_on(client, echo(SERVER, numbered(5_000)))
            .unwrap()
    };
    let first = chunks(0);
    assert!((1..20).any(|seed| chunks(seed) != first));
}

#[test]
fn more_than_the_window_passes_and_a_reader_that_stops_holds_the_sender_back() {
    const MEBIBYTE: usize = 1 << 20;
    let (mut world, server, client) = two_nodes(Faults::default(), 5);
    start_echo(&mut world, server);
    world
        .block_on(client, echo(SERVER, numbered(MEBIBYTE)))
        .unwrap();
    world.kill(server);

    world.start(server, "deaf", || async {
        let listener = Listener::bind(ANY).unwrap();
        let (_socket, _) = listener.accept().await.unwrap();
        Notify::new().notified().await;
    });
    let done = Rc::new(Cell::new(false));
    let seen = done.clone();
    world.start(client, "sender", move || async move {
        sleep(Duration::from_millis(10)).await;
        let socket = Socket::connect(SERVER).await.unwrap();
        socket.send(numbered(MEBIBYTE)).await.0.unwrap();
        seen.set(true);
    });
    world.run_for(Duration::from_secs(3600));
    assert!(!done.get(), "nobody read, so not everything was taken");
}

#[test]
fn nobody_listens_so_the_connection_is_refused_and_an_unknown_host_is_unreachable() {
    let (mut world, _, client) = two_nodes(Faults::default(), 1);
    let refused = world.block_on(client, async { Socket::connect(SERVER).await.err() });
    assert_eq!(refused.unwrap().kind(), ErrorKind::ConnectionRefused);
    let nowhere = SocketAddr::from((Ipv4Addr::new(10, 9, 9, 9), 9000));
    let unreachable = world.block_on(client, async move { Socket::connect(nowhere).await.err() });
    assert_eq!(unreachable.unwrap().kind(), ErrorKind::HostUnreachable);
}

#[test]
fn loopback_is_the_node_itself_and_ports_are_taken_once() {
    let (mut world, server, client) = two_nodes(Faults::default(), 1);
    start_echo(&mut world, server);
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 9000));
    assert!(
        world
            .block_on(server, echo(loopback, numbered(100)))
            .is_ok()
    );
    let elsewhere = world.block_on(client, echo(loopback, numbered(100)));
    assert_eq!(elsewhere.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let taken = world.block_on(server, async { Listener::bind(SERVER).err() });
    assert_eq!(taken.unwrap().kind(), ErrorKind::AddrInUse);
    let foreign = world.block_on(client, async { Listener::bind(SERVER).err() });
    assert_eq!(foreign.unwrap().kind(), ErrorKind::AddrNotAvailable);
}

/// What a client's receive ended with after `harm` was done to the server.
fn receive_through(harm: impl FnOnce(&mut World, NodeId)) -> Option<Result<usize, ErrorKind>> {
    let (mut world, server, client) = two_nodes(Faults::default(), 7);
    start_echo(&mut world, server);
    let outcome = Rc::new(RefCell::new(None));
    let seen = outcome.clone();
    world.start(client, "client", move || async move {
        sleep(Duration::from_millis(10)).await;
        let socket = Socket::connect(SERVER).await.unwrap();
        let received = socket.recv().await;
        *seen.borrow_mut() = Some(
            received
                .map(|chunk| chunk.len())
                .map_err(|error| error.kind()),
        );
    });
    world.run_for(Duration::from_secs(1));
    assert!(outcome.borrow().is_none(), "nothing to receive yet");
    harm(&mut world, server);
    world.run_for(Duration::from_secs(1));
    outcome.take()
}

#[test]
fn a_killed_process_resets_its_peers_but_a_machine_without_power_is_silent() {
    let killed = receive_through(|world, server| world.kill(server));
    assert_eq!(killed, Some(Err(ErrorKind::ConnectionReset)));
    assert_eq!(
        receive_through(|world, server| world.power_cut(server)),
        None
    );
}

#[test]
fn writing_to_a_machine_that_came_back_is_answered_with_a_reset() {
    let (mut world, server, client) = two_nodes(Faults::default(), 7);
    start_echo(&mut world, server);
    let (go, went) = mailbox::oneshot();
    let outcome = Rc::new(Cell::new(None));
    let seen = outcome.clone();
    world.start(client, "client", move || async move {
        sleep(Duration::from_millis(10)).await;
        let socket = Socket::connect(SERVER).await.unwrap();
        went.await;
        socket.send(b"still there?".to_vec()).await.0.unwrap();
        let received = socket.recv().await;
        seen.set(received.err().map(|error| error.kind()));
    });
    world.run_for(Duration::from_secs(1));
    world.power_cut(server);
    start_echo(&mut world, server);
    go.send(());
    world.run_for(Duration::from_secs(1));
    assert_eq!(outcome.get(), Some(ErrorKind::ConnectionReset));
}

#[test]
fn a_closing_peer_ends_the_stream_after_what_it_sent() {
    each_seed(50, |seed| {
        let (mut world, server, client) = two_nodes(Faults::default(), seed);
        world.start(server, "once", || async {
            let listener = Listener::bind(ANY).unwrap();
            let (socket, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.ip(), CLIENT_IP);
            socket.send(numbered(3_000)).await.0.unwrap();
        });
        let received = world.block_on(client, async {
            sleep(Duration::from_millis(10)).await;
            let socket = Socket::connect(SERVER).await.unwrap();
            let mut received = Vec::new();
            loop {
                let chunk = socket.recv().await.unwrap();
                if chunk.is_empty() {
                    return received;
                }
                received.extend_from_slice(&chunk);
            }
        });
        assert!(received == numbered(3_000));
    });
}

#[test]
fn shutdown_ends_a_pending_receive_on_both_sides() {
    let (mut world, server, client) = two_nodes(Faults::default(), 7);
    start_echo(&mut world, server);
    let ended = world.block_on(client, async {
        sleep(Duration::from_millis(10)).await;
        let socket = Rc::new(Socket::connect(SERVER).await.unwrap());
        let receiving = socket.clone();
        let receiver = spawn(
            "receiver",
            async move { receiving.recv().await.unwrap().len() },
        );
        sleep(Duration::from_millis(10)).await;
        socket.shutdown();
        let refused = socket.send(vec![1]).await.0.unwrap_err().kind();
        (receiver.await, refused)
    });
    assert_eq!(ended, (Some(0), ErrorKind::BrokenPipe));
}

#[test]
fn a_partition_holds_everything_back_and_healing_loses_nothing() {
    each_seed(50, |seed| {
        let (mut world, server, client) = two_nodes(Faults::default(), seed);
        start_echo(&mut world, server);
        let done = Rc::new(Cell::new(false));
        let seen = done.clone();
        world.start(client, "client", move || async move {
            echo(SERVER, numbered(300_000)).await.unwrap();
            seen.set(true);
        });
        let before = 10 + world.random() % 10;
        world.run_for(Duration::from_millis(before));
        let was_done = done.get();
        world.partition(client, server);
        world.run_for(Duration::from_secs(30));
        assert_eq!(done.get(), was_done);
        world.heal(server, client);
        let watched = done.clone();
        assert!(world.run_until(move || watched.get(), Duration::from_secs(10)));
    });
}

#[test]
fn connecting_through_a_partition_times_out() {
    let (mut world, server, client) = two_nodes(Faults::default(), 1);
    start_echo(&mut world, server);
    world.partition(client, server);
    let outcome = world.block_on(client, echo(SERVER, numbered(1)));
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::TimedOut);
}

#[test]
fn dropped_connections_are_seen_as_resets() {
    let faults = Faults {
        drop_connection_ppm: 200_000,
        ..Faults::default()
    };
    let mut reset = 0;
    for seed in 0..20 {
        let (mut world, server, client) = two_nodes(faults, seed);
        start_echo(&mut world, server);
        if let Err(error) = world.block_on(client, echo(SERVER, numbered(20_000))) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            reset += 1;
        }
    }
    assert!(reset > 0, "with such odds some connection breaks");
}

#[test]
fn a_connection_moves_to_another_core() {
    let (mut world, server, client) = two_nodes(Faults::default(), 3);
    world.start(server, "acceptor", || async {
        let (sender, mut receiver) = mailbox::channel::<reactor::DetachedSocket>(4);
        let shard = reactor::launch(reactor::CoreConfig::default(), move || async move {
            while let Some(detached) = receiver.recv().await {
                let socket = detached.attach();
                let chunk = socket.recv().await.unwrap();
                socket.send(chunk.to_vec()).await.0.unwrap();
            }
        });
        let listener = Listener::bind(ANY).unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        sender.send(socket.detach()).await.unwrap();
        drop(sender);
        shard.unwrap().finished().await.unwrap();
    });
    let answer = world.block_on(client, async {
        sleep(Duration::from_millis(10)).await;
        let socket = Socket::connect(SERVER).await.unwrap();
        socket.send(vec![42]).await.0.unwrap();
        socket.recv().await.unwrap().to_vec()
    });
    assert_eq!(answer, [42]);
}
