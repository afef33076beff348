//! Before log goes: messages in it that are not acknowledged are appended again, to the group's retry topic, and ops that are
//! needed yet are written again as a round.
//!
//! A message that moves stays hidden for as long as it was to be. Its consumer's handle names the old place: it is good
//! for the new one while this process lives; after a restart the message comes once more. Each queue of a topic has one of
//! the retry topic for itself, behind the one that RocketMQ uses: so those who pop in order find what comes before what.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use engine::{Ask, LogOffset, Queue, QueueOffset, Read, ReadLimits};
use hashbrown::HashMap;
use protocol::body::topic_config::TopicConfig;
use protocol::permission::READ_WRITE;
use protocol::pop::Origin;
use protocol::record::{Draft, View};
use protocol::{Text, properties};
use reactor::Gather;
use reactor::mailbox::{Receiver, oneshot};

use super::entry::Place;
use super::journal::Held;
use super::queue::{Op, PopQueue, Unacked};
use super::{rounds, serve};
use crate::coordinator::Coordinator;
use crate::coordinator::journal::Entry;
use crate::internal::Appender;
use crate::topics::Created;

/// Old handles that are remembered.
const MOVED_MAX: usize = 100_000;

/// Where messages are now whose handles name another place.
#[derive(Default)]
pub struct Moved {
    places: RefCell<HashMap<(Place, u64), (Place, u64)>>,
}

impl Moved {
    /// The place of a message now, if it has moved.
    pub fn find(&self, place: &Place, offset: u64) -> Option<(Place, u64)> {
        let places = self.places.borrow();
        if places.is_empty() {
            return None;
        }
        let mut found = places.get(&(place.clone(), offset))?;
        // The new place may be old as well by now; none is twice on the way, because logs only grow.
        while let Some(next) = places.get(found) {
            found = next;
        }
        Some(found.clone())
    }

    /// Handles of places that are gone mean nothing any more.
    pub fn forget_where(&self, is_gone: impl Fn(&Place) -> bool) {
        let mut places = self.places.borrow_mut();
        places.retain(|(from, _), (to, _)| !is_gone(from) && !is_gone(to));
    }

    fn insert(&self, from: (Place, u64), to: (Place, u64)) {
        let mut places = self.places.borrow_mut();
        if places.len() >= MOVED_MAX {
            places.clear();
        }
        places.insert(from, to);
    }
}

/// The queue of the retry topic into which messages of a queue move. RocketMQ uses the first.
pub fn retry_queue(topic: &str, queue_id: u32) -> u32 {
    match Origin::of(topic) {
        Origin::Topic => queue_id.saturating_add(1),
        Origin::RetryV1 | Origin::RetryV2 => queue_id.max(1),
    }
}

/// Answers for as long as it is asked.
pub async fn run(coordinator: Rc<Coordinator>, mut asked: Receiver<Ask>) {
    while let Some(Ask { below, settled }) = asked.recv().await {
        let is_settled = match settle(&coordinator, below).await {
            Ok(is_settled) => is_settled,
            Err(error) => {
                tracing::warn!(%error, "popped messages cannot be appended again now");
                false
            }
        };
        settled.send(is_settled);
    }
}

async fn settle(coordinator: &Rc<Coordinator>, below: LogOffset) -> io::Result<bool> {
    let places: Vec<Place> = {
        let table = coordinator.pop.table.borrow();
        let open = table.slots().filter(|slot| slot.state.unacked_len() > 0);
        open.map(|slot| slot.place.clone()).collect()
    };
    let mut moved = 0u64;
    for place in &places {
        match move_below(coordinator, place, below).await? {
            Some(more) => moved += more,
            None => return Ok(false),
        }
    }
    if moved > 0 {
        let below = below.0;
        tracing::info!(
            below,
            moved,
            "popped messages were appended again before their log file goes"
        );
    }
    keep_ops(coordinator, below).await
}

/// The last round must lie above.
async fn keep_ops(coordinator: &Rc<Coordinator>, below: LogOffset) -> io::Result<bool> {
    let queue = coordinator.pop.journal.queue();
    if coordinator.pop.table.borrow().is_empty() {
        return Ok(true);
    }
    let start = rounds::start(coordinator).unwrap_or(0);
    let start = start.max(queue.min_offset());
    let goes = match record(coordinator, queue, start).await? {
        Found::Record(record) => {
            let view = View::parse(&record).map_err(io::Error::other)?;
            view.log_offset < below.0
        }
        Found::Gone => true,
        Found::NotYet => false,
    };
    match goes {
        true => Ok(rounds::write(coordinator).await),
        false => Ok(true),
    }
}

