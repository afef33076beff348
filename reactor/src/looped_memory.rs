//! Memory that is followed by its own beginning: a ring that has no seam for whoever reads or writes a piece of it. Behind
//! the ring its first quarter is mapped once more, so pieces may be that long. It is shared memory: with a name in a memory file system it outlives the process, and the next one finds
//! it. A head of some pages, mapped apart, says what is in it; its content is its user's business.
//!
//! ```text
//!   file     | ring, `len` bytes | head |
//!   memory   | ring | its first quarter again |     | head |
//! ```

use std::ffi::CString;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::buffer::ALIGNMENT_BYTES;
use crate::cache;
use crate::core;
use crate::driver::sim;

/// Mappings start at multiples of this, so that the kernel can use pages of this size.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Who was refused so many large pages gets small ones without asking: each time the kernel has looked for some ms.
const HUGE_PAGES_REFUSED_MAX: u32 = 16;
/// How much of the ring is mapped again behind it.
const OVERHANG_FRACTION: usize = 4;

/// Send and Sync: what may be read or written when is agreed by its users (see `bytes` and `bytes_mut`).
pub struct LoopedMemory {
    start: NonNull<u8>,
    len: usize,
    /// With the overhang.
    mapped: usize,
    head: NonNull<u8>,
    head_bytes: usize,
    huge_pages_refused: AtomicU32,
    /// Locked, if the memory has a name: it is one process's at a time.
    file: OwnedFd,
}

// SAFETY: plain shared memory that any thread may reach; access goes through unsafe functions with their own rules.
unsafe impl Send for LoopedMemory {}
// SAFETY: as above.
unsafe impl Sync for LoopedMemory {}

impl fmt::Debug for LoopedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoopedMemory({} bytes)", self.len)
    }
}

impl LoopedMemory {
    /// New memory with a name, zeroed. Replaces what had the name before. What is to be used is brought in with
    /// `reserve`. Refused if there is no space for all of it now. Blocks.
    pub fn create(path: &Path, len: usize, head_bytes: usize) -> io::Result<LoopedMemory> {
        check_sizes(len, head_bytes);
        let fd = match core::sim() {
            Some(core) => {
                let fd = memory_file(len + head_bytes)?;
                sim::fs::keep_memory(&core, path, fd.try_clone()?)?;
                fd
            }
            None => create_file(path, len, head_bytes)?,
        };
        LoopedMemory::map(fd, len, head_bytes)
    }

    /// The memory another process left under this name; `None` if there is none. `WouldBlock` if
    /// somebody has it, `PermissionDenied` if it is not this user's alone. Blocks.
    pub fn find(path: &Path, head_bytes: usize) -> io::Result<Option<LoopedMemory>> {
        let found = match core::sim() {
            Some(core) => sim::fs::find_memory(&core, path)?,
            None => find_file(path)?,
        };
        let Some((fd, bytes)) = found else {
            return Ok(None);
        };
        let len = bytes.saturating_sub(head_bytes);
        if len == 0 || !len.is_multiple_of(ALIGNMENT_BYTES) {
            return Ok(None);
        }
        LoopedMemory::map(fd, len, head_bytes).map(Some)
    }

