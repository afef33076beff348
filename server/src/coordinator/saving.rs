//! Writing the tables under `config/`, off the coordinator's core.
//!
//! Topics and groups follow a change after a second (the journal holds it meanwhile), offsets every
//! flushConsumerOffsetInterval, delay progress every flushDelayOffsetInterval and never ahead of the log. One save runs at a
//! time: an older table never replaces a newer one.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use engine::{LogOffset, Store};
use protocol::body::subscription_group::SubscriptionGroupTable;
use protocol::body::topic_config::{DataVersion, TopicConfigTable};
use protocol::json;
use reactor::{Notify, fs};

use super::orphans::{self, Deleted};
use super::{Coordinator, Tables, state};
use crate::delay::{LaidOut, Saved, TIMERS, Wheel, hand_back, write_timers};
use crate::groups::Forbidden;
use crate::messages::{GroupTable, TopicTable};
use crate::offsets;

/// Changes within this time share one save.
const SAVE_AFTER: Duration = Duration::from_secs(1);
/// A save may take this share of the time: one over.
const SAVE_TIME_SHARE: u32 = 10;
const TOPICS_AND_GROUPS: &str = "topics and groups";

/// Whether topics or groups differ from their files.
#[derive(Default)]
pub struct Unsaved {
    changed: Cell<bool>,
    wake: Notify,
    saving: Cell<bool>,
    saved: Notify,
    /// What could not be saved the last time: it was said once, and is tried again in silence.
    failing: RefCell<Vec<&'static str>>,
}

impl Unsaved {
    pub fn mark(&self) {
        self.changed.set(true);
        self.wake.notify();
    }

    async fn begin(&self) {
        while self.saving.replace(true) {
            self.saved.notified().await;
        }
    }

    fn end(&self) {
        self.saving.set(false);
        self.saved.notify();
    }

    /// Logs the first failure in a row, and its end.
    fn note(&self, what: &'static str, saved: &io::Result<()>) {
        if self.is_failing(what) == saved.is_err() {
            return;
        }
        match saved {
            Ok(()) => {
                self.failing.borrow_mut().retain(|failing| *failing != what);
                tracing::info!(what, "saved again");
            }
            Err(error) => {
                self.failing.borrow_mut().push(what);
                tracing::error!(what, %error, "not saved; it is tried again until it is");
            }
        }
    }

    fn is_failing(&self, what: &str) -> bool {
        self.failing.borrow().contains(&what)
    }
}

/// Where the names of deleted topics are saved.
#[derive(Clone, Debug)]
pub struct DeletedTopics {
    pub path: PathBuf,
    /// As the store was opened.
    pub rocketmqs_until: u64,
}

impl DeletedTopics {
    pub fn of(&self, tables: &Tables) -> Deleted {
        Deleted {
            rocketmqs_until: self.rocketmqs_until,
            topics: tables.topics.deleted().clone(),
            starts: tables.starts.clone(),
        }
    }
}

/// The task that saves topics and groups after they changed.
pub(super) async fn tables(coordinator: Rc<Coordinator>) {
    while !coordinator.is_stopped() {
        coordinator.unsaved.wake.notified().await;
        reactor::sleep(SAVE_AFTER).await;
        let began = reactor::now();
        save_tables(&coordinator).await;
        reactor::sleep(began.elapsed() * SAVE_TIME_SHARE).await;
    }
}

/// The task that saves consumer offsets and delay progress.
pub(super) async fn offsets(coordinator: Rc<Coordinator>) {
    let mut delay_saved = reactor::now();
    while !coordinator.is_stopped() {
        let settings = coordinator.settings();
        let interval_ms = settings
            .consumer_offset_save_interval_ms
            .min(settings.delay_offset_save_interval_ms);
        reactor::sleep(Duration::from_millis(interval_ms)).await;
        save_offsets(&coordinator).await;
        let delay_interval = Duration::from_millis(settings.delay_offset_save_interval_ms);
        let newest = delay_saved.elapsed() >= delay_interval;
        if newest {
            delay_saved = reactor::now();
        }
        save_delay(&coordinator, newest).await;
    }
}

