//! One life of a store: it opens, is compared with the diary, takes messages and is read, until it ends.

use super::diary::{Diary, QUEUES, TOPIC, Tried};
use super::plan::{Life, Numbers};
use engine::{Batch, OpenError, QueueOffset, Read, ReadLimits, Retention, Store, Writer};
use protocol::record::{Draft, View};
use protocol::text::Text;
use reactor::Gather;
use reactor::sim::Faults;
use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A life that is to close does at least so much before.
const STEPS_MIN: u64 = 12;
/// Longer than reclaim sleeps between two looks at the disk.
const RECLAIM_PAUSE: Duration = Duration::from_millis(1_100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    Opening,
    Open,
    /// A sick disk kept it from opening.
    NotOpened,
    Closed,
}

pub async fn live(life: Life, diary: Rc<RefCell<Diary>>) {
    let (store, writer) = match open(&life).await {
        Ok(opened) => opened,
        Err(error) => {
            let is_sick = life.faults_at_open != Faults::default() || life.disk_bytes.is_some();
            assert!(is_sick, "a healthy disk: {error}");
            let mut diary = diary.borrow_mut();
            diary.count("times not opened");
            diary.ends = Ends::NotOpened;
            return;
        }
    };
    let mut one = One {
        numbers: Numbers::from(life.seed),
        store,
        writer,
        diary,
        life,
    };
    one.reconcile().await;
    one.diary.borrow_mut().ends = Ends::Open;
    one.work().await;
    one.close().await;
}

/// Writes of a process that was killed may still be on their way: the store is theirs until they have come to an end.
async fn open(life: &Life) -> Result<(Arc<Store>, Writer), OpenError> {
    loop {
        match Store::open(life.config.clone(), |_| {}).await {
            Err(OpenError::InUse { .. }) => reactor::sleep(Duration::from_millis(1)).await,
            opened => return opened,
        }
    }
}

struct One {
    life: Life,
    store: Arc<Store>,
    writer: Writer,
    diary: Rc<RefCell<Diary>>,
    numbers: Numbers,
}

impl One {
    async fn reconcile(&mut self) {
        let queues = std::array::from_fn(|id| match self.store.find_queue(TOPIC, id as u32) {
            Some(queue) => (queue.min_offset(), queue.max_offset()),
            None => (0, 0),
        });
        let (end, first) = (self.store.written().0, self.store.first().0);
        self.diary.borrow_mut().reconcile(end, first, queues);
        for (id, (start, end)) in queues.into_iter().enumerate() {
            let mut at = start;
            while at < end {
                match self.read(id, at, self.life.faults_at_open).await {
                    Some(next) => at = next,
                    None => break,
                }
            }
        }
        self.look();
    }

    async fn work(&mut self) {
        if self.life.reclaims {
            self.store.set_retention(Retention {
                keep_ms: 0,
                delete_hours: !0,
                check_interval_ms: 1,
                between_segments_ms: 1,
                segments_per_round_max: 3,
                ..Retention::default()
            });
        }
        let pause_at = self.life.reclaims.then(|| self.numbers.below(STEPS_MIN));
        for step in 0.. {
            if step >= STEPS_MIN && self.diary.borrow().is_to_close {
                return;
            }
            match self.numbers.below(8) {
                0..=4 => self.send().await,
                5 => self.read_somewhere().await,
                _ => {
                    let pause = Duration::from_micros(self.numbers.below(4_000));
                    reactor::sleep(pause).await;
                }
            }
            if pause_at == Some(step) {
                reactor::sleep(RECLAIM_PAUSE).await;
            }
            self.look();
            // A turn of its own: the simulated clock moves only when somebody sleeps.
            reactor::sleep(Duration::from_micros(1 + self.numbers.below(300))).await;
        }
    }

    /// Hands over a batch with at most one message for each queue.
    async fn send(&mut self) {
        let mut batch = Batch::new(0);
        let mut in_batch = Vec::new();
        for id in 0..QUEUES {
            if self.numbers.below(2) == 0 {
                continue;
            }
            let long = self.numbers.below(12) == 0;
            let body_bytes = 16 + self.numbers.below(if long { 6_000 } else { 700 }) as u32;
            let number = {
                let mut diary = self.diary.borrow_mut();
                diary.next_number += 1;
                let number = diary.next_number;
                diary.tried[id].push(Tried {
                    number,
                    body_bytes,
                    log_end: None,
                });
                number
            };
            let queue = self.store.queue(TOPIC, id as u32);
            let body = body(number, body_bytes);
            batch.push(&queue, 0, number, |out| {
                draft(id as i32, &body).append_to(out)
            });
            in_batch.push(id);
        }
        if in_batch.is_empty() {
            return;
        }
        self.writer.append(&mut batch).await;
        {
            let mut diary = self.diary.borrow_mut();
            for (&id, item) in in_batch.iter().zip(batch.items()) {
                match item.error {
                    None => {
                        let offset = diary.tried[id].len() as u64 - 1;
                        assert_eq!(item.queue_offset, offset, "offsets have no gap");
                        let log_end = item.log_offset + u64::from(item.record_bytes());
                        diary.appended(id, log_end);
                    }
                    Some(error) => {
                        assert!(self.life.is_sick, "a healthy disk: {error}");
                        diary.refused(id);
                    }
                }
            }
        }
        self.look();
    }

