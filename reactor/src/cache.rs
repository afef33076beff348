//! Hints to the processor's cache.

const LINE_BYTES: usize = 64;

/// Asks for `len` bytes from `at` on to be brought closer. Never faults, whatever is there; does nothing where it is not known how.
#[inline]
pub(crate) fn prefetch(at: *const u8, len: usize) {
    for line in (0..len).step_by(LINE_BYTES) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a hint, which touches no memory as far as the program can tell.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(line).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (at, line);
    }
}
