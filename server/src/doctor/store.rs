//! The disks under the store: what file system, how full, how fast.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use engine::FlusherKind;
use rustix::fs::{statfs, statvfs};

use super::scratch::{self, Speed};
use super::{Finding, bytes};
use crate::config::Settings;

/// Below this RocketMQ's own set-up is no better; SYNC_FLUSH answers that slowly.
const SYNC_US_SLOW: u64 = 10_000;
/// One in a hundred syncs above this is felt by everybody.
const SYNC_P99_US_SLOW: u64 = 100_000;
/// No disk, and no cache with a battery behind a bus, is as fast as this.
const SYNC_US_INCREDIBLE: u64 = 12;
const SEQUENTIAL_BYTES_PER_S_SLOW: u64 = 100 << 20;

/// At how many percent used the store reacts.
#[derive(Clone, Copy, Debug)]
struct Thresholds {
    expire: u8,
    force: u8,
    refuse: u8,
}

pub fn examine(settings: &Settings) -> Vec<Finding> {
    let thresholds = Thresholds {
        expire: settings.retention.expire_above_percent,
        force: settings.retention.force_above_percent,
        refuse: settings.retention.refuse_above_percent,
    };
    let direct = settings.fitting_flusher() == FlusherKind::Direct;
    let mut findings = Vec::new();
    for (dir, wanted) in disks(settings) {
        findings.extend(judge_place(&wanted, &dir));
        if let Ok(about) = statfs(&dir) {
            findings.push(judge_file_system(
                &dir,
                u64::try_from(about.f_type).unwrap_or(0),
            ));
        }
        if let Ok(space) = statvfs(&dir) {
            let used = space.f_blocks.saturating_sub(space.f_bfree) * space.f_frsize;
            let free = space.f_bavail * space.f_frsize;
            findings.push(judge_space(
                &dir,
                used,
                free,
                settings.segment_bytes,
                thresholds,
            ));
        }
        match scratch::measure(&dir) {
            Ok(speed) => findings.extend([
                judge_direct(&dir, speed.direct, direct),
                judge_sync(&dir, &speed, settings.sync_flush),
                judge_sequential(&dir, speed.sequential_bytes_per_s),
            ]),
            Err(scratch::Unmeasured::NoRoom) => {}
            Err(scratch::Unmeasured::Io(error)) => findings.push(Finding::fail(
                name(&dir),
                format!("a temporary file cannot be written there: {error}"),
                "give the broker's user the right to write",
            )),
        }
    }
    findings
}

/// One existing directory for each disk the store uses, with the directory it stands for.
fn disks(settings: &Settings) -> Vec<(PathBuf, PathBuf)> {
    let mut seen = BTreeSet::new();
    let wanted = [&settings.store_root].into_iter().chain(&settings.log_dirs);
    let existing = wanted.filter_map(|wanted| Some((nearest_existing(wanted)?, wanted.clone())));
    existing
        .filter(|(dir, _)| fs::metadata(dir).is_ok_and(|about| seen.insert(about.dev())))
        .collect()
}

fn nearest_existing(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    path.ancestors()
        .find(|dir| dir.is_dir())
        .map(Path::to_path_buf)
}

fn name(dir: &Path) -> String {
    format!("store disk at {}", dir.display())
}

/// A store that is not there yet is made at the first start.
fn judge_place(wanted: &Path, existing: &Path) -> Option<Finding> {
    let wanted = std::path::absolute(wanted).ok()?;
    (wanted != existing).then(|| {
        Finding::ok(
            "store",
            format!("{} is not there yet and will be made", wanted.display()),
        )
    })
}

