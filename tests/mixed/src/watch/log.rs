//! The broker's log as it grows: tasks that held their core too long, and panics. A stall near a start, or when the
//! machine itself stood still, is not the broker's fault; both are counted apart.

use std::path::{Path, PathBuf};

use super::hiccups::Hiccups;
use crate::broker::read_from;

const STALL: &str = "a task held its core too long";
const PANIC: &str = "panicked at";
/// A start makes tables and files; what stalls then holds nobody up.
const START_GRACE_MS: i64 = 2_000;
const EXAMPLES_MAX: usize = 20;

pub struct Log {
    path: PathBuf,
    read_bytes: u64,
    pub stalls: Stalls,
    pub panics: Vec<String>,
}

#[derive(Clone, Default)]
pub struct Stalls {
    /// When starts began and ended.
    starts: Vec<(i64, i64)>,
    pub at_starts: u64,
    pub of_the_machine: u64,
    pub of_the_broker: u64,
    pub examples: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stall {
    /// When it was over.
    at_ms: i64,
    held_ms: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    Start,
    Machine,
    Broker,
}

impl Log {
    pub fn new(path: &Path) -> Log {
        Log {
            path: path.to_owned(),
            read_bytes: 0,
            stalls: Stalls::default(),
            panics: Vec::new(),
        }
    }

    /// Whole lines that have come since the last time. `waited_ms`: how long a thread of the broker has waited for a
    /// CPU meanwhile; told beside a stall, not counted.
    pub fn read(&mut self, hiccups: &Hiccups, waited_ms: u64) {
        let bytes = read_from(&self.path, self.read_bytes);
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            return;
        };
        self.read_bytes += end as u64 + 1;
        for line in String::from_utf8_lossy(&bytes[..end]).lines() {
            if line.contains(PANIC) {
                self.panics.push(line.to_owned());
            }
            if let Some(stall) = Stall::parse(line) {
                let from_ms = stall.at_ms - i64::from(stall.held_ms);
                let hiccup_ms = hiccups.longest_ms(from_ms, stall.at_ms);
                self.stalls.count(stall, hiccup_ms, waited_ms, line);
            }
        }
    }
}

impl Stalls {
    pub fn started(&mut self, from_ms: i64, to_ms: i64) {
        self.starts.push((from_ms, to_ms));
    }

    fn count(&mut self, stall: Stall, hiccup_ms: u32, waited_ms: u64, line: &str) {
        match self.blame(stall, hiccup_ms) {
            Blame::Start => self.at_starts += 1,
            Blame::Machine => self.of_the_machine += 1,
            Blame::Broker => {
                self.of_the_broker += 1;
                if self.examples.len() < EXAMPLES_MAX {
                    let told = format!(
                        "{line} (hiccups then: {hiccup_ms} ms; its threads waited {waited_ms} ms for a CPU)"
                    );
                    self.examples.push(told);
                }
            }
        }
    }

    fn blame(&self, stall: Stall, hiccup_ms: u32) -> Blame {
        let near = |(from_ms, to_ms): &(i64, i64)| {
            (*from_ms..=to_ms + START_GRACE_MS).contains(&stall.at_ms)
        };
        if self.starts.iter().any(near) {
            Blame::Start
        } else if hiccup_ms * 2 >= stall.held_ms {
            Blame::Machine
        } else {
            Blame::Broker
        }
    }
}

impl Stall {
    fn parse(line: &str) -> Option<Stall> {
        if !line.contains(STALL) {
            return None;
        }
        let held = line
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix("held_ms="))?;
        Some(Stall {
            at_ms: time_ms(line)?,
            held_ms: held.parse().ok()?,
        })
    }
}

/// Of a line that begins with `2026-11-21T16:09:09.880721Z`.
fn time_ms(line: &str) -> Option<i64> {
    client::time::parse_ms(line.get(.."2026-11-21T16:09:09.880".len())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "2024-02-29T12:00:00.880721Z  WARN a task held its core too long core=\"shard-0\" task=\"main\" held_ms=23";
    const STALL_AT_12: Stall = Stall {
        at_ms: 1_709_208_000_880,
        held_ms: 23,
    };

    #[test]
    fn a_stall_is_read_from_its_line() {
        assert_eq!(Stall::parse(LINE), Some(STALL_AT_12));
        assert_eq!(Stall::parse(&LINE.replace("held_ms", "kept_ms")), None);
        assert_eq!(Stall::parse(&LINE.replace("too long", "long")), None);
        assert_eq!(
            Stall::parse("a task held its core too long held_ms=5"),
            None
        );
    }

    #[test]
    fn a_stall_is_the_brokers_unless_it_starts_or_the_machine_stood_still() {
        let mut stalls = Stalls::default();
        assert_eq!(stalls.blame(STALL_AT_12, 11), Blame::Broker);
        assert_eq!(stalls.blame(STALL_AT_12, 12), Blame::Machine);
        stalls.started(STALL_AT_12.at_ms - 3_000, STALL_AT_12.at_ms - 2_001);
        assert_eq!(stalls.blame(STALL_AT_12, 0), Blame::Broker);
        stalls.started(STALL_AT_12.at_ms - 3_000, STALL_AT_12.at_ms - 2_000);
        assert_eq!(stalls.blame(STALL_AT_12, 0), Blame::Start);
    }

    #[test]
    fn a_line_is_counted_once_and_only_when_it_is_whole() {
        let folder = std::env::temp_dir().join(format!("orbit-mixed-log-{}", std::process::id()));
        let hiccups = Hiccups::watch(std::time::Duration::ZERO).expect("threads can be started");
        let mut log = Log::new(&folder);
        for (text, count) in [
            (format!("{LINE}\n{LINE}"), 1),
            (format!("{LINE}\n{LINE}\n"), 2),
            (format!("{LINE}\n{LINE}\nthread 'main' panicked at x\n"), 2),
        ] {
            std::fs::write(&folder, text).expect("written");
            log.read(&hiccups, 0);
            let stalls = &log.stalls;
            assert_eq!(stalls.of_the_broker + stalls.of_the_machine, count);
        }
        assert_eq!(log.panics.len(), 1);
        std::fs::remove_file(&folder).expect("removed");
    }
}
