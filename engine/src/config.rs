//! The settings of a store, each with its unit in its name and RocketMQ's value as the default.

use std::path::{Path, PathBuf};

/// RocketMQ's `mappedFileSizeCommitLog`.
pub const SEGMENT_BYTES_DEFAULT: u64 = 1 << 30;
/// A smaller segment could not hold the blank filler and a record of any use.
pub const SEGMENT_BYTES_MIN: u64 = 4096;
/// Positions inside a segment are 32 bits wide in the index.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 31;
pub const WINDOW_BYTES_DEFAULT: u64 = 64 << 20;
/// Room for a few records of any use.
pub const WINDOW_BYTES_MIN: u64 = 64 << 10;
/// One bit per shard in each queue's set of parked readers.
pub const SHARDS_MAX: usize = 64;

/// Everything a store needs to know before it opens.
#[derive(Clone, Debug)]
pub struct Config {
    /// `storePathRootDir`: holds `orbit/`, `abort`, `lock`, and `commitlog/` unless `log_dirs` says otherwise.
    pub root: PathBuf,
    /// `storePathCommitLog`, one or several; segments are spread over them in turn. Empty means `root/commitlog`.
    pub log_dirs: Vec<PathBuf>,
    /// `mappedFileSizeCommitLog`.
    pub segment_bytes: u64,
    /// How much log may lie behind the last index part, the stretch a restart has to read again.
    pub part_bytes: u64,
    /// `flusher`: how the log gets from memory to the disk.
    pub flusher: FlusherKind,
    pub window: WindowConfig,
    /// `flushDiskType=SYNC_FLUSH`: senders are told, and readers see, only what survives a power cut.
    pub sync_flush: bool,
    /// When the log is synced, unless every record is.
    pub flush: FlushConfig,
    /// How much of the log's tail is read through the mapping, and keeps its index in memory.
    pub hot_bytes: u64,
    /// How much memory the indexes of segments that are not cold may take. A segment whose index takes a quarter of it is
    /// ended early.
    pub index_bytes: u64,
    /// How much cold log the read-ahead of [`crate::Store::fetch`] may hold in memory.
    pub cold_cache_bytes: usize,
    /// How far ahead of the tail pages are touched by another thread.
    pub touch_ahead_bytes: u64,
    /// `messageIndexEnable`: messages are found by key, unique key and tag.
    pub key_index: bool,
    /// How many shards may park on a queue; their numbers are `0..shards`.
    pub shards: usize,
}

/// How the log gets from memory to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlusherKind {
    /// Written through a mapping of the file, made durable by a sync.
    #[default]
    Mmap,
    /// Written from the window past the page cache, several writes at a time.
    Direct,
}

impl FlusherKind {
    /// As `flusher` in broker.conf names it.
    pub const fn name(self) -> &'static str {
        match self {
            FlusherKind::Mmap => "mmap",
            FlusherKind::Direct => "direct",
        }
    }
}

/// The memory the `direct` flusher writes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowConfig {
    /// A power of two.
    pub bytes: u64,
    pub dir: WindowDir,
}

/// `windowDir`: where the window has a name, so that the next process finds it when this one is killed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WindowDir {
    /// Where shared memory usually is, if it outlives this process there.
    #[default]
    Auto,
    /// The operator knows that it does.
    At(PathBuf),
    /// The window ends with the process; senders are told once their records have been written.
    None,
}

/// When an ASYNC_FLUSH store syncs its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushConfig {
    /// `flushIntervalCommitLog`.
    pub interval_ms: u64,
    /// `flushCommitLogLeastPages`: fewer dirty pages wait for more.
    pub least_pages: u64,
    /// `flushCommitLogThoroughInterval`: however few they are, pages wait no longer than this.
    pub thorough_ms: u64,
}

impl Default for FlushConfig {
    fn default() -> FlushConfig {
        FlushConfig {
            interval_ms: 500,
            least_pages: 4,
            thorough_ms: 10_000,
        }
    }
}

impl Config {
    /// RocketMQ's defaults for a store under `root`.
    pub fn for_root(root: impl AsRef<Path>) -> Config {
        Config {
            root: root.as_ref().to_path_buf(),
            log_dirs: Vec::new(),
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            part_bytes: 64 << 20,
            flusher: FlusherKind::default(),
            window: WindowConfig {
                bytes: WINDOW_BYTES_DEFAULT,
                dir: WindowDir::Auto,
            },
            sync_flush: false,
            flush: FlushConfig::default(),
            hot_bytes: 1 << 30,
            index_bytes: 2 << 30,
            cold_cache_bytes: 16 << 20,
            touch_ahead_bytes: 64 << 20,
            key_index: true,
            shards: SHARDS_MAX,
        }
    }

    /// What is wrong with these settings, as a sentence that names the setting.
    pub(crate) fn complaint(&self) -> Option<String> {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return Some(format!(
                "mappedFileSizeCommitLog is {}, which is not within {SEGMENT_BYTES_MIN} and {SEGMENT_BYTES_MAX}",
                self.segment_bytes
            ));
        }
        if !self.segment_bytes.is_multiple_of(SEGMENT_BYTES_MIN) {
            return Some(format!(
                "mappedFileSizeCommitLog is {}, which is not a multiple of {SEGMENT_BYTES_MIN}",
                self.segment_bytes
            ));
        }
        let window = self.window.bytes;
        if !window.is_power_of_two() || window < WINDOW_BYTES_MIN {
            return Some(format!(
                "the window has {window} bytes, which is not a power of two from {WINDOW_BYTES_MIN} on"
            ));
        }
        if let WindowDir::At(dir) = &self.window.dir
            && dir.to_str().is_none_or(|dir| dir.contains('\n'))
        {
            return Some(format!(
                "windowDir is {}, which is not plain text: the next start could not find it",
                dir.display()
            ));
        }
        if self.shards > SHARDS_MAX {
            return Some(format!("shards is {}, more than {SHARDS_MAX}", self.shards));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_whose_place_cannot_be_written_down_is_refused() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let mut config = Config::for_root("store");
        for (dir, is_good) in [
            (&b"/dev/shm/\xff"[..], false),
            (b"/dev/a\nb", false),
            (b"/dev/a b", true),
        ] {
            config.window.dir = WindowDir::At(OsStr::from_bytes(dir).into());
            assert_eq!(config.complaint().is_none(), is_good, "{dir:?}");
        }
    }

    #[test]
    fn a_segment_size_that_cannot_be_mapped_in_pages_is_named() {
        let mut config = Config::for_root("store");
        assert!(config.complaint().is_none());
        config.segment_bytes = 5000;
        let complaint = config
            .complaint()
            .expect("5000 is not a multiple of a page");
        assert!(complaint.contains("mappedFileSizeCommitLog"), "{complaint}");
    }
}
