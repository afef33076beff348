//! The tables as the last run left them: RocketMQ's files under `config/`, then the journal over them, then the topics
//! that only their messages know of.
//!
//! A file that cannot be read is replaced by its `.bak`; if that cannot be read either, the start fails, because an empty
//! table would be saved over what is there.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use engine::Store;
use protocol::body::Body;
use protocol::body::offsets::DelayOffsetTable;
use reactor::fs;

use super::journal::{self, Durable, Entry, Journal};
use super::orphans;
use super::{Tables, saving};
use crate::clients::Clients;
use crate::config::Settings;
use crate::groups::Groups;
use crate::offsets::Offsets;
use crate::queue_locks::QueueLocks;
use crate::resets::Resets;
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
    pub deleted: saving::DeletedTopics,
    /// The files are older than the tables: they are to be saved soon.
    pub replayed: bool,
    /// Names of topics that were not saved, and are journalled once the journal runs.
    pub made_again: Vec<String>,
}

/// Where RocketMQ 5 keeps its tables if it was told to use RocksDB for them, and the file every such database has.
const ROCKSDB_DIRS: [&str; 4] = ["rdb", "topics", "subscriptionGroups", "consumerOffsets"];
const ROCKSDB_CURRENT: &str = "CURRENT";

/// Fails if the tables are where we cannot read them: starting with empty ones would lose offsets. Before anything of the
/// store is touched.
pub fn refuse_rocksdb(settings: &Settings) -> io::Result<()> {
    let config_dir = settings.store_root.join("config");
    for name in ROCKSDB_DIRS {
        let database = config_dir.join(name);
        if fs::exists(&database.join(ROCKSDB_CURRENT)) {
            let path = database.display();
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "{path} is a RocksDB database; write the tables as JSON with RocketMQ's `mqadmin rocksDBConfigToJson`, put \
                     topics.json, subscriptionGroup.json and consumerOffset.json into config, and move the database away"
                ),
            ));
        }
    }
    Ok(())
}

/// Blocks; for the start only, once the store is open.
pub fn load(settings: &Settings, store: &Store) -> io::Result<Loaded> {
    let config_dir = settings.store_root.join("config");
    let journal_dir = settings.store_root.join("orbit");
    fs::create_dir_all(&config_dir)?;
    let mut tables = empty(settings);
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
    let deleted = saving::DeletedTopics {
        path: journal_dir.join(orphans::DELETED_TOPICS),
        rocketmqs_until: store.rocketmqs_until().0,
    };
    let saved = orphans::read(&deleted.path);
    tables.starts = saved
        .as_ref()
        .map(|saved| saved.starts.clone())
        .unwrap_or_default();
    let entries = journal::replay(&journal_dir)?;
    let replayed = !entries.is_empty();
    replay(&mut tables, entries);
    orphans::hide(&mut tables.starts, store);
    let made_again = find_orphans(&mut tables, store, saved.as_ref(), &deleted);
    let durable = match settings.sync_flush {
        true => Durable::OnDisk,
        false => Durable::InKernel,
    };
    Ok(Loaded {
        tables,
        delay_offsets,
        journal: Journal::open(&journal_dir, durable)?,
        config_dir,
        deleted,
        replayed,
        made_again,
    })
}

fn empty(settings: &Settings) -> Tables {
    Tables {
        topics: Topics::new(settings),
        groups: Groups::new(),
        offsets: Offsets::default(),
        clients: Clients::default(),
        locks: QueueLocks::default(),
        resets: Resets::default(),
        starts: orphans::Starts::default(),
    }
}

/// The names of topics that were made again because they have messages.
fn find_orphans(
    tables: &mut Tables,
    store: &Store,
    saved: Option<&orphans::Deleted>,
    deleted: &saving::DeletedTopics,
) -> Vec<String> {
    let made_again = orphans::make_again(
        tables,
        &orphans::with_messages(&store.queues()),
        saved,
        deleted.rocketmqs_until,
        reactor::wall_ms(),
    );
    let now = deleted.of(tables);
    if saved != Some(&now)
        && let Err(error) = orphans::write(&deleted.path, &now)
    {
        // The next save has it. Until then a power cut leaves topics without an entry as they are.
        tracing::warn!(%error, "the list of deleted topics is not saved");
    }
    made_again
}

