//! The figures of a run: for the eye and as JSON. Latencies are microseconds everywhere.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::ledger::Counts;
use crate::load::{Outcome, Refusals};

#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl Latency {
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Latency {
            count: histogram.len(),
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1e3,
        }
    }
}

impl Display for Latency {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        if self.count == 0 {
            return write!(out, "none measured");
        }
        write!(
            out,
            "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
            Micros(self.p50_us),
            Micros(self.p90_us),
            Micros(self.p99_us),
            Micros(self.p999_us),
            Micros(self.max_us)
        )
    }
}

/// Microseconds in the unit that reads best.
pub struct Micros(pub f64);

impl Display for Micros {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        match self.0 {
            us if us.abs() < 1_000.0 => write!(out, "{us:.0} µs"),
            us if us.abs() < 100_000.0 => write!(out, "{:.2} ms", us / 1e3),
            us => write!(out, "{:.2} s", us / 1e6),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct SentFigures {
    pub messages: u64,
    pub messages_total: u64,
    pub per_second: f64,
    pub refused: u64,
    pub refusals: Refusals,
    pub behind: u64,
    pub latency: Latency,
}

#[derive(Clone, Debug, Serialize)]
pub struct ConsumedFigures {
    pub messages: u64,
    pub per_second: f64,
    pub mib_per_second: f64,
    pub counts: Counts,
    pub refused: u64,
    pub refusals: Refusals,
    /// From the intended start of the send to the arrival at the consumer.
    pub latency: Latency,
}

#[derive(Clone, Debug, Serialize)]
pub struct ServerFigures {
    pub cpu_us_per_message: f64,
    pub cpu_percent: f64,
    pub anonymous_mib: f64,
    pub resident_mib: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub window_s: f64,
    pub sent: Option<SentFigures>,
    pub consumed: Option<ConsumedFigures>,
    pub server: Option<ServerFigures>,
    pub generator_cpu_us_per_message: f64,
    pub generator_cpu_percent: f64,
}

impl Figures {
    pub fn of(outcome: &Outcome) -> Figures {
        let seconds = outcome.window.as_secs_f64();
        let sent = outcome.sent.as_ref().map(|sent| SentFigures {
            messages: sent.messages,
            messages_total: sent.messages_total,
            per_second: sent.messages as f64 / seconds,
            refused: sent.refused.total(),
            refusals: sent.refused.clone(),
            behind: sent.behind,
            latency: Latency::of(&sent.latencies.histogram),
        });
        let consumed = outcome.consumed.as_ref().map(|consumed| ConsumedFigures {
            messages: consumed.messages,
            per_second: consumed.messages as f64 / seconds,
            mib_per_second: consumed.bytes as f64 / seconds / f64::from(1 << 20),
            counts: consumed.counts,
            refused: consumed.refused.total(),
            refusals: consumed.refused.clone(),
            latency: Latency::of(&consumed.latencies.histogram),
        });
        // What is sent and read in one run is one message, not two.
        let messages = sent
            .as_ref()
            .map(|sent| sent.messages)
            .or(consumed.as_ref().map(|consumed| consumed.messages))
            .unwrap_or(0)
            .max(1) as f64;
        let server = outcome.server_cpu_us.map(|cpu_us| {
            let memory = outcome.server_memory.unwrap_or_default();
            ServerFigures {
                cpu_us_per_message: cpu_us as f64 / messages,
                cpu_percent: cpu_us as f64 / 1e4 / seconds,
                anonymous_mib: memory.anonymous_kib as f64 / 1024.0,
                resident_mib: memory.resident_kib as f64 / 1024.0,
            }
        });
        Figures {
            window_s: seconds,
            sent,
            consumed,
            server,
            generator_cpu_us_per_message: outcome.generator_cpu_us as f64 / messages,
            generator_cpu_percent: outcome.generator_cpu_us as f64 / 1e4 / seconds,
        }
    }
}

impl Display for Figures {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        if let Some(sent) = &self.sent {
            writeln!(
                out,
                "sent       {:.0} messages/s ({} in {:.1} s), {} refused{}",
                sent.per_second,
                sent.messages,
                self.window_s,
                sent.refused,
                match sent.behind {
                    0 => String::new(),
                    behind => format!(", {behind} never left: the broker does not keep up"),
                }
            )?;
            writeln!(out, "  answered {}", sent.latency)?;
            write_refusals(out, &sent.refusals)?;
        }
        if let Some(consumed) = &self.consumed {
            let counts = &consumed.counts;
            writeln!(
                out,
                "consumed   {:.0} messages/s ({:.0} MiB/s, {} in {:.1} s)",
                consumed.per_second, consumed.mib_per_second, consumed.messages, self.window_s
            )?;
            writeln!(
                out,
                "  checked  {} messages: {} lost, {} duplicates, {} out of order, {} damaged",
                counts.messages,
                counts.lost,
                counts.duplicates,
                counts.out_of_order,
                counts.damaged
            )?;
            if consumed.latency.count > 0 {
                writeln!(out, "  arrived  {}", consumed.latency)?;
            }
            write_refusals(out, &consumed.refusals)?;
        }
        if let Some(server) = &self.server {
            writeln!(
                out,
                "broker     {:.2} µs CPU a message, {:.0} % CPU, {:.0} MiB anonymous, {:.0} MiB resident",
                server.cpu_us_per_message,
                server.cpu_percent,
                server.anonymous_mib,
                server.resident_mib
            )?;
        }
        write!(
            out,
            "generator  {:.2} µs CPU a message, {:.0} % CPU",
            self.generator_cpu_us_per_message, self.generator_cpu_percent
        )
    }
}

fn write_refusals(out: &mut Formatter, refusals: &Refusals) -> fmt::Result {
    for (code, (count, remark)) in &refusals.0 {
        writeln!(out, "  refused  {count} times with code {code}: {remark}")?;
    }
    Ok(())
}

pub fn write_json(path: Option<&Path>, figures: &impl Serialize) -> Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    let json = serde_json::to_vec_pretty(figures).expect("figures have string keys");
    fs::write(path, json).map_err(Error::io(format!("writing {}", path.display())))
}
