//! Clock, cores and determinism of the simulated world.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{
    cell::{Cell, RefCell},
    net::Ipv4Addr,
    rc::Rc,
    time::Duration,
};

use reactor::{
    CoreConfig, Notify, launch, mailbox, now, offload, random,
    sim::{NodeId, World, each_seed, twice},
    sleep, spawn, timeout, wall_ms,
};

const EPOCH_MS: i64 = 1_767_225_600_000;
const HOUR: Duration = Duration::from_secs(3600);

fn one_node(seed: u64) -> (World, NodeId) {
    let mut world = World::new(seed);
    let node = world.node("one", Ipv4Addr::new(10, 0, 0, 1));
    (world, node)
}

#[test]
fn an_hour_of_sleep_passes_at_once_and_exactly() {
    let began = std::time::Instant::now();
    let (mut world, node) = one_node(1);
    let slept = world.block_on(node, async {
        let before = (now(), wall_ms());
        sleep(HOUR).await;
        (before.0.elapsed(), wall_ms() - before.1)
    });
    assert_eq!(slept, (HOUR, 3_600_000));
    assert_eq!(
        world.block_on(node, async { wall_ms() }),
        EPOCH_MS + 3_600_000
    );
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn run_for_moves_the_clock_even_when_nothing_happens() {
    let (mut world, node) = one_node(1);
    world.run_for(HOUR);
    assert_eq!(world.now().as_nanos(), HOUR.as_nanos() as u64);
    let fired = Rc::new(Cell::new(0));
    let count = fired.clone();
    world.start(node, "ticker", move || async move {
        loop {
            sleep(Duration::from_secs(1)).await;
            count.set(count.get() + 1);
        }
    });
    world.run_for(Duration::from_millis(10_500));
    assert_eq!(fired.get(), 10);
    let seen = fired.clone();
    assert!(world.run_until(move || seen.get() == 20, Duration::from_secs(10)));
    assert!(!world.run_until(|| false, Duration::from_secs(1)));
}

#[test]
fn a_timeout_ends_what_takes_too_long() {
    let (mut world, node) = one_node(1);
    let outcome = world.block_on(node, async {
        let late = timeout(Duration::from_secs(1), sleep(HOUR)).await;
        let early = timeout(HOUR, sleep(Duration::from_secs(1))).await;
        (late.is_err(), early.is_ok(), now().as_nanos())
    });
    assert_eq!(outcome, (true, true, 2_000_000_000));
}

/// Two launched cores send to a third, which reports the order in which it received.
fn three_cores(seed: u64) -> (Vec<u64>, u64) {
    const ITEMS: u64 = 40;
    let (mut world, node) = one_node(seed);
    let order = world.block_on(node, async {
        let (sender, mut receiver) = mailbox::channel::<u64>(4);
        let mut cores = Vec::new();
        for core in 0..2 {
            let sender = sender.clone();
            let config = CoreConfig {
                name: format!("sender-{core}"),
                ..CoreConfig::default()
            };
            let handle = launch(config, move || async move {
                for item in 0..ITEMS {
                    sender.send(core * ITEMS + item).await.unwrap();
                    if random().is_multiple_of(4) {
                        sleep(Duration::from_micros(random() % 50)).await;
                    }
                }
            });
            cores.push(handle.unwrap());
        }
        drop(sender);
        let mut order = Vec::new();
        while receiver.recv_many(&mut order, 3).await > 0 {}
        for core in cores {
            core.finished().await.unwrap();
        }
        order
    });
    assert_eq!(order.len(), 2 * ITEMS as usize);
    for core in 0..2 {
        let own = order.iter().filter(|item| **item / ITEMS == core);
        assert!(own.is_sorted(), "a sender's items stay in order");
    }
    (order, world.trace_hash())
}

#[test]
fn cores_of_a_node_talk_by_mailbox_and_the_seed_decides_who_is_first() {
    each_seed(50, |seed| {
        twice(seed, |seed| three_cores(seed).1);
    });
    let first = three_cores(0).0;
    assert!((1..10).any(|seed| three_cores(seed).0 != first));
}

#[test]
fn different_seeds_give_different_traces() {
    assert_ne!(three_cores(1).1, three_cores(2).1);
}

#[test]
fn offloaded_work_takes_simulated_time_and_returns_its_result() {
    let (mut world, node) = one_node(3);
    let (result, took) = world.block_on(node, async {
        let before = now();
        let result = offload("sum", || (1..=10).sum::<u32>()).await;
        (result, before.elapsed())
    });
    assert_eq!(result, 55);
    assert!(took > Duration::ZERO);
}

#[test]
fn a_killed_process_drops_its_tasks_and_may_start_again() {
    struct Told(Rc<RefCell<Vec<&'static str>>>, &'static str);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.borrow_mut().push(self.1);
        }
    }
    let dropped = Rc::new(RefCell::new(Vec::new()));
    let (mut world, node) = one_node(1);
    for _ in 0..2 {
        let (main, side) = (Told(dropped.clone(), "main"), Told(dropped.clone(), "side"));
        world.start(node, "main", move || async move {
            let _main = main;
            drop(spawn("side", async move {
                let _side = side;
                Notify::new().notified().await;
            }));
            sleep(HOUR).await;
        });
        world.run_for(Duration::from_secs(1));
        assert!(dropped.borrow().is_empty());
        world.kill(node);
        dropped.borrow_mut().sort_unstable();
        assert_eq!(dropped.take(), ["main", "side"]);
    }
    world.run();
    assert_eq!(
        world.now().as_nanos(),
        2_000_000_000,
        "no timer is left behind"
    );
}

#[test]
fn when_the_first_core_ends_its_process_ends() {
    let (mut world, node) = one_node(1);
    let ticks = Rc::new(Cell::new(0));
    let (answer, outcome) = mailbox::oneshot::<bool>();
    let watched = ticks.clone();
    world.start(node, "main", move || async move {
        let other = launch(CoreConfig::default(), move || async move {
            loop {
                sleep(Duration::from_secs(1)).await;
            }
        });
        watched.set(1);
        sleep(Duration::from_millis(2500)).await;
        answer.send(other.is_ok());
    });
    world.run();
    assert_eq!(world.now().as_nanos(), 2_500_000_000);
    assert_eq!(ticks.get(), 1);
    assert_eq!(world.block_on(node, outcome), Some(true));
}

#[test]
#[should_panic(expected = "a task on node one panicked")]
fn a_panic_in_any_task_fails_the_run() {
    let (mut world, node) = one_node(1);
    world.start(node, "main", || async {
        drop(spawn("faulty", async { panic!("on purpose") }));
        sleep(HOUR).await;
    });
    world.run();
}

#[test]
fn cpus_are_what_the_node_was_given() {
    let (mut world, node) = one_node(1);
    assert_eq!(world.block_on(node, async { reactor::cpu_count() }), 1);
    world.set_cpus(node, 8);
    assert_eq!(world.block_on(node, async { reactor::cpu_count() }), 8);
}
