//! Requests that bring messages: tried, answered, parked, and tried again when something has happened.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use engine::Queue;
use protocol::code::response;
use protocol::names::RETRY_PREFIX;
use protocol::pop::ORDERED;
use reactor::Gather;

use super::entry::Place;
use super::parked::Parking;
use super::read::{ColdPlace, Fetched};
use super::start;
use super::table::{Key, KeyRef};
use super::take::{self, Taken};
use super::wanted::{Kind, Wanted};
use crate::coordinator::Coordinator;
use crate::handlers::Answer;

/// Parked requests that are answered in one turn.
const ANSWERED_MAX: usize = 512;

/// A request that has just come.
pub fn request(coordinator: &Rc<Coordinator>, wanted: Wanted) {
    match attempt(coordinator, &wanted, &mut 0) {
        Taken::Answered => {}
        Taken::Nothing => park(coordinator, wanted),
        Taken::PassedOver => park_and_go_on(coordinator, wanted),
        Taken::Cold(place) => read_cold(coordinator, wanted, place),
    }
}

fn park_and_go_on(coordinator: &Rc<Coordinator>, wanted: Wanted) {
    let key = Key::of(&wanted);
    park(coordinator, wanted);
    go_on(coordinator, key);
}

/// Something may be there for those of a group who wait for this queue (none: for any).
pub fn line(coordinator: &Rc<Coordinator>, key: KeyRef<'_>, queue_id: Option<u32>) {
    if !serve(coordinator, key, queue_id) {
        go_on(coordinator, key.into());
    }
}

/// False: there may be more for them.
fn serve(coordinator: &Rc<Coordinator>, key: KeyRef<'_>, queue_id: Option<u32>) -> bool {
    let parked = &coordinator.pop.parked;
    let (mut after, mut told) = (0, 0);
    let mut is_done = true;
    for _ in 0..ANSWERED_MAX {
        let Some((id, wanted)) = parked.first(key, queue_id, after) else {
            return is_done;
        };
        after = id;
        match attempt(coordinator, &wanted, &mut told) {
            Taken::Answered => {}
            Taken::Cold(place) => read_cold(coordinator, wanted, place),
            taken @ (Taken::Nothing | Taken::PassedOver) => {
                is_done &= matches!(taken, Taken::Nothing);
                // Who takes from any queue found none in all of them.
                let is_over = wanted.queue_id.is_none();
                parked.put_back(id, wanted);
                if is_over {
                    return is_done;
                }
            }
        }
    }
    false
}

/// Serves those who wait, in turns, until nothing more is there for them.
fn go_on(coordinator: &Rc<Coordinator>, key: Key) {
    if coordinator.pop.parked.begin_going_on(&key) {
        reactor::spawn("pops go on", going_on(Rc::clone(coordinator), key));
    }
}

async fn going_on(coordinator: Rc<Coordinator>, key: Key) {
    loop {
        reactor::yield_now().await;
        let is_done = serve(&coordinator, KeyRef::from(&key), None);
        if is_done {
            // Whoever finds more from here on begins anew.
            coordinator.pop.parked.end_going_on(&key);
        }
        coordinator.outgoing.send_all().await;
        if is_done {
            return;
        }
    }
}

/// A hidden message of this queue is visible again.
pub fn visible_again(coordinator: &Rc<Coordinator>, place: &Place) {
    let group = &*place.group;
    let (topic, queue_id) = match normal_topic(&place.topic, group) {
        Some(topic) => (topic, None),
        None => (&*place.topic, Some(place.queue_id)),
    };
    line(coordinator, KeyRef { group, topic }, queue_id);
}

/// The topic whose retries a topic of this group holds.
pub fn normal_topic<'a>(topic: &'a str, group: &str) -> Option<&'a str> {
    let rest = topic.strip_prefix(RETRY_PREFIX)?.strip_prefix(group)?;
    rest.strip_prefix(['_', '+'])
}

pub fn time_is_up(coordinator: &Coordinator, wanted: &Wanted) {
    nothing(coordinator, wanted, response::POLLING_TIMEOUT);
}

