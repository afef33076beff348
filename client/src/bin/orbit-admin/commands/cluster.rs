//! Clusters and who is in them.

use orbitmq_client::admin::{Admin, Broker, Runtime};
use serde::Serialize;

use super::Done;
use crate::cli::Cluster;
use crate::output::{Output, rate};

/// A broker, with what it does at the moment; nothing of one that does not answer.
#[derive(Serialize)]
pub struct Row {
    #[serde(flatten)]
    broker: Broker,
    reachable: bool,
    version: String,
    /// Messages a second.
    put_tps: f64,
    get_tps: f64,
    /// Percent of the disk with the log.
    disk_percent: f64,
    /// Messages stored since midnight.
    put_today: i64,
    health: String,
}

pub async fn run(admin: &Admin, command: Cluster, output: &Output) -> Done {
    match command {
        Cluster::List => list(admin, output).await,
    }
}

pub async fn list(admin: &Admin, output: &Output) -> Done {
    let mut rows = Vec::new();
    for broker in admin.brokers().await? {
        let runtime = admin.runtime(&broker.address).await;
        rows.push(row(broker, runtime.ok()));
    }
    let heads = [
        "CLUSTER", "BROKER", "#ID", "ADDRESS", "VERSION", "#PUT/S", "#GET/S", "#TODAY", "#DISK %",
        "STATE",
    ];
    output.rows(&rows, &heads, |row| {
        let state = match (row.reachable, row.health.as_str()) {
            (false, _) => "unreachable",
            (true, "") => "up",
            (true, health) => health,
        };
        vec![
            row.broker.cluster.clone(),
            row.broker.name.clone(),
            row.broker.id.to_string(),
            row.broker.address.clone(),
            row.version.clone(),
            rate(row.put_tps),
            rate(row.get_tps),
            row.put_today.to_string(),
            format!("{:.0}", row.disk_percent),
            state.to_owned(),
        ]
    });
    Ok(())
}

fn row(broker: Broker, runtime: Option<Runtime>) -> Row {
    let reachable = runtime.is_some();
    let runtime = runtime.unwrap_or_default();
    let number = |name| runtime.get(name).parse::<i64>().unwrap_or(0);
    let today = number("msgPutTotalTodayNow") - number("msgPutTotalTodayMorning");
    Row {
        reachable,
        version: runtime.get("brokerVersionDesc").to_owned(),
        put_tps: runtime.rate("putTps"),
        get_tps: runtime.rate("getTransferredTps"),
        disk_percent: runtime.rate("commitLogDiskRatio") * 100.0,
        put_today: today.max(0),
        health: runtime.get("orbitHealth").to_owned(),
        broker,
    }
}
