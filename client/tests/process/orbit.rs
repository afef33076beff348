//! A broker of ours as a process of its own, with its name server in it. The binary is the one that lies beside the test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use orbitmq_client::admin::Admin;
use rustix::process::{Pid, Signal, kill_process};

const START_LIMIT: Duration = Duration::from_secs(30);
/// Below the ports that the system gives to whoever asks.
const PORTS: std::ops::Range<u16> = 20_800..32_000;

pub struct Orbit {
    process: Child,
    binary: PathBuf,
    port: u16,
    pub name_server: String,
    folder: tempfile::TempDir,
    /// Where the memory lies that outlives a killed broker.
    _windows: tempfile::TempDir,
}

impl Drop for Orbit {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn binary(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let path = own.parent()?.parent()?.join(name);
    path.exists().then_some(path)
}

/// Ports that were free a moment ago; the broker also wants two below and one above its own.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let len = PORTS.end - PORTS.start;
    let own = (std::process::id() % 600) as u16 * 18;
    loop {
        let step = NEXT.fetch_add(6, Ordering::Relaxed);
        let port = PORTS.start + own.wrapping_add(step) % (len - 4) + 2;
        let free = (port - 2..=port + 1).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
        if free {
            return port;
        }
    }
}

impl Orbit {
    /// With these lines in its configuration besides; `None`, with a word, where only this crate was built.
    pub async fn start(lines: &[&str]) -> Option<Orbit> {
        let Some(binary) = binary("orbit-broker") else {
            eprintln!("skipped: there is no orbit-broker beside this test");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let windows = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let windows = windows.expect("a folder of shared memory");
        let (port, namesrv_port) = (free_port(), free_port());
        let text = format!(
            "brokerName=test\nbrokerIP1=127.0.0.1\nbindAddress=127.0.0.1\nlistenPort={port}\n\
             namesrvListenPort={namesrv_port}\nmappedFileSizeCommitLog=67108864\nstorePathRootDir={}\nwindowDir={}\n{}\n",
            folder.path().join("store").display(),
            windows.path().display(),
            lines.join("\n"),
        );
        std::fs::write(folder.path().join("broker.conf"), text).expect("written");
        let orbit = Orbit {
            process: spawn(&binary, folder.path()),
            binary,
            port,
            name_server: format!("127.0.0.1:{namesrv_port}"),
            folder,
            _windows: windows,
        };
        orbit.listens().await;
        Some(orbit)
    }

    /// And its name server knows it.
    async fn listens(&self) {
        let admin = Admin::new(&self.name_server).expect("an address");
        let is_known = async || {
            let brokers = admin.brokers().await;
            brokers.is_ok_and(|brokers| !brokers.is_empty())
        };
        let listening = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.port))
                .await
                .is_err()
                || !is_known().await
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let listening = tokio::time::timeout(START_LIMIT, listening).await;
        if listening.is_err() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            panic!("the broker does not listen:\n{log}");
        }
    }

    /// A group's offsets in the queues of a topic, as the broker has saved them.
    #[allow(dead_code, reason = "not every test asks")]
    pub fn saved_offsets(&self, topic: &str, group: &str) -> Vec<i64> {
        let file = self.folder.path().join("store/config/consumerOffset.json");
        let saved = std::fs::read(file).unwrap_or_default();
        let saved: serde_json::Value = protocol::json::from_slice(&saved).unwrap_or_default();
        let queues = &saved["offsetTable"][format!("{topic}@{group}")];
        let offsets = queues
            .as_object()
            .into_iter()
            .flat_map(|queues| queues.values());
        offsets.filter_map(serde_json::Value::as_i64).collect()
    }

    /// Ends the process, at once or as an operator would, and starts it again on its store.
    #[allow(dead_code, reason = "not every test restarts a broker")]
    pub async fn restart(&mut self, kill: bool) {
        match kill {
            true => self.process.kill().expect("killed"),
            false => {
                let id = Pid::from_child(&self.process);
                kill_process(id, Signal::TERM).expect("a process of ours");
            }
        }
        self.process.wait().expect("it ends");
        self.process = spawn(&self.binary, self.folder.path());
        self.listens().await;
    }
}

fn spawn(binary: &Path, folder: &Path) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .expect("a log");
    Command::new(binary)
        .arg("-c")
        .arg(folder.join("broker.conf"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("started")
}
