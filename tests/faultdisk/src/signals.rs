//! The signals that end a program: blocked everywhere, waited for in one thread.

use std::io;
use std::mem;

/// Held by the thread that waits.
pub struct Blocked(libc::sigset_t);

const ENDING: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Blocks the ending signals for this thread and all it starts later.
pub fn block(die_with_parent: bool) -> io::Result<Blocked> {
    // SAFETY: an all-zero set is valid memory for sigemptyset to fill.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: the set lives through the calls; the signal numbers are valid.
    let blocked = unsafe {
        libc::sigemptyset(&mut set);
        for signal in ENDING {
            libc::sigaddset(&mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut())
    };
    if blocked != 0 {
        return Err(io::Error::from_raw_os_error(blocked));
    }
    if die_with_parent {
        // SAFETY: sets an attribute of this process, nothing else.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
    }
    Ok(Blocked(set))
}

impl Blocked {
    pub fn wait(&self) {
        let mut signal = 0;
        // SAFETY: both pointers live through the call.
        while unsafe { libc::sigwait(&self.0, &mut signal) } != 0 {}
    }
}
