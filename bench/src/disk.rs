//! What the disk itself allows, without a broker: opening files past the page cache, preparing them, and reading them
//! from end to end. Used for the limits that a broker's figures are held against.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, OFlags};

use crate::error::{Error, Result};
use crate::ring::{Aligned, BLOCK_BYTES, Ring};

const CHUNK_BYTES: usize = 1 << 20;
/// Reads and writes of a chunk that are in flight while a whole file is read or written.
const CHUNKS_IN_FLIGHT: usize = 8;

/// How the blocks of a file have been prepared for the writes that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// Written before, as a recycled segment
    Written,
    /// Allocated and never written
    Unwritten,
}

/// Past the page cache; `durable`: every write is on the disk before it ends.
pub fn open_direct(path: &Path, durable: bool) -> io::Result<File> {
    let durable = if durable {
        OFlags::DSYNC
    } else {
        OFlags::empty()
    };
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .custom_flags((OFlags::DIRECT | durable).bits() as i32)
        .open(path)
}

pub fn prepare(path: &Path, bytes: u64, space: Space) -> Result<()> {
    assert!(bytes.is_multiple_of(CHUNK_BYTES as u64));
    let failed = || format!("preparing {}", path.display());
    let file = open_direct(path, false).map_err(Error::io(failed()))?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)
        .map_err(|error| Error::io(failed())(error.into()))?;
    if space == Space::Written {
        write_all(&file, bytes).map_err(Error::io(failed()))?;
    }
    file.sync_all().map_err(Error::io(failed()))
}

fn write_all(file: &File, bytes: u64) -> io::Result<()> {
    let mut ring = Ring::new(CHUNKS_IN_FLIGHT as u32, vec![Aligned::random(CHUNK_BYTES)])?;
    let mut at = 0;
    while at < bytes || ring.in_flight() > 0 {
        while at < bytes && ring.in_flight() < CHUNKS_IN_FLIGHT {
            ring.write(file, 0, CHUNK_BYTES, at, 0)?;
            at += CHUNK_BYTES as u64;
        }
        if ring.next()?.bytes != CHUNK_BYTES {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

/// Bytes that were read and how long it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Throughput {
    pub bytes: u64,
    pub took: Duration,
}

impl Throughput {
    pub fn mib_per_second(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20) / self.took.as_secs_f64().max(f64::EPSILON)
    }
}

/// The rate at which these files are read one after the other past the page cache, at most `bytes_max` of them.
pub fn read_sequentially(paths: &[PathBuf], bytes_max: u64) -> Result<Throughput> {
    let buffers = (0..CHUNKS_IN_FLIGHT)
        .map(|_| Aligned::zeroed(CHUNK_BYTES))
        .collect();
    let mut ring =
        Ring::new(CHUNKS_IN_FLIGHT as u32, buffers).map_err(Error::io("setting up a ring"))?;
    let began = Instant::now();
    let mut bytes = 0;
    for path in paths {
        if bytes >= bytes_max {
            break;
        }
        let read = read_file(&mut ring, path, bytes_max - bytes);
        bytes += read.map_err(Error::io(format!("reading {}", path.display())))?;
    }
    Ok(Throughput {
        bytes,
        took: began.elapsed(),
    })
}

fn read_file(ring: &mut Ring, path: &Path, bytes_max: u64) -> io::Result<u64> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(path)?;
    let end = file.metadata()?.len().min(bytes_max) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    let mut free: Vec<usize> = (0..CHUNKS_IN_FLIGHT).collect();
    let (mut at, mut bytes) = (0, 0);
    while at < end || ring.in_flight() > 0 {
        while at < end
            && let Some(buffer) = free.pop()
        {
            let len = CHUNK_BYTES.min((end - at) as usize);
            ring.read(&file, buffer, len, at, buffer as u64)?;
            at += len as u64;
        }
        let done = ring.next()?;
        bytes += done.bytes as u64;
        free.push(done.token as usize);
    }
    Ok(bytes)
}

/// Bytes that the disk under `folder` has room for.
pub fn free_bytes(folder: &Path) -> Result<u64> {
    let failed = || format!("asking for the room under {}", folder.display());
    let disk = rustix::fs::statvfs(folder).map_err(|error| Error::io(failed())(error.into()))?;
    Ok(disk.f_bavail * disk.f_frsize)
}

/// Refuses to begin what would fill the disk: `bytes` are wanted, and some more must be left for others.
pub fn demand_room(folder: &Path, bytes: u64) -> Result<()> {
    const LEFT_BYTES_MIN: u64 = 2 << 30;
    let free = free_bytes(folder)?;
    if free < bytes + LEFT_BYTES_MIN {
        return Err(Error::Failed(format!(
            "{} has {} GB free; this run fills {} GB and leaves 2: give less, or another folder",
            folder.display(),
            free / 1_000_000_000,
            bytes / 1_000_000_000
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prepared_file_is_read_to_its_end_or_to_the_limit() {
        // Not every temporary folder knows O_DIRECT.
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        if open_direct(&path, true).is_err() || Ring::new(1, Vec::new()).is_err() {
            return;
        }
        let bytes = 3 * CHUNK_BYTES as u64;
        prepare(&path, bytes, Space::Written).expect("room for 3 MiB");
        let whole = read_sequentially(std::slice::from_ref(&path), u64::MAX).expect("readable");
        let part = read_sequentially(&[path.clone(), path], bytes + 4096).expect("readable");
        assert_eq!((whole.bytes, part.bytes), (bytes, bytes + 4096));
    }

    #[test]
    fn too_much_for_the_disk_is_refused_before_it_is_written() {
        let folder = std::env::temp_dir();
        assert!(demand_room(&folder, u64::MAX / 2).is_err());
        assert!(free_bytes(&folder).expect("it is there") > 0);
    }

    #[test]
    fn a_rate_is_bytes_by_seconds() {
        let read = Throughput {
            bytes: 3 << 20,
            took: Duration::from_millis(1500),
        };
        assert_eq!(read.mib_per_second(), 2.0);
    }
}