/// How many messages of one queue had to move; none if that is not possible now.
async fn move_below(
    coordinator: &Rc<Coordinator>,
    place: &Place,
    below: LogOffset,
) -> io::Result<Option<u64>> {
    let mut moved = 0;
    let mut from = 0;
    loop {
        let first = {
            let mut table = coordinator.pop.table.borrow_mut();
            let Some(slot) = table.at(place) else {
                return Ok(Some(moved));
            };
            let first = slot.state.unacked_from(from).next();
            first.map(|(offset, message)| (offset, *message, Arc::clone(&slot.queue)))
        };
        let Some((offset, message, queue)) = first else {
            return Ok(Some(moved));
        };
        from = offset + 1;
        let record = match record(coordinator, &queue, offset).await? {
            Found::Record(record) => record,
            // Nobody can have it. Those behind it are owed as before.
            Found::Gone => {
                coordinator.pop.gone(place, offset);
                continue;
            }
            Found::NotYet => return Ok(Some(moved)),
        };
        let view = View::parse(&record).map_err(io::Error::other)?;
        if view.log_offset >= below.0 {
            return Ok(Some(moved));
        }
        if !move_one(coordinator, place, offset, message, &view).await {
            return Ok(None);
        }
        moved += 1;
    }
}

async fn move_one(
    coordinator: &Rc<Coordinator>,
    place: &Place,
    offset: u64,
    message: Unacked,
    view: &View<'_>,
) -> bool {
    let to = retry_place(coordinator, place);
    // Nobody takes it for a new one before it is listed.
    set_reading(coordinator, &to, true);
    let appended = append(coordinator, &to, view).await;
    if let Some(new_offset) = appended {
        list(coordinator, (place, offset), (&to, new_offset), message);
    }
    set_reading(coordinator, &to, false);
    // Whoever came meanwhile was not to read that queue.
    serve::visible_again(coordinator, &to);
    coordinator.outgoing.send_all().await;
    if appended.is_none() {
        return false;
    }
    let (reply, landed) = oneshot();
    coordinator.pop.journal.hold(Held::Task(reply));
    landed.await.unwrap_or(false)
}

fn list(coordinator: &Rc<Coordinator>, from: (&Place, u64), to: (&Place, u64), message: Unacked) {
    let pop = &coordinator.pop;
    // It may have been acknowledged or delivered again meanwhile: then the copy is one too many, and done.
    let (is_the_same, is_ordered, attempt) = {
        let mut table = pop.table.borrow_mut();
        let Some(slot) = table.at(from.0) else {
            return; // The group is gone.
        };
        let is_the_same = slot.state.get(from.1) == Some(&message);
        (
            is_the_same,
            slot.is_ordered,
            slot.state.attempt().to_owned(),
        )
    };
    let moved = Unacked {
        ahead: 0,
        ..message
    };
    let part = {
        let mut table = pop.table.borrow_mut();
        let Some(slot) = table.at(to.0) else {
            return;
        };
        slot.is_ordered |= is_ordered;
        let copy = is_the_same.then_some((to.1, moved));
        popped_to(&slot.state, to.1, copy, attempt)
    };
    pop.change(to.0, &part);
    if is_the_same {
        let ack = Op::Ack {
            offsets: vec![from.1],
            pop_ms: message.pop_ms,
        };
        pop.change(from.0, &ack);
        pop.moved
            .insert((from.0.clone(), from.1), (to.0.clone(), to.1));
        pop.arm(to.0);
    }
}

/// The queue is popped up to and with this offset: the copy is listed, and never new to anybody. What nobody has popped of
/// that which lies before it (a copy that a crash has left) is visible.
fn popped_to(state: &PopQueue, offset: u64, copy: Option<(u64, Unacked)>, attempt: String) -> Op {
    let visible = Unacked {
        pop_ms: 0,
        due_ms: 0,
        times: 0,
        ahead: 0,
    };
    let from = state.next().min(offset);
    let before = (from..offset).map(|at| (at, state.get(at).copied().unwrap_or(visible)));
    Op::Part {
        next: state.next().max(offset + 1),
        from,
        until: offset + 1,
        unacked: before.chain(copy).collect(),
        attempt,
    }
}

