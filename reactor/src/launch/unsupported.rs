//! Why io_uring is not to be had, in plain words.

use std::fmt;
use std::fs;
use std::io;

/// Why this process cannot run a core. Displays as one sentence with the way out.
#[derive(Debug)]
pub enum Unsupported {
    /// The kernel has no io_uring, or hides it.
    Missing,
    /// The kernel has it but this process is not allowed to use it.
    Forbidden {
        sysctl: Option<String>,
    },
    /// The locked-memory limit is too small.
    Memory,
    /// The kernel's io_uring is too old for a feature.
    Old {
        missing: &'static str,
    },
    Other(io::Error),
}

const DISABLED_SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";

impl Unsupported {
    /// From the error of the set-up system call.
    pub(crate) fn of_setup(error: io::Error) -> Unsupported {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => Unsupported::Missing,
            Some(libc::EPERM | libc::EACCES) => Unsupported::Forbidden {
                sysctl: fs::read_to_string(DISABLED_SYSCTL)
                    .ok()
                    .map(|value| value.trim().to_owned())
                    .filter(|value| value != "0"),
            },
            Some(libc::ENOMEM) => Unsupported::Memory,
            Some(libc::EINVAL) => Unsupported::Old {
                missing: "single-issuer rings",
            },
            _ => Unsupported::Other(error),
        }
    }

    /// From the error of a later step that needs `feature`.
    pub(crate) fn of_feature(error: io::Error, feature: &'static str) -> Unsupported {
        match error.raw_os_error() {
            Some(libc::EINVAL | libc::EOPNOTSUPP) => Unsupported::Old { missing: feature },
            Some(libc::ENOMEM) => Unsupported::Memory,
            Some(libc::EPERM | libc::EACCES) => Unsupported::of_setup(error),
            _ => Unsupported::Other(error),
        }
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsupported::Missing => f.write_str(
                "this kernel offers no io_uring: use Linux 6.1 or later, and under a container runtime a seccomp profile \
                 that allows io_uring_setup, io_uring_enter and io_uring_register",
            ),
            Unsupported::Forbidden {
                sysctl: Some(value),
            } => write!(
                f,
                "io_uring is switched off by the system (kernel.io_uring_disabled={value}): run \
                 `sysctl kernel.io_uring_disabled=0`"
            ),
            Unsupported::Forbidden { sysctl: None } => f.write_str(
                "this process may not use io_uring: its container's seccomp profile forbids it; allow io_uring_setup, \
                 io_uring_enter and io_uring_register (docker run --security-opt seccomp=<profile>)",
            ),
            Unsupported::Memory => f.write_str(
                "there is not enough memory for an io_uring: raise the locked-memory limit (ulimit -l, LimitMEMLOCK= in \
                 a systemd unit) to 8 MiB or the container's memory limit",
            ),
            Unsupported::Old { missing } => write!(
                f,
                "this kernel's io_uring is too old, it lacks {missing}: use Linux 6.1 or later"
            ),
            Unsupported::Other(error) => write!(
                f,
                "io_uring could not be set up: {error}; use Linux 6.1 or later and allow the io_uring system calls"
            ),
        }
    }
}

impl std::error::Error for Unsupported {}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(errno: i32) -> String {
        Unsupported::of_setup(io::Error::from_raw_os_error(errno)).to_string()
    }

    #[test]
    fn every_refusal_is_one_line_that_names_a_way_out() {
        for (errno, way_out) in [
            (libc::ENOSYS, "Linux 6.1"),
            (libc::EPERM, "io_uring"),
            (libc::ENOMEM, "ulimit -l"),
            (libc::EINVAL, "Linux 6.1"),
            (libc::EMFILE, "allow"),
        ] {
            let text = sentence(errno);
            assert!(text.contains(way_out), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
        let sysctl = Unsupported::Forbidden {
            sysctl: Some("2".to_owned()),
        };
        assert!(
            sysctl
                .to_string()
                .contains("sysctl kernel.io_uring_disabled=0")
        );
    }
}
