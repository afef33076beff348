//! Transactions whose producers are silent: one of the group is asked, now and then; after too many questions, or too much
//! time, the half message goes where an operator finds it. Nobody is counted as asked who was not.

use std::io;
use std::time::Duration;

use engine::{Ask, LogOffset, QueueOffset};
use protocol::code::request;
use protocol::header::message::CheckTransaction;
use protocol::names::TRANS_CHECK_MAX_TIME_TOPIC;
use protocol::permission::READ_WRITE;
use protocol::properties;
use protocol::record::{View, message_id};
use protocol::{Encoding, write_request};

use super::counters;
use super::half::{self, Half};
use super::keep::Places;
use super::open::Found;
use super::work::{RETRY_AFTER, Trouble, Work};
use crate::coordinator::journal::Entry;
use crate::internal::Appended;
use crate::messages::ConnId;
use crate::reading;

/// Looked at in one step; decisions come between two steps.
const STEP_MAX: usize = 64;
/// A log file of which more than its half had to be appended again gives back little: the next one waits for so long.
const PAUSE_AFTER_MUCH: Duration = Duration::from_secs(60);
/// RocketMQ makes the topic of those that were given up with one queue.
const GIVEN_UP_QUEUES: u32 = 1;
/// How much more of its queue than is open a restart may have to look at, before old half messages are appended again.
const SPAN_MAX: u64 = 1 << 20;

/// What becomes of a half message that is not left where it is.
enum Next {
    /// The same transaction at another place, with so many questions asked.
    Again {
        checks: u32,
        ask: Option<ConnId>,
    },
    GivenUp,
}

/// One of them, on its way into the log.
struct Moving {
    found: Found,
    record: Vec<u8>,
    next: Next,
}

impl Work {
    /// Those whose producers should have decided by now.
    pub async fn look_at_due(&mut self) -> Result<(), Trouble> {
        let now_ms = reactor::wall_ms();
        loop {
            let due = self.open.take_due(now_ms, STEP_MAX);
            if due.is_empty() {
                return Ok(());
            }
            let looked = self.look_at(&due).await;
            if let Err(trouble) = looked {
                // Nothing of it has happened.
                let later = now_ms + RETRY_AFTER.as_millis() as i64;
                due.iter()
                    .for_each(|found| self.open.wait_until(found.offset, later));
                return Err(trouble);
            }
            self.decide_what_waits().await?;
            reactor::yield_now().await;
        }
    }

    async fn look_at(&mut self, due: &[Found]) -> Result<(), Trouble> {
        let now_ms = reactor::wall_ms();
        let interval_ms = self.settings().transaction_check_interval_ms as i64;
        let mut left = due.iter();
        let mut waiting = Vec::new();
        let mut moving = Vec::new();
        for found in left.by_ref() {
            let Some(producer) = self.producer(&found.group) else {
                waiting.push(found.offset);
                continue;
            };
            let record = match self.readable(found).await {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(error) => {
                    let offset = found.offset;
                    tracing::warn!(offset, %error, "an open half message cannot be read now");
                    waiting.push(offset);
                    continue;
                }
            };
            let half = Half::of(&View::parse(&record).map_err(io::Error::other)?);
            let next = match half.checks >= self.settings().transaction_check_max {
                true => Next::GivenUp,
                false => Next::Again {
                    checks: half.checks + 1,
                    ask: Some(producer),
                },
            };
            self.move_on(&mut moving, found.clone(), record, next);
            if self.is_batch_full() {
                break;
            }
        }
        self.moved(moving).await?;
        // Nobody is there who could be asked.
        for offset in waiting {
            self.open.wait_until(offset, now_ms + interval_ms);
        }
        // There was no room for them in this append.
        for found in left {
            self.open.wait_until(found.offset, now_ms);
        }
        Ok(())
    }

    /// Somebody of the group who is connected, another one each time.
    fn producer(&mut self, group: &str) -> Option<ConnId> {
        let tables = self.coordinator.tables();
        let producers = tables.clients.producers(group)?;
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn % producers.len().max(1);
        producers.keys().nth(turn).copied()
    }

