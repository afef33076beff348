//! The store as every core shares it: opening, the queues, the watermarks.

use crate::LogOffset;
use crate::commit_log::{CommitLog, FlushStats, Poison, ReleaseAt};
use crate::config::Config;
use crate::layout::Layout;
use crate::queue::{Queue, Registry};
use crate::queue_index::sealed::SealedCache;
use crate::read::blocks::BlockCache;
use crate::recovery::{self, Progress};
use crate::writer::Writer;
use reactor::fs::{self, LockFile};
use reactor::{File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// One store, open. Shared by all cores; the one that writes owns the [`Writer`] as well.
pub struct Store {
    config: Config,
    layout: Arc<Layout>,
    log: CommitLog,
    registry: Arc<Registry>,
    sealed: SealedCache,
    blocks: BlockCache,
    /// Held for as long as anybody can still reach the files.
    _lock: LockFile,
}

/// Why a store cannot be opened. Each names the file and says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Config(String),
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path}: another process has this store open")]
    InUse { path: PathBuf },
    #[error("{path}: this is not a log file; move it out of the log directory")]
    ForeignFile { path: PathBuf },
    #[error(
        "{path}: the file has {found} bytes, mappedFileSizeCommitLog is {expected}; set it to the size the store was made with"
    )]
    SegmentLength {
        path: PathBuf,
        found: u64,
        expected: u64,
    },
    #[error("{path}: this log file is missing, but there are files before and after it")]
    MissingSegment { path: PathBuf },
    #[error("{path}: this log file is there twice")]
    DoubleSegment { path: PathBuf },
}

impl OpenError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.into();
        move |source| OpenError::Io { path, source }
    }
}

impl Store {
    /// Opens the store on the core that will write it: recovers what the log holds, and starts the writer.
    pub async fn open(
        config: Config,
        progress: impl FnMut(Progress),
    ) -> Result<(Arc<Store>, Writer), OpenError> {
        if let Some(complaint) = config.complaint() {
            return Err(OpenError::Config(complaint));
        }
        let layout = Arc::new(Layout::new(&config));
        let lock = prepare_directories(&layout)?;
        let registry = Arc::new(Registry::default());
        let (log, recovered) = recovery::recover(&config, &layout, &registry, progress).await?;
        mark_open(&layout).map_err(OpenError::io(layout.abort()))?;
        let store = Arc::new(Store {
            sealed: SealedCache::new(layout.clone(), registry.clone()),
            blocks: BlockCache::new(config.cold_cache_bytes),
            config,
            layout: layout.clone(),
            log,
            registry,
            _lock: lock,
        });
        recovery::rebuild_missing(&store, &layout).await?;
        let writer = Writer::start(store.clone(), layout, &recovered);
        writer
            .sync_recovered()
            .await
            .map_err(OpenError::io(store.layout().root()))?;
        Ok((store, writer))
    }

    /// The queue; made if it is met for the first time. Takes a lock: keep what it returns.
    pub fn queue(&self, topic: &str, id: u32) -> Arc<Queue> {
        self.registry.find_or_make(topic, id)
    }

    pub fn find_queue(&self, topic: &str, id: u32) -> Option<Arc<Queue>> {
        self.registry.find(topic, id)
    }

    /// All queues of a topic the store knows, by id.
    pub fn queues_of(&self, topic: &str) -> Vec<Arc<Queue>> {
        self.registry.of_topic(topic)
    }

    /// How many queues there are, of all topics.
    pub fn queue_count(&self) -> usize {
        self.registry.len()
    }

    /// End of the log, as readers may see it and senders may be told.
    pub fn written(&self) -> LogOffset {
        self.log.released()
    }

    /// When senders may be told and readers may see.
    pub fn release_at(&self) -> ReleaseAt {
        self.log.release_at()
    }

    /// Everything below survives a power cut.
    pub fn flushed(&self) -> LogOffset {
        self.log.flushed()
    }

    pub fn flush_stats(&self) -> FlushStats {
        self.log.flush_stats()
    }

    /// Start of the oldest segment.
    pub fn first(&self) -> LogOffset {
        LogOffset(self.log.segments().load().first())
    }

    /// Why nothing more is accepted, if so: a write or a sync failed, and only a restart that checks the log helps.
    pub fn poison(&self) -> Option<&Poison> {
        self.log.poison()
    }

    /// Whether a write or a sync failed; see [`Store::poison`].
    pub fn is_poisoned(&self) -> bool {
        self.log.is_poisoned()
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn log(&self) -> &CommitLog {
        &self.log
    }

    pub(crate) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(crate) fn sealed(&self) -> &SealedCache {
        &self.sealed
    }

    pub(crate) fn blocks(&self) -> &BlockCache {
        &self.blocks
    }

    /// The store was closed in order: the next start need not suspect it.
    pub(crate) fn mark_closed(&self) -> io::Result<()> {
        let abort = self.layout.abort();
        fs::remove_file(&abort)?;
        fs::sync_dir(self.layout.root())
    }
}

fn prepare_directories(layout: &Layout) -> Result<LockFile, OpenError> {
    let mut dirs = vec![layout.root().to_path_buf(), layout.companions()];
    dirs.extend_from_slice(layout.log_dirs());
    dirs.extend_from_slice(layout.spare_dirs());
    for dir in dirs {
        fs::create_dir_all(&dir).map_err(OpenError::io(&dir))?;
    }
    let path = layout.lock();
    fs::lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::InUse { path },
        _ => OpenError::Io {
            path,
            source: error,
        },
    })
}

/// Leaves the file that says "not closed in order" until the store is.
fn mark_open(layout: &Layout) -> io::Result<()> {
    let options = OpenOptions {
        read: true,
        write: true,
        create: true,
        truncate: true,
        ..OpenOptions::default()
    };
    let abort = File::open(&layout.abort(), options)?;
    abort.write_all_at_blocking(std::process::id().to_string().as_bytes(), 0)?;
    abort.sync_blocking()?;
    fs::sync_dir(layout.root())
}

/// The store is what all cores share.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Store>();
};
