//! What a run has shown: a line a minute, a table in the end, and what was wrong.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::sync::atomic::Ordering;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::ledger::{Acknowledged, Group, Summary, Wrong};
use crate::load::Figures;
use crate::lock::lock;
use crate::watch::log::Stalls;
use crate::watch::memory::Growth;

pub struct Report {
    pub seed: u64,
    pub elapsed: Duration,
    pub is_interrupted: bool,
    pub sent: Sent,
    pub groups: Vec<(Group, Summary)>,
    /// Some of what has not come.
    pub missing: Vec<(Group, String)>,
    pub wrong: Wrong,
    pub examples: Vec<String>,
    /// From the kill, or the first start, until the broker said that it is ready.
    pub starts: Vec<Duration>,
    pub changes: u64,
    /// Of timed messages, in microseconds.
    pub lateness: Histogram<u64>,
    pub memory_kib: u64,
    pub growth: Option<Growth>,
    pub stalls: Stalls,
    /// Seconds in which the machine itself stood still as long as a stall.
    pub hiccup_seconds: usize,
    pub panics: Vec<String>,
    /// Unset: not stopped, or ended by a signal.
    pub stop_exit_code: Option<i32>,
}

pub struct Sent {
    pub acknowledged: Acknowledged,
    pub held_back: u64,
    pub asked: u64,
    pub failed: BTreeMap<String, u64>,
}

impl Sent {
    pub fn new(acknowledged: Acknowledged, figures: &Figures) -> Sent {
        Sent {
            acknowledged,
            held_back: figures.held_back.load(Ordering::Relaxed),
            asked: figures.asked.load(Ordering::Relaxed),
            failed: lock(&figures.failed).clone(),
        }
    }
}

impl Report {
    fn kills(&self) -> usize {
        self.starts.len() - 1
    }

    fn total(&self, of: impl Fn(&Summary) -> u64) -> u64 {
        self.groups.iter().map(|(_, summary)| of(summary)).sum()
    }

    /// How things stand, in one line.
    pub fn line(&self) -> String {
        let acknowledged = &self.sent.acknowledged;
        let allowed = [
            self.total(|one| one.allowed.after_kill),
            self.total(|one| one.allowed.after_members_changed),
            self.total(|one| one.allowed.sent_twice),
        ];
        format!(
            "{:3} min  acknowledged {}, delivered {}, on their way {}; twice after kills {}, after changes {}, sent twice {}, unexplained {}; \
             kills {}, changes {}, {} MiB, stalls {} (machine's {}, at starts {})",
            (self.elapsed.as_secs_f64() / 60.0).round(),
            acknowledged.total(),
            self.total(|one| one.deliveries),
            self.total(|one| one.missing),
            allowed[0],
            allowed[1],
            allowed[2],
            self.wrong.unexplained,
            self.kills(),
            self.changes,
            self.memory_kib >> 10,
            self.stalls.of_the_broker,
            self.stalls.of_the_machine,
            self.stalls.at_starts,
        )
    }

    /// Everything that is not as promised; nothing if all is well. What a busy machine does as well is asked only if
    /// `strict`.
    pub fn judge(&self, strict: bool) -> Vec<String> {
        let wrong = &self.wrong;
        let if_strict = |count: u64| if strict { count } else { 0 };
        let counted = [
            (
                self.total(|one| one.missing),
                "acknowledged and not delivered",
            ),
            (wrong.unexplained, "delivered twice without a reason"),
            (wrong.rolled_back, "rolled back and delivered"),
            (wrong.early, "delivered before their time"),
            (wrong.gaps, "gaps in the order of a key"),
            (wrong.damaged, "not what was sent"),
            (
                if_strict(self.stalls.of_the_broker),
                "stalls of the broker over 10 ms",
            ),
            (self.panics.len() as u64, "panics in the broker's log"),
        ];
        let mut judged: Vec<String> = counted
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if self.is_interrupted {
            // What is on its way is not missing.
            judged.retain(|what| !what.ends_with("not delivered"));
            judged.push("interrupted".to_owned());
            return judged;
        }
        if strict && self.growth.is_some_and(|growth| !growth.is_flat()) {
            judged.push("the broker's memory grows".to_owned());
        }
        if self.sent.acknowledged.total() == 0 || self.kills() == 0 || self.changes == 0 {
            judged
                .push("nothing was shown: no message, no kill or no change of members".to_owned());
        }
        if self.stop_exit_code != Some(0) {
            judged.push("the broker did not stop with exit code 0".to_owned());
        }
        judged
    }
}

impl Acknowledged {
    fn total(&self) -> u64 {
        self.plain + self.delayed + self.transactions + self.rolled_back + self.ordered
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        let sent = &self.sent.acknowledged;
        let slowest = self
            .starts
            .iter()
            .skip(1)
            .max()
            .copied()
            .unwrap_or_default();
        writeln!(
            out,
            "run        {} s, seed {}: killed {} times, ready again after {} ms at most; members came or went {} times",
            self.elapsed.as_secs(),
            self.seed,
            self.kills(),
            slowest.as_millis(),
            self.changes,
        )?;
        writeln!(
            out,
            "sent       {} plain, {} delayed, {} ordered, {} transactions committed, {} rolled back ({} questions); {} in doubt, {} held back",
            sent.plain,
            sent.delayed,
            sent.ordered,
            sent.transactions,
            sent.rolled_back,
            self.sent.asked,
            sent.doubtful,
            self.sent.held_back,
        )?;
        for (how, count) in &self.sent.failed {
            writeln!(out, "           failed: {how}: {count}")?;
        }
        writeln!(
            out,
            "{:<22} {:>10} {:>8} {:>8} | {:>10} {:>10} {:>10}",
            "group", "delivered", "missing", "retried", "twice: kill", "members", "sent twice"
        )?;
        for (group, summary) in &self.groups {
            writeln!(
                out,
                "{:<22} {:>10} {:>8} {:>8} | {:>11} {:>10} {:>10}",
                group.name(),
                summary.deliveries,
                summary.missing,
                summary.retried,
                summary.allowed.after_kill,
                summary.allowed.after_members_changed,
                summary.allowed.sent_twice,
            )?;
        }
        let late = |quantile| self.lateness.value_at_quantile(quantile) as f64 / 1e3;
        writeln!(
            out,
            "late       {} timed messages away from kills: p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {:.1} ms; early {}",
            self.lateness.len(),
            late(0.5),
            late(0.99),
            late(0.999),
            self.lateness.max() as f64 / 1e3,
            self.wrong.early,
        )?;
        if let Some(growth) = self.growth {
            writeln!(
                out,
                "memory     {:.1} MiB anonymous in the second quarter, {:.1} in the last, at most {:.1}",
                growth.second_kib as f64 / 1024.0,
                growth.last_kib as f64 / 1024.0,
                growth.max_kib as f64 / 1024.0,
            )?;
        }
        write!(
            out,
            "stalls     {} over 10 ms, {} more while the machine stood still ({} seconds with hiccups that long), {} at starts",
            self.stalls.of_the_broker,
            self.stalls.of_the_machine,
            self.hiccup_seconds,
            self.stalls.at_starts,
        )?;
        let missing = self.missing.iter();
        let missing = missing.map(|(group, what)| format!("missing at {}: {what}", group.name()));
        let told = self.examples.iter().chain(&self.stalls.examples);
        for line in told.chain(&self.panics).cloned().chain(missing) {
            write!(out, "\n  {line}")?;
        }
        Ok(())
    }
}
