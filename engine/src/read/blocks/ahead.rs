//! Reading ahead of whoever goes through the log in order, within a budget that all readers share: the disk has other
//! work, and a log that is being written goes first.

use super::{Block, BlockCache};
use crate::segments::List;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many blocks are read ahead of one reader.
const BLOCKS_MAX: u64 = 8;
/// No reader has more of the cache ahead of it than this part.
const CACHE_FRACTION: u64 = 4;
/// Bytes that are being read ahead at one time, for all readers.
const BYTES_MAX: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Budget {
    /// Being read ahead now.
    bytes: AtomicUsize,
}

impl BlockCache {
    /// Starts reads of the blocks behind `block`, up to `below`, if somebody goes through the log in order.
    pub(super) fn read_ahead(
        self: &Arc<Self>,
        list: &Arc<List>,
        block: Block,
        below: u64,
        cold_to: u64,
    ) {
        let before = block.from.checked_sub(1);
        if before.is_none_or(|before| !self.is_near(list, before)) {
            return;
        }
        let mut at = block.end;
        for _ in 0..BLOCKS_MAX.min(self.blocks_max as u64 / CACHE_FRACTION) {
            let Some((number, segment)) = list.containing(at) else {
                return;
            };
            let next = Block::at(segment, at);
            if next.end > below {
                return;
            }
            at = next.end;
            if self.lock().is_near(next.from) {
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
}

/// Bytes of the budget.
struct Permit {
    cache: Arc<BlockCache>,
    bytes: usize,
}

impl Permit {
    fn take(cache: &Arc<BlockCache>, bytes: usize) -> Option<Permit> {
        let taken = cache.ahead.bytes.fetch_add(bytes, Ordering::Relaxed);
        let permit = Permit {
            cache: cache.clone(),
            bytes,
        };
        (taken + bytes <= BYTES_MAX).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let budget = &self.cache.ahead;
        budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
