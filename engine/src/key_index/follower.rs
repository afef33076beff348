//! The task that keeps the key index behind the log's tail.
//!
//! The tail comes first; what is missing of older segments is made when there is nothing else to do, within a budget, or at
//! once when a query waits for it. Nothing here can fail a send: what could not be read or written is tried again later.

use super::build::{Build, Place};
use super::names::{self, Name};
use super::stretch::STRETCH_BYTES;
use super::view::{Sealed, View};
use super::{Ask, names::sealed};
use crate::flush::Flusher;
use crate::segments::List;
use crate::store::Store;
use reactor::{Instant, Notify, fs, offload, offload_bulk};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long after a failed attempt the next one is made.
const RETRY: Duration = Duration::from_secs(5);
/// How fast old segments are read that nobody waits for.
const REBUILD_BYTES_PER_SECOND: u64 = 100 << 20;
/// A clean stop does not wait until a tail further behind has been read.
const FINISH_BYTES_MAX: u64 = 64 << 20;

/// The writer's core only.
pub(crate) struct Follower {
    place: Place,
    /// When the log reaches there, there is something to do.
    wake_at: Cell<u64>,
    asks: RefCell<Vec<Ask>>,
    wake: Notify,
    stopping: Cell<bool>,
    stopped: Cell<bool>,
    ended: Notify,
}

/// What the task knows.
struct State {
    live: Build,
    /// Older than `live`, oldest first.
    sealed: Vec<Sealed>,
    /// As last published.
    shown: Arc<Vec<Sealed>>,
    /// A segment of `sealed` that is not ready.
    rebuild: Option<Build>,
    /// Not before that, unless somebody waits.
    rebuild_at: Instant,
}

/// What came of looking for something to do.
enum Turn {
    Worked,
    Idle,
    IdleUntil(Instant),
}

impl Follower {
    pub fn new(store: Arc<Store>, flusher: Rc<Flusher>) -> Follower {
        Follower {
            place: Place {
                store,
                flusher,
                retired: Rc::default(),
            },
            wake_at: Cell::new(u64::MAX),
            asks: RefCell::default(),
            wake: Notify::new(),
            stopping: Cell::new(false),
            stopped: Cell::new(false),
            ended: Notify::new(),
        }
    }

    /// Called when the log has grown: wakes the task if there is a stretch to read.
    #[inline]
    pub fn look(&self) {
        if self.place.store.log().released().0 >= self.wake_at.get() {
            self.wake.notify();
        }
    }

    /// The task.
    pub async fn run(self: Rc<Follower>) {
        self.follow().await;
        self.stopped.set(true);
        self.ended.notify_all();
    }

    /// The task that hears queries.
    pub async fn listen(self: Rc<Follower>) {
        let Some(mut asked) = self.place.store.keys().take_asked() else {
            return;
        };
        while let Some(ask) = asked.recv().await {
            self.asks.borrow_mut().push(ask);
            self.wake.notify();
        }
    }

    /// Leaves everything written; resumes when the task has ended.
    pub async fn stop(&self) {
        self.stopping.set(true);
        self.wake.notify();
        while !self.stopped.get() {
            self.ended.notified().await;
        }
    }

    async fn follow(&self) {
        let mut state = loop {
            match self.open().await {
                Ok(state) => break state,
                Err(error) => {
                    tracing::warn!(%error, "the key index cannot be opened; it is tried again");
                    if self.pause(RETRY).await {
                        return;
                    }
                }
            }
        };
        self.show(&mut state);
        if !self.place.store.config().key_index {
            return;
        }
        while !self.stopping.get() {
            match self.turn(&mut state).await {
                Ok(Turn::Worked) => {}
                Ok(Turn::Idle) => self.wake.notified().await,
                Ok(Turn::IdleUntil(at)) => {
                    let rest = at.saturating_since(reactor::now());
                    // Either way there is something to do.
                    let _ = reactor::timeout(rest, self.wake.notified()).await;
                }
                Err(_) if self.place.store.log().is_poisoned() => return,
                Err(error) => {
                    tracing::warn!(%error, "the key index falls behind; it is tried again");
                    self.pause(RETRY).await;
                }
            }
            self.show(&mut state);
            self.place.retired.close_idle().await;
        }
        if let Err(error) = self.finish(&mut state).await {
            tracing::warn!(%error, "the key index is not up to date; the next start reads more of the log");
        }
    }

