//! The window: the newest bytes of the log, in memory that outlives the process where there is such memory.
//!
//! ```text
//!        floor   flushed   on_disk            written       floor + len
//!   ───────┼────────┼─────────┼──────────────────┼───────────────┤
//!   may be   readable here,      readable here,     to be laid
//!   overwritten  and in the file     not in the file yet
//! ```
//!
//! Bytes stay until they are durable: should a sync fail, the next process still has what the disk may have dropped.
//!
//! The byte of log offset `o` lies at `o mod len`. The writer lays records, the flusher writes them to the files,
//! readers copy them out under a pin or send them while they are lent (`pins`). What was laid never changes until the
//! floor has passed it.

mod header;
pub mod names;
mod pins;

pub use header::{HEADER_BYTES, Header, Identity, Left};

use pins::{Pin, Pins};
use reactor::{Lent, LoopedMemory, LoopedPart};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What goes to the disk goes in blocks of this size, at multiples of it.
pub const BLOCK_BYTES: u64 = 4096;
/// The floor is raised by at least this fraction of the window, so that this is not done for every record.
const STEP_FRACTION: u64 = 16;
/// So much has its memory when the store opens, and the rest gets it in steps: on a fresh machine a page takes 10 us.
const RESERVED_FIRST_BYTES: u64 = 8 << 20;
const RESERVE_STEP_BYTES: u64 = 2 << 20; // a large page

/// The start of the block that holds `offset`.
#[inline]
pub fn block_of(offset: u64) -> u64 {
    offset / BLOCK_BYTES * BLOCK_BYTES
}

/// Block by block, which compares fast.
pub fn is_zero(bytes: &[u8]) -> bool {
    static ZERO: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];
    bytes
        .chunks(ZERO.len())
        .all(|block| block == &ZERO[..block.len()])
}

/// Shared by all cores: one writes, any read.
pub struct Window {
    memory: Arc<LoopedMemory>,
    header: Header,
    pins: Pins,
    /// The memory's name, by which the next process finds it.
    path: Option<PathBuf>,
    /// What lies behind has no memory yet: stored by the writer's core only.
    reserved_to: AtomicU64,
    begun_at: AtomicU64,
}

/// Bytes of the log that stay while they are looked at.
pub struct Pinned<'a> {
    window: &'a Window,
    from: u64,
    _pin: Pin<'a>,
}

/// The same for an answer that is handed on at once.
pub struct Loan {
    window: Arc<Window>,
    from: u64,
    loan: pins::Loan,
}

impl Window {
    pub fn new(memory: Arc<LoopedMemory>, path: Option<PathBuf>) -> Window {
        assert!(memory.len().is_power_of_two(), "so that places are cheap");
        Window {
            header: Header::new(memory.clone()),
            memory,
            pins: Pins::new(pins::SLOTS),
            path,
            reserved_to: AtomicU64::new(0),
            begun_at: AtomicU64::new(0),
        }
    }

    /// Goes on at the end of the log. `block` is the beginning of the block the end lies in, up to the end.
    pub fn begin(&self, identity: &Identity, end: u64, block: &[u8]) -> io::Result<()> {
        let start = end - block.len() as u64;
        assert_eq!(start, block_of(end), "the tail's block");
        self.reserve_first(start)?;
        self.header.give_up();
        self.pins.reset(start);
        // SAFETY: nobody reads or writes the log yet.
        unsafe { self.memory.bytes_mut(self.place(start), block.len()) }.copy_from_slice(block);
        self.header.begin(identity, start, end);
        Ok(())
    }

    /// Enough to begin with; the rest follows while the log grows. Blocks.
    fn reserve_first(&self, start: u64) -> io::Result<()> {
        self.begun_at.store(start, Ordering::Relaxed);
        self.reserved_to.store(start, Ordering::Relaxed);
        while let Some(step) = self.next_to_reserve()
            && step.start < start + RESERVED_FIRST_BYTES
        {
            self.reserve(&step)?;
            self.reserved(step);
        }
        Ok(())
    }

    /// What is to get its memory next, in the order the log comes to it; `None` if all has it.
    pub fn next_to_reserve(&self) -> Option<Range<u64>> {
        let from = self.reserved_to.load(Ordering::Relaxed);
        let end = self.begun_at.load(Ordering::Relaxed) + self.bytes();
        let step = self.bytes().min(RESERVE_STEP_BYTES);
        let step_end = (from / step + 1) * step;
        (from < end).then(|| from..end.min(step_end))
    }

