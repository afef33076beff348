//! Changes of topics and groups, one JSON line each, written before the change is acknowledged.
//!
//! Saving a table of 10,000 topics takes two megabytes; a line here takes a hundred bytes. So a change is on its way to the
//! disk at once and the tables follow at their own pace (`saving.rs`). What killing the process leaves behind is replayed at
//! the next start. Lines say what a name is now, not how it changed: replaying one twice, or over a newer table, does no harm.
//!
//! With SYNC_FLUSH a line is synced before it counts as written; lines that come during a sync share the next one. Otherwise
//! it is synced soon after, so that a power cut seldom leaves messages without their topic. Lines the disk does not take are
//! kept and tried again: only those who wait for them hear of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use protocol::body::subscription_group::SubscriptionGroupConfig;
use protocol::body::topic_config::TopicConfig;
use reactor::mailbox::{Answer, Reply, oneshot};
use reactor::{Buffer, File, Notify, OpenOptions, fs};
use serde::{Deserialize, Serialize};

/// After the disk refused lines.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Between two syncs nobody waits for.
const SYNC_PAUSE: Duration = Duration::from_millis(100);
/// Lines kept for a disk that takes none. What comes then is left to the saving of the tables.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// When a line counts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    /// It outlives the process.
    InKernel,
    /// It outlives a power cut.
    OnDisk,
}

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Entry {
    Topic(TopicConfig),
    TopicGone(String),
    /// Gone, and where its queues begin if it is made again.
    TopicEmptied {
        topic: String,
        starts: BTreeMap<u32, u64>,
    },
    Group(SubscriptionGroupConfig),
    GroupGone(String),
    /// What is forbidden to a group in a topic; 0: nothing.
    GroupForbidden {
        group: String,
        topic: String,
        bits: i32,
    },
}

/// Lives on the coordinator's core.
#[derive(Clone)]
pub struct Journal(Rc<Inner>);

struct Inner {
    dir: PathBuf,
    durable: Durable,
    /// Of the file that is written now; files are numbered upwards.
    number: Cell<u64>,
    target: RefCell<Target>,
    queued: RefCell<Queued>,
    wake: Notify,
    /// Lines were written that nobody waits to see synced.
    unsynced: Notify,
}

#[derive(Clone)]
struct Target {
    file: Arc<File>,
    end: u64,
}

#[derive(Default)]
struct Queued {
    lines: Vec<u8>,
    waiting: Vec<Waiting>,
}

/// What follows once the lines in front of it are written, in this order.
enum Waiting {
    Answer(Reply<io::Result<()>>),
    /// Also if they could not be written: the change is in effect.
    Then(Box<dyn FnOnce()>),
}

/// What lies in the folder at the start. Blocks.
pub fn replay(dir: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (_, path) in files(dir)? {
        let bytes = fs::read(&path)?;
        for line in bytes
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            match serde_json::from_slice(line) {
                Ok(entry) => entries.push(entry),
                // The last line of a killed process may be torn; it was not acknowledged.
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "unreadable journal line skipped");
                }
            }
        }
    }
    Ok(entries)
}

