//! Files of the real file system: blocking calls for start-up, ring operations for everything else.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue};

use super::io_result;
use super::op::Keep;
use crate::buffer::{ALIGNMENT_BYTES, Buffer};
use crate::core;
use crate::file::{LoopedPart, OpenOptions};
use crate::looped_memory::LoopedMemory;
use crate::mapping::Mapping;

/// One entry moves at most this much, a multiple of every block size: the kernel's own bound is just below 2 GiB.
const BYTES_PER_CALL_MAX: usize = 1 << 30;
/// Zeros are written so many at a time.
const ZEROS_BYTES: usize = 1 << 20;

/// A write from looped memory, and what it needs until the kernel is done.
pub(super) struct LoopedWrite {
    #[allow(dead_code)] // held, never read
    memory: Arc<LoopedMemory>,
    tail: Option<Buffer>,
    /// What is left to be written.
    rest: [libc::iovec; 2],
}

/// Send and Sync. Not tied to a ring: each operation runs on the ring of the core that starts it.
pub(crate) struct File(Arc<fs::File>);

impl File {
    pub(crate) fn open(path: &Path, options: OpenOptions) -> io::Result<File> {
        let mut flags = 0;
        if options.direct {
            flags |= libc::O_DIRECT;
        }
        if options.dsync {
            flags |= libc::O_DSYNC;
        }
        let file = fs::OpenOptions::new()
            .read(options.read)
            .write(options.write)
            .create(options.create)
            .truncate(options.truncate)
            .custom_flags(flags)
            .open(path)?;
        Ok(File(Arc::new(file)))
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    pub(crate) fn allocate(&self, len: u64) -> io::Result<()> {
        let len = i64::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        loop {
            // SAFETY: the descriptor is open.
            if unsafe { libc::fallocate(self.fd(), 0, 0, len) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EOPNOTSUPP) => return self.fill_with_zeros(len as u64),
                _ => return Err(error),
            }
        }
    }

    pub(crate) fn give_back(&self, offset: u64, len: u64) -> io::Result<()> {
        let signed =
            |bytes| i64::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let (offset, len) = (signed(offset)?, signed(len)?);
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        loop {
            // SAFETY: the descriptor is open.
            if unsafe { libc::fallocate(self.fd(), mode, offset, len) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINTR) {
                return Err(error);
            }
        }
    }

    /// Where nothing can be preallocated: a hole would be a promise, and a store into its mapping a SIGBUS once the
    /// disk is full.
    fn fill_with_zeros(&self, len: u64) -> io::Result<()> {
        let zeros = vec![0; ZEROS_BYTES];
        let mut at = self.len()?;
        while at < len {
            let step = (len - at).min(ZEROS_BYTES as u64);
            self.write_all_at_blocking(&zeros[..step as usize], at)?;
            at += step;
        }
        Ok(())
    }

