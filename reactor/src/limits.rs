//! What the system allows this process, and which run of which system it is.

use std::fs;
use std::io;

use crate::core;
use crate::driver::sim;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const PID_NAMESPACE: &str = "/proc/self/ns/pid";
/// The kernel gives the first process's namespace this number.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

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

/// A number for the time since the machine was started; memory that outlives processes does not outlive it. Blocks.
pub fn boot_id() -> io::Result<[u8; 16]> {
    if let Some(core) = core::sim() {
        return sim::fs::boot_id(&core);
    }
    let digits = fs::read_to_string(BOOT_ID)?.trim().replace('-', "");
    match u128::from_str_radix(&digits, 16) {
        Ok(id) => Ok(id.to_be_bytes()),
        Err(_) => Err(io::Error::other(format!("{BOOT_ID} is not a number"))),
    }
}

/// Whether this process lives in a container, as far as it can tell: what it shares with others may go with it. Blocks.
pub fn is_in_container() -> bool {
    if core::sim().is_some() {
        return false;
    }
    fs::read_link(PID_NAMESPACE).is_ok_and(|own| own.as_os_str() != FIRST_PID_NAMESPACE)
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
    fn the_machines_run_has_a_number() {
        let id = boot_id().unwrap();
        assert_ne!(id, [0; 16]);
        assert_eq!(boot_id().unwrap(), id);
    }

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
