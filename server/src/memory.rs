//! How much memory the broker may hold, and what it is for.
//!
//! `memory` divides what the process itself holds: its window, caches, indexes and connections. Pages of mapped log files
//! belong to the kernel and are not counted. Without the setting it is a quarter of what the machine or the container has.
//!
//! The window, the cold cache, indexes and what waits for peers are held to their parts while the broker runs. Indexes take 16
//! bytes a message: where messages are so small that those of a few log files would be too much, log files end early.

use std::fs;
use std::path::Path;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// With less the parts cannot do their work.
pub const MEMORY_BYTES_MIN: u64 = 256 * MIB;
/// More is taken only when it is asked for.
const DEFAULT_BYTES_MAX: u64 = 4 * GIB;
const DEFAULT_FRACTION: u64 = 4;

const WINDOW_FRACTION: u64 = 8;
/// The disk needs no more than this to write while the log goes on.
const WINDOW_BYTES_MAX: u64 = GIB;
/// A quarter of the window is mapped a second time, and counted a second time.
const OVERHANG_FRACTION: u64 = 4;
const COLD_CACHE_FRACTION: u64 = 16;
/// A log file may have a quarter of it in entries of 16 bytes: of 128 MiB that are two million messages at least half of the
/// time, and one million always, so a file of 1 GiB is full with messages of 1 KiB.
const INDEX_FRACTION: u64 = 2;
const CONNECTIONS_FRACTION: u64 = 8;
/// Programs, stacks, rings, tables.
const REST_BYTES: u64 = 48 * MIB;

/// What each part may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub total_bytes: u64,
    /// A power of two.
    pub window_bytes: u64,
    /// Cold log that was read ahead.
    pub cold_cache_bytes: u64,
    /// Indexes of log files that are not cold yet.
    pub index_bytes: u64,
    /// Answers and requests on their way, of all connections.
    pub connections_bytes: u64,
}

impl Budget {
    pub fn of(total_bytes: u64) -> Self {
        assert!(total_bytes >= MEMORY_BYTES_MIN, "checked with the settings");
        let window = (total_bytes / WINDOW_FRACTION).min(WINDOW_BYTES_MAX);
        let budget = Self {
            total_bytes,
            window_bytes: 1 << window.ilog2(),
            cold_cache_bytes: total_bytes / COLD_CACHE_FRACTION,
            index_bytes: total_bytes / INDEX_FRACTION,
            connections_bytes: total_bytes / CONNECTIONS_FRACTION,
        };
        assert!(
            budget.sum() <= total_bytes,
            "the parts fit the whole: {budget:?}"
        );
        budget
    }

    fn sum(&self) -> u64 {
        let window = self.window_bytes + self.window_bytes / OVERHANG_FRACTION;
        window
            + self.cold_cache_bytes
            + self.index_bytes
            + self.connections_bytes
            + REST_BYTES.min(self.total_bytes / 8)
    }
}

/// What is taken when nothing is said. Blocks.
pub fn default_bytes() -> u64 {
    let available = available_bytes(Path::new("/"));
    available.map_or(MEMORY_BYTES_MIN, default_of)
}

fn default_of(available: u64) -> u64 {
    (available / DEFAULT_FRACTION).clamp(MEMORY_BYTES_MIN, DEFAULT_BYTES_MAX)
}

/// What the machine has, or the tightest limit of the groups this process is in. Blocks.
fn available_bytes(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").and_then(|text| meminfo_total(&text));
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().flat_map(|line| group_limits(root, line));
    limits.chain(machine).min()
}

fn meminfo_total(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The limits of a group and of those it lies in, from a line of `/proc/self/cgroup`: `0::/path` or `9:memory:/path`.
fn group_limits(root: &Path, line: &str) -> Vec<u64> {
    let mut parts = line.splitn(3, ':');
    let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
    else {
        return Vec::new();
    };
    let (base, file) = if number == "0" && controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max")
    } else if controllers.split(',').any(|name| name == "memory") {
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
    } else {
        return Vec::new();
    };
    let base = root.join(base);
    // Inside a container the path may be the host's; the group's own files then lie at the top.
    let path = Path::new(path.trim_start_matches('/'));
    let groups = path.ancestors().map(|group| base.join(group).join(file));
    let limits = groups.filter_map(|file| fs::read_to_string(file).ok());
    // "max" is no number and no limit; version 1 says a number no machine has.
    limits.filter_map(|text| text.trim().parse().ok()).collect()
}

/// A number of bytes as operators write it: `512M`, `4g`, `1073741824`.
pub fn parse(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => MIB,
        "g" | "gb" | "gib" => GIB,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_fit_whatever_the_whole() {
        for total in [256, 257, 300, 512, 777, 1024, 4096, 100_000].map(|mib| mib * MIB) {
            let budget = Budget::of(total);
            assert!(budget.window_bytes.is_power_of_two());
            assert!(budget.window_bytes >= 32 * MIB && budget.window_bytes <= WINDOW_BYTES_MAX);
        }
    }

    #[test]
    fn sizes_are_written_with_and_without_a_unit() {
        assert_eq!(parse("512M"), Some(512 * MIB));
        assert_eq!(parse("4g"), Some(4 * GIB));
        assert_eq!(parse("1 GiB"), Some(GIB));
        assert_eq!(parse("1073741824"), Some(GIB));
        for wrong in [
            "",
            "M",
            "much",
            "-1G",
            "1.5G",
            "99999999999999999999",
            "16777216T",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_default_is_a_quarter_within_bounds() {
        assert_eq!(default_of(8 * GIB), 2 * GIB);
        assert_eq!(default_of(512 * MIB), MEMORY_BYTES_MIN);
        assert_eq!(default_of(512 * GIB), DEFAULT_BYTES_MAX);
        assert!(default_bytes() >= MEMORY_BYTES_MIN);
    }

    #[test]
    fn the_tightest_group_counts_in_both_versions() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("in a directory")).expect("it can be made");
            fs::write(path, text).expect("it can be written");
        };
        put("proc/meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\n");
        assert_eq!(available_bytes(dir.path()), Some(16 * MIB));
        put("proc/self/cgroup", "0::/a/b\n");
        put("sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(available_bytes(dir.path()), Some(16 * MIB));
        put("sys/fs/cgroup/a/memory.max", "8388608\n");
        assert_eq!(available_bytes(dir.path()), Some(8 * MIB));
        put("proc/self/cgroup", "4:cpu,cpuacct:/x\n9:memory:/docker/1\n");
        put("sys/fs/cgroup/memory/memory.limit_in_bytes", "4194304\n");
        assert_eq!(available_bytes(dir.path()), Some(4 * MIB));
    }
}
