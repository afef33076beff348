//! The blocks that are in memory or on their way, and the memory they are in.
//!
//! ```text
//!   free ──► on its way ──► here ──► let go ──► free        pinned: let go, but an answer that has it is still being sent
//! ```
//!
//! Memory comes in pieces of several blocks and is used again: little of it, so that it stays in the CPU's cache, until
//! somebody asks for a block that was let go a while ago. Then the bound grows, up to what may be used. All memory together
//! stays within it, except while everything in it is being sent or read. Locked by its owner, and never across a read.

use super::BLOCK_BYTES;
use reactor::Buffer;
use reactor::mailbox::{Answer, Reply, oneshot};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Blocks whose memory is asked for at once: a huge page.
const PIECE_BLOCKS: usize = 8;
/// What is used as long as nobody misses anything.
const BLOCKS_AT_FIRST: usize = 64;
/// For each block that is missed the bound grows by its room and that of the one it will follow.
const GROWTH_BLOCKS: usize = 2;
/// So many pinned blocks are looked at when memory is needed: a lookup does not grow with their number.
const PINNED_LOOKED_AT: usize = 8;
/// Above this part of the bound pinned blocks are too many.
const PINNED_FRACTION: usize = 4;

pub(super) struct Kept {
    /// It may become this.
    blocks_max: usize,
    /// How much memory is used, in blocks.
    bound: usize,
    /// Blocks that were let go to make room, as many as might be here with all the memory; in order, and to look them up.
    missed: (VecDeque<u64>, BTreeSet<u64>),
    /// By the log offset they start at.
    slots: BTreeMap<u64, Slot>,
    /// Those that are here, oldest first.
    order: VecDeque<u64>,
    pinned: VecDeque<Arc<Buffer>>,
    free: Vec<Buffer>,
    /// Blocks' worth of memory, wherever it is.
    existing: usize,
}

enum Slot {
    Here(Arc<Buffer>),
    /// On its way, with those who wait for it.
    Loading(Vec<Reply<Arc<Buffer>>>),
}

/// What a reader of a block has to do.
pub(super) enum Found {
    Here(Arc<Buffer>),
    Wait(Answer<Arc<Buffer>>),
    Load(Buffer),
}

impl Kept {
    pub fn new(blocks_max: usize) -> Kept {
        Kept {
            blocks_max,
            bound: blocks_max.min(BLOCKS_AT_FIRST),
            missed: Default::default(),
            slots: BTreeMap::new(),
            order: VecDeque::new(),
            pinned: VecDeque::new(),
            free: Vec::new(),
            existing: 0,
        }
    }

    /// The block that starts at `block`, or what to wait for, or memory to read it into: then it is on its way until
    /// `add` or `gave_up`.
    pub fn enter(&mut self, block: u64) -> Found {
        match self.slots.get_mut(&block) {
            Some(Slot::Here(buffer)) => Found::Here(buffer.clone()),
            Some(Slot::Loading(waiting)) => {
                let (reply, answer) = oneshot();
                waiting.push(reply);
                Found::Wait(answer)
            }
            None => {
                self.slots.insert(block, Slot::Loading(Vec::new()));
                if self.missed.1.remove(&block) {
                    self.bound = (self.bound + GROWTH_BLOCKS).min(self.blocks_max);
                }
                Found::Load(self.buffer())
            }
        }
    }

    /// A block that was on its way has come.
    pub fn add(&mut self, block: u64, buffer: &Arc<Buffer>) {
        let was = self.slots.insert(block, Slot::Here(buffer.clone()));
        self.order.push_back(block);
        if let Some(Slot::Loading(waiting)) = was {
            waiting
                .into_iter()
                .for_each(|reply| reply.send(buffer.clone()));
        }
    }

    /// A block that was on its way will not come; those who wait for it are let go. Its memory is lost to us.
    pub fn gave_up(&mut self, block: u64) {
        if matches!(self.slots.get(&block), Some(Slot::Loading(_))) {
            self.slots.remove(&block);
            self.existing -= 1;
        }
    }

    /// The block if it is here.
    pub fn here(&self, block: u64) -> Option<&Arc<Buffer>> {
        match self.slots.get(&block) {
            Some(Slot::Here(buffer)) => Some(buffer),
            _ => None,
        }
    }

    /// Here, or on its way.
    pub fn is_near(&self, block: u64) -> bool {
        self.slots.contains_key(&block)
    }

    /// What was read of it is not used again.
    pub fn forget(&mut self, block: u64) {
        if self.here(block).is_some() {
            self.order.retain(|of| *of != block);
            self.let_go(block);
        }
    }

    /// Answers that nobody takes hold so much memory that no further ones may.
    pub fn is_pinned(&self) -> bool {
        self.pinned.len() > self.blocks_max / PINNED_FRACTION
    }