    fn look(&mut self) {
        self.writer.publish();
        let (released, flushed) = (self.store.written().0, self.store.flushed().0);
        let first = self.store.first().0;
        self.diary.borrow_mut().look(released, flushed, first);
    }

    async fn read_somewhere(&mut self) {
        let id = self.numbers.below(QUEUES as u64) as usize;
        let Some(queue) = self.store.find_queue(TOPIC, id as u32) else {
            return;
        };
        let (start, end) = (queue.min_offset(), queue.max_offset());
        if start < end {
            let at = start + self.numbers.below(end - start);
            self.read(id, at, self.life.faults).await;
        }
    }

    /// Reads some messages and compares them. Where to go on; none if a sick disk did not let it.
    async fn read(&self, id: usize, at: u64, faults: Faults) -> Option<u64> {
        let queue = self
            .store
            .find_queue(TOPIC, id as u32)
            .expect("it was found before");
        let (limits, mut gather) = (ReadLimits::default(), Gather::default());
        let offset = QueueOffset(at);
        let read = match self
            .store
            .read(&queue, offset, &limits, |_| true, &mut gather)
        {
            Read::Cold(cold) => self.store.fetch(cold, |_| true, &mut gather).await,
            hot => Ok(hot),
        };
        let found = match read {
            Ok(Read::Found(found)) => found,
            Ok(Read::NoneMatched { next }) if faults.bad_page_ppm > 0 => return Some(next.0),
            // It was alone, and was damaged each time it was read.
            Ok(Read::NoneMatched { next }) if faults.bit_flip_ppm > 0 => {
                self.diary.borrow_mut().count("damaged messages left out");
                return Some(next.0);
            }
            Ok(Read::BelowStart { min }) if min.0 > at => {
                // Reclaimed now, or before and not known when the store opened.
                let (diary, first) = (self.diary.borrow(), self.store.first().0);
                diary.assert_reclaimed(id, min.0 as usize, first);
                return None;
            }
            Ok(other) => panic!("{other:?} at {at} of queue {id}"),
            Err(error) => {
                self.forgive(error, faults);
                return None;
            }
        };
        let mut bytes = Vec::new();
        gather.copy_slices_to(&mut bytes);
        let mut rest = bytes.as_slice();
        let mut offset = at;
        let is_lying = faults.bit_flip_ppm > 0;
        // What stays unreadable is passed over; an error that passes hides nothing.
        let may_miss = is_lying || faults.bad_page_ppm > 0;
        while !rest.is_empty() {
            let view = match View::parse(rest) {
                Ok(view) if view.check_body().is_ok() => view,
                // No record of RocketMQ's carries a checksum of its header: the reader has to look.
                _ => {
                    assert!(is_lying, "message {offset} of queue {id} is damaged");
                    self.diary.borrow_mut().count("damaged messages handed out");
                    return None;
                }
            };
            rest = &rest[view.bytes.len()..];
            let is_next = view.queue_id == id as i32 && view.queue_offset == offset;
            if !is_next {
                assert!(may_miss, "message {offset} of queue {id} is missing");
                self.diary.borrow_mut().count("damaged messages left out");
                let is_later = (offset + 1..found.next.0).contains(&view.queue_offset);
                if view.queue_id != id as i32 || !is_later {
                    return None; // Its header is what was damaged.
                }
                offset = view.queue_offset;
            }
            let tried = self.diary.borrow().tried[id][offset as usize];
            let expected = body(tried.number, tried.body_bytes);
            assert!(
                view.body == expected,
                "message {offset} of queue {id} is another one than {tried:x?}: {}",
                String::from_utf8_lossy(&view.body[..16.min(view.body.len())])
            );
            offset += 1;
        }
        assert!(
            offset == found.next.0 || may_miss,
            "messages {offset}..{} of queue {id} are missing",
            found.next.0
        );
        self.diary.borrow_mut().count("reads compared");
        Some(found.next.0)
    }

    fn forgive(&self, error: io::Error, faults: Faults) {
        let may_fail =
            self.life.is_sick && (faults != Faults::default() || self.store.is_poisoned());
        // Reads may go to a segment that is reclaimed meanwhile.
        assert!(may_fail || self.life.reclaims, "a healthy disk: {error}");
        self.diary.borrow_mut().count("reads that failed");
    }

    async fn close(self) {
        let closed = self.writer.close().await;
        assert!(
            closed.is_ok() || self.life.is_sick,
            "a healthy disk: {closed:?}"
        );
        self.diary.borrow_mut().ends = Ends::Closed;
    }
}

fn body(number: u64, bytes: u32) -> Vec<u8> {
    let mut body = format!("{number:016x}").into_bytes();
    body.resize(bytes as usize, b'a' + (number % 26) as u8);
    body
}

fn draft(queue_id: i32, body: &[u8]) -> Draft<'_> {
    let host = SocketAddr::from((Ipv4Addr::LOCALHOST, 10911));
    Draft {
        topic: TOPIC,
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_ms: 1,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        properties: Text::plain(b""),
        body,
    }
}
