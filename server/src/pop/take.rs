//! One pop: looks through the queues it may read, plans what it gets, and takes that.
//!
//! Planning changes nothing, so that all messages of an answer get one name (their pop time), as the answer has room for
//! one only. Every fifth pop prefers what is visible again, the others what is new: neither starves.

use std::rc::Rc;
use std::sync::Arc;

use engine::Queue;
use protocol::code::response;
use protocol::pop::{Infos, ORDERED, Origin};
use protocol::{Value, write_response};

use super::dead::{self, Dead};
use super::entry::Place;
use super::journal::{Held, Popped};
use super::queue::Op;
use super::read::{ColdPlace, Fetched, Outcome, Reading, Records};
use super::start;
use super::table::{KeyRef, Slot};
use super::wanted::{Kind, Wanted};
use crate::coordinator::Coordinator;
use crate::filter::Filter;
use crate::stats::tally::Got;

/// One in so many pops prefers what is visible again.
const PREFER_AGAIN: u64 = 5;
/// Runs of neighbouring messages that one pop reads again from one queue.
const RUNS_MAX: usize = 8;

/// What became of it.
pub enum Taken {
    /// The answer is on its way.
    Answered,
    /// There is nothing.
    Nothing,
    /// Nothing in what was looked at; there may be in what lies behind it.
    PassedOver,
    /// There is something, on the disk.
    Cold(ColdPlace),
}

/// What a pop gets of one queue.
struct Plan {
    place: Place,
    origin: Origin,
    offsets: Vec<u64>,
    /// How often each was delivered before.
    times: Vec<u32>,
    /// The queue's next new message afterwards.
    next: u64,
}

struct Pass<'a> {
    coordinator: &'a Rc<Coordinator>,
    wanted: &'a Wanted,
    filter: &'a Filter,
    messages_max: usize,
    from_end: bool,
    now_ms: i64,
    /// Deliveries after which a message is dead.
    times_max: u32,
    reading: Reading<'a>,
    records: Records,
    plans: Vec<Plan>,
    dead: Vec<Dead>,
    cold: Option<ColdPlace>,
    /// Something was looked at and is not for anybody: the next pass looks further.
    has_passed_over: bool,
    /// Messages that are left for others.
    rest: u64,
}

/// Tries to answer a pop now.
pub fn take(coordinator: &Rc<Coordinator>, wanted: &Wanted, fetched: Option<Fetched>) -> Taken {
    let Kind::Pop {
        messages_max,
        invisible_ms,
        from_end,
        filter,
    } = &wanted.kind
    else {
        unreachable!("notifications take nothing");
    };
    let settings = coordinator.settings();
    let mut pass = Pass {
        coordinator,
        wanted,
        filter,
        messages_max: *messages_max,
        from_end: *from_end,
        now_ms: reactor::wall_ms(),
        times_max: times_max(coordinator, wanted),
        reading: Reading {
            store: &coordinator.shared.store,
            settings: &settings,
            fetched,
        },
        records: Records::default(),
        plans: Vec::new(),
        dead: Vec::new(),
        cold: None,
        has_passed_over: false,
        rest: 0,
    };
    pass.look_through();
    pass.conclude(*invisible_ms)
}

fn times_max(coordinator: &Coordinator, wanted: &Wanted) -> u32 {
    if wanted.is_ordered {
        return u32::MAX; // Skipping one would break the order: its client decides.
    }
    let tables = coordinator.tables();
    let group = tables.groups.get(&wanted.group);
    group
        .and_then(|group| u32::try_from(group.retry_max_times).ok())
        .unwrap_or(u32::MAX)
}

