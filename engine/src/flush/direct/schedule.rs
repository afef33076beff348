//! Which bytes of the log are written next, and how far they have got. No I/O and no clock: the caller does what
//! `next` says and reports it to `landed`.
//!
//! A block never has two writes in flight. The tail's block may be written before it is full; what is laid into it
//! meanwhile waits for that write, while whole blocks behind it need not: then the block is left out, a hole, and
//! written again once the write before has landed. `done` moves only over what has landed without a gap.
//!
//! ```text
//!   log      ──────────┬───────┬───────────────────┬────── laid
//!   in flight  [ a      ··]     [ b                 ]
//!                       hole
//! ```

use crate::window::{BLOCK_BYTES, block_of};
use std::ops::Range;

/// Longest write: what lies behind it in the disk's queue waits for it.
const WRITE_BYTES_MAX: u64 = 1 << 20;
/// So many writes are in flight at most.
pub const WRITES_MAX: usize = 4;
/// When nobody waits, this much is collected before it is written.
const LAZY_BYTES_MIN: u64 = 256 << 10;
/// When somebody waits, whole blocks overtake a tail block in flight if there are this many bytes of them. The block left
/// out costs a write and a flush of the disk's cache of its own, and what overtook counts only after that.
const OVERTAKE_BYTES_MIN: u64 = 256 << 10;

/// Bytes `from..to` of the log; `from` is the start of a block, `to` is the end of one or of what is laid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    pub from: u64,
    pub to: u64,
}

impl Write {
    /// Whether the block at `block` is among what is written.
    fn covers(&self, block: u64) -> bool {
        self.from <= block && block < self.to
    }

    /// The part that is whole blocks.
    pub fn whole(&self) -> u64 {
        block_of(self.to) - self.from
    }
}

pub struct Schedule {
    segment_bytes: u64,
    write_bytes_max: u64,
    /// Everything below has landed.
    done: u64,
    /// Nothing from here on was ever given out; below, everything was, but for holes.
    next: u64,
    in_flight: Vec<Write>,
    /// Landed before something in front of them has.
    landed: Vec<Write>,
    /// Whole blocks that are not written at all.
    left_out: Option<Range<u64>>,
    /// Starts of blocks that were given out before they were full, and have to be given out again.
    holes: Vec<u64>,
}

impl Schedule {
    /// Everything below `end` is on disk. Pieces of up to `piece_bytes_max` are contiguous in memory.
    pub fn new(segment_bytes: u64, end: u64, piece_bytes_max: u64) -> Schedule {
        assert!(segment_bytes.is_multiple_of(BLOCK_BYTES), "whole blocks");
        assert!(piece_bytes_max >= BLOCK_BYTES, "a block at least");
        Schedule {
            segment_bytes,
            write_bytes_max: block_of(piece_bytes_max).min(WRITE_BYTES_MAX),
            done: end,
            next: end,
            in_flight: Vec::with_capacity(WRITES_MAX),
            landed: Vec::with_capacity(WRITES_MAX),
            left_out: None,
            holes: Vec::with_capacity(WRITES_MAX),
        }
    }

    /// What is laid ends with `range`, which is whole blocks and is not to be written.
    pub fn leave_out(&mut self, range: Range<u64>) {
        assert!(
            self.next <= range.start && range.start.is_multiple_of(BLOCK_BYTES),
            "whole blocks nobody has been given"
        );
        assert!(self.left_out.is_none(), "one at a time");
        self.left_out = Some(range);
        self.pass_left_out();
    }

    /// Everything in front of what is left out has been given out, or has landed: so has that.
    fn pass_left_out(&mut self) {
        let Some(range) = &self.left_out else {
            return;
        };
        if self.next == range.start {
            self.next = range.end;
        }
        if self.done == range.start {
            self.done = range.end;
            self.left_out = None;
        }
    }

    pub fn done(&self) -> u64 {
        self.done
    }

    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether it is time to ask for a write without anybody waiting. Cheap: asked once per turn of the writer.
    #[inline]
    pub fn is_due(&self, laid: u64) -> bool {
        laid - block_of(self.next) >= LAZY_BYTES_MIN
    }

    /// The next write, if there is one to begin now: `laid` is the end of the log, and somebody waits for everything
    /// below `wanted`. It is in flight from then on.
    pub fn next(&mut self, laid: u64, wanted: u64) -> Option<Write> {
        debug_assert!(self.done <= self.next && self.next <= laid && wanted <= laid);
        if self.in_flight.len() >= WRITES_MAX {
            return None;
        }
        let write = self.next_hole().or_else(|| self.next_new(laid, wanted))?;
        debug_assert!(
            write.from.is_multiple_of(BLOCK_BYTES) && write.from < write.to && write.to <= laid
        );
        self.in_flight.push(write);
        Some(write)
    }

