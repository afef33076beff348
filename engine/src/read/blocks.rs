//! Cold log in blocks: read asynchronously, a few of them ahead of whoever goes through the log in order, and kept for
//! the readers that come next.
//!
//! ```text
//!   reader at block n ──► n: here, on its way, or read now
//!                    └──► n was preceded by n-1: n+1 .. n+8 are read ahead, within a budget of their own
//! ```
//!
//! What is durable and no longer hot is read past the page cache, so that a reader of old messages takes nothing from it.
//! The cache is bounded, the oldest block goes first, and its memory is used again (`kept`). It is locked only to look up
//! or to add, never across a read.

mod ahead;
mod kept;
mod unreadable;

use crate::commit_log::CommitLog;
use crate::config::Config;
use crate::segment::{Medium, Segment};
use crate::segments::List;
use crate::window::Window;
use kept::{Found, Kept};
use reactor::{Buffer, File};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use unreadable::Unreadable;

/// What is read at once.
pub const BLOCK_BYTES: u64 = 256 << 10;
/// A single record is read in whole pages.
const PAGE_BYTES: u64 = 4096;
/// Fewer wanted bytes in a block do not justify reading all of it.
pub const DENSE_BYTES: u64 = BLOCK_BYTES / 64;

/// Recently read blocks. Shared by all cores, on the cold way only.
pub struct BlockCache {
    blocks_max: usize,
    /// How much of the log's tail the page cache is for.
    hot_bytes: u64,
    kept: Mutex<Kept>,
    ahead: ahead::Budget,
    unreadable: Unreadable,
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

/// A block of a segment.
#[derive(Clone, Copy)]
struct Block {
    from: u64,
    end: u64,
}

impl Block {
    /// The one that holds the byte at `log_offset`.
    fn at(segment: &Segment, log_offset: u64) -> Block {
        let position = log_offset - segment.base();
        let from = segment.base() + position / BLOCK_BYTES * BLOCK_BYTES;
        let end = (from + BLOCK_BYTES).min(segment.end());
        Block { from, end }
    }
}

impl BlockCache {
    pub fn new(config: &Config) -> BlockCache {
        let blocks_max = config.cold_cache_bytes / BLOCK_BYTES as usize;
        BlockCache {
            blocks_max,
            hot_bytes: config.hot_bytes,
            kept: Mutex::new(Kept::new(blocks_max)),
            ahead: ahead::Budget::default(),
            unreadable: Unreadable::default(),
        }
    }

    /// Memory that holds the byte at `log_offset` and, unless the segment ends, some bytes behind it. All of `wanted`
    /// may be read now. `dense` says how many bytes of the block are known to be wanted.
    pub async fn read(
        self: &Arc<Self>,
        log: &CommitLog,
        list: &Arc<List>,
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
        let cold_to = self.cold_to(log);
        let block = Block::at(segment, log_offset);
        if block.end <= complete && dense >= DENSE_BYTES && self.blocks_max > 0 {
            let not_mapped = log.hot_from(self.hot_bytes).0;
            self.read_ahead(list, block, complete.min(not_mapped), cold_to);
            let buffer = self.load(segment, block, cold_to).await?;
            return Ok(Extent {
                from: block.from,
                buffer,
            });
        }
        if let Some(buffer) = self.lock().here(block.from) {
            return Ok(Extent {
                from: block.from,
                buffer: buffer.clone(),
            });
        }
        let position = log_offset - segment.base();
        let from = segment.base() + position / PAGE_BYTES * PAGE_BYTES;
        let end = (log_offset + wanted)
            .next_multiple_of(PAGE_BYTES)
            .min(segment.end());
        let buffer = Buffer::with_capacity((end - from) as usize);
        let mut buffer = read_file(segment, from, end, cold_to, buffer).await?;
        // The rest of the last page may be changing.
        buffer.set_len((end.min(complete) - from) as usize);
        let buffer = Arc::new(buffer);
        Ok(Extent { from, buffer })
    }

    /// Whether the block with the byte at `log_offset` is here or on its way.
    pub fn is_near(&self, list: &List, log_offset: u64) -> bool {
        self.near(list, log_offset).1
    }

    /// The bytes of the block with the byte at `log_offset`, and whether it is here or on its way.
    pub fn near(&self, list: &List, log_offset: u64) -> (Range<u64>, bool) {
        let Some((_, segment)) = list.containing(log_offset) else {
            return (log_offset..u64::MAX, false);
        };
        let block = Block::at(segment, log_offset);
        (block.from..block.end, self.lock().is_near(block.from))
    }

    /// The bytes of the block with the byte at `log_offset`.
    pub fn block_range(&self, list: &List, log_offset: u64) -> Range<u64> {
        let found = list.containing(log_offset);
        let block = found.map(|(_, segment)| Block::at(segment, log_offset));
        block.map_or(log_offset..u64::MAX, |block| block.from..block.end)
    }

    /// What was read of these bytes was not what it should be: it is read again.
    pub fn forget(&self, list: &List, from: u64, end: u64) {
        let mut at = from;
        while let Some((_, segment)) = list.containing(at)
            && at < end
        {
            let block = Block::at(segment, at);
            self.lock().forget(block.from);
            at = block.end;
        }
    }

    /// Below this the log is durable and no longer hot: it is read past the page cache.
    fn cold_to(&self, log: &CommitLog) -> u64 {
        let tail = log.written().0.saturating_sub(self.hot_bytes);
        tail.min(log.flushed().0)
    }

    /// The whole block, which is complete.
    async fn load(
        self: &Arc<Self>,
        segment: &Segment,
        block: Block,
        cold_to: u64,
    ) -> io::Result<Arc<Buffer>> {
        loop {
            let buffer = match self.enter(block.from) {
                Found::Here(buffer) => return Ok(buffer),
                Found::Wait(answer) => match answer.await {
                    Some(buffer) => return Ok(buffer),
                    None => continue, // It failed for somebody else; it may not for us.
                },
                Found::Load(buffer) => buffer,
            };
            let loading = Loading {
                cache: self,
                block: block.from,
            };
            let buffer = read_file(segment, block.from, block.end, cold_to, buffer).await?;
            return Ok(loading.done(buffer));
        }
    }

    pub fn unreadable(&self) -> &Unreadable {
        &self.unreadable
    }

    /// Whether further answers should take copies: too much memory waits for peers that do not take theirs.
    pub fn is_pinned(&self) -> bool {
        self.lock().is_pinned()
    }

    fn enter(&self, block: u64) -> Found {
        self.lock().enter(block)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Whole between any two statements of its methods.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A block on its way; when its reader is gone those who wait are let go.
struct Loading<'a> {
    cache: &'a BlockCache,
    block: u64,
}

impl Loading<'_> {
    fn done(self, buffer: Buffer) -> Arc<Buffer> {
        let buffer = Arc::new(buffer);
        self.cache.lock().add(self.block, &buffer);
        buffer
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.cache.lock().gave_up(self.block);
    }
}

/// Reads `from..end`, which start and end on pages.
async fn read_file(
    segment: &Segment,
    from: u64,
    end: u64,
    cold_to: u64,
    buffer: Buffer,
) -> io::Result<Buffer> {
    assert!(from < end && end <= segment.end(), "inside the segment");
    let len = (end - from) as usize;
    let uncached: Option<Arc<File>> = match end <= cold_to {
        true => segment.uncached().await,
        false => None,
    };
    let file = uncached.as_ref().unwrap_or(segment.file());
    let (read, buffer) = file.read_at(buffer, from - segment.base(), len).await;
    if read? < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(buffer)
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
