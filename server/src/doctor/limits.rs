//! What this process may have: open files and locked memory.

use std::fs;

use engine::FlusherKind;
use rustix::process::{Resource, getrlimit};

use super::{Finding, bytes};
use crate::config::Settings;
use crate::memory::Budget;

/// Enough for a few thousand clients and a month of log files.
const OPEN_FILES_MIN: u64 = 65_536;
/// With fewer the broker itself runs out.
const OPEN_FILES_LEAST: u64 = 1024;
/// What the rings of a core need at most (older kernels count them).
const RINGS_BYTES: u64 = 8 << 20;
/// The bit of the effective capabilities that frees a process from the limit of locked memory.
const CAP_IPC_LOCK: u32 = 14;

pub fn examine(settings: &Settings) -> Vec<Finding> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let locks = if may_lock_anything(&status) {
        None
    } else {
        getrlimit(Resource::Memlock).current
    };
    vec![
        judge_open_files(getrlimit(Resource::Nofile).maximum),
        judge_locked(locks, wish(settings)),
    ]
}

/// What the settings would like to lock.
fn wish(settings: &Settings) -> u64 {
    match settings.fitting_flusher() {
        FlusherKind::Mmap => RINGS_BYTES,
        FlusherKind::Direct => RINGS_BYTES + Budget::of(settings.memory_bytes).window_bytes,
    }
}

fn may_lock_anything(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    capabilities.is_some_and(|bits| bits >> CAP_IPC_LOCK & 1 == 1)
}

/// The broker raises its soft limit to the hard one, so only that counts.
fn judge_open_files(hard: Option<u64>) -> Finding {
    let thing = "open files";
    let advice = "raise it: LimitNOFILE= in a systemd unit, --ulimit nofile= for a container, limits.d for a shell";
    match hard {
        None => Finding::ok(thing, "no limit"),
        Some(limit) if limit >= OPEN_FILES_MIN => Finding::ok(thing, format!("up to {limit}")),
        Some(limit) if limit >= OPEN_FILES_LEAST => Finding::warn(
            thing,
            format!("at most {limit}, which is as many connections and log files"),
            advice,
        ),
        Some(limit) => Finding::fail(thing, format!("at most {limit}"), advice),
    }
}

/// `None`: no limit.
fn judge_locked(limit: Option<u64>, wish: u64) -> Finding {
    let thing = "locked memory";
    match limit {
        None => Finding::ok(thing, "no limit"),
        Some(limit) if limit >= wish => {
            Finding::ok(thing, format!("up to {}", bytes::shown(limit)))
        }
        Some(limit) => Finding::warn(
            thing,
            format!(
                "at most {} of the {} that the settings would lock; the rest can be swapped out",
                bytes::shown(limit),
                bytes::shown(wish)
            ),
            "raise it: LimitMEMLOCK=infinity in a systemd unit, --ulimit memlock=-1 for a container",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::settings;
    use crate::doctor::Verdict;

    #[test]
    fn few_open_files_are_a_warning_and_very_few_a_failure() {
        assert_eq!(judge_open_files(None).verdict, Verdict::Ok);
        assert_eq!(judge_open_files(Some(1 << 20)).verdict, Verdict::Ok);
        assert_eq!(judge_open_files(Some(20_000)).verdict, Verdict::Warn);
        assert_eq!(judge_open_files(Some(256)).verdict, Verdict::Fail);
    }

    #[test]
    fn locked_memory_is_judged_by_what_the_settings_want() {
        assert_eq!(judge_locked(None, 4 << 30).verdict, Verdict::Ok);
        assert_eq!(judge_locked(Some(8 << 20), 8 << 20).verdict, Verdict::Ok);
        let short = judge_locked(Some(8 << 20), 1 << 30);
        assert_eq!(short.verdict, Verdict::Warn);
        assert!(short.found.contains("8 MiB of the 1 GiB"), "{short}");
        assert_eq!(wish(&settings(&[("flusher", "mmap")])), RINGS_BYTES);
        let direct = settings(&[("flusher", "direct"), ("memory", "4G")]);
        assert_eq!(wish(&direct), RINGS_BYTES + (512 << 20));
    }

    #[test]
    fn who_has_the_capability_has_no_limit() {
        assert!(may_lock_anything("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(!may_lock_anything("CapEff:\t00000000a80425fb\n"));
        assert!(may_lock_anything("CapEff:\t0000000000004000\n"));
        assert!(!may_lock_anything(""));
    }
}