    /// Blocks.
    pub fn reserve(&self, range: &Range<u64>) -> io::Result<()> {
        let len = (range.end - range.start) as usize;
        self.memory.reserve(self.place(range.start), len)
    }

    /// The writer's core says so.
    pub fn reserved(&self, range: Range<u64>) {
        let before = self.reserved_to.swap(range.end, Ordering::Relaxed);
        assert_eq!(before, range.start, "one after the other");
    }

    /// What a killed process left in it, or why that cannot be used.
    pub fn left(&self, identity: &Identity) -> Result<Left, &'static str> {
        self.header.left(identity)
    }

    /// Nothing in it is needed any more: everything is in the files. Blocks.
    pub fn give_up(&self) -> io::Result<()> {
        self.header.give_up();
        match &self.path {
            Some(path) => LoopedMemory::remove(path),
            None => Ok(()),
        }
    }

    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    pub fn outlives_process(&self) -> bool {
        self.path.is_some()
    }

    pub fn memory(&self) -> &Arc<LoopedMemory> {
        &self.memory
    }

    pub fn bytes(&self) -> u64 {
        self.memory.len() as u64
    }

    /// The longest record that can be laid.
    pub fn record_bytes_max(&self) -> u64 {
        self.memory.piece_bytes_max() as u64 - BLOCK_BYTES
    }

    pub fn floor(&self) -> u64 {
        self.pins.floor()
    }

    #[inline]
    fn place(&self, offset: u64) -> usize {
        (offset & (self.bytes() - 1)) as usize
    }

    /// Makes room up to `wanted` and some more, if what is in the way is durable and nobody reads it. Returns how
    /// far may be laid now. The writer's alone.
    pub fn make_room(&self, wanted: u64, durable: u64) -> u64 {
        let floor = self.pins.floor();
        let ample = wanted + self.bytes() / STEP_FRACTION;
        let new = ample
            .saturating_sub(self.bytes())
            .min(block_of(durable))
            .max(floor);
        if new > floor {
            self.header.set_start(new);
        }
        let room = self.pins.raise_floor(new) + self.bytes();
        match self.next_to_reserve() {
            Some(missing) => room.min(missing.start),
            None => room,
        }
    }

    /// Everything laid is durable, and the log goes on at `at`, the start of a block further on. The writer's alone.
    pub fn go_on_at(&self, at: u64) {
        assert_eq!(at, block_of(at), "a segment starts there");
        assert!(self.next_to_reserve().is_none(), "it has all its memory");
        self.header.go_on_at(at);
        self.pins.raise_floor(at);
    }

    /// Puts a record's bytes into their place. The writer's alone, below what `make_room` returned.
    #[inline]
    pub fn lay(&self, at: u64, bytes: &[u8]) {
        debug_assert!(at + bytes.len() as u64 <= self.floor() + self.bytes());
        // SAFETY: above `written`, so no reader looks there, nor below the floor; and only the writer lays.
        let target = unsafe { self.memory.bytes_mut(self.place(at), bytes.len()) };
        target.copy_from_slice(bytes);
    }

    /// The same with zeros, any number of them.
    pub fn lay_zeros(&self, at: u64, len: u64) {
        let end = at + len;
        let mut at = at;
        while at < end {
            let step = (end - at).min(self.memory.piece_bytes_max() as u64);
            // SAFETY: as in `lay`.
            unsafe { self.memory.bytes_mut(self.place(at), step as usize) }.fill(0);
            at += step;
        }
    }

    /// Everything below is whole. The writer's alone.
    #[inline]
    pub fn publish_written(&self, written: u64) {
        self.header.set_written(written);
    }

    #[inline]
    pub fn publish_on_disk(&self, on_disk: u64) {
        self.header.set_on_disk(on_disk);
    }

    /// Keeps everything from `from` on in place for a moment; `None` if it may be gone. What is read through it lies
    /// below an end of the log that the caller has seen published.
    #[inline]
    pub fn pin(&self, from: u64) -> Option<Pinned<'_>> {
        Some(Pinned {
            _pin: self.pins.pin(from)?,
            window: self,
            from,
        })
    }

    /// As `pin`, until the answer that the loan is put into has left. A thread gets a few at once.
    #[inline]
    pub fn lend(self: &Arc<Window>, from: u64) -> Option<Loan> {
        Some(Loan {
            loan: self.pins.lend(from)?,
            window: self.clone(),
            from,
        })
    }

    /// Bytes of the log behind what somebody has pinned or borrowed.
    #[inline]
    fn held_bytes(&self, from: u64, at: u64, len: usize) -> &[u8] {
        assert!(at >= from, "what lies before the pin may be gone");
        // SAFETY: laid before the end the caller has seen, and the pin keeps the writer away.
        unsafe { self.memory.bytes(self.place(at), len) }
    }

    /// Brings bytes of the log into the cache of this core; a hint.
    #[inline]
    pub fn prefetch(&self, at: u64, len: usize) {
        self.memory.prefetch(self.place(at), len);
    }

    /// Copies what was laid and is not on disk yet. The flusher's alone.
    pub fn copy_laid(&self, from: u64, into: &mut [u8]) {
        // SAFETY: laid and not on disk: neither changed nor overwritten before it is.
        let bytes = unsafe { self.memory.bytes(self.place(from), into.len()) };
        into.copy_from_slice(bytes);
    }

    /// As much as lies together wherever it begins, in whole blocks.
    pub fn write_bytes_max(&self) -> u64 {
        block_of(self.memory.piece_bytes_max() as u64)
    }

    /// Where whole blocks of the log lie.
    pub fn part(&self, from: u64, len: u64) -> LoopedPart {
        LoopedPart {
            offset: self.place(from),
            len: len as usize,
        }
    }
}

