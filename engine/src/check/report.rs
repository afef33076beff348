//! What a check has found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// More findings than this are counted and not kept.
const FINDINGS_MAX: usize = 10_000;

/// How much a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing is wrong: the next start deals with it.
    Note,
    Problem,
}

/// What can be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Nothing needs to be done.
    Unneeded,
    /// `--repair` would do this.
    Possible(&'static str),
    /// `--repair` did it.
    Done(&'static str),
    /// Not by this program: what somebody can do.
    Impossible(&'static str),
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub file: PathBuf,
    /// Byte of the file.
    pub offset: Option<u64>,
    pub what: String,
    pub repair: Repair,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// Problems of all, kept or not.
    pub problems: u64,
    pub notes: u64,
    pub repaired: u64,
    pub segments: u64,
    pub segment_bytes: u64,
    pub first: u64,
    /// Where the log ends.
    pub end: u64,
    pub log_bytes_read: u64,
    pub records: u64,
    /// Records that are in a queue.
    pub messages: u64,
    pub companions: u64,
    /// Entries of companions that were compared with the log.
    pub entries: u64,
    /// RocketMQ had the store last, or always.
    pub rocketmqs: bool,
    pub closed: bool,
    /// First and next offset of every queue the log has messages of.
    pub queues: BTreeMap<(String, u32), Range<u64>>,
}

impl Report {
    /// Whether nothing is wrong, or everything that was is repaired.
    pub fn is_clean(&self) -> bool {
        self.problems == self.repaired
    }

    pub fn note(&mut self, file: &Path, offset: Option<u64>, what: impl Into<String>) {
        self.notes += 1;
        self.add(Severity::Note, file, offset, what.into(), Repair::Unneeded);
    }

    pub fn problem(
        &mut self,
        file: &Path,
        offset: Option<u64>,
        what: impl Into<String>,
        repair: Repair,
    ) {
        self.problems += 1;
        self.repaired += u64::from(matches!(repair, Repair::Done(_)));
        self.add(Severity::Problem, file, offset, what.into(), repair);
    }

    fn add(
        &mut self,
        severity: Severity,
        file: &Path,
        offset: Option<u64>,
        what: String,
        repair: Repair,
    ) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding {
                severity,
                file: file.to_path_buf(),
                offset,
                what,
                repair,
            });
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Problem => "PROBLEM",
        };
        write!(f, "{severity}  {}", self.file.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at {offset}")?;
        }
        write!(f, ": {}", self.what)?;
        match self.repair {
            Repair::Unneeded => Ok(()),
            Repair::Possible(how) => write!(f, "; --repair {how}"),
            Repair::Done(how) => write!(f, "; repaired: {how}"),
            Repair::Impossible(advice) => write!(f, "; not repaired by this program: {advice}"),
        }
    }
}
