//! The faulty disk as a child process of a proof: mounted for it, unmounted with it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::control::Control;
use crate::error::{Error, Result};

pub struct Mounted {
    process: Child,
    control: Control,
    /// Where it is mounted.
    pub directory: PathBuf,
    pub socket: PathBuf,
}

impl Mounted {
    /// An empty disk below `work`. Call it on the main thread: the disk goes with the thread.
    pub fn start(work: &Path, capacity_bytes: u64, record: Option<&Path>) -> Result<Mounted> {
        let directory = work.join("disk");
        let backing = work.join("backing");
        let socket = work.join("control");
        for path in [&directory, &backing] {
            fs::create_dir_all(path)?;
        }
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("mount")
            .arg(&directory)
            .arg("--backing")
            .arg(&backing)
            .arg("--control")
            .arg(&socket)
            .arg("--capacity")
            .arg(capacity_bytes.to_string())
            .arg("--of-a-proof")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if let Some(trace) = record {
            command.arg("--record").arg(trace);
        }
        let mut process = command.spawn().map_err(Error::io("starting the disk"))?;
        let output = process.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        if !line.starts_with("mounted") {
            return Err(Error::Wrong("the disk cannot be mounted".into()));
        }
        Ok(Mounted {
            process,
            control: Control::connect(&socket).map_err(Error::io("the disk's control socket"))?,
            directory,
            socket,
        })
    }

    /// A control command; what it says.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        self.control
            .ask(line)
            .map_err(Error::io(format!("telling the disk: {line}")))
    }

    /// One of the disk's counts.
    pub fn count(&mut self, name: &str) -> Result<u64> {
        let stats = self.ask("stats")?;
        let mut words = stats.split(' ').skip_while(|word| *word != name);
        let value = words.nth(1).and_then(|value| value.parse().ok());
        value.ok_or_else(|| Error::Wrong(format!("the disk does not count {name}")))
    }

    /// Unmounts; the trace is complete afterwards. Nobody may have a file open.
    pub fn unmount(mut self) -> Result<()> {
        terminate(&self.process);
        let status = self.process.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(Error::Wrong(format!("the disk ended with {status}"))),
        }
    }
}

fn terminate(process: &Child) {
    // SAFETY: a signal to our own child, which has not been waited for.
    unsafe { libc::kill(process.id() as i32, libc::SIGTERM) };
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            terminate(&self.process);
            let _ = self.process.wait();
        }
    }
}