/// The group's place in its retry topic, made if it is not there.
fn retry_place(coordinator: &Rc<Coordinator>, place: &Place) -> Place {
    let topic = match Origin::of(&place.topic) {
        Origin::Topic => Arc::from(Origin::RetryV1.topic(&place.topic, &place.group)),
        Origin::RetryV1 | Origin::RetryV2 => Arc::clone(&place.topic),
    };
    let queue_id = retry_queue(&place.topic, place.queue_id);
    let queues = queue_id.saturating_add(1);
    let created = {
        let (mut tables, now_ms) = (coordinator.tables(), reactor::wall_ms());
        let topics = &mut tables.topics;
        match topics.create_for_group(&topic, queues, READ_WRITE, None, false, now_ms) {
            Created::Existed(config) => match with_queues(&config, queues) {
                Some(wider) => Created::New(topics.put(wider, now_ms)),
                None => Created::Existed(config),
            },
            created => created,
        }
    };
    let made = coordinator.keep_created(created);
    if made.is_new {
        coordinator.journal_entry(&Entry::Topic((*made.value).clone()));
    }
    super::start::line_up(coordinator, &place.group, &topic, queue_id, false);
    Place {
        group: Arc::clone(&place.group),
        topic,
        queue_id,
    }
}

/// The topic with at least so many queues, if it has fewer.
fn with_queues(config: &TopicConfig, queues: u32) -> Option<TopicConfig> {
    let queues = i32::try_from(queues).unwrap_or(i32::MAX);
    let is_enough = config.read_queue_nums >= queues && config.write_queue_nums >= queues;
    (!is_enough).then(|| TopicConfig {
        read_queue_nums: config.read_queue_nums.max(queues),
        write_queue_nums: config.write_queue_nums.max(queues),
        ..config.clone()
    })
}

async fn append(coordinator: &Rc<Coordinator>, to: &Place, view: &View<'_>) -> Option<u64> {
    let queue = coordinator.shared.store.queue(&to.topic, to.queue_id);
    let tags = view.property(properties::TAGS);
    let tags = tags.map(String::from_utf8_lossy).unwrap_or_default();
    let draft = Draft {
        topic: &to.topic,
        queue_id: i32::try_from(to.queue_id).unwrap_or(i32::MAX),
        flag: view.flag,
        sys_flag: view.sys_flag,
        born_ms: view.born_ms,
        born_host: view.born_host,
        store_host: coordinator.settings().advertised(),
        // How often it was delivered is listed, here as there.
        reconsume_times: view.reconsume_times,
        prepared_transaction_offset: 0,
        properties: Text::plain(view.properties),
        body: view.body,
    };
    let mut appender = Appender::promised(coordinator.shared.writer.clone());
    let tag_hash = properties::tag_hash(&tags);
    match appender.append_one(&queue, tag_hash, &draft).await {
        Ok(appended) => Some(appended.queue_offset),
        Err(error) => {
            tracing::warn!(?to, %error, "a popped message cannot be appended again");
            None
        }
    }
}

fn set_reading(coordinator: &Coordinator, place: &Place, is_reading: bool) {
    let mut table = coordinator.pop.table.borrow_mut();
    if let Some(slot) = table.at(place) {
        slot.is_reading = is_reading;
    }
}

enum Found {
    Record(Vec<u8>),
    /// Damaged, or its log is not there any more.
    Gone,
    /// The queue ends before it.
    NotYet,
}

async fn record(coordinator: &Coordinator, queue: &Arc<Queue>, offset: u64) -> io::Result<Found> {
    let store = &coordinator.shared.store;
    let limits = ReadLimits {
        messages_max: 1,
        scan_max: 1,
        ..ReadLimits::default()
    };
    let mut gather = Gather::default();
    let at = QueueOffset(offset);
    let mut read = store.read(queue, at, &limits, |_| true, &mut gather);
    if let Read::Cold(cold) = read {
        read = store.fetch(cold, |_| true, &mut gather).await?;
    }
    let mut record = Vec::new();
    gather.copy_slices_to(&mut record);
    // Over what is damaged a read goes on to what lies behind it.
    let is_it = |bytes: &[u8]| View::parse(bytes).is_ok_and(|view| view.queue_offset == offset);
    Ok(match read {
        Read::Found(_) if is_it(&record) => Found::Record(record),
        Read::Found(_) | Read::NoneMatched { .. } | Read::BelowStart { .. } => Found::Gone,
        Read::Empty | Read::BeyondEnd { .. } => Found::NotYet,
        Read::Cold(_) => return Err(io::ErrorKind::WouldBlock.into()),
    })
}

#[cfg(test)]
mod tests;
