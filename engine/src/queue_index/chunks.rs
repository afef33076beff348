//! A growing array whose elements never move, so that readers need no lock.
//!
//! Chunk k holds `FIRST << k` elements; a chunk is allocated zeroed when its first element is asked for and lives
//! as long as the array. Elements are atomics: this room decides where they are, not in which order they are seen.

use crate::config::SEGMENT_BYTES_MAX;
use protocol::record::RECORD_BYTES_MIN;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Elements of the first chunk: most queues have few messages in a segment.
const FIRST: usize = 8;
const CHUNKS_MAX: usize = 22;
/// How many elements fit in all: more than a segment can have records.
pub const CAPACITY: usize = FIRST * ((1 << CHUNKS_MAX) - 1);
const _: () = assert!(CAPACITY as u64 > SEGMENT_BYTES_MAX / RECORD_BYTES_MIN as u64);

/// # Safety
/// All bytes zero must be a valid value, and the type must not need dropping.
pub unsafe trait Zeroed {}

// SAFETY: two atomic integers; zero is a value of each, neither needs dropping.
unsafe impl Zeroed for [AtomicU64; 2] {}
// SAFETY: an atomic pointer may be null and does not own what it points to.
unsafe impl<T> Zeroed for AtomicPtr<T> {}

/// See the module.
pub struct Chunks<T: Zeroed> {
    chunks: [AtomicPtr<T>; CHUNKS_MAX],
}

impl<T: Zeroed> Chunks<T> {
    pub fn new() -> Chunks<T> {
        Chunks {
            chunks: [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS_MAX],
        }
    }

    /// The element, if its chunk is there already.
    pub fn get(&self, index: usize) -> Option<&T> {
        let (chunk, slot) = place(index)?;
        let first = NonNull::new(self.chunks[chunk].load(Ordering::Acquire))?;
        // SAFETY: a chunk has `chunk_len(chunk)` zeroed, valid elements, `slot` is below that, and chunks are
        // freed only when `self` is dropped.
        Some(unsafe { first.add(slot).as_ref() })
    }

    /// The element; its chunk is made if need be.
    pub fn get_or_grow(&self, index: usize) -> &T {
        let (chunk, slot) = place(index).expect("an index below CAPACITY");
        let first = match NonNull::new(self.chunks[chunk].load(Ordering::Acquire)) {
            Some(first) => first,
            None => self.grow(chunk),
        };
        // SAFETY: as in `get`.
        unsafe { first.add(slot).as_ref() }
    }

    #[cold]
    fn grow(&self, chunk: usize) -> NonNull<T> {
        let layout = chunk_layout::<T>(chunk);
        // SAFETY: the layout is not empty: a chunk has at least FIRST elements and T is not zero-sized.
        let fresh = unsafe { alloc_zeroed(layout) }.cast::<T>();
        let Some(fresh) = NonNull::new(fresh) else {
            handle_alloc_error(layout);
        };
        let swapped = self.chunks[chunk].compare_exchange(
            ptr::null_mut(),
            fresh.as_ptr(),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        match swapped {
            Ok(_) => fresh,
            Err(other) => {
                // SAFETY: allocated above with this layout and shown to nobody.
                unsafe { dealloc(fresh.as_ptr().cast(), layout) };
                NonNull::new(other).expect("the exchange failed because the slot was taken")
            }
        }
    }

    /// Bytes of the chunk that the element lies in.
    pub fn chunk_bytes(index: usize) -> usize {
        let (chunk, _) = place(index).expect("an index below CAPACITY");
        chunk_layout::<T>(chunk).size()
    }

    /// Every element of every chunk that is there.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        (0..CHUNKS_MAX).flat_map(move |chunk| {
            let start = chunk_start(chunk);
            let len = match self.chunks[chunk].load(Ordering::Acquire).is_null() {
                true => 0,
                false => chunk_len(chunk),
            };
            (start..start + len).filter_map(move |index| self.get(index))
        })
    }
}

impl<T: Zeroed> Default for Chunks<T> {
    fn default() -> Chunks<T> {
        Chunks::new()
    }
}

impl<T: Zeroed> Drop for Chunks<T> {
    fn drop(&mut self) {
        for (chunk, first) in self.chunks.iter_mut().enumerate() {
            if !first.get_mut().is_null() {
                // SAFETY: allocated by `grow` with this layout; nobody borrows it any more.
                unsafe { dealloc(first.get_mut().cast(), chunk_layout::<T>(chunk)) };
            }
        }
    }
}

fn chunk_len(chunk: usize) -> usize {
    FIRST << chunk
}

fn chunk_start(chunk: usize) -> usize {
    FIRST * ((1 << chunk) - 1)
}

fn chunk_layout<T>(chunk: usize) -> Layout {
    Layout::array::<T>(chunk_len(chunk)).expect("a chunk is far smaller than the address space")
}

/// Which chunk, and which element of it.
fn place(index: usize) -> Option<(usize, usize)> {
    if index >= CAPACITY {
        return None;
    }
    let chunk = (index / FIRST + 1).ilog2() as usize;
    Some((chunk, index - chunk_start(chunk)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_one_place_and_chunks_follow_each_other() {
        let mut expected = (0, 0);
        for index in 0..100_000 {
            assert_eq!(place(index), Some(expected));
            expected.1 += 1;
            if expected.1 == chunk_len(expected.0) {
                expected = (expected.0 + 1, 0);
            }
        }
        assert_eq!(place(CAPACITY), None);
        let last = CHUNKS_MAX - 1;
        assert_eq!(place(CAPACITY - 1), Some((last, chunk_len(last) - 1)));
    }

    #[test]
    fn elements_stay_where_they_are_while_the_array_grows() {
        let chunks: Chunks<[AtomicU64; 2]> = Chunks::new();
        assert!(chunks.get(0).is_none());
        chunks.get_or_grow(3)[0].store(7, Ordering::Relaxed);
        let before = ptr::from_ref(chunks.get_or_grow(3));
        for index in 0..5_000 {
            chunks.get_or_grow(index)[1].store(index as u64, Ordering::Relaxed);
        }
        assert_eq!(ptr::from_ref(chunks.get_or_grow(3)), before);
        assert_eq!(chunks.get_or_grow(3)[0].load(Ordering::Relaxed), 7);
        let seen: Vec<u64> = chunks
            .iter()
            .take(5_000)
            .map(|e| e[1].load(Ordering::Relaxed))
            .collect();
        assert_eq!(seen, (0..5_000).collect::<Vec<u64>>());
    }
}
