//! Memory: how much there is for us, and what the kernel does with huge pages.

use std::fs;

use super::cgroup::Limits;
use super::{Finding, bytes};
use crate::config::Settings;
use crate::memory::MEMORY_BYTES_MIN;

const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

pub fn examine(settings: &Settings, limits: Limits) -> Vec<Finding> {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mut findings = vec![judge_size(
        total_bytes(&meminfo),
        limits.memory_bytes,
        settings.memory_bytes,
    )];
    if let Ok(choices) = fs::read_to_string(HUGE_PAGES) {
        findings.push(judge_huge_pages(&choices));
    }
    findings
}

fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// `wish` is the setting `memory`.
fn judge_size(total: Option<u64>, limit: Option<u64>, wish: u64) -> Finding {
    let thing = "memory";
    let Some(there) = [total, limit].into_iter().flatten().min() else {
        return Finding::warn(thing, "cannot tell how much there is", "mount /proc");
    };
    let whose = if limit == Some(there) {
        "allowed by the control group"
    } else {
        "in this machine"
    };
    let found = format!(
        "{} {whose}, the broker holds at most {}",
        bytes::shown(there),
        bytes::shown(wish)
    );
    if there < MEMORY_BYTES_MIN {
        let least = bytes::shown(MEMORY_BYTES_MIN);
        return Finding::fail(thing, found, format!("it needs {least} at least"));
    }
    if wish >= there {
        return Finding::fail(
            thing,
            found,
            "the kernel would kill the broker: lower `memory`, and leave something to the rest of the system",
        );
    }
    // What is not the broker's: connections in the kernel, page tables, everybody else.
    if wish > there / 10 * 9 {
        return Finding::warn(thing, found, "leave a tenth to the kernel and to others");
    }
    Finding::ok(thing, found)
}

/// `choices` is as the kernel shows them, the one in force in brackets.
fn judge_huge_pages(choices: &str) -> Finding {
    let thing = "transparent huge pages";
    let chosen = choices
        .split(['[', ']'])
        .nth(1)
        .unwrap_or_else(|| choices.trim());
    if chosen == "always" {
        return Finding::warn(
            thing,
            "for every program (always)",
            "page faults clear 2 MiB at a time: write `madvise` to /sys/kernel/mm/transparent_hugepage/enabled (tuning/apply)",
        );
    }
    Finding::ok(thing, chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn the_lower_of_machine_and_group_counts() {
        let finding = judge_size(Some(64 << 30), Some(1 << 30), MEMORY_BYTES_MIN);
        assert_eq!(finding.verdict, Verdict::Ok);
        assert!(finding.found.contains("1 GiB allowed"), "{finding}");
        assert_eq!(
            judge_size(Some(64 << 30), Some(128 << 20), MEMORY_BYTES_MIN).verdict,
            Verdict::Fail
        );
        assert_eq!(
            judge_size(None, None, MEMORY_BYTES_MIN).verdict,
            Verdict::Warn
        );
    }

    #[test]
    fn a_ceiling_above_what_is_there_is_a_failure() {
        let judged = |wish| judge_size(Some(10 << 30), None, wish).verdict;
        assert_eq!(judged(4 << 30), Verdict::Ok);
        assert_eq!(judged((10 << 30) - 1), Verdict::Warn);
        assert_eq!(judged(10 << 30), Verdict::Fail);
    }

    #[test]
    fn huge_pages_for_everybody_are_a_warning() {
        assert_eq!(
            judge_huge_pages("always [madvise] never\n").verdict,
            Verdict::Ok
        );
        assert_eq!(
            judge_huge_pages("[always] madvise never\n").verdict,
            Verdict::Warn
        );
    }

    #[test]
    fn the_total_is_found() {
        let meminfo = "MemTotal:       24684088 kB\nMemFree:  1 kB\n";
        assert_eq!(total_bytes(meminfo), Some(24_684_088 * 1024));
        assert_eq!(total_bytes(""), None);
    }
}