impl Pinned<'_> {
    /// Bytes of the log from the pin on, up to a piece at once.
    #[inline]
    pub fn bytes(&self, at: u64, len: usize) -> &[u8] {
        self.window.held_bytes(self.from, at, len)
    }

    pub fn piece_bytes_max(&self) -> usize {
        self.window.memory.piece_bytes_max()
    }
}

impl Lent for Loan {
    /// Bytes of the log, by their log offset; from the loan's on, up to a piece at once.
    #[inline]
    fn bytes(&self, at: u64, len: usize) -> &[u8] {
        self.window.held_bytes(self.from, at, len)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.window.pins.take_back(&self.loan);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 64 << 10;
    const IDENTITY: Identity = Identity {
        store: [1; 16],
        boot: [2; 16],
        segment_bytes: 1 << 20,
        generation: 1,
    };

    fn window(end: u64, block: &[u8]) -> Window {
        let memory = LoopedMemory::anonymous(LEN as usize, HEADER_BYTES).expect("a little memory");
        let window = Window::new(Arc::new(memory), None);
        window
            .begin(&IDENTITY, end, block)
            .expect("a little memory");
        window
    }

    #[test]
    fn room_is_what_is_on_disk_and_not_being_read() {
        let window = window(3 * LEN + 5000, &[7; 904]);
        let start = 3 * LEN + 4096;
        assert_eq!(window.make_room(start + 100, start), start + LEN);
        assert_eq!(window.make_room(start + LEN + 1, start), start + LEN);
        let pin = window.pin(start + 904).expect("it is there");
        let on_disk = start + LEN / 2;
        let room = window.make_room(start + LEN + 10_000, on_disk);
        assert_eq!(room, start + 904 + LEN, "the pin holds");
        drop(pin);
        let room = window.make_room(start + LEN + 10_000, on_disk);
        assert!(room >= start + LEN + 10_000 && room < on_disk + LEN);
        assert!(window.pin(start + 904).is_none(), "it is gone");
    }

    #[test]
    fn what_is_lent_stays_until_it_is_given_back() {
        let window = Arc::new(window(3 * LEN, &[]));
        let start = 3 * LEN;
        window.lay(start, b"record");
        let loan = window.lend(start).expect("it is there");
        let wanted = start + LEN + 10_000;
        assert_eq!(window.make_room(wanted, start + LEN / 2), start + LEN);
        assert_eq!(loan.bytes(start, 6), b"record");
        drop(loan);
        assert!(window.make_room(wanted, start + LEN / 2) >= wanted);
        assert!(window.lend(start).is_none(), "it is gone");
    }

    #[test]
    fn a_record_is_contiguous_wherever_the_ring_ends() {
        let end = 8 * LEN - 4096;
        let window = window(end, &[]);
        let record: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
        let room = window.make_room(end + 10_000, end);
        assert!(room >= end + 10_000);
        window.lay(end, &record);
        let pinned = window.pin(end).expect("it is there");
        assert_eq!(pinned.bytes(end, 10_000), record);
        window.lay_zeros(end, 10_000);
        let mut copy = vec![1; 4096];
        window.copy_laid(end + 4096, &mut copy);
        assert!(copy.iter().all(|byte| *byte == 0));
    }
}