fn judge_file_system(dir: &Path, magic: u64) -> Finding {
    let thing = name(dir);
    let advice = "use ext4 or xfs on a disk of this machine";
    let poor = |found: &str| Finding::warn(&thing, found, advice);
    // The kernel's magic numbers, include/uapi/linux/magic.h; some sign-extended on the way.
    match magic & 0xFFFF_FFFF {
        0xEF53 => Finding::ok(thing, "ext4"),
        0x5846_5342 => Finding::ok(thing, "xfs"),
        0xF2F5_2010 => Finding::ok(thing, "f2fs"),
        0x9123_683E => poor("btrfs, which copies on write: each overwrite becomes a new extent"),
        0x2FC1_2FC1 => poor("zfs, which copies on write and keeps a cache of its own"),
        0x794C_7630 => poor("overlayfs: the store goes when the container goes (mount a volume)"),
        0x0102_1994 | 0x8584_58F6 => poor("memory (tmpfs): the store goes when the machine goes"),
        0x6969 => poor("nfs: locks, syncs and rates are another machine's promise"),
        0xFF53_4D42 | 0xFE53_4D42 => {
            poor("smb: locks, syncs and rates are another machine's promise")
        }
        0x00C3_6400 => poor("cephfs: locks, syncs and rates are other machines' promise"),
        0x0102_1997 => poor("9p: a directory of the host, seldom with honest syncs"),
        0x6573_5546 => poor("fuse: syncs are worth what the program behind it makes of them"),
        other => poor(&format!("an unknown file system ({other:#x})")),
    }
}

fn judge_space(dir: &Path, used: u64, free: u64, segment_bytes: u64, at: Thresholds) -> Finding {
    let thing = format!("space at {}", dir.display());
    let percent = (used * 100).div_ceil((used + free).max(1));
    let found = format!("{percent} % used, {} free", bytes::shown(free));
    let advice = "free space or lower fileReservedTime";
    if percent >= u64::from(at.refuse) || free < segment_bytes {
        let found = format!(
            "{found}: sends are refused from {} % or when the next log file has no room",
            at.refuse
        );
        return Finding::fail(thing, found, advice);
    }
    if percent >= u64::from(at.force) {
        let found = format!(
            "{found}: from {} % the oldest log goes, however young",
            at.force
        );
        return Finding::warn(thing, found, advice);
    }
    if percent >= u64::from(at.expire) {
        let found = format!("{found}: from {} % expired log goes at any hour", at.expire);
        return Finding::warn(thing, found, advice);
    }
    Finding::ok(thing, found)
}

fn judge_direct(dir: &Path, works: bool, needed: bool) -> Finding {
    let thing = format!("O_DIRECT at {}", dir.display());
    match (works, needed) {
        (true, _) => Finding::ok(thing, "works"),
        (false, true) => Finding::fail(
            thing,
            "does not work on this file system",
            "set flusher=mmap, or put the store on ext4 or xfs",
        ),
        (false, false) => Finding::warn(
            thing,
            "does not work on this file system",
            "old messages are read through the page cache, which pushes new ones out",
        ),
    }
}

fn judge_sync(dir: &Path, speed: &Speed, sync_flush: bool) -> Finding {
    let thing = format!("durable writes at {}", dir.display());
    let (p50, p99) = (speed.sync_p50_us, speed.sync_p99_us);
    let found = format!(
        "4 KiB in {} (p50) and {} (p99)",
        milliseconds(p50),
        milliseconds(p99)
    );
    if p50 < SYNC_US_INCREDIBLE {
        return Finding::warn(
            thing,
            format!("{found}, faster than any disk is"),
            "something says `done` too early (a hypervisor's cache=unsafe, tmpfs): a power cut may lose what was acknowledged",
        );
    }
    if sync_flush && p50 > SYNC_US_SLOW {
        return Finding::warn(
            thing,
            found,
            "with SYNC_FLUSH each send takes so long: a disk or controller whose cache survives a power cut is a hundred times faster",
        );
    }
    if p99 > SYNC_P99_US_SLOW {
        return Finding::warn(
            thing,
            found,
            "something else uses this disk, or it is throttled: give the store one of its own",
        );
    }
    Finding::ok(thing, found)
}

