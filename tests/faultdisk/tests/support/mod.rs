//! A disk mounted for one test, and the system calls the standard library has no words for.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use faultdisk::control::Control;
use io_uring::{IoUring, opcode, types};
use tempfile::TempDir;

pub struct Mount {
    process: Option<Child>,
    control: Control,
    directory: TempDir,
    backing: Option<TempDir>,
}

impl Mount {
    /// `None`: nothing can be mounted here.
    pub fn new() -> Option<Mount> {
        if let Err(why) = faultdisk::mount::available() {
            eprintln!("skipped: {why}");
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let backing = tempfile::tempdir().expect("a temporary directory");
        let sockets = tempfile::tempdir().expect("a temporary directory");
        let socket = sockets.path().join("control");
        let mut process = Command::new(env!("CARGO_BIN_EXE_orbit-faultdisk"))
            .arg("mount")
            .arg(directory.path())
            .arg("--backing")
            .arg(backing.path())
            .arg("--control")
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()
            .expect("our own binary starts");
        let mut line = String::new();
        let output = process.stdout.take().expect("it is piped");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("a pipe can be read");
        assert!(line.starts_with("mounted"), "it says: {line}");
        Some(Mount {
            process: Some(process),
            control: Control::connect(&socket).expect("it listens before it says so"),
            directory,
            backing: Some(backing),
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn create(&self, name: &str) -> File {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        options.open(self.path(name)).expect("a new file")
    }

    pub fn open(&self, name: &str, flags: i32) -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(flags);
        options.open(self.path(name)).expect("it is there")
    }

    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path(name)).ok()
    }

    pub fn sync_root(&self) {
        let root = File::open(self.directory.path()).expect("it is mounted");
        root.sync_all().expect("well");
    }

    pub fn ask(&mut self, line: &str) -> String {
        self.control.ask(line).expect("a command it knows")
    }

    /// One of the disk's counts.
    pub fn count(&mut self, name: &str) -> u64 {
        let stats = self.ask("stats");
        let mut words = stats.split(' ').skip_while(|word| *word != name);
        let value = words.nth(1).expect("a count of that name");
        value.parse().expect("counts are numbers")
    }

    pub fn free_bytes(&self) -> u64 {
        let path = std::ffi::CString::new(self.directory.path().as_os_str().as_encoded_bytes())
            .expect("no zero in it");
        // SAFETY: an all-zero statvfs is a valid value of plain integers.
        let mut space: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: the path is a C string and the structure lives through the call.
        assert_eq!(unsafe { libc::statvfs(path.as_ptr(), &mut space) }, 0);
        space.f_bavail * space.f_frsize
    }

    /// Ends it in order and gives the backing directory.
    pub fn unmount(mut self) -> TempDir {
        let mut process = self.process.take().expect("it runs");
        terminate(&process);
        let status = process.wait().expect("our own child");
        assert!(status.success(), "{status}");
        self.backing.take().expect("given once")
    }
}

fn terminate(process: &Child) {
    // SAFETY: a signal to our own child, which has not been waited for.
    unsafe { libc::kill(process.id() as i32, libc::SIGTERM) };
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            terminate(&process);
            let _ = process.wait();
        }
    }
}

/// A shared writable mapping.
pub struct Shared {
    start: *mut u8,
    len: usize,
}

impl Shared {
    pub fn of(file: &File, len: usize) -> Shared {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address the kernel chooses; the result is checked.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED);
        Shared {
            start: start.cast(),
            len,
        }
    }

    pub fn fill(&self, range: Range<usize>, byte: u8) {
        assert!(range.end <= self.len);
        // SAFETY: inside the mapping, which only this thread uses.
        unsafe { self.start.add(range.start).write_bytes(byte, range.len()) };
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// Memory that direct writes can start from.
#[repr(align(4096))]
pub struct Aligned([u8; 4096]);

impl Aligned {
    pub fn page(byte: u8) -> Box<Aligned> {
        Box::new(Aligned([byte; 4096]))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// So many direct writes of a page each, submitted together, all waited for.
pub fn direct_writes_in_flight(file: &File, count: usize, flags: i32) {
    let mut ring = IoUring::new(64).expect("this system has io_uring");
    let pages: Vec<Box<Aligned>> = (0..count).map(|at| Aligned::page(at as u8)).collect();
    for (at, page) in pages.iter().enumerate() {
        let fd = types::Fd(file.as_raw_fd());
        let write = opcode::Write::new(fd, page.bytes().as_ptr(), 4096)
            .offset(at as u64 * 8192)
            .rw_flags(flags)
            .build();
        // SAFETY: pages and file live until all of them are completed below.
        unsafe { ring.submission().push(&write) }.expect("the queue has room");
    }
    ring.submit_and_wait(count).expect("well");
    for completion in ring.completion() {
        assert_eq!(completion.result(), 4096);
    }
}

pub fn allocate(file: &File, offset: i64, len: i64) -> Result<(), i32> {
    // SAFETY: the descriptor is open.
    match unsafe { libc::fallocate(file.as_raw_fd(), 0, offset, len) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or_default()),
    }
}
