//! A broker and its clients in a simulated world: sends, pulls, long polls, kills and restarts, all from one seed.
//!
//! `SIM_SEED=7 cargo test -p server --test sim` repeats a run that failed, `SIM_SEEDS` sets how many there are.

mod clients;
mod cluster;
mod connections;
mod ledger;
mod long_poll;
mod pops;
mod sends;
mod sync_flush;
mod timers;
mod transactions;
mod wire;

use std::rc::Rc;
use std::time::Duration;

use reactor::sim::{Faults, World, each_seed, twice};

use clients::Shared;
use cluster::Cluster;
use ledger::QUEUES;

const SEEDS: u64 = 1_000;
const POWER_CUT_SEEDS: u64 = 300;
const SYNC_FLUSH_SEEDS: u64 = 500;
const PRODUCERS: u64 = 2;
const NUMBERS_EACH: u64 = 40;
const KILLS_MAX: u64 = 2;
const TABLES_SAVED_AFTER: Duration = Duration::from_secs(3);
/// Simulated time, far more than a run takes.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn acknowledged_messages_survive_kills_and_no_queue_has_a_gap() {
    each_seed(SEEDS, |seed| {
        kills_and_restarts(seed);
    });
}

#[test]
fn after_a_power_cut_what_is_left_is_whole_and_nothing_new_is_lost() {
    each_seed(POWER_CUT_SEEDS, |seed| {
        power_cut(seed);
    });
}

#[test]
fn with_sync_flush_a_power_cut_takes_nothing_that_was_acknowledged_or_seen() {
    each_seed(SYNC_FLUSH_SEEDS, |seed| {
        sync_flush(seed);
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..5 {
        twice(seed, sync_flush);
        twice(seed, kills_and_restarts);
        twice(seed, power_cut);
    }
}

/// One run; the hash of everything that happened in it.
fn kills_and_restarts(seed: u64) -> u64 {
    let faults = Faults {
        drop_connection_ppm: if seed.is_multiple_of(3) { 2_000 } else { 0 },
        ..Faults::default()
    };
    let shards = if seed.is_multiple_of(4) { "2" } else { "1" };
    let mut cluster = Cluster::new(World::with(faults, seed), shards);
    cluster.start_broker();
    let ledger = Shared::default();
    start_clients(&mut cluster, &ledger);

    for _ in 0..cluster.world.random() % (KILLS_MAX + 1) {
        let after = Duration::from_micros(cluster.world.random() % 120_000);
        cluster.world.run_for(after);
        cluster.kill_broker();
        cluster.start_broker();
    }
    finish(&mut cluster, &ledger)
}

/// Messages may be lost here, the flush is asynchronous. What the queues still have is read from their starts.
fn power_cut(seed: u64) -> u64 {
    let mut cluster = Cluster::new(World::new(seed), "1");
    cluster.start_broker();
    let before = Shared::default();
    start_clients(&mut cluster, &before);
    let after = Duration::from_micros(cluster.world.random() % 2_000_000);
    cluster.world.run_for(after);
    cluster.world.kill(cluster.clients);
    cluster.cut_power();
    cluster.start_broker();
    // If its entry was lost, it may have come back with those queues only that have messages.
    cluster.client(clients::make_topic(Cluster::address()));
    let ledger = Shared::default();
    start_clients(&mut cluster, &ledger);
    finish(&mut cluster, &ledger)
}

/// Kills and power cuts, and one ledger for all of it: consumers go on where they were, producers rely on every answer.
fn sync_flush(seed: u64) -> u64 {
    let shards = if seed.is_multiple_of(3) { "2" } else { "1" };
    let faults = Faults {
        disk_delay: (Duration::ZERO, Duration::from_millis(seed % 4)),
        ..Faults::default()
    };
    let mut cluster = Cluster::new(World::with(faults, seed), shards).sync_flush();
    cluster.start_broker();
    let ledger = Shared::default();
    // The topic is there, and saved.
    let first = PRODUCERS * NUMBERS_EACH;
    cluster.client(clients::produce(
        Cluster::address(),
        first,
        1,
        Rc::clone(&ledger),
    ));
    cluster.world.run_for(TABLES_SAVED_AFTER);
    ledger.borrow_mut().producers_done = 0;
    start_clients(&mut cluster, &ledger);
    for _ in 0..1 + cluster.world.random() % KILLS_MAX {
        let after = Duration::from_micros(cluster.world.random() % 120_000);
        cluster.world.run_for(after);
        match cluster.world.random() % 3 {
            0 => cluster.kill_broker(),
            _ => cluster.cut_power(),
        }
        cluster.start_broker();
    }
    finish(&mut cluster, &ledger)
}

fn finish(cluster: &mut Cluster, ledger: &Shared) -> u64 {
    let done = || {
        let ledger = ledger.borrow();
        ledger.producers_done == PRODUCERS as usize && ledger.is_caught_up()
    };
    let finished = cluster.world.run_until(done, PATIENCE);
    assert!(finished, "clients get stuck: {:?}", ledger.borrow());
    ledger.borrow().check();
    cluster.world.trace_hash()
}

fn start_clients(cluster: &mut Cluster, ledger: &Shared) {
    let ledger = Rc::clone(ledger);
    cluster
        .world
        .start(cluster.clients, "clients", move || async move {
            for queue in 0..QUEUES {
                let consumer = clients::consume(Cluster::address(), queue, Rc::clone(&ledger));
                reactor::spawn("consumer", consumer);
            }
            for producer in 0..PRODUCERS {
                let first = producer * NUMBERS_EACH;
                let sending =
                    clients::produce(Cluster::address(), first, NUMBERS_EACH, Rc::clone(&ledger));
                reactor::spawn("producer", sending);
            }
            std::future::pending::<()>().await;
        });
}
