//! The proofs: real brokers on the faulty disk, and on what power cuts may leave of it.

pub mod disk;
pub mod faults;
pub mod judge;
pub mod power_cut;
pub mod record;
pub mod stage;

use std::fmt;
use std::path::PathBuf;

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
    pub fn settings(self) -> Vec<String> {
        let flusher = match self.flusher {
            Flusher::Mmap => "mmap",
            Flusher::Direct => "direct",
        };
        let flush = match self.sync {
            true => "SYNC_FLUSH",
            false => "ASYNC_FLUSH",
        };
        vec![
            format!("flusher={flusher}"),
            format!("flushDiskType={flush}"),
        ]
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.settings().join(" "))
    }
}

/// A directory in shared memory: where windows outlive their processes, and a cut power supply ends them.
fn memory() -> std::io::Result<tempfile::TempDir> {
    match tempfile::tempdir_in("/dev/shm") {
        Ok(directory) => Ok(directory),
        Err(_) => tempfile::tempdir(),
    }
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
