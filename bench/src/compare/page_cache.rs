//! Fills the machine's page cache before anything is measured, as it is on every broker that has run for a day. Then
//! new pages come from old cache; before, a virtual machine has to be given each page by its host, which costs more
//! than all that a broker does with a message, and whoever writes first pays for all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

const CHUNK_BYTES: usize = 4 << 20;
/// Room on the disk that is left for the stores.
const DISK_BYTES_LEFT_MIN: u64 = 30 << 30;

/// Writes a file as large as `percent` of the available memory and leaves it there.
pub fn fill(file: &Path, percent: u8) -> Result<()> {
    let failed = || format!("filling the page cache with {}", file.display());
    let folder = file.parent().expect("a file lies in a folder");
    let disk = rustix::fs::statvfs(folder).map_err(|error| Error::io(failed())(error.into()))?;
    let room = (disk.f_bavail * disk.f_frsize).saturating_sub(DISK_BYTES_LEFT_MIN);
    let wanted = available_bytes().unwrap_or(0) / 100 * u64::from(percent);
    let chunk = vec![0; CHUNK_BYTES];
    let mut out = File::create(file).map_err(Error::io(failed()))?;
    for _ in 0..wanted.min(room) / CHUNK_BYTES as u64 {
        out.write_all(&chunk).map_err(Error::io(failed()))?;
    }
    out.sync_all().map_err(Error::io(failed()))
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
    fn nothing_is_written_for_no_percent_and_the_machine_has_memory() {
        assert!(available_bytes().expect("Linux tells") > 1 << 20);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("filler");
        fill(&file, 0).expect("nothing to write");
        assert_eq!(fs::metadata(&file).expect("made").len(), 0);
    }
}
