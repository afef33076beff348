//! Pops and notifications that found nothing: held until there is something for them, or until their time is up.
//!
//! One watcher task for each queue that somebody waits for, however many they are, and one clock for all deadlines and for
//! messages that are visible again. Who came first is served first.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use engine::{Queue, QueueNo, QueueOffset};
use hashbrown::{HashMap, HashSet};
use reactor::{Instant, Notify};

use super::entry::Place;
use super::table::{Key, KeyRef};
use super::wanted::Wanted;
use super::{Pop, serve};
use crate::coordinator::Coordinator;
use crate::messages::ConnId;

/// Of the whole broker; further ones are told that it is full.
const PARKED_MAX: usize = 100_000;
/// Of one group on one queue (or on all of them).
const PARKED_ALIKE_MAX: usize = 1025;
/// A watcher that hears nothing looks again, for nothing.
const WATCH_FOR: Duration = Duration::from_secs(600);
/// The clock on the wall may be set: a long sleep is cut into pieces.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Lives on the coordinator's core.
#[derive(Default)]
pub struct Parked {
    lists: RefCell<Lists>,
    /// Queues with a watcher.
    watched: RefCell<HashSet<QueueNo>>,
    /// Those for whom more is looked for, turn by turn.
    going_on: RefCell<HashSet<Key>>,
    /// When which queue has something visible again, or may have.
    due: RefCell<BTreeSet<(i64, u64)>>,
    due_places: RefCell<HashMap<u64, Place>>,
    due_count: Cell<u64>,
    rearm: Notify,
}

#[derive(Default)]
struct Lists {
    wanted: BTreeMap<u64, Wanted>,
    /// By group and topic, then by queue (none: all of them).
    lines: HashMap<Key, BTreeMap<Option<u32>, BTreeSet<u64>>>,
    /// Groups that wait for a topic.
    topics: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    conns: HashMap<ConnId, BTreeSet<u64>>,
    deadlines: BTreeSet<(Instant, u64)>,
    count: u64,
}

/// What parking came to.
pub enum Parking {
    Parked,
    /// Not to be held, or no longer.
    Late(Box<Wanted>),
    Full(Box<Wanted>),
}

impl Lists {
    fn insert(&mut self, until: Instant, wanted: Wanted) {
        self.count += 1;
        let id = self.count;
        let key = Key::of(&wanted);
        let groups = self.topics.entry(Arc::clone(&wanted.topic)).or_default();
        groups.insert(Arc::clone(&wanted.group));
        let line = self.lines.entry(key).or_default();
        line.entry(wanted.queue_id).or_default().insert(id);
        let conn = wanted.caller.conn;
        self.conns.entry(conn).or_default().insert(id);
        self.deadlines.insert((until, id));
        self.wanted.insert(id, wanted);
    }

    fn remove(&mut self, id: u64) -> Option<Wanted> {
        let wanted = self.wanted.remove(&id)?;
        if let Some(until) = wanted.until {
            self.deadlines.remove(&(until, id));
        }
        let conn = wanted.caller.conn;
        if let Some(ids) = self.conns.get_mut(&conn) {
            ids.remove(&id);
            if ids.is_empty() {
                self.conns.remove(&conn);
            }
        }
        let key = KeyRef {
            group: &wanted.group,
            topic: &wanted.topic,
        };
        if let Some(line) = self.lines.get_mut(&key) {
            if let Some(ids) = line.get_mut(&wanted.queue_id) {
                ids.remove(&id);
                if ids.is_empty() {
                    line.remove(&wanted.queue_id);
                }
            }
            if line.is_empty() {
                self.lines.remove(&key);
                self.forget_group(&wanted.group, &wanted.topic);
            }
        }
        Some(wanted)
    }

    fn forget_group(&mut self, group: &str, topic: &str) {
        if let Some(groups) = self.topics.get_mut(topic) {
            groups.remove(group);
            if groups.is_empty() {
                self.topics.remove(topic);
            }
        }
    }
}

