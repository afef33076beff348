//! The names of everything a store keeps on disk, and nothing else.
//!
//! ```text
//! root/abort                                exists while the store is open (RocketMQ's name and meaning)
//! root/lock                                 held by the process that has the store open
//! root/commitlog/00000000001073741824       a segment, named by its first log offset
//! root/orbit/id                             the store's number, and where its window is
//! root/orbit/00000000001073741824.0003.part an index part of a segment that is still growing
//! root/orbit/00000000001073741824.index     the sealed index of a full segment
//! root/orbit/00000000001073741824.spare     a segment being prepared; it moves to its log directory when ready
//! root/orbit/00000000001073741824.<ms>.cut  a segment with records behind the end of the log, cut off at that time
//! root/orbit/00000000001073741824.gone      a segment that was reclaimed; its space is being given back
//! root/orbit/origin                         the log is ours, and no RocketMQ has had it since
//! root/orbit/unsynced                       a sync failed: which part of the log is to be checked
//! root/orbit/damaged                        where the log is damaged, and messages are missing
//! root/orbit/rocketmq-aside/                what RocketMQ had derived from the log
//! root/orbit/reserve                        space kept back for tables and indexes
//! ```
//!
//! A log directory elsewhere, `/logs/a`, has its spares in `/logs/a.orbit`: on its disk, not among the log files
//! (other programs read those), and shared with no other store. Only where `/logs/a` is a disk of its own they are
//! in `/logs/a/orbit`.

use crate::config::Config;
use reactor::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Length of a segment's name: a log offset with leading zeros, as RocketMQ writes it.
pub const SEGMENT_NAME_DIGITS: usize = 20;
const COMPANIONS: &str = "orbit";
const ROCKETMQS_OWN: [&str; 6] = [
    "consumequeue",
    "consumequeue_ext",
    "batchconsumequeue",
    "index",
    "checkpoint",
    "timerwheel",
];
/// RocketMQ's as well, or made for it at the last stop.
const TIMER_LOG: &str = "timerlog";
const INDEX_SUFFIX: &str = ".index";
const PART_SUFFIX: &str = ".part";
/// Files with this ending are unfinished; opening the store removes them.
pub const UNFINISHED_SUFFIX: &str = ".tmp";
/// Files with this ending are segments with records behind the end of a recovered log. Nothing reads or removes them.
const CUT_OFF_SUFFIX: &str = ".cut";
/// Files with this ending are unfinished segments; opening the store removes them.
pub const SPARE_SUFFIX: &str = ".spare";

/// Files with this ending are reclaimed segments; whatever is left of them is removed in the background.
const GONE_SUFFIX: &str = ".gone";

/// Where the files of one store are.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    log_dirs: Vec<PathBuf>,
    /// Of the log directory in the same place.
    spare_dirs: Vec<PathBuf>,
    segment_bytes: u64,
    /// One bit for each log directory whose disk has no room for a segment, as last looked at; those behind the first 64
    /// count as having room.
    full: Arc<AtomicU64>,
}

/// What a file name in the companions' directory says.
#[derive(Debug, PartialEq, Eq)]
pub enum Companion {
    Sealed { base: u64 },
    Part { base: u64, number: u32 },
    Unfinished,
    Other,
}

