//! From a queue offset to ranges of the log: what is hot, without I/O and without a lock.
//!
//! A read looks up the queue's run once, then walks its entries; every record it takes becomes a slice of the
//! segment's mapping, or of what the window lends, or is copied from the window under a pin; neighbours become one. Where a read
//! stops follows RocketMQ's rules for a pull: the first message is always taken, then count and bytes are bounded, tighter for
//! what is not in memory. What lies behind the hot tail is handed back as [`Cold`] for [`Store::fetch`](crate::Store::fetch).

mod accept;
pub mod blocks;
mod fetch;
mod gather;
mod prefetch;
mod sift;

pub use accept::Accept;

use crate::queue::Queue;
use crate::segment::{Hot, Memory, Segment};
use crate::segments::List;
use crate::store::Store;
use crate::window::{Loan, Pinned, Window};
use crate::{QueueNo, QueueOffset};
use reactor::{Gather, Lent, Slice, Source};
use std::sync::Arc;

/// How much one read may return.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// What the reader asked for.
    pub messages_max: u32,
    pub bytes_max: u32,
    /// `maxTransferCountOnMessageInMemory`, `maxTransferBytesOnMessageInMemory`.
    pub memory_messages_max: u32,
    pub memory_bytes_max: u32,
    /// `maxTransferCountOnMessageInDisk`, `maxTransferBytesOnMessageInDisk`.
    pub disk_messages_max: u32,
    pub disk_bytes_max: u32,
    /// How many entries are looked at, whether they match or not (RocketMQ's `maxFilterMessageSize` / 20).
    pub scan_max: u32,
}

impl Default for ReadLimits {
    fn default() -> ReadLimits {
        ReadLimits {
            messages_max: 32,
            bytes_max: u32::MAX,
            memory_messages_max: 32,
            memory_bytes_max: 256 << 10,
            disk_messages_max: 8,
            disk_bytes_max: 64 << 10,
            scan_max: 800,
        }
    }
}

/// What a read came to.
#[derive(Debug)]
pub enum Read {
    Found(Found),
    /// The offset is the queue's end: nothing new.
    Empty,
    /// Messages were there, none was accepted; go on at `next`.
    NoneMatched {
        next: QueueOffset,
    },
    BeyondEnd {
        max: QueueOffset,
    },
    BelowStart {
        min: QueueOffset,
    },
    /// Not in memory: give it to [`Store::fetch`](crate::Store::fetch).
    Cold(Cold),
}

/// Messages were added to the gather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the next read goes on.
    pub next: QueueOffset,
    pub messages: u32,
    pub bytes: u64,
}

/// A read that needs the disk.
#[derive(Debug)]
pub struct Cold {
    queue: QueueNo,
    offset: QueueOffset,
    limits: ReadLimits,
}

impl Store {
    /// Adds the messages of `queue` from `offset` on to `into`, as far as they are hot. No I/O; never blocks.
    pub fn read(
        &self,
        queue: &Queue,
        offset: QueueOffset,
        limits: &ReadLimits,
        accept: impl Accept,
        into: &mut Gather,
    ) -> Read {
        self.read_as(Taking::Copy, queue, offset, limits, accept, into)
    }

    /// The same for an answer that is queued and committed in this turn: what is in the window is lent to it, not copied. The
    /// writer waits for what is lent, so it is queued, kept or cleared before the caller awaits anything.
    pub fn read_to_send(
        &self,
        queue: &Queue,
        offset: QueueOffset,
        limits: &ReadLimits,
        accept: impl Accept,
        into: &mut Gather,
    ) -> Read {
        self.read_as(Taking::Loan, queue, offset, limits, accept, into)
    }

    fn read_as(
        &self,
        taking: Taking,
        queue: &Queue,
        offset: QueueOffset,
        limits: &ReadLimits,
        mut accept: impl Accept,
        into: &mut Gather,
    ) -> Read {
        // The end first: whatever was counted in it is in the list and in its indexes by now.
        let max = queue.max_offset();
        if let Some(outside) = outside(queue, offset, max) {
            return outside;
        }
        let cold = || {
            Read::Cold(Cold {
                queue: queue.no(),
                offset,
                limits: *limits,
            })
        };
        let list = self.log().segments().load();
        let Some(mut at) = find_hot(&list, queue.no(), offset.0, max) else {
            return cold();
        };
        let hot_from = self.log().hot_from(self.config().hot_bytes).0;
        let mut picker = Picker::new(limits, offset);
        loop {
            let segment = &list.items()[at.number];
            let hot = segment.hot();
            let Some(hot) = hot.as_ref() else {
                break; // It was retired just now.
            };
            if !pick_hot(
                taking,
                &mut picker,
                segment,
                hot,
                queue,
                at.end,
                hot_from,
                &mut accept,
                into,
            ) {
                break;
            }
            match find_next(&list, queue.no(), &at, max) {
                Some(next) => at = next,
                None => break,
            }
        }
        if picker.scanned == 0 {
            cold()
        } else {
            picker.outcome()
        }
    }
}

