//! Reclaim: whole segments go, oldest first, by age and when the disk fills up; and how full it is.
//!
//! ```text
//! measure ─► pressure ─► (server: refuse sends)
//!    └─► round: oldest segment ─► may it go? ─► what is owed of it is appended again (owed)
//!                                    └─► file out of the log directory ─► list, queue starts ─► leaving: space given
//!                                                                                      back in slices once nobody reads it
//! ```
//!
//! Two tasks of the writer's core. A segment goes only once its index is on disk and the next offset of every queue is
//! known without it; the newest one never does. It never waits for a reader before the segment is gone from the
//! list, and never shortens a file that somebody still uses.

mod leaving;
mod owed;
mod policy;
mod remove;
mod reserve;

use crate::LogOffset;
use crate::flush::Flusher;
use crate::layout::Layout;
use crate::queue::Queue;
use crate::queue_index::keeper::Keeper;
use crate::segment::Segment;
use crate::segments::List;
use crate::store::Store;
use arc_swap::ArcSwapOption;
use reactor::{fs, offload};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use leaving::{Gone, Held, Leaving};
pub use owed::Ask;
pub(crate) use owed::Owed;
pub use policy::{Pressure, Retention, Why};

/// How often the disk is looked at: as long as sends may still be taken, or refused, after it has changed.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// `deleteExpiredCommitLog` asks for so many rounds, as in RocketMQ.
const ROUNDS_ASKED: u32 = 20;

/// What every core sees of reclaim, and may change.
pub(crate) struct Reclaim {
    /// Nothing goes before somebody has said what may.
    retention: ArcSwapOption<Retention>,
    used_percent: AtomicU8,
    is_full: AtomicBool,
    /// Rounds an operator asked for and that have not been made.
    rounds_asked: AtomicU32,
    owed: Owed,
}

impl Reclaim {
    pub fn new() -> Reclaim {
        Reclaim {
            retention: ArcSwapOption::empty(),
            used_percent: AtomicU8::new(0),
            is_full: AtomicBool::new(false),
            rounds_asked: AtomicU32::new(0),
            owed: Owed::default(),
        }
    }
}

impl Store {
    /// What is kept from now on. Before this is first called nothing goes and nothing is refused; whoever is owed
    /// something has to have said so ([`Store::owe`]).
    pub fn set_retention(&self, retention: Retention) {
        self.reclaim().retention.store(Some(Arc::new(retention)));
    }

    /// Segments that have expired go soon, whatever the hour.
    pub fn reclaim_expired(&self) {
        let rounds = &self.reclaim().rounds_asked;
        rounds.store(ROUNDS_ASKED, Ordering::Relaxed);
    }

    /// Asks the caller before anything of the log goes.
    pub fn owe(&self) -> reactor::mailbox::Receiver<Ask> {
        self.reclaim().owed.join()
    }

    /// No message that a topic has is shown any more. Says where its queues begin now, by id: to be said again with
    /// [`Store::start_queue_at`] after the next start. Messages that are on their way to the log come after that.
    pub fn hide_messages(&self, topic: &str) -> BTreeMap<u32, u64> {
        let queues = self.queues_of(topic);
        let starts = queues.iter().map(|queue| {
            let end = queue.max_offset();
            queue.raise_min(end);
            (queue.id(), end)
        });
        starts.collect()
    }

    /// The queue begins at `first`, or at its end if a power cut has left that in front. Says where, unless it has lost
    /// those messages by itself.
    pub fn start_queue_at(&self, topic: &str, id: u32, first: u64) -> Option<u64> {
        let queue = self.find_queue(topic, id)?;
        let first = first.min(queue.max_offset());
        let is_gone = queue.min_offset() >= first;
        queue.raise_min(first);
        (!is_gone).then_some(first)
    }

    /// How much of the least used log disk is used, as last looked at.
    pub fn disk_used_percent(&self) -> u8 {
        self.reclaim().used_percent.load(Ordering::Relaxed)
    }

    /// Whether the disk is too full to accept anything but what keeps a promise.
    #[inline]
    pub fn is_disk_full(&self) -> bool {
        self.reclaim().is_full.load(Ordering::Relaxed)
    }
}

