//! `orbit-broker health`: one word about the broker of these settings, for scripts and probes. Exit code 0 only if it takes
//! messages and serves them.
//!
//! A broker that answers says how it is itself (`orbitHealth` of its runtime information). One that does not listen yet is
//! reading the end of its log, and leaves how far it has come in `store/orbit/status`. Nothing is locked or changed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use engine::Progress;
use reactor::{File, Instant, OpenOptions, fs};

use crate::config::Settings;
use crate::doctor::ask;

/// How often the broker says how far it has come.
const SAY_EVERY: Duration = Duration::from_secs(1);
pub const READY: &str = "ready";

/// How a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Ready,
    /// It answers; what it says: `read-only: ..` or `poisoned: ..`.
    Ailing(String),
    /// It runs and does not listen yet; how far it has come.
    Recovering(String),
    Down,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Health::Ready => f.write_str(READY),
            Health::Ailing(what) => f.write_str(what),
            Health::Recovering(how_far) if how_far.is_empty() => f.write_str("recovering"),
            Health::Recovering(how_far) => write!(f, "recovering: {how_far}"),
            Health::Down => f.write_str("down"),
        }
    }
}

/// Asks, prints, and says it by the exit code.
pub fn run(settings: &Settings) -> ExitCode {
    let health = look(settings);
    println!("{health}");
    match health {
        Health::Ready => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn look(settings: &Settings) -> Health {
    let ip = match settings.bind_address {
        any if any.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    let address = SocketAddr::new(ip, settings.listen_port);
    let said = ask::runtime(address).ok();
    let said = said.map(|mut table| table.remove("orbitHealth").unwrap_or_default());
    let running = is_running(&settings.store_root.join("lock"));
    let status = fs::read(&status_path(&settings.store_root)).ok();
    judge(said, running, status)
}

fn judge(said: Option<String>, running: bool, status: Option<Vec<u8>>) -> Health {
    match said {
        // Somebody without the key is no broker of ours.
        Some(said) if said == READY => Health::Ready,
        Some(said) if !said.is_empty() => Health::Ailing(said),
        _ if running => {
            let status = status.unwrap_or_default();
            Health::Recovering(String::from_utf8_lossy(&status).trim().to_owned())
        }
        _ => Health::Down,
    }
}

/// Whether somebody has the store open. The number in the lock file does not tell: it may be another process's by now.
fn is_running(lock: &Path) -> bool {
    fs::lock_to_look(lock).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

fn status_path(store: &Path) -> PathBuf {
    store.join("orbit").join("status")
}

/// Says how far the recovery of a store has come, in the log and to `health`, until it is dropped.
pub struct Recovery {
    status: PathBuf,
    began: Instant,
    said: Option<Instant>,
}

impl Recovery {
    pub fn begin(store: &Path) -> Self {
        Self {
            status: status_path(store),
            began: reactor::now(),
            said: None,
        }
    }

    pub fn say(&mut self, progress: Progress) {
        let now = reactor::now();
        let last = self.said.unwrap_or(self.began);
        if now.saturating_since(last) < SAY_EVERY {
            return;
        }
        self.said = Some(now);
        let how_far = how_far(&progress, now.saturating_since(self.began));
        tracing::info!("reading the end of the log: {how_far}");
        // It is for probes only; the recovery does not depend on it.
        if let Err(error) = self.write(&how_far) {
            tracing::debug!(%error, "the status cannot be written");
        }
    }

    fn write(&self, how_far: &str) -> std::io::Result<()> {
        let options = OpenOptions {
            write: true,
            create: true,
            truncate: true,
            ..OpenOptions::default()
        };
        File::open(&self.status, options)?.write_all_at_blocking(how_far.as_bytes(), 0)
    }
}

impl Drop for Recovery {
    fn drop(&mut self) {
        if self.said.is_some() {
            // Nobody reads it while the broker answers.
            let _ = fs::remove_file(&self.status);
        }
    }
}

/// `42 % of 3072 MiB, 12 s to go`
fn how_far(progress: &Progress, taken: Duration) -> String {
    let (read, total) = (progress.read_bytes.max(1), progress.total_bytes.max(1));
    let percent = (read * 100 / total).min(100);
    let rest = total.saturating_sub(read) as f64 / read as f64;
    let to_go_s = (taken.as_secs_f64() * rest).ceil();
    format!("{percent} % of {} MiB, {to_go_s} s to go", total >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_says_counts_and_silence_means_recovering_while_it_runs() {
        let said = |text: &str| Some(text.to_owned());
        assert_eq!(judge(said(READY), true, None), Health::Ready);
        let full = "read-only: the disk is 96 % full";
        assert_eq!(judge(said(full), true, None).to_string(), full);
        let status = Some(b"42 % of 3 MiB, 1 s to go".to_vec());
        let health = judge(None, true, status.clone());
        assert_eq!(health.to_string(), "recovering: 42 % of 3 MiB, 1 s to go");
        assert_eq!(judge(None, true, None).to_string(), "recovering");
        assert_eq!(judge(None, false, status), Health::Down);
    }

    #[test]
    fn the_time_to_go_follows_from_the_time_taken() {
        let progress = Progress {
            read_bytes: 1 << 30,
            total_bytes: 3 << 30,
        };
        let text = how_far(&progress, Duration::from_secs(2));
        assert_eq!(text, "33 % of 3072 MiB, 4 s to go");
    }

    #[test]
    fn only_a_lock_that_is_held_is_a_sign_of_life() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let lock = dir.path().join("lock");
        assert!(!is_running(&lock));
        assert!(!lock.exists(), "who looks leaves no trace");
        let held = fs::lock(&lock).expect("a temporary directory");
        assert!(is_running(&lock));
        drop(held);
        // The number of a process that lives, as after a restart of a container.
        std::fs::write(&lock, std::process::id().to_string()).expect("a temporary directory");
        assert!(!is_running(&lock));
        drop(fs::lock(&lock).expect("looking has let go of it"));
    }
}