impl Journal {
    /// Starts a file behind those that are there. Blocks; `writing` must be spawned afterwards.
    pub fn open(dir: &Path, durable: Durable) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let number = files(dir)?.last().map_or(0, |(number, _)| number + 1);
        let file = create(dir, number)?;
        Ok(Self(Rc::new(Inner {
            dir: dir.to_owned(),
            durable,
            number: Cell::new(number),
            target: RefCell::new(Target { file, end: 0 }),
            queued: RefCell::default(),
            wake: Notify::new(),
            unsynced: Notify::new(),
        })))
    }

    /// Queues a line; the answer comes once it is as durable as was asked for.
    pub fn append(&self, entry: &Entry) -> Answer<io::Result<()>> {
        let (reply, answer) = oneshot();
        match self.queue(entry) {
            Ok(()) => {
                let waiting = Waiting::Answer(reply);
                self.0.queued.borrow_mut().waiting.push(waiting);
                self.0.wake.notify();
            }
            Err(error) => reply.send(Err(error)),
        }
        answer
    }

    fn queue(&self, entry: &Entry) -> io::Result<()> {
        let line = serde_json::to_vec(entry)?;
        let lines = &mut self.0.queued.borrow_mut().lines;
        if lines.len() + line.len() > KEPT_BYTES_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        lines.extend_from_slice(&line);
        lines.push(b'\n');
        Ok(())
    }

    /// Runs `then` once the lines that are appended before the next await are durable; at once if that needs no sync.
    pub fn then(&self, then: impl FnOnce() + 'static) {
        match self.0.durable {
            Durable::InKernel => then(),
            Durable::OnDisk => {
                let waiting = Waiting::Then(Box::new(then));
                self.0.queued.borrow_mut().waiting.push(waiting);
                self.0.wake.notify();
            }
        }
    }

    /// The journal's task: everything that waits goes out in one write, and one sync.
    pub async fn writing(self) {
        let mut is_failing = false;
        loop {
            let woken = self.0.wake.notified();
            if is_failing {
                // Elapsed: lines that are kept are due again.
                let _ = reactor::timeout(RETRY_AFTER, woken).await;
            } else {
                woken.await;
            }
            let queued = std::mem::take(&mut *self.0.queued.borrow_mut());
            let written = self.write(&queued.lines).await;
            let was_failing = std::mem::replace(&mut is_failing, written.is_err());
            match &written {
                Ok(()) if was_failing => tracing::info!("topics and groups are journalled again"),
                Err(error) if !was_failing => {
                    tracing::error!(%error, "topics and groups cannot be journalled; trying again");
                }
                _ => {}
            }
            if is_failing {
                self.keep(queued.lines);
            }
            for waiting in queued.waiting {
                match waiting {
                    Waiting::Answer(reply) => reply.send(match &written {
                        Ok(()) => Ok(()),
                        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                    }),
                    Waiting::Then(then) => then(),
                }
            }
        }
    }

    async fn write(&self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let target = self.0.target.borrow().clone();
        write_all(&target, lines).await?;
        match self.0.durable {
            Durable::OnDisk => target.file.sync_data().await?,
            Durable::InKernel => self.0.unsynced.notify(),
        }
        let mut now = self.0.target.borrow_mut();
        if Arc::ptr_eq(&now.file, &target.file) {
            now.end = target.end + lines.len() as u64;
        }
        Ok(())
    }

    /// The task that syncs lines behind the answers' backs. What is in older files is in the tables that are being saved.
    pub async fn syncing(self) {
        loop {
            self.0.unsynced.notified().await;
            let file = Arc::clone(&self.0.target.borrow().file);
            if let Err(error) = file.sync_data().await {
                tracing::warn!(%error, "journalled topics and groups may not outlive a power cut");
            }
            reactor::sleep(SYNC_PAUSE).await;
        }
    }

    /// In front of what came meanwhile, and to be written over what was written of them: an older line must not be
    /// replayed behind a newer one.
    fn keep(&self, mut lines: Vec<u8>) {
        let mut queued = self.0.queued.borrow_mut();
        lines.append(&mut queued.lines);
        queued.lines = lines;
    }

    /// Turns to a new file. The older ones, which are answered, may go once tables that are taken from now on are saved.
    pub async fn turn(&self) -> io::Result<Vec<PathBuf>> {
        // An empty one need not be replaced, however often saving is tried.
        if self.0.target.borrow().end > 0 {
            let number = self.0.number.get() + 1;
            let dir = self.0.dir.clone();
            let create = move || create(&dir, number);
            let file = reactor::offload("journal file", create).await?;
            self.0.number.set(number);
            *self.0.target.borrow_mut() = Target { file, end: 0 };
        }
        self.older().await
    }

    /// Those in front of the file that is written now.
    pub async fn older(&self) -> io::Result<Vec<PathBuf>> {
        let (dir, number) = (self.0.dir.clone(), self.0.number.get());
        let all = reactor::offload("journal list", move || files(&dir)).await?;
        Ok(all
            .into_iter()
            .filter(|&(older, _)| older < number)
            .map(|(_, path)| path)
            .collect())
    }

    /// The file written now, for a clean stop that leaves none behind.
    pub fn current(&self) -> PathBuf {
        path(&self.0.dir, self.0.number.get())
    }
}

async fn write_all(target: &Target, bytes: &[u8]) -> io::Result<()> {
    let mut at = target.end;
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut buffer = Buffer::with_capacity(rest.len());
        buffer.set_len(rest.len());
        buffer.copy_from_slice(rest);
        let (written, _) = target.file.write_at(buffer, at).await;
        let written = written?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        assert!(written <= rest.len(), "no more is written than was given");
        at += written as u64;
        rest = &rest[written..];
    }
    Ok(())
}

/// Its name is durable when this returns.
fn create(dir: &Path, number: u64) -> io::Result<Arc<File>> {
    let options = OpenOptions {
        read: true,
        write: true,
        create: true,
        truncate: true,
        ..OpenOptions::default()
    };
    let file = File::open(&path(dir, number), options)?;
    fs::sync_dir(dir)?;
    Ok(Arc::new(file))
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("tables-{number:010}.journal"))
}

/// By number, upwards.
fn files(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    if !fs::exists(dir) {
        return Ok(Vec::new());
    }
    let number = |name: &String| -> Option<u64> {
        name.strip_prefix("tables-")?
            .strip_suffix(".journal")?
            .parse()
            .ok()
    };
    let mut found: Vec<(u64, PathBuf)> = fs::list(dir)?
        .iter()
        .filter_map(|name| Some((number(name)?, dir.join(name))))
        .collect();
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::topic_config;

    #[test]
    fn files_are_replayed_in_order_and_a_torn_line_is_skipped() {
        let dir = tempfile::tempdir().expect("a folder");
        let line = |entry: &Entry| serde_json::to_string(entry).expect("JSON");
        let first = line(&Entry::Topic(topic_config("a", 1, 6)));
        let second = line(&Entry::Topic(topic_config("a", 2, 6)));
        let gone = line(&Entry::GroupGone("g".to_owned()));
        let write = |number: u64, text: String| {
            std::fs::write(path(dir.path(), number), text).expect("written");
        };
        // Ten comes after two, whatever the alphabet says.
        write(10, format!("{second}\n{}", &gone[..gone.len() / 2]));
        write(2, format!("{first}\n{gone}\n"));
        std::fs::write(dir.path().join("other.json"), "{").expect("written");

        let entries = replay(dir.path()).expect("readable");
        let queues = |entry: &Entry| match entry {
            Entry::Topic(config) => config.read_queue_nums,
            _ => 0,
        };
        assert_eq!(entries.iter().map(queues).collect::<Vec<_>>(), [1, 0, 2]);
        assert!(matches!(&entries[1], Entry::GroupGone(group) if group == "g"));
    }

    #[test]
    fn a_folder_that_is_not_there_holds_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(
            replay(&dir.path().join("none"))
                .expect("no error")
                .is_empty()
        );
    }
}
