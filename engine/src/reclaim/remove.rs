//! Taking a segment away: out of the log directory first, its space given back in slices afterwards.
//!
//! Freeing a gigabyte in one call stalls the journal of the file system, and with it every sync of the log. So the
//! file is renamed, which is what makes it gone, and then shortened piece by piece. Memory that is mapped must not
//! lose its file below it: shortening waits until nobody uses the segment any more.

use crate::layout::{Layout, segment_name};
use reactor::{File, OpenOptions, fs, offload};
use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What is given back in one call at most.
const SLICE_BYTES_MAX: u64 = 64 << 20;
/// A small file is not worth fewer slices.
const SLICES_MIN: u64 = 4;
const PAGE_BYTES: u64 = 4096;
/// Moves the segment's file out of its log directory, durably. Its readers keep it open. May be tried again after a
/// failure: a file that was moved and not synced is found where it is. Blocks.
pub fn take_out(layout: &Layout, base: u64) -> io::Result<PathBuf> {
    let name = segment_name(base);
    // Not always where it would be made today: directories are added and change places.
    for (log_dir, spare_dir) in layout.log_dirs().iter().zip(layout.spare_dirs()) {
        let path = log_dir.join(&name);
        let gone = Layout::gone(spare_dir, base);
        if fs::exists(&path) {
            fs::rename(&path, &gone)?;
        } else if !fs::exists(&gone) {
            continue;
        }
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

/// Gives the file's space back, at most so many bytes a second, and says in `left` what has yet to come.
pub async fn give_back(
    path: PathBuf,
    left: &Cell<u64>,
    bytes_per_second: &impl Fn() -> Option<u64>,
) -> io::Result<()> {
    let bytes = {
        let path = path.clone();
        offload("look at an old log file", move || open(&path)?.len()).await?
    };
    left.set(bytes);
    let slice = slice_bytes(bytes);
    while left.get() > slice {
        let (path, shorter) = (path.clone(), left.get() - slice);
        let shorten = move || open(&path)?.set_len(shorter);
        offload("shorten an old log file", shorten).await?;
        left.set(shorter);
        if let Some(rate) = bytes_per_second() {
            reactor::sleep(Duration::from_secs_f64(slice as f64 / rate as f64)).await;
        }
    }
    unlink(path).await
}

/// Removes the file's name; its space comes back when its last user has gone.
pub async fn unlink(path: PathBuf) -> io::Result<()> {
    offload("remove an old log file", move || fs::remove_file(&path)).await
}

/// What a process that was killed did not come to give back, and how many bytes each has.
pub async fn leftovers(layout: &Arc<Layout>) -> io::Result<Vec<(PathBuf, u64)>> {
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
        let with_bytes = found.into_iter().map(|path| {
            let bytes = open(&path)?.len()?;
            Ok((path, bytes))
        });
        with_bytes.collect()
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
    fn a_file_that_was_taken_out_and_not_synced_is_taken_out_again() {
        let root = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(&crate::Config::for_root(root.path()));
        for dir in [&layout.log_dirs()[0], &layout.spare_dirs()[0]] {
            std::fs::create_dir_all(dir).expect("a directory");
        }
        std::fs::write(layout.segment(0), "log").expect("a file");
        let gone = take_out(&layout, 0).expect("it is there");
        assert_eq!(take_out(&layout, 0).expect("still known"), gone);
        assert!(!layout.segment(0).exists() && gone.exists());
        std::fs::remove_file(&gone).expect("there");
        let missing = take_out(&layout, 0).map_err(|error| error.kind());
        assert_eq!(missing, Err(io::ErrorKind::NotFound));
    }

    #[test]
    fn files_are_given_back_in_slices_of_whole_pages() {
        assert_eq!(slice_bytes(1 << 30), 64 << 20);
        assert_eq!(slice_bytes(64 << 10), 16 << 10);
        assert_eq!(slice_bytes(10_000), 4096);
        assert_eq!(slice_bytes(0), 4096);
    }
}
