//! The sealed indexes of full segments: open for lookups, which is what cold reads need, or with the whole directory in
//! memory, for those who go through all queues.
//!
//! Few of them are open at a time, the most recently used.

use super::lookup::Lookup;
use super::part::{Damage, HEADER_BYTES, Header, Kind};
use crate::QueueNo;
use crate::layout::Layout;
use crate::queue::Registry;
use reactor::{File, OpenOptions, offload_bulk};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much memory open indexes of either kind may take together. One is always kept.
const OPEN_BYTES_MAX: usize = 16 << 20;

/// The directory of a sealed index.
pub struct Sealed {
    header: Header,
    /// Sorted by queue number.
    queues: Vec<SealedRun>,
}

/// One queue in a sealed index.
#[derive(Clone, Copy, Debug)]
pub struct SealedRun {
    pub(super) queue: QueueNo,
    pub entries: u32,
    /// Offset of the first entry; without entries, the queue's next offset.
    pub first: u64,
    /// Number of the first entry among all of the file.
    pub(super) place: u64,
}

impl SealedRun {
    /// The queue's next offset at the end of the segment.
    pub fn next(&self) -> u64 {
        self.first + u64::from(self.entries)
    }
}

impl Sealed {
    /// Opens the sealed index at `path` and checks header and directory. Blocks.
    pub fn open(path: &Path, segment_base: u64, registry: &Registry) -> io::Result<Sealed> {
        let (file, header) = open_companion(path, segment_base)?;
        if header.head.kind != Kind::Sealed {
            return Err(Damage::Misplaced.into());
        }
        let mut queues = Vec::with_capacity(header.queues as usize);
        let mut place = 0;
        let directory = read_directory(&file, &header)?;
        header.directory(&directory, |listed| {
            queues.push(SealedRun {
                queue: registry.find_or_make(listed.topic, listed.id).no(),
                entries: listed.entries,
                first: listed.first,
                place,
            });
            place += u64::from(listed.entries);
        })?;
        queues.sort_unstable_by_key(|run| run.queue);
        Ok(Sealed { header, queues })
    }

    pub fn run(&self, queue: QueueNo) -> Option<SealedRun> {
        let at = self
            .queues
            .binary_search_by_key(&queue, |run| run.queue)
            .ok()?;
        Some(self.queues[at])
    }

    /// Store time of the segment's last message.
    pub fn last_ms(&self) -> i64 {
        self.header.head.last_ms
    }

    /// Every queue's first offset in the segment; its next one if it has none here.
    pub fn starts(&self) -> impl Iterator<Item = (QueueNo, u64)> {
        self.queues.iter().map(|run| (run.queue, run.first))
    }

    fn memory_bytes(&self) -> usize {
        self.queues.len() * size_of::<SealedRun>()
    }
}

/// Opens a companion and checks that its header fits its segment and its length. Blocks.
pub fn open_companion(path: &Path, segment_base: u64) -> io::Result<(File, Header)> {
    let options = OpenOptions {
        read: true,
        ..OpenOptions::default()
    };
    let file = File::open(path, options)?;
    let len = file.len()?;
    let mut header = [0; HEADER_BYTES];
    if len < HEADER_BYTES as u64 {
        return Err(Damage::Short.into());
    }
    file.read_exact_at_blocking(&mut header, 0)?;
    let header = Header::decode(&header)?;
    if header.head.segment_base != segment_base {
        return Err(Damage::Misplaced.into());
    }
    if len != header.file_bytes() {
        return Err(Damage::Short.into());
    }
    Ok((file, header))
}

/// The directory's bytes, unchecked. Blocks.
pub fn read_directory(file: &File, header: &Header) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; header.directory_bytes as usize];
    file.read_exact_at_blocking(&mut bytes, HEADER_BYTES as u64)?;
    Ok(bytes)
}

/// The open sealed indexes.
pub struct SealedCache {
    layout: Arc<Layout>,
    registry: Arc<Registry>,
    directories: Recent<Sealed>,
    lookups: Recent<Lookup>,
}

/// Of segments, the most recently used last.
type Recent<T> = Mutex<Vec<(u64, Arc<T>)>>;

impl SealedCache {
    pub fn new(layout: Arc<Layout>, registry: Arc<Registry>) -> SealedCache {
        SealedCache {
            layout,
            registry,
            directories: Mutex::default(),
            lookups: Mutex::default(),
        }
    }

    /// The directory of the segment at `base`.
    pub async fn get(&self, base: u64) -> io::Result<Arc<Sealed>> {
        if let Some(found) = find(&self.directories, base) {
            return Ok(found);
        }
        let (path, registry) = (self.layout.sealed(base), self.registry.clone());
        let sealed = offload_bulk("open a sealed index", move || {
            Sealed::open(&path, base, &registry)
        });
        let sealed = Arc::new(sealed.await?);
        add(&self.directories, base, &sealed, Sealed::memory_bytes);
        Ok(sealed)
    }

    /// The sealed index of the segment at `base`, for lookups.
    pub async fn lookup(&self, base: u64) -> io::Result<Arc<Lookup>> {
        if let Some(found) = find(&self.lookups, base) {
            return Ok(found);
        }
        let path = self.layout.sealed(base);
        let lookup = offload_bulk("open a sealed index", move || Lookup::open(&path, base));
        let lookup = Arc::new(lookup.await?);
        add(&self.lookups, base, &lookup, Lookup::memory_bytes);
        Ok(lookup)
    }

    /// Forgets a segment's index: its file was replaced.
    pub fn forget(&self, base: u64) {
        lock(&self.directories).retain(|(of, _)| *of != base);
        lock(&self.lookups).retain(|(of, _)| *of != base);
    }
}

fn find<T>(open: &Recent<T>, base: u64) -> Option<Arc<T>> {
    let mut open = lock(open);
    let at = open.iter().position(|(of, _)| *of == base)?;
    let found = open.remove(at);
    let sealed = found.1.clone();
    open.push(found);
    Some(sealed)
}

fn add<T>(open: &Recent<T>, base: u64, added: &Arc<T>, bytes_of: impl Fn(&T) -> usize) {
    let mut open = lock(open);
    open.retain(|(of, _)| *of != base);
    open.push((base, added.clone()));
    let mut bytes: usize = open.iter().map(|(_, sealed)| bytes_of(sealed)).sum();
    while bytes > OPEN_BYTES_MAX && open.len() > 1 {
        bytes -= bytes_of(&open.remove(0).1);
    }
}

fn lock<T>(open: &Recent<T>) -> MutexGuard<'_, Vec<(u64, Arc<T>)>> {
    // The list is whole between any two statements above.
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
