//! The memory the `direct` flusher writes from: whether it outlives the process, which decides when senders are told.

use std::path::Path;

use reactor::LoopedMemory;
use rustix::fs::statvfs;

use super::{Finding, bytes};
use crate::config::Settings;

const SHARED_MEMORY_DIR: &str = "/dev/shm";
/// No window is smaller.
const WINDOW_BYTES_MIN: u64 = 64 << 20;

/// Nothing for the other flusher, which has no window.
pub fn examine(settings: &Settings) -> Option<Finding> {
    if settings.value("flusher") != Some("direct") {
        return None;
    }
    let (dir, chosen) = match settings.value("windowDir").map(str::trim) {
        None | Some("" | "auto") => (SHARED_MEMORY_DIR, false),
        Some(dir) => (dir, true),
    };
    if dir == "none" {
        return Some(Finding::ok(
            "window",
            "ends with the process, as windowDir says",
        ));
    }
    let free = statvfs(dir).map_or(0, |space| space.f_bavail * space.f_frsize);
    let lost = LoopedMemory::lost_in(Path::new(dir));
    let container = !chosen && reactor::is_in_container();
    Some(judge(dir, free, lost, container))
}

/// `lost`: why memory there would not outlive the process. `container`: it might, but nobody has said so.
fn judge(dir: &str, free: u64, lost: Option<String>, container: bool) -> Finding {
    let thing = format!("window in {dir}");
    let slower = "senders are told after the write to the disk";
    if let Some(why) = lost {
        return Finding::warn(
            thing,
            format!("{why}, so {slower}"),
            "set windowDir to a tmpfs or hugetlbfs that stays when the process ends",
        );
    }
    if container {
        return Finding::warn(
            thing,
            format!("this is a container, whose memory may go with it, so {slower}"),
            "mount the host's /dev/shm and set windowDir to it, or windowDir=none if that is fast enough",
        );
    }
    let found = format!("{} free, outlives the process", bytes::shown(free));
    if free < WINDOW_BYTES_MIN {
        return Finding::warn(
            thing,
            found,
            format!("make it larger (mount -o remount,size=): without room {slower}"),
        );
    }
    Finding::ok(thing, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::settings;
    use crate::doctor::Verdict;

    #[test]
    fn memory_that_goes_with_the_process_is_a_warning() {
        let judged = |free, lost: Option<&str>, container| {
            judge("/dev/shm", free, lost.map(str::to_owned), container).verdict
        };
        assert_eq!(judged(1 << 30, None, false), Verdict::Ok);
        assert_eq!(judged(1 << 20, None, false), Verdict::Warn);
        assert_eq!(judged(1 << 30, Some("it is ext4"), false), Verdict::Warn);
        assert_eq!(judged(1 << 30, None, true), Verdict::Warn);
    }

    #[test]
    fn the_mmap_flusher_has_no_window() {
        assert_eq!(examine(&settings(&[("flusher", "mmap")])), None);
    }
}
