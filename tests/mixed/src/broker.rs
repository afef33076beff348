//! The broker as a child process: started by a command line, killed, started again. It dies with the thread that started
//! it: the main thread, which lives as long as the run.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::time::Instant;

use crate::error::{Error, Result};

const READY: &str = "boot success";
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(2);
const LOG_TAIL_BYTES: usize = 3_000;

pub struct Broker {
    command: String,
    log: PathBuf,
    process: Child,
}

impl Broker {
    /// `command` is a shell's command line that stays in the foreground. Gives a broker that is ready.
    pub async fn start(command: &str, log: &Path) -> Result<Broker> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(Error::io(format!("opening {}", log.display())))?;
        let log_from = output.metadata().map_or(0, |data| data.len());
        let mut broker = Broker {
            process: spawn(command, output)?,
            command: command.to_owned(),
            log: log.to_owned(),
        };
        broker.wait_until_ready(log_from).await?;
        Ok(broker)
    }

    /// Its port says nothing: the socket of one that was killed may still be there.
    async fn wait_until_ready(&mut self, log_from: u64) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if String::from_utf8_lossy(&read_from(&self.log, log_from)).contains(READY) {
                return Ok(());
            }
            let problem = match self.ended() {
                Some(status) => format!("it ended with {status}"),
                None if Instant::now() > deadline => format!("not ready after {START_LIMIT:?}"),
                None => {
                    tokio::time::sleep(POLL).await;
                    continue;
                }
            };
            let tail = self.log_tail();
            return Err(Error::Failed(format!(
                "the broker does not start, {problem}:\n{tail}"
            )));
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its exit status, if it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// SIGKILL; it is gone when this returns.
    pub fn kill(&mut self) -> Result<()> {
        let killed = self.process.kill().and_then(|()| self.process.wait());
        killed.map(drop).map_err(Error::io("killing the broker"))
    }

    /// The same command once more.
    pub async fn start_again(&mut self) -> Result<()> {
        self.kill()?;
        let (command, log) = (self.command.clone(), self.log.clone());
        *self = Broker::start(&command, &log).await?;
        Ok(())
    }

    /// SIGTERM; its exit status, or `None` if it had to be killed.
    pub async fn stop(mut self) -> Result<Option<ExitStatus>> {
        let pid = Pid::from_raw(self.pid() as i32).expect("a child has a pid");
        let told = kill_process(pid, Signal::TERM);
        told.map_err(|error| Error::io("stopping the broker")(error.into()))?;
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return Ok(Some(status));
            }
            tokio::time::sleep(POLL).await;
        }
        self.kill().map(|()| None)
    }

    pub fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES)..];
        String::from_utf8_lossy(tail).into_owned()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Already gone after `kill` and `stop`.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(command: &str, output: File) -> Result<Child> {
    let errors = output
        .try_clone()
        .map_err(Error::io("opening the log twice"))?;
    let mut shell = Command::new("/bin/sh");
    // SAFETY: between fork and exec only one system call is made, which allocates and locks nothing.
    unsafe {
        shell.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    // `exec`, so that the shell becomes the broker and signals reach it; a process group of its own, so that Ctrl-C
    // in the terminal reaches only us.
    shell
        .arg("-c")
        .arg(format!("exec {command}"))
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(Error::io(format!("starting {command}")))
}

/// What a file holds behind an offset; nothing if it cannot be read.
pub fn read_from(path: &Path, offset: u64) -> Vec<u8> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().unwrap_or_default()
}