impl Pass<'_> {
    fn look_through(&mut self) {
        let random = reactor::random();
        let prefers_again = (random >> 32).is_multiple_of(PREFER_AGAIN);
        let has_retries = !self.wanted.is_ordered;
        if has_retries && prefers_again {
            self.retry_topics();
        }
        let topic = Arc::clone(&self.wanted.topic);
        match self.wanted.queue_id {
            Some(queue_id) => self.normal_queue(&topic, queue_id, prefers_again),
            None => {
                let queues = read_queues(self.coordinator, &topic);
                for index in 0..queues {
                    let queue_id = (random as u32 % queues + index) % queues;
                    self.normal_queue(&topic, queue_id, prefers_again);
                }
            }
        }
        if has_retries && !prefers_again {
            self.retry_topics();
        }
    }

    /// Where RocketMQ has put messages that were not acknowledged, and where we put those whose log had to go.
    fn retry_topics(&mut self) {
        let (topic, group) = (&self.wanted.topic, &self.wanted.group);
        for name in retry_topics(self.coordinator, topic, group) {
            let queues = read_queues(self.coordinator, &name);
            for queue_id in 0..queues {
                self.queue(Origin::of(&name), &name, queue_id, true);
            }
        }
    }

    /// In order what has moved from this queue comes before all that is in it; RocketMQ loses it.
    fn normal_queue(&mut self, topic: &Arc<str>, queue_id: u32, prefers_again: bool) {
        let moved = match self.wanted.is_ordered {
            true => self.moved_unacked(topic, queue_id),
            false => None,
        };
        match moved {
            Some(moved) => self.queue(Origin::RetryV1, &moved.topic, moved.queue_id, true),
            None => self.queue(Origin::Topic, topic, queue_id, prefers_again),
        }
    }

    fn moved_unacked(&self, topic: &str, queue_id: u32) -> Option<Place> {
        let group = &self.wanted.group;
        let table = self.coordinator.pop.table.borrow();
        let moved = table.moved_of(KeyRef { group, topic }, queue_id)?;
        (moved.state.unacked_len() > 0).then(|| moved.place.clone())
    }

    fn queue(&mut self, origin: Origin, topic: &Arc<str>, queue_id: u32, prefers_again: bool) {
        let Some((place, next, queue)) = self.slot(topic, queue_id) else {
            return;
        };
        let room = self.messages_max - self.records.offsets.len();
        let mut plan = Plan {
            place,
            origin,
            offsets: Vec::new(),
            times: Vec::new(),
            next,
        };
        if room > 0 && self.cold.is_none() {
            if self.wanted.is_ordered || prefers_again {
                if !self.again(&mut plan, &queue, room) {
                    self.new_ones(&mut plan, &queue, room);
                }
            } else {
                self.new_ones(&mut plan, &queue, room);
                if plan.offsets.is_empty() && self.cold.is_none() {
                    self.again(&mut plan, &queue, room);
                }
            }
        }
        self.rest += queue.max_offset().saturating_sub(plan.next);
        if !plan.offsets.is_empty() || plan.next != next {
            self.plans.push(plan);
        }
    }

    /// The queue's state, made if this group has not popped it before. None if it is not to be read now.
    fn slot(&self, topic: &Arc<str>, queue_id: u32) -> Option<(Place, u64, Arc<Queue>)> {
        let slot = |slot: &Slot| {
            let place = slot.place.clone();
            (place, slot.state.next(), Arc::clone(&slot.queue))
        };
        start::line_up(
            self.coordinator,
            &self.wanted.group,
            topic,
            queue_id,
            self.from_end,
        );
        let mut table = self.coordinator.pop.table.borrow_mut();
        let key = KeyRef {
            group: &self.wanted.group,
            topic,
        };
        let found = table.get_mut(key, queue_id)?;
        found.is_ordered = self.wanted.is_ordered;
        let attempt = &self.wanted.attempt;
        let is_blocked = self.wanted.is_ordered && found.state.is_blocked(self.now_ms, attempt);
        (!found.is_reading && !is_blocked).then(|| slot(found))
    }

    fn new_ones(&mut self, plan: &mut Plan, queue: &Arc<Queue>, room: usize) {
        let before = self.records.offsets.len();
        let (from, filter) = (plan.next, self.filter);
        // What was moved there is listed before its turn comes.
        let listed: Vec<u64> = {
            let mut table = self.coordinator.pop.table.borrow_mut();
            let slot = table.at(&plan.place).into_iter();
            let ahead = slot.flat_map(|slot| slot.state.unacked_from(from));
            ahead.map(|(offset, _)| offset).collect()
        };
        let is_listed = |offset| listed.contains(&offset);
        let read = self
            .reading
            .new_ones(queue, from, room, filter, is_listed, &mut self.records);
        match read {
            Outcome::Found { next } => {
                plan.next = next;
                plan.offsets
                    .extend_from_slice(&self.records.offsets[before..]);
                plan.times.resize(plan.offsets.len(), 0);
            }
            Outcome::PassedOver { next } => {
                plan.next = next;
                self.has_passed_over |= next < queue.max_offset();
            }
            Outcome::Nothing => {}
            Outcome::Elsewhere { at } => {
                tracing::warn!(place = ?plan.place, from, at, "a group is sent to another offset");
                self.coordinator
                    .pop
                    .change(&plan.place, &Op::Start { next: at });
                self.has_passed_over = true;
            }
            Outcome::Cold(cold) => self.cold = Some(cold),
        }
    }

    /// Messages that are visible again; true if there were any.
    fn again(&mut self, plan: &mut Plan, queue: &Arc<Queue>, room: usize) -> bool {
        let due = self.due(&plan.place, room);
        let Some(&(first, _)) = due.first() else {
            return false;
        };
        let wanted = |offset| due.binary_search_by_key(&offset, |&(at, _)| at).is_ok();
        let before = self.records.offsets.len();
        let last = due.last().map_or(first, |&(last, _)| last);
        let mut from = first;
        for _ in 0..RUNS_MAX {
            let until = run_end(&due, from);
            let read = self
                .reading
                .again(queue, (from, until), wanted, &mut self.records);
            let looked = match read {
                Outcome::Found { next } | Outcome::PassedOver { next } => {
                    next.clamp(from + 1, until)
                }
                // Expired, or of a topic that was deleted meanwhile.
                Outcome::Elsewhere { at } if at > from => at,
                Outcome::Elsewhere { .. } | Outcome::Nothing => u64::MAX,
                Outcome::Cold(cold) => {
                    if self.records.offsets.len() == before {
                        self.cold = Some(cold);
                    }
                    break;
                }
            };
            self.drop_unreadable(plan, &due, (from, looked), before);
            let next = due.iter().find(|&&(at, _)| at >= looked);
            match next {
                Some(&(next, _)) if next <= last => from = next,
                _ => break,
            }
        }
        self.bury(plan, &due, before);
        // All of them were lost, or dead.
        self.has_passed_over |= plan.offsets.is_empty();
        true
    }

    /// In order of their offsets.
    fn due(&self, place: &Place, room: usize) -> Vec<(u64, u32)> {
        let mut table = self.coordinator.pop.table.borrow_mut();
        let Some(slot) = table.at(place) else {
            return Vec::new();
        };
        let state = &slot.state;
        if self.wanted.is_ordered {
            // All of them are: or else the queue would be blocked.
            let unacked = state.unacked().take(room);
            let is_repeated =
                !self.wanted.attempt.is_empty() && state.attempt() == self.wanted.attempt;
            let more = u32::from(!is_repeated);
            return unacked
                .map(|(at, message)| (at, message.times + more))
                .collect();
        }
        let visible = state.visible(self.now_ms).take(room);
        let mut due: Vec<(u64, u32)> = visible
            .filter_map(|at| Some((at, state.get(at)?.times.saturating_add(1))))
            .collect();
        due.sort_unstable();
        due
    }

    fn drop_unreadable(
        &self,
        plan: &Plan,
        due: &[(u64, u32)],
        (from, until): (u64, u64),
        before: usize,
    ) {
        let read = &self.records.offsets[before..];
        let gone: Vec<u64> = due
            .iter()
            .map(|&(at, _)| at)
            .filter(|at| (from..until).contains(at) && !read.contains(at))
            .collect();
        for offset in gone {
            self.coordinator.pop.gone(&plan.place, offset);
        }
    }

    /// Puts what was read into the plan, and aside what has failed too often.
    fn bury(&mut self, plan: &mut Plan, due: &[(u64, u32)], before: usize) {
        let times_of = |offset: u64| {
            let at = due.binary_search_by_key(&offset, |&(at, _)| at);
            at.map_or(0, |index| due[index].1)
        };
        let mut alive = Records::default();
        let read = std::mem::take(&mut self.records);
        for (index, &offset) in read.offsets.iter().enumerate() {
            let Ok(view) = read.view(index) else {
                continue;
            };
            let is_new_here = index >= before;
            let times = if is_new_here { times_of(offset) } else { 0 };
            let delivered = view.reconsume_times.saturating_add_unsigned(times);
            if is_new_here && u32::try_from(delivered).is_ok_and(|times| times > self.times_max) {
                self.dead.push(Dead {
                    place: plan.place.clone(),
                    offset,
                    record: view.bytes.to_vec(),
                });
                continue;
            }
            alive.starts.push(alive.body.len());
            alive.offsets.push(offset);
            alive.body.extend_from_slice(view.bytes);
            if is_new_here {
                alive.add_times(alive.offsets.len() - 1, times);
                plan.offsets.push(offset);
                plan.times.push(times);
            }
        }
        self.records = alive;
    }

    fn conclude(self, invisible_ms: i64) -> Taken {
        let pop = &self.coordinator.pop;
        if !self.dead.is_empty() {
            dead::bury(self.coordinator, self.dead);
        }
        let pop_ms = pop_ms(self.coordinator, &self.plans, self.now_ms);
        let due_ms = pop_ms.saturating_add(invisible_ms);
        let mut infos = Infos::default();
        let mut to_undo = Vec::new();
        for plan in self.plans {
            let take = Op::Take {
                offsets: plan.offsets.clone(),
                next: plan.next,
                pop_ms,
                due_ms,
                attempt: self.wanted.attempt.clone(),
            };
            let undone = popped(self.coordinator, &plan, pop_ms);
            pop.change(&plan.place, &take);
            infos.add(plan.origin, plan.place.queue_id, &plan.offsets, &plan.times);
            if !plan.offsets.is_empty() {
                if pop.parked.is_awaited(&self.wanted.topic) {
                    pop.arm(&plan.place);
                }
                to_undo.extend(undone);
            }
        }
        if self.records.offsets.is_empty() {
            return match self.cold {
                Some(cold) => Taken::Cold(cold),
                None if self.has_passed_over => Taken::PassedOver,
                None => Taken::Nothing,
            };
        }
        let messages = self.records.offsets.len() as u64;
        let bytes = self.records.body.len() as u64;
        let stats = pop.shard().stats();
        stats.get_found.add(1);
        stats.get_messages.add(messages);
        stats.get_bytes.add(bytes);
        let got = Got {
            messages,
            bytes,
            pulls: 1,
            checkpoints: to_undo.len() as u64,
            ..Got::default()
        };
        let (group, topic) = (&self.wanted.group, &self.wanted.topic);
        pop.shard().tally.got(group, topic, got);
        let revive_queue = if self.wanted.is_ordered { ORDERED } else { 0 };
        let rest = i64::try_from(self.rest).unwrap_or(i64::MAX);
        let mut fields = vec![
            ("popTime", Value::I64(pop_ms)),
            ("invisibleTime", Value::I64(invisible_ms)),
            ("reviveQid", Value::I32(revive_queue)),
            ("restNum", Value::I64(rest)),
            ("startOffsetInfo", Value::Str(&infos.start_offsets)),
            ("msgOffsetInfo", Value::Str(&infos.message_offsets)),
        ];
        if self.wanted.is_ordered {
            fields.push(("orderCountInfo", Value::Str(&infos.order_counts)));
        }
        let body = &self.records.body;
        let mut frame = Vec::with_capacity(body.len() + 512);
        let (asked, code) = (self.wanted.asked, response::SUCCESS);
        write_response(&mut frame, asked, code, Some("FOUND"), &fields, body);
        pop.journal.hold(Held::Answer {
            conn: self.wanted.caller.conn,
            asked,
            frame,
            is_counted: !self.wanted.was_parked,
            popped: to_undo,
        });
        Taken::Answered
    }
}