    /// The record; what is damaged is marked, for nobody will ever be able to read it.
    async fn readable(&mut self, found: &Found) -> io::Result<Option<Vec<u8>>> {
        let at = QueueOffset(found.offset);
        let record = reading::one(&self.store, &self.halves, at, found.log_offset).await?;
        if record.is_none() {
            let (offset, log_offset) = (found.offset, found.log_offset.0);
            tracing::error!(
                offset,
                log_offset,
                "an open half message cannot be read any more"
            );
            self.open.close(offset);
            self.unmarked.push(offset);
        }
        Ok(record)
    }

    /// Adds it to what the next append takes along.
    fn move_on(&mut self, moving: &mut Vec<Moving>, found: Found, record: Vec<u8>, next: Next) {
        let view = View::parse(&record).expect("it was read before");
        let origin = found.origin;
        let again = match next {
            Next::Again { checks, .. } => half::again(&view, origin, checks),
            Next::GivenUp => None,
        };
        let next = match again {
            Some(_) => next,
            None => Next::GivenUp,
        };
        let made = match again {
            Some(made) => made,
            None => {
                self.make_topic();
                half::given_up(&view, origin)
            }
        };
        let queue = self.store.queue(&made.topic, made.queue_id);
        self.appender.add(&queue, made.tag_hash, &made.draft());
        self.mark.add(found.offset);
        moving.push(Moving {
            found,
            record,
            next,
        });
    }

    /// Where transactions end that nobody decides.
    fn make_topic(&self) {
        let created = self.coordinator.tables().topics.create_for_group(
            TRANS_CHECK_MAX_TIME_TOPIC,
            GIVEN_UP_QUEUES,
            READ_WRITE,
            None,
            false,
            reactor::wall_ms(),
        );
        let made = self.coordinator.keep_created(created);
        if made.is_new {
            let entry = Entry::Topic((*made.value).clone());
            self.coordinator.journal_entry(&entry);
        }
    }

    /// Appends them, and asks whom they say.
    async fn moved(&mut self, moving: Vec<Moving>) -> Result<(), Trouble> {
        if moving.is_empty() {
            return Ok(());
        }
        let places = self.append().await.map_err(Trouble::Refused)?;
        for (moving, place) in moving.iter().zip(places) {
            assert!(
                self.open.close(moving.found.offset),
                "nobody else closes it"
            );
            match moving.next {
                Next::Again { checks, ask } => {
                    if let Some(producer) = ask {
                        self.ask(producer, &moving.record, checks, place);
                    }
                }
                Next::GivenUp => {
                    counters::add(&self.inbox.counters.given_up, 1);
                    let offset = moving.found.offset;
                    let group = &*moving.found.group;
                    tracing::warn!(
                        offset,
                        group,
                        "nobody has decided a transaction: it is given up"
                    );
                }
            }
        }
        self.follow().await?;
        self.coordinator.outgoing.send_all().await;
        Ok(())
    }

    /// 39
    fn ask(&self, producer: ConnId, record: &[u8], checks: u32, place: Appended) {
        let view = View::parse(record).expect("it was read before");
        let Some(question) = half::question(&view, checks, place) else {
            return;
        };
        let settings = self.settings();
        let key = view.property(properties::UNIQ_KEY);
        let key = key.map(String::from_utf8_lossy);
        let header = CheckTransaction {
            topic: Some(view.topic_str()),
            half_queue_offset: place.queue_offset as i64,
            log_offset: place.log_offset as i64,
            message_id: key.clone(),
            transaction_id: key,
            offset_message_id: Some(message_id(view.store_host, place.log_offset).into()),
            broker_name: Some(settings.broker_name.as_str().into()),
        };
        let mut frame = Vec::with_capacity(question.len() + 512);
        write_request(
            &mut frame,
            Encoding::Json,
            request::CHECK_TRANSACTION_STATE,
            self.coordinator.outgoing.next_opaque(),
            true,
            &header.fields(),
            &question,
        );
        self.coordinator.outgoing.tell(producer, frame);
        counters::add(&self.inbox.counters.asked, 1);
    }