impl Layout {
    /// Asks the file system which log directories are disks of their own. Blocks.
    pub fn new(config: &Config) -> Layout {
        let log_dirs = if config.log_dirs.is_empty() {
            vec![config.root.join("commitlog")]
        } else {
            config.log_dirs.clone()
        };
        let spare_dirs = log_dirs.iter().map(|dir| spare_dir(&config.root, dir));
        Layout {
            root: config.root.clone(),
            spare_dirs: spare_dirs.collect(),
            log_dirs,
            segment_bytes: config.segment_bytes,
            full: Arc::default(),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn log_dirs(&self) -> &[PathBuf] {
        &self.log_dirs
    }

    pub fn companions(&self) -> PathBuf {
        self.root.join(COMPANIONS)
    }

    pub fn abort(&self) -> PathBuf {
        self.root.join("abort")
    }

    /// Which store it is, and where its window is.
    pub fn id(&self) -> PathBuf {
        self.companions().join("id")
    }

    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Says which log directories have no room.
    pub fn set_full(&self, is_full: impl Iterator<Item = bool>) {
        let bits = is_full.take(64).zip(0..);
        let full = bits.fold(0, |full, (is_full, bit)| full | u64::from(is_full) << bit);
        self.full.store(full, Ordering::Relaxed);
    }

    /// The numbers of all log directories in the order in which a new segment tries them: each has its turn, those
    /// without room come last.
    pub fn dirs_for(&self, base: u64) -> Vec<usize> {
        let (turn, dirs) = (self.turn(base), self.log_dirs.len());
        let full = self.full.load(Ordering::Relaxed);
        let is_full = |dir: usize| dir < 64 && full >> dir & 1 == 1;
        let mut order: Vec<usize> = (0..dirs).map(|step| (turn + step) % dirs).collect();
        order.sort_by_key(|&dir| is_full(dir));
        order
    }

    /// Where the segment lies in the log directory of this number, and where it is prepared for that.
    pub fn segment_in(&self, dir: usize, base: u64) -> (PathBuf, PathBuf) {
        let name = segment_name(base);
        let path = self.log_dirs[dir].join(&name);
        (path, self.spare_dirs[dir].join(name + SPARE_SUFFIX))
    }

    /// The directory a new segment goes to if there is room everywhere: each of them in turn.
    pub fn log_dir_of(&self, base: u64) -> &Path {
        &self.log_dirs[self.turn(base)]
    }

    fn turn(&self, base: u64) -> usize {
        (base / self.segment_bytes) as usize % self.log_dirs.len()
    }

    pub fn segment(&self, base: u64) -> PathBuf {
        self.log_dir_of(base).join(segment_name(base))
    }

    /// Where segments are prepared: near each log directory, so that the rename stays on one file system.
    pub fn spare_dirs(&self) -> &[PathBuf] {
        &self.spare_dirs
    }

    /// Where files are made or put that belong to the log directory of the segment at `path`: on the same disk.
    pub fn beside(&self, path: &Path) -> PathBuf {
        let of_dir = self.log_dirs.iter().zip(&self.spare_dirs);
        let mut dirs = of_dir.filter(|(dir, _)| Some(dir.as_path()) == path.parent());
        dirs.next()
            .map_or_else(|| self.companions(), |(_, spares)| spares.clone())
    }

    /// Where a segment at `path` goes that holds records behind the end of the log.
    pub fn cut_off(&self, path: &Path, base: u64, at_ms: i64) -> PathBuf {
        let name = format!("{}.{at_ms}{CUT_OFF_SUFFIX}", segment_name(base));
        self.beside(path).join(name)
    }

    /// Every place where this segment may have been prepared.
    pub fn spares(&self, base: u64) -> Vec<PathBuf> {
        let dirs = 0..self.log_dirs.len();
        dirs.map(|dir| self.segment_in(dir, base).1).collect()
    }

    /// What a reclaimed segment is called, in the spare directory that belongs to its log directory.
    pub fn gone(spare_dir: &Path, base: u64) -> PathBuf {
        spare_dir.join(segment_name(base) + GONE_SUFFIX)
    }

    pub fn is_gone(name: &str) -> bool {
        name.strip_suffix(GONE_SUFFIX)
            .is_some_and(|base| parse_segment_name(base).is_some())
    }

    pub fn reserve(&self) -> PathBuf {
        self.companions().join("reserve")
    }

    /// Says that the log is ours: without it, RocketMQ's rules hold for what is found.
    pub fn origin(&self) -> PathBuf {
        self.companions().join("origin")
    }

    /// What a failed sync left open; see `recovery::unsynced`.
    pub fn unsynced(&self) -> PathBuf {
        self.companions().join("unsynced")
    }

    /// Where the log is damaged; see `recovery::damage`.
    pub fn damaged(&self) -> PathBuf {
        self.companions().join("damaged")
    }

    /// Derived as well; being there it does not say whose the log is.
    pub fn timer_log(&self) -> PathBuf {
        self.root.join(TIMER_LOG)
    }

    /// What RocketMQ derives from the log, and makes again when it is gone.
    pub fn rocketmqs_own(&self) -> Vec<PathBuf> {
        let names = ROCKETMQS_OWN.iter();
        names.map(|name| self.root.join(name)).collect()
    }

    /// Where that is moved when the store is opened.
    pub fn aside(&self) -> PathBuf {
        self.companions().join("rocketmq-aside")
    }

    pub fn sealed(&self, base: u64) -> PathBuf {
        self.companions().join(segment_name(base) + INDEX_SUFFIX)
    }

    pub fn part(&self, base: u64, number: u32) -> PathBuf {
        let name = format!("{}.{number:04}{PART_SUFFIX}", segment_name(base));
        self.companions().join(name)
    }
}

fn spare_dir(root: &Path, log_dir: &Path) -> PathBuf {
    if fs::is_mount_point(log_dir) {
        return log_dir.join(COMPANIONS);
    }
    match (log_dir.parent(), log_dir.file_name()) {
        (Some(parent), _) if parent == root => root.join(COMPANIONS),
        (Some(parent), Some(name)) => {
            let mut name = name.to_owned();
            name.push(".");
            name.push(COMPANIONS);
            parent.join(name)
        }
        _ => log_dir.join(COMPANIONS),
    }
}

/// The name of the segment that starts at `base`.
pub fn segment_name(base: u64) -> String {
    format!("{base:020}")
}

/// The first log offset a segment's name stands for, if it is the name of a segment.
pub fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.len() == SEGMENT_NAME_DIGITS && name.bytes().all(|b| b.is_ascii_digit());
    if digits { name.parse().ok() } else { None }
}

/// What the file `name` in the companions' directory is.
pub fn parse_companion(name: &str) -> Companion {
    if name.ends_with(UNFINISHED_SUFFIX) || name.ends_with(SPARE_SUFFIX) {
        return Companion::Unfinished;
    }
    if let Some(base) = name.strip_suffix(INDEX_SUFFIX).and_then(parse_segment_name) {
        return Companion::Sealed { base };
    }
    let part = name
        .strip_suffix(PART_SUFFIX)
        .and_then(|rest| rest.split_once('.'));
    if let Some((base, number)) = part
        && let (Some(base), Ok(number)) = (parse_segment_name(base), number.parse())
    {
        return Companion::Part { base, number };
    }
    Companion::Other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_names_are_rocketmqs() {
        assert_eq!(segment_name(1 << 30), "00000000001073741824");
        assert_eq!(parse_segment_name("00000000001073741824"), Some(1 << 30));
        assert_eq!(parse_segment_name("0000000000107374182x"), None);
        assert_eq!(parse_segment_name("1073741824"), None);
    }

    #[test]
    fn companions_are_told_apart_by_name() {
        let layout = Layout::new(&Config::for_root("/s"));
        let name = |path: PathBuf| {
            path.file_name()
                .and_then(|name| name.to_str())
                .expect("a layout name is plain text")
                .to_owned()
        };
        assert_eq!(
            parse_companion(&name(layout.sealed(4096))),
            Companion::Sealed { base: 4096 }
        );
        assert_eq!(
            parse_companion(&name(layout.part(4096, 12))),
            Companion::Part {
                base: 4096,
                number: 12
            }
        );
        assert_eq!(
            parse_companion(&name(layout.segment_in(0, 4096).1)),
            Companion::Unfinished
        );
        assert_eq!(parse_companion("notes.txt"), Companion::Other);
    }

    #[test]
    fn several_log_directories_take_segments_in_turn() {
        let mut config = Config::for_root("/s");
        config.segment_bytes = 4096;
        config.log_dirs = vec!["/a".into(), "/b".into()];
        let layout = Layout::new(&config);
        assert!(layout.segment(0).starts_with("/a"));
        assert!(layout.segment(4096).starts_with("/b"));
        assert!(layout.segment(8192).starts_with("/a"));
        assert!(layout.segment_in(1, 4096).1.starts_with("/b.orbit"));
    }

    #[test]
    fn a_log_directory_without_room_is_passed_over_until_there_is_some() {
        let mut config = Config::for_root("/s");
        config.segment_bytes = 4096;
        config.log_dirs = vec!["/a".into(), "/b".into(), "/c".into()];
        let layout = Layout::new(&config);
        assert_eq!(layout.dirs_for(4096), [1, 2, 0]);
        layout.set_full([false, true, false].into_iter());
        assert_eq!(layout.dirs_for(4096), [2, 0, 1]);
        assert_eq!(layout.dirs_for(0), [0, 2, 1]);
        layout.set_full([true; 3].into_iter());
        assert_eq!(layout.dirs_for(4096), [1, 2, 0]);
    }

    #[test]
    fn no_other_stores_spares_are_in_the_same_place() {
        let layout = |root: &str, log_dir: &str| {
            let mut config = Config::for_root(root);
            config.log_dirs = vec![log_dir.into()];
            Layout::new(&config)
        };
        let spare = |layout: &Layout| layout.segment_in(0, 0).1.parent().map(Path::to_path_buf);
        let usual = layout("/none/s", "/none/s/commitlog");
        assert_eq!(spare(&usual), Some(usual.companions()));
        let (one, two) = (layout("/r1", "/none/1"), layout("/r2", "/none/2"));
        assert_ne!(spare(&one), spare(&two));
    }

    #[test]
    fn spares_stay_on_the_disk_of_their_log_directory() {
        let disk = Path::new("/proc"); // mounted on every Linux
        assert!(spare_dir(Path::new("/s"), disk).starts_with(disk));
    }
}