/// One name for all of them that none of them had before.
fn pop_ms(coordinator: &Coordinator, plans: &[Plan], now_ms: i64) -> i64 {
    let mut table = coordinator.pop.table.borrow_mut();
    let names = plans.iter().filter_map(|plan| {
        let slot = table.at(&plan.place)?;
        Some(slot.state.pop_ms(now_ms, &plan.offsets))
    });
    names.max().unwrap_or(now_ms)
}

/// What is to be known of the messages before they are taken, should their answer be refused.
fn popped(coordinator: &Coordinator, plan: &Plan, pop_ms: i64) -> Option<Popped> {
    let mut table = coordinator.pop.table.borrow_mut();
    let state = &table.at(&plan.place)?.state;
    let times = |offset: u64| state.get(offset).map_or(0, |message| message.times);
    Some(Popped {
        place: plan.place.clone(),
        messages: plan.offsets.iter().map(|&at| (at, times(at))).collect(),
        pop_ms,
        attempt: state.attempt().to_owned(),
    })
}

/// The end of the run of neighbours that begins at `from`.
fn run_end(due: &[(u64, u32)], from: u64) -> u64 {
    let mut end = from;
    for &(at, _) in due.iter().skip_while(|&&(at, _)| at < from) {
        if at > end {
            break;
        }
        end = at + 1;
    }
    end.max(from + 1)
}

/// Those of the group's retry topics that there are.
pub fn retry_topics(coordinator: &Coordinator, topic: &str, group: &str) -> Vec<Arc<str>> {
    let tables = coordinator.tables();
    let names = [Origin::RetryV1, Origin::RetryV2].map(|origin| origin.topic(topic, group));
    let known = names
        .iter()
        .filter_map(|name| tables.topics.get_key_value(name));
    known.map(|(name, _)| Arc::clone(name)).collect()
}

pub fn read_queues(coordinator: &Coordinator, topic: &str) -> u32 {
    let tables = coordinator.tables();
    let config = tables.topics.get(topic);
    config
        .and_then(|config| u32::try_from(config.read_queue_nums).ok())
        .unwrap_or(0)
}
