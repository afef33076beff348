//! One file of the log, and what memory is spent on it while it is hot.
//!
//! A segment is hot from its creation until it is sealed and has left the tail that is read from memory. After that
//! only its file handle remains. How its bytes get from memory to the file is its medium's business: through a
//! mapping of the file, which readers hold on to through its `Arc`, so that a slice that is being sent outlives the
//! segment's retirement; or from the window that all segments share, past the page cache.

use crate::layout::Layout;
use crate::queue_index::active::ActiveIndex;
use crate::window::{BLOCK_BYTES, Window};
use arc_swap::ArcSwapOption;
use reactor::{Buffer, File, Mapping, OpenOptions, fs, offload};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// Less than that is not worth another extent in the file system's tables.
const GIVEN_BACK_BYTES_MIN: u64 = 8 << 20;

/// The part of a record in front of its body.
const FIXED_BYTES: u64 = 96;
/// As much of a record's end as usually holds its properties.
const PROPERTIES_BYTES: u64 = 192;
/// As much of a whole record as is asked for ahead.
const WHOLE_BYTES_MAX: u64 = 2048;

/// One log file of a fixed size.
pub struct Segment {
    path: PathBuf,
    base: u64,
    bytes: u64,
    medium: Medium,
    file: Arc<File>,
    /// For reads past the page cache, once there was one; `None` where the file system cannot do that.
    uncached: OnceLock<Option<Arc<File>>>,
    hot: ArcSwapOption<Hot>,
    /// The log offset behind the last byte that anybody reads, as far as this process knows.
    ends_at: AtomicU64,
    /// The last mapping there was: a reader may hold it long after the segment has left memory.
    mapping: Mutex<Weak<Mapping>>,
}

/// Between the log's memory and its files.
#[derive(Clone)]
pub enum Medium {
    /// Each file is mapped, and the kernel writes it.
    Mapped,
    /// One window for all; files are written past the page cache, and never opened any other way.
    Direct(Arc<Window>),
}

/// Where the bytes of a hot segment are.
pub enum Memory {
    Mapped(Arc<Mapping>),
    /// Those that are still there.
    Window(Arc<Window>),
}

/// What makes a segment readable without I/O.
pub struct Hot {
    pub memory: Memory,
    pub index: ActiveIndex,
}

impl Hot {
    /// Brings both ends of a record into the cache of this core: its fixed part, and its properties. A hint: where it lies may
    /// hold something else by now.
    #[inline]
    pub fn prefetch_ends(&self, segment_base: u64, position: u64, bytes: u32) {
        let last = position + u64::from(bytes).saturating_sub(PROPERTIES_BYTES);
        self.prefetch(segment_base, position, FIXED_BYTES);
        self.prefetch(segment_base, last, PROPERTIES_BYTES);
    }

    /// Likewise for all of a record; of a long one the beginning is enough: behind it the CPU sees by itself where this goes.
    #[inline]
    pub fn prefetch_whole(&self, segment_base: u64, position: u64, bytes: u32) {
        let bytes = u64::from(bytes).min(WHOLE_BYTES_MAX);
        self.prefetch(segment_base, position, bytes);
    }

    #[inline]
    fn prefetch(&self, segment_base: u64, position: u64, bytes: u64) {
        match &self.memory {
            Memory::Mapped(mapping) => mapping.prefetch(position as usize, bytes as usize),
            Memory::Window(window) => window.prefetch(segment_base + position, bytes as usize),
        }
    }
}

impl Segment {
    /// Opens the segment at `path`, cold. Blocks.
    pub fn open(path: &Path, base: u64, bytes: u64, medium: &Medium) -> io::Result<Segment> {
        let options = OpenOptions {
            read: true,
            write: true,
            direct: matches!(medium, Medium::Direct(_)),
            ..OpenOptions::default()
        };
        let file = File::open(path, options)?;
        Ok(Segment {
            path: path.to_path_buf(),
            base,
            bytes,
            medium: medium.clone(),
            file: Arc::new(file),
            uncached: OnceLock::new(),
            hot: ArcSwapOption::empty(),
            ends_at: AtomicU64::new(base + bytes),
            mapping: Mutex::default(),
        })
    }

