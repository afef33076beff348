//! The figures of `brokerStatus`, under the names that tools parse.

use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::body::Body;
use protocol::body::kv_table::KvTable;
use protocol::json::Dialect;
use protocol::record::View;
use protocol::version;
use reactor::fs;

use crate::coordinator::{Coordinator, now_s};
use crate::handlers::{Answer, Handled, Reply};
use crate::health::READY;
use crate::transaction;

type Table = BTreeMap<String, String>;

/// 28
pub fn info(coordinator: &Rc<Coordinator>) -> Handled {
    let mut table = Table::new();
    counters(coordinator, &mut table);
    log(coordinator, &mut table);
    let levels = coordinator.delay.levels(&coordinator.shared.store);
    for (level, delivered, end) in levels {
        put(
            &mut table,
            &format!("scheduleMessageOffset_{level}"),
            format!("{delivered},{end}"),
        );
    }
    timers(coordinator, reactor::wall_ms(), &mut table);
    mailboxes(coordinator, &mut table);
    transactions(&coordinator.transactions, &mut table);
    not_there(&mut table);

    let store = std::sync::Arc::clone(&coordinator.shared.store);
    let settings = coordinator.settings();
    Ok(Reply::later(async move {
        let mut table = reactor::offload("disk space", move || {
            for dir in &settings.log_dirs {
                disk(dir, settings.log_dirs.len() > 1, &mut table);
            }
            table
        })
        .await;
        let earliest = store.record_at(store.first()).await.ok().flatten();
        let stored_ms = earliest.and_then(|record| Some(View::parse(&record).ok()?.store_ms));
        put(
            &mut table,
            "earliestMessageTimeStamp",
            stored_ms.unwrap_or(-1),
        );
        let body = KvTable { table }.to_json(Dialect::Fastjson1);
        Answer::with_body(body)
    }))
}

/// What `orbit-broker health` prints.
fn health(coordinator: &Coordinator) -> String {
    let store = &coordinator.shared.store;
    if let Some(why) = store.poison() {
        return format!("poisoned: {why}");
    }
    if store.is_disk_full() {
        let percent = store.disk_used_percent();
        return format!("read-only: the disk is {percent} % full");
    }
    READY.to_owned()
}

fn put(table: &mut Table, key: &str, value: impl ToString) {
    table.insert(key.to_owned(), value.to_string());
}

fn counters(coordinator: &Coordinator, table: &mut Table) {
    let now_ms = reactor::wall_ms();
    let totals = coordinator.shared.stats.totals();
    let rates = &coordinator.rates;
    let days = rates.days();
    let age_s = (now_ms - coordinator.booted_ms) / 1000;
    let uptime = format!(
        "[ {} days, {} hours, {} minutes, {} seconds ]",
        age_s / 86_400,
        age_s / 3600 % 24,
        age_s / 60 % 60,
        age_s % 60
    );
    put(table, "bootTimestamp", coordinator.booted_ms);
    put(table, "runtime", uptime);
    put(table, "brokerActive", true);
    put(table, "orbitHealth", health(coordinator));
    let recovered_bytes = coordinator.shared.store.recovered_bytes();
    put(table, "orbitRecoveredBytes", recovered_bytes);
    put(table, "brokerVersion", version::VERSION);
    put(
        table,
        "brokerVersionDesc",
        concat!("OrbitMQ ", env!("CARGO_PKG_VERSION")),
    );
    put(table, "startAcceptSendRequestTimeStamp", 0);
    put(table, "putMessageTimesTotal", totals.put_messages);
    put(table, "putMessageFailedTimes", totals.put_failed);
    put(table, "putMessageSizeTotal", totals.put_bytes);
    let average = totals.put_bytes.checked_div(totals.put_messages);
    put(table, "putMessageAverageSize", average.unwrap_or(0));
    put(table, "msgPutTotalTodayNow", totals.put_messages);
    put(
        table,
        "msgPutTotalTodayMorning",
        days.this_morning.put_messages,
    );
    put(
        table,
        "msgPutTotalYesterdayMorning",
        days.yesterday_morning.put_messages,
    );
    put(table, "msgGetTotalTodayNow", totals.get_messages);
    put(
        table,
        "msgGetTotalTodayMorning",
        days.this_morning.get_messages,
    );
    put(
        table,
        "msgGetTotalYesterdayMorning",
        days.yesterday_morning.get_messages,
    );
    latencies(coordinator, table);
    let rate = |count: fn(&crate::stats::Totals) -> u64| rates.per_second(now_ms, totals, count);
    put(table, "putTps", rate(|t| t.put_messages));
    put(table, "getFoundTps", rate(|t| t.get_found));
    put(table, "getMissTps", rate(|t| t.get_missed));
    put(table, "getTotalTps", rate(|t| t.get_found + t.get_missed));
    put(table, "getTransferredTps", rate(|t| t.get_messages));
    put(table, "getTransferedTps", rate(|t| t.get_messages));
}

