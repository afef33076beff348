//! The sealed index of a full segment: its directory in memory while it is in use, its entries read when asked.
//!
//! Few of them are open at a time, the most recently used. All of this is on the way of cold reads only.

use super::part::{
    BLOCK_BYTES, BLOCK_ENTRIES, Damage, HEADER_BYTES, Header, Kind, block_of, check_block,
};
use super::{Entry, Place};
use crate::QueueNo;
use crate::layout::Layout;
use crate::queue::Registry;
use reactor::{Buffer, File, OpenOptions, offload};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// How much memory the directories of open indexes may take together. One is always kept.
const DIRECTORIES_BYTES_MAX: usize = 16 << 20;

/// One sealed index, open.
pub struct Sealed {
    file: File,
    header: Header,
    /// Sorted by queue number.
    queues: Vec<SealedRun>,
}

/// One queue in a sealed index.
#[derive(Clone, Copy, Debug)]
pub struct SealedRun {
    queue: QueueNo,
    pub entries: u32,
    /// Offset of the first entry; without entries, the queue's next offset.
    pub first: u64,
    /// Number of the first entry among all of the file.
    place: u64,
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
        Ok(Sealed {
            file,
            header,
            queues,
        })
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

    /// Up to `count` places from the one numbered `from` in the run. Reads whole blocks and checks them.
    pub async fn places(&self, run: SealedRun, from: u32, count: u32) -> io::Result<Vec<Place>> {
        assert!(from <= run.entries, "the caller looked at the run");
        let count = u64::from(count.min(run.entries - from));
        if count == 0 {
            return Ok(Vec::new());
        }
        let first = run.place + u64::from(from);
        let (first_block, skip) = block_of(first);
        let (last_block, _) = block_of(first + count - 1);
        let len = (last_block - first_block + 1) as usize * BLOCK_BYTES;
        let at = self.header.blocks_at() + first_block * BLOCK_BYTES as u64;
        let buffer = Buffer::with_capacity(len);
        let (read, buffer) = self.file.read_at(buffer, at, len).await;
        if read? < len {
            return Err(Damage::Short.into());
        }
        let head = &self.header.head;
        let mut places = Vec::with_capacity(count as usize);
        for (number, block) in (first_block..).zip(buffer.chunks_exact(BLOCK_BYTES)) {
            let skip = if number == first_block { skip } else { 0 };
            let missing = count as usize - places.len();
            let entries = &check_block(block, number)?[skip..];
            debug_assert!(skip < BLOCK_ENTRIES);
            places.extend(
                entries
                    .iter()
                    .take(missing)
                    .map(|bytes| Place::of(Entry::decode(bytes), head.segment_base, head.base_ms)),
            );
        }
        Ok(places)
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
    /// Most recently used last.
    open: Mutex<Vec<(u64, Arc<Sealed>)>>,
}

impl SealedCache {
    pub fn new(layout: Arc<Layout>, registry: Arc<Registry>) -> SealedCache {
        SealedCache {
            layout,
            registry,
            open: Mutex::new(Vec::new()),
        }
    }

    /// The sealed index of the segment at `base`.
    pub async fn get(&self, base: u64) -> io::Result<Arc<Sealed>> {
        if let Some(found) = self.find(base) {
            return Ok(found);
        }
        let (path, registry) = (self.layout.sealed(base), self.registry.clone());
        let sealed = offload("open a sealed index", move || {
            Sealed::open(&path, base, &registry)
        })
        .await?;
        let sealed = Arc::new(sealed);
        self.add(base, sealed.clone());
        Ok(sealed)
    }

    /// Forgets a segment's index: its file was replaced.
    pub fn forget(&self, base: u64) {
        self.lock().retain(|(of, _)| *of != base);
    }

    fn find(&self, base: u64) -> Option<Arc<Sealed>> {
        let mut open = self.lock();
        let at = open.iter().position(|(of, _)| *of == base)?;
        let found = open.remove(at);
        let sealed = found.1.clone();
        open.push(found);
        Some(sealed)
    }

    fn add(&self, base: u64, sealed: Arc<Sealed>) {
        let mut open = self.lock();
        open.retain(|(of, _)| *of != base);
        open.push((base, sealed));
        let mut bytes: usize = open.iter().map(|(_, sealed)| sealed.memory_bytes()).sum();
        while bytes > DIRECTORIES_BYTES_MAX && open.len() > 1 {
            bytes -= open.remove(0).1.memory_bytes();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(u64, Arc<Sealed>)>> {
        // The list is whole between any two statements above.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
