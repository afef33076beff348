//! Where a fault is tried: a fresh disk, a broker on it, senders, and the book of everything that was promised.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::disk::Mounted;
use super::{Mode, Setting};
use crate::broker::{Broker, Setup};
use crate::client::{Client, Sent};
use crate::ensure;
use crate::error::{Error, Result};
use crate::load::{Load, Outcome, Plan};
use crate::payload::{self, Number};
use crate::promises::{Promises, Queue};
use crate::read_back::{Counts, has_topic, read_back};

pub const TOPIC: &str = "Faults";
pub const QUEUES: u32 = 4;
/// Everything the log does, and nothing else.
pub const LOG: &str = "*commitlog/*";

const CAPACITY_BYTES: u64 = 8 << 30;
const SEGMENT_BYTES: u64 = 4 << 20;
/// An ASYNC_FLUSH store syncs often, so that scenarios are short.
const OFTEN: [&str; 2] = [
    "flushIntervalCommitLog=50",
    "flushCommitLogThoroughInterval=200",
];
const SENDERS: u32 = 8;
const DEPTH: usize = 8;
const BODY_BYTES_MAX: usize = 3_000;
const POLL: Duration = Duration::from_millis(2);
/// How long anything that must happen may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Stage {
    // The broker first: it ends before its disk does.
    broker: Option<Broker>,
    pub disk: Mounted,
    setup: Setup,
    pub mode: Mode,
    /// Everything acknowledged so far that must still be there.
    pub promises: Promises,
    next_sender: u32,
    power_was_cut: bool,
    window: PathBuf,
    _memory: TempDir,
}

impl Stage {
    /// In `work`, a new directory.
    pub fn new(setting: &Setting, mode: Mode, work: PathBuf, extra: &[&str]) -> Result<Stage> {
        fs::create_dir_all(&work)?;
        let memory = super::memory()?;
        let disk = Mounted::start(&work, CAPACITY_BYTES, None)?;
        let store = disk.directory.join("store");
        fs::create_dir(&store)?;
        fs::File::open(&disk.directory)?.sync_all()?;
        let window = memory.path().join("window");
        fs::create_dir(&window)?;
        let mut settings = mode.settings_with(&window);
        settings.push(format!("mappedFileSizeCommitLog={SEGMENT_BYTES}"));
        settings.extend(OFTEN.map(str::to_owned));
        settings.extend(setting.settings.iter().cloned());
        settings.extend(extra.iter().map(|line| (*line).to_owned()));
        let mut stage = Stage {
            broker: None,
            setup: Setup {
                binary: setting.broker.clone(),
                store,
                work,
                port: setting.port,
                settings,
            },
            disk,
            mode,
            promises: Promises::default(),
            next_sender: 0,
            power_was_cut: false,
            window,
            _memory: memory,
        };
        stage.start()?;
        stage.client()?.create_topic(TOPIC, QUEUES)?;
        Ok(stage)
    }

    pub fn start(&mut self) -> Result<()> {
        assert!(self.broker.is_none(), "one broker at a time");
        self.broker = Some(self.setup.start()?);
        // An ASYNC_FLUSH store may forget a topic that is new: its messages are there again as soon as it is.
        if std::mem::take(&mut self.power_was_cut) && !self.mode.sync {
            let mut client = self.client()?;
            if !has_topic(&mut client, TOPIC)? {
                client.create_topic(TOPIC, QUEUES)?;
            }
        }
        Ok(())
    }

    fn broker(&mut self) -> &mut Broker {
        self.broker.as_mut().expect("a broker was started")
    }

    pub fn client(&mut self) -> Result<Client> {
        self.broker().connect()
    }

    pub fn is_alive(&mut self) -> bool {
        self.broker().ended().is_none()
    }

    /// What it has logged since its start.
    pub fn log(&mut self) -> String {
        self.broker().new_log()
    }

    pub fn log_tail(&self) -> String {
        crate::broker::log_tail(&self.setup.work.join("broker.log"))
    }

    pub fn kill(&mut self) -> Result<()> {
        let broker = self.broker.take().expect("a broker was started");
        Ok(broker.kill()?)
    }

    /// In order; a broker whose disk is broken may say so by its exit code, but it ends.
    pub fn stop(&mut self) -> Result<()> {
        let broker = self.broker.take().expect("a broker was started");
        let status = broker.stop()?;
        ensure!(status.is_some(), "the broker does not end when told to");
        Ok(())
    }