/// What a read answers that finds nothing to look at.
fn outside(queue: &Queue, offset: QueueOffset, max: u64) -> Option<Read> {
    let min = queue.min_offset();
    if offset.0 < min {
        let min = QueueOffset(min);
        return Some(Read::BelowStart { min });
    }
    match offset.0.cmp(&max) {
        std::cmp::Ordering::Less => None,
        std::cmp::Ordering::Equal => Some(Read::Empty),
        std::cmp::Ordering::Greater => Some(Read::BeyondEnd {
            max: QueueOffset(max),
        }),
    }
}

/// A queue's run in a hot segment.
pub(crate) struct HotRun {
    /// Of the segment in the list.
    pub number: usize,
    /// The offset behind the run's last visible message.
    pub end: u64,
}

/// The hot segment that has the message at `offset`. Newest first, because that is where readers are.
pub(crate) fn find_hot(list: &List, queue: QueueNo, offset: u64, max: u64) -> Option<HotRun> {
    let mut end = max;
    for (number, segment) in list.items().iter().enumerate().rev() {
        let hot = segment.hot();
        let index = &hot.as_ref()?.index;
        let Some(run) = index.run(queue) else {
            continue;
        };
        if run.first() <= offset {
            return (offset < end).then_some(HotRun { number, end });
        }
        // A newer run may begin with messages that are not published yet.
        end = end.min(run.first());
    }
    None
}

/// The queue's run after `at`.
fn find_next(list: &List, queue: QueueNo, at: &HotRun, max: u64) -> Option<HotRun> {
    if at.end >= max {
        return None;
    }
    (at.number + 1..list.items().len()).find_map(|number| {
        let hot = list.items()[number].hot();
        let run = hot.as_ref()?.index.run(queue)?;
        debug_assert_eq!(run.first(), at.end, "offsets have no gap");
        // The run's own end is the start of the one after it.
        let found = find_hot(list, queue, run.first(), max)?;
        Some(found)
    })
}

/// So many records are on their way into the cache while one is looked at, or copied.
const LOOKED_AHEAD: u64 = 4;
const COPIED_AHEAD: u64 = 2;
/// Among so many the next ones to copy are searched.
const SEARCHED_AHEAD: u64 = 16;

/// What becomes of records in the window.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taking {
    Copy,
    /// Copied only if this thread has lent too much already.
    Loan,
}

/// What keeps the writer away from records in the window.
enum Held<'a> {
    Pinned(Pinned<'a>),
    Lent(Loan),
}

impl Held<'_> {
    fn new(window: &Arc<Window>, taking: Taking, from: u64) -> Option<Held<'_>> {
        let loan = (taking == Taking::Loan).then(|| window.lend(from));
        match loan.flatten() {
            Some(loan) => Some(Held::Lent(loan)),
            None => window.pin(from).map(Held::Pinned),
        }
    }

    #[inline]
    fn bytes(&self, at: u64, len: usize) -> &[u8] {
        match self {
            Held::Pinned(pinned) => pinned.bytes(at, len),
            Held::Lent(loan) => loan.bytes(at, len),
        }
    }
}

