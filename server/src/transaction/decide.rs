//! Decisions of producers, carried out: many in one append, each at most once.

use std::io;

use engine::AppendError;
use hashbrown::HashSet;
use protocol::code::response;
use protocol::names::TRANS_HALF_TOPIC;
use protocol::record::View;
use reactor::mailbox::Reply;

use super::half::{self, Delays, Half};
use super::open::Found;
use super::work::{Trouble, Work};
use super::{Counters, Decision, counters};
use crate::handlers::{Answer, refuse};
use crate::internal::NotAppended;
use crate::messages::Refusal;

/// Carried out together at most.
const DECISIONS_PER_BATCH_MAX: usize = 1024;

/// A decision on its way into the log.
struct Taken {
    decision: Decision,
    /// Of the transaction's newest copy, and of its first.
    offset: u64,
    origin: u64,
}

/// Why a decision changes nothing.
enum No {
    /// The transaction has ended, one way or the other: the first decision counts.
    Ended,
    Wrong(Refusal),
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::Wrong(refusal)
    }
}

impl Work {
    /// Carries out as many as fit into one append.
    pub async fn decide(&mut self) -> Result<(), Trouble> {
        let mut taken = Vec::new();
        let mut origins = HashSet::new();
        let most = match self.singly {
            0 => DECISIONS_PER_BATCH_MAX,
            _ => 1,
        };
        while taken.len() < most && !self.is_batch_full() {
            let next = self.inbox.decisions.borrow_mut().pop_front();
            let Some(decision) = next else { break };
            match self.take(&decision, &mut origins).await {
                Ok((offset, origin)) => taken.push(Taken {
                    decision,
                    offset,
                    origin,
                }),
                Err(no) => self.turn_down(decision, no),
            }
        }
        self.singly = self.singly.saturating_sub(1);
        self.carry_out(taken).await
    }

    /// Adds what the decision leads to, to what the next append takes along; each transaction only once.
    async fn take(
        &mut self,
        decision: &Decision,
        origins: &mut HashSet<u64>,
    ) -> Result<(u64, u64), No> {
        let found = self.target(decision).await?;
        if origins.contains(&found.origin) {
            return Err(No::Ended);
        }
        if decision.commit {
            self.add_final(&found).await?;
        }
        self.mark.add(found.offset);
        origins.insert(found.origin);
        Ok((found.offset, found.origin))
    }

    /// The open transaction that a decision is about.
    async fn target(&mut self, decision: &Decision) -> Result<Found, No> {
        // It may have been sent while an earlier one was carried out.
        if decision.half_offset >= self.open.next() {
            self.follow_halves().await?;
        }
        let found = match self.open.get(decision.half_offset) {
            Some(found) if found.log_offset != decision.log_offset => {
                return Err(wrong("The commit log offset wrong").into());
            }
            Some(found) => found,
            None => self.newest_copy(decision).await?,
        };
        if *found.group != *decision.group {
            return Err(wrong("The producer group wrong").into());
        }
        Ok(found)
    }

    /// The producer may know the half message by an earlier place: it was asked before, or is slow.
    async fn newest_copy(&self, decision: &Decision) -> Result<Found, No> {
        if let Some(found) = self.began_at(decision) {
            return Ok(found);
        }
        let record = self.record(decision.log_offset).await?;
        let view = record
            .as_deref()
            .and_then(|record| View::parse(record).ok());
        let view = view.filter(|view| view.topic == TRANS_HALF_TOPIC.as_bytes());
        let half = Half::of(&view.ok_or_else(not_found)?);
        if half.offset != decision.half_offset {
            return Err(wrong("The transaction state table offset wrong").into());
        }
        let origin = half.origin.unwrap_or(half.offset);
        let current = self.open.current(origin);
        let found = current.and_then(|offset| self.open.get(offset));
        found.ok_or(No::Ended)
    }

    /// The transaction that began at the place the decision names, which may be gone from the log by now.
    fn began_at(&self, decision: &Decision) -> Option<Found> {
        let found = self.open.get(self.open.current(decision.half_offset)?)?;
        (decision.log_offset < found.log_offset).then_some(found)
    }

    async fn add_final(&mut self, found: &Found) -> Result<(), No> {
        let record = self.record(found.log_offset).await?;
        let view = record
            .as_deref()
            .and_then(|record| View::parse(record).ok());
        let delays = Delays {
            levels: self.settings().delay_levels_ms.len(),
            max_ms: self.settings().timer_delay_max_ms,
            now_ms: reactor::wall_ms(),
        };
        let made = view
            .as_ref()
            .and_then(|view| half::committed(view, delays))
            .ok_or_else(not_found)?;
        let queue = self.store.queue(&made.topic, made.queue_id);
        self.appender.add(&queue, made.tag_hash, &made.draft());
        Ok(())
    }

    async fn carry_out(&mut self, taken: Vec<Taken>) -> Result<(), Trouble> {
        if taken.is_empty() {
            return Ok(());
        }
        match self.append().await {
            Ok(_) => {
                for Taken {
                    decision,
                    offset,
                    origin,
                } in taken
                {
                    self.ended(offset, origin);
                    let counters = &self.inbox.counters;
                    let counter = match decision.commit {
                        true => &counters.committed,
                        false => &counters.rolled_back,
                    };
                    counters::add(counter, 1);
                    answer(decision.reply, Answer::ok());
                }
                Ok(())
            }
            Err(NotAppended::Refused(AppendError::TooLarge { .. }) | NotAppended::TooLong)
                if taken.len() > 1 =>
            {
                // Each of them may fit alone.
                self.singly = taken.len();
                let mut decisions = self.inbox.decisions.borrow_mut();
                for taken in taken.into_iter().rev() {
                    decisions.push_front(taken.decision);
                }
                Ok(())
            }
            Err(problem) => {
                // They stay open: their producers will be asked.
                for taken in taken {
                    let refusal = refuse(response::SERVICE_NOT_AVAILABLE, problem.to_string());
                    answer(taken.decision.reply, refusal.into());
                }
                Err(Trouble::Refused(problem))
            }
        }
    }

    fn ended(&mut self, offset: u64, origin: u64) {
        if self.open.close(offset) {
            return;
        }
        // An operator has had it resumed in this moment: the copy is decided as well.
        if let Some(copy) = self.open.current(origin) {
            self.open.close(copy);
            self.unmarked.push(copy);
        }
    }

    fn turn_down(&self, decision: Decision, no: No) {
        let refusal = match no {
            No::Ended => {
                let counters: &Counters = &self.inbox.counters;
                counters::add(&counters.ignored, 1);
                wrong("The transaction has ended: the first decision counts")
            }
            No::Wrong(refusal) => refusal,
        };
        tracing::debug!(
            half_offset = decision.half_offset,
            commit = decision.commit,
            group = &*decision.group,
            remark = refusal.remark,
            "a decision on a transaction changes nothing"
        );
        answer(decision.reply, refusal.into());
    }
}

/// The message is asked about once more, later.
impl From<io::Error> for No {
    fn from(error: io::Error) -> Self {
        Self::Wrong(refuse(response::SYSTEM_ERROR, error.to_string()))
    }
}

fn not_found() -> No {
    wrong("Find prepared transaction message failed").into()
}

fn wrong(remark: &str) -> Refusal {
    refuse(response::SYSTEM_ERROR, remark)
}

fn answer(reply: Option<Reply<Answer>>, answer: Answer) {
    if let Some(reply) = reply {
        reply.send(answer);
    }
}
