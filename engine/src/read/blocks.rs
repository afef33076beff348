//! Cold log in blocks: read asynchronously, kept for the readers that come next.
//!
//! A catch-up reader goes through the log in order, so a whole block is read when more of it is likely to be
//! wanted, and the next pulls find it here. The cache is bounded; the oldest block goes first. It is locked only
//! to look up or to add, never across a read.

use crate::commit_log::CommitLog;
use crate::segment::{Medium, Segment};
use crate::segments::List;
use crate::window::Window;
use reactor::Buffer;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// What is read at once.
pub const BLOCK_BYTES: u64 = 256 << 10;
/// A single record is read in whole pages.
const PAGE_BYTES: u64 = 4096;
/// Fewer wanted bytes in a block do not justify reading all of it.
const DENSE_BYTES: u64 = BLOCK_BYTES / 64;

/// Recently read blocks. Shared by all cores, on the cold way only.
pub struct BlockCache {
    blocks_max: usize,
    /// Oldest first.
    blocks: Mutex<VecDeque<(u64, Arc<Buffer>)>>,
}

/// Some of the log in memory, from the log offset `from` on.
#[derive(Clone)]
pub struct Extent {
    pub from: u64,
    pub buffer: Arc<Buffer>,
}

impl Extent {
    pub fn end(&self) -> u64 {
        self.from + self.buffer.len() as u64
    }

    /// The bytes from `log_offset` on, as far as they are here.
    pub fn bytes_from(&self, log_offset: u64) -> &[u8] {
        &self.buffer[(log_offset - self.from) as usize..]
    }
}

impl BlockCache {
    pub fn new(bytes_max: usize) -> BlockCache {
        BlockCache {
            blocks_max: bytes_max / BLOCK_BYTES as usize,
            blocks: Mutex::new(VecDeque::new()),
        }
    }

    /// Memory that holds the byte at `log_offset` and, unless the segment ends, some bytes behind it. All of `wanted`
    /// may be read now. `dense` says how many bytes of the block are known to be wanted.
    pub async fn read(
        &self,
        log: &CommitLog,
        list: &List,
        log_offset: u64,
        wanted: u64,
        dense: u64,
    ) -> io::Result<Extent> {
        let Some((_, segment)) = list.containing(log_offset) else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the log does not reach there",
            ));
        };
        // What the window has may be nowhere else yet. What left it is on disk.
        if let Medium::Direct(window) = segment.medium() {
            loop {
                if let Some(extent) = copy_from(window, log_offset, wanted) {
                    return Ok(extent);
                }
                if log_offset < log.on_disk().0 {
                    break;
                }
                reactor::yield_now().await; // too many readers at once
            }
        }
        let complete = log.on_disk().0;
        let position = log_offset - segment.base();
        let block = segment.base() + position / BLOCK_BYTES * BLOCK_BYTES;
        if let Some(buffer) = self.find(block) {
            return Ok(Extent {
                from: block,
                buffer,
            });
        }
        let block_end = (block + BLOCK_BYTES).min(segment.end());
        if block_end <= complete && dense >= DENSE_BYTES && self.blocks_max > 0 {
            let extent = read_extent(segment, block, block_end, block_end).await?;
            self.add(block, extent.buffer.clone());
            return Ok(extent);
        }
        let from = segment.base() + position / PAGE_BYTES * PAGE_BYTES;
        let end = (log_offset + wanted)
            .next_multiple_of(PAGE_BYTES)
            .min(segment.end());
        // The rest of the last page may be changing.
        read_extent(segment, from, end, end.min(complete)).await
    }

    fn find(&self, block: u64) -> Option<Arc<Buffer>> {
        let blocks = self.lock();
        let found = blocks.iter().rev().find(|(of, _)| *of == block)?;
        Some(found.1.clone())
    }

    fn add(&self, block: u64, buffer: Arc<Buffer>) {
        let mut blocks = self.lock();
        if blocks.iter().any(|(of, _)| *of == block) {
            return;
        }
        if blocks.len() >= self.blocks_max {
            blocks.pop_front();
        }
        blocks.push_back((block, buffer));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(u64, Arc<Buffer>)>> {
        // The list is whole between any two statements above.
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads `from..end`, and shows it up to `complete`.
async fn read_extent(segment: &Segment, from: u64, end: u64, complete: u64) -> io::Result<Extent> {
    assert!(from < complete && complete <= end, "something is read");
    let len = (end - from) as usize;
    let buffer = Buffer::with_capacity(len);
    let at = from - segment.base();
    let (read, mut buffer) = segment.file().read_at(buffer, at, len).await;
    if read? < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buffer.set_len((complete - from) as usize);
    let buffer = Arc::new(buffer);
    Ok(Extent { from, buffer })
}

/// A copy of what is wanted, or the beginning of it, if the window still has it.
fn copy_from(window: &Window, log_offset: u64, wanted: u64) -> Option<Extent> {
    let pinned = window.pin(log_offset)?;
    let len = (wanted as usize).min(pinned.piece_bytes_max());
    let mut buffer = Buffer::with_capacity(len);
    buffer.set_len(len);
    buffer.copy_from_slice(pinned.bytes(log_offset, len));
    let buffer = Arc::new(buffer);
    Some(Extent {
        from: log_offset,
        buffer,
    })
}