/// For the stop: all files are as the tables are, and no journal is left. Delay progress follows the log: `delay_at_last`.
pub(super) async fn everything(coordinator: &Coordinator) {
    coordinator.unsaved.changed.set(true);
    if save_tables(coordinator).await {
        let journal = coordinator.journal.current();
        if let Err(error) = reactor::offload("end journal", move || fs::remove_file(&journal)).await
        {
            tracing::warn!(%error, "the journal stays and is replayed at the next start");
        }
    }
    save_offsets(coordinator).await;
}

/// True if nothing is left to be saved.
async fn save_tables(coordinator: &Coordinator) -> bool {
    coordinator.unsaved.begin().await;
    let mut is_saved = true;
    if coordinator.unsaved.changed.replace(false) {
        let saved = try_save_tables(coordinator).await;
        coordinator.unsaved.note(TOPICS_AND_GROUPS, &saved);
        is_saved = saved.is_ok();
    }
    coordinator.unsaved.end();
    if !is_saved {
        coordinator.unsaved.mark();
    }
    is_saved
}

async fn try_save_tables(coordinator: &Coordinator) -> io::Result<()> {
    // Lines of the older files are in the tables that are taken after this. While nothing can be saved there is one more
    // file for each try otherwise.
    let older_journals = match coordinator.unsaved.is_failing(TOPICS_AND_GROUPS) {
        false => coordinator.journal.turn().await?,
        true => coordinator.journal.older().await?,
    };
    let (topics, groups, deleted) = {
        let tables = coordinator.tables();
        let topics = (tables.topics.snapshot(), tables.topics.version());
        let groups = &tables.groups;
        let forbidden = (**groups.forbidden()).clone();
        let deleted = coordinator.deleted.of(&tables);
        let groups = (groups.snapshot(), forbidden, groups.version());
        (topics, groups, deleted)
    };
    let deleted_path = coordinator.deleted.path.clone();
    let dir = coordinator.config_dir.clone();
    reactor::offload("save tables", move || {
        let (table, version) = topics;
        let topics = topic_table(&table, version);
        fs::replace(&dir.join(state::TOPICS), &json::to_vec_pretty(&topics))?;
        let (table, forbidden, version) = groups;
        let groups = group_table(&table, forbidden, version);
        fs::replace(&dir.join(state::GROUPS), &json::to_vec_pretty(&groups))?;
        orphans::write(&deleted_path, &deleted)?;
        remove(&older_journals)
    })
    .await
}

fn remove(files: &[PathBuf]) -> io::Result<()> {
    files.iter().try_for_each(|file| fs::remove_file(file))
}

pub(super) async fn save_offsets(coordinator: &Coordinator) {
    coordinator.unsaved.begin().await;
    let changed = coordinator
        .tables()
        .offsets
        .take_changed(reactor::wall_ms());
    if let Some((table, version)) = changed {
        let path = coordinator.config_dir.join(state::OFFSETS);
        let saved = reactor::offload("save offsets", move || {
            let wrapper = offsets::to_wrapper(&table, version);
            fs::replace(&path, &json::to_vec_pretty(&wrapper))
        })
        .await;
        coordinator.unsaved.note("consumer offsets", &saved);
        if saved.is_err() {
            coordinator.tables().offsets.mark_changed();
        }
    }
    coordinator.unsaved.end();
}

/// Progress that must not be saved before the log is as far: after a power cut a message that counts as delivered would be
/// gone.
#[derive(Default)]
pub struct HeldDelay {
    held: RefCell<Option<(Saved, LogOffset)>>,
}

impl HeldDelay {
    /// What is held, or else what `newest` makes, as soon as the log has what it says.
    fn take(&self, store: &Store, newest: impl FnOnce() -> Option<Saved>) -> Option<Saved> {
        let mut held = self.held.borrow_mut();
        if held.is_none() {
            // What was delivered until now lies below what readers see.
            *held = newest().map(|saved| (saved, store.written()));
        }
        let is_safe = held
            .as_ref()
            .is_some_and(|(_, needs)| store.flushed() >= *needs);
        if !is_safe {
            return None;
        }
        held.take().map(|(saved, _)| saved)
    }
}

