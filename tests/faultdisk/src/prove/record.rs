//! A broker's life on a recording disk: load, a clean restart, load, a kill, load, and the end in the middle of it.

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::disk::Mounted;
use super::{Mode, Setting};
use crate::broker::{Broker, Setup};
use crate::ensure;
use crate::error::{Error, Result};
use crate::load::{Load, Outcome, Plan};

pub const TOPIC: &str = "PowerCut";
pub const QUEUES: u32 = 4;

const SENDERS: u32 = 4;
const DEPTH: usize = 4;
const BODY_BYTES_MAX: usize = 6_000;
/// Small, so that a short run has many of them.
const SEGMENT_BYTES: u64 = 1 << 20;
const CAPACITY_BYTES: u64 = 4 << 30;
const PAUSE: Duration = Duration::from_millis(5);
/// Writes and syncs take a moment, so that others come between.
const SLOW: &str = "slow 300 write,fsync";
const LOAD_LIMIT: Duration = Duration::from_secs(30);

/// What brokers are started with, here and on what is left.
pub fn settings(setting: &Setting, mode: Mode, window: &Path) -> Vec<String> {
    let mut settings = mode.settings_with(window);
    settings.extend([
        format!("mappedFileSizeCommitLog={SEGMENT_BYTES}"),
        "flushIntervalCommitLog=20".to_owned(),
        "flushCommitLogThoroughInterval=100".to_owned(),
    ]);
    settings.extend(setting.settings.iter().cloned());
    settings
}

/// Records a run of about `messages` messages.
pub fn record(
    setting: &Setting,
    mode: Mode,
    work: &Path,
    trace: &Path,
    messages: u64,
) -> Result<u64> {
    let mut disk = Mounted::start(work, CAPACITY_BYTES, Some(trace))?;
    disk.ask(SLOW)?;
    let memory = super::memory()?;
    let setup = Setup {
        binary: setting.broker.clone(),
        store: disk.directory.join("store"),
        work: work.to_path_buf(),
        port: setting.port,
        settings: settings(setting, mode, memory.path()),
    };
    // As it is where the store is a mount point, or was made by a package.
    fs::create_dir(&setup.store)?;
    File::open(&disk.directory)?.sync_all()?;
    let mut acknowledged = 0;
    for life in 0..3 {
        let broker = setup.start()?;
        if life == 0 {
            let mut client = broker.connect()?;
            client.create_topic(TOPIC, QUEUES)?;
        }
        let load = load(&broker, &disk, life);
        if let Err(error) = wait_for(&load, messages / 3) {
            let broken = load.finish().broken;
            let log = broker.log_tail();
            return Err(Error::Wrong(format!("{error}: {broken:?}\n{log}")));
        }
        if life == 0 {
            judge(&load.finish(), &mut acknowledged)?;
            let status = broker.stop()?;
            let clean = status.is_some_and(|status| status.success());
            ensure!(clean, "the broker did not stop cleanly: {status:?}");
        } else {
            broker.kill()?;
            judge(&load.finish(), &mut acknowledged)?;
        }
    }
    disk.unmount()?;
    Ok(acknowledged)
}

fn load(broker: &Broker, disk: &Mounted, life: u32) -> Load {
    Load::start(&Plan {
        address: broker.address(),
        topic: TOPIC.into(),
        queues: QUEUES,
        senders: SENDERS,
        depth: DEPTH,
        body_bytes_max: BODY_BYTES_MAX,
        first_sender: life * SENDERS,
        pause: PAUSE,
        control: Some(disk.socket.clone()),
    })
}

fn wait_for(load: &Load, messages: u64) -> Result<()> {
    let deadline = Instant::now() + LOAD_LIMIT;
    while load.stored() < messages {
        ensure!(!load.is_over(), "the broker hung up on all senders");
        ensure!(
            Instant::now() < deadline,
            "only {} of {messages} messages in {LOAD_LIMIT:?}",
            load.stored()
        );
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn judge(outcome: &Outcome, acknowledged: &mut u64) -> Result<()> {
    ensure!(
        outcome.refused.is_empty(),
        "a well disk, but sends were refused: {:?}",
        outcome.refused
    );
    ensure!(outcome.given_twice == 0, "offsets were given twice");
    *acknowledged += outcome.stored.len() as u64;
    Ok(())
}