    fn next_hole(&mut self) -> Option<Write> {
        let free = |hole: &u64| !self.in_flight.iter().any(|write| write.covers(*hole));
        let number = self.holes.iter().position(free)?;
        let from = self.holes.swap_remove(number);
        let to = from + BLOCK_BYTES;
        Some(Write { from, to })
    }

    fn next_new(&mut self, laid: u64, wanted: u64) -> Option<Write> {
        let is_waited_for = wanted > self.next;
        let mut from = block_of(self.next);
        let lazily = LAZY_BYTES_MIN.min(self.write_bytes_max);
        let mut least = if is_waited_for { 1 } else { lazily };
        let overtakes = self.in_flight.iter().any(|write| write.covers(from));
        let hole = from;
        if overtakes {
            from += BLOCK_BYTES;
            least = least.max(OVERTAKE_BYTES_MIN.min(self.write_bytes_max));
        }
        let mut segment_end = (from / self.segment_bytes + 1) * self.segment_bytes;
        if let Some(range) = &self.left_out
            && self.next < range.end
        {
            segment_end = range.start;
        }
        let longest = segment_end.min(from + self.write_bytes_max);
        let to = if is_waited_for {
            laid.min(longest)
        } else {
            block_of(laid).min(longest)
        };
        let new = to.saturating_sub(from.max(self.next));
        // The end of a segment is written when it is there, so that it can be sealed.
        let ends_segment = to == segment_end && new > 0 && !overtakes;
        if new < least && !ends_segment {
            return None;
        }
        if overtakes {
            self.holes.push(hole);
        }
        self.next = to;
        self.pass_left_out();
        Some(Write { from, to })
    }

    /// A write has succeeded. Returns whether `done` has moved.
    pub fn landed(&mut self, write: Write) -> bool {
        let number = self.in_flight.iter().position(|other| *other == write);
        self.in_flight
            .swap_remove(number.expect("what lands was in flight"));
        self.landed.push(write);
        let before = self.done;
        while let Some(next) = self
            .landed
            .iter()
            .find(|write| write.from <= self.done && write.to > self.done)
        {
            self.done = next.to;
            self.pass_left_out();
        }
        self.landed.retain(|write| write.to > self.done);
        self.done > before
    }

