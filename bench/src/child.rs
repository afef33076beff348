//! A server that the harness runs: started through the shell, its output in a file, ended with the harness.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::error::{Error, Result};

const LOG_TAIL_BYTES: usize = 2_000;
const POLL: Duration = Duration::from_millis(5);

pub struct Child {
    process: process::Child,
    command: String,
    log: PathBuf,
}

impl Child {
    /// `command` is a shell's command line that stays in the foreground.
    pub fn start(command: &str, log: &Path) -> Result<Child> {
        let open = |_| OpenOptions::new().create(true).append(true).open(log);
        let output: File = open(()).map_err(Error::io(format!("opening {}", log.display())))?;
        let errors = output
            .try_clone()
            .map_err(Error::io("opening the log twice"))?;
        // `exec`, so that the shell becomes the server and signals reach it; a process group of its own, so that
        // Ctrl-C in the terminal reaches only the harness.
        let mut shell = Command::new("/bin/sh");
        // SAFETY: between fork and exec only one system call is made, which allocates and locks nothing.
        unsafe {
            // The harness may die without a chance to end what it started.
            shell.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let process = shell
            .arg("-c")
            .arg(format!("exec {command}"))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(Error::io(format!("starting {command}")))?;
        Ok(Child {
            process,
            command: command.to_owned(),
            log: log.to_owned(),
        })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Its exit status, if it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// The last lines of its output, to be shown when it fails.
    pub fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES)..];
        String::from_utf8_lossy(tail).into_owned()
    }

    /// Lines of its output that hold `text`, since it was first started.
    pub fn logged_lines(&self, text: &str) -> usize {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.lines().filter(|line| line.contains(text)).count()
    }

    /// The number that its output last gave as `key=number`.
    pub fn logged_number(&self, key: &str) -> Option<f64> {
        let log = fs::read(&self.log).unwrap_or_default();
        last_number(&String::from_utf8_lossy(&log), key)
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        let killed = self.process.kill().and_then(|()| self.process.wait());
        killed.map(drop).map_err(Error::io("killing the server"))
    }

    /// The same command once more, after the first process is gone.
    pub fn start_again(mut self) -> Result<Child> {
        self.kill()?;
        Child::start(&self.command.clone(), &self.log.clone())
    }

    /// SIGTERM, then whatever is to happen while it is down, then the same command once more.
    pub fn restart(self, limit: Duration, between: impl FnOnce() -> Result<()>) -> Result<Child> {
        let (command, log) = (self.command.clone(), self.log.clone());
        match self.stop(limit)? {
            Some(_) => {}
            None => {
                return Err(Error::Failed(format!(
                    "{command} did not stop in {limit:?}"
                )));
            }
        }
        between()?;
        Child::start(&command, &log)
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid() as i32).expect("a child has a pid");
        kill_process(pid, signal).map_err(|error| Error::io("signalling the server")(error.into()))
    }

    /// SIGTERM; its exit code, or `None` if a signal ended it or it had to be killed after `limit`.
    pub fn stop(mut self, limit: Duration) -> Result<Option<i32>> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + limit;
        while self.is_alive() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        match self.process.try_wait() {
            Ok(Some(status)) => Ok(status.code()),
            _ => self.kill().map(|()| None),
        }
    }
}

fn last_number(log: &str, key: &str) -> Option<f64> {
    let words = log.split_whitespace().rev();
    let mut values = words.filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    values.next()?.parse().ok()
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.is_alive() {
            // A stopped process must run to die of SIGTERM, but SIGKILL ends it as it is.
            let _ = self.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_of_a_key_counts() {
        let log = "INFO a read_bytes=5 end=7\nINFO b read_bytes=12\nWARN c xread_bytes=3";
        assert_eq!(last_number(log, "read_bytes"), Some(12.0));
        assert_eq!(last_number(log, "bytes"), None);
    }

    #[test]
    fn a_server_is_stopped_killed_and_started_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("log");
        let child = Child::start(
            "sh -c 'trap \"exit 3\" TERM; echo up; while :; do sleep 0.01; done'",
            &log,
        );
        let mut child = child
            .expect("started")
            .start_again()
            .expect("killed and started");
        assert!(child.is_alive());
        let deadline = Instant::now() + Duration::from_secs(10);
        // The trap is set once the line is out; the first process may or may not have got so far.
        while std::fs::metadata(&log).map_or(0, |log| log.len()) < 3 && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        assert!(child.stop(Duration::from_secs(10)).is_ok());
    }
}
