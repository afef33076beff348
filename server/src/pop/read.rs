//! Messages of a queue for a pop: new ones through its filter, or those that are visible again.

use std::sync::Arc;

use engine::{Accept, Cold, Queue, QueueNo, QueueOffset, Read, ReadLimits, Store};
use protocol::record::{self, View};
use reactor::Gather;

use crate::config::Settings;
use crate::filter::Filter;

/// What a read of the disk has brought, for whoever reads the same place next.
pub struct Fetched {
    pub queue: QueueNo,
    pub from: u64,
    pub read: Read,
    pub gather: Gather,
}

/// A read that needs the disk.
#[derive(Debug)]
pub struct ColdPlace {
    pub queue: Arc<Queue>,
    pub from: u64,
    pub cold: Cold,
    /// The filter has no say: these were delivered before.
    pub accepts_all: bool,
}

/// What came of a read.
#[derive(Debug)]
pub enum Outcome {
    /// Records were added, with the offset of each. Everything before `next` was looked at.
    Found {
        next: u64,
    },
    /// Nothing of what is there is wanted.
    PassedOver {
        next: u64,
    },
    Nothing,
    /// The queue begins or ends there.
    Elsewhere {
        at: u64,
    },
    Cold(ColdPlace),
}

/// The records of an answer.
#[derive(Debug, Default)]
pub struct Records {
    pub body: Vec<u8>,
    pub offsets: Vec<u64>,
    /// Where the record of the same index begins.
    pub starts: Vec<usize>,
}

pub struct Reading<'a> {
    pub store: &'a Store,
    pub settings: &'a Settings,
    pub fetched: Option<Fetched>,
}

impl Reading<'_> {
    /// New messages from `from` on.
    pub fn new_ones(
        &mut self,
        queue: &Arc<Queue>,
        from: u64,
        room: usize,
        filter: &Filter,
        is_listed: impl Fn(u64) -> bool,
        into: &mut Records,
    ) -> Outcome {
        let mut gather = Gather::default();
        let read = self.read(queue, from, room, filter, &mut gather);
        let next = match read {
            Err(cold) => return Outcome::Cold(cold),
            Ok(Read::Found(found)) => found.next.0,
            Ok(Read::NoneMatched { next }) => return Outcome::PassedOver { next: next.0 },
            Ok(Read::Empty | Read::Cold(_)) => return Outcome::Nothing,
            Ok(Read::BeyondEnd { max }) => return Outcome::Elsewhere { at: max.0 },
            Ok(Read::BelowStart { min }) => return Outcome::Elsewhere { at: min.0 },
        };
        let before = into.offsets.len();
        into.add(&gather, |view| !is_listed(view.queue_offset));
        // What was fetched was asked for when there was more room.
        if let Some(&first_too_many) = into.offsets.get(before + room) {
            into.truncate(before + room);
            return Outcome::Found {
                next: first_too_many,
            };
        }
        match into.offsets.len() > before {
            true => Outcome::Found { next },
            false => Outcome::PassedOver { next },
        }
    }

    /// The messages from `from` to before `until` that are `wanted`. Those that cannot be read are not added.
    pub fn again(
        &mut self,
        queue: &Arc<Queue>,
        (from, until): (u64, u64),
        wanted: impl Fn(u64) -> bool,
        into: &mut Records,
    ) -> Outcome {
        let mut gather = Gather::default();
        let room = usize::try_from(until - from).unwrap_or(usize::MAX);
        match self.read(queue, from, room, |_| true, &mut gather) {
            Err(cold) => Outcome::Cold(ColdPlace {
                accepts_all: true,
                ..cold
            }),
            Ok(Read::Found(found)) => {
                into.add(&gather, |view| {
                    view.queue_offset < until && wanted(view.queue_offset)
                });
                Outcome::Found { next: found.next.0 }
            }
            Ok(Read::NoneMatched { next }) => Outcome::PassedOver { next: next.0 },
            Ok(Read::Empty | Read::Cold(_)) => Outcome::Elsewhere {
                at: queue.max_offset(),
            },
            Ok(Read::BeyondEnd { max }) => Outcome::Elsewhere { at: max.0 },
            Ok(Read::BelowStart { min }) => Outcome::Elsewhere { at: min.0 },
        }
    }

    fn read(
        &mut self,
        queue: &Arc<Queue>,
        from: u64,
        room: usize,
        accept: impl Accept,
        gather: &mut Gather,
    ) -> Result<Read, ColdPlace> {
        let is_it = |fetched: &Fetched| fetched.queue == queue.no() && fetched.from == from;
        if let Some(fetched) = self.fetched.take_if(|fetched| is_it(fetched)) {
            *gather = fetched.gather;
            return Ok(fetched.read);
        }
        let limits = limits(self.settings, room);
        match self
            .store
            .read(queue, QueueOffset(from), &limits, accept, gather)
        {
            Read::Cold(cold) => Err(ColdPlace {
                queue: Arc::clone(queue),
                from,
                cold,
                accepts_all: false,
            }),
            read => Ok(read),
        }
    }
}

impl Records {
    fn add(&mut self, gather: &Gather, accepts: impl Fn(&View<'_>) -> bool) {
        let start = self.body.len();
        gather.copy_slices_to(&mut self.body);
        let mut at = start;
        let mut kept = start;
        while at < self.body.len() {
            // What the store hands out is whole.
            let Ok(view) = View::parse(&self.body[at..]) else {
                tracing::error!("a record could not be read and is passed over");
                break;
            };
            let (len, offset) = (view.bytes.len(), view.queue_offset);
            if accepts(&view) {
                self.body.copy_within(at..at + len, kept);
                self.starts.push(kept);
                self.offsets.push(offset);
                kept += len;
            }
            at += len;
        }
        self.body.truncate(kept);
    }

    /// Leaves the first `len` messages.
    fn truncate(&mut self, len: usize) {
        if let Some(&start) = self.starts.get(len) {
            self.body.truncate(start);
            self.starts.truncate(len);
            self.offsets.truncate(len);
        }
    }

    /// Writes into a record how often its message was delivered before, beside what it says itself.
    pub fn add_times(&mut self, index: usize, times: u32) {
        let start = self.starts[index];
        let Ok(view) = View::parse(&self.body[start..]) else {
            return;
        };
        let at = start + view.reconsume_times_at();
        let times = view.reconsume_times.saturating_add_unsigned(times);
        self.body[at..at + 4].copy_from_slice(&times.to_be_bytes());
    }

    pub fn view(&self, index: usize) -> Result<View<'_>, record::RecordError> {
        View::parse(&self.body[self.starts[index]..])
    }
}

fn limits(settings: &Settings, room: usize) -> ReadLimits {
    let bytes = |limit: u64| u32::try_from(limit).unwrap_or(u32::MAX);
    let messages_max = u32::try_from(room).unwrap_or(u32::MAX);
    ReadLimits {
        messages_max,
        memory_messages_max: settings.pull_memory_messages_max,
        memory_bytes_max: bytes(settings.pull_memory_bytes_max),
        disk_messages_max: settings.pull_disk_messages_max,
        disk_bytes_max: bytes(settings.pull_disk_bytes_max),
        ..ReadLimits::default()
    }
}
