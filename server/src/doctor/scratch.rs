//! A temporary file on the store's disk: what it costs to make something durable there, and to write much.
//!
//! The file has no name (O_TMPFILE), so nobody meets it and it is gone when this process is. The store's own files
//! are never opened.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;

const BLOCK_BYTES: usize = 4096;
const CHUNK_BYTES: usize = 1 << 20;
const FILE_BYTES: u64 = 64 << 20;
/// Nothing is written where less than this is free.
const FREE_BYTES_MIN: u64 = 1 << 30;
const SYNCS: usize = 200;
/// A slow disk is known as such after so long.
const PHASE_MAX: Duration = Duration::from_secs(2);

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    pub direct: bool,
    /// O_DSYNC writes of 4 KiB over space that has been written before, one after another.
    pub sync_p50_us: u64,
    pub sync_p99_us: u64,
    pub sequential_bytes_per_s: u64,
}

#[derive(Debug)]
pub enum Unmeasured {
    /// The disk is nearly full; that is said elsewhere.
    NoRoom,
    Io(io::Error),
}

impl From<io::Error> for Unmeasured {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub fn measure(dir: &Path) -> Result<Speed, Unmeasured> {
    let space = statvfs(dir).map_err(io::Error::from)?;
    if space.f_bavail * space.f_frsize < FREE_BYTES_MIN {
        return Err(Unmeasured::NoRoom);
    }
    let buffer = Aligned::new();
    let (file, direct) = open(dir, 0, buffer.chunk())?;
    let (written, took) = write_sequentially(&file, buffer.chunk())?;
    let syncing = reopen(&file, direct)?;
    let mut syncs_us = sync_blocks(&syncing, buffer.block(), written)?;
    syncs_us.sort_unstable();
    let at = |share: usize| syncs_us[(syncs_us.len() - 1) * share / 100];
    Ok(Speed {
        direct,
        sync_p50_us: at(50),
        sync_p99_us: at(99),
        sequential_bytes_per_s: (written as f64 / took.as_secs_f64().max(1e-9)) as u64,
    })
}

/// Direct where the file system can; some open with O_DIRECT and refuse the first write.
fn open(dir: &Path, flags: i32, chunk: &[u8]) -> io::Result<(File, bool)> {
    let open = |flags| {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.custom_flags(libc::O_TMPFILE | flags).open(dir)
    };
    let tried = open(flags | libc::O_DIRECT).and_then(|file| {
        file.write_all_at(chunk, 0)?;
        Ok(file)
    });
    match tried {
        Ok(file) => Ok((file, true)),
        Err(_) => Ok((open(flags)?, false)),
    }
}

/// The same file once more, with every write durable by itself.
fn reopen(file: &File, direct: bool) -> io::Result<File> {
    use std::os::fd::AsRawFd;
    let flags = libc::O_DSYNC | if direct { libc::O_DIRECT } else { 0 };
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(path)
}

/// Writes up to the file's size, or for as long as a phase may take; then syncs, which counts.
fn write_sequentially(file: &File, chunk: &[u8]) -> io::Result<(u64, Duration)> {
    let start = Instant::now();
    let mut written = 0;
    while written < FILE_BYTES && start.elapsed() < PHASE_MAX {
        file.write_all_at(chunk, written)?;
        written += chunk.len() as u64;
    }
    file.sync_data()?;
    Ok((written, start.elapsed()))
}

/// Microseconds of each write; one at least.
fn sync_blocks(file: &File, block: &[u8], file_bytes: u64) -> io::Result<Vec<u64>> {
    let start = Instant::now();
    let mut took_us = Vec::with_capacity(SYNCS);
    let mut at = 0;
    while took_us.len() < SYNCS && (took_us.is_empty() || start.elapsed() < PHASE_MAX) {
        let began = Instant::now();
        file.write_all_at(block, at)?;
        took_us.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        at = (at + block.len() as u64) % file_bytes;
    }
    Ok(took_us)
}

/// Memory that begins at a multiple of a block, as O_DIRECT wants it. Not zeros: some disks do not store those.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new() -> Self {
        let bytes = vec![0xA5; CHUNK_BYTES + BLOCK_BYTES];
        let start = bytes.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start < BLOCK_BYTES, "bytes can be aligned to anything");
        Self { bytes, start }
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes[self.start..self.start + CHUNK_BYTES]
    }

    fn block(&self) -> &[u8] {
        &self.bytes[self.start..self.start + BLOCK_BYTES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_measured_and_nothing_is_left_on_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        match measure(dir.path()) {
            Ok(speed) => {
                assert!(speed.sync_p50_us <= speed.sync_p99_us);
                assert!(speed.sequential_bytes_per_s > 0);
            }
            Err(Unmeasured::NoRoom) => {}
            Err(Unmeasured::Io(error)) => panic!("{error}"),
        }
        let left = std::fs::read_dir(dir.path()).expect("still there").count();
        assert_eq!(left, 0);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        assert!(matches!(
            measure(Path::new("/nowhere")),
            Err(Unmeasured::Io(_))
        ));
    }

    #[test]
    fn the_buffer_is_aligned() {
        let buffer = Aligned::new();
        assert_eq!(buffer.chunk().as_ptr() as usize % BLOCK_BYTES, 0);
        assert_eq!(buffer.block().len(), BLOCK_BYTES);
    }
}
