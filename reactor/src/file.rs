//! Files. Opening, growing and mapping block, so they belong to start-up or to `offload`; reads, writes and syncs that
//! are awaited go through the core's driver.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::buffer::Buffer;
use crate::core;
use crate::driver::{ring, sim};
use crate::looped_memory::LoopedMemory;
use crate::mapping::Mapping;

/// How to open a file. `direct` bypasses the page cache: buffers, offsets and lengths are then multiples of 4 KiB.
/// `dsync` makes every write durable by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenOptions {
    pub read: bool,
    pub write: bool,
    pub create: bool,
    pub truncate: bool,
    pub direct: bool,
    pub dsync: bool,
}

/// Bytes of looped memory. Its length may be zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoopedPart {
    pub offset: usize,
    pub len: usize,
}

/// The disk answered, and said that it cannot read this, or that what it read is damaged.
pub fn is_of_medium(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::ENODATA | libc::EBADMSG | libc::EILSEQ | libc::EREMOTEIO)
    )
}

/// Send and Sync; share it with Arc. Closed when the last owner and the last operation are done.
pub struct File(Body);

enum Body {
    Real(ring::File),
    Sim(sim::File),
}

impl File {
    /// Blocks.
    pub fn open(path: &Path, options: OpenOptions) -> io::Result<File> {
        match core::sim() {
            Some(core) => sim::File::open(&core, path, options).map(|file| File(Body::Sim(file))),
            None => ring::File::open(path, options).map(|file| File(Body::Real(file))),
        }
    }

    #[allow(clippy::len_without_is_empty)] // asks the file system; not a collection
    pub fn len(&self) -> io::Result<u64> {
        match &self.0 {
            Body::Real(file) => file.len(),
            Body::Sim(file) => file.len(),
        }
    }

    /// Blocks.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        match &self.0 {
            Body::Real(file) => file.set_len(len),
            Body::Sim(file) => file.set_len(len),
        }
    }

    /// Reserves disk space up to `len` and grows the file to it. Blocks.
    pub fn allocate(&self, len: u64) -> io::Result<()> {
        match &self.0 {
            Body::Real(file) => file.allocate(len),
            Body::Sim(file) => file.allocate(len),
        }
    }

    /// Gives the disk space of `len` bytes from `offset` on back; they read as zeros then, and the file stays as long as it is.
    /// Blocks.
    ///
    /// # Errors
    /// `Unsupported` where the file system cannot do that.
    pub fn give_back(&self, offset: u64, len: u64) -> io::Result<()> {
        match &self.0 {
            Body::Real(file) => file.give_back(offset, len),
            // The simulated disk counts files, not blocks, and nobody reads what is given back.
            Body::Sim(_) => Ok(()),
        }
    }

    /// Blocks.
    pub fn read_exact_at_blocking(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.0 {
            Body::Real(file) => file.read_exact_at_blocking(bytes, offset),
            Body::Sim(file) => file.read_exact_at_blocking(bytes, offset),
        }
    }

    /// Blocks.
    pub fn write_all_at_blocking(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match &self.0 {
            Body::Real(file) => file.write_all_at_blocking(bytes, offset),
            Body::Sim(file) => file.write_all_at_blocking(bytes, offset),
        }
    }

    /// Makes content and size durable. Blocks.
    pub fn sync_blocking(&self) -> io::Result<()> {
        match &self.0 {
            Body::Real(file) => file.sync_blocking(),
            Body::Sim(file) => file.sync_blocking(),
        }
    }

    /// Maps the first `len` bytes, shared and writable. Blocks.
    pub fn map(&self, len: usize) -> io::Result<Mapping> {
        match &self.0 {
            Body::Real(file) => file.map(len),
            Body::Sim(file) => file.map(len).map(Mapping::of_sim),
        }
    }

    /// Reads up to `len` bytes into the buffer, whose length becomes what was read: fewer only at the end of the file.
    pub async fn read_at(
        &self,
        buffer: Buffer,
        offset: u64,
        len: usize,
    ) -> (io::Result<usize>, Buffer) {
        assert!(len <= buffer.capacity(), "a read fits its buffer");
        match &self.0 {
            Body::Real(file) => file.read_at(buffer, offset, len).await,
            Body::Sim(file) => file.read_at(buffer, offset, len).await,
        }
    }

    /// Writes the buffer's bytes, all of them unless an error ends it.
    pub async fn write_at(&self, buffer: Buffer, offset: u64) -> (io::Result<usize>, Buffer) {
        match &self.0 {
            Body::Real(file) => file.write_at(buffer, offset).await,
            Body::Sim(file) => file.write_at(buffer, offset).await,
        }
    }

    /// Writes bytes of looped memory, nothing copied, and then those of `tail`, all as one piece. `durable`: when this
    /// resumes, they survive a power cut, as if the file had been opened with `dsync`. Nobody changes the bytes
    /// meanwhile, not even after the future was dropped: the kernel may still read them.
    pub async fn write_looped_at(
        &self,
        memory: &Arc<LoopedMemory>,
        part: LoopedPart,
        tail: Option<Buffer>,
        offset: u64,
        durable: bool,
    ) -> (io::Result<()>, Option<Buffer>) {
        match &self.0 {
            Body::Real(file) => {
                file.write_looped_at(memory, part, tail, offset, durable)
                    .await
            }
            Body::Sim(file) => {
                file.write_looped_at(memory, part, tail, offset, durable)
                    .await
            }
        }
    }

    /// Makes what was written durable (fdatasync).
    pub async fn sync_data(&self) -> io::Result<()> {
        match &self.0 {
            Body::Real(file) => file.sync_data().await,
            Body::Sim(file) => file.sync_data().await,
        }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("File")
    }
}
