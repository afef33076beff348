//! Directories and whole files. Every function blocks: call them at start or inside `offload`.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::core;
use crate::driver::sim;

mod disk;

/// Sorted names of everything in a directory that is not a directory itself.
pub fn list(directory: &Path) -> io::Result<Vec<String>> {
    match core::sim() {
        Some(core) => sim::fs::list(&core, directory),
        None => disk::list(directory),
    }
}

pub fn create_dir_all(directory: &Path) -> io::Result<()> {
    match core::sim() {
        Some(core) => sim::fs::create_dir_all(&core, directory),
        None => fs::create_dir_all(directory),
    }
}

pub fn exists(path: &Path) -> bool {
    match core::sim() {
        Some(core) => sim::fs::exists(&core, path),
        None => path.exists(),
    }
}

/// Replaces `to` if it exists. Durable only after `sync_dir`.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match core::sim() {
        Some(core) => sim::fs::rename(&core, from, to),
        None => fs::rename(from, to),
    }
}

pub fn remove_file(path: &Path) -> io::Result<()> {
    match core::sim() {
        Some(core) => sim::fs::remove_file(&core, path),
        None => fs::remove_file(path),
    }
}

pub fn remove_dir_all(directory: &Path) -> io::Result<()> {
    match core::sim() {
        Some(core) => sim::fs::remove_dir_all(&core, directory),
        None => fs::remove_dir_all(directory),
    }
}

/// Makes the names in a directory durable.
pub fn sync_dir(directory: &Path) -> io::Result<()> {
    match core::sim() {
        Some(core) => sim::fs::sync_dir(&core, directory),
        None => fs::File::open(directory)?.sync_all(),
    }
}

pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    match core::sim() {
        Some(core) => sim::fs::read(&core, path),
        None => fs::read(path),
    }
}

/// Replaces a whole file so that a crash leaves the old or the new content, never a mixture. The new content is written
/// beside it (`.tmp`) and synced, the old one is kept as `.bak`. Mode, owner and links stay as they are.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match core::sim() {
        Some(core) => sim::fs::replace(&core, path, bytes),
        None => disk::replace(path, bytes),
    }
}

/// Whether the directory is the root of a file system other than its parent's. False if that cannot be told.
pub fn is_mount_point(directory: &Path) -> bool {
    match core::sim() {
        Some(_) => false, // one disk per node
        None => disk::is_mount_point(directory),
    }
}

/// When the file's content was last changed, by the clock on the wall. Simulated disks do not know.
pub fn modified_ms(path: &Path) -> io::Result<i64> {
    match core::sim() {
        Some(_) => Err(io::ErrorKind::Unsupported.into()),
        None => disk::modified_ms(path),
    }
}

/// Whether files in an existing directory can be written past the page cache, and durably so. Writes a block to a file
/// without a name.
pub fn takes_direct_writes(directory: &Path) -> bool {
    match core::sim() {
        Some(_) => true,
        None => disk::takes_direct_writes(directory),
    }
}

/// Bytes that this process may still write to the file system `path` is on.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    match core::sim() {
        Some(core) => sim::fs::free_bytes(&core, path),
        None => disk::free_bytes(path),
    }
}

/// Bytes in use on the file system `path` is on. Some of the rest may be for the superuser only.
pub fn used_bytes(path: &Path) -> io::Result<u64> {
    match core::sim() {
        Some(core) => sim::fs::used_bytes(&core, path),
        None => disk::used_bytes(path),
    }
}

pub fn total_bytes(path: &Path) -> io::Result<u64> {
    match core::sim() {
        Some(core) => sim::fs::total_bytes(&core, path),
        None => disk::total_bytes(path),
    }
}

/// Locks a file for this process, creating it, and writes the process id into it. `WouldBlock` if another holds it; a
/// process that was killed holds it until the operations on files are over that the calling core has begun for it.
pub fn lock(path: &Path) -> io::Result<LockFile> {
    let held = match core::sim() {
        Some(core) => Held::Sim(sim::fs::lock(&core, path)?),
        None => {
            let file = disk::lock(path)?;
            if let Some(ring) = core::find_ring() {
                ring.hold(file.as_raw_fd());
            }
            Held::Real(disk::Locked(file))
        }
    };
    Ok(LockFile { _held: held })
}

