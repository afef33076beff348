//! What happened on one core since the coordinator was last told: by queue for what was put, by group and topic for what
//! was got.
//!
//! Plain numbers of one core. An entry exists only for what changed within the last second, so memory follows what goes
//! on, not how many topics and groups there are. A put is counted by two array accesses, a pull by one look into a table.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use engine::QueueNo;
use hashbrown::HashMap;
use reactor::Notify;
use reactor::mailbox::Sender;

use super::latencies::Latencies;
use crate::messages::ToCoordinator;

/// How often the coordinator is told, while there is anything to tell.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Entries of one message: the coordinator must not be held up by a long one.
const ENTRIES_PER_MESSAGE_MAX: usize = 512;
/// In `places`: nothing was put into this queue.
const NOWHERE: u32 = u32::MAX;

/// What was put into a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put {
    pub queue: QueueNo,
    pub messages: u64,
    pub bytes: u64,
    /// Sends whose sender waited, and for how long altogether.
    pub answered: u64,
    pub waited_us: u64,
}

/// What a group got of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Got {
    pub messages: u64,
    pub bytes: u64,
    /// Pulls that found something, and how long they took altogether.
    pub pulls: u64,
    pub took_us: u64,
    pub disk_messages: u64,
    pub disk_bytes: u64,
    /// How far behind the end of the log the farthest read from the disk was.
    pub behind_bytes: u64,
    /// POP: messages confirmed, and messages handed out for a while.
    pub acks: u64,
    pub checkpoints: u64,
}

/// A group and a topic it reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reading {
    pub topic: Arc<str>,
    pub group: Arc<str>,
}

/// A piece of a tally, on its way to the coordinator.
#[derive(Debug, Default)]
pub struct Counted {
    pub puts: Vec<Put>,
    pub gets: Vec<(Reading, Got)>,
    /// By queue: where the last pull that found something left its consumer.
    pub pulled: Vec<(Reading, BTreeMap<u32, u64>)>,
    pub latencies: Option<Box<Latencies>>,
    pub slowest_get_us: u64,
}

/// Lives on one core.
pub struct Tally {
    coordinator: Sender<ToCoordinator>,
    since: RefCell<Since>,
    announced: Cell<bool>,
    ready: Notify,
}

/// Since the coordinator was last told.
#[derive(Default)]
struct Since {
    /// By queue number: where in `puts` its entry is.
    places: Vec<u32>,
    puts: Vec<Put>,
    gets: HashMap<Reading, Reader>,
    latencies: Box<Latencies>,
    slowest_get_us: u64,
}

/// What one of them got, and where in which queue it is now.
#[derive(Default)]
struct Reader {
    got: Got,
    pulled: BTreeMap<u32, u64>,
}

impl Tally {
    pub fn new(coordinator: Sender<ToCoordinator>) -> Self {
        Self {
            coordinator,
            since: RefCell::default(),
            announced: Cell::new(false),
            ready: Notify::new(),
        }
    }

    /// A message was stored. `waited`: how long its sender was kept; none if nobody waits.
    pub fn put(&self, queue: QueueNo, bytes: u64, waited: Option<Duration>) {
        self.since.borrow_mut().put(queue, bytes, waited);
        self.announce();
    }

    /// A consumer has got messages.
    pub fn got(&self, group: &Arc<str>, topic: &Arc<str>, more: Got) {
        self.since.borrow_mut().reader(group, topic, &more);
        self.announce();
    }

    /// A pull of a queue was answered with the messages in front of `next`.
    pub fn pulled(&self, group: &Arc<str>, topic: &Arc<str>, more: Got, queue_id: u32, next: u64) {
        let mut since = self.since.borrow_mut();
        let reader = since.reader(group, topic, &more);
        reader.pulled.insert(queue_id, next);
        self.announce();
    }

    fn announce(&self) {
        if !self.announced.replace(true) {
            self.ready.notify();
        }
    }