fn judge_sequential(dir: &Path, bytes_per_s: u64) -> Finding {
    let thing = format!("writing at {}", dir.display());
    let found = format!("{}/s in a short run", bytes::shown(bytes_per_s));
    if bytes_per_s < SEQUENTIAL_BYTES_PER_S_SLOW {
        let advice = "sends are taken no faster than this in the long run";
        return Finding::warn(thing, found, advice);
    }
    Finding::ok(thing, found)
}

fn milliseconds(us: u64) -> String {
    format!("{:.2} ms", us as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::settings;
    use crate::doctor::Verdict;

    const DIR: &str = "/s";
    const RATIOS: Thresholds = Thresholds {
        expire: 75,
        force: 85,
        refuse: 90,
    };

    #[test]
    fn local_journaled_file_systems_are_fine_and_others_are_named() {
        let judged = |magic| judge_file_system(Path::new(DIR), magic);
        assert_eq!(judged(0xEF53).verdict, Verdict::Ok);
        assert_eq!(judged(0x5846_5342).verdict, Verdict::Ok);
        let sign_extended = 0xFFFF_FFFF_9123_683E;
        assert!(judged(sign_extended).found.contains("btrfs"));
        for magic in [0x0102_1994, 0x6969, 0x794C_7630, 0x1234] {
            assert_eq!(judged(magic).verdict, Verdict::Warn, "{magic:#x}");
        }
    }

    #[test]
    fn a_filling_disk_is_a_warning_and_one_that_refuses_a_failure() {
        let judged = |used: u64, free: u64| {
            judge_space(Path::new(DIR), used << 30, free << 30, 1 << 30, RATIOS).verdict
        };
        assert_eq!(judged(10, 90), Verdict::Ok);
        assert_eq!(judged(75, 25), Verdict::Warn);
        assert_eq!(judged(86, 14), Verdict::Warn);
        assert_eq!(judged(90, 10), Verdict::Fail);
        assert_eq!(judged(1, 0), Verdict::Fail);
        assert_eq!(judged(0, 0), Verdict::Fail);
    }

    #[test]
    fn o_direct_is_needed_by_the_direct_flusher_only() {
        let judged = |works, needed| judge_direct(Path::new(DIR), works, needed).verdict;
        assert_eq!(judged(true, true), Verdict::Ok);
        assert_eq!(judged(false, true), Verdict::Fail);
        assert_eq!(judged(false, false), Verdict::Warn);
    }

    #[test]
    fn syncs_are_judged_by_promise_and_by_belief() {
        let judged = |p50, p99, sync_flush| {
            let speed = Speed {
                direct: true,
                sync_p50_us: p50,
                sync_p99_us: p99,
                sequential_bytes_per_s: 1 << 30,
            };
            judge_sync(Path::new(DIR), &speed, sync_flush).verdict
        };
        assert_eq!(judged(200, 700, true), Verdict::Ok);
        assert_eq!(judged(3, 9, false), Verdict::Warn);
        assert_eq!(judged(15_000, 20_000, false), Verdict::Ok);
        assert_eq!(judged(15_000, 20_000, true), Verdict::Warn);
        assert_eq!(judged(200, 300_000, false), Verdict::Warn);
        assert_eq!(
            judge_sequential(Path::new(DIR), 5 << 20).verdict,
            Verdict::Warn
        );
    }

    #[test]
    fn a_store_that_is_not_there_yet_is_judged_by_the_disk_it_will_be_on() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().join("not/yet");
        let settings = settings(&[("storePathRootDir", &root.to_string_lossy())]);
        let disks = disks(&settings);
        assert_eq!(disks.len(), 1, "the log is on the same disk");
        assert_eq!(disks[0].0, dir.path());
        assert!(judge_place(&root, dir.path()).is_some());
        assert!(judge_place(dir.path(), dir.path()).is_none());
    }
}