/// `told` counts the notifications that were answered for the messages that are there.
fn attempt(coordinator: &Rc<Coordinator>, wanted: &Wanted, told: &mut u64) -> Taken {
    match wanted.kind {
        Kind::Pop { .. } => take::take(coordinator, wanted, None),
        Kind::Notify if available(coordinator, wanted) > *told => {
            *told += 1;
            notified(coordinator, wanted, true, false);
            Taken::Answered
        }
        Kind::Notify => Taken::Nothing,
    }
}

fn park(coordinator: &Rc<Coordinator>, wanted: Wanted) {
    let pop = &coordinator.pop;
    let was_parked = wanted.was_parked;
    let conn = wanted.caller.conn;
    let (group, topic) = (Arc::clone(&wanted.group), Arc::clone(&wanted.topic));
    let queue_id = wanted.queue_id;
    match pop.parked.park(Box::new(wanted)) {
        Parking::Late(wanted) => return nothing(coordinator, &wanted, response::POLLING_TIMEOUT),
        Parking::Full(wanted) => return nothing(coordinator, &wanted, response::POLLING_FULL),
        Parking::Parked => {}
    }
    if !was_parked {
        // The connection may ask for other things meanwhile.
        coordinator.outgoing.answer(conn, Vec::new());
    }
    let key = KeyRef {
        group: &group,
        topic: &topic,
    };
    for queue in queues(coordinator, &topic, queue_id) {
        let seen = {
            let table = pop.table.borrow();
            let slot = table.get(key, queue.id());
            slot.map_or(0, |slot| slot.state.next())
        };
        pop.watch(coordinator, &queue, seen);
    }
    let places: Vec<Place> = {
        let table = pop.table.borrow();
        let retries = take::retry_topics(coordinator, &topic, &group);
        let topics = std::iter::once(&topic).chain(&retries);
        let slots = topics.flat_map(|topic| table.slots_of(KeyRef { topic, ..key }));
        slots.map(|slot| slot.place.clone()).collect()
    };
    for place in places {
        pop.arm(&place);
    }
}

fn queues(coordinator: &Coordinator, topic: &str, queue_id: Option<u32>) -> Vec<Arc<Queue>> {
    let store = &coordinator.shared.store;
    match queue_id {
        Some(queue_id) => vec![store.queue(topic, queue_id)],
        None => {
            let queues = take::read_queues(coordinator, topic);
            (0..queues).map(|id| store.queue(topic, id)).collect()
        }
    }
}

/// Fetches what is there, and tries again with it.
fn read_cold(coordinator: &Rc<Coordinator>, wanted: Wanted, place: ColdPlace) {
    let reading = cold(Rc::clone(coordinator), wanted, place);
    reactor::spawn("cold pop", reading);
}

async fn cold(coordinator: Rc<Coordinator>, wanted: Wanted, mut place: ColdPlace) {
    let key = (Arc::clone(&wanted.group), Arc::clone(&wanted.topic));
    loop {
        let queue = Arc::clone(&place.queue);
        set_reading(&coordinator, &wanted, &queue, true);
        let fetched = fetch(&coordinator, &wanted, place).await;
        set_reading(&coordinator, &wanted, &queue, false);
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                let (topic, queue) = (&wanted.topic, queue.id());
                tracing::error!(%topic, queue, %error, "a cold read failed");
                let remark = "the message store could not be read";
                let answer = Answer::code(response::SYSTEM_ERROR, remark);
                answer_with(&coordinator, &wanted, &answer);
                break;
            }
        };
        match take::take(&coordinator, &wanted, Some(fetched)) {
            Taken::Answered => break,
            Taken::Nothing => {
                park(&coordinator, wanted);
                break;
            }
            Taken::PassedOver => {
                park_and_go_on(&coordinator, wanted);
                break;
            }
            Taken::Cold(next) => place = next,
        }
    }
    // Whoever came meanwhile was not to read this queue.
    let (group, topic) = (&*key.0, &*key.1);
    line(&coordinator, KeyRef { group, topic }, None);
    coordinator.outgoing.send_all().await;
}