/// Picks from one run. Returns whether to go on in the next one.
#[allow(clippy::too_many_arguments)] // one loop body, named
fn pick_hot(
    taking: Taking,
    picker: &mut Picker,
    segment: &Segment,
    hot: &Arc<Hot>,
    queue: &Queue,
    end: u64,
    hot_from: u64,
    accept: &mut impl Accept,
    into: &mut Gather,
) -> bool {
    let Some(run) = hot.index.run(queue.no()) else {
        return false;
    };
    let base = segment.base();
    let source = into.sources.len();
    let mut used = false;
    let mut held = None;
    let mut prefetched = picker.next;
    let looks_at_records = accept.looks_at_records();
    let (searched, asked_max) = match (&hot.memory, looks_at_records) {
        (_, true) => (LOOKED_AHEAD, u64::MAX),
        (Memory::Window(_), false) => (SEARCHED_AHEAD, COPIED_AHEAD),
        (Memory::Mapped(_), false) => (0, 0),
    };
    // Asked for and not yet taken.
    let mut asked = 0;
    while picker.next < end {
        let entry = run
            .entry(picker.next)
            .expect("an entry below the queue's end is in its run");
        // Otherwise each record would be waited for: the records of a queue lie apart.
        while asked < asked_max && prefetched < end.min(picker.next + searched) {
            if let Some(entry) = run.entry(prefetched) {
                let position = u64::from(entry.position);
                if looks_at_records {
                    hot.prefetch_ends(base, position, entry.bytes);
                } else if accept.by_hash(entry.tag_hash) {
                    hot.prefetch_whole(base, position, entry.bytes);
                    asked += 1;
                }
            }
            prefetched += 1;
        }
        let position = u64::from(entry.position);
        if base + position < hot_from {
            break;
        }
        if let Memory::Window(window) = &hot.memory
            && held.is_none()
        {
            held = Held::new(window, taking, base + position);
            if held.is_none() {
                break;
            }
        }
        // The bytes of the record, for those who look at it and those who copy it.
        let record = || match (&hot.memory, &held) {
            (_, Some(held)) => held.bytes(base + position, entry.bytes as usize),
            (Memory::Mapped(mapping), _) => {
                let at = usize::try_from(position).expect("a position in a segment fits usize");
                // SAFETY: it is a record below the queue's end, which nobody changes any more.
                unsafe { mapping.bytes(at, entry.bytes as usize) }
            }
            (Memory::Window(_), None) => unreachable!("a window is held above"),
        };
        let wanted = |tag_hash| {
            accept.by_hash(tag_hash) && (!looks_at_records || accept.by_record(record()))
        };
        match picker.offer(entry.bytes, entry.tag_hash, true, wanted) {
            Pick::Full => break,
            Pick::Skip => {}
            Pick::Take => {
                used = true;
                asked = asked.saturating_sub(1);
                match &held {
                    None => add_slice(into, source, position, entry.bytes),
                    Some(Held::Lent(_)) => add_slice(into, source, base + position, entry.bytes),
                    Some(Held::Pinned(_)) => copy_slice(into, source, record()),
                }
            }
        }
    }
    if used {
        into.sources.push(match (&hot.memory, held) {
            (Memory::Mapped(mapping), _) => Source::Mapping(mapping.clone()),
            (Memory::Window(_), Some(Held::Lent(loan))) => Source::Lent(Box::new(loan)),
            (Memory::Window(_), _) => Source::Copied,
        });
    }
    picker.next == end
}

/// Adds a copy of bytes, to be found in the source numbered `source`.
fn copy_slice(into: &mut Gather, source: usize, bytes: &[u8]) {
    let copies = into.copy_space();
    let at = copies.len() as u64;
    copies.extend_from_slice(bytes);
    add_slice(into, source, at, bytes.len() as u32);
}

/// Adds bytes of the source numbered `source`; joins them to the slice before if they follow it.
fn add_slice(into: &mut Gather, source: usize, offset: u64, len: u32) {
    let source = u16::try_from(source).expect("a read uses few sources");
    into.push_slice(Slice {
        source,
        offset,
        len,
    });
}

/// Decides, entry by entry, what belongs to one answer.
struct Picker<'a> {
    limits: &'a ReadLimits,
    next: u64,
    scanned: u32,
    messages: u32,
    bytes: u64,
}

enum Pick {
    /// It belongs to the next read, and so does everything after it.
    Full,
    /// Not accepted.
    Skip,
    Take,
}

