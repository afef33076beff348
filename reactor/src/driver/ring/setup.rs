//! Building a ring with the best flags the kernel has.

use std::io;
use std::thread;
use std::time::Duration;

use io_uring::IoUring;

use crate::launch::Unsupported;

/// Multishot operations complete many times per submission: the completion queue is this many times longer.
const COMPLETIONS_PER_ENTRY: u32 = 4;

/// The kernel gives the locked memory of ended rings, and of killed processes, back a moment later: a restart may have
/// to wait for it.
const MEMORY_ATTEMPTS: u32 = 20;
const MEMORY_PAUSE: Duration = Duration::from_millis(25);

/// Repeats a set-up step while it lacks memory. Blocks; called before the core runs.
pub(super) fn with_patience<T>(
    mut step: impl FnMut() -> Result<T, Unsupported>,
) -> Result<T, Unsupported> {
    for _ in 1..MEMORY_ATTEMPTS {
        match step() {
            Err(Unsupported::Memory) => thread::sleep(MEMORY_PAUSE),
            other => return other,
        }
    }
    step()
}

pub(super) fn build(entries: u32) -> Result<IoUring, Unsupported> {
    let uring = match deferred(entries) {
        // Before Linux 6.1 completions cannot be deferred to our own call; they then come with any system call.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => cooperative(entries),
        other => other,
    }
    .map_err(Unsupported::of_setup)?;
    let parameters = uring.params();
    if !parameters.is_feature_ext_arg() {
        return Err(Unsupported::Old {
            missing: "waiting with a timeout",
        });
    }
    if !parameters.is_feature_nodrop() {
        return Err(Unsupported::Old {
            missing: "a completion queue that loses nothing",
        });
    }
    Ok(uring)
}

fn deferred(entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_clamp()
        .setup_cqsize(entries * COMPLETIONS_PER_ENTRY)
        .build(entries)
}

fn cooperative(entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_clamp()
        .setup_cqsize(entries * COMPLETIONS_PER_ENTRY)
        .build(entries)
}