/// Saves what was held back and may be saved now; if `newest`, also takes what has changed since.
async fn save_delay(coordinator: &Coordinator, newest: bool) {
    coordinator.unsaved.begin().await;
    let store = &coordinator.shared.store;
    let take = || {
        let changed = newest.then(|| coordinator.delay.take_changed(reactor::wall_ms()));
        changed.flatten()
    };
    if let Some(saved) = coordinator.delay_held.take(store, take) {
        write_delay(coordinator, saved).await;
    }
    coordinator.unsaved.end();
}

/// For the stop, once the log is closed: all of it is durable.
pub(super) async fn delay_at_last(coordinator: &Coordinator) {
    coordinator.unsaved.begin().await;
    let held = coordinator.delay_held.held.take().map(|(saved, _)| saved);
    // Whatever was saved before: RocketMQ may have the store next.
    coordinator.delay.mark_changed();
    let newest = coordinator.delay.take_changed(reactor::wall_ms());
    let mut saved = newest.expect("marked above");
    saved.timers = saved.timers.or(held.and_then(|held| held.timers));
    let laid_out = lay_out_timers(coordinator, &mut saved).await;
    let is_saved = write_delay(coordinator, saved).await;
    if let (true, Some(laid_out)) = (is_saved, laid_out) {
        let root = coordinator.settings().store_root.clone();
        let written = reactor::offload("hand timers back", move || hand_back(&root, laid_out));
        if let Err(error) = written.await {
            tracing::warn!(%error, "RocketMQ would deliver again what was delivered");
        }
    }
    coordinator.unsaved.end();
}

/// For a RocketMQ that has the store next.
async fn lay_out_timers(coordinator: &Coordinator, saved: &mut Saved) -> Option<LaidOut> {
    let checkpoint = saved.timers.as_mut()?;
    let timers = coordinator.delay.timers()?;
    let settings = coordinator.settings();
    let wheel = Wheel {
        precision_ms: settings.timer_precision_ms,
        roll_slots: settings.timer_roll_slots,
        file_bytes: settings.timer_log_file_bytes,
    };
    let popped_from = coordinator.pop.handed_from();
    match timers
        .lay_out(&settings.store_root, wheel, popped_from)
        .await
    {
        Ok(None) => None,
        Ok(Some(laid_out)) => {
            checkpoint.laid_out = true;
            Some(laid_out)
        }
        Err(error) => {
            tracing::warn!(%error, "RocketMQ would deliver again what was delivered");
            None
        }
    }
}

/// False if it is to be tried again.
async fn write_delay(coordinator: &Coordinator, saved: Saved) -> bool {
    let path = coordinator.config_dir.join(state::DELAY_OFFSETS);
    let timers_path = coordinator.deleted.path.with_file_name(TIMERS);
    let written = reactor::offload("save delay offsets", move || {
        if let Some(timers) = saved.timers {
            write_timers(&timers_path, &timers)?;
        }
        fs::replace(&path, &json::to_vec_pretty(&saved.levels))
    })
    .await;
    coordinator.unsaved.note("delay offsets", &written);
    if written.is_err() {
        coordinator.delay.mark_changed();
    }
    written.is_ok()
}

pub fn topic_table(table: &TopicTable, version: DataVersion) -> TopicConfigTable {
    TopicConfigTable {
        data_version: version,
        topic_config_table: table
            .iter()
            .map(|(name, config)| (name.to_string(), (**config).clone()))
            .collect(),
    }
}

pub fn group_table(
    table: &GroupTable,
    forbidden: Forbidden,
    version: DataVersion,
) -> SubscriptionGroupTable {
    SubscriptionGroupTable {
        data_version: version,
        forbidden_table: forbidden,
        subscription_group_table: table
            .iter()
            .map(|(name, config)| (name.to_string(), (**config).clone()))
            .collect(),
    }
}
