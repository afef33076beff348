//! Cold log in blocks: read asynchronously, a few of them ahead of whoever goes through the log in order, and kept for
//! the readers that come next.
//!
//! ```text
//!   reader at block n ──► n: here, on its way, or read now
//!                    └──► n was preceded by n-1: n+1 .. n+8 are read ahead, within a budget of their own
//! ```
//!
//! What is durable and no longer hot is read past the page cache, so that a reader of old messages takes nothing from it.
//! The cache is bounded, the oldest block goes first, and its memory is used again. It is locked only to look up or
//! to add, never across a read.

use crate::commit_log::CommitLog;
use crate::config::Config;
use crate::segment::{Medium, Segment};
use crate::segments::List;
use crate::window::Window;
use reactor::mailbox::{Answer, Reply, oneshot};
use reactor::{Buffer, File};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is read at once.
pub const BLOCK_BYTES: u64 = 256 << 10;
/// A single record is read in whole pages.
const PAGE_BYTES: u64 = 4096;
/// Fewer wanted bytes in a block do not justify reading all of it.
pub const DENSE_BYTES: u64 = BLOCK_BYTES / 64;
/// So many blocks are read ahead of one reader.
const AHEAD_BLOCKS: u64 = 8;
/// Bytes that are read ahead at one time, for all readers: the disk has other work.
const AHEAD_BYTES_MAX: usize = 8 << 20;
/// Buffers without a block that are kept.
const FREE_BUFFERS_MAX: usize = 32;

/// Recently read blocks. Shared by all cores, on the cold way only.
pub struct BlockCache {
    blocks_max: usize,
    /// How much of the log's tail the page cache is for.
    hot_bytes: u64,
    state: Mutex<State>,
    ahead_bytes: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// By the log offset they start at.
    slots: BTreeMap<u64, Slot>,
    /// Those that are here, oldest first.
    order: VecDeque<u64>,
    /// Not cached any more, perhaps still being sent.
    leaving: Vec<Arc<Buffer>>,
    free: Vec<Buffer>,
}

enum Slot {
    Here(Arc<Buffer>),
    /// On its way, with those who wait for it.
    Loading(Vec<Reply<Arc<Buffer>>>),
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

/// What a reader of a block has to do.
enum Found {
    Here(Arc<Buffer>),
    Wait(Answer<Arc<Buffer>>),
    Load(Buffer),
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
        BlockCache {
            blocks_max: config.cold_cache_bytes / BLOCK_BYTES as usize,
            hot_bytes: config.hot_bytes,
            state: Mutex::default(),
            ahead_bytes: AtomicUsize::new(0),
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
        if let Some(Slot::Here(buffer)) = self.lock().slots.get(&block.from) {
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
        let Some((_, segment)) = list.containing(log_offset) else {
            return false;
        };
        let block = Block::at(segment, log_offset);
        self.lock().slots.contains_key(&block.from)
    }

    /// Where the block with the byte at `log_offset` ends.
    pub fn block_end(&self, list: &List, log_offset: u64) -> u64 {
        list.containing(log_offset)
            .map_or(u64::MAX, |(_, segment)| Block::at(segment, log_offset).end)
    }

    /// What was read of these bytes was not what it should be: it is read again.
    pub fn forget(&self, list: &List, from: u64, end: u64) {
        let mut at = from;
        while let Some((_, segment)) = list.containing(at)
            && at < end
        {
            let block = Block::at(segment, at);
            let mut state = self.lock();
            if matches!(state.slots.get(&block.from), Some(Slot::Here(_))) {
                state.slots.remove(&block.from);
                state.order.retain(|of| *of != block.from);
            }
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
            let buffer = match self.enter(block) {
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

    /// Starts reads of the blocks behind `block`, up to `below`, if somebody goes through the log in order.
    fn read_ahead(self: &Arc<Self>, list: &Arc<List>, block: Block, below: u64, cold_to: u64) {
        let before = block.from.checked_sub(1);
        if before.is_none_or(|before| !self.is_near(list, before)) {
            return;
        }
        let blocks = AHEAD_BLOCKS.min(self.blocks_max as u64 / 4);
        let mut at = block.end;
        for _ in 0..blocks {
            let Some((number, segment)) = list.containing(at) else {
                return;
            };
            let next = Block::at(segment, at);
            if next.end > below {
                return;
            }
            at = next.end;
            if self.lock().slots.contains_key(&next.from) {
                continue;
            }
            let Some(permit) = Permit::take(self, (next.end - next.from) as usize) else {
                return;
            };
            let list = list.clone();
            reactor::spawn("read ahead", async move {
                let segment = &list.items()[number];
                // Who needs the block reads it again and is told.
                let _ = permit.cache.load(segment, next, cold_to).await;
            });
        }
    }

    fn enter(&self, block: Block) -> Found {
        let mut state = self.lock();
        match state.slots.get_mut(&block.from) {
            Some(Slot::Here(buffer)) => Found::Here(buffer.clone()),
            Some(Slot::Loading(waiting)) => {
                let (reply, answer) = oneshot();
                waiting.push(reply);
                Found::Wait(answer)
            }
            None => {
                state.slots.insert(block.from, Slot::Loading(Vec::new()));
                Found::Load(state.buffer((block.end - block.from) as usize))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole between any two statements of a method below.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Adds a block that was on its way; the oldest makes room.
    fn add(&mut self, block: u64, buffer: &Arc<Buffer>, blocks_max: usize) {
        let here = Slot::Here(buffer.clone());
        let was = self.slots.insert(block, here);
        self.order.push_back(block);
        if self.order.len() > blocks_max
            && let Some(oldest) = self.order.pop_front()
            && let Some(Slot::Here(buffer)) = self.slots.remove(&oldest)
        {
            self.leaving.push(buffer);
        }
        if let Some(Slot::Loading(waiting)) = was {
            waiting
                .into_iter()
                .for_each(|reply| reply.send(buffer.clone()));
        }
    }

    fn buffer(&mut self, len: usize) -> Buffer {
        if len as u64 != BLOCK_BYTES {
            return Buffer::with_capacity(len);
        }
        for buffer in std::mem::take(&mut self.leaving) {
            match Arc::try_unwrap(buffer) {
                Ok(buffer) if self.free.len() < FREE_BUFFERS_MAX => self.free.push(buffer),
                Ok(_) => {}
                Err(buffer) => self.leaving.push(buffer),
            }
        }
        // A segment's last block may be shorter.
        let is_whole = |buffer: &Buffer| buffer.capacity() >= len;
        self.free
            .pop()
            .filter(is_whole)
            .unwrap_or_else(|| Buffer::with_capacity(len))
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
        let blocks_max = self.cache.blocks_max;
        self.cache.lock().add(self.block, &buffer, blocks_max);
        buffer
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        if matches!(state.slots.get(&self.block), Some(Slot::Loading(_))) {
            state.slots.remove(&self.block);
        }
    }
}

/// Bytes of the budget for reading ahead.
struct Permit {
    cache: Arc<BlockCache>,
    bytes: usize,
}

impl Permit {
    fn take(cache: &Arc<BlockCache>, bytes: usize) -> Option<Permit> {
        let taken = cache.ahead_bytes.fetch_add(bytes, Ordering::Relaxed);
        let permit = Permit {
            cache: cache.clone(),
            bytes,
        };
        (taken + bytes <= AHEAD_BYTES_MAX).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.cache
            .ahead_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
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