    fn let_go(&mut self, block: u64) {
        if let Some(Slot::Here(buffer)) = self.slots.remove(&block) {
            self.pinned.push_back(buffer);
        }
    }

    /// Memory for one block.
    fn buffer(&mut self) -> Buffer {
        if self.free.is_empty() {
            self.collect();
        }
        if self.free.is_empty() && self.existing + PIECE_BLOCKS > self.bound {
            while self.free.is_empty()
                && let Some(oldest) = self.order.pop_front()
            {
                self.let_go(oldest);
                self.take_back();
                self.remember(oldest);
            }
        }
        if let Some(buffer) = self.free.pop() {
            return buffer;
        }
        // With room for less than a piece, or with all of it pinned, it is asked for one by one.
        let count = match self.existing + PIECE_BLOCKS <= self.bound {
            true => PIECE_BLOCKS,
            false => 1,
        };
        self.free = Buffer::several(count, BLOCK_BYTES as usize);
        self.existing += count;
        self.free.pop().expect("at least one was made")
    }

    fn remember(&mut self, block: u64) {
        let (order, missed) = &mut self.missed;
        if missed.insert(block) {
            order.push_back(block);
        }
        if order.len() > self.blocks_max
            && let Some(oldest) = order.pop_front()
        {
            missed.remove(&oldest);
        }
    }

    /// Looks whether some of what was pinned has been sent.
    fn collect(&mut self) {
        for _ in 0..self.pinned.len().min(PINNED_LOOKED_AT) {
            let Some(buffer) = self.pinned.pop_front() else {
                return;
            };
            self.pinned.push_back(buffer);
            self.take_back();
        }
    }

    /// Takes back the memory of the block that was pinned last, if nobody has it any more.
    fn take_back(&mut self) {
        let Some(buffer) = self.pinned.pop_back() else {
            return;
        };
        match Arc::try_unwrap(buffer) {
            Ok(buffer) if self.existing <= self.bound => self.free.push(buffer),
            Ok(_) => self.existing -= 1,
            Err(buffer) => self.pinned.push_back(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(kept: &mut Kept, block: u64) -> Arc<Buffer> {
        match kept.enter(block) {
            Found::Here(buffer) => buffer,
            Found::Wait(_) => panic!("nobody else loads here"),
            Found::Load(buffer) => {
                let buffer = Arc::new(buffer);
                kept.add(block, &buffer);
                buffer
            }
        }
    }

    #[test]
    fn the_oldest_block_makes_room_and_its_memory_is_used_again() {
        let mut kept = Kept::new(16);
        for block in 0..100 {
            load(&mut kept, block);
            assert!(kept.existing <= 16);
        }
        assert!(kept.here(99).is_some() && kept.here(84).is_some());
        assert!(!kept.is_near(83) && kept.pinned.is_empty());
    }

    #[test]
    fn one_reader_uses_little_memory_and_one_that_follows_it_as_much_as_it_takes() {
        let mut kept = Kept::new(1_000);
        for block in 0..5_000 {
            load(&mut kept, block);
        }
        assert_eq!(kept.existing, BLOCKS_AT_FIRST);
        let distance = 300;
        let mut missed = Vec::new();
        for block in 5_000..8_000 {
            load(&mut kept, block);
            if !kept.is_near(block - distance) {
                missed.push(block - distance);
            }
            load(&mut kept, block - distance);
        }
        assert!(missed.iter().all(|block| *block < 5_100), "{missed:?}");
        assert!(kept.existing < 800, "{} blocks", kept.existing);
        assert!(kept.missed.0.len() <= 1_000);
    }

    #[test]
    fn memory_that_is_being_sent_is_counted_until_it_was_sent() {
        let mut kept = Kept::new(16);
        let stalled: Vec<_> = (0..40).map(|block| load(&mut kept, block)).collect();
        assert!(kept.is_pinned());
        assert_eq!(kept.existing, 40, "each of them is held by an answer");
        drop(stalled);
        for block in 100..200 {
            load(&mut kept, block);
        }
        assert!(!kept.is_pinned());
        assert!(kept.existing <= 17, "{} are left", kept.existing);
    }

    #[test]
    fn those_who_wait_for_a_block_that_never_comes_are_let_go() {
        let mut kept = Kept::new(4);
        let Found::Load(buffer) = kept.enter(0) else {
            panic!("nothing is here yet");
        };
        let Found::Wait(_answer) = kept.enter(0) else {
            panic!("it is on its way");
        };
        drop(buffer);
        kept.gave_up(0);
        assert!(!kept.is_near(0));
        assert_eq!(kept.existing, 0);
        assert!(matches!(kept.enter(0), Found::Load(_)));
    }

    #[test]
    fn a_forgotten_block_is_read_again() {
        let mut kept = Kept::new(8);
        load(&mut kept, 0);
        kept.forget(0);
        assert!(!kept.is_near(0));
        assert!(matches!(kept.enter(0), Found::Load(_)));
    }
}
