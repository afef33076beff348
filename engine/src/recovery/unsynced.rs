//! After a failed sync: what is in the page cache may not be on the disk, although the kernel calls it clean.
//!
//! The store notes from where on nothing is known to be durable. Before the next start reads the log, that stretch is
//! compared with the disk past the page cache, and a file that differs, or that cannot be compared, is copied to a fresh
//! one, which is synced and takes its place. So whatever is recovered afterwards is on the disk.
//!
//! A process may be killed before it hears of the failure, or has noted it. So in a log that the kernel writes, what
//! lies behind the last companion is compared after every end that was not in order. (What is written from a window
//! is written from it again, see `window`.)

use super::files::{self, FoundFile};
use super::walk::{Step, Walk};
use crate::LogOffset;
use crate::checkpoint;
use crate::config::Config;
use crate::layout::{Layout, UNFINISHED_SUFFIX, segment_name};
use crate::segment::Medium;
use crate::store::OpenError;
use reactor::{Buffer, File, OpenOptions, fs};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Bytes per read and per write.
const STEP_BYTES: u64 = 1 << 20;
/// How much of the log's end is compared where no companion says what is durable.
const VERIFY_BYTES_MAX: u64 = 4 << 30;

/// Leaves the note, as far as the disk takes it. Blocks.
pub fn note(layout: &Layout, flushed: LogOffset, written: LogOffset) {
    let path = layout.unsynced();
    if let Err(error) = write_note(&path, flushed, written) {
        tracing::error!(path = %path.display(), %error, "it cannot be noted which part of the log is to be checked");
    }
}

fn write_note(path: &Path, flushed: LogOffset, written: LogOffset) -> io::Result<()> {
    // A stretch that was noted before and not checked yet stays in it.
    let from = match read_note(path)? {
        Some(before) => before.start.min(flushed.0),
        None => flushed.0,
    };
    let options = OpenOptions {
        read: true,
        write: true,
        create: true,
        truncate: true,
        ..OpenOptions::default()
    };
    let file = File::open(path, options)?;
    let text = format!("{from} {}\n", written.0);
    // Not synced: until the machine restarts the page cache has it, which is as long as it is of use.
    file.write_all_at_blocking(text.as_bytes(), 0)
}

/// The stretch noted; the whole log if the note cannot be understood.
fn read_note(path: &Path) -> io::Result<Option<Range<u64>>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = String::from_utf8_lossy(&bytes);
    if !text.ends_with('\n') {
        return Ok(Some(0..u64::MAX));
    }
    let mut numbers = text.split_whitespace().map(|word| word.parse().ok());
    let (from, to) = (numbers.next().flatten(), numbers.next().flatten());
    Ok(Some(from.unwrap_or(0)..to.unwrap_or(u64::MAX)))
}

/// Makes durable what the note names, or what a killed process may have lost; or refuses to go on. Nobody has the files
/// open.
pub async fn heal(config: &Config, layout: &Layout, medium: &Medium) -> Result<(), OpenError> {
    let path = layout.unsynced();
    let noted = read_note(&path).map_err(OpenError::io(&path))?;
    let found = files::find(layout.log_dirs(), config.segment_bytes);
    let found = found.map_err(OpenError::io(layout.root()))?.files;
    if let Medium::Mapped = medium
        && fs::exists(&layout.abort())
        && !files::is_rocketmqs(layout, &found)
    {
        let vouched = checkpoint::vouched_to(layout).map_err(OpenError::io(layout.companions()))?;
        verify_tail(layout, &found, vouched).await?;
    }
    let Some(stretch) = noted else {
        return Ok(());
    };
    tracing::warn!(
        from = stretch.start,
        "a sync failed before: the log behind it is compared with the disk"
    );
    for file in &found {
        let end = file.base + file.bytes;
        // Records may have been laid behind what was noted, in the same file or in the next.
        if end <= stretch.start || file.base > stretch.end {
            continue;
        }
        let from = stretch.start.saturating_sub(file.base);
        heal_file(layout, file, from, medium)
            .await
            .map_err(OpenError::io(&file.path))?;
    }
    fs::remove_file(&path)
        .and_then(|()| fs::sync_dir(&layout.companions()))
        .map_err(OpenError::io(path))
}