    pub(crate) fn read_exact_at_blocking(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    pub(crate) fn write_all_at_blocking(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    pub(crate) fn sync_blocking(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    pub(crate) fn map(&self, len: usize) -> io::Result<Mapping> {
        Mapping::of_file(self.0.as_fd(), len)
    }

    pub(crate) async fn read_at(
        &self,
        mut buffer: Buffer,
        offset: u64,
        len: usize,
    ) -> (io::Result<usize>, Buffer) {
        buffer.set_len(len);
        let mut read = 0;
        while read < len {
            let rest = &mut buffer[read..];
            let asked = rest.len().min(BYTES_PER_CALL_MAX);
            let entry = opcode::Read::new(Fd(self.fd()), rest.as_mut_ptr(), asked as u32)
                .offset(offset + read as u64)
                .build();
            let (result, returned) = self.run(entry, buffer).await;
            buffer = returned;
            match io_result(result) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(count) => {
                    read += count;
                    if count < asked {
                        break;
                    }
                }
                Err(error) => {
                    buffer.clear();
                    return (Err(error), buffer);
                }
            }
        }
        buffer.set_len(read);
        (Ok(read), buffer)
    }

    pub(crate) async fn write_at(
        &self,
        mut buffer: Buffer,
        offset: u64,
    ) -> (io::Result<usize>, Buffer) {
        let mut written = 0;
        while written < buffer.len() {
            let rest = &buffer[written..];
            let len = rest.len().min(BYTES_PER_CALL_MAX) as u32;
            let entry = opcode::Write::new(Fd(self.fd()), rest.as_ptr(), len)
                .offset(offset + written as u64)
                .build();
            let (result, returned) = self.run(entry, buffer).await;
            buffer = returned;
            match io_result(result) {
                Ok(0) => return (Err(io::Error::from(io::ErrorKind::WriteZero)), buffer),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (Err(error), buffer),
            }
        }
        (Ok(written), buffer)
    }

    pub(crate) async fn write_looped_at(
        &self,
        memory: &Arc<LoopedMemory>,
        part: LoopedPart,
        tail: Option<Buffer>,
        offset: u64,
        durable: bool,
    ) -> (io::Result<()>, Option<Buffer>) {
        // SAFETY: only the address is taken here; who writes to these bytes meanwhile is the caller's promise.
        let bytes = unsafe { memory.bytes(part.offset, part.len) };
        let mut write = Box::new(LoopedWrite {
            rest: [iovec(bytes), iovec(tail.as_deref().unwrap_or_default())],
            memory: memory.clone(),
            tail,
        });
        let mut offset = offset;
        // Somebody waits for what has to be durable.
        let _hurry = durable.then(|| core::ring().hurry());
        let outcome = loop {
            let vectors = write.rest.as_ptr();
            let (skipped, count) = match write.rest.map(|part| part.iov_len > 0) {
                [true, true] => (0, 2),
                [true, false] => (0, 1),
                [false, true] => (1, 1),
                [false, false] => break Ok(()),
            };
            let entry = opcode::Writev::new(Fd(self.fd()), vectors.wrapping_add(skipped), count)
                .offset(offset)
                .rw_flags(if durable { libc::RWF_DSYNC } else { 0 })
                .build();
            let keep = Keep::Looped(self.0.clone(), write);
            let (result, keep) = core::ring().start(keep, entry).await;
            let Keep::Looped(_, returned) = keep else {
                unreachable!("a write gives back what it kept");
            };
            write = returned;
            match io_result(result) {
                // Direct writes go on at a whole block: what is written twice is the same.
                Ok(count) if count >= ALIGNMENT_BYTES => {
                    let whole = count / ALIGNMENT_BYTES * ALIGNMENT_BYTES;
                    advance(&mut write.rest, whole);
                    offset += whole as u64;
                }
                Ok(_) => break Err(io::Error::from(io::ErrorKind::WriteZero)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        (outcome, write.tail)
    }

    pub(crate) async fn sync_data(&self) -> io::Result<()> {
        let entry = opcode::Fsync::new(Fd(self.fd()))
            .flags(FsyncFlags::DATASYNC)
            .build();
        // Not repeated after an error, whatever it is: a failed sync is never retried into a success.
        let (result, _file) = core::ring().start(Keep::File(self.0.clone()), entry).await;
        io_result(result).map(drop)
    }

    async fn run(&self, entry: squeue::Entry, buffer: Buffer) -> (i32, Buffer) {
        let keep = Keep::Buffer(self.0.clone(), buffer);
        let (result, keep) = core::ring().start(keep, entry).await;
        let Keep::Buffer(_, buffer) = keep else {
            unreachable!("a file operation gives its buffer back");
        };
        (result, buffer)
    }

    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}

fn advance(rest: &mut [libc::iovec; 2], mut written: usize) {
    for part in rest {
        let done = written.min(part.iov_len);
        // SAFETY: stays inside the part, or at its end.
        part.iov_base = unsafe { part.iov_base.cast::<u8>().add(done) }.cast();
        part.iov_len -= done;
        written -= done;
    }
}
