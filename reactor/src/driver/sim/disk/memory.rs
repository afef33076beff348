//! The memory behind a simulated file: reserved once at its greatest size, so that mappings stay where they are while
//! the file grows, and zero until touched, so that large sparse files cost nothing.

use std::{io, ptr::NonNull, slice};

pub(super) const PAGE_BYTES: usize = 4096;
/// No simulated file is larger. Only addresses are taken, not memory.
pub(super) const FILE_BYTES_MAX: u64 = 2 << 30;
const RESERVED_BYTES: usize = FILE_BYTES_MAX as usize;

pub(super) type Page = [u8; PAGE_BYTES];

pub(super) struct Memory(NonNull<u8>);

// SAFETY: plain memory. A world runs on one thread, and mappings carry their own rules (see `Mapping`).
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    pub(super) fn reserve() -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel likes touches no memory of ours; the result is checked.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                RESERVED_BYTES,
                protection,
                kind,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Huge pages would make one touched byte cost two megabytes. Refused where the kernel has none: just as well.
        // SAFETY: the range was mapped just now; the advice changes no content.
        unsafe { libc::madvise(start, RESERVED_BYTES, libc::MADV_NOHUGEPAGE) };
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at address zero");
        Ok(Self(start))
    }

    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr()
    }

    pub(super) fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        check(offset, len);
        // SAFETY: inside the reservation, which lives as long as `self`. Everything in a world runs on one thread and no
        // slice outlives the call that made it, so nobody writes meanwhile.
        unsafe { slice::from_raw_parts(self.as_ptr().add(offset as usize), len) }
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) {
        check(offset, bytes.len());
        // SAFETY: the target lies inside the reservation. `bytes` may itself lie in a mapping of this file: hence a copy
        // that allows overlap.
        unsafe {
            std::ptr::copy(
                bytes.as_ptr(),
                self.as_ptr().add(offset as usize),
                bytes.len(),
            );
        }
    }

    pub(super) fn page(&self, number: u64) -> &Page {
        let bytes = self.bytes(number * PAGE_BYTES as u64, PAGE_BYTES);
        bytes.try_into().expect("as long as a page")
    }

    /// Zeroes everything from `start` to `end`, giving whole pages back.
    pub(super) fn zero(&self, start: u64, end: u64) {
        let whole = start.next_multiple_of(PAGE_BYTES as u64);
        let partial = (whole.min(end) - start.min(end)) as usize;
        if partial > 0 {
            self.write(start, &[0; PAGE_BYTES][..partial]);
        }
        if whole < end {
            let len = (end - whole).next_multiple_of(PAGE_BYTES as u64) as usize;
            check(whole, len);
            // SAFETY: whole pages of the reservation; private anonymous pages read as zero after this.
            let answer = unsafe {
                let start = self.as_ptr().add(whole as usize);
                libc::madvise(start.cast(), len, libc::MADV_DONTNEED)
            };
            assert_eq!(answer, 0, "giving back anonymous memory does not fail");
        }
    }

    /// The pages below `end` that have memory, and so may have been written. A page that is swapped out is not among
    /// them; one written since the last look is too fresh for that.
    pub(super) fn touched(&self, end: u64) -> Vec<u64> {
        let len = (end as usize).next_multiple_of(PAGE_BYTES);
        check(0, len);
        let mut present = vec![0u8; len / PAGE_BYTES];
        // SAFETY: the range is mapped and the vector has a byte for each of its pages.
        let answer = unsafe { libc::mincore(self.as_ptr().cast(), len, present.as_mut_ptr()) };
        assert_eq!(answer, 0, "asking about our own memory does not fail");
        (0u64..)
            .zip(&present)
            .filter(|(_, flags)| **flags & 1 == 1)
            .map(|(page, _)| page)
            .collect()
    }
}

fn check(offset: u64, len: usize) {
    let inside = offset
        .checked_add(len as u64)
        .is_some_and(|end| end <= FILE_BYTES_MAX);
    assert!(
        inside,
        "{len} bytes at {offset} lie outside the largest file"
    );
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped in `reserve` with this length, and nobody else has it any more.
        unsafe { libc::munmap(self.as_ptr().cast(), RESERVED_BYTES) };
    }
}