fn replay(tables: &mut Tables, entries: Vec<Entry>) {
    let mut gone = BTreeSet::new();
    for entry in entries {
        if let Entry::TopicEmptied { topic, .. } = &entry {
            gone.insert(topic.clone());
        }
        apply(tables, entry);
    }
    let is_gone = |topic: &String| tables.topics.get(topic).is_none();
    gone.retain(is_gone);
    for topic in gone {
        tables.offsets.remove_topic(&topic);
    }
}

fn apply(tables: &mut Tables, entry: Entry) {
    let now_ms = reactor::wall_ms();
    match entry {
        Entry::Topic(config) => {
            tables.topics.put(config, now_ms);
        }
        Entry::TopicGone(topic) => {
            topic_gone(tables, &topic, now_ms);
            tables.offsets.remove_topic(&topic);
        }
        Entry::TopicEmptied { topic, starts } => {
            topic_gone(tables, &topic, now_ms);
            // Offsets may be newer than this line: of the same topic, made again.
            tables.offsets.remove_in_front(&topic, &starts);
            tables.starts.insert(topic, starts);
        }
        Entry::Group(config) => {
            tables.groups.put(config, now_ms);
        }
        Entry::GroupGone(group) => {
            tables.groups.remove(&group, now_ms);
        }
        Entry::GroupForbidden { group, topic, bits } => {
            tables.groups.forbid(&group, &topic, bits, now_ms);
        }
    }
}

fn topic_gone(tables: &mut Tables, topic: &str, now_ms: i64) {
    tables.topics.remove(topic, now_ms);
    // The table may have been saved without it, and the list of those that are gone not yet.
    tables.topics.set_deleted(topic);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::settings;
    use protocol::body::topic_config::TopicConfig;
    use std::collections::BTreeMap;

    #[test]
    fn a_topic_that_was_made_again_keeps_the_offsets_that_were_saved_since() {
        let emptied = |topic: &str| Entry::TopicEmptied {
            topic: topic.to_owned(),
            starts: BTreeMap::from([(0, 5), (1, 5)]),
        };
        let mut tables = empty(&settings(&[]));
        for topic in ["again", "gone"] {
            for (queue_id, offset) in [(0, 7), (1, 4), (2, 0)] {
                tables.offsets.commit("g", topic, queue_id, offset);
            }
        }
        let again = TopicConfig {
            topic_name: "again".to_owned(),
            ..TopicConfig::default()
        };
        let entries = vec![emptied("again"), emptied("gone"), Entry::Topic(again)];
        replay(&mut tables, entries);
        let of = |topic| [0, 1, 2].map(|queue_id| tables.offsets.get("g", topic, queue_id));
        assert_eq!(of("again"), [Some(7), None, Some(0)]);
        assert_eq!(of("gone"), [None; 3]);
        assert!(!tables.topics.deleted().contains("again"));
    }

    #[test]
    fn tables_in_rocksdb_are_refused_by_name_with_the_way_out() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().display().to_string();
        let settings = settings(&[("storePathRootDir", &root)]);
        let database = dir.path().join("config").join("topics");
        std::fs::create_dir_all(&database).expect("a temporary directory");
        assert!(refuse_rocksdb(&settings).is_ok(), "no database is in it");
        std::fs::write(database.join(ROCKSDB_CURRENT), "MANIFEST-1")
            .expect("a temporary directory");
        let refused = refuse_rocksdb(&settings).expect_err("it is a database");
        let said = refused.to_string();
        assert!(
            said.contains("config/topics") && said.contains("rocksDBConfigToJson"),
            "{said}"
        );
    }
}
