//! Mounting and unmounting: the session's threads, the control socket, and an end in order whatever ends it.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fuser::{Config, MountOption};

use super::Mounted;
use crate::control;
use crate::disk::Disk;
use crate::signals;
use crate::trace::Recorder;

pub struct Options {
    pub directory: PathBuf,
    pub backing: PathBuf,
    pub control: Option<PathBuf>,
    pub record: Option<PathBuf>,
    pub capacity_bytes: Option<u64>,
    /// A proof's own disk: it ends with the process that started it, and what was on it is thrown away.
    pub of_a_proof: bool,
}

/// Enough that a slow operation holds up nobody else.
const THREADS: usize = 8;
/// How long unmounting waits for those who still have files open.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(10);

/// Why nothing can be mounted here, if so.
pub fn available() -> Result<(), String> {
    match fs::File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => {}
        Err(error) => return Err(format!("/dev/fuse cannot be opened: {error}")),
    }
    let may_mount = fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| effective_capabilities(&status))
        .is_some_and(|bits| bits >> CAP_SYS_ADMIN & 1 == 1);
    match may_mount {
        true => Ok(()),
        false => Err("mounting needs CAP_SYS_ADMIN".into()),
    }
}

const CAP_SYS_ADMIN: u32 = 21;

fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Serves the mounted disk until it is unmounted or a signal ends it.
pub fn mount(options: &Options) -> io::Result<()> {
    // Before any other thread exists, so that all of them leave the signals to the one that waits.
    let signals = signals::block(options.of_a_proof)?;
    let recorder = options
        .record
        .as_deref()
        .map(Recorder::create)
        .transpose()?;
    let mut disk = Disk::open(&options.backing, recorder)?;
    if let Some(bytes) = options.capacity_bytes {
        disk.set_capacity(bytes);
    }
    let disk = Arc::new(Mutex::new(disk));
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("orbit-faultdisk".into()),
        MountOption::NoAtime,
    ];
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    let session = fuser::spawn_mount(Mounted::new(disk.clone()), &options.directory, &config)?;
    allow_dirty_pages(&options.directory);
    if let Some(path) = &options.control {
        control::serve(path, disk.clone(), session.notifier())?;
    }
    println!("mounted {}", options.directory.display());
    let directory = options.directory.clone();
    thread::spawn(move || {
        signals.wait();
        unmount(&directory);
        thread::sleep(UNMOUNT_LIMIT);
        eprintln!("orbit-faultdisk: files are still open; the backing directory stays as it is");
        std::process::exit(1);
    });
    session.join()?;
    if let Some(path) = &options.control {
        let _ = fs::remove_file(path);
    }
    let mut disk = disk.lock().expect("no operation panics");
    match options.of_a_proof {
        true => disk.flush_trace(),
        false => disk.close(),
    }
}

/// Out of sight at once, gone when the last user is.
fn unmount(directory: &Path) {
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else {
        return;
    };
    // SAFETY: the path is a C string; unmounting touches no memory of ours.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
}

/// The kernel grants FUSE one percent of the dirty pages others may have, which would throttle who maps files.
fn allow_dirty_pages(directory: &Path) {
    let Ok(device) = fs::metadata(directory).map(|metadata| metadata.dev()) else {
        return;
    };
    let settings = format!(
        "/sys/class/bdi/{}:{}",
        libc::major(device),
        libc::minor(device)
    );
    // Where it cannot be set the disk is slower, nothing else.
    let _ = fs::write(format!("{settings}/strict_limit"), "0");
    let _ = fs::write(format!("{settings}/max_ratio"), "100");
}