impl Parked {
    /// Holds it until its time is up. The caller has looked and found nothing.
    pub fn park(&self, mut wanted: Box<Wanted>) -> Parking {
        let Some(until) = wanted.until.filter(|until| *until > reactor::now()) else {
            return Parking::Late(wanted);
        };
        let mut lists = self.lists.borrow_mut();
        let key = KeyRef {
            group: &wanted.group,
            topic: &wanted.topic,
        };
        let alike = lists
            .lines
            .get(&key)
            .and_then(|line| line.get(&wanted.queue_id))
            .map_or(0, BTreeSet::len);
        if lists.wanted.len() >= PARKED_MAX || alike >= PARKED_ALIKE_MAX {
            return Parking::Full(wanted);
        }
        wanted.was_parked = true;
        lists.insert(until, *wanted);
        drop(lists);
        self.rearm.notify();
        Parking::Parked
    }

    /// How many of a group wait for a queue, or for all of them.
    pub fn len(&self, group: &str, topic: &str, queue_id: Option<u32>) -> usize {
        let lists = self.lists.borrow();
        let line = lists.lines.get(&KeyRef { group, topic });
        line.and_then(|line| line.get(&queue_id))
            .map_or(0, BTreeSet::len)
    }

    pub fn is_awaited(&self, topic: &str) -> bool {
        self.lists.borrow().topics.contains_key(topic)
    }

    pub fn groups_of(&self, topic: &str) -> Vec<Arc<str>> {
        let lists = self.lists.borrow();
        let groups = lists.topics.get(topic);
        groups.into_iter().flatten().map(Arc::clone).collect()
    }

    /// The one of a group that has waited longest for this queue, or for any; or after this one.
    pub fn first(
        &self,
        key: KeyRef<'_>,
        queue_id: Option<u32>,
        after: u64,
    ) -> Option<(u64, Wanted)> {
        let mut lists = self.lists.borrow_mut();
        let line = lists.lines.get(&key)?;
        let of = |queue_id: Option<u32>| line.get(&queue_id)?.range(after + 1..).next().copied();
        let id = match queue_id {
            Some(_) => [of(None), of(queue_id)].into_iter().flatten().min(),
            None => {
                let all = line.values();
                all.filter_map(|ids| ids.range(after + 1..).next().copied())
                    .min()
            }
        }?;
        let wanted = lists.remove(id)?;
        Some((id, wanted))
    }

    /// Where it was.
    pub fn put_back(&self, id: u64, wanted: Wanted) {
        let Some(until) = wanted.until else {
            return;
        };
        let mut lists = self.lists.borrow_mut();
        let count = std::mem::replace(&mut lists.count, id - 1);
        lists.insert(until, wanted);
        lists.count = count;
    }

    /// The connection is gone: what it waited for is for others.
    pub fn closed(&self, conn: ConnId) {
        let mut lists = self.lists.borrow_mut();
        let ids = lists.conns.remove(&conn).unwrap_or_default();
        for id in ids {
            lists.remove(id);
        }
    }

    fn expired(&self, now: Instant) -> Option<Wanted> {
        let mut lists = self.lists.borrow_mut();
        let &(until, id) = lists.deadlines.first()?;
        if until > now {
            return None;
        }
        lists.remove(id)
    }

    /// False if it has begun already.
    pub fn begin_going_on(&self, key: &Key) -> bool {
        self.going_on.borrow_mut().insert(key.clone())
    }

    pub fn end_going_on(&self, key: &Key) {
        self.going_on.borrow_mut().remove(key);
    }

    fn is_watched(&self, queue: &Queue) -> bool {
        !self.watched.borrow_mut().insert(queue.no())
    }
}

impl Pop {
    /// Somebody waits for this queue: an append wakes them.
    pub fn watch(&self, coordinator: &Rc<Coordinator>, queue: &Arc<Queue>, seen: u64) {
        if !self.parked.is_watched(queue) {
            let watching = watch(Rc::clone(coordinator), Arc::clone(queue), seen);
            reactor::spawn("pop watcher", watching);
        }
    }

    /// Sets the clock for the next message of the queue that is visible again.
    pub fn arm(&self, place: &Place) {
        self.arm_later(place, reactor::wall_ms());
    }