    /// Tells the coordinator, as long as there is one.
    pub async fn run(self: Rc<Self>) {
        loop {
            self.ready.notified().await;
            reactor::sleep(TELL_EVERY).await;
            self.announced.set(false);
            let pieces = self.since.borrow_mut().take();
            for piece in pieces {
                let message = ToCoordinator::Counted(Box::new(piece));
                if self.coordinator.send(message).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl Since {
    fn reader(&mut self, group: &Arc<str>, topic: &Arc<str>, more: &Got) -> &mut Reader {
        let each_us = more.took_us.checked_div(more.pulls).unwrap_or(0);
        self.slowest_get_us = self.slowest_get_us.max(each_us);
        let reading = Reading {
            topic: Arc::clone(topic),
            group: Arc::clone(group),
        };
        let reader = self.gets.entry(reading).or_default();
        reader.got.add(more);
        reader
    }

    fn put(&mut self, queue: QueueNo, bytes: u64, waited: Option<Duration>) {
        let number = queue.0 as usize;
        if self.places.len() <= number {
            self.places.resize(number + 1, NOWHERE);
        }
        let mut place = self.places[number];
        if place == NOWHERE {
            place = u32::try_from(self.puts.len()).expect("fewer entries than queues");
            self.places[number] = place;
            self.puts.push(Put {
                queue,
                messages: 0,
                bytes: 0,
                answered: 0,
                waited_us: 0,
            });
        }
        let entry = &mut self.puts[place as usize];
        entry.messages += 1;
        entry.bytes += bytes;
        if let Some(waited) = waited {
            let waited_us = micros(waited);
            entry.answered += 1;
            entry.waited_us += waited_us;
            self.latencies.add(waited_us);
        }
    }

    /// Everything, in pieces of bounded size; nothing is left behind.
    fn take(&mut self) -> Vec<Counted> {
        let mut pieces = Vec::new();
        for put in &self.puts {
            self.places[put.queue.0 as usize] = NOWHERE;
        }
        for some in self.puts.chunks(ENTRIES_PER_MESSAGE_MAX) {
            pieces.push(Counted {
                puts: some.to_vec(),
                ..Counted::default()
            });
        }
        self.puts.clear();
        let mut gets = self.gets.drain().peekable();
        while gets.peek().is_some() {
            let mut piece = Counted::default();
            for (reading, reader) in gets.by_ref().take(ENTRIES_PER_MESSAGE_MAX) {
                if !reader.pulled.is_empty() {
                    piece.pulled.push((reading.clone(), reader.pulled));
                }
                piece.gets.push((reading, reader.got));
            }
            pieces.push(piece);
        }
        drop(gets);
        if let Some(first) = pieces.first_mut() {
            first.latencies = Some(std::mem::take(&mut self.latencies));
            first.slowest_get_us = std::mem::take(&mut self.slowest_get_us);
        }
        pieces
    }
}

impl Got {
    pub fn add(&mut self, more: &Got) {
        self.messages += more.messages;
        self.bytes += more.bytes;
        self.pulls += more.pulls;
        self.took_us += more.took_us;
        self.disk_messages += more.disk_messages;
        self.disk_bytes += more.disk_bytes;
        self.behind_bytes = self.behind_bytes.max(more.behind_bytes);
        self.acks += more.acks;
        self.checkpoints += more.checkpoints;
    }
}

pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(group: &str) -> Reading {
        Reading {
            topic: "t".into(),
            group: group.into(),
        }
    }

    #[test]
    fn what_was_put_is_told_once_and_by_queue() {
        let mut since = Since::default();
        since.put(QueueNo(3), 100, Some(Duration::from_micros(7)));
        since.put(QueueNo(900), 10, None);
        since.put(QueueNo(3), 50, Some(Duration::from_micros(9)));
        let pieces = since.take();
        assert_eq!(pieces.len(), 1);
        let put = |queue, messages, bytes, answered, waited_us| Put {
            queue: QueueNo(queue),
            messages,
            bytes,
            answered,
            waited_us,
        };
        assert_eq!(
            pieces[0].puts,
            [put(3, 2, 150, 2, 16), put(900, 1, 10, 0, 0)]
        );
        assert!(since.take().is_empty(), "told once");
        since.put(QueueNo(900), 1, None);
        assert_eq!(since.take()[0].puts, [put(900, 1, 1, 0, 0)]);
    }

    #[test]
    fn no_message_to_the_coordinator_is_long() {
        let mut since = Since::default();
        for number in 0..2_000 {
            since.put(QueueNo(number), 1, None);
            let got = since.gets.entry(reading(&number.to_string())).or_default();
            got.got.messages += 1;
        }
        let pieces = since.take();
        let lengths = |piece: &Counted| piece.puts.len() + piece.gets.len();
        assert!(pieces.iter().all(|p| lengths(p) <= ENTRIES_PER_MESSAGE_MAX));
        let puts: usize = pieces.iter().map(|piece| piece.puts.len()).sum();
        let gets: usize = pieces.iter().map(|piece| piece.gets.len()).sum();
        assert_eq!((puts, gets), (2_000, 2_000));
        assert_eq!(pieces.iter().filter(|p| p.latencies.is_some()).count(), 1);
    }
}
