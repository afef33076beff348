//! Memory aligned for direct disk I/O: 4 KiB, zeroed once at creation. Buffers come one by one, or several in one piece
//! that the kernel may keep in huge pages: it then looks up one page for a read where it would look up hundreds.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

pub(crate) const ALIGNMENT_BYTES: usize = 4096;
/// Pieces for several buffers start on a boundary of this size.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A fixed-capacity, 4 KiB-aligned byte buffer. Dereferences to its first `len` bytes.
pub struct Buffer {
    /// Dangling if the capacity is zero.
    start: NonNull<u8>,
    len: usize,
    capacity: usize,
    /// The piece it is a part of; none if its memory is its own.
    piece: Option<Arc<Piece>>,
}

// SAFETY: the buffer owns its memory like a Vec<u8> does, alone or as one of the parts of a piece, which do not overlap.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A buffer of length zero that holds at least `capacity` bytes, rounded up to the alignment.
    pub fn with_capacity(capacity: usize) -> Buffer {
        let capacity = capacity
            .checked_next_multiple_of(ALIGNMENT_BYTES)
            .expect("a buffer's size fits the address space");
        let start = if capacity == 0 {
            NonNull::dangling()
        } else {
            let layout = layout_of(capacity);
            // SAFETY: the layout's size is not zero.
            NonNull::new(unsafe { alloc_zeroed(layout) })
                .unwrap_or_else(|| handle_alloc_error(layout))
        };
        Buffer {
            start,
            len: 0,
            capacity,
            piece: None,
        }
    }

    /// So many buffers of length zero that hold `capacity` bytes each, all in one piece of memory. The piece is given
    /// back with the last of them.
    pub fn several(count: usize, capacity: usize) -> Vec<Buffer> {
        assert!(
            capacity > 0 && capacity.is_multiple_of(ALIGNMENT_BYTES),
            "parts of a piece are aligned as well"
        );
        let bytes = count
            .checked_mul(capacity)
            .expect("buffers fit the address space");
        let Some(piece) = Piece::map(bytes) else {
            return (0..count)
                .map(|_| Buffer::with_capacity(capacity))
                .collect();
        };
        let piece = Arc::new(piece);
        let part = |number: usize| Buffer {
            // SAFETY: `number < count`, so all of the part lies inside the piece.
            start: unsafe { piece.start.add(number * capacity) },
            len: 0,
            capacity,
            piece: Some(piece.clone()),
        };
        (0..count).map(part).collect()
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The bytes gained are what was there before: zero, or what was last written or read.
    pub fn set_len(&mut self, len: usize) {
        assert!(
            len <= self.capacity,
            "a buffer's length is at most its capacity"
        );
        self.len = len;
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }
}

/// Anonymous memory, zeroed, aligned for huge pages.
struct Piece {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: plain memory; who may touch which part of it is the business of the buffers, which do not overlap.
unsafe impl Send for Piece {}
// SAFETY: as above.
unsafe impl Sync for Piece {}

impl Piece {
    /// None: there is no room for it.
    fn map(bytes: usize) -> Option<Piece> {
        if bytes == 0 {
            return None;
        }
        let reserved = bytes.checked_add(HUGE_PAGE_BYTES)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new memory at an address the kernel chooses; the result is checked.
        let found = unsafe { libc::mmap(ptr::null_mut(), reserved, protection, flags, -1, 0) };
        if found == libc::MAP_FAILED {
            return None;
        }
        let skipped = found.addr().next_multiple_of(HUGE_PAGE_BYTES) - found.addr();
        let start = found.cast::<u8>().wrapping_add(skipped);
        let end = start.wrapping_add(bytes);
        // SAFETY: whole pages of the memory mapped above, before and behind the part that is kept, which nobody uses yet.
        // Advice that is not taken changes nothing.
        unsafe {
            if skipped > 0 {
                libc::munmap(found, skipped);
            }
            libc::munmap(end.cast(), HUGE_PAGE_BYTES - skipped);
            libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE);
        }
        let start = NonNull::new(start).expect("the kernel maps nothing at address zero");
        Some(Piece { start, bytes })
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: mapped in `map`; the last buffer in it is gone.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

fn layout_of(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, ALIGNMENT_BYTES)
        .expect("a buffer's size fits the address space")
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the first `capacity` >= `len` bytes are ours and were initialised at creation.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.capacity > 0 && self.piece.is_none() {
            // SAFETY: allocated in `with_capacity` with this layout.
            unsafe { dealloc(self.start.as_ptr(), layout_of(self.capacity)) };
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("len", &self.len)
            .field("capacity", &self.capacity)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_rounded_up_and_zeroed() {
        let mut buffer = Buffer::with_capacity(5000);
        assert_eq!(buffer.capacity(), 8192);
        assert_eq!(buffer.as_ptr() as usize % ALIGNMENT_BYTES, 0);
        assert!(buffer.is_empty());
        buffer.set_len(8192);
        assert!(buffer.iter().all(|&byte| byte == 0));
        buffer[4999] = 7;
        buffer.clear();
        buffer.set_len(5000);
        assert_eq!(buffer[4999], 7);
        drop(Buffer::with_capacity(0));
    }

    #[test]
    fn several_buffers_share_a_piece_and_no_byte() {
        let mut buffers = Buffer::several(5, 8192);
        for (number, buffer) in buffers.iter_mut().enumerate() {
            assert_eq!((buffer.capacity(), buffer.len()), (8192, 0));
            assert_eq!(buffer.as_ptr() as usize % ALIGNMENT_BYTES, 0);
            buffer.set_len(8192);
            assert!(buffer.iter().all(|&byte| byte == 0));
            buffer.fill(number as u8 + 1);
        }
        let kept = buffers.split_off(3);
        drop(buffers);
        for (number, buffer) in kept.iter().enumerate() {
            assert!(buffer.iter().all(|&byte| byte == number as u8 + 4));
        }
        assert!(Buffer::several(0, 4096).is_empty());
    }

    #[test]
    #[should_panic(expected = "at most its capacity")]
    fn a_length_beyond_the_capacity_is_refused() {
        Buffer::with_capacity(1).set_len(4097);
    }
}
