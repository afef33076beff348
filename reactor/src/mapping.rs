//! A file's bytes in memory, shared and writable. Unmapped on drop. On a ring it is a real mapping, in the simulation
//! memory of the simulated disk.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::slice;
use std::sync::OnceLock;

use crate::cache;
use crate::driver::sim;

/// Send and Sync: what may be read or written when is agreed by its users (see `bytes` and `bytes_mut`).
pub struct Mapping(Body);

enum Body {
    Real(Mapped),
    Sim(sim::Mapping),
}

struct Mapped {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is plain memory that any thread may reach; access goes through unsafe functions with their own rules.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} bytes)", self.len())
    }
}

impl Mapping {
    pub(crate) fn of_file(file: BorrowedFd<'_>, len: usize) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address the kernel chooses touches no memory of ours; the result is checked.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at address zero");
        Ok(Mapping(Body::Real(Mapped { start, len })))
    }

    pub(crate) fn of_sim(mapping: sim::Mapping) -> Mapping {
        Mapping(Body::Sim(mapping))
    }

    #[allow(clippy::len_without_is_empty)] // an empty mapping does not exist
    pub fn len(&self) -> usize {
        match &self.0 {
            Body::Real(mapped) => mapped.len,
            Body::Sim(mapping) => mapping.len(),
        }
    }

    pub fn as_ptr(&self) -> *mut u8 {
        match &self.0 {
            Body::Real(mapped) => mapped.start.as_ptr(),
            Body::Sim(mapping) => mapping.as_ptr(),
        }
    }

    /// # Safety
    /// Nobody writes to these bytes while the slice lives.
    pub unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        self.check(offset, len);
        // SAFETY: the range lies inside the mapping; the caller keeps writers away.
        unsafe { slice::from_raw_parts(self.as_ptr().add(offset), len) }
    }

    /// Brings bytes into the cache of this core; a hint.
    #[inline]
    pub fn prefetch(&self, offset: usize, len: usize) {
        self.check(offset, len);
        cache::prefetch(self.as_ptr().wrapping_add(offset), len);
    }

    /// # Safety
    /// Nobody else reads or writes these bytes while the slice lives.
    #[allow(clippy::mut_from_ref)] // one writer and its readers share a mapping; they agree on ranges
    pub unsafe fn bytes_mut(&self, offset: usize, len: usize) -> &mut [u8] {
        self.check(offset, len);
        // SAFETY: the range lies inside the mapping; the caller has it to itself.
        unsafe { slice::from_raw_parts_mut(self.as_ptr().add(offset), len) }
    }

    /// Brings the pages of a range into memory, writable, so that touching them later costs no fault. Blocks.
    pub fn populate(&self, offset: usize, len: usize) -> io::Result<()> {
        self.check(offset, len);
        match &self.0 {
            Body::Real(mapped) => mapped.populate(offset, len),
            Body::Sim(mapping) => mapping.populate(offset, len),
        }
    }

    /// Tells the kernel that the pages are not needed soon; their content stays in the file. Blocks.
    pub fn dont_need(&self, offset: usize, len: usize) -> io::Result<()> {
        self.check(offset, len);
        match &self.0 {
            Body::Real(mapped) => mapped.advise(offset, len, libc::MADV_DONTNEED),
            Body::Sim(mapping) => mapping.dont_need(offset, len),
        }
    }

    /// Asks for the file's pages in pieces as large as the processor maps at once, where the file system can: fewer faults and
    /// less to write-protect at each sync. A wish; without effect elsewhere.
    pub fn prefer_huge_pages(&self) {
        if let Body::Real(mapped) = &self.0
            && let Err(error) = mapped.advise(0, self.len(), libc::MADV_HUGEPAGE)
        {
            tracing::debug!(%error, "this kernel has no huge pages for files");
        }
    }

    /// Whether reading the whole range would touch no disk, as far as the kernel can tell now.
    pub fn resident(&self, offset: usize, len: usize) -> bool {
        self.check(offset, len);
        match &self.0 {
            Body::Real(mapped) => mapped.resident(offset, len),
            Body::Sim(mapping) => mapping.resident(offset, len),
        }
    }

    fn check(&self, offset: usize, len: usize) {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len());
        assert!(
            inside,
            "{len} bytes at {offset} lie outside a mapping of {}",
            self.len()
        );
    }
}

/// The size of the machine's pages: 4 KiB, or up to 64 KiB on ARM.
fn page_bytes() -> usize {
    static PAGE_BYTES: OnceLock<usize> = OnceLock::new();
    *PAGE_BYTES.get_or_init(|| {
        // SAFETY: plain query.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(bytes).expect("every system has a page size")
    })
}

/// Residency is asked in steps of this many pages, so that the answer fits on the stack.
const RESIDENT_STEP_PAGES: usize = 256;

impl Mapped {
    /// The range widened to whole pages.
    fn pages(&self, offset: usize, len: usize) -> (usize, usize) {
        let first = offset / page_bytes() * page_bytes();
        let end = (offset + len).next_multiple_of(page_bytes());
        (first, end - first)
    }

    fn populate(&self, offset: usize, len: usize) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match self.advise(offset, len, libc::MADV_POPULATE_WRITE) {
            // Kernels before 5.14 do not know it: touch every page without changing it.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                for at in (offset..offset + len).step_by(page_bytes()) {
                    // SAFETY: inside the mapping. An atomic addition of zero writes the page but changes no byte,
                    // whoever else writes to it.
                    let byte = unsafe {
                        std::sync::atomic::AtomicU8::from_ptr(self.start.as_ptr().add(at))
                    };
                    byte.fetch_add(0, std::sync::atomic::Ordering::Relaxed);
                }
                Ok(())
            }
            other => other,
        }
    }

    fn advise(&self, offset: usize, len: usize, advice: libc::c_int) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let (first, bytes) = self.pages(offset, len);
        // SAFETY: whole pages of our own mapping; none of the advices used changes what the file's bytes are.
        let answer = unsafe { libc::madvise(self.start.as_ptr().add(first).cast(), bytes, advice) };
        if answer == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn resident(&self, offset: usize, len: usize) -> bool {
        if len == 0 {
            return true;
        }
        let (first, bytes) = self.pages(offset, len);
        let mut flags = [0u8; RESIDENT_STEP_PAGES];
        let step_bytes = RESIDENT_STEP_PAGES * page_bytes();
        (first..first + bytes).step_by(step_bytes).all(|at| {
            let step = step_bytes.min(first + bytes - at);
            // SAFETY: whole pages of our own mapping; one flag per page fits the array.
            let answer = unsafe {
                libc::mincore(self.start.as_ptr().add(at).cast(), step, flags.as_mut_ptr())
            };
            answer == 0
                && flags[..step / page_bytes()]
                    .iter()
                    .all(|flag| flag & 1 == 1)
        })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length; nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
