//! The memory the `direct` flusher writes from: whether it outlives the process, which decides when senders are told.

use std::path::Path;

use engine::{FlusherKind, IdleWindow, WindowDir};
use reactor::LoopedMemory;
use rustix::fs::statvfs;

use super::{Finding, bytes};
use crate::config::Settings;
use crate::memory::Budget;

const SHARED_MEMORY_DIR: &str = "/dev/shm";

/// Nothing for the other flusher, which has no window.
pub fn examine(settings: &Settings) -> Option<Finding> {
    if settings.fitting_flusher() != FlusherKind::Direct {
        return None;
    }
    let (dir, chosen) = match &settings.window_dir {
        WindowDir::Auto => (Path::new(SHARED_MEMORY_DIR), false),
        WindowDir::At(dir) => (dir.as_path(), true),
        WindowDir::None => {
            return Some(Finding::ok(
                "window",
                "ends with the process, as windowDir says",
            ));
        }
    };
    let free = statvfs(dir).map_or(0, |space| space.f_bavail * space.f_frsize);
    let window = Budget::of(settings.memory_bytes).window_bytes;
    let lost = LoopedMemory::lost_in(dir);
    let container = !chosen && reactor::is_in_container();
    Some(judge(dir, free, window, lost, container))
}

/// Memory that killed brokers left and no broker has taken over: it stays until the machine is restarted. Whatever the
/// flusher is now: the last one may have been the other.
pub fn left_behind(settings: &Settings) -> Option<Finding> {
    let dir = match &settings.window_dir {
        WindowDir::At(dir) => dir.as_path(),
        WindowDir::Auto | WindowDir::None => Path::new(SHARED_MEMORY_DIR),
    };
    judge_left(dir, &IdleWindow::all_in(dir).unwrap_or_default())
}

fn judge_left(dir: &Path, idle: &[IdleWindow]) -> Option<Finding> {
    let first = idle.first()?;
    let total = idle.iter().map(|window| window.bytes).sum();
    Some(Finding::warn(
        format!("windows left in {}", dir.display()),
        format!(
            "{} that no broker has, {} of memory, the first is {}",
            idle.len(),
            bytes::shown(total),
            first.path.display()
        ),
        "start the broker of each store: what was acknowledged and not written lies there (orbit/id in a store names its window); remove those whose store is gone",
    ))
}

/// `lost`: why memory there would not outlive the process. `container`: it might, but nobody has said so.
fn judge(dir: &Path, free: u64, window: u64, lost: Option<String>, container: bool) -> Finding {
    let thing = format!("window in {}", dir.display());
    let slower = "senders are told after the write to the disk";
    if let Some(why) = lost {
        return Finding::warn(
            thing,
            format!("{why}, so {slower}"),
            "set windowDir to a tmpfs that stays when the process ends",
        );
    }
    if container {
        return Finding::warn(
            thing,
            format!("this is a container, whose memory may go with it, so {slower}"),
            "mount the host's /dev/shm and set windowDir to it, or windowDir=none if that is fast enough",
        );
    }
    let found = format!(
        "outlives the process; {} free, {} needed by a broker that does not run yet",
        bytes::shown(free),
        bytes::shown(window)
    );
    if free < window {
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
            judge(
                Path::new("/dev/shm"),
                free,
                64 << 20,
                lost.map(str::to_owned),
                container,
            )
            .verdict
        };
        assert_eq!(judged(1 << 30, None, false), Verdict::Ok);
        assert_eq!(judged(1 << 20, None, false), Verdict::Warn);
        assert_eq!(judged(1 << 30, Some("it is ext4"), false), Verdict::Warn);
        assert_eq!(judged(1 << 30, None, true), Verdict::Warn);
    }

    #[test]
    fn what_killed_brokers_left_is_a_warning_that_names_it() {
        let dir = Path::new("/dev/shm");
        assert_eq!(judge_left(dir, &[]), None);
        let idle = ["a", "b"].map(|name| IdleWindow {
            path: dir.join(name),
            bytes: 512 << 20,
        });
        let finding = judge_left(dir, &idle).expect("a warning");
        assert_eq!(finding.verdict, Verdict::Warn);
        assert!(
            finding.found.starts_with("2 that no broker has, 1 GiB"),
            "{finding}"
        );
        assert!(finding.found.ends_with("/dev/shm/a"), "{finding}");
    }

    #[test]
    fn the_mmap_flusher_has_no_window() {
        assert_eq!(examine(&settings(&[("flusher", "mmap")])), None);
    }
}
