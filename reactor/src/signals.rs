//! SIGTERM and SIGINT, taken by one thread that waits for them; for the programs' main functions.

use std::mem::MaybeUninit;

/// The two signals, held back until somebody waits for them.
pub struct Blocked(libc::sigset_t);

/// Blocks both for this thread and those it starts from now on.
pub fn block() -> Blocked {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set before anything reads it; the signal numbers are valid, and changing this
    // thread's mask touches no memory of ours.
    let set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        set.assume_init()
    };
    Blocked(set)
}

impl Blocked {
    /// Waits for one of them and says which.
    pub fn wait(&self) -> &'static str {
        let mut signal = 0;
        // SAFETY: both pointers are to initialised values that live through the call.
        unsafe { libc::sigwait(&raw const self.0, &raw mut signal) };
        if signal == libc::SIGINT {
            "SIGINT"
        } else {
            "SIGTERM"
        }
    }
}