/// The task. The writer's core only.
pub(crate) struct Reclaimer {
    store: Arc<Store>,
    layout: Arc<Layout>,
    flusher: Rc<Flusher>,
    keeper: Rc<Keeper>,
    leaving: Leaving,
    /// As last looked at.
    pressure: Cell<Pressure>,
}

/// How full the disks are.
#[derive(Clone, Copy)]
struct Space {
    used_percent: u8,
    /// Once everything has come back that is on its way.
    soon_percent: u8,
    /// On the disk of the tables and indexes.
    available_bytes: u64,
}

impl Reclaimer {
    pub fn new(
        store: Arc<Store>,
        layout: Arc<Layout>,
        flusher: Rc<Flusher>,
        keeper: Rc<Keeper>,
    ) -> Reclaimer {
        Reclaimer {
            store,
            layout,
            flusher,
            keeper,
            leaving: Leaving::default(),
            pressure: Cell::new(Pressure::None),
        }
    }

    /// For as long as the store is open and well.
    pub async fn run(self: Rc<Reclaimer>) {
        self.warn_of_a_small_disk().await;
        let mut next_round = reactor::now();
        let mut looked_for_leftovers = false;
        while !self.store.log().is_poisoned() {
            if let Some(retention) = self.store.reclaim().retention.load_full() {
                let pressure = self.measure(&retention).await;
                if !std::mem::replace(&mut looked_for_leftovers, true) {
                    self.remove_leftovers().await;
                }
                let now = reactor::now();
                if now >= next_round || pressure >= Pressure::Force {
                    self.round(&retention, pressure).await;
                    next_round = now + Duration::from_millis(retention.check_interval_ms);
                }
            }
            reactor::sleep(MEASURE_EVERY).await;
        }
    }

    /// The task that gives the space of removed segments back.
    pub async fn give_back(self: Rc<Reclaimer>) {
        let retention = || self.store.reclaim().retention.load_full();
        let longest = || {
            let ms = retention().map_or(0, |retention| retention.unlink_after_ms);
            Duration::from_millis(ms)
        };
        let rate = || retention().and_then(|now| now.bytes_per_second(self.pressure.get()));
        self.leaving.run(longest, rate).await;
    }

    /// Looks at the disks and says so to everybody. What comes back by itself is nothing more log has to go for.
    async fn measure(&self, retention: &Retention) -> Pressure {
        let (layout, segment_bytes) = (self.layout.clone(), self.store.config().segment_bytes);
        let dirs = layout.spare_dirs().iter();
        let leaving: Vec<u64> = dirs.map(|dir| self.leaving.bytes_below(dir)).collect();
        let no_room_above = retention.force_percent();
        let measured = offload("look at the disk's space", move || {
            let space = measure(&layout, &leaving, no_room_above)?;
            let reserve_bytes = reserve::reserve_bytes(segment_bytes);
            if let Err(error) = reserve::keep(&layout, reserve_bytes, space.available_bytes) {
                tracing::warn!(%error, "space for tables and indexes cannot be kept back");
            }
            Ok::<Space, io::Error>(space)
        });
        let reclaim = self.store.reclaim();
        let space = match measured.await {
            Ok(space) => space,
            Err(error) => {
                tracing::warn!(%error, "how full the disk is cannot be told");
                return Pressure::None;
            }
        };
        let used_percent = space.used_percent;
        let pressure = retention.pressure(used_percent);
        self.pressure.set(pressure);
        reclaim.used_percent.store(used_percent, Ordering::Relaxed);
        let is_full = pressure == Pressure::Refuse;
        if is_full != reclaim.is_full.swap(is_full, Ordering::Relaxed) {
            if is_full {
                tracing::error!(
                    used_percent,
                    "the disk is nearly full: messages are refused until there is room, reads go on"
                );
            } else {
                tracing::info!(
                    used_percent,
                    "there is room on the disk: messages are taken again"
                );
            }
        }
        retention.pressure(space.soon_percent)
    }