    /// Waits, unless the store is closed. Says whether it is.
    async fn pause(&self, pause: Duration) -> bool {
        let until = reactor::now() + pause;
        while !self.stopping.get() {
            let rest = until.saturating_since(reactor::now());
            if rest.is_zero() || reactor::timeout(rest, self.wake.notified()).await.is_err() {
                break;
            }
        }
        self.stopping.get()
    }

    /// Finds out what there is, and removes what belongs to nothing.
    async fn open(&self) -> io::Result<State> {
        let store = self.place.store.clone();
        let list = store.log().segments().load_full();
        let end = store.log().released().0;
        let (sealed, live) = offload_bulk("open the key index", move || {
            let layout = store.layout();
            let present: BTreeSet<u64> = tidy(layout, &list)?;
            let (newest, older) = list.items().split_last().expect("a log has a segment");
            let sealed = older.iter().map(|segment| Sealed {
                base: segment.base(),
                ready: present.contains(&segment.base()),
            });
            let live = Build::resume(layout, newest.clone(), end)?;
            io::Result::Ok((sealed.collect(), live))
        })
        .await?;
        Ok(State {
            live,
            sealed,
            shown: Arc::default(),
            rebuild: None,
            rebuild_at: reactor::now(),
        })
    }

    /// Does the most urgent thing there is to do.
    async fn turn(&self, state: &mut State) -> io::Result<Turn> {
        let asks = self.asks.take();
        for ask in asks {
            self.take(state, ask).await;
        }
        self.forget_reclaimed(state);
        let released = self.place.store.log().released().0;
        let behind = released - state.live.read_to();
        let is_due = behind >= STRETCH_BYTES || released >= state.live.segment().end();
        if is_due && self.follow_tail(state, released).await? {
            return Ok(Turn::Worked);
        }
        self.rebuild(state).await
    }

    /// Reads on in the newest segment, or goes on to the next one. False if that does not exist yet.
    async fn follow_tail(&self, state: &mut State, released: u64) -> io::Result<bool> {
        let live = &mut state.live;
        let base = live.segment().base();
        if !live.is_full() {
            // First: while the disk is full nothing more gathers in memory.
            live.spill_if_due(&self.place).await?;
            live.step(&self.place.store, released).await?;
            return Ok(true);
        }
        if state.sealed.last().is_none_or(|last| last.base != base) {
            let stop = || self.stopping.get();
            let ready = live.seal(&self.place, &stop).await?;
            state.sealed.push(Sealed { base, ready });
        }
        let list = self.place.store.log().segments().load_full();
        let Some((_, next)) = list.containing(base + live.segment().bytes()) else {
            return Ok(false);
        };
        state.live = Build::new(next.clone());
        Ok(true)
    }

    /// Works on an older segment that has no index.
    async fn rebuild(&self, state: &mut State) -> io::Result<Turn> {
        let wanted = self.asks.borrow().first().map(|ask| ask.base);
        let Some(base) = wanted.or_else(|| state.newest_missing()) else {
            return Ok(Turn::Idle);
        };
        if wanted.is_none() && reactor::now() < state.rebuild_at {
            return Ok(Turn::IdleUntil(state.rebuild_at));
        }
        let others = |build: &Build| build.segment().base() != base;
        if state.rebuild.as_ref().is_none_or(others) {
            state.rebuild = None;
            let store = self.place.store.clone();
            let list = store.log().segments().load_full();
            let Some((_, segment)) = list.containing(base) else {
                return Ok(Turn::Worked); // Reclaimed just now.
            };
            let segment = segment.clone();
            let build = offload_bulk("resume a key index", move || {
                let end = segment.end();
                Build::resume(store.layout(), segment, end)
            })
            .await?;
            state.rebuild = Some(build);
        }
        let build = state.rebuild.as_mut().expect("made just now");
        if self.rebuild_step(build).await? {
            tracing::info!(segment = base, "a key index was made from the log");
            state.rebuild = None;
            self.rebuilt(state, base);
        }
        let stretch_us = STRETCH_BYTES * 1_000_000 / REBUILD_BYTES_PER_SECOND;
        state.rebuild_at = reactor::now() + Duration::from_micros(stretch_us);
        Ok(Turn::Worked)
    }

    /// Says whether the segment's file is there now.
    async fn rebuild_step(&self, build: &mut Build) -> io::Result<bool> {
        let end = build.segment().end();
        if !build.is_full() {
            build.spill_if_due(&self.place).await?;
            build.step(&self.place.store, end).await?;
            return Ok(false);
        }
        build.seal(&self.place, &|| self.stopping.get()).await
    }

