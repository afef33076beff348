//! The scenarios of RocketMQ's own clients, through this client: the same names, the same expectations, against the
//! broker that lies beside this test, or (`ORBIT_SCENARIOS_NAMESRV=host:port`) against a cluster that runs already.
//!
//! `cargo test -p orbitmq-client --test scenarios -- push retry` runs those whose names hold one of the words.

#[path = "../process/orbit.rs"]
mod process;

mod admin;
mod consume;
mod env;
mod inbox;
mod pull;
mod restart;
mod retry;
mod send;
mod transaction;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use env::Env;
use process::Orbit;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Scenarios under way at once: most of their time is waiting.
const AT_ONCE: usize = 12;
const LIMIT: Duration = Duration::from_secs(100);
const CONF: [&str; 6] = [
    "autoCreateTopicEnable=true",
    "enablePropertyFilter=true",
    "traceTopicEnable=true",
    "transactionTimeOut=3000",
    "transactionCheckInterval=1500",
    "recallMessageEnable=true",
];

type Scenario = fn(Env) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// A scenario by the name the other suites have for it.
macro_rules! scenarios {
    ($($name:literal => $run:path,)*) => {
        vec![$(($name, (|env| Box::pin($run(env))) as Scenario),)*]
    };
}

fn all() -> Vec<(&'static str, Scenario)> {
    scenarios! {
        "send-sync" => send::sync,
        "send-async" => send::submitted,
        "send-oneway" => send::oneway,
        "send-batch" => send::batch,
        "send-selected-queue" => send::selected_queue,
        "send-keys-tags-properties" => send::keys_tags_properties,
        "send-auto-creates-topic" => send::auto_create,
        "send-compressed" => send::compressed,
        "send-compressed-lz4-zstd" => send::compressed_otherwise,
        "send-near-4MiB" => send::large,
        "send-above-4MiB-is-refused" => send::too_large,
        "send-properties-above-32KiB-refused" => send::too_many_properties,
        "topic-permissions" => send::permissions,
        "namespace" => send::namespace,
        "pull-found-none-illegal" => pull::statuses,
        "pull-long-polling" => pull::long_polling,
        "pull-tag-filter" => pull::tag_filter,
        "pull-offset-store" => pull::offset_store,
        "pull-search-offset-by-time" => pull::search_offset,
        "lite-pull-subscribe-commit" => pull::lite_subscribe,
        "lite-pull-assign-seek" => pull::lite_assign,
        "lite-pull-pause" => pull::lite_pause,
        "push-concurrently" => consume::concurrently,
        "push-latency" => consume::latency,
        "push-orderly" => consume::orderly,
        "push-orderly-two-consumers" => consume::orderly_two,
        "push-tag-filter" => consume::tag_filter,
        "push-sql92-filter" => consume::sql_filter,
        "push-sql92-filter-wrong-is-refused" => consume::sql_wrong,
        "push-broadcasting" => consume::broadcasting,
        "push-two-groups" => consume::two_groups,
        "push-rebalance-join-and-leave" => consume::rebalance,
        "push-continues-after-restart" => consume::consumer_restart,
        "push-new-group-from-last-and-time" => consume::from_where,
        "push-batches" => consume::batches,
        "request-reply" => consume::request_reply,
        "retry-then-success" => retry::retry,
        "retry-default-delay-10s" => retry::default_delay,
        "retry-to-dead-letter-queue" => retry::dead_letter,
        "retry-orderly-to-dead-letter-queue" => retry::orderly_dead_letter,
        "consume-timeout" => retry::consume_timeout,
        "delay-levels-1-2-3" => retry::delay_levels,
        "delay-any-time-5x" => retry::any_time,
        "delay-recall" => retry::recall,
        "transaction-commit-rollback" => transaction::commit_rollback,
        "transaction-check-back" => transaction::check_back,
        "query-by-id" => admin::by_id,
        "query-by-key" => admin::by_key,
        "message-trace" => admin::trace,
        "reset-offset-by-time" => admin::reset_offset,
        "consumer-running-info" => admin::running_info,
        "consume-message-directly" => admin::consume_directly,
        "delete-topic" => admin::delete_topic,
        "broker-restart-keeps-everything" => restart::stopped,
        "broker-killed-keeps-everything" => restart::killed,
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // What cargo passes to every test program; nothing is listed.
    if words.iter().any(|word| word == "--list") {
        return;
    }
    let wanted: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let is_wanted =
        |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str()));
    if !all().iter().any(|(name, _)| is_wanted(name)) {
        return;
    }
    let own = match std::env::var("ORBIT_SCENARIOS_NAMESRV") {
        Ok(_) => None,
        Err(_) => match Orbit::start(&CONF).await {
            Some(orbit) => Some(orbit),
            None => return,
        },
    };
    let name_server = match &own {
        Some(orbit) => orbit.name_server.clone(),
        None => std::env::var("ORBIT_SCENARIOS_NAMESRV").expect("looked at above"),
    };
    let places = std::sync::Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for (name, scenario) in all() {
        if !is_wanted(name) {
            continue;
        }
        let env = Env::new(name, &name_server, own.is_some());
        let places = places.clone();
        running.spawn(async move {
            let _place = places.acquire().await.expect("never closed");
            let began = Instant::now();
            // A task of its own: a panic is a failure of this scenario only.
            let ended = tokio::time::timeout(LIMIT, tokio::spawn(scenario(env))).await;
            let took = began.elapsed().as_secs_f64();
            let passed = matches!(ended, Ok(Ok(())));
            let word = if passed { "ok  " } else { "FAIL" };
            let why = if ended.is_err() { " (it hangs)" } else { "" };
            println!("{word} {name} ({took:.1} s){why}");
            (name, passed)
        });
    }
    let mut failed = Vec::new();
    let mut passed = 0;
    while let Some(ended) = running.join_next().await {
        match ended.expect("it catches what its scenario does") {
            (_, true) => passed += 1,
            (name, false) => failed.push(name),
        }
    }
    println!("{passed} passed, {} failed {failed:?}", failed.len());
    drop(own);
    if !failed.is_empty() {
        std::process::exit(1);
    }
}
