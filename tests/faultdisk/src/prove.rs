//! The proofs: real brokers on the faulty disk, and on what power cuts may leave of it.

pub mod disk;
pub mod faults;
pub mod judge;
pub mod power_cut;
pub mod record;
pub mod stage;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// How a broker makes its log durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    pub flusher: Flusher,
    pub sync: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Flusher {
    Mmap,
    Direct,
}

impl Mode {
    /// Lines of broker.conf. `window` is a directory in memory that goes when the power is cut.
    pub fn settings_with(self, window: &Path) -> Vec<String> {
        let flusher = self.flusher.name();
        let mut settings = vec![
            format!("flusher={flusher}"),
            format!("flushDiskType={}", self.flush()),
        ];
        if self.flusher == Flusher::Direct {
            settings.push(format!("windowDir={}", window.display()));
            // The least it works with: brokers are started often.
            settings.push("memory=256M".to_owned());
        }
        settings
    }

    fn flush(self) -> &'static str {
        match self.sync {
            true => "SYNC_FLUSH",
            false => "ASYNC_FLUSH",
        }
    }

    /// For directories: paths of sockets are short.
    pub fn directory(self) -> String {
        format!("{self}").replace(' ', "-")
    }
}

impl Flusher {
    fn name(self) -> &'static str {
        match self {
            Flusher::Mmap => "mmap",
            Flusher::Direct => "direct",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.flusher.name(), self.flush())
    }
}

const SHARED_MEMORY: &str = "/dev/shm";

/// A directory in shared memory: where windows outlive their processes, and a cut power supply ends them. Its name tells
/// whose it is, for who cleans up behind a proof that was killed.
pub fn memory() -> io::Result<TempDir> {
    let prefix = format!("orbit-faultdisk.{}.", std::process::id());
    let mut builder = tempfile::Builder::new();
    let named = builder.prefix(&prefix);
    named.tempdir_in(SHARED_MEMORY).or_else(|_| named.tempdir())
}

/// What every proof needs.
#[derive(Clone)]
pub struct Setting {
    /// The broker's binary.
    pub broker: PathBuf,
    /// A directory of our own.
    pub work: PathBuf,
    pub port: u16,
    pub seed: u64,
    pub modes: Vec<Mode>,
    /// More lines for broker.conf.
    pub settings: Vec<String>,
}
