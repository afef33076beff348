//! One file of the log, and what memory is spent on it while it is hot.
//!
//! A segment is hot from its creation until it is sealed and has left the tail that is read through the mapping.
//! After that only its file handle remains. Readers hold on to a mapping through its `Arc`, so a slice that is
//! being sent outlives the segment's retirement.

use crate::layout::Layout;
use crate::queue_index::active::ActiveIndex;
use arc_swap::ArcSwapOption;
use reactor::{File, Mapping, OpenOptions, fs};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One log file of a fixed size.
pub struct Segment {
    path: PathBuf,
    base: u64,
    bytes: u64,
    file: Arc<File>,
    hot: ArcSwapOption<Hot>,
}

/// What makes a segment readable without I/O.
pub struct Hot {
    pub mapping: Arc<Mapping>,
    pub index: ActiveIndex,
}

impl Segment {
    /// Opens the segment at `path`, cold. Blocks.
    pub fn open(path: &Path, base: u64, bytes: u64) -> io::Result<Segment> {
        let options = OpenOptions {
            read: true,
            write: true,
            ..OpenOptions::default()
        };
        let file = File::open(path, options)?;
        Ok(Segment {
            path: path.to_path_buf(),
            base,
            bytes,
            file: Arc::new(file),
            hot: ArcSwapOption::empty(),
        })
    }

    /// Makes the file of a new segment, zeroed and of its full size, and opens it hot. Blocks.
    pub fn create(layout: &Layout, base: u64, bytes: u64) -> io::Result<Segment> {
        let spare = Segment::allocate(layout, base, bytes)?;
        spare.sync_blocking()?;
        Segment::install(layout, base, bytes)
    }

    /// The first step of [`Segment::create`]: the file under another name, so that the log directory never holds
    /// one of a wrong size. It has to be synced before the next step. Blocks.
    pub fn allocate(layout: &Layout, base: u64, bytes: u64) -> io::Result<File> {
        let spare = layout.spare(base);
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
    pub fn install(layout: &Layout, base: u64, bytes: u64) -> io::Result<Segment> {
        let path = layout.segment(base);
        fs::rename(&layout.spare(base), &path)?;
        fs::sync_dir(layout.log_dir_of(base))?;
        let segment = Segment::open(&path, base, bytes)?;
        segment.warm()?;
        Ok(segment)
    }

    /// Maps the segment and gives it an empty index. Blocks.
    pub fn warm(&self) -> io::Result<Arc<Hot>> {
        let mapping = self.file.map(self.bytes as usize)?;
        mapping.prefer_huge_pages();
        let hot = Arc::new(Hot {
            mapping: Arc::new(mapping),
            index: ActiveIndex::new(self.base),
        });
        self.hot.store(Some(hot.clone()));
        Ok(hot)
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

    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The mapping and the index, while the segment is hot.
    #[inline]
    pub fn hot(&self) -> arc_swap::Guard<Option<Arc<Hot>>> {
        self.hot.load()
    }

    /// Takes the memory away; dropping what is returned unmaps it. The caller knows that the sealed index is on disk.
    pub fn retire(&self) -> Option<Arc<Hot>> {
        self.hot.swap(None)
    }
}