fn latencies(coordinator: &Coordinator, table: &mut Table) {
    let puts = coordinator.figures.latencies(now_s());
    put(table, "putMessageEntireTimeMax", puts.slowest_ms);
    put(table, "putMessageDistributeTime", puts.distribution);
    put(table, "putLatency99", format!("{:.2}", puts.p99_ms));
    put(table, "putLatency999", format!("{:.2}", puts.p999_ms));
    let slowest_get_ms = coordinator.figures.slowest_get_ms();
    put(table, "getMessageEntireTimeMax", slowest_get_ms);
}

fn log(coordinator: &Coordinator, table: &mut Table) {
    let store = &coordinator.shared.store;
    let unflushed = store.unflushed_bytes();
    put(table, "commitLogMinOffset", store.first().0);
    put(table, "commitLogMaxOffset", store.written().0);
    put(table, "remainHowManyDataToFlush", readable(unflushed));
    // What is stored is in the log: there is no pool before it.
    put(table, "remainHowManyDataToCommit", readable(0));
    // The index entry is made with the append: nothing is ever behind.
    put(table, "dispatchBehindBytes", 0);
    let durable = store.flush_stats();
    put(table, "orbitFlushes", durable.flushes);
    put(table, "orbitFlushedBytes", durable.bytes);
    put(table, "orbitFlusher", store.config().flusher.name());
    put(table, "orbitStalls", reactor::stalls());
    let poison = store.poison().map(|why| why.to_string());
    put(table, "orbitPoisoned", poison.unwrap_or_default());
}

/// What waits in front of the cores stands where the real broker has its thread pools' queues.
fn mailboxes(coordinator: &Coordinator, table: &mut Table) {
    let shared = &coordinator.shared;
    let shards = || shared.shards.iter();
    let pools = [
        ("send", shared.writer.len(), shared.writer.capacity()),
        (
            "pull",
            shards().map(|s| s.len()).sum(),
            shards().map(|s| s.capacity()).sum(),
        ),
        ("litePull", 0, 0),
        (
            "query",
            shared.coordinator.len(),
            shared.coordinator.capacity(),
        ),
        ("ack", 0, 0),
    ];
    for (pool, size, capacity) in pools {
        put(table, &format!("{pool}ThreadPoolQueueSize"), size);
        put(table, &format!("{pool}ThreadPoolQueueCapacity"), capacity);
        put(table, &format!("{pool}ThreadPoolQueueHeadWaitTimeMills"), 0);
    }
}

fn transactions(inbox: &transaction::Inbox, table: &mut Table) {
    put(table, "EndTransactionQueueSize", inbox.waiting());
    let capacity = transaction::DECISIONS_MAX;
    put(table, "EndTransactionThreadPoolQueueCapacity", capacity);
    let counters = &inbox.counters;
    for (key, counter) in [
        ("orbitTransactionsOpen", &counters.open),
        ("orbitTransactionsCommitted", &counters.committed),
        ("orbitTransactionsRolledBack", &counters.rolled_back),
        ("orbitTransactionsIgnored", &counters.ignored),
        ("orbitTransactionsAsked", &counters.asked),
        ("orbitTransactionsGivenUp", &counters.given_up),
    ] {
        put(table, key, counter.get());
    }
}

/// Parts of the real broker that are not here; tools expect the keys.
fn not_there(table: &mut Table) {
    for key in [
        "dispatchMaxBuffer",
        "pageCacheLockTimeMills",
        "remainTransientStoreBufferNumbs",
    ] {
        put(table, key, 0);
    }
}

/// Of the messages with a delivery time of their own.
fn timers(coordinator: &Coordinator, now_ms: i64, table: &mut Table) {
    let gauges = &coordinator.shared.timers;
    put(table, "timerReadBehind", gauges.behind_seconds(now_ms));
    put(table, "timerOffsetBehind", gauges.unread());
    put(table, "timerCongestNum", gauges.timers());
    let (taken, delivered) = gauges.per_second(now_ms);
    put(table, "timerEnqueueTps", format!("{taken:.1}"));
    put(table, "timerDequeueTps", format!("{delivered:.1}"));
}

fn disk(dir: &std::path::Path, several: bool, table: &mut Table) {
    let (Ok(total), Ok(free)) = (fs::total_bytes(dir), fs::free_bytes(dir)) else {
        return;
    };
    let used = total.saturating_sub(free) as f64 / total.max(1) as f64;
    let capacity = format!("Total : {}, Free : {}.", readable(total), readable(free));
    put(table, "commitLogDirCapacity", capacity);
    put(table, "commitLogDiskRatio", used);
    put(table, "consumeQueueDiskRatio", used);
    if several {
        put(
            table,
            &format!("commitLogDiskRatio_{}", dir.display()),
            used,
        );
    }
}

/// As tools show sizes: `1.5 MiB`.
fn readable(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = bytes.ilog2() / 10;
    let value = bytes as f64 / (1u64 << (10 * power)) as f64;
    let unit = usize::try_from(power).expect("at most six") - 1;
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        let shown = [0, 1023, 1024, 1_572_864, u64::MAX].map(readable);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "16.0 EiB"]);
    }
}