    /// Log is about to go: what is open in it is appended again, or given up if it is older than anything is kept.
    pub async fn answer_asks(&mut self) -> Result<(), Trouble> {
        loop {
            let next = self.inbox.asks.borrow_mut().pop_front();
            let Some(Ask { below, settled }) = next else {
                return Ok(());
            };
            let now = reactor::now();
            if self.pause_until.is_some_and(|until| now < until) {
                settled.send(false);
                continue;
            }
            let mut bytes = 0;
            // Not settled if this fails: the log stays for now.
            while let Some(moved) = self.move_from(below).await? {
                bytes += moved;
                self.decide_what_waits().await?;
            }
            if bytes > 0 {
                let below = below.0;
                tracing::info!(below, bytes, "open half messages were appended again");
            }
            let is_much = bytes > self.store.config().segment_bytes / 2;
            self.pause_until = is_much.then(|| reactor::now() + PAUSE_AFTER_MUCH);
            settled.send(true);
        }
    }

    /// What is older is kept no longer: as long as messages are, but never less than producers have time to decide.
    fn oldest_ms(&self) -> i64 {
        let settings = self.settings();
        let questions_ms = settings
            .transaction_check_interval_ms
            .saturating_mul(u64::from(settings.transaction_check_max));
        let to_decide_ms = settings.transaction_timeout_ms + questions_ms;
        let to_decide_ms = i64::try_from(to_decide_ms).unwrap_or(i64::MAX);
        let keep_ms = settings.retention.keep_ms.max(to_decide_ms);
        reactor::wall_ms().saturating_sub(keep_ms)
    }

    /// How many bytes were appended again; none if there is nothing left.
    async fn move_from(&mut self, below: LogOffset) -> Result<Option<u64>, Trouble> {
        let old = self.open.below(below, STEP_MAX);
        if old.is_empty() {
            return Ok(None);
        }
        let mut bytes = 0;
        let oldest_ms = self.oldest_ms();
        let mut moving = Vec::new();
        for found in old {
            let Some(record) = self.readable(&found).await? else {
                continue;
            };
            let half = Half::of(&View::parse(&record).map_err(io::Error::other)?);
            // Of a copy only its producer's clock says how old it is.
            let since_ms = match half.origin {
                None => half.store_ms,
                Some(_) => half.born_ms,
            };
            let next = match since_ms < oldest_ms {
                true => Next::GivenUp,
                false => Next::Again {
                    checks: half.checks,
                    ask: None,
                },
            };
            bytes += record.len() as u64;
            self.move_on(&mut moving, found, record, next);
            if self.is_batch_full() {
                break;
            }
        }
        self.moved(moving).await?;
        Ok(Some(bytes))
    }

    /// Leaves no more behind than a restart can look at quickly.
    pub async fn close_up(&mut self) -> Result<(), Trouble> {
        let most = SPAN_MAX + 2 * self.open.len() as u64;
        while self.open.span() > most {
            let Some(oldest) = self.open.below(LogOffset(u64::MAX), 1).pop() else {
                break;
            };
            let below = LogOffset(oldest.log_offset.0 + 1);
            self.move_from(below).await?;
        }
        Ok(())
    }

    /// So that a restart does not take them for open ones.
    pub async fn mark_unmarked(&mut self) -> Result<(), Trouble> {
        if !self.unmarked.is_empty() {
            for &offset in &self.unmarked {
                self.mark.add(offset);
            }
            self.append().await.map_err(Trouble::Refused)?;
            self.unmarked.clear();
        }
        Ok(())
    }

    /// Keeps how far the queues are done.
    pub fn note(&mut self) {
        let halves = self.open.done_to();
        let marks = self.needed.done_to(halves);
        let places = Places { halves, marks };
        self.kept.keep(places, &self.store, &self.coordinator);
    }
}