    /// What is visible already is not waited for: whoever comes next finds it.
    fn arm_later(&self, place: &Place, now_ms: i64) {
        let later = {
            let mut table = self.table.borrow_mut();
            let slot = table.at(place);
            slot.and_then(|slot| slot.state.earliest_due_after(now_ms))
        };
        if let Some(due_ms) = later {
            self.arm_at(place, due_ms);
        }
    }

    fn arm_at(&self, place: &Place, due_ms: i64) {
        let mut table = self.table.borrow_mut();
        let Some(slot) = table.at(place) else {
            return;
        };
        if slot.armed_ms.is_some_and(|armed_ms| armed_ms <= due_ms) {
            return;
        }
        slot.armed_ms = Some(due_ms);
        let parked = &self.parked;
        let id = parked.due_count.get() + 1;
        parked.due_count.set(id);
        let mut due = parked.due.borrow_mut();
        let is_first = due.first().is_none_or(|&(first_ms, _)| due_ms < first_ms);
        due.insert((due_ms, id));
        parked.due_places.borrow_mut().insert(id, place.clone());
        if is_first {
            parked.rearm.notify();
        }
    }

    /// A queue whose time has come.
    fn rung(&self, now_ms: i64) -> Option<Place> {
        let parked = &self.parked;
        let mut due = parked.due.borrow_mut();
        let &(due_ms, id) = due.first()?;
        if due_ms > now_ms {
            return None;
        }
        due.remove(&(due_ms, id));
        let place = parked.due_places.borrow_mut().remove(&id)?;
        if let Some(slot) = self.table.borrow_mut().at(&place)
            && slot.armed_ms == Some(due_ms)
        {
            slot.armed_ms = None;
        }
        Some(place)
    }
}

/// Wakes those who wait for the queue's topic, for as long as somebody does.
async fn watch(coordinator: Rc<Coordinator>, queue: Arc<Queue>, mut seen: u64) {
    let pop = &coordinator.pop;
    while pop.parked.is_awaited(queue.topic()) {
        let deadline = reactor::turn_time() + WATCH_FOR;
        let at = QueueOffset(seen);
        if !pop.shard().wait_for(&queue, at, deadline).await {
            continue;
        }
        seen = queue.max_offset();
        for group in pop.parked.groups_of(queue.topic()) {
            let topic = queue.topic();
            let group = &*group;
            serve::line(&coordinator, KeyRef { group, topic }, Some(queue.id()));
        }
        coordinator.outgoing.send_all().await;
    }
    pop.parked.watched.borrow_mut().remove(&queue.no());
}

/// Deadlines, and messages that are visible again.
pub async fn clock(coordinator: Rc<Coordinator>) {
    let pop = &coordinator.pop;
    loop {
        sleep(pop).await;
        let now = reactor::now();
        while let Some(wanted) = pop.parked.expired(now) {
            serve::time_is_up(&coordinator, &wanted);
        }
        let now_ms = reactor::wall_ms();
        while let Some(place) = pop.rung(now_ms) {
            serve::visible_again(&coordinator, &place);
            pop.arm_later(&place, now_ms);
        }
        coordinator.outgoing.send_all().await;
        reactor::yield_now().await;
    }
}

/// Until something may be due, or is set for an earlier time.
async fn sleep(pop: &Pop) {
    let deadline = {
        let lists = pop.parked.lists.borrow();
        lists.deadlines.first().map(|&(until, _)| until)
    };
    let due_ms = pop.parked.due.borrow().first().map(|&(due_ms, _)| due_ms);
    let now = reactor::now();
    let due = due_ms.map(|due_ms| {
        let left_ms = due_ms.saturating_sub(reactor::wall_ms());
        now + Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)).min(SLEEP_MAX)
    });
    let earliest = [deadline, due].into_iter().flatten().min();
    let Some(earliest) = earliest else {
        return pop.parked.rearm.notified().await;
    };
    let mut sleep = pin!(reactor::sleep_until(earliest));
    let mut rearmed = pin!(pop.parked.rearm.notified());
    std::future::poll_fn(|context| {
        let is_over = sleep.as_mut().poll(context).is_ready();
        match is_over || rearmed.as_mut().poll(context).is_ready() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}
