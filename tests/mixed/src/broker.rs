//! The broker as a child process: started by a command line, killed, started again. It dies with the thread that started
//! it: the main thread, which lives as long as the run.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use bench::child::Child;
use tokio::time::Instant;

use crate::error::{Error, Result};

const READY: &str = "boot success";
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(2);

pub struct Broker {
    command: String,
    log: PathBuf,
    process: Child,
}

impl Broker {
    /// `command` is a shell's command line that stays in the foreground. Gives a broker that is ready.
    pub async fn start(command: &str, log: &Path) -> Result<Broker> {
        let log_from = fs::metadata(log).map_or(0, |data| data.len());
        let mut broker = Broker {
            process: Child::start(command, log)?,
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
            let problem = match self.process.ended() {
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
        self.process.pid()
    }

    /// Its exit status, if it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// SIGKILL, and the same command once more when it is gone.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process.kill()?;
        let (command, log) = (self.command.clone(), self.log.clone());
        *self = Broker::start(&command, &log).await?;
        Ok(())
    }

    /// SIGTERM; its exit code, or `None` if it had to be killed. Nothing else is done meanwhile.
    pub fn stop(self) -> Result<Option<i32>> {
        Ok(self.process.stop(STOP_LIMIT)?)
    }

    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
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