/// Keeps everybody who would lock the file from doing so, and changes nothing: it is not made, nor written. `None` if it is
/// not there; `WouldBlock` if somebody has locked it. Blocks.
pub fn lock_to_look(path: &Path) -> io::Result<Option<LockFile>> {
    let held = match core::sim() {
        Some(core) => sim::fs::lock_to_look(&core, path)?.map(Held::Sim),
        None => disk::lock_to_look(path)?.map(|file| Held::Real(disk::Locked(file))),
    };
    Ok(held.map(|held| LockFile { _held: held }))
}

/// Whether the process that wrote its id into a lock file still runs. True if that cannot be told. Blocks.
pub fn lock_holder_lives(path: &Path) -> bool {
    match core::sim() {
        Some(core) => sim::fs::lock_holder_lives(&core, path),
        None => disk::lock_holder_lives(path),
    }
}

/// A lock on a file; released when dropped, and by the system when the process ends.
pub struct LockFile {
    _held: Held,
}

#[allow(dead_code)] // held, never read
enum Held {
    Real(disk::Locked),
    Sim(sim::LockFile),
}

/// `path` with `suffix` appended to its last part.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_keeps_the_old_content_as_backup() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("table.json");
        replace(&path, b"one").unwrap();
        assert_eq!(read(&path).unwrap(), b"one");
        replace(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap(), b"two");
        assert_eq!(read(&with_suffix(&path, ".bak")).unwrap(), b"one");
        assert_eq!(
            list(directory.path()).unwrap(),
            ["table.json", "table.json.bak"]
        );
    }

    #[test]
    fn replace_keeps_a_link_and_who_may_read_the_file() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (
            directory.path().join("real.conf"),
            directory.path().join("broker.conf"),
        );
        fs::write(&real, "password=one").unwrap();
        symlink("real.conf", &link).unwrap();
        for mode in [0o600, 0o640] {
            fs::set_permissions(&real, fs::Permissions::from_mode(mode)).unwrap();
            replace(&link, format!("password={mode}").as_bytes()).unwrap();
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(read(&real).unwrap(), format!("password={mode}").as_bytes());
            let now = fs::metadata(&real).unwrap().permissions().mode();
            assert_eq!(now & 0o777, mode);
        }
    }

    #[test]
    fn a_lock_is_held_once_and_names_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = lock(&path).unwrap();
        let refused = lock(&path).err().map(|error| error.kind());
        assert_eq!(refused, Some(io::ErrorKind::WouldBlock));
        assert_eq!(
            read(&path).unwrap(),
            std::process::id().to_string().as_bytes()
        );
        drop(held);
        assert!(lock(&path).is_ok());
    }

    #[test]
    fn a_holder_that_has_ended_is_told_from_one_that_runs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        fs::write(&path, std::os::unix::process::parent_id().to_string()).unwrap();
        assert!(lock_holder_lives(&path));
        // In a container an earlier life of this process had its number.
        fs::write(&path, std::process::id().to_string()).unwrap();
        assert!(!lock_holder_lives(&path));
        fs::write(&path, "").unwrap();
        assert!(!lock_holder_lives(&path));
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        fs::write(&path, ended.id().to_string()).unwrap();
        assert!(!lock_holder_lives(&path));
        fs::write(&path, "lock").unwrap();
        assert!(lock_holder_lives(&path));
    }

    #[test]
    fn lists_are_sorted_and_without_directories() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c"] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        create_dir_all(&directory.path().join("d/e")).unwrap();
        assert_eq!(list(directory.path()).unwrap(), ["a", "b", "c"]);
        sync_dir(directory.path()).unwrap();
        remove_dir_all(&directory.path().join("d")).unwrap();
        assert!(!exists(&directory.path().join("d")));
        rename(&directory.path().join("a"), &directory.path().join("c")).unwrap();
        assert_eq!(read(&directory.path().join("c")).unwrap(), b"a");
        remove_file(&directory.path().join("c")).unwrap();
        assert_eq!(list(directory.path()).unwrap(), ["b"]);
    }

    #[test]
    fn a_disk_has_no_more_free_bytes_than_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let total = total_bytes(directory.path()).unwrap();
        assert!(total > 0 && free_bytes(directory.path()).unwrap() <= total);
    }
}