    /// Removes what may go now.
    async fn round(&self, retention: &Retention, mut pressure: Pressure) {
        let asked = take_one(&self.store.reclaim().rounds_asked);
        let mut gone = 0;
        while gone < retention.segments_per_round_max {
            let Some(why) = retention.why(pressure, asked, reactor::wall_ms()) else {
                return;
            };
            match self.remove_oldest(retention, why).await {
                Ok(true) => gone += 1,
                Ok(false) => break,
                Err(error) => {
                    tracing::error!(%error, "an old log file cannot be removed; it is tried again");
                    break;
                }
            }
            reactor::sleep(Duration::from_millis(retention.between_segments_ms)).await;
            // Not more than is needed.
            pressure = self.measure(retention).await;
        }
        if gone == 0 && pressure >= Pressure::Force {
            tracing::warn!(
                used_percent = self.store.disk_used_percent(),
                "the disk is nearly full and no log file may go"
            );
        }
    }

    /// Removes the oldest segment, if it may go for this reason.
    async fn remove_oldest(&self, retention: &Retention, why: Why) -> io::Result<bool> {
        let log = self.store.log();
        let (segment, next) = match log.segments().load().items() {
            [oldest, next, ..] => (oldest.clone(), next.clone()),
            _ => return Ok(false), // The newest one stays.
        };
        let (base, end) = (segment.base(), segment.end());
        if log.is_poisoned() || !self.keeper.has_sealed(end) {
            return Ok(false);
        }
        let last_ms = self.store.sealed().get(base).await?.last_ms();
        let now_ms = reactor::wall_ms();
        let changed_ms = || fs::modified_ms(segment.path()).ok();
        let last_ms = Retention::stored_ms(last_ms, now_ms, changed_ms);
        if !retention.permits(why, last_ms, now_ms) {
            return Ok(false);
        }
        // Where queues go on that have nothing behind it is known from the next checkpoint only.
        if !self.keeper.has_checkpoint_behind(end).await {
            return Ok(false);
        }
        if !self.store.reclaim().owed.settle(LogOffset(end)).await {
            tracing::info!(
                segment = base,
                "an old log file stays: messages in it are still owed"
            );
            return Ok(false);
        }
        // What was appended again has to be as safe as what goes.
        self.flusher.sync_to(log.written()).await?;
        let starts = self.starts_from(&next).await?;
        self.remove(segment, starts, why).await?;
        Ok(true)
    }

    async fn remove(
        &self,
        segment: Arc<Segment>,
        starts: Vec<(Arc<Queue>, u64)>,
        why: Why,
    ) -> io::Result<()> {
        let base = segment.base();
        let (layout, store) = (self.layout.clone(), self.store.clone());
        let gone = offload("take an old log file out", move || {
            let gone = remove::take_out(&layout, base)?;
            store.log().segments().remove_first(base);
            for (queue, first) in starts {
                queue.raise_min(first);
            }
            store.sealed().forget(base);
            if let Err(error) = remove::remove_companions(&layout, base) {
                tracing::warn!(%error, segment = base, "the indexes of an old log file are left");
            }
            Ok::<_, io::Error>(gone)
        })
        .await?;
        let hot = segment.retire();
        tracing::info!(
            segment = base,
            why = why.text(),
            used_percent = self.store.disk_used_percent(),
            first = self.store.first().0,
            segments_left = self.store.log().segments().load().items().len(),
            "an old log file is removed"
        );
        self.leaving.push(Gone {
            path: gone,
            bytes: segment.bytes(),
            held: Some(Held { segment, hot }),
            since: reactor::now(),
        });
        Ok(())
    }