    /// Stops the broker; nothing is wrong with what it leaves.
    pub fn check(&mut self) -> Result<()> {
        self.stop()?;
        self.setup.check()
    }

    /// Everything unsynced is decided, and the memory of the machine is gone with what ran in it.
    pub fn cut_power(&mut self, seed: u64) -> Result<String> {
        let said = self.disk.ask(&format!("drop-unsynced {seed}"))?;
        self.kill()?;
        fs::remove_dir_all(&self.window)?;
        fs::create_dir(&self.window)?;
        self.power_was_cut = true;
        Ok(said)
    }

    pub fn load(&mut self) -> Load {
        let first_sender = self.next_sender;
        self.next_sender += SENDERS;
        Load::start(&Plan {
            address: self.broker().address(),
            topic: TOPIC.into(),
            queues: QUEUES,
            senders: SENDERS,
            depth: DEPTH,
            body_bytes_max: BODY_BYTES_MAX,
            first_sender,
            pause: Duration::from_millis(1),
            control: None,
        })
    }

    /// Ends a load; what it was promised is entered in the book.
    pub fn finish(&mut self, load: Load) -> Result<Outcome> {
        let outcome = load.finish();
        ensure!(outcome.given_twice == 0, "offsets were given twice");
        self.promises.extend(&outcome.stored);
        Ok(outcome)
    }

    /// Load on a well disk until so many messages are stored.
    pub fn fill(&mut self, messages: u64) -> Result<()> {
        let load = self.load();
        let enough = until(|| load.stored() >= messages || load.is_over());
        let outcome = self.finish(load)?;
        ensure!(
            enough && outcome.refused.is_empty() && outcome.broken.is_empty(),
            "on a well disk: {:?} {:?}",
            outcome.refused,
            outcome.broken
        );
        Ok(())
    }

    pub fn send_one(&mut self) -> Result<Sent> {
        let number = Number::new(self.next_sender, 0);
        self.next_sender += 1;
        let queue = number.sender() as u32 % QUEUES;
        let body = payload::body(number, BODY_BYTES_MAX);
        let sent = self
            .client()?
            .send_one(TOPIC, queue, body)
            .map_err(Error::io("sending"))?;
        if let (crate::load::STORED, Some(offset)) = (sent.code, sent.queue_offset) {
            let queue = Queue {
                topic: TOPIC.into(),
                number: queue,
            };
            self.promises.add(queue, offset, number);
        }
        Ok(sent)
    }

    /// Waits until a send is accepted; how long it took.
    pub fn until_accepted(&mut self) -> Result<Duration> {
        let started = Instant::now();
        loop {
            let sent = self.send_one()?;
            if sent.code == crate::load::STORED {
                return Ok(started.elapsed());
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "still refused after {PATIENCE:?}: {} {}",
                sent.code,
                sent.remark
            );
            thread::sleep(POLL);
        }
    }

    pub fn read_back(&mut self) -> Result<Counts> {
        let promises = std::mem::take(&mut self.promises);
        let read = read_back(&mut self.client()?, TOPIC, QUEUES, &promises);
        self.promises = promises;
        read
    }

    /// Load that is synced to its end: whatever happens now, it is promised in every way of flushing.
    pub fn fill_firmly(&mut self, messages: u64) -> Result<Promises> {
        self.fill(messages)?;
        // A sync that ends now may have begun before the last message; the one after it has not.
        for _ in 0..2 {
            let before = self.disk.count("syncs")? + self.disk.count("durable_writes")?;
            let sent = self.send_one()?;
            ensure!(sent.code == crate::load::STORED, "refused on a well disk");
            let disk = &mut self.disk;
            let synced = until(|| {
                let now =
                    disk.count("syncs").unwrap_or(0) + disk.count("durable_writes").unwrap_or(0);
                now > before
            });
            ensure!(synced, "nothing was synced in {PATIENCE:?}");
        }
        let mut firm = self.promises.clone();
        // The messages that were sent to see a sync may be part of the next one.
        for messages in firm.0.values_mut() {
            messages.retain(|_, number| number.sender() < u64::from(self.next_sender - 2));
        }
        Ok(firm)
    }

    /// After something that an ASYNC_FLUSH store may lose messages by, only these are promised.
    pub fn keep_only_in_async(&mut self, firm: &Promises) {
        if !self.mode.sync {
            self.promises = firm.clone();
        }
    }
}

/// Polls until it is so; whether it came to be.
pub fn until(mut so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(POLL);
    }
    true
}
