//! Taking a segment away: out of the log directory first, its space given back in slices afterwards.
//!
//! Freeing a gigabyte in one call stalls the journal of the file system, and with it every sync of the log. So the
//! file is renamed, which is what makes it gone, and then shortened piece by piece. Memory that is mapped must not
//! lose its file below it: shortening waits until nobody uses the segment any more.

use crate::layout::{Layout, segment_name};
use crate::segment::{Hot, Segment};
use reactor::{File, OpenOptions, fs, offload};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What is given back in one call at most.
const SLICE_BYTES_MAX: u64 = 64 << 20;
/// A small file is not worth fewer slices.
const SLICES_MIN: u64 = 4;
const PAGE_BYTES: u64 = 4096;
/// How often it is looked whether the last user has gone.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Moves the segment's file out of its log directory, durably. Its readers keep it open. Blocks.
pub fn take_out(layout: &Layout, base: u64) -> io::Result<PathBuf> {
    let name = segment_name(base);
    // Not always where it would be made today: directories are added and change places.
    for (log_dir, spare_dir) in layout.log_dirs().iter().zip(layout.spare_dirs()) {
        let path = log_dir.join(&name);
        if !fs::exists(&path) {
            continue;
        }
        let gone = Layout::gone(spare_dir, base);
        fs::rename(&path, &gone)?;
        fs::sync_dir(log_dir)?;
        fs::sync_dir(spare_dir)?;
        return Ok(gone);
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("the log file {name} is in no log directory"),
    ))
}

/// Removes what was derived from a segment that is gone. A leftover is removed when the store opens. Blocks.
pub fn remove_companions(layout: &Layout, base: u64) -> io::Result<()> {
    let dir = layout.companions();
    let prefix = segment_name(base) + ".";
    for name in fs::list(&dir)? {
        if name.starts_with(&prefix) && !Layout::is_gone(&name) {
            fs::remove_file(&dir.join(name))?;
        }
    }
    Ok(())
}

/// Resumes when nobody but the caller has the segment or its memory, or after `longest`. Says whether that is so.
pub async fn unused(segment: &Arc<Segment>, hot: Option<&Arc<Hot>>, longest: Duration) -> bool {
    let latest = reactor::now() + longest;
    loop {
        let is_free = segment.is_unused(hot);
        if is_free || reactor::now() >= latest {
            return is_free;
        }
        reactor::sleep(LOOK_EVERY).await;
    }
}

/// Gives the file's space back, at most so many bytes a second.
pub async fn give_back(path: PathBuf, bytes_per_second: Option<u64>) -> io::Result<()> {
    let mut left = {
        let path = path.clone();
        offload("look at an old log file", move || open(&path)?.len()).await?
    };
    let slice = slice_bytes(left);
    while left > slice {
        left -= slice;
        let path = path.clone();
        let shorten = move || open(&path)?.set_len(left);
        offload("shorten an old log file", shorten).await?;
        if let Some(rate) = bytes_per_second {
            reactor::sleep(Duration::from_secs_f64(slice as f64 / rate as f64)).await;
        }
    }
    unlink(path).await
}

/// Removes the file's name; its space comes back when its last user has gone.
pub async fn unlink(path: PathBuf) -> io::Result<()> {
    offload("remove an old log file", move || fs::remove_file(&path)).await
}

/// What a process that was killed did not come to give back.
pub async fn leftovers(layout: &Arc<Layout>) -> io::Result<Vec<PathBuf>> {
    let layout = layout.clone();
    let list = move || {
        let mut found = Vec::new();
        for dir in layout.spare_dirs() {
            let names = fs::list(dir)?.into_iter();
            let gone = names.filter(|name| Layout::is_gone(name));
            found.extend(gone.map(|name| dir.join(name)));
        }
        found.sort();
        found.dedup();
        Ok(found)
    };
    offload("look for old log files", list).await
}

fn open(path: &Path) -> io::Result<File> {
    let options = OpenOptions {
        read: true,
        write: true,
        ..OpenOptions::default()
    };
    File::open(path, options)
}

fn slice_bytes(file_bytes: u64) -> u64 {
    (file_bytes / SLICES_MIN)
        .next_multiple_of(PAGE_BYTES)
        .clamp(PAGE_BYTES, SLICE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_given_back_in_slices_of_whole_pages() {
        assert_eq!(slice_bytes(1 << 30), 64 << 20);
        assert_eq!(slice_bytes(64 << 10), 16 << 10);
        assert_eq!(slice_bytes(10_000), 4096);
        assert_eq!(slice_bytes(0), 4096);
    }
}
