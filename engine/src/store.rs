//! The store as every core shares it: opening, the queues, the watermarks.

use crate::commit_log::{CommitLog, FlushStats, Poison, ReleaseAt};
use crate::config::Config;
use crate::key_index::KeyIndex;
use crate::layout::Layout;
use crate::queue::{Queue, Registry};
use crate::queue_index::sealed::SealedCache;
use crate::read::blocks::BlockCache;
use crate::reclaim::Reclaim;
use crate::recovery::{self, Progress};
use crate::segment::Medium;
use crate::writer::Writer;
use crate::{LogOffset, QueueNo};
use reactor::fs::{self, LockFile};
use reactor::{File, OpenOptions};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a dead process's lock is waited for, and how often it is tried.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// One store, open. Shared by all cores; the one that writes owns the [`Writer`] as well.
pub struct Store {
    config: Config,
    layout: Arc<Layout>,
    medium: Medium,
    log: CommitLog,
    registry: Arc<Registry>,
    sealed: SealedCache,
    blocks: Arc<BlockCache>,
    keys: KeyIndex,
    reclaim: Reclaim,
    /// Bases of the segments whose index is being made again.
    rebuilding: Mutex<BTreeSet<u64>>,
    recovered_from: LogOffset,
    recovered_bytes: u64,
    rocketmqs_until: LogOffset,
    starts_known: AtomicBool,
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
    #[error("{path}: process {holder} has this store open")]
    InUse {
        path: PathBuf,
        /// Its id, as far as it is known.
        holder: String,
    },
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
        prepare_directories(&layout)?;
        let lock = lock(&layout).await?;
        let registry = Arc::new(Registry::default());
        let opened = recovery::window::open(&config, &layout).await?;
        recovery::unsynced::heal(&config, &layout, &opened.medium).await?;
        let recovered = recovery::recover(&config, &layout, &registry, &opened.medium, progress);
        let (log, mut recovered) = recovered.await?;
        on_a_full_disk(&layout, || mark_open(&layout)).map_err(OpenError::io(layout.abort()))?;
        let store = Arc::new(Store {
            sealed: SealedCache::new(layout.clone(), registry.clone()),
            blocks: Arc::new(BlockCache::new(&config)),
            keys: KeyIndex::new(),
            reclaim: Reclaim::new(),
            config,
            layout: layout.clone(),
            medium: opened.medium.clone(),
            log,
            registry,
            rebuilding: Mutex::default(),
            recovered_from: recovered.read_from,
            recovered_bytes: recovered.read_bytes,
            rocketmqs_until: recovered.rocketmqs_until,
            starts_known: AtomicBool::new(recovered.starts_known),
            _lock: lock,
        });
        recovery::adopt(&store, &layout, &mut recovered).await?;
        let list = store.log().segments().load_full();
        let tail = list.items().last().expect("recovery leaves a segment");
        opened.begin(&layout, tail, recovered.end.0).await?;
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

    /// The queue of this number, as records on their way name it.
    pub fn queue_by_no(&self, no: QueueNo) -> Option<Arc<Queue>> {
        self.registry.by_no(no)
    }

    /// Every queue the store knows, by topic and id.
    pub fn queues(&self) -> Vec<Arc<Queue>> {
        self.registry.sorted()
    }

    /// Up to here the log was laid by RocketMQ, as it was when the store opened.
    pub fn rocketmqs_until(&self) -> LogOffset {
        self.rocketmqs_until
    }

    /// Whether every queue's start is known. Otherwise one whose messages are all gone seems to have some, until the
    /// oldest segment's index is made again.
    pub fn starts_known(&self) -> bool {
        self.starts_known.load(Ordering::Acquire)
    }