    /// The first offset of every queue once `oldest` is the oldest segment.
    async fn starts_from(&self, oldest: &Arc<Segment>) -> io::Result<Vec<(Arc<Queue>, u64)>> {
        if oldest.hot().is_none() {
            let sealed = self.store.sealed().get(oldest.base()).await?;
            let store = self.store.clone();
            let starts = offload("find the queues' starts", move || {
                let queues = queues(&store);
                let starts = sealed.starts();
                starts
                    .filter_map(|(no, first)| Some((queues.get(no.0 as usize)?.clone(), first)))
                    .collect()
            });
            return Ok(starts.await);
        }
        let (store, base) = (self.store.clone(), oldest.base());
        let starts = offload("find the queues' starts", move || {
            let queues = queues(&store).into_iter();
            queues
                .map(|queue| {
                    // The end first: what was counted in it has an entry in memory, or lies before.
                    let max = queue.max_offset();
                    let list = store.log().segments().load();
                    let first = first_from(&list, base, &queue).unwrap_or(max);
                    (queue, first)
                })
                .collect()
        });
        Ok(starts.await)
    }

    async fn remove_leftovers(&self) {
        let leftovers = match remove::leftovers(&self.layout).await {
            Ok(leftovers) => leftovers,
            Err(error) => {
                tracing::warn!(%error, "what is left of old log files cannot be removed");
                return;
            }
        };
        for (path, bytes) in leftovers {
            tracing::info!(path = %path.display(), "removing what is left of an old log file");
            self.leaving.push(Gone {
                path,
                held: None,
                bytes,
                since: reactor::now(),
            });
        }
    }

    async fn warn_of_a_small_disk(&self) {
        let layout = self.layout.clone();
        let totals = offload("look at the disk's size", move || {
            let dirs = layout.log_dirs().iter();
            dirs.filter_map(|dir| fs::total_bytes(dir).ok())
                .sum::<u64>()
        });
        let total_bytes = totals.await;
        let segment_bytes = self.store.config().segment_bytes;
        if total_bytes < 2 * segment_bytes {
            tracing::warn!(
                total_bytes,
                segment_bytes,
                "the disk holds fewer than two log files, and the newest is never deleted: \
                 set a smaller mappedFileSizeCommitLog, or nothing can be reclaimed"
            );
        }
    }
}

/// How full the least used log disk is, or the one of tables and indexes if that is fuller; new segments pass over those
/// without room. `leaving`: for each log directory the bytes that are on their way back. Blocks.
fn measure(layout: &Layout, leaving: &[u64], no_room_above: u8) -> io::Result<Space> {
    let space =
        |dir: &std::path::Path| Ok::<_, io::Error>((fs::used_bytes(dir)?, fs::free_bytes(dir)?));
    let (mut least, mut least_soon) = (100, 100);
    let mut full = Vec::with_capacity(leaving.len());
    for (dir, &leaving) in layout.log_dirs().iter().zip(leaving) {
        let (used, available) = space(dir)?;
        let percent = policy::used_percent(used, available);
        full.push(percent > no_room_above);
        least = least.min(percent);
        let soon = policy::used_percent(
            used.saturating_sub(leaving),
            available.saturating_add(leaving.min(used)),
        );
        least_soon = least_soon.min(soon);
    }
    layout.set_full(full.into_iter());
    let (used, available) = space(layout.root())?;
    let of_tables = policy::used_percent(used, available);
    // Where it is the same disk, what comes back counts here as well.
    let returns = leaving.iter().sum::<u64>().min(used);
    let returns = if layout.log_dirs().len() == 1 && least == of_tables {
        returns
    } else {
        0
    };
    let of_tables_soon = policy::used_percent(used - returns, available.saturating_add(returns));
    Ok(Space {
        used_percent: least.max(of_tables),
        soon_percent: least_soon.max(of_tables_soon),
        available_bytes: available,
    })
}

fn queues(store: &Store) -> Vec<Arc<Queue>> {
    let mut queues = Vec::new();
    store.registry().extend_from(0, &mut queues);
    queues
}

/// The queue's first offset in the segments from `base` on, which are all in memory.
fn first_from(list: &List, base: u64, queue: &Queue) -> Option<u64> {
    let later = list.items().iter().filter(|segment| segment.base() >= base);
    later.into_iter().find_map(|segment| {
        let hot = segment.hot();
        let run = hot.as_ref()?.index.run(queue.no())?;
        Some(run.first())
    })
}

/// Takes one off the count; says whether there was one.
fn take_one(count: &AtomicU32) -> bool {
    let taken = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(1)
    });
    taken.is_ok()
}