    /// How much lies under this name that no process has, its head included; `None` if there is none or somebody has it.
    /// Changes nothing. Blocks.
    pub fn idle_bytes(path: &Path) -> io::Result<Option<u64>> {
        let found = match core::sim() {
            Some(core) => sim::fs::find_memory(&core, path),
            None => find_file(path),
        };
        match found {
            Ok(found) => Ok(found.map(|(_, bytes)| bytes as u64)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Memory without a name: it ends with the process. Blocks.
    pub fn anonymous(len: usize, head_bytes: usize) -> io::Result<LoopedMemory> {
        check_sizes(len, head_bytes);
        let fd = memory_file(len + head_bytes)?;
        LoopedMemory::map(fd, len, head_bytes)
    }

    /// Takes the name away; the memory is given back when its last user is gone. Blocks.
    pub fn remove(path: &Path) -> io::Result<()> {
        let removed = match core::sim() {
            Some(core) => sim::fs::remove_memory(&core, path),
            None => fs::remove_file(path),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Why memory in this directory would not outlive the process; `None` if it would. Blocks.
    pub fn lost_in(directory: &Path) -> Option<String> {
        match core::sim() {
            Some(_) => None,
            None => match file_system_magic(directory) {
                Err(error) => Some(error.to_string()),
                Ok(libc::TMPFS_MAGIC) => None,
                Ok(_) => Some("it is not on a memory file system".to_owned()),
            },
        }
    }

    fn map(fd: OwnedFd, len: usize, head_bytes: usize) -> io::Result<LoopedMemory> {
        let overhang = overhang(len);
        let mapped_bytes = len + overhang;
        let reserved = mapped_bytes + HUGE_PAGE_BYTES;
        let nowhere = ptr::null_mut();
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let area = map(nowhere, reserved, libc::PROT_NONE, kind, -1, 0)?;
        let skipped = area.align_offset(HUGE_PAGE_BYTES);
        // SAFETY: `reserved` has room for the alignment, and all addresses stay inside the area.
        let (start, behind) = unsafe { (area.add(skipped), area.add(skipped + mapped_bytes)) };
        unmap(area, skipped);
        unmap(behind, HUGE_PAGE_BYTES - skipped);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let over = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: inside the area.
        let again = unsafe { start.add(len) };
        let mapped = map(start, len, access, over, fd.as_raw_fd(), 0)
            .and_then(|_| map(again, overhang, access, over, fd.as_raw_fd(), 0))
            .and_then(|_| {
                let shared = libc::MAP_SHARED;
                map(nowhere, head_bytes, access, shared, fd.as_raw_fd(), len)
            });
        let head = mapped.inspect_err(|_| unmap(start, mapped_bytes))?;
        let not_null = "the kernel maps nothing at address zero";
        Ok(LoopedMemory {
            start: NonNull::new(start).expect(not_null),
            len,
            mapped: mapped_bytes,
            head: NonNull::new(head).expect(not_null),
            head_bytes,
            huge_pages_refused: AtomicU32::new(0),
            file: fd,
        })
    }

    /// Bytes of the ring, once.
    #[allow(clippy::len_without_is_empty)] // empty memory does not exist
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Pieces up to this length are contiguous, wherever they begin.
    pub fn piece_bytes_max(&self) -> usize {
        self.mapped - self.len
    }

    /// Bytes from `offset` on, across the ring's end if need be.
    ///
    /// # Safety
    /// Nobody writes to these bytes while the slice lives.
    #[inline]
    pub unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        self.check(offset, len);
        // SAFETY: the range lies inside the mappings; the caller keeps writers away.
        unsafe { slice::from_raw_parts(self.start.as_ptr().add(offset), len) }
    }

    /// Brings bytes into the cache of this core; a hint.
    #[inline]
    pub fn prefetch(&self, offset: usize, len: usize) {
        self.check(offset, len);
        cache::prefetch(self.start.as_ptr().wrapping_add(offset), len);
    }

    /// # Safety
    /// Nobody else reads or writes these bytes while the slice lives.
    #[allow(clippy::mut_from_ref)] // one writer and its readers share the memory; they agree on ranges
    #[inline]
    pub unsafe fn bytes_mut(&self, offset: usize, len: usize) -> &mut [u8] {
        self.check(offset, len);
        // SAFETY: the range lies inside the mappings; the caller has it to itself.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr().add(offset), len) }
    }

    /// The head's first byte; the head is aligned to a page.
    pub fn head(&self) -> NonNull<u8> {
        self.head
    }

    pub fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    /// Brings the pages of a range of the ring into memory, as large ones where the kernel has them: using them costs no
    /// fault then, and cannot fail. What shares a large page with the range may come as well. Blocks, some 10 us a page on a
    /// machine that has not used its memory yet.
    pub fn reserve(&self, offset: usize, len: usize) -> io::Result<()> {
        assert!(offset + len <= self.len, "a range of the ring, once");
        let from = offset / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
        let to = (offset + len).next_multiple_of(HUGE_PAGE_BYTES);
        for at in (from..to.min(self.len)).step_by(HUGE_PAGE_BYTES) {
            self.reserve_large(at)?;
        }
        allocate(&self.file, offset, len)?;
        self.populate(offset, len)?;
        // The part of it that is mapped again.
        let again = (self.mapped - self.len).saturating_sub(offset).min(len);
        self.populate(self.len + offset, again)
    }

    /// One large page, if the kernel has one. Only asked for outright (Linux 6.1) does it come on every memory file system:
    /// advice is heard only where the mount says `huge=advise`.
    fn reserve_large(&self, at: usize) -> io::Result<()> {
        let refused = self.huge_pages_refused.load(Ordering::Relaxed);
        if at + HUGE_PAGE_BYTES > self.len || refused >= HUGE_PAGES_REFUSED_MAX {
            return Ok(());
        }
        // The kernel takes nothing for no page: it wants to find one at least.
        allocate(&self.file, at, ALIGNMENT_BYTES)?;
        if let Err(error) = self.advise(at, HUGE_PAGE_BYTES, libc::MADV_COLLAPSE) {
            let unknown = error.raw_os_error() == Some(libc::EINVAL);
            let refused = if unknown {
                HUGE_PAGES_REFUSED_MAX
            } else {
                refused + 1
            };
            self.huge_pages_refused.store(refused, Ordering::Relaxed);
            tracing::debug!(%error, refused, "no large page for shared memory");
        }
        Ok(())
    }

    fn populate(&self, offset: usize, len: usize) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match self.advise(offset, len, libc::MADV_POPULATE_WRITE) {
            // Kernels before 5.14 do not know it: then the first lap pays.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other,
        }
    }

    /// Keeps the pages from being swapped out, as far as this process may lock memory. Blocks.
    pub fn lock(&self) -> io::Result<()> {
        // SAFETY: our own mapping; locking changes no content.
        match unsafe { libc::mlock(self.start.as_ptr().cast(), self.len) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn advise(&self, offset: usize, len: usize, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: whole pages of our own mappings; none of the advices used changes what their bytes are.
        match unsafe { libc::madvise(self.start.as_ptr().add(offset).cast(), len, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    #[inline]
    fn check(&self, offset: usize, len: usize) {
        assert!(
            offset < self.len && len <= self.mapped - offset,
            "{len} bytes at {offset} lie outside a ring of {}",
            self.len
        );
    }
}

impl Drop for LoopedMemory {
    fn drop(&mut self) {
        unmap(self.start.as_ptr(), self.mapped);
        unmap(self.head.as_ptr(), self.head_bytes);
    }
}

fn overhang(len: usize) -> usize {
    (len / OVERHANG_FRACTION).next_multiple_of(ALIGNMENT_BYTES)
}

fn check_sizes(len: usize, head_bytes: usize) {
    let whole = |bytes: usize| bytes > 0 && bytes.is_multiple_of(ALIGNMENT_BYTES);
    assert!(whole(len) && whole(head_bytes), "memory in whole pages");
}

fn map(
    at: *mut u8,
    len: usize,
    access: libc::c_int,
    kind: libc::c_int,
    fd: libc::c_int,
    offset: usize,
) -> io::Result<*mut u8> {
    // SAFETY: either at an address the kernel chooses, or over a reservation of ours.
    let start = unsafe { libc::mmap(at.cast(), len, access, kind, fd, offset as libc::off_t) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(start.cast())
}

fn unmap(start: *mut u8, len: usize) {
    if len > 0 {
        // SAFETY: mapped by us with this length; nothing borrows from it any more.
        unsafe { libc::munmap(start.cast(), len) };
    }
}

/// A file of memory without a name.
fn memory_file(bytes: usize) -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"window".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let file = fs::File::from(fd);
    file.set_len(bytes as u64)?;
    Ok(file.into())
}

fn create_file(path: &Path, len: usize, head_bytes: usize) -> io::Result<OwnedFd> {
    LoopedMemory::remove(path)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    if crate::fs::free_bytes(directory)? < (len + head_bytes) as u64 {
        return Err(io::Error::from_raw_os_error(libc::ENOSPC));
    }
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    lock_file(&file)?;
    file.set_len((len + head_bytes) as u64)?;
    let fd = OwnedFd::from(file);
    allocate(&fd, len, head_bytes).inspect_err(|_| {
        // Nothing is in it.
        let _ = fs::remove_file(path);
    })?;
    Ok(fd)
}

/// Gives a range its memory.
fn allocate(fd: &OwnedFd, offset: usize, len: usize) -> io::Result<()> {
    let (offset, len) = (offset as libc::off_t, len as libc::off_t);
    loop {
        // SAFETY: the descriptor is open.
        if unsafe { libc::fallocate(fd.as_raw_fd(), 0, offset, len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Only a plain file that is this user's alone can hold what this user's process left.
fn find_file(path: &Path) -> io::Result<Option<(OwnedFd, usize)>> {
    let opened = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    // SAFETY: plain query.
    let user = unsafe { libc::geteuid() };
    let own = metadata.uid() == user || user == 0;
    if !own || !metadata.is_file() || metadata.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is not a file of this user alone",
        ));
    }
    lock_file(&file)?;
    let bytes = usize::try_from(metadata.len()).map_err(io::Error::other)?;
    Ok(Some((file.into(), bytes)))
}

fn lock_file(file: &fs::File) -> io::Result<()> {
    // SAFETY: flock only takes the descriptor, which is open.
    match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn file_system_magic(directory: &Path) -> io::Result<libc::c_long> {
    use std::os::unix::ffi::OsStrExt;
    let path = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: an all-zero statfs is a valid value of plain integers.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a C string and the structure lives through the call.
    match unsafe { libc::statfs(path.as_ptr(), &mut found) } {
        0 => Ok(found.f_type),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 64 << 10;
    const HEAD: usize = 4096;

    #[test]
    fn the_ring_has_no_seam() {
        let memory = LoopedMemory::anonymous(LEN, HEAD).unwrap();
        memory.reserve(0, LEN / 2).unwrap();
        memory.reserve(LEN / 2, LEN / 2).unwrap();
        // SAFETY: nobody else uses the memory.
        unsafe { memory.bytes_mut(LEN - 3, 6) }.copy_from_slice(b"abcdef");
        // SAFETY: as above.
        let (end, start) = unsafe { (memory.bytes(LEN - 3, 3), memory.bytes(0, 3)) };
        assert_eq!((end, start), (b"abc".as_slice(), b"def".as_slice()));
    }

    #[test]
    fn large_pages_are_asked_for_and_keep_what_is_there() {
        let len = 2 * HUGE_PAGE_BYTES;
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = directory.path().join("memory");
        let memory = LoopedMemory::create(&path, len, HEAD).unwrap();
        // A page of the first half is in use before the half gets its memory.
        // SAFETY: nobody else uses the memory.
        unsafe { memory.bytes_mut(HEAD, 3) }.copy_from_slice(b"abc");
        memory.reserve(3 * HEAD, HEAD).unwrap();
        memory.reserve(HUGE_PAGE_BYTES, HUGE_PAGE_BYTES).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { memory.bytes(HEAD, 3) }, b"abc");
        match memory.huge_pages_refused.load(Ordering::Relaxed) {
            0 => assert_eq!(large_kib(&path), len / 1024),
            refused => eprintln!("not looked at: {refused} large pages refused"),
        }
    }

    /// How much of what this process has of a file it has in large pages.
    fn large_kib(path: &Path) -> usize {
        let name = path.to_str().unwrap();
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines();
        let mut sum = 0;
        while lines.any(|line| line.ends_with(name)) {
            let figure = lines.find_map(|line| line.strip_prefix("ShmemPmdMapped:"));
            let kib = figure.unwrap().trim().strip_suffix(" kB").unwrap();
            sum += kib.parse::<usize>().unwrap();
        }
        sum
    }

    #[test]
    fn what_has_a_name_is_found_again_and_only_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("memory");
        assert!(LoopedMemory::find(&path, HEAD).unwrap().is_none());
        let memory = LoopedMemory::create(&path, LEN, HEAD).unwrap();
        // SAFETY: nobody else uses the memory.
        unsafe { memory.bytes_mut(LEN - 1, 2) }.copy_from_slice(b"ab");
        // SAFETY: the head is a page of ours.
        unsafe { memory.head().write(7) };
        drop(memory);
        let memory = LoopedMemory::find(&path, HEAD)
            .unwrap()
            .expect("it was left");
        assert_eq!(memory.len(), LEN);
        // SAFETY: nobody else uses the memory.
        assert_eq!(unsafe { memory.bytes(0, 1) }, b"b");
        // SAFETY: the head is a page of ours.
        assert_eq!(unsafe { memory.head().read() }, 7);
        LoopedMemory::remove(&path).unwrap();
        LoopedMemory::remove(&path).unwrap();
        assert!(LoopedMemory::find(&path, HEAD).unwrap().is_none());
    }

    #[test]
    fn a_file_that_others_may_write_is_not_ours() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("memory");
        drop(LoopedMemory::create(&path, LEN, HEAD).unwrap());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let found = LoopedMemory::find(&path, HEAD).unwrap_err();
        assert_eq!(found.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn memory_that_somebody_has_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("memory");
        let held = LoopedMemory::create(&path, LEN, HEAD).unwrap();
        let found = LoopedMemory::find(&path, HEAD).unwrap_err();
        assert_eq!(found.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        assert!(LoopedMemory::find(&path, HEAD).unwrap().is_some());
    }

    #[test]
    #[should_panic(expected = "lie outside a ring")]
    fn more_than_the_ring_is_refused() {
        let memory = LoopedMemory::anonymous(LEN, HEAD).unwrap();
        // SAFETY: nobody else uses the memory.
        let _ = unsafe { memory.bytes(LEN - 1, memory.piece_bytes_max() + 2) };
    }
}
