//! What the system allows this process.

use std::io;

/// Lets this process open as many files as it may at all, and says how many. Each connection is one, each log file is one;
/// shells and service managers start programs with far less than they are allowed. Called before the first core starts.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = open_files()?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the structure lives through the call.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
        0 => Ok(limit.rlim_cur),
        _ => Err(io::Error::last_os_error()),
    }
}

pub(crate) fn open_files() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure lives through the call.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_goes_up_to_what_is_allowed() {
        let mut limit = open_files().unwrap();
        let allowed = limit.rlim_max;
        limit.rlim_cur = allowed - 1;
        // SAFETY: the structure lives through the call.
        let lowered = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
        assert_eq!(lowered, 0, "a lower limit is always allowed");
        assert_eq!(raise_open_files().unwrap(), allowed);
        assert_eq!(open_files().unwrap().rlim_cur, allowed);
    }
}
