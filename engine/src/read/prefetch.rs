//! Memory that was just filled by the disk is in no cache of this CPU. Asking for a record's bytes while the one before it
//! is being checked hides most of the wait.

/// Of long records the beginning is enough: behind it the CPU sees by itself where this goes.
const BYTES_MAX: usize = 2048;
const LINE_BYTES: usize = 64;

/// Only a hint; without one on this kind of CPU nothing happens.
#[inline]
pub(super) fn prefetch(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(BYTES_MAX)];
    for line in bytes.chunks(LINE_BYTES) {
        prefetch_line(line.as_ptr());
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn prefetch_line(line: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch changes nothing and never faults, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn prefetch_line(_line: *const u8) {}
