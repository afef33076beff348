//! A real broker as a child process: its settings, its start, its end. It dies with the proof.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::ensure;
use crate::error::{Error, Result};

/// What stays the same over all starts.
#[derive(Clone)]
pub struct Setup {
    pub binary: PathBuf,
    pub store: PathBuf,
    /// For its settings file and its log.
    pub work: PathBuf,
    pub port: u16,
    /// Lines of broker.conf, such as `flushDiskType=SYNC_FLUSH`.
    pub settings: Vec<String>,
}

pub struct Broker {
    process: Child,
    address: SocketAddr,
    log: PathBuf,
    /// Where its own lines begin.
    log_from: usize,
}

const READY: &str = "boot success";
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(1);
const LOG_TAIL_BYTES: usize = 3_000;

impl Setup {
    /// Starts it and waits until it is ready. Call it on the main thread: the broker dies with the thread.
    pub fn start(&self) -> Result<Broker> {
        let config = self.work.join("broker.conf");
        fs::write(&config, self.lines()).map_err(Error::io("writing broker.conf"))?;
        let path = self.work.join("broker.log");
        let log = File::options().create(true).append(true).open(&path)?;
        let log_from = log.metadata()?.len() as usize;
        let mut command = Command::new(&self.binary);
        command
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // SAFETY: between fork and exec only one system call is made, which allocates and locks nothing.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let what = format!("starting {}", self.binary.display());
        let process = command.spawn().map_err(Error::io(what))?;
        let broker = Broker {
            process,
            address: (Ipv4Addr::LOCALHOST, self.port).into(),
            log: path,
            log_from,
        };
        broker.wait_until_ready()
    }

    /// `orbit-broker check` on the store, which no broker has open: nothing is wrong with it.
    pub fn check(&self) -> Result<()> {
        let checked = Command::new(&self.binary)
            .arg("check")
            .arg("--store")
            .arg(&self.store)
            .output()
            .map_err(Error::io("running orbit-broker check"))?;
        ensure!(
            checked.status.success(),
            "orbit-broker check finds the store damaged, {}:\n{}{}",
            checked.status,
            String::from_utf8_lossy(&checked.stdout),
            String::from_utf8_lossy(&checked.stderr)
        );
        Ok(())
    }

    fn lines(&self) -> String {
        let mut lines = vec![
            "brokerName=faultdisk".to_owned(),
            "brokerIP1=127.0.0.1".to_owned(),
            "bindAddress=127.0.0.1".to_owned(),
            format!("listenPort={}", self.port),
            format!("namesrvListenPort={}", self.port + 1),
            format!("storePathRootDir={}", self.store.display()),
        ];
        lines.extend(self.settings.iter().cloned());
        lines.join("\n") + "\n"
    }
}

impl Broker {
    /// It says so in its log. Its port says nothing: the socket of a broker that was killed may still be there.
    fn wait_until_ready(mut self) -> Result<Broker> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if self.new_log().contains(READY) {
                return Ok(self);
            }
            if let Some(status) = self.ended() {
                let tail = self.log_tail();
                return Err(Error::Wrong(format!(
                    "the broker ended at its start with {status}:\n{tail}"
                )));
            }
            if Instant::now() > deadline {
                let tail = self.log_tail();
                return Err(Error::Wrong(format!(
                    "the broker is not ready after {START_LIMIT:?}:\n{tail}"
                )));
            }
            thread::sleep(POLL);
        }
    }

    /// What it has logged since its start.
    pub fn new_log(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let new = log.get(self.log_from..).unwrap_or_default();
        String::from_utf8_lossy(new).into_owned()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connect(&self) -> Result<Client> {
        Client::connect(self.address).map_err(Error::io("connecting to the broker"))
    }

    /// Its exit status, if it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    pub fn kill(mut self) -> io::Result<()> {
        self.process.kill()?;
        self.process.wait().map(drop)
    }

    /// SIGTERM; `None` if it had to be killed.
    pub fn stop(mut self) -> io::Result<Option<ExitStatus>> {
        // SAFETY: a signal to our own child, which has not been waited for.
        unsafe { libc::kill(self.process.id() as i32, libc::SIGTERM) };
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait()? {
                return Ok(Some(status));
            }
            thread::sleep(POLL);
        }
        self.kill().map(|()| None)
    }

    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Already gone after `kill` and `stop`.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn log_tail(path: &Path) -> String {
    let log = fs::read(path).unwrap_or_default();
    let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES)..];
    String::from_utf8_lossy(tail).into_owned()
}