/// Compares the records behind what is known to be durable with the disk, file by file, as far as there are any.
async fn verify_tail(layout: &Layout, found: &[FoundFile], vouched: u64) -> Result<(), OpenError> {
    let end = found.last().map_or(0, |last| last.base + last.bytes);
    // Without companions all of the log would be read twice.
    let from = vouched.max(end.saturating_sub(VERIFY_BYTES_MAX));
    for file in found.iter().filter(|file| file.base + file.bytes > from) {
        verify_file(layout, file, from.saturating_sub(file.base))
            .await
            .map_err(OpenError::io(&file.path))?;
    }
    Ok(())
}

async fn verify_file(layout: &Layout, found: &FoundFile, from: u64) -> io::Result<()> {
    // A file system that cannot be read past the page cache tells nothing without a note.
    let Ok(disk) = open(&found.path, true) else {
        return Ok(());
    };
    let shown = Arc::new(open(&found.path, false)?);
    let records_end = records_end(&shown, found, from).await?;
    if records_end == from {
        return Ok(());
    }
    // First what is only not written yet.
    shown.sync_data().await?;
    if is_same(&shown, &disk, from..records_end).await? {
        return Ok(());
    }
    replace(layout, found, &shown).await
}

/// Where the records end that lie one behind the other from `from` on.
async fn records_end(shown: &Arc<File>, found: &FoundFile, from: u64) -> io::Result<u64> {
    let mut walk = Walk::new(shown.clone(), found.base, found.bytes, from);
    loop {
        match walk.next().await? {
            Step::Record(_) => {}
            Step::Full => return Ok(found.bytes),
            Step::End(_) => return Ok(walk.position()),
        }
    }
}

async fn heal_file(
    layout: &Layout,
    found: &FoundFile,
    from: u64,
    medium: &Medium,
) -> io::Result<()> {
    let shown = open(&found.path, matches!(medium, Medium::Direct(_)))?;
    let same = match medium {
        // What the disk itself held back cannot be told from what it has.
        Medium::Direct(_) => false,
        Medium::Mapped => match open(&found.path, true) {
            Ok(disk) => {
                shown.sync_data().await?;
                is_same(&shown, &disk, from..found.bytes).await?
            }
            // A file system that cannot be read past the page cache.
            Err(_) => false,
        },
    };
    match same {
        true => Ok(()),
        false => replace(layout, found, &shown).await,
    }
}