    /// Makes the file of a new segment, zeroed and of its full size, and opens it hot. Blocks.
    pub fn create(layout: &Layout, base: u64, bytes: u64, medium: &Medium) -> io::Result<Segment> {
        let mut refused = None;
        for dir in layout.dirs_for(base) {
            let created = Segment::allocate(layout, dir, base, bytes).and_then(|spare| {
                spare.sync_blocking()?;
                Segment::install(layout, dir, base, bytes, medium)
            });
            match created {
                Err(error) if is_out_of_space(&error) => refused = refused.or(Some(error)),
                other => return other,
            }
        }
        Err(refused.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }

    /// The first step of [`Segment::create`]: the file under another name, so that the log directory never holds
    /// one of a wrong size. It has to be synced before the next step. Blocks.
    pub fn allocate(layout: &Layout, dir: usize, base: u64, bytes: u64) -> io::Result<File> {
        let (_, spare) = layout.segment_in(dir, base);
        let options = OpenOptions {
            read: true,
            write: true,
            create: true,
            truncate: true,
            ..OpenOptions::default()
        };
        let file = File::open(&spare, options)?;
        file.allocate(bytes).inspect_err(|_| {
            // The space is better free; a leftover is removed when the store opens.
            let _ = fs::remove_file(&spare);
        })?;
        Ok(file)
    }

    /// The last step of [`Segment::create`]: gives the file its name and opens it. Blocks.
    pub fn install(
        layout: &Layout,
        dir: usize,
        base: u64,
        bytes: u64,
        medium: &Medium,
    ) -> io::Result<Segment> {
        let (path, spare) = layout.segment_in(dir, base);
        fs::rename(&spare, &path)?;
        fs::sync_dir(&layout.log_dirs()[dir])?;
        let segment = Segment::open(&path, base, bytes, medium)?;
        segment.warm()?;
        Ok(segment)
    }

    /// Gives the segment its memory and an empty index. Blocks.
    pub fn warm(&self) -> io::Result<Arc<Hot>> {
        let memory = match &self.medium {
            Medium::Mapped => {
                let mapping = self.file.map(self.bytes as usize)?;
                mapping.prefer_huge_pages();
                let mapping = Arc::new(mapping);
                *self.lock_mapping() = Arc::downgrade(&mapping);
                Memory::Mapped(mapping)
            }
            Medium::Direct(window) => Memory::Window(window.clone()),
        };
        let hot = Arc::new(Hot {
            memory,
            index: ActiveIndex::new(self.base),
        });
        self.hot.store(Some(hot.clone()));
        Ok(hot)
    }

    /// Whether nobody but the caller can reach the file or its memory. `hot` is what the caller has retired.
    pub fn is_unused(self: &Arc<Segment>, hot: Option<&Arc<Hot>>) -> bool {
        let of_caller = match hot.map(|hot| &hot.memory) {
            Some(Memory::Mapped(_)) => 1,
            // What is lent of the window holds the window, no segment.
            Some(Memory::Window(_)) | None => 0,
        };
        let uncached = self.uncached.get().and_then(Option::as_ref);
        Arc::strong_count(self) == 1
            && Arc::strong_count(&self.file) == 1
            && uncached.is_none_or(|file| Arc::strong_count(file) == 1)
            && hot.is_none_or(|hot| Arc::strong_count(hot) == 1)
            && self.lock_mapping().strong_count() <= of_caller
    }

    fn lock_mapping(&self) -> MutexGuard<'_, Weak<Mapping>> {
        // A single pointer is whole at any time.
        self.mapping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// First log offset.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The log offset behind the last byte.
    pub fn end(&self) -> u64 {
        self.base + self.bytes
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// From the log offset on the segment is a blank whose content does not matter.
    pub fn end_at(&self, log_offset: u64) {
        assert!((self.base..=self.end()).contains(&log_offset), "inside");
        self.ends_at.store(log_offset, Ordering::Relaxed);
    }

    /// Gives the disk space back that a blank has no use for. Blocks.
    pub fn give_back_blank(&self) -> io::Result<()> {
        let from = self.ends_at.load(Ordering::Relaxed);
        let from = (from - self.base).next_multiple_of(BLOCK_BYTES);
        let rest = self.bytes.saturating_sub(from);
        match rest < GIVEN_BACK_BYTES_MIN {
            true => Ok(()),
            false => self.file.give_back(from, rest),
        }
    }

    pub fn medium(&self) -> &Medium {
        &self.medium
    }

    /// Reads bytes of the file wherever they lie. They have been written to it. Blocks.
    pub fn read_blocking(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        let from = at / BLOCK_BYTES * BLOCK_BYTES;
        let end = (at + into.len() as u64).next_multiple_of(BLOCK_BYTES);
        let mut blocks = Buffer::with_capacity((end - from) as usize);
        blocks.set_len((end - from) as usize);
        self.file.read_exact_at_blocking(&mut blocks, from)?;
        let skipped = (at - from) as usize;
        into.copy_from_slice(&blocks[skipped..skipped + into.len()]);
        Ok(())
    }

    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The file past the page cache, where it is not opened so anyway. For what is durable and not being written.
    pub async fn uncached(&self) -> Option<Arc<File>> {
        if matches!(self.medium, Medium::Direct(_)) {
            return None;
        }
        if let Some(known) = self.uncached.get() {
            return known.clone();
        }
        let path = self.path.clone();
        let opened = offload("open a log segment past the page cache", move || {
            let options = OpenOptions {
                read: true,
                direct: true,
                ..OpenOptions::default()
            };
            File::open(&path, options)
        })
        .await;
        let file = opened
            .inspect_err(|error| tracing::debug!(%error, path = %self.path.display(), "cold log is read through the page cache"))
            .ok()
            .map(Arc::new);
        self.uncached.get_or_init(|| file).clone()
    }

    /// The memory and the index, while the segment is hot.
    #[inline]
    pub fn hot(&self) -> arc_swap::Guard<Option<Arc<Hot>>> {
        self.hot.load()
    }

    /// How much memory its index takes.
    pub fn index_bytes(&self) -> u64 {
        self.hot().as_ref().map_or(0, |hot| hot.index.bytes())
    }

    /// Takes the memory away; dropping what is returned frees it. The caller knows that the sealed index is on disk.
    pub fn retire(&self) -> Option<Arc<Hot>> {
        self.hot.swap(None)
    }
}

/// Whether there may be room in another log directory.
pub fn is_out_of_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
