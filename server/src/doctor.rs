//! `orbit-broker doctor`: what the broker needs of this machine and what it finds, one line each, without starting it.
//!
//! Each room below measures something and hands the figures to a pure function that judges them; only those are tested
//! one by one. Nothing here touches the files of a store: what is written goes to a temporary file without a name. It all
//! runs on one ordinary thread, beside a running broker as well.

use std::fmt;

use serde::Serialize;

use crate::config::{Remark, Settings};

pub(crate) mod ask;
mod bytes;
mod cgroup;
mod clock;
mod cpus;
mod limits;
mod memory;
mod network;
mod ring;
mod scratch;
mod store;
mod window;

/// How bad a finding is; the worst one is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// The broker works, and something costs speed, safety or a surprise later.
    Warn,
    /// The broker will not start, or will not do what its settings promise.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub verdict: Verdict,
    pub thing: String,
    pub found: String,
    /// What to do about it; empty if nothing needs doing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

impl Finding {
    pub fn ok(thing: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, thing, found, "")
    }

    pub fn warn(
        thing: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(Verdict::Warn, thing, found, advice)
    }

    pub fn fail(
        thing: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(Verdict::Fail, thing, found, advice)
    }

    fn new(
        verdict: Verdict,
        thing: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            verdict,
            thing: thing.into(),
            found: found.into(),
            advice: advice.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        write!(f, "{verdict:<4}  {}: {}", self.thing, self.found)?;
        if !self.advice.is_empty() {
            write!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}

/// Everything that was found, in the order it was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    /// The settings cannot even be read; nothing else can be judged then.
    pub fn of_broken_settings(problem: &str) -> Self {
        let advice = "correct the file; `orbit-broker -p` prints all settings with their values";
        Self {
            findings: vec![Finding::fail("settings", problem, advice)],
        }
    }

    pub fn worst(&self) -> Verdict {
        let verdicts = self.findings.iter().map(|finding| finding.verdict);
        verdicts.max().unwrap_or(Verdict::Ok)
    }

    /// 0: all good, 1: warnings, 2: failures.
    pub fn exit_code(&self) -> u8 {
        match self.worst() {
            Verdict::Ok => 0,
            Verdict::Warn => 1,
            Verdict::Fail => 2,
        }
    }

    pub fn to_json(&self) -> String {
        let whole = serde_json::json!({ "verdict": self.worst(), "findings": self.findings });
        format!("{whole:#}\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings
            .iter()
            .try_for_each(|finding| writeln!(f, "{finding}"))
    }
}

/// Looks at everything. Takes a few seconds, most of them for the disk.
pub fn examine(settings: &Settings, remarks: &[Remark]) -> Report {
    let groups = cgroup::limits();
    let mut findings = judge_remarks(remarks);
    findings.push(ring::examine());
    findings.extend(limits::examine(settings));
    findings.push(cpus::examine(settings, groups));
    findings.extend(memory::examine(settings, groups));
    findings.extend(window::examine(settings));
    findings.extend(window::left_behind(settings));
    findings.extend(clock::examine(settings));
    findings.extend(store::examine(settings));
    findings.extend(network::examine(settings));
    Report { findings }
}

/// What loading the settings had to say.
fn judge_remarks(remarks: &[Remark]) -> Vec<Finding> {
    let warnings = remarks.iter().filter_map(|remark| match remark {
        Remark::Warning(text) => Some(Finding::warn("settings", text, "")),
        Remark::Detail(_) => None,
    });
    let findings: Vec<_> = warnings.collect();
    if findings.is_empty() {
        return vec![Finding::ok("settings", "every key is known and honoured")];
    }
    findings
}

#[cfg(test)]
mod tests;