/// Puts a fresh, synced file with the same bytes in the place of one that is not on the disk as it is shown.
async fn replace(layout: &Layout, found: &FoundFile, shown: &File) -> io::Result<()> {
    tracing::warn!(path = %found.path.display(), "the disk does not have what was written: the file is copied to a fresh one");
    // On the disk of the file, not among the log files.
    let name = segment_name(found.base) + UNFINISHED_SUFFIX;
    let fresh = layout.beside(&found.path).join(name);
    let copied = copy(shown, &fresh, found.bytes).await;
    if let Err(error) = copied {
        // The space is better free; a leftover is removed by a later start.
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    fs::rename(&fresh, &found.path)?;
    // Both names: after a power cut the old one must not come back beside the new one.
    for path in [&found.path, &fresh] {
        fs::sync_dir(path.parent().expect("these are in directories"))?;
    }
    Ok(())
}

/// Whether what is shown of a file is what the disk has. Nobody writes it.
async fn is_same(shown: &File, disk: &File, range: Range<u64>) -> io::Result<bool> {
    let bytes = shown.len()?;
    let mut at = range.start / STEP_BYTES * STEP_BYTES;
    while at < range.end {
        let len = STEP_BYTES.min(bytes - at);
        let shown = read(shown, at, len).await?;
        // What the disk cannot read, it does not have.
        match read(disk, at, len).await {
            Ok(disk) if *disk == *shown => {}
            Ok(_) | Err(_) => return Ok(false),
        }
        at += len;
    }
    Ok(true)
}

async fn copy(from: &File, fresh: &Path, bytes: u64) -> io::Result<()> {
    // Never cut short what may be a second name of a good file.
    if fs::exists(fresh) {
        fs::remove_file(fresh)?;
    }
    let options = OpenOptions {
        read: true,
        write: true,
        create: true,
        truncate: true,
        ..OpenOptions::default()
    };
    let to = File::open(fresh, options)?;
    to.allocate(bytes)?;
    let mut at = 0;
    while at < bytes {
        let len = STEP_BYTES.min(bytes - at);
        let step = read(from, at, len).await?;
        to.write_at(step, at).await.0?;
        at += len;
    }
    to.sync_blocking()
}

async fn read(file: &File, at: u64, len: u64) -> io::Result<Buffer> {
    let buffer = Buffer::with_capacity(len as usize);
    let (read, buffer) = file.read_at(buffer, at, len as usize).await;
    match read? as u64 == len {
        true => Ok(buffer),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn open(path: &Path, direct: bool) -> io::Result<File> {
    let options = OpenOptions {
        read: true,
        direct,
        ..OpenOptions::default()
    };
    File::open(path, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_keeps_the_earliest_start_and_one_that_is_torn_means_everything() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("unsynced");
        assert_eq!(read_note(&path).expect("it is not there"), None);
        write_note(&path, LogOffset(500), LogOffset(900)).expect("a temporary directory");
        write_note(&path, LogOffset(700), LogOffset(1_000)).expect("a temporary directory");
        assert_eq!(read_note(&path).expect("just written"), Some(500..1_000));
        for torn in ["5x\n", "500 1", "500", ""] {
            std::fs::write(&path, torn).expect("a temporary directory");
            let from = read_note(&path)
                .expect("just written")
                .expect("it is there");
            assert_eq!(from, 0..u64::MAX, "{torn:?}");
        }
    }

    fn healed(from: u64, bytes: &[u8], medium: &Medium) -> Vec<u8> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().to_path_buf();
        let mut config = Config::for_root(&root);
        config.segment_bytes = bytes.len() as u64;
        let layout = Layout::new(&config);
        for made in [layout.companions(), root.join("commitlog")] {
            std::fs::create_dir_all(made).expect("a temporary directory");
        }
        let path = layout.segment(0);
        std::fs::write(&path, bytes).expect("a temporary directory");
        note(&layout, LogOffset(from), LogOffset(from + 10));
        let medium = medium.clone();
        let core = reactor::CoreConfig::default();
        reactor::run(core, move || async move {
            heal(&config, &layout, &medium)
                .await
                .expect("the disk works");
            assert!(!fs::exists(&layout.unsynced()), "the note has served");
            let left = fs::list(&layout.companions()).expect("it is there");
            assert!(left.is_empty(), "{left:?}");
        })
        .expect("io_uring is available");
        std::fs::read(&path).expect("the file is there")
    }

    #[test]
    fn a_file_that_is_on_the_disk_stays_as_it_is() {
        let bytes: Vec<u8> = (0..3u32 << 20).map(|n| (n % 251) as u8).collect();
        assert!(healed(1 << 20, &bytes, &Medium::Mapped) == bytes);
    }

    #[test]
    fn a_copy_has_every_byte() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let bytes: Vec<u8> = (0..(1u32 << 20) + 8192).map(|n| (n % 253) as u8).collect();
        std::fs::write(&from, &bytes).expect("a temporary directory");
        let fresh = to.clone();
        let core = reactor::CoreConfig::default();
        reactor::run(core, move || async move {
            let source = open(&from, false).expect("just written");
            copy(&source, &fresh, (1 << 20) + 8192)
                .await
                .expect("the disk works");
        })
        .expect("io_uring is available");
        assert!(std::fs::read(&to).expect("the copy") == bytes);
    }
}