    pub(crate) fn set_starts_known(&self) {
        self.starts_known.store(true, Ordering::Release);
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

    /// How much of what was laid a power cut would take.
    pub fn unflushed_bytes(&self) -> u64 {
        let flushed = self.log.flushed().0;
        self.log.written().0 - flushed
    }

    pub fn flush_stats(&self) -> FlushStats {
        self.log.flush_stats()
    }

    /// From here on the log was read when the store was opened, in search of its end: whatever a crash may have cut in
    /// two lies behind it. Always between two records.
    pub fn recovered_from(&self) -> LogOffset {
        self.recovered_from
    }

    /// How much of the log was read to find its end when the store was opened.
    pub fn recovered_bytes(&self) -> u64 {
        self.recovered_bytes
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

    /// How much memory the indexes of segments take that are not cold.
    pub fn index_bytes(&self) -> u64 {
        let list = self.log.segments().load();
        crate::queue_index::keeper::index_bytes(list.items())
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn log(&self) -> &CommitLog {
        &self.log
    }

    pub(crate) fn medium(&self) -> &Medium {
        &self.medium
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

    pub(crate) fn reclaim(&self) -> &Reclaim {
        &self.reclaim
    }

    pub(crate) fn keys(&self) -> &KeyIndex {
        &self.keys
    }

    pub(crate) fn blocks(&self) -> &Arc<BlockCache> {
        &self.blocks
    }

    /// Says that the caller makes the index of the segment at `base` again; `None` if somebody is at it.
    pub(crate) fn start_rebuilding(self: &Arc<Self>, base: u64) -> Option<Rebuilding> {
        let store = self.clone();
        let first = self.lock_rebuilding().insert(base);
        first.then(|| Rebuilding { store, base })
    }

    pub(crate) fn is_rebuilding(&self, base: u64) -> bool {
        self.lock_rebuilding().contains(&base)
    }

    fn lock_rebuilding(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        // The set is whole between any two statements.
        let rebuilding = self.rebuilding.lock();
        rebuilding.unwrap_or_else(PoisonError::into_inner)
    }

    /// The store was closed in order: the next start need not suspect it.
    pub(crate) fn mark_closed(&self) -> io::Result<()> {
        if let Medium::Direct(window) = &self.medium {
            window.give_up()?;
        }
        let abort = self.layout.abort();
        fs::remove_file(&abort)?;
        fs::sync_dir(self.layout.root())
    }
}

/// For as long as this lives nobody else makes that segment's index.
pub(crate) struct Rebuilding {
    store: Arc<Store>,
    base: u64,
}

impl Drop for Rebuilding {
    fn drop(&mut self) {
        self.store.lock_rebuilding().remove(&self.base);
    }
}

fn prepare_directories(layout: &Layout) -> Result<(), OpenError> {
    let mut dirs = vec![layout.root().to_path_buf(), layout.companions()];
    dirs.extend_from_slice(layout.log_dirs());
    dirs.extend_from_slice(layout.spare_dirs());
    for dir in dirs {
        make_dir(&dir).map_err(OpenError::io(&dir))?;
    }
    Ok(())
}

/// The store is this process's.
pub(crate) async fn lock(layout: &Layout) -> Result<LockFile, OpenError> {
    when_free(&layout.lock(), || fs::lock(&layout.lock())).await
}

/// Nobody opens the store while this is held, and nothing of it is changed. `None` if nobody ever had it open.
pub(crate) async fn lock_to_look(layout: &Layout) -> Result<Option<LockFile>, OpenError> {
    when_free(&layout.lock(), || fs::lock_to_look(&layout.lock())).await
}

/// A process that was killed keeps the lock until its last write is over: for that it is waited.
async fn when_free<T>(path: &Path, lock: impl Fn() -> io::Result<T>) -> Result<T, OpenError> {
    let latest = reactor::now() + LOCK_PATIENCE;
    loop {
        match lock() {
            Ok(lock) => return Ok(lock),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return Err(OpenError::io(path)(error));
            }
            Err(_) if !fs::lock_holder_lives(path) && reactor::now() < latest => {
                reactor::sleep(LOCK_PAUSE).await;
            }
            Err(_) => {
                let (path, holder) = (path.to_path_buf(), holder(path));
                return Err(OpenError::InUse { path, holder });
            }
        }
    }
}

/// Makes a directory, and it and those above it that were made durable.
fn make_dir(dir: &Path) -> io::Result<()> {
    let above = dir
        .ancestors()
        .take_while(|dir| !dir.as_os_str().is_empty() && !fs::exists(dir));
    let missing: Vec<&Path> = above.collect();
    fs::create_dir_all(dir)?;
    for made in missing.iter().rev() {
        match made.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => fs::sync_dir(parent)?,
            _ => fs::sync_dir(Path::new("."))?,
        }
    }
    Ok(())
}

/// What the lock file says about the process that holds it. RocketMQ writes a word there.
pub(crate) fn holder(lock: &Path) -> String {
    let said = fs::read(lock).unwrap_or_default();
    match String::from_utf8_lossy(&said).trim() {
        "" => "of unknown id".to_owned(),
        "lock" => "of a RocketMQ broker".to_owned(),
        pid => pid.chars().take(20).collect(),
    }
}

/// Does what a store needs to open; where there is no room for it, with what was kept back: reads go on at least.
pub(crate) fn on_a_full_disk(
    layout: &Layout,
    write: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    match write() {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) =>
        {
            fs::remove_file(&layout.reserve()).map_err(|_| error)?;
            write()
        }
        other => other,
    }
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
