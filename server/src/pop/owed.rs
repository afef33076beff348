//! Before log goes: messages in it that are not acknowledged are appended again, to the group's retry topic, and ops that are
//! needed yet are written again as a round.
//!
//! A message that moves stays hidden for as long as it was to be. Its consumer's handle names the old place: it is good
//! for the new one while this process lives; after a restart the message comes once more.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use engine::{Ask, LogOffset, Queue, QueueOffset, Read, ReadLimits};
use hashbrown::HashMap;
use protocol::permission::READ_WRITE;
use protocol::pop::Origin;
use protocol::record::{Draft, View};
use protocol::{Text, properties};
use reactor::Gather;
use reactor::mailbox::{Receiver, oneshot};

use super::entry::Place;
use super::journal::Held;
use super::queue::{Op, Unacked};
use super::rounds;
use crate::coordinator::Coordinator;
use crate::coordinator::journal::Entry;
use crate::internal::Appender;

/// Old handles that are remembered.
const MOVED_MAX: usize = 100_000;
const RETRY_QUEUE: u32 = 0;

/// Where messages are now whose handles name another place.
#[derive(Default)]
pub struct Moved {
    places: RefCell<HashMap<(Place, u64), (Place, u64)>>,
}

impl Moved {
    /// The new place of a message, which is forgotten here.
    pub fn take(&self, place: &Place, offset: u64) -> Option<(Place, u64)> {
        let mut places = self.places.borrow_mut();
        if places.is_empty() {
            return None;
        }
        places.remove(&(place.clone(), offset))
    }

    fn insert(&self, from: (Place, u64), to: (Place, u64)) {
        let mut places = self.places.borrow_mut();
        if places.len() >= MOVED_MAX {
            places.clear();
        }
        places.insert(from, to);
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
    match place_of(coordinator, queue, start).await? {
        Some(at) if at < below => Ok(rounds::write(coordinator).await),
        _ => Ok(true),
    }
}

/// How many messages of one queue had to move; none if that is not possible now.
async fn move_below(
    coordinator: &Rc<Coordinator>,
    place: &Place,
    below: LogOffset,
) -> io::Result<Option<u64>> {
    let mut moved = 0;
    loop {
        let first = {
            let mut table = coordinator.pop.table.borrow_mut();
            let Some(slot) = table.at(place) else {
                return Ok(Some(moved));
            };
            let first = slot.state.unacked().next();
            first.map(|(offset, message)| (offset, *message, Arc::clone(&slot.queue)))
        };
        let Some((offset, message, queue)) = first else {
            return Ok(Some(moved));
        };
        let Some(record) = record(coordinator, &queue, offset).await? else {
            return Ok(Some(moved)); // Whoever pops next finds that it is gone.
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
    let appended = append(coordinator, &to, view, message.times).await;
    let is_moved = match appended {
        Some(new_offset) => {
            list(coordinator, (place, offset), (&to, new_offset), message);
            true
        }
        None => false,
    };
    set_reading(coordinator, &to, false);
    if !is_moved {
        return false;
    }
    let (reply, landed) = oneshot();
    coordinator.pop.journal.hold(Held::Task(reply));
    landed.await.unwrap_or(false)
}

fn list(coordinator: &Rc<Coordinator>, from: (&Place, u64), to: (&Place, u64), message: Unacked) {
    let pop = &coordinator.pop;
    // It may have been acknowledged or delivered again meanwhile: then the copy is one too many, and done.
    let is_the_same = {
        let mut table = pop.table.borrow_mut();
        let now = table
            .at(from.0)
            .and_then(|slot| slot.state.get(from.1).copied());
        now == Some(message)
    };
    let take = Op::Take {
        offsets: vec![to.1],
        next: 0,
        pop_ms: message.pop_ms,
        due_ms: message.due_ms,
        attempt: String::new(),
    };
    pop.change(to.0, &take);
    let done = match is_the_same {
        true => from,
        false => to,
    };
    let ack = Op::Ack {
        offsets: vec![done.1],
        pop_ms: message.pop_ms,
    };
    pop.change(done.0, &ack);
    if is_the_same {
        pop.moved
            .insert((from.0.clone(), from.1), (to.0.clone(), to.1));
        pop.arm(to.0);
    }
}

/// The group's place in its retry topic, made if it is not there.
fn retry_place(coordinator: &Rc<Coordinator>, place: &Place) -> Place {
    let topic = match Origin::of(&place.topic) {
        Origin::Topic => Arc::from(Origin::RetryV1.topic(&place.topic, &place.group)),
        Origin::RetryV1 | Origin::RetryV2 => Arc::clone(&place.topic),
    };
    let created = coordinator.tables().topics.create_for_group(
        &topic,
        1,
        READ_WRITE,
        None,
        false,
        reactor::wall_ms(),
    );
    let made = coordinator.keep_created(created);
    if made.is_new {
        coordinator.journal_entry(&Entry::Topic((*made.value).clone()));
    }
    super::start::line_up(coordinator, &place.group, &topic, RETRY_QUEUE, false);
    Place {
        group: Arc::clone(&place.group),
        topic,
        queue_id: RETRY_QUEUE,
    }
}

async fn append(
    coordinator: &Rc<Coordinator>,
    to: &Place,
    view: &View<'_>,
    times: u32,
) -> Option<u64> {
    let queue = coordinator.shared.store.queue(&to.topic, to.queue_id);
    let tags = view.property(properties::TAGS);
    let tags = tags.map(String::from_utf8_lossy).unwrap_or_default();
    let draft = Draft {
        topic: &to.topic,
        queue_id: RETRY_QUEUE as i32,
        flag: view.flag,
        sys_flag: view.sys_flag,
        born_ms: view.born_ms,
        born_host: view.born_host,
        store_host: coordinator.settings().advertised(),
        // The copy is listed as delivered once: its next delivery counts on from there.
        reconsume_times: view.reconsume_times.saturating_add_unsigned(times),
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

async fn place_of(
    coordinator: &Coordinator,
    queue: &Arc<Queue>,
    offset: u64,
) -> io::Result<Option<LogOffset>> {
    let record = record(coordinator, queue, offset).await?;
    let view = record.as_deref().map(View::parse).transpose();
    let view = view.map_err(io::Error::other)?;
    Ok(view.map(|view| LogOffset(view.log_offset)))
}

/// None: it is not there any more, or not yet.
async fn record(
    coordinator: &Coordinator,
    queue: &Arc<Queue>,
    offset: u64,
) -> io::Result<Option<Vec<u8>>> {
    let store = &coordinator.shared.store;
    let limits = ReadLimits {
        messages_max: 1,
        ..ReadLimits::default()
    };
    let mut gather = Gather::default();
    let at = QueueOffset(offset);
    let mut read = store.read(queue, at, &limits, |_| true, &mut gather);
    if let Read::Cold(cold) = read {
        read = store.fetch(cold, |_| true, &mut gather).await?;
    }
    Ok(match read {
        Read::Found(_) => {
            let mut bytes = Vec::new();
            gather.copy_slices_to(&mut bytes);
            Some(bytes)
        }
        _ => None,
    })
}
