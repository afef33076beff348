//! Both brokers' jitter, row by row.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::run::Jittered;
use crate::report::Micros;

#[derive(Serialize)]
pub struct Table<'a>(pub &'a [Jittered]);

type Cell = fn(&Jittered) -> String;

const ROWS: [(&str, Cell); 17] = [
    ("sends a second", |it| format!("{:.0}", it.sent.per_second)),
    ("refused", |it| it.sent.refused.to_string()),
    ("never left in time", |it| it.sent.behind.to_string()),
    ("answered p50", |it| answered(it, it.sent.latency.p50_us)),
    ("answered p99", |it| answered(it, it.sent.latency.p99_us)),
    ("answered p99.9", |it| answered(it, it.sent.latency.p999_us)),
    ("answered max", |it| answered(it, it.sent.latency.max_us)),
    ("hiccups p99.9", |it| micros(it.hiccups.p999_us)),
    ("hiccups max", |it| micros(it.hiccups.max_us)),
    ("p99.9 above hiccups", |it| answered(it, it.p999_above_us)),
    ("max above hiccups", |it| answered(it, it.max_above_us)),
    ("alone: p99.9", |it| answered(it, it.alone.p999_us)),
    ("alone: above hiccups", |it| {
        answered(it, it.alone.p999_above_us)
    }),
    ("cold reader MiB/s", |it| {
        format!("{:.0}", it.cold.mib / it.cold.seconds.max(f64::EPSILON))
    }),
    ("cold reader passes", |it| it.cold.passes.to_string()),
    ("read from disk MiB", |it| match it.disk_read_mib {
        Some(mib) => format!("{mib:.0}"),
        None => "not told".into(),
    }),
    ("broker CPU %", |it| match &it.server {
        Some(server) => format!("{:.0}", server.cpu_percent),
        None => "not told".into(),
    }),
];

/// Of a broker that answered nothing in time there is nothing to say.
fn answered(jittered: &Jittered, us: f64) -> String {
    match jittered.sent.latency.count {
        0 => "none".into(),
        _ => micros(us),
    }
}

fn micros(us: f64) -> String {
    Micros(us).to_string()
}

impl Display for Table<'_> {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        write!(out, "| {:<20} |", "")?;
        for jittered in self.0 {
            write!(out, " {:>10} |", jittered.name)?;
        }
        write!(out, "\n|-|{}", "-|".repeat(self.0.len()))?;
        for (label, cell) in ROWS {
            write!(out, "\n| {label:<20} |")?;
            for jittered in self.0 {
                write!(out, " {:>10} |", cell(jittered))?;
            }
        }
        writeln!(out)
    }
}