impl<'a> Picker<'a> {
    fn new(limits: &'a ReadLimits, offset: QueueOffset) -> Picker<'a> {
        Picker {
            limits,
            next: offset.0,
            scanned: 0,
            messages: 0,
            bytes: 0,
        }
    }

    /// Decides about the message at `next`, and steps over it unless the answer is full.
    #[inline]
    fn offer(
        &mut self,
        bytes: u32,
        tag_hash: i32,
        in_memory: bool,
        accept: impl FnOnce(i32) -> bool,
    ) -> Pick {
        if bytes == 0 {
            self.next += 1; // No record has this offset.
            return Pick::Skip;
        }
        if !self.may_scan() || self.is_full(bytes, in_memory) {
            return Pick::Full;
        }
        self.scanned += 1;
        self.next += 1;
        if !accept(tag_hash) {
            return Pick::Skip;
        }
        self.messages += 1;
        self.bytes += u64::from(bytes);
        Pick::Take
    }

    /// Whether one more entry may be looked at.
    fn may_scan(&self) -> bool {
        let scan_max = self.limits.scan_max.max(self.limits.messages_max);
        self.scanned < scan_max.max(1)
    }

    /// Whether a message of this length is one too many. The first never is.
    fn is_full(&self, bytes: u32, in_memory: bool) -> bool {
        if self.messages == 0 {
            return false;
        }
        let limits = self.limits;
        let (messages_max, bytes_max) = if in_memory {
            (limits.memory_messages_max, limits.memory_bytes_max)
        } else {
            (limits.disk_messages_max, limits.disk_bytes_max)
        };
        let bytes_max = u64::from(bytes_max.min(limits.bytes_max));
        self.messages >= messages_max.min(limits.messages_max)
            || self.bytes + u64::from(bytes) > bytes_max
    }

    fn outcome(&self) -> Read {
        let next = QueueOffset(self.next);
        if self.messages == 0 {
            return Read::NoneMatched { next };
        }
        Read::Found(Found {
            next,
            messages: self.messages,
            bytes: self.bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RocketMQ's rules, written as a plain loop over (bytes, tag).
    fn model(
        list: &[(u32, i32)],
        limits: &ReadLimits,
        memory: bool,
        tag: Option<i32>,
    ) -> (usize, Vec<usize>) {
        let mut taken: Vec<usize> = Vec::new();
        let mut total = 0u64;
        for (n, (bytes, hash)) in list.iter().enumerate() {
            let (count_max, bytes_max) = match memory {
                true => (limits.memory_messages_max, limits.memory_bytes_max),
                false => (limits.disk_messages_max, limits.disk_bytes_max),
            };
            let full = !taken.is_empty()
                && (taken.len() as u32 + 1 > limits.messages_max
                    || total + u64::from(*bytes) > u64::from(limits.bytes_max)
                    || total + u64::from(*bytes) > u64::from(bytes_max)
                    || taken.len() as u32 > count_max - 1);
            if full || n as u32 >= limits.scan_max.max(limits.messages_max) {
                return (n, taken);
            }
            if tag.is_none_or(|tag| tag == *hash) {
                taken.push(n);
                total += u64::from(*bytes);
            }
        }
        (list.len(), taken)
    }

    proptest! {
        #[test]
        fn an_answer_ends_where_rocketmqs_would(
            list in proptest::collection::vec((1u32..2_000, 0i32..3), 0..60),
            messages_max in 1u32..40,
            bytes_max in 100u32..20_000,
            count_max in 1u32..40,
            memory: bool,
            tag in proptest::option::of(0i32..3),
            scan_max in 1u32..50,
        ) {
            let limits = ReadLimits {
                messages_max,
                bytes_max,
                memory_messages_max: count_max,
                memory_bytes_max: 10_000,
                disk_messages_max: count_max.div_ceil(2),
                disk_bytes_max: 5_000,
                scan_max,
            };
            let mut picker = Picker::new(&limits, QueueOffset(0));
            let mut taken = Vec::new();
            for (n, (bytes, hash)) in list.iter().enumerate() {
                match picker.offer(*bytes, *hash, memory, |hash| tag.is_none_or(|tag| tag == hash)) {
                    Pick::Full => break,
                    Pick::Skip => {}
                    Pick::Take => taken.push(n),
                }
            }
            prop_assert_eq!((picker.next as usize, taken), model(&list, &limits, memory, tag));
        }
    }

    #[test]
    fn neighbours_become_one_slice() {
        let mut gather = Gather::default();
        add_slice(&mut gather, 0, 100, 50);
        add_slice(&mut gather, 0, 150, 10);
        add_slice(&mut gather, 0, 170, 10);
        let slices: Vec<(u64, u32)> = gather.slices.iter().map(|s| (s.offset, s.len)).collect();
        assert_eq!(slices, [(100, 60), (170, 10)]);
    }
}
