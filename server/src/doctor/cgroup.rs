//! The limits of the control group this process is in: both versions, with every group above it.
//!
//! Only reading; what cannot be read is no limit.

use std::fs;
use std::path::{Path, PathBuf};

/// What the groups allow; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    pub memory_bytes: Option<u64>,
    pub cpus: Option<f64>,
}

/// v1 says "no limit" with a figure of about this size.
const UNLIMITED_BYTES: u64 = 1 << 60;

pub fn limits() -> Limits {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    read(Path::new("/sys/fs/cgroup"), &membership)
}

/// `membership` is the content of /proc/self/cgroup: `number:controllers:path` a line, without controllers for v2.
fn read(mount: &Path, membership: &str) -> Limits {
    let mut limits = Limits::default();
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        if controllers.is_empty() {
            for group in groups(mount, path) {
                limits.lower_memory(figure(&group.join("memory.max")));
                limits.lower_cpus(quota_v2(&text(&group.join("cpu.max"))));
            }
        }
        if controllers.split(',').any(|name| name == "memory") {
            for group in groups(&mount.join("memory"), path) {
                limits.lower_memory(figure(&group.join("memory.limit_in_bytes")));
            }
        }
        if controllers.split(',').any(|name| name == "cpu") {
            for group in groups(&mount.join("cpu"), path) {
                let quota = figure(&group.join("cpu.cfs_quota_us"));
                let period = figure(&group.join("cpu.cfs_period_us"));
                limits.lower_cpus(quota.zip(period).and_then(|(q, p)| share(q, p)));
            }
        }
    }
    limits
}

/// The group and all above it. Inside a container the path is often that of the host; then only the mount's root is there.
fn groups(mount: &Path, path: &str) -> Vec<PathBuf> {
    let own = mount.join(path.trim_start_matches('/'));
    let above = own.ancestors().take_while(|group| group.starts_with(mount));
    above.map(Path::to_path_buf).collect()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// `max` and v1's -1 are no figures.
fn figure(path: &Path) -> Option<u64> {
    text(path).trim().parse().ok()
}

/// `200000 100000` is two CPUs.
fn quota_v2(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    share(quota.parse().ok()?, period.parse().ok()?)
}

fn share(quota: u64, period: u64) -> Option<f64> {
    (period > 0).then(|| quota as f64 / period as f64)
}

impl Limits {
    fn lower_memory(&mut self, bytes: Option<u64>) {
        let given = bytes.filter(|&bytes| bytes < UNLIMITED_BYTES);
        self.memory_bytes = [self.memory_bytes, given].into_iter().flatten().min();
    }

    fn lower_cpus(&mut self, cpus: Option<f64>) {
        self.cpus = [self.cpus, cpus].into_iter().flatten().reduce(f64::min);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(root: &Path, path: &str, files: &[(&str, &str)]) {
        let group = root.join(path);
        fs::create_dir_all(&group).expect("a temporary directory");
        for (name, text) in files {
            fs::write(group.join(name), text).expect("a temporary file");
        }
    }

    #[test]
    fn version_2_takes_the_lowest_limit_on_the_way_up() {
        let root = tempfile::tempdir().expect("a temporary directory");
        group(root.path(), "a", &[("memory.max", "1073741824\n")]);
        group(
            root.path(),
            "a/b",
            &[("memory.max", "max\n"), ("cpu.max", "150000 100000\n")],
        );
        let limits = read(root.path(), "0::/a/b\n");
        assert_eq!(limits.memory_bytes, Some(1 << 30));
        assert_eq!(limits.cpus, Some(1.5));
    }

    #[test]
    fn version_1_has_a_directory_for_each_controller() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let unlimited = "9223372036854771712\n";
        group(
            root.path(),
            "memory",
            &[("memory.limit_in_bytes", unlimited)],
        );
        group(
            root.path(),
            "memory/x",
            &[("memory.limit_in_bytes", "4096\n")],
        );
        let period = ("cpu.cfs_period_us", "100000\n");
        group(
            root.path(),
            "cpu/x",
            &[("cpu.cfs_quota_us", "-1\n"), period],
        );
        let limits = read(root.path(), "5:memory:/x\n3:cpu,cpuacct:/x\n");
        assert_eq!(limits.memory_bytes, Some(4096));
        assert_eq!(limits.cpus, None);
        assert_eq!(read(root.path(), "5:memory:/\n").memory_bytes, None);
    }

    #[test]
    fn without_groups_there_is_no_limit() {
        assert_eq!(read(Path::new("/nowhere"), "0::/a\n"), Limits::default());
        assert_eq!(read(Path::new("/nowhere"), "nonsense"), Limits::default());
    }
}