async fn fetch(
    coordinator: &Coordinator,
    wanted: &Wanted,
    place: ColdPlace,
) -> io::Result<Fetched> {
    let _turn = coordinator.pop.cold_reads.turn().await;
    let store = &coordinator.shared.store;
    let mut gather = Gather::default();
    let read = match &wanted.kind {
        Kind::Pop { filter, .. } if !place.accepts_all => {
            store.fetch(place.cold, filter, &mut gather).await?
        }
        _ => store.fetch(place.cold, |_| true, &mut gather).await?,
    };
    Ok(Fetched {
        queue: place.queue.no(),
        from: place.from,
        read,
        gather,
    })
}

fn set_reading(coordinator: &Coordinator, wanted: &Wanted, queue: &Queue, is_reading: bool) {
    let mut table = coordinator.pop.table.borrow_mut();
    let key = KeyRef {
        group: &wanted.group,
        topic: queue.topic(),
    };
    if let Some(slot) = table.get_mut(key, queue.id()) {
        slot.is_reading = is_reading;
    }
}

/// How many messages a pop would find, looked at from outside.
fn available(coordinator: &Coordinator, wanted: &Wanted) -> u64 {
    let now_ms = reactor::wall_ms();
    let of_queue = |topic: &str, queue: &Queue| {
        let table = coordinator.pop.table.borrow();
        let key = KeyRef {
            group: &wanted.group,
            topic,
        };
        let Some(slot) = table.get(key, queue.id()) else {
            let committed = start::committed(coordinator, &wanted.group, topic, queue.id());
            let next = committed.and_then(|offset| u64::try_from(offset).ok());
            let next = next.unwrap_or_else(|| queue.min_offset());
            return queue.max_offset().saturating_sub(next);
        };
        if wanted.is_ordered {
            let moved = table.moved_of(key, queue.id());
            if let Some(first) = moved.filter(|moved| moved.state.unacked_len() > 0) {
                return match first.state.is_blocked(now_ms, &wanted.attempt) {
                    true => 0,
                    false => first.state.unacked_len() as u64,
                };
            }
            if slot.state.is_blocked(now_ms, &wanted.attempt) {
                return 0;
            }
        }
        let new = queue.max_offset().saturating_sub(slot.state.next());
        new + slot.state.visible(now_ms).count() as u64
    };
    let mut found: u64 = queues(coordinator, &wanted.topic, wanted.queue_id)
        .iter()
        .map(|queue| of_queue(&wanted.topic, queue))
        .sum();
    if !wanted.is_ordered {
        for topic in take::retry_topics(coordinator, &wanted.topic, &wanted.group) {
            let queues = queues(coordinator, &topic, None);
            found += queues
                .iter()
                .map(|queue| of_queue(&topic, queue))
                .sum::<u64>();
        }
    }
    found
}

fn nothing(coordinator: &Coordinator, wanted: &Wanted, code: i32) {
    let Kind::Pop { invisible_ms, .. } = &wanted.kind else {
        return notified(coordinator, wanted, false, code == response::POLLING_FULL);
    };
    let answer = Answer {
        code,
        remark: Some("NO_MESSAGE_IN_QUEUE".into()),
        ..Answer::default()
    };
    let revive_queue = if wanted.is_ordered { ORDERED } else { 0 };
    let answer = answer
        .field("popTime", reactor::wall_ms())
        .field("invisibleTime", invisible_ms)
        .field("reviveQid", revive_queue)
        .field("restNum", 0)
        .field("startOffsetInfo", "")
        .field("msgOffsetInfo", "");
    answer_with(coordinator, wanted, &answer);
}

fn notified(coordinator: &Coordinator, wanted: &Wanted, has_messages: bool, is_full: bool) {
    let answer = Answer::ok()
        .field("hasMsg", has_messages)
        .field("pollingFull", is_full);
    answer_with(coordinator, wanted, &answer);
}

fn answer_with(coordinator: &Coordinator, wanted: &Wanted, answer: &Answer) {
    let mut frame = Vec::new();
    answer.write(&mut frame, wanted.asked);
    let conn = wanted.caller.conn;
    match wanted.was_parked {
        true => coordinator.outgoing.tell(conn, frame),
        false => coordinator.outgoing.answer(conn, frame),
    }
}
