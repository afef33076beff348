//! The machine's page cache: filled before anything is measured, and emptied of a store that is to be read cold.
//!
//! It is full on every broker that has run for a day. Then new pages come from old cache; before, a virtual machine has
//! to be given each page by its host, which costs more than all that a broker does with a message, and whoever writes
//! first pays for all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

use crate::disk;
use crate::error::{Error, Result};

const CHUNK_BYTES: usize = 4 << 20;
/// Room on the disk that is left for the stores at least.
const DISK_BYTES_LEFT_MIN: u64 = 30 << 30;

/// Writes a file as large as `percent` of the available memory and leaves it there. Stores that will have `store_bytes` keep
/// twice that much room: brokers refuse messages long before a disk is full.
pub fn fill(file: &Path, percent: u8, store_bytes: u64) -> Result<()> {
    let failed = || format!("filling the page cache with {}", file.display());
    let folder = file.parent().expect("a file lies in a folder");
    let room = disk::free_bytes(folder)?.saturating_sub(DISK_BYTES_LEFT_MIN.max(2 * store_bytes));
    let wanted = available_bytes().unwrap_or(0) / 100 * u64::from(percent);
    let chunk = vec![0; CHUNK_BYTES];
    let mut out = File::create(file).map_err(Error::io(failed()))?;
    for _ in 0..wanted.min(room) / CHUNK_BYTES as u64 {
        out.write_all(&chunk).map_err(Error::io(failed()))?;
    }
    out.sync_all().map_err(Error::io(failed()))
}

/// Writes out and forgets all that the cache holds of the files under `folder`. Pages that a process has mapped stay:
/// whoever has them mapped is stopped before.
pub fn forget(folder: &Path) -> Result<()> {
    rustix::fs::sync();
    let files = files_under(folder).map_err(Error::io(format!("listing {}", folder.display())))?;
    forget_files(&files)
}

/// The same for files that were written out long ago; one that is gone meanwhile is forgotten anyway.
pub fn forget_files(files: &[PathBuf]) -> Result<()> {
    for path in files {
        let failed = || Error::io(format!("forgetting the cached pages of {}", path.display()));
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(failed())?,
        };
        fadvise(&file, 0, None, Advice::DontNeed).map_err(|error| failed()(error.into()))?;
    }
    Ok(())
}

/// All plain files, in the order of their names.
pub fn files_under(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => files.extend(files_under(&entry.path())?),
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files.sort();
    Ok(files)
}

fn available_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_found_and_keeps_its_bytes_when_it_is_forgotten() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).expect("a new folder");
        for (path, text) in [(folder.path().join("b"), "1"), (inner.join("a"), "2")] {
            fs::write(path, text).expect("room for a byte");
        }
        forget(folder.path()).expect("our own files");
        let files = files_under(folder.path()).expect("our own folder");
        let texts = files
            .iter()
            .map(|path| fs::read_to_string(path).expect("still there"));
        assert_eq!(texts.collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn nothing_is_written_for_no_percent_and_the_machine_has_memory() {
        assert!(available_bytes().expect("Linux tells") > 1 << 20);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("filler");
        fill(&file, 0, 0).expect("nothing to write");
        assert_eq!(fs::metadata(&file).expect("made").len(), 0);
    }
}
