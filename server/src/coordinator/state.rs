//! The tables as the last run left them: RocketMQ's files under `config/`, then the journal over them.
//!
//! A file that cannot be read is replaced by its `.bak`; if that cannot be read either, the start fails, because an empty
//! table would be saved over what is there.

use std::io;
use std::path::{Path, PathBuf};

use protocol::body::Body;
use protocol::body::offsets::DelayOffsetTable;
use reactor::fs;

use super::Tables;
use super::journal::{self, Entry, Journal};
use crate::clients::Clients;
use crate::config::Settings;
use crate::groups::Groups;
use crate::offsets::Offsets;
use crate::queue_locks::QueueLocks;
use crate::topics::Topics;

pub const TOPICS: &str = "topics.json";
pub const GROUPS: &str = "subscriptionGroup.json";
pub const OFFSETS: &str = "consumerOffset.json";
pub const DELAY_OFFSETS: &str = "delayOffset.json";

pub struct Loaded {
    pub tables: Tables,
    pub delay_offsets: DelayOffsetTable,
    pub journal: Journal,
    pub config_dir: PathBuf,
    /// The files are older than the tables: they are to be saved soon.
    pub replayed: bool,
}

/// Blocks; for the start only.
pub fn load(settings: &Settings) -> io::Result<Loaded> {
    let config_dir = settings.store_root.join("config");
    let journal_dir = settings.store_root.join("orbit");
    fs::create_dir_all(&config_dir)?;
    let mut tables = Tables {
        topics: Topics::new(settings),
        groups: Groups::new(),
        offsets: Offsets::default(),
        clients: Clients::default(),
        locks: QueueLocks::default(),
    };
    if let Some(saved) = read(&config_dir.join(TOPICS))? {
        tables.topics.restore(saved);
    }
    if let Some(saved) = read(&config_dir.join(GROUPS))? {
        tables.groups.restore(saved);
    }
    if let Some(saved) = read(&config_dir.join(OFFSETS))? {
        tables.offsets.restore(saved);
    }
    let delay_offsets = read(&config_dir.join(DELAY_OFFSETS))?.unwrap_or_default();
    let entries = journal::replay(&journal_dir)?;
    let replayed = !entries.is_empty();
    for entry in entries {
        apply(&mut tables, entry);
    }
    Ok(Loaded {
        tables,
        delay_offsets,
        journal: Journal::open(&journal_dir)?,
        config_dir,
        replayed,
    })
}

fn apply(tables: &mut Tables, entry: Entry) {
    let now_ms = reactor::wall_ms();
    match entry {
        Entry::Topic(config) => {
            tables.topics.put(config, now_ms);
        }
        Entry::TopicGone(topic) => {
            tables.topics.remove(&topic, now_ms);
            tables.offsets.remove_topic(&topic);
        }
        Entry::Group(config) => {
            tables.groups.put(config, now_ms);
        }
        Entry::GroupGone(group) => {
            tables.groups.remove(&group, now_ms);
        }
    }
}

fn read<T: Body>(path: &Path) -> io::Result<Option<T>> {
    let mut problem = None;
    for path in [path.to_owned(), backup(path)] {
        if !fs::exists(&path) {
            continue;
        }
        let bytes = fs::read(&path)?;
        match T::from_json(&bytes) {
            Ok(value) => {
                if let Some(error) = problem {
                    tracing::warn!(file = %path.display(), %error, "the file was unreadable: its backup is used");
                }
                return Ok(Some(value));
            }
            Err(error) => {
                problem.get_or_insert_with(|| format!("{}: {error}", path.display()));
            }
        }
    }
    match problem {
        None => Ok(None),
        Some(problem) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{problem}; repair the file, or delete it together with its .bak to start with defaults"
            ),
        )),
    }
}

fn backup(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".bak");
    PathBuf::from(name)
}