    /// A write has failed: its bytes are in flight for ever, nobody knows what became of them.
    pub fn failed(&mut self, write: Write) {
        let number = self.in_flight.iter().position(|other| *other == write);
        self.in_flight
            .swap_remove(number.expect("what fails was in flight"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEGMENT_BYTES: u64 = 3 << 20;
    const PIECE_BYTES: u64 = 16 << 20;

    #[test]
    fn one_small_record_is_one_write_of_its_block() {
        let mut schedule = Schedule::new(SEGMENT_BYTES, 100, PIECE_BYTES);
        assert_eq!(schedule.next(100, 100), None);
        assert_eq!(schedule.next(300, 100), None, "nobody waits");
        let write = schedule.next(300, 300).expect("somebody waits");
        assert_eq!(write, Write { from: 0, to: 300 });
        assert_eq!(schedule.next(400, 400), None, "its block is in flight");
        assert!(schedule.landed(write));
        assert_eq!(schedule.done(), 300);
        let write = schedule.next(400, 400).expect("the block is free");
        assert_eq!(write, Write { from: 0, to: 400 });
    }

    #[test]
    fn whole_blocks_overtake_the_tail_in_flight_and_the_hole_follows() {
        let mut schedule = Schedule::new(SEGMENT_BYTES, 0, PIECE_BYTES);
        let tail = schedule.next(1_000, 1_000).expect("somebody waits");
        let laid = 400_000;
        let behind = schedule.next(laid, laid).expect("there is much");
        assert_eq!(behind.from, BLOCK_BYTES);
        assert_eq!(behind.to, laid);
        assert!(!schedule.landed(behind), "the hole is missing");
        assert!(schedule.landed(tail));
        assert_eq!(schedule.done(), 1_000);
        let hole = schedule.next(laid, laid).expect("its block is free now");
        assert_eq!((hole.from, hole.to), (0, BLOCK_BYTES));
        assert!(schedule.landed(hole));
        assert_eq!(schedule.done(), laid);
    }

    #[test]
    fn without_anybody_waiting_only_much_is_written_and_only_whole_blocks() {
        let mut schedule = Schedule::new(SEGMENT_BYTES, 0, PIECE_BYTES);
        assert!(!schedule.is_due(LAZY_BYTES_MIN - 1));
        assert_eq!(schedule.next(LAZY_BYTES_MIN - 1, 0), None);
        let laid = LAZY_BYTES_MIN + 10;
        assert!(schedule.is_due(laid));
        let write = schedule.next(laid, 0).expect("it is due");
        assert_eq!((write.from, write.to), (0, LAZY_BYTES_MIN));
    }

    /// The disk, block by block: how many of its bytes of the log are there, and whether a write is in flight.
    #[derive(Default)]
    struct Disk {
        blocks: std::collections::BTreeMap<u64, (u64, bool)>,
        left_out: Vec<Range<u64>>,
    }

    impl Disk {
        fn begin(&mut self, write: Write) {
            let overlaps = |range: &Range<u64>| write.from < range.end && range.start < write.to;
            assert!(!self.left_out.iter().any(overlaps), "that is left out");
            for block in (write.from..write.to).step_by(BLOCK_BYTES as usize) {
                let (has, busy) = self.blocks.entry(block).or_default();
                assert!(!*busy, "block {block} has two writes in flight");
                *busy = true;
                let bytes = (write.to - block).min(BLOCK_BYTES);
                assert!(bytes >= *has, "what was there stays there");
            }
        }

        fn end(&mut self, write: Write) {
            for block in (write.from..write.to).step_by(BLOCK_BYTES as usize) {
                let state = self.blocks.get_mut(&block).expect("it was begun");
                *state = ((write.to - block).min(BLOCK_BYTES), false);
            }
        }

        /// End of what is there without a gap, given that everything below `start` was.
        fn prefix(&self, start: u64) -> u64 {
            let mut end = start;
            loop {
                let block = block_of(end);
                let has = self.blocks.get(&block).map_or(0, |(has, _)| block + has);
                let left_out = self.left_out.iter().find(|range| range.start == end);
                end = match left_out {
                    Some(range) => range.end,
                    None if has <= end => return end,
                    None => has,
                };
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        Lay(u64),
        EndSegment,
        WaitForAll,
        Begin,
        Land(usize),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            3 => (1u64..3_000).prop_map(Event::Lay),
            2 => (1u64..400_000).prop_map(Event::Lay),
            1 => Just(Event::EndSegment),
            3 => Just(Event::WaitForAll),
            6 => Just(Event::Begin),
            5 => (0usize..WRITES_MAX).prop_map(Event::Land),
        ];
        proptest::collection::vec(event, 1..100)
    }

    proptest! {
        #[test]
        fn whatever_the_order_blocks_are_written_once_at_a_time_and_done_is_what_is_there(
            start in 0u64..20_000,
            piece_bytes in 4_096u64..2_000_000,
            events in events(),
        ) {
            let mut schedule = Schedule::new(SEGMENT_BYTES, start, piece_bytes);
            let mut disk = Disk::default();
            let (mut laid, mut wanted) = (start, start);
            let mut flying: Vec<Write> = Vec::new();
            let (mut steps, count) = (0, events.len());
            let finish = [Event::WaitForAll, Event::Begin, Event::Land(0)];
            // Even if each write is one block.
            let rounds = 60_000;
            let rest = finish.iter().cycle().take(rounds).cloned();
            for event in events.into_iter().chain(rest) {
                match event {
                    // Nothing is laid behind what is left out before that is passed.
                    Event::Lay(_) | Event::EndSegment if schedule.left_out.is_some() => {}
                    Event::Lay(bytes) => laid += bytes,
                    Event::EndSegment => {
                        let range = (laid + 8).next_multiple_of(BLOCK_BYTES)..(laid / SEGMENT_BYTES + 1) * SEGMENT_BYTES;
                        if !range.is_empty() {
                            laid = range.end;
                            disk.left_out.push(range.clone());
                            schedule.leave_out(range);
                        }
                    }
                    Event::WaitForAll => wanted = laid,
                    Event::Begin => {
                        if let Some(write) = schedule.next(laid, wanted) {
                            prop_assert!(write.from / SEGMENT_BYTES == (write.to - 1) / SEGMENT_BYTES);
                            prop_assert!(write.to - write.from <= piece_bytes.min(WRITE_BYTES_MAX));
                            disk.begin(write);
                            flying.push(write);
                            prop_assert!(flying.len() <= WRITES_MAX);
                        } else if flying.is_empty() {
                            prop_assert!(schedule.done() >= wanted, "nothing to do, yet not done");
                        }
                    }
                    Event::Land(number) if !flying.is_empty() => {
                        let write = flying.remove(number % flying.len());
                        disk.end(write);
                        schedule.landed(write);
                    }
                    Event::Land(_) => {}
                }
                prop_assert_eq!(schedule.done(), disk.prefix(schedule.done()));
                prop_assert_eq!(schedule.is_idle(), flying.is_empty());
                if schedule.done() == laid && wanted == laid && flying.is_empty() && steps > count {
                    break;
                }
                steps += 1;
            }
            prop_assert_eq!(schedule.done(), disk.prefix(start));
            prop_assert_eq!(schedule.done(), laid, "everything that is waited for arrives");
        }
    }
}