    fn rebuilt(&self, state: &mut State, base: u64) {
        if let Some(sealed) = state.sealed_at(base) {
            sealed.ready = true;
        }
        self.show(state);
        let asks = self.asks.take();
        let (done, others) = asks.into_iter().partition(|ask| ask.base == base);
        *self.asks.borrow_mut() = others;
        Vec::into_iter(done).for_each(|ask: Ask| ask.done.send(()));
    }

    /// Something of a segment's index is missing or damaged.
    async fn take(&self, state: &mut State, ask: Ask) {
        let base = ask.base;
        if base == state.live.segment().base() && ask.damaged {
            state.live.start_over(&self.place).await;
            self.show(state);
            return ask.done.send(());
        }
        let Some(sealed) = state.sealed_at(base) else {
            return ask.done.send(());
        };
        if ask.damaged && sealed.ready {
            sealed.ready = false;
            tracing::warn!(
                segment = base,
                "a key index is damaged; it is made again from the log"
            );
            self.place.store.keys().opened().forget(base);
            let path = names::sealed(self.place.store.layout(), base);
            offload("remove a key index", move || drop(fs::remove_file(&path))).await;
        }
        if sealed.ready {
            return ask.done.send(());
        }
        self.asks.borrow_mut().push(ask);
    }

    fn forget_reclaimed(&self, state: &mut State) {
        let first = self.place.store.first().0;
        if state
            .sealed
            .first()
            .is_some_and(|oldest| oldest.base < first)
        {
            state.sealed.retain(|sealed| sealed.base >= first);
            let gone = |build: &Build| build.segment().base() < first;
            state.rebuild.take_if(|build| gone(build));
            self.place.store.keys().opened().forget_below(first);
            let asks = self.asks.take();
            let (kept, gone) = asks.into_iter().partition(|ask| ask.base >= first);
            *self.asks.borrow_mut() = kept;
            Vec::into_iter(gone).for_each(|ask: Ask| ask.done.send(()));
        }
    }

    /// Lets queries see what there is.
    fn show(&self, state: &mut State) {
        let segment_end = state.live.segment().end();
        let stretch_end = state.live.read_to() + STRETCH_BYTES;
        self.wake_at.set(match state.live.is_full() {
            true => segment_end + 1,
            false => stretch_end.min(segment_end),
        });
        if *state.shown != state.sealed {
            state.shown = Arc::new(state.sealed.clone());
        }
        let live_is_sealed =
            state.sealed.last().map(|last| last.base) == Some(state.live.segment().base());
        let parts = match live_is_sealed {
            true => Vec::new(),
            false => state.live.parts(),
        };
        let view = View {
            sealed: state.shown.clone(),
            parts,
            indexed_to: state.live.read_to(),
            last_ms: state.live.last_ms(),
        };
        self.place.store.keys().view.store(Arc::new(view));
    }

    async fn finish(&self, state: &mut State) -> io::Result<()> {
        let released = self.place.store.log().released().0;
        if released - state.live.read_to() <= FINISH_BYTES_MAX {
            while state.live.read_to() < released && self.follow_tail(state, released).await? {}
        }
        state.live.spill(&self.place).await?;
        self.place.retired.close_idle().await;
        Ok(())
    }
}

impl State {
    fn sealed_at(&mut self, base: u64) -> Option<&mut Sealed> {
        let at = self
            .sealed
            .binary_search_by_key(&base, |sealed| sealed.base);
        Some(&mut self.sealed[at.ok()?])
    }

    fn newest_missing(&self) -> Option<u64> {
        let newest = self.sealed.iter().rev().find(|sealed| !sealed.ready)?;
        Some(newest.base)
    }
}

/// Removes what belongs to no segment, and runs of segments that have their file. Returns which have. Blocks.
fn tidy(layout: &crate::layout::Layout, list: &List) -> io::Result<BTreeSet<u64>> {
    let newest = list.items().last().map_or(0, |newest| newest.base());
    let names = names::list(layout)?;
    let is_segment = |base: u64| {
        let found = list.containing(base);
        found.is_some_and(|(_, segment)| segment.base() == base)
    };
    let mut present = BTreeSet::new();
    for name in &names {
        if let Name::Sealed { base } = *name {
            if is_segment(base) && base < newest {
                present.insert(base);
            } else {
                fs::remove_file(&sealed(layout, base))?;
            }
        }
    }
    for name in names {
        if let Name::Run { base, .. } = name
            && (!is_segment(base) || present.contains(&base))
        {
            fs::remove_file(&names::path(layout, name))?;
        }
    }
    Ok(present)
}
