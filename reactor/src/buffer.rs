//! Memory aligned for direct disk I/O: 4 KiB, zeroed once at creation.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

pub(crate) const ALIGNMENT_BYTES: usize = 4096;

/// A fixed-capacity, 4 KiB-aligned byte buffer. Dereferences to its first `len` bytes.
pub struct Buffer {
    /// Dangling if the capacity is zero.
    start: NonNull<u8>,
    len: usize,
    capacity: usize,
}

// SAFETY: the buffer owns its memory like a Vec<u8> does.
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
        }
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
        if self.capacity > 0 {
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
    #[should_panic(expected = "at most its capacity")]
    fn a_length_beyond_the_capacity_is_refused() {
        Buffer::with_capacity(1).set_len(4097);
    }
}
