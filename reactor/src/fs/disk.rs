//! The real disk's side of `fs`: what the standard library does not do in one call.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use super::with_suffix;
use crate::buffer::{ALIGNMENT_BYTES, Buffer};

/// Of a file's mode, what says who may do what.
const MODE_BITS: u32 = 0o7777;
const OWNER_BITS: u32 = 0o700;

pub(super) fn list(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            // Names that are not UTF-8 are none of ours.
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort_unstable();
    Ok(names)
}

pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A link stays one: what it points to is replaced.
    let target = fs::canonicalize(path);
    let path = target.as_deref().unwrap_or(path);
    let fresh = with_suffix(path, ".tmp");
    let mut file = create_like(&fresh, fs::metadata(path).ok())?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    match fs::rename(path, with_suffix(path, ".bak")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// An empty file that is as open to others as `old` is, before anything secret is in it.
fn create_like(path: &Path, old: Option<fs::Metadata>) -> io::Result<File> {
    let Some(old) = old else {
        return File::create(path);
    };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mode = old.mode() & MODE_BITS;
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(mode & OWNER_BITS)
        .open(path)?;
    // Only the superuser may give files away; the group is often possible.
    if fchown(&file, Some(old.uid()), Some(old.gid())).is_err() {
        let _ = fchown(&file, None, Some(old.gid()));
    }
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}

/// Unlocked when dropped, whoever else has the open file.
pub(super) struct Locked(pub(super) File);

impl Drop for Locked {
    fn drop(&mut self) {
        // Nothing can be done about failures. In this order: who gets the second lock has to get the first one.
        let _ = lock_first_byte(&self.0, libc::F_UNLCK);
        // SAFETY: flock only takes the descriptor, which is open.
        unsafe { libc::flock(self.0.as_raw_fd(), libc::LOCK_UN) };
    }
}

pub(super) fn lock(path: &Path) -> io::Result<File> {
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    // SAFETY: flock only takes the descriptor, which is open.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        return Err(io::Error::last_os_error());
    }
    lock_first_byte(&file, libc::F_WRLCK)?;
    file.set_len(0)?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

pub(super) fn lock_to_look(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    // SAFETY: flock only takes the descriptor, which is open.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) } != 0 {
        return Err(io::Error::last_os_error());
    }
    lock_first_byte(&file, libc::F_RDLCK)?;
    Ok(Some(file))
}

/// Locks of the other kind do not see `flock`: a Java program's `FileChannel.tryLock` is one of those. It belongs to the
/// open file, like the first one, not to the process.
fn lock_first_byte(file: &File, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: an all-zero flock is a valid value of plain integers.
    let mut range: libc::flock = unsafe { mem::zeroed() };
    range.l_type = kind as libc::c_short;
    range.l_whence = libc::SEEK_SET as libc::c_short;
    range.l_len = 1;
    // SAFETY: the descriptor is open and the structure lives through the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &range) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EAGAIN) => Err(io::ErrorKind::WouldBlock.into()),
        _ => Err(error),
    }
}

pub(super) fn lock_holder_lives(path: &Path) -> bool {
    let said = fs::read_to_string(path).unwrap_or_default();
    let Ok(pid) = said.trim().parse::<libc::pid_t>() else {
        // A process that was killed before it wrote its number leaves nothing.
        return !said.trim().is_empty();
    };
    // In a container every life of a broker may have the same number.
    if u32::try_from(pid) == Ok(std::process::id()) {
        return false;
    }
    // A killed process whose parent has not looked yet has a number but no life: the state follows its name.
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    if state
        .rsplit(')')
        .next()
        .is_some_and(|rest| rest.starts_with(" Z"))
    {
        return false;
    }
    // SAFETY: signal 0 is sent to nobody.
    let answer = unsafe { libc::kill(pid, 0) };
    answer == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

pub(super) fn is_mount_point(directory: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev());
    match (device(directory), device(&directory.join(".."))) {
        (Ok(own), Ok(parents)) => own != parents,
        _ => false,
    }
}

pub(super) fn modified_ms(path: &Path) -> io::Result<i64> {
    let metadata = fs::metadata(path)?;
    let ms = metadata.mtime_nsec() / 1_000_000;
    Ok(metadata.mtime().saturating_mul(1_000).saturating_add(ms))
}

/// FUSE and virtiofs report a durable write as done although nothing was synced; a network's disk is not ours to judge.
pub(super) fn takes_direct_writes(directory: &Path) -> bool {
    /// FUSE, NFS, SMB 1 and 2 (statfs(2)).
    const UNFIT: [u32; 4] = [0x6573_5546, 0x6969, 0xff53_4d42, 0xfe53_4d42];
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: plain integers, for which zero is a value.
    let mut stats: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: both point to what lives through the call; the path ends with a zero.
    if unsafe { libc::statfs(path.as_ptr(), &mut stats) } != 0
        || UNFIT.contains(&(stats.f_type as u32))
    {
        return false;
    }
    let mut options = fs::OpenOptions::new();
    options
        .write(true)
        .custom_flags(libc::O_TMPFILE | libc::O_DIRECT);
    let mut block = Buffer::with_capacity(ALIGNMENT_BYTES);
    block.set_len(ALIGNMENT_BYTES);
    let written = options
        .open(directory)
        .and_then(|file| file.write_all_at(&block, 0));
    written.is_ok()
}

pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
    let space = space(path)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

pub(super) fn used_bytes(path: &Path) -> io::Result<u64> {
    let space = space(path)?;
    let blocks = space.f_blocks.saturating_sub(space.f_bfree);
    Ok(blocks.saturating_mul(space.f_frsize))
}

pub(super) fn total_bytes(path: &Path) -> io::Result<u64> {
    let space = space(path)?;
    Ok(space.f_blocks.saturating_mul(space.f_frsize))
}

fn space(path: &Path) -> io::Result<libc::statvfs> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: an all-zero statvfs is a valid value of plain integers.
    let mut space: libc::statvfs = unsafe { mem::zeroed() };
    // SAFETY: the path is a C string and the structure lives through the call.
    match unsafe { libc::statvfs(path.as_ptr(), &mut space) } {
        0 => Ok(space),
        _ => Err(io::Error::last_os_error()),
    }
}
