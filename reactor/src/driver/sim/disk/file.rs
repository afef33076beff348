//! An open simulated file, and a mapping of one.

use std::{
    io::{self, ErrorKind},
    path::Path,
    rc::Rc,
    sync::Arc,
};

use super::{Disk, content::Inode};
use crate::{
    buffer::{ALIGNMENT_BYTES, Buffer},
    driver::sim::{Core, fs::normal},
    file::{LoopedPart, OpenOptions},
    looped_memory::LoopedMemory,
    timer::sleep,
};

pub(crate) struct File {
    disk: Arc<Disk>,
    inode: Arc<Inode>,
    options: OpenOptions,
}

/// The page cache of a file, where it lies.
pub(crate) struct Mapping {
    inode: Arc<Inode>,
    len: usize,
}

impl File {
    pub(crate) fn open(core: &Rc<Core>, path: &Path, options: OpenOptions) -> io::Result<Self> {
        let disk = core.disk.clone();
        let inode = disk.with(|state| {
            let path = normal(path);
            let inode = if options.create {
                state.find_or_create(&path)?
            } else {
                state.find(&path)?
            };
            if options.truncate {
                inode.set_len(0)?;
            }
            Ok(inode)
        })?;
        Ok(Self {
            disk,
            inode,
            options,
        })
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.inode.len())
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        self.require(self.options.write)?;
        self.disk.with(|_| self.inode.set_len(len))
    }

    pub(crate) fn allocate(&self, len: u64) -> io::Result<()> {
        self.require(self.options.write)?;
        self.disk.with(|state| {
            state.reserve(&self.inode, len)?;
            self.inode.set_len(len.max(self.inode.len()))
        })
    }

    pub(crate) fn read_exact_at_blocking(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let count = self.read(bytes, offset)?;
        if count < bytes.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    pub(crate) fn write_all_at_blocking(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write(bytes, offset)?;
        if self.options.dsync {
            self.disk.with(|state| {
                let snapshot = state.begin_sync(&self.inode);
                state.end_sync(&self.inode, snapshot.within(offset, bytes.len() as u64))
            })?;
        }
        Ok(())
    }

    pub(crate) fn sync_blocking(&self) -> io::Result<()> {
        self.disk.with(|state| {
            let snapshot = state.begin_sync(&self.inode);
            state.end_sync(&self.inode, snapshot)
        })
    }

    pub(crate) fn map(&self, len: usize) -> io::Result<Mapping> {
        self.require(self.options.read && self.options.write)?;
        if len == 0 || len as u64 > self.inode.len() {
            // A real mapping beyond the end kills the process at the first touch.
            return Err(ErrorKind::InvalidInput.into());
        }
        self.inode.set_mapped();
        Ok(Mapping {
            inode: self.inode.clone(),
            len,
        })
    }

    pub(crate) async fn read_at(
        &self,
        mut buffer: Buffer,
        offset: u64,
        len: usize,
    ) -> (io::Result<usize>, Buffer) {
        self.wait().await;
        buffer.set_len(len);
        let read = self.read(&mut buffer, offset);
        buffer.set_len(*read.as_ref().unwrap_or(&0));
        (read, buffer)
    }

    pub(crate) async fn write_at(
        &self,
        buffer: Buffer,
        offset: u64,
    ) -> (io::Result<usize>, Buffer) {
        let written = if self.options.direct {
            let bytes = buffer.to_vec();
            self.write_direct(bytes, offset, self.options.dsync).await
        } else {
            self.write_and_wait(&buffer, offset).await
        };
        (written.map(|()| buffer.len()), buffer)
    }

    pub(crate) async fn write_looped_at(
        &self,
        memory: &Arc<LoopedMemory>,
        part: LoopedPart,
        tail: Option<Buffer>,
        offset: u64,
        durable: bool,
    ) -> (io::Result<()>, Option<Buffer>) {
        let bytes = || {
            // SAFETY: the caller promises that nobody changes these bytes, and the slice does not outlive this call.
            let mut bytes = unsafe { memory.bytes(part.offset, part.len) }.to_vec();
            bytes.extend_from_slice(tail.as_deref().unwrap_or_default());
            bytes
        };
        let begun = bytes();
        let written = self.write_direct(begun.clone(), offset, durable).await;
        assert!(
            begun == bytes(),
            "the bytes at {offset} changed while they were being written"
        );
        (written, tail)
    }

    async fn write_direct(&self, bytes: Vec<u8>, offset: u64, durable: bool) -> io::Result<()> {
        self.require(self.options.write)?;
        self.require_aligned(bytes.len(), offset)?;
        let number = self
            .disk
            .with(|state| state.begin_direct(&self.inode, bytes, offset, durable))?;
        self.wait().await;
        self.disk.with(|state| state.end_direct(number))
    }

    /// The bytes are in the cache at once, like those of a process killed in the middle: what waits is the answer.
    async fn write_and_wait(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write(bytes, offset)?;
        let snapshot = if self.options.dsync {
            Some(self.disk.with(|state| Ok(state.begin_sync(&self.inode)))?)
        } else {
            None
        };
        self.wait().await;
        if let Some(snapshot) = snapshot {
            let snapshot = snapshot.within(offset, bytes.len() as u64);
            self.disk
                .with(|state| state.end_sync(&self.inode, snapshot))?;
        }
        Ok(())
    }

    pub(crate) async fn sync_data(&self) -> io::Result<()> {
        let snapshot = self.disk.with(|state| Ok(state.begin_sync(&self.inode)))?;
        self.wait().await;
        self.disk
            .with(|state| state.end_sync(&self.inode, snapshot))
    }

    fn read(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.require(self.options.read)?;
        self.require_aligned(into.len(), offset)?;
        self.disk
            .with(|state| state.read(&self.inode, into, offset, self.options.direct))
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.require(self.options.write)?;
        self.require_aligned(bytes.len(), offset)?;
        self.disk
            .with(|state| state.write(&self.inode, bytes, offset))
    }

    /// As long as the disk takes for one operation.
    async fn wait(&self) {
        let core = crate::core::sim().expect("simulated files are used on cores of their world");
        sleep(core.shared.disk_delay()).await;
    }

    fn require(&self, permitted: bool) -> io::Result<()> {
        if permitted {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::EBADF))
        }
    }

    fn require_aligned(&self, len: usize, offset: u64) -> io::Result<()> {
        let aligned =
            len.is_multiple_of(ALIGNMENT_BYTES) && offset.is_multiple_of(ALIGNMENT_BYTES as u64);
        if self.options.direct && !aligned {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(())
    }
}

impl Mapping {
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.inode.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn populate(&self, offset: usize, len: usize) -> io::Result<()> {
        self.inode.populate(offset as u64, len as u64);
        Ok(())
    }

    pub(crate) fn dont_need(&self, offset: usize, len: usize) -> io::Result<()> {
        self.inode.make_cold(offset as u64, len as u64);
        Ok(())
    }

    pub(crate) fn resident(&self, offset: usize, len: usize) -> bool {
        self.inode.is_warm(offset as u64, len as u64)
    }
}
